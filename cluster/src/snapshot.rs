//! Copies of a store on their way from one member to another.
//!
//! ```text
//! leader:   LMDB ─► Copies: a file without a name, shared ─► pieces, at a pace ─►
//! follower: Incoming: a file that grows ─► checked ─► Received: a whole store ─► installed
//! ```
//!
//! LMDB is the snapshot: as long as nobody lags behind the log, no copy is made at all. A connection that
//! breaks costs nothing but time: the sender keeps its copy until it was taken, the receiver what it has
//! of it, and both go on from there.

mod copies;
mod incoming;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use revfs_store::Store;

use crate::ballast::free_bytes;
use crate::config::NodeConfig;
use crate::data_dir::DataDir;
use crate::log::Log;

pub(crate) use copies::{Copies, Copy, CopyError, Pace};
pub(crate) use incoming::{Incoming, Received, open_log};

/// A log of so many times its usual bound is purged although somebody receives a copy.
const LOG_BOUNDS_KEPT: u64 = 4;

/// What of a copy has come, under its digest.
pub(crate) type Begun = Option<([u8; 32], Incoming)>;

/// Both sides of one member.
pub(crate) struct Snapshots {
    pub(crate) data_dir: Arc<DataDir>,
    pub(crate) store: Arc<Store>,
    pub(crate) log: Arc<Log>,
    pub(crate) copies: Copies,
    /// Held while a copy is received: one at a time.
    pub(crate) begun: tokio::sync::Mutex<Begun>,
    disk_free_min_bytes: u64,
    log_bytes_max: u64,
}

impl Snapshots {
    pub(crate) fn new(
        (data_dir, store, log): (Arc<DataDir>, Arc<Store>, Arc<Log>),
        config: &NodeConfig,
    ) -> Self {
        let copies = Copies::new(
            Arc::clone(&data_dir),
            Arc::clone(&store),
            config.copy_bytes_per_second,
            config.disk_free_min_bytes,
        );
        let log_bytes_max = config.log_bytes_max.saturating_mul(LOG_BOUNDS_KEPT);
        let begun = tokio::sync::Mutex::default();
        let disk_free_min_bytes = config.disk_free_min_bytes;
        Self { data_dir, store, log, copies, begun, disk_free_min_bytes, log_bytes_max }
    }

    /// Room for a copy of `bytes` that is offered. Blocks.
    ///
    /// # Errors
    /// A disk without that room, or the disk's.
    pub(crate) fn begin(&self, bytes: u64) -> Result<Incoming, CopyError> {
        let wanted = bytes.saturating_add(self.disk_free_min_bytes);
        let free = free_bytes(&self.data_dir.path)?;
        if free < wanted {
            return Err(CopyError::NoSpace { wanted, free });
        }
        Incoming::begin(&self.data_dir).map_err(|error| CopyError::Io(std::io::Error::other(error)))
    }

    /// Whether somebody who receives a copy needs the log behind it, and there is room for it.
    pub(crate) fn need_log(&self) -> bool {
        self.copies.need_log() && self.log.disk_bytes() <= self.log_bytes_max
    }
}
