//! What a view is made of, and the LMDB read transactions that wait for the next view.
//!
//! Opening a read transaction costs as much as the read of a key. So a view that is dropped gives its
//! own back, and the next view takes it, as long as it is of the last commit. The committer drops all
//! idle ones after each commit: they never keep pages from being used again.

use std::sync::Arc;

use crate::auth::Auth;
use crate::env::{Environment, Snapshot};
use crate::error::StoreError;
use crate::overlay::Layers;
use crate::store::{Shared, State, Store};
use crate::types::Revision;

/// Idle read transactions that are kept: about as many as there are readers at a time.
const IDLE_SNAPSHOTS_MAX: usize = 16;

/// The store as it was under one lock.
pub(crate) struct Seen {
    pub(crate) environment: Arc<Environment>,
    pub(crate) current: Revision,
    pub(crate) compacted: Option<Revision>,
    pub(crate) auth: Arc<Auth>,
    pub(crate) layers: Layers,
    pub(crate) generation: u64,
    /// Holds at least the commits of `generation`; `None` if no idle one was left.
    pub(crate) snapshot: Option<Snapshot>,
}

impl State {
    pub(crate) fn see(&mut self) -> Seen {
        Seen {
            environment: Arc::clone(&self.environment),
            current: self.current,
            compacted: self.compacted,
            auth: Arc::clone(&self.auth),
            layers: self.layers.clone(),
            generation: self.generation,
            snapshot: self.snapshots.pop(),
        }
    }
}

impl Shared {
    pub(crate) fn see(&self) -> Result<Seen, StoreError> {
        self.fault.check()?;
        Ok(self.state.lock().see())
    }

    /// The current and the compacted revision.
    pub(crate) fn revisions(&self) -> Result<(Revision, Option<Revision>), StoreError> {
        self.fault.check()?;
        let state = self.state.lock();
        Ok((state.current, state.compacted))
    }

    /// Keeps a view's read transaction for the next view, unless a commit has made it old.
    pub(crate) fn give_back(&self, snapshot: Snapshot, generation: u64) {
        let mut state = self.state.lock();
        if state.generation == generation && state.snapshots.len() < IDLE_SNAPSHOTS_MAX {
            state.snapshots.push(snapshot);
            return;
        }
        // LMDB is not called under the lock.
        drop(state);
        drop(snapshot);
    }
}

impl Store {
    /// How often apply waited since the start because the overlay was full.
    #[must_use]
    pub fn overlay_waits(&self) -> u64 {
        self.shared().state.lock().overlay_waits
    }
}
