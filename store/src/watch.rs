//! Watches: every change of the watched keys from a revision on, whole revisions, no gap, no repeat.
//!
//! ```text
//! apply ──► Post (bounded queue) ──► Hub ──► a buffer for each watcher ──► Watcher::poll_next
//!                                     ▲
//!             the revisions tree ─────┘  for those that are behind, one pass for all of them
//! ```
//!
//! The [`hub`] is one thread. A watcher is
//! - *synced*: it has been given everything up to the hub's position and gets the next revision as
//!   apply hands it over;
//! - or *unsynced*: it began at an old revision, or its buffer was full. It is given what it missed
//!   from the revisions tree, together with all others that are behind, and is synced again where it
//!   meets the hub's position. While its buffer is full nothing is read for it.
//!
//! So nobody waits for a watcher that does not read: apply only puts a revision into a queue of
//! bounded bytes, and if that overflows the hub reads the revisions tree for everyone from there.

mod event;
mod hub;
mod index;
mod post;
mod scan;
mod spans;
mod table;
mod watcher;

use std::sync::Arc;
use std::thread::JoinHandle;

pub(crate) use event::Published;
pub(crate) use post::Post;

use crate::error::{ReadError, StoreError};
use crate::store::{Shared, Store};
use crate::types::{Event, KeyRange, KeyValue, Revision, RevisionEvents, Stamp};
use hub::Hub;
pub use watcher::Watcher;

/// Place of a watcher in the hub's table.
type Slot = usize;

/// How much the watches of a store may hold and do at once.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// Applied revisions that the hub has not taken yet; beyond, it reads them from the store.
    pub queue_bytes_max: usize,
    /// What one watcher's buffer holds. One revision it takes whatever its size.
    pub watcher_bytes_max: usize,
    /// What all buffers hold together before none of them takes a second revision.
    pub buffered_bytes_max: usize,
    /// A batch of the revisions tree ends after so many revisions, …
    pub batch_revisions: usize,
    /// … or at the end of the revision that brings it to so many rows, …
    pub batch_rows: usize,
    /// … or to so many bytes of events.
    pub batch_bytes: usize,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            queue_bytes_max: 16 << 20,
            watcher_bytes_max: 1 << 20,
            buffered_bytes_max: 256 << 20,
            batch_revisions: 256,
            batch_rows: 4_096,
            batch_bytes: 4 << 20,
        }
    }
}

/// What to watch.
#[derive(Clone, Debug, Default)]
pub struct WatchRequest {
    /// Events of keys in any of these.
    pub ranges: Vec<KeyRange>,
    /// Inclusive, and may lie in the future; [`Revision::NONE`] = what comes after now.
    pub from: Revision,
    pub without_puts: bool,
    pub without_deletes: bool,
    /// With each event the key as it was before, unless that is compacted.
    pub prev_kv: bool,
    /// Leave the values out.
    pub keys_only: bool,
}

/// One change, as a watcher asked to see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedEvent {
    pub event: Event,
    /// The key before the change; only if it was asked for, lived, and is not compacted.
    pub prev_kv: Option<KeyValue>,
}

/// All changes of one revision that a watcher sees, in order. Shared with the other watchers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedRevision {
    pub stamp: Arc<Stamp>,
    pub events: Vec<Arc<WatchedEvent>>,
}

impl WatchedRevision {
    /// Without the previous versions.
    #[must_use]
    pub fn to_events(&self) -> RevisionEvents {
        RevisionEvents {
            stamp: Stamp::clone(&self.stamp),
            events: self.events.iter().map(|watched| watched.event.clone()).collect(),
        }
    }
}

/// What the hub did since the store was opened, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchStats {
    pub watchers: usize,
    pub synced: usize,
    /// Events that the watchers have not taken yet.
    pub buffered_bytes: usize,
    /// Revisions that watchers were given.
    pub delivered: u64,
    /// Watchers that were looked at for an event.
    pub visited: u64,
    /// Places of the indexes that were looked at to find them.
    pub index_steps: u64,
    /// Revisions read from the revisions tree.
    pub revisions_read: u64,
    /// Versions read from the tree of keys.
    pub versions_read: u64,
}

impl Store {
    /// Watches the keys of `request`.
    ///
    /// # Errors
    /// A first revision below the compacted one, or a closed store.
    pub fn watch(&self, request: WatchRequest) -> Result<Watcher, ReadError> {
        let (current, compacted) = self.shared().revisions()?;
        let from = if request.from.is_none() { current.next() } else { request.from };
        if let Some(compacted) = compacted.filter(|&compacted| from < compacted) {
            return Err(ReadError::Compacted { requested: from, compacted });
        }
        // Who goes on behind a revision that a restore left out has seen what never was here.
        let seen = Revision(from.0.saturating_sub(1));
        if let Some(skip) = self.shared().environment().skip_of(seen)
            && from < skip.until
        {
            return Err(ReadError::Compacted { requested: from, compacted: skip.until });
        }
        Watcher::join(Arc::clone(&self.shared().post), WatchRequest { from, ..request })
    }

    /// The newest revision that was applied: what a watch begins behind, without a view.
    ///
    /// # Errors
    /// A closed store.
    pub fn current_revision(&self) -> Result<Revision, StoreError> {
        Ok(self.shared().revisions()?.0)
    }

    #[must_use]
    pub fn watch_stats(&self) -> WatchStats {
        self.shared().post.stats()
    }
}

/// Starts the hub's thread; it ends when its post is closed.
pub(crate) fn start(shared: &Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    let hub = Hub::new(Arc::clone(shared));
    std::thread::Builder::new().name("store-watch".to_owned()).spawn(move || hub.run())
}
