//! The runtime of the crate's own tests: tokio's, and on a thread that runs a simulation the simulation's.
//!
//! Channels and locks are tokio's, which take turns in the order of those who wait. Its watch channel does not:
//! it wakes them in an order of its own dice, so that there is another one here.

use std::convert::Infallible;
use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use openraft::impls::TokioRuntime;
use openraft::{AsyncRuntime, OptionalSend};
use tokio::sync::oneshot;

use super::executor::{self, Executor};
use super::watch::Watch;

/// See the module.
#[derive(Debug)]
pub(crate) struct Runtime;

/// Since the beginning of the world; outside of simulations, since somebody first asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

static BEGUN: OnceLock<std::time::Instant> = OnceLock::new();

/// Moments before the beginning are asked for, too.
const OFFSET: Duration = Duration::from_secs(1 << 20);

impl openraft::Instant for Instant {
    fn now() -> Self {
        let since = match executor::entered() {
            Some(executor) => executor.now(),
            None => BEGUN.get_or_init(std::time::Instant::now).elapsed(),
        };
        Self(OFFSET + since)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0 + time)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, time: Duration) {
        self.0 += time;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, time: Duration) -> Self {
        Self(self.0 - time)
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, time: Duration) {
        self.0 -= time;
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Ends when its time has come.
pub(crate) enum Sleep {
    Real(Pin<Box<tokio::time::Sleep>>),
    Simulated { executor: Executor, until: Duration, name: Option<(Duration, u64)> },
}

impl Sleep {
    fn until(deadline: Instant) -> Self {
        match executor::entered() {
            Some(executor) => {
                let until = deadline.0.saturating_sub(OFFSET);
                Self::Simulated { executor, until, name: None }
            }
            None => {
                let left = deadline - <Instant as openraft::Instant>::now();
                Self::Real(Box::pin(tokio::time::sleep(left)))
            }
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match &mut *self {
            Self::Real(sleep) => sleep.as_mut().poll(context),
            Self::Simulated { executor, until, name } => {
                if let Some(name) = name.take() {
                    executor.forget(name);
                }
                if executor.now() >= *until {
                    return Poll::Ready(());
                }
                *name = Some(executor.sleep(*until, context.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Self::Simulated { executor, name: Some(name), .. } = self {
            executor.forget(*name);
        }
    }
}

#[derive(Debug)]
pub(crate) struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the deadline has passed")
    }
}

/// Ends with the future, or at its deadline.
pub(crate) struct Timeout<F> {
    future: Pin<Box<F>>,
    sleep: Sleep,
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(value) = self.future.as_mut().poll(context) {
            return Poll::Ready(Ok(value));
        }
        Pin::new(&mut self.sleep).poll(context).map(|()| Err(Elapsed))
    }
}

/// A task that has ended without its value: it panicked, or was killed.
#[derive(Debug)]
pub(crate) enum JoinError {
    Real(tokio::task::JoinError),
    Killed,
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Real(error) => error.fmt(f),
            Self::Killed => f.write_str("the task was killed"),
        }
    }
}

/// Dropped, the task goes on.
pub(crate) enum JoinHandle<T> {
    Real(tokio::task::JoinHandle<T>),
    Simulated(oneshot::Receiver<T>),
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Real(handle) => {
                Pin::new(handle).poll(context).map(|end| end.map_err(JoinError::Real))
            }
            Self::Simulated(end) => {
                Pin::new(end).poll(context).map(|end| end.map_err(|_| JoinError::Killed))
            }
        }
    }
}

/// The dice of the simulation; outside of one, the process's.
pub(crate) struct Rng(Option<Executor>);

impl rand::TryRng for Rng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::try_from(self.try_next_u64()? >> 32).expect("the upper half"))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let Some(executor) = &self.0 else {
            return Ok(getrandom::u64().expect("the system has random numbers"));
        };
        Ok(executor.roll())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            let random = self.try_next_u64()?.to_be_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
        Ok(())
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = JoinError;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = Instant;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Timeout<T>;
    type ThreadLocalRng = Rng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let Some(executor) = executor::entered() else {
            return JoinHandle::Real(tokio::spawn(future));
        };
        let (done, end) = oneshot::channel();
        // Whoever spawned it need not listen.
        let task = async move { drop(done.send(future.await)) };
        executor.spawn_in(executor.running(), task);
        JoinHandle::Simulated(end)
    }

    fn sleep(duration: Duration) -> Sleep {
        Sleep::until(<Instant as openraft::Instant>::now() + duration)
    }

    fn sleep_until(deadline: Instant) -> Sleep {
        Sleep::until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(time: Duration, future: F) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Self::sleep(time) }
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(at: Instant, future: F) -> Timeout<F> {
        Timeout { future: Box::pin(future), sleep: Sleep::until(at) }
    }

    fn is_panic(error: &JoinError) -> bool {
        matches!(error, JoinError::Real(error) if error.is_panic())
    }

    fn thread_rng() -> Rng {
        Rng(executor::entered())
    }

    fn new(_threads: usize) -> Self {
        Self
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(future)
    }
}
