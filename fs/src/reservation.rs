//! Reserved names: what CREATE with O_EXCL promises before the store knows of the file.
//!
//! An unborn file is seen by its own mount only, but its name is taken for whoever wants it exclusively:
//! O_EXCL, mkdir, symlink, mknod and RENAME_NOREPLACE answer EEXIST, on every mount. A reservation is
//! - *here*: an entry in a table that the key space shares among its mounts, if it says that all of them
//!   are in this process; it costs nothing; or
//! - *in the store*: a key on the mount's lease, put by a transaction that finds key, directory and
//!   reservation absent. It costs a commit, and the file's first commit deletes it.
//!
//! The first reservation in the store leaves a key behind that says so ([`in_store_key`]): from then on
//! every mount reserves there, whatever its key space shares. What was reserved here before is not seen
//! from outside; if its name is taken there, the commit is refused.
//!
//! A mount that may write no keys of its own ([`writes_attributes`]) has a table of its own: between it and
//! others the first commit decides.
//!
//! [`writes_attributes`]: crate::filesystem::MountOptions::writes_attributes
//!
//! A reservation that is dropped gives the name up. One that is lost (its lease ended) is no harm while
//! nobody else has the name: the commit demands that it is its own, or that there is none.

use std::sync::Arc;

use bytes::Bytes;
use fuser::Errno;
use revfs_api::KeySpace;
use revfs_api::keyspace::{
    Compare, CompareResult, CompareTarget, KeyRange, LeaseId, Op, Origin, Read, Revision, Txn,
};
use revfs_api::reservations::{Reservations, ReservedName};
use tokio::runtime::Handle;

use crate::commit::key_value;
use crate::filesystem::{Answer, Filesystem};
use crate::path::{in_store_key, reservation_key};

/// A name that this mount has reserved. Dropped, it is given up.
#[derive(Debug, Default)]
pub(crate) struct Reservation {
    held: Option<ReservedName>,
    in_store: Option<StoredName>,
}

struct StoredName {
    keys: Arc<dyn KeySpace>,
    key: Bytes,
    lease: LeaseId,
    runtime: Handle,
}

impl std::fmt::Debug for StoredName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = self.key.escape_ascii();
        write!(f, "reservation of {key} on lease {}", self.lease.0)
    }
}

impl Reservation {
    pub(crate) fn here(here: Option<ReservedName>) -> Self {
        Self { held: here, in_store: None }
    }

    pub(crate) fn in_store(keys: Arc<dyn KeySpace>, key: Bytes, lease: LeaseId) -> Self {
        let in_store = StoredName { keys, key, lease, runtime: Handle::current() };
        Self { held: None, in_store: Some(in_store) }
    }

    /// Held here as well.
    pub(crate) fn with(mut self, here: Option<ReservedName>) -> Self {
        self.held = here;
        self
    }

    /// On which lease the store has it; 0 if it has not.
    pub(crate) fn lease(&self) -> LeaseId {
        self.in_store.as_ref().map(|own| own.lease).unwrap_or_default()
    }

    /// The name is the file's: the store's reservation went with the commit.
    pub(crate) fn fulfil(mut self) {
        self.in_store = None;
        drop(self.held.take());
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let Some(StoredName { keys, key, lease, runtime }) = self.in_store.take() else { return };
        runtime.spawn(async move {
            let txn = Txn { success: vec![give_up(&key, lease)], ..Txn::default() };
            if let Err(error) = keys.txn(txn, Origin::default()).await {
                tracing::debug!(key = %key.escape_ascii(), %error, "stays reserved until unmounted");
            }
        });
    }
}

/// That the reservation of `key` is the one on `lease`; with 0, that there is none.
pub(crate) fn is_reserved_by(key: &Bytes, lease: LeaseId) -> Compare {
    Compare {
        range: KeyRange::Key(reservation_key(key)),
        target: CompareTarget::Lease(lease),
        result: CompareResult::Equal,
    }
}

pub(crate) fn is_not_reserved(key: &Bytes) -> Compare {
    Compare::absent(KeyRange::Key(reservation_key(key)))
}

pub(crate) fn reserve(key: &Bytes, lease: LeaseId) -> Op {
    Op::put_on(lease, reservation_key(key), Bytes::new())
}

/// Deletes the reservation, if it is the one on `lease`.
pub(crate) fn give_up(key: &Bytes, lease: LeaseId) -> Op {
    Op::Txn(Txn {
        compares: vec![is_reserved_by(key, lease)],
        success: vec![Op::delete(reservation_key(key))],
        failure: Vec::new(),
    })
}

/// Tells all mounts to reserve in the store.
pub(crate) fn announce() -> Op {
    Op::Txn(Txn {
        compares: vec![Compare::absent(KeyRange::Key(in_store_key()))],
        success: vec![Op::put(in_store_key(), Bytes::new())],
        failure: Vec::new(),
    })
}

impl Filesystem {
    pub(crate) fn shared_reservations(&self) -> Option<Arc<Reservations>> {
        let own = || (!self.options.writes_attributes).then(|| Arc::clone(&self.own_reservations));
        self.keys.reservations().or_else(own)
    }

    /// Takes a name in the table that the mounts of this process share, if there is one.
    ///
    /// # Errors
    /// EEXIST if another creation holds it.
    pub(crate) fn take_here(&self, key: &Bytes) -> Answer<Option<ReservedName>> {
        let Some(table) = self.shared_reservations() else { return Ok(None) };
        table.take(key).map(Some).ok_or(Errno::EEXIST)
    }

    /// # Errors
    /// EEXIST if another mount has reserved the name in the store.
    pub(crate) async fn check_not_reserved(&self, key: &Bytes) -> Answer<()> {
        let answer = self.ask(Revision::NONE, vec![Read::key(reservation_key(key))]).await?;
        key_value(&answer, 0).map_or(Ok(()), |_| Err(Errno::EEXIST))
    }
}
