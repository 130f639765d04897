//! A panic in a part that the mount cannot do without ends the process: a mount whose worker, notifier
//! or watcher is gone would hang slowly, or show what is old for ever.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Runs a thread's work; ends the process if it panics.
pub(crate) fn abort_on_panic<T>(work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::error!("a part of the mount panicked; the process ends, for the mount would hang");
        std::process::abort();
    })
}

/// A task that ends the process if it panics.
pub(crate) struct AbortOnPanic<F>(Pin<Box<F>>);

impl<F: Future> AbortOnPanic<F> {
    pub(crate) fn new(work: F) -> Self {
        Self(Box::pin(work))
    }
}

impl<F: Future> Future for AbortOnPanic<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        abort_on_panic(|| self.0.as_mut().poll(context))
    }
}
