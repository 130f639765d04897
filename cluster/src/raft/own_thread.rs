//! The thread that replication runs on. Its tasks hand each entry to each other a few times; on a thread of
//! their own that costs no awakening, they wait for no request of a client, and appending may wait for the
//! disk.

use std::io;

use tokio::runtime::{Builder, Runtime};

use super::core::RaftError;

/// Dropped, its tasks end where they are.
pub(super) struct OwnThread(Option<Runtime>);

impl OwnThread {
    pub(super) fn new() -> io::Result<Self> {
        // Of the kind that can be given another thread while this one blocks: apply may have to wait.
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("raft").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// Replication runs where it is started.
    #[cfg(test)]
    pub(super) fn of_the_caller() -> Self {
        Self(None)
    }

    /// Runs a future there; what it spawns stays there.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, RaftError> {
        let runtime = self.0.as_ref().expect("it is taken as it is dropped");
        let ended = runtime.spawn(future).await;
        ended.map_err(|error| RaftError::Stopped { reason: error.to_string() })
    }
}

impl Drop for OwnThread {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Waiting is not allowed where it may be dropped: within another runtime.
            runtime.shutdown_background();
        }
    }
}
