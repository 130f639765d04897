//! A watch: a position in the history that is read again after each change. Nothing is queued, so no
//! event is lost or repeated, however slow the watcher is.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use revfs_api::keyspace::{
    ChangesRequest, Error, KeyRange, Result, Revision, RevisionEvents, Watch,
};
use tokio::sync::watch::Receiver;

use super::state::State;

pub(super) struct MemoryWatch {
    state: Arc<Mutex<State>>,
    ranges: Vec<KeyRange>,
    /// The first revision not yet seen.
    next: Revision,
    changed: Receiver<u64>,
    ended_at_open: u64,
    has_ended: bool,
}

impl MemoryWatch {
    pub(super) fn open(
        state: Arc<Mutex<State>>,
        changed: Receiver<u64>,
        ranges: Vec<KeyRange>,
        from: Revision,
    ) -> Result<Self> {
        let ended_at_open = *changed.borrow();
        let next = {
            let state = state.lock();
            if from == Revision::NONE {
                state.current().next()
            } else {
                state.check_kept(from)?;
                from
            }
        };
        Ok(Self { state, ranges, next, changed, ended_at_open, has_ended: false })
    }

    fn ended(&self) -> Error {
        Error::Unavailable { reason: String::from("the watch has ended") }
    }

    fn next_events(&mut self) -> Result<Option<RevisionEvents>> {
        let state = self.state.lock();
        state.check_kept(self.next)?;
        if self.next > state.current() {
            return Ok(None);
        }
        let mut answer = state.changes(&ChangesRequest {
            ranges: self.ranges.clone(),
            from: self.next,
            to: Revision::NONE,
            newest_first: false,
            limit: 1,
            scan_limit: 0,
            keys_only: false,
        })?;
        let found = answer.revisions.pop();
        self.next = found.as_ref().map_or(state.current(), |found| found.stamp.revision).next();
        Ok(found)
    }
}

#[async_trait]
impl Watch for MemoryWatch {
    async fn next(&mut self) -> Result<RevisionEvents> {
        loop {
            let ended = *self.changed.borrow_and_update();
            if self.has_ended || ended != self.ended_at_open {
                self.has_ended = true;
                return Err(self.ended());
            }
            match self.next_events() {
                Ok(Some(events)) => return Ok(events),
                Ok(None) => {}
                Err(error) => {
                    self.has_ended = true;
                    return Err(error);
                }
            }
            if self.changed.changed().await.is_err() {
                self.has_ended = true;
                return Err(self.ended());
            }
        }
    }

    fn progress(&self) -> Revision {
        Revision(self.next.0 - 1)
    }
}
