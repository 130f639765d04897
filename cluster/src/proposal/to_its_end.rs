//! A future that is driven to its end, whoever waits for it: a proposal that was sent holds its place
//! in the queue until replication has answered it, not until its caller has lost patience.
//!
//! As long as somebody waits it is polled in their task, so that an answer costs no switch of tasks;
//! what is dropped before its end goes on in a task of its own.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

pub(super) struct ToItsEnd<T: Send + 'static> {
    rest: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
}

impl<T: Send + 'static> ToItsEnd<T> {
    pub(super) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self { rest: Some(Box::pin(future)) }
    }
}

impl<T: Send + 'static> Future for ToItsEnd<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let rest = self.rest.as_mut().expect("it is not polled after its end");
        let polled = rest.as_mut().poll(context);
        if polled.is_ready() {
            self.rest = None;
        }
        polled
    }
}

impl<T: Send + 'static> Drop for ToItsEnd<T> {
    fn drop(&mut self) {
        let Some(rest) = self.rest.take() else { return };
        // Without a runtime replication has ended too.
        if let Ok(runtime) = Handle::try_current() {
            drop(runtime.spawn(rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::ToItsEnd;

    #[tokio::test]
    async fn what_is_dropped_before_its_end_goes_on() {
        let (go, gone) = oneshot::channel::<()>();
        let (done, is_done) = oneshot::channel();
        let mut own = ToItsEnd::new(async move {
            gone.await.ok();
            done.send(7).ok();
        });
        tokio::select! {
            biased;
            () = &mut own => panic!("nobody let it go on"),
            () = std::future::ready(()) => {}
        }
        drop(own);
        drop(go);
        assert_eq!(is_done.await, Ok(7));
    }

    #[tokio::test]
    async fn what_has_ended_is_not_begun_again() {
        assert_eq!(ToItsEnd::new(async { 7 }).await, 7);
    }
}
