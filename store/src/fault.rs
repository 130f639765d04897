//! What closed a store: the first I/O failure or corruption, kept until the store is opened again.
//!
//! After a failed fsync or a wrong checksum nothing that the process still holds can be trusted to
//! agree with the disk, so every later operation gets the first reason and nothing is retried.
//!
//! [`StopPoint`] is how a test stops a store as a crash would; nothing sets one otherwise.

use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use heed::MdbError;

use crate::error::StoreError;
use crate::schema::RowError;

/// Where a store stops for good, once it comes there: what a crash at that point leaves on the disk is
/// what the next open finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum StopPoint {
    /// Some rows of an entry (a restore, say) are in the overlay, others not.
    MiddleOfEntry = 1,
    /// Nothing of a commit is written.
    BeforeCommit = 2,
    /// Some trees of a commit are written, others not.
    MiddleOfCommit = 3,
    /// A step of a physical compaction is done and not yet committed.
    MiddleOfCompaction = 4,
    /// A commit is durable and nobody knows.
    AfterCommit = 5,
}

#[derive(Default)]
pub(crate) struct Fault {
    reason: OnceLock<Arc<str>>,
    /// A [`StopPoint`], or 0.
    stop: AtomicU8,
}

impl Fault {
    pub(crate) fn stop_at(&self, point: StopPoint) {
        self.stop.store(point as u8, Ordering::Relaxed);
    }

    /// Whether a test stops the store here.
    pub(crate) fn stops_at(&self, point: StopPoint) -> bool {
        self.stop.load(Ordering::Relaxed) == point as u8
    }

    /// # Errors
    /// The reason, if the store is closed.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        match self.reason.get() {
            None => Ok(()),
            Some(reason) => Err(StoreError::Closed { reason: Arc::clone(reason) }),
        }
    }

    pub(crate) fn reason(&self) -> Option<Arc<str>> {
        self.reason.get().map(Arc::clone)
    }

    /// Closes the store for `reason`, unless it is closed already; returns the error for the caller.
    pub(crate) fn close(&self, reason: &str) -> StoreError {
        let reason = self.reason.get_or_init(|| {
            tracing::error!(reason, "store closed");
            Arc::from(reason)
        });
        StoreError::Closed { reason: Arc::clone(reason) }
    }

    pub(crate) fn row(&self, path: &Path, error: &RowError) -> StoreError {
        self.close(&format!("{} is corrupt: {error}", path.display()))
    }

    /// Translates an LMDB error of a read or a write; all but a lack of reader slots close the store.
    pub(crate) fn lmdb(&self, error: &heed::Error) -> StoreError {
        match error {
            heed::Error::Mdb(MdbError::ReadersFull) => {
                StoreError::ReadersFull { reason: Arc::from(error.to_string()) }
            }
            _ => self.close(&format!("LMDB: {error}")),
        }
    }
}
