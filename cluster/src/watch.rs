//! A watch of the store that its caller may read: [`GuardedWatcher`], as etcd's Watch service needs it,
//! with filters and previous versions; and as a [`Watch`], which ends with the node.
//!
//! Permissions are looked at again whenever users or roles change, before anything more is shown.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use async_trait::async_trait;
use bytes::Bytes;
use revfs_api::keyspace::{Error, Result, RevisionEvents, Watch};
use revfs_store::types::{KeyRange, Revision};
use revfs_store::{Need, ReadError, ReadView, Store, WatchRequest, WatchedRevision, Watcher};
use tokio::sync::watch;

use crate::auth::Caller;
use crate::convert;
use crate::divergence::Integrity;
use crate::local::{Local, Parts};
use crate::proposal::check_range;

/// See the module.
pub(crate) struct GuardedWatcher {
    watcher: Watcher,
    integrity: Arc<Integrity>,
    /// `None`: nobody checks.
    guard: Option<Guard>,
}

/// Who watches what.
struct Guard {
    store: Arc<Store>,
    caller: Caller,
    ranges: Vec<KeyRange>,
    turns: watch::Receiver<u64>,
    /// Notes tell of all that a revision did.
    sees_notes: bool,
}

impl Guard {
    fn new(node: &Parts, caller: &Caller, ranges: &[KeyRange]) -> Result<Self, ReadError> {
        // From here on no turn is missed.
        let turns = node.auth_turns.subscribe();
        let (store, caller) = (Arc::clone(&node.store), caller.clone());
        let mut guard = Self { store, caller, ranges: ranges.to_vec(), turns, sees_notes: false };
        guard.check(&guard.store.read_view()?, guard.caller.clone())?;
        Ok(guard)
    }

    fn check(&mut self, view: &ReadView, caller: Caller) -> Result<(), ReadError> {
        caller.authorise(view, Need::User)?;
        let mut ranges = self.ranges.iter();
        ranges.try_for_each(|range| caller.authorise(view, Need::Read(range)))?;
        self.sees_notes = caller.reads_all(view)?;
        Ok(())
    }

    /// Whether the user, as of now, may read what is watched; if anything changed since.
    fn check_again(&mut self) -> Result<(), ReadError> {
        if !self.turns.has_changed().unwrap_or(false) {
            return Ok(());
        }
        self.turns.borrow_and_update();
        let view = self.store.read_view()?;
        let caller = self.caller.renewed(view.auth());
        self.check(&view, caller)
    }
}

impl GuardedWatcher {
    fn begin(node: &Parts, caller: &Caller, request: WatchRequest) -> Result<Self, ReadError> {
        let guard = match caller {
            Caller::Trusted => None,
            asked => Some(Guard::new(node, asked, &request.ranges)?),
        };
        let integrity = Arc::clone(&node.integrity);
        integrity.check()?;
        Ok(Self { watcher: node.store.watch(request)?, integrity, guard })
    }

    /// As [`Watcher::poll_next`]. Nobody calls `waker` when users or roles change: who waits must look
    /// again then.
    pub(crate) fn poll_next(&mut self, waker: &Waker) -> Poll<Result<WatchedRevision, ReadError>> {
        let next = self.watcher.poll_next(waker);
        // After the look, too: an alarm was applied before whatever comes behind it.
        if let Err(error) = self.integrity.check() {
            return Poll::Ready(Err(error.into()));
        }
        let Some(guard) = &mut self.guard else { return next };
        // After the look: what was applied behind a change is not shown by what held before it.
        if let Err(error) = guard.check_again() {
            return Poll::Ready(Err(error));
        }
        next.map_ok(|mut revision| {
            if !guard.sees_notes && !revision.stamp.note.is_empty() {
                Arc::make_mut(&mut revision.stamp).note = Bytes::new();
            }
            revision
        })
    }

    pub(crate) fn from(&self) -> Revision {
        self.watcher.from()
    }

    pub(crate) fn progress(&self) -> Revision {
        self.watcher.progress()
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.watcher.is_synced()
    }
}

struct StoreWatch {
    watcher: GuardedWatcher,
    /// Set, or its sender gone, when the node shuts down.
    stop: watch::Receiver<bool>,
    turns: watch::Receiver<u64>,
}

#[async_trait]
impl Watch for StoreWatch {
    async fn next(&mut self) -> Result<RevisionEvents> {
        let Self { watcher, stop, turns } = self;
        loop {
            tokio::select! {
                biased;
                next = poll_fn(|context| watcher.poll_next(context.waker())) => {
                    let revision = next.map_err(convert::read_error)?;
                    return Ok(convert::events_to_api(revision.to_events()));
                }
                // The watcher finds out what it means.
                Ok(()) = turns.changed() => {}
                stop = stop.wait_for(|&stop| stop) => {
                    // The guard of the value must not be held on.
                    drop(stop);
                    return Err(Error::shutting_down());
                }
            }
        }
    }

    fn progress(&self) -> revfs_api::keyspace::Revision {
        convert::revision_to_api(self.watcher.progress())
    }
}

impl Local {
    /// Watches the store itself. Keys are bounded, for the hub holds them.
    pub(crate) fn watch_events(&self, request: WatchRequest) -> Result<GuardedWatcher> {
        request.ranges.iter().try_for_each(check_range)?;
        GuardedWatcher::begin(&self.node, self.caller(), request).map_err(convert::read_error)
    }

    pub(crate) fn watch_store(&self, request: WatchRequest) -> Result<Box<dyn Watch>> {
        let watcher = GuardedWatcher::begin(&self.node, self.caller(), request);
        let watcher = watcher.map_err(convert::read_error)?;
        let (stop, turns) = (self.node.stop.clone(), self.node.auth_turns.subscribe());
        Ok(Box::new(StoreWatch { watcher, stop, turns }))
    }

    pub(crate) fn current_revision(&self) -> Result<Revision> {
        self.node.store.current_revision().map_err(convert::store_error)
    }

    /// Turns whenever users or roles change.
    pub(crate) fn auth_turns(&self) -> watch::Receiver<u64> {
        self.node.auth_turns.subscribe()
    }
}
