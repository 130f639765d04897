//! A watch is a cursor on the store: the next revision to look at, and nothing else.
//!
//! It is awakened when a revision becomes visible and reads the store from where it stands. There is
//! no queue that could overflow, and whatever it missed while nobody asked it reads then: no gap, no
//! repeat, never half of a revision.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use revfs_api::keyspace::{Result, RevisionEvents, Watch};
use revfs_store::Store;
use revfs_store::types::{ChangesQuery, KeyRange, Revision};
use tokio::sync::watch;

use crate::convert;

/// Revisions with events that are read at once; bounded by what they hold in memory.
const READ_REVISIONS_MAX: usize = 64;

/// Revisions looked at before other tasks get their turn.
const SCAN_REVISIONS_MAX: usize = 4_096;

/// See the module.
pub(crate) struct Cursor {
    pub(crate) store: Arc<Store>,
    pub(crate) ranges: Vec<KeyRange>,
    /// Inclusive.
    pub(crate) next: Revision,
    pub(crate) read: VecDeque<RevisionEvents>,
    /// The store's current revision.
    pub(crate) current: watch::Receiver<u64>,
    /// Set, or its sender gone, when the node shuts down.
    pub(crate) stop: watch::Receiver<bool>,
}

impl Cursor {
    /// Reads on; whether there may be more at once.
    fn read_on(&mut self) -> Result<bool> {
        let view = self.store.read_view().map_err(convert::store_error)?;
        let current = view.current();
        if self.next > current {
            return Ok(false);
        }
        let query = ChangesQuery {
            ranges: self.ranges.clone(),
            from: self.next,
            to: current,
            newest_first: false,
            limit: READ_REVISIONS_MAX,
            scan_limit: SCAN_REVISIONS_MAX,
            keys_only: false,
        };
        let result = view.changes(&query).map_err(convert::read_error)?;
        self.read.extend(result.revisions.into_iter().map(convert::events_to_api));
        self.next = result.next.unwrap_or(current.next());
        Ok(true)
    }
}

#[async_trait]
impl Watch for Cursor {
    async fn next(&mut self) -> Result<RevisionEvents> {
        loop {
            if let Some(events) = self.read.pop_front() {
                return Ok(events);
            }
            // Marked as seen before the store is read: a revision that comes later wakes us.
            let seen = Revision(*self.current.borrow_and_update());
            if self.read_on()? {
                if self.read.is_empty() {
                    tokio::task::yield_now().await;
                }
                continue;
            }
            if self.next <= seen {
                continue;
            }
            let stopped = tokio::select! {
                changed = self.current.changed() => changed.is_err(),
                stop = self.stop.wait_for(|&stop| stop) => {
                    // The guard of the value must not be held on.
                    drop(stop);
                    true
                }
            };
            if stopped {
                let reason = "the node is shutting down".to_owned();
                return Err(revfs_api::keyspace::Error::Unavailable { reason });
            }
        }
    }
}
