//! What replication runs on: tokio. In this crate's own tests it can be the simulation's one thread instead,
//! with a clock that stands still while there is something to do.

use std::io;

#[cfg(not(test))]
pub(crate) use openraft::impls::TokioRuntime as Runtime;

#[cfg(test)]
pub(crate) use super::simulation::Runtime;

/// The clock of replication.
pub(crate) type Instant = <Runtime as openraft::AsyncRuntime>::Instant;

pub(crate) fn now() -> Instant {
    openraft::Instant::now()
}

/// Does work that blocks where nothing else waits for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    #[cfg(test)]
    if super::simulation::is_entered() {
        return Ok(work());
    }
    Ok(tokio::task::spawn_blocking(work).await?)
}
