//! Keeping a lease: a task renews it, and says when it is lost.
//!
//! A lease is lost when the cluster says that there is none, or when it could not be renewed for its whole
//! time, counted from when the last successful renewal was sent: so the keeper never takes a lease for held
//! that may have ended. What hung on it may be another's from then on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::keyspace::{KeySpace, LeaseId, Result};

/// A lease is renewed so many times in its time.
const RENEWALS: u32 = 3;

/// After a renewal that failed, so many more are tried in its time.
const ATTEMPTS: u32 = 12;

/// A lease that is kept as long as this lives; dropped, it ends by itself.
pub struct LeaseKeeper {
    id: LeaseId,
    keys: Arc<dyn KeySpace>,
    /// Until when it is held; nothing when it is lost.
    held: watch::Receiver<Option<Instant>>,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for LeaseKeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (id, held) = (self.id, *self.held.borrow());
        f.debug_struct("LeaseKeeper").field("id", &id).field("held", &held).finish_non_exhaustive()
    }
}

impl LeaseKeeper {
    /// Grants a lease and keeps it.
    ///
    /// # Errors
    /// As [`KeySpace::lease_grant`].
    pub async fn grant(keys: Arc<dyn KeySpace>, ttl_seconds: i64) -> Result<Self> {
        let asked = Instant::now();
        let (id, ttl_seconds) = keys.lease_grant(LeaseId(0), ttl_seconds).await?;
        let ttl = seconds(ttl_seconds);
        let (tell, held) = watch::channel(Some(asked + ttl));
        let task = tokio::spawn(keep(Arc::clone(&keys), id, ttl, tell));
        Ok(Self { id, keys, held, task })
    }

    #[must_use]
    pub fn id(&self) -> LeaseId {
        self.id
    }

    /// Whether it cannot have ended yet.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Waits until the lease is lost.
    pub async fn lost(&mut self) {
        // An error means that the task is gone, and with it the lease.
        self.held.wait_for(Option::is_none).await.map(drop).unwrap_or_default();
    }

    /// Ends the lease now; its keys are deleted.
    ///
    /// # Errors
    /// As [`KeySpace::lease_revoke`].
    pub async fn revoke(self) -> Result<()> {
        self.task.abort();
        self.keys.lease_revoke(self.id).await
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn seconds(number: i64) -> Duration {
    Duration::from_secs(u64::try_from(number).unwrap_or(0))
}

async fn keep(
    keys: Arc<dyn KeySpace>,
    id: LeaseId,
    mut ttl: Duration,
    tell: watch::Sender<Option<Instant>>,
) {
    let Some(mut until) = *tell.borrow() else { return };
    let mut pause = ttl / RENEWALS;
    loop {
        tokio::time::sleep_until(until.min(Instant::now() + pause)).await;
        let asked = Instant::now();
        let renewed = tokio::time::timeout_at(until, keys.lease_keep_alive(id)).await;
        match renewed {
            Ok(Ok(Some(granted))) => {
                ttl = seconds(granted);
                until = asked + ttl;
                pause = ttl / RENEWALS;
                tell.send_replace(Some(until));
            }
            Ok(Ok(None)) => break,
            Ok(Err(_)) if Instant::now() < until => pause = ttl / ATTEMPTS,
            Ok(Err(_)) | Err(_) => break,
        }
    }
    tell.send_replace(None);
}
