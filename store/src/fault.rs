//! What closed a store: the first I/O failure or corruption, kept until the store is opened again.
//!
//! After a failed fsync or a wrong checksum nothing that the process still holds can be trusted to
//! agree with the disk, so every later operation gets the first reason and nothing is retried.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use heed::MdbError;

use crate::error::StoreError;
use crate::schema::RowError;

#[derive(Default)]
pub(crate) struct Fault {
    reason: OnceLock<Arc<str>>,
}

impl Fault {
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
