//! The barrier between the log and LMDB: no commit holds an entry that the log could still lose.
//!
//! A follower may apply an entry that a quorum of others has, before its own log has flushed it. Were
//! it committed to LMDB at once, a power failure could leave a store that is ahead of its log, and that
//! is what damage looks like. So the committer asks before each commit, and waits; apply goes on
//! meanwhile, until the overlay is full.

use std::sync::Arc;
use std::time::Duration;

use crate::committer::Batch;
use crate::store::{Position, Shared, Store};

/// Between two looks at whether the store closes while the log is waited for.
const SLICE: Duration = Duration::from_millis(50);

/// What a log says of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The log holds it durably, or has given it up because a store does.
    Durable,
    NotYet,
    /// The log has failed: nothing will be durable any more.
    Never {
        reason: Arc<str>,
    },
}

/// The log, as the committer sees it.
pub trait LogBarrier: Send + Sync {
    /// Waits until the entry at `position` is durable, at most `timeout`.
    fn wait(&self, position: &Position, timeout: Duration) -> Reached;
}

/// What becomes of a batch.
pub(crate) enum Passage {
    Open,
    /// It stays in the overlay: the store closes or is paused, or the log is late.
    Later,
    Closed,
}

impl Store {
    /// Holds all commits back behind `barrier` from now on. Only the first one counts.
    pub fn set_log_barrier(&self, barrier: Arc<dyn LogBarrier>) {
        // A second one would be of the same log.
        self.shared().barrier.set(barrier).ok();
    }
}

/// Waits until the log holds what `batch` would commit, at most as long as the options allow.
pub(crate) fn wait(shared: &Shared, batch: &Batch) -> Passage {
    let (Some(barrier), Some(position)) = (shared.barrier.get(), &batch.position) else {
        return Passage::Open;
    };
    let mut left = shared.options.log_wait_max;
    loop {
        let slice = left.min(SLICE);
        match barrier.wait(position, slice) {
            Reached::Durable => return Passage::Open,
            Reached::NotYet => left -= slice,
            Reached::Never { reason } => {
                drop(
                    shared.fault.close(&format!("the log cannot hold what is committed: {reason}")),
                );
                return Passage::Closed;
            }
        }
        let mut state = shared.state.lock();
        if state.is_paused || state.abandon || shared.fault.check().is_err() {
            return Passage::Later;
        }
        if left.is_zero() {
            let waited = shared.options.log_wait_max;
            let reason = format!("entry {} is not durable after {waited:?}", position.index);
            if state.log_lag.is_none() {
                tracing::warn!(reason, "the log is late: the commit waits for it");
            }
            state.log_lag = Some(Arc::from(reason));
            state.attempts += 1;
            return Passage::Later;
        }
    }
}
