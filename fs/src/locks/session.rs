//! The lease on which the locks of a mount hang, and the key that tells whether it still does.
//!
//! A session begins with the first lock of a mount and lasts until its lease is lost, or the mount ends.
//! Its key is put with the lease: a transaction that compares the key's presence is refused from the
//! moment on at which others may have been granted what this mount held. The number of a session is
//! random and never comes back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use revfs_api::client::LeaseKeeper;
use revfs_api::keyspace::LeaseId;
use tokio::sync::oneshot;

use super::Locks;

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    pub id: u64,
    pub lease: LeaseId,
    /// There as long as the lease is.
    pub key: Bytes,
    is_lost: AtomicBool,
    /// Dropped with the session, which then gives its lease up.
    _end: oneshot::Sender<()>,
}

impl Session {
    /// Begins a session on a lease that holds its key already.
    pub(crate) fn begin(id: u64, key: Bytes, keeper: LeaseKeeper, locks: Weak<Locks>) -> Arc<Self> {
        let (end, ended) = oneshot::channel();
        let lease = keeper.id();
        tokio::spawn(keep(id, keeper, locks, ended));
        Arc::new(Self { id, lease, key, is_lost: AtomicBool::new(false), _end: end })
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }

    pub(super) fn set_lost(&self) {
        self.is_lost.store(true, Ordering::Release);
    }
}

async fn keep(id: u64, mut keeper: LeaseKeeper, locks: Weak<Locks>, ended: oneshot::Receiver<()>) {
    let is_lost = tokio::select! {
        () = keeper.lost() => true,
        // Nothing is ever sent: the mount has ended.
        _ = ended => false,
    };
    match locks.upgrade() {
        Some(locks) if is_lost => locks.lose(id),
        // An error means that the lease ends by itself.
        Some(_) | None => drop(keeper.revoke().await),
    }
}
