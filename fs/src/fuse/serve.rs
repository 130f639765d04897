//! Answers requests without ever making a FUSE worker wait.
//!
//! The worker polls an operation once: reads of a local backend are ready then, and the reply goes out
//! without a change of threads. What is not ready goes on in the runtime when it is awakened, and not
//! before: at a commit the thread that awakens it is the one that goes on with it, which spares each
//! commit the awakening of another thread. The number of those that wait is bounded. A panic would only
//! end its worker; so it ends the process ([`crate::panics`]).

use std::sync::Arc;

use async_task::Runnable;
use fuser::Errno;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::filesystem::Answer;
use crate::panics::AbortOnPanic;

/// Requests that wait for the key space at once; beyond it they are refused before anything starts.
const PENDING_MAX: usize = 4_096;

#[derive(Debug)]
pub(super) struct Server {
    runtime: Handle,
    pending: Arc<Semaphore>,
}

impl Server {
    pub(super) fn new(runtime: Handle) -> Self {
        Self { runtime, pending: Arc::new(Semaphore::new(PENDING_MAX)) }
    }

    /// Runs `operation` and hands its answer to `send`: at once if it is ready, else later in a task.
    pub(super) fn serve<T>(
        &self,
        operation: impl Future<Output = Answer<T>> + Send + 'static,
        send: impl FnOnce(Answer<T>) + Send + 'static,
    ) {
        let Ok(permit) = Arc::clone(&self.pending).try_acquire_owned() else {
            send(Err(Errno::EAGAIN));
            return;
        };
        let work = AbortOnPanic::new(async move {
            send(operation.await);
            drop(permit);
        });
        let runtime = self.runtime.clone();
        let go_on = move |work: Runnable| {
            // Of whoever awakens it, which may have a runtime of its own.
            let here = Handle::try_current().unwrap_or_else(|_| runtime.clone());
            let runtime = runtime.clone();
            drop(here.spawn(async move {
                let _entered = runtime.enter();
                work.run();
            }));
        };
        let (work, task) = async_task::spawn(work, go_on);
        task.detach();
        let _entered = self.runtime.enter();
        work.run();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use fuser::Errno;

    use super::{PENDING_MAX, Server};

    #[test]
    fn what_is_ready_is_answered_by_the_worker_and_the_rest_by_a_task() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let server = Server::new(runtime.handle().clone());
        let (answers, received) = mpsc::channel();
        let own = std::thread::current().id();
        let sender = answers.clone();
        server.serve(async { Ok(1) }, move |answer| {
            sender.send((answer, std::thread::current().id())).unwrap();
        });
        assert_eq!(received.try_recv().unwrap(), (Ok(1), own));

        server.serve(
            async {
                tokio::task::yield_now().await;
                Ok(2)
            },
            move |answer| answers.send((answer, std::thread::current().id())).unwrap(),
        );
        let (answer, thread) = received.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(answer, Ok(2));
        assert_ne!(thread, own);
    }

    #[test]
    fn too_many_that_wait_are_refused() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let server = Server::new(runtime.handle().clone());
        let (answers, received) = mpsc::channel();
        for _ in 0..=PENDING_MAX {
            let sender = answers.clone();
            server.serve(std::future::pending::<Result<(), Errno>>(), move |answer| {
                sender.send(answer).unwrap();
            });
        }
        assert_eq!(received.try_recv().unwrap(), Err(Errno::EAGAIN));
        assert!(received.try_recv().is_err(), "all others wait");
    }
}
