//! The lease of a mount: what it holds in the store for others to see goes when the mount is gone.
//!
//! It is granted when it is first needed, and renewed by a task three times in its time. If it is lost
//! all the same (this machine slept, the cluster was away), what hung on it is gone; the next who needs
//! a lease is granted a new one. It is revoked when the mount ends.

use std::sync::Arc;
use std::time::Duration;

use revfs_api::KeySpace;
use revfs_api::keyspace::{LeaseId, Result};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

const TTL_SECONDS: i64 = 60;
const RENEW_EVERY: Duration = Duration::from_secs(20);

/// After a renewal that failed.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// See the module.
pub(crate) struct MountLease {
    keys: Arc<dyn KeySpace>,
    kept: tokio::sync::Mutex<Option<Kept>>,
}

struct Kept {
    id: LeaseId,
    /// Ends when the lease is found to be lost.
    renewing: JoinHandle<()>,
    runtime: Handle,
}

impl MountLease {
    pub(crate) fn new(keys: Arc<dyn KeySpace>) -> Self {
        Self { keys, kept: tokio::sync::Mutex::default() }
    }

    /// The mount's lease, granted now if there is none.
    pub(crate) async fn id(&self) -> Result<LeaseId> {
        let mut kept = self.kept.lock().await;
        if let Some(kept) = kept.as_ref().filter(|kept| !kept.renewing.is_finished()) {
            return Ok(kept.id);
        }
        let (id, _) = self.keys.lease_grant(LeaseId(0), TTL_SECONDS).await?;
        let renewing = tokio::spawn(renew(Arc::clone(&self.keys), id));
        *kept = Some(Kept { id, renewing, runtime: Handle::current() });
        Ok(id)
    }

    /// Whether the lease is gone; then the next who needs one is granted a new one.
    pub(crate) async fn is_lost(&self, id: LeaseId) -> bool {
        let is_lost = matches!(self.keys.lease_keep_alive(id).await, Ok(None));
        if is_lost && let Some(lost) = self.kept.lock().await.take_if(|kept| kept.id == id) {
            lost.renewing.abort();
        }
        is_lost
    }
}

impl Drop for MountLease {
    fn drop(&mut self) {
        if let Some(kept) = self.kept.get_mut().take() {
            kept.renewing.abort();
            let keys = Arc::clone(&self.keys);
            // If it is not revoked any more, it ends by itself.
            kept.runtime.spawn(async move { keys.lease_revoke(kept.id).await.ok() });
        }
    }
}

async fn renew(keys: Arc<dyn KeySpace>, id: LeaseId) {
    let mut pause = RENEW_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        pause = match keys.lease_keep_alive(id).await {
            Ok(Some(_)) => RENEW_EVERY,
            Ok(None) => {
                tracing::warn!(lease = id.0, "the mount has lost its lease, and its reservations");
                return;
            }
            Err(error) => {
                tracing::debug!(lease = id.0, %error, "the mount's lease was not renewed");
                RETRY_AFTER
            }
        };
    }
}
