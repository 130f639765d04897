//! The deadlines of this member's term as a leader, if it leads: what apply, the clock's task and the
//! requests share. Apply writes grants and revocations into it as they happen, so that a lease has a
//! deadline from its first moment, whoever asked for it and whether they still wait for the answer.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use revfs_store::types::{Lease, LeaseId};
use revfs_store::{Done, Outcome};
use tokio::sync::{Notify, watch};

use super::deadlines::{Deadlines, Renewal};

/// See the module. Nothing waits while it holds the lock.
pub(crate) struct LeaseBook {
    deadlines: Mutex<Option<Deadlines>>,
    /// Counts what requests may wait for: a term that begins or ends, loading that ends, an expiring
    /// lease that is gone.
    pub(super) turns: watch::Sender<u64>,
    /// A lease may be due earlier than the task believes.
    pub(super) earlier: Notify,
}

impl Default for LeaseBook {
    fn default() -> Self {
        let (turns, _) = watch::channel(0);
        Self { deadlines: Mutex::new(None), turns, earlier: Notify::new() }
    }
}

impl LeaseBook {
    /// Takes note of what an entry did. Called by apply, in the order of the log.
    pub(crate) fn applied(&self, revoked: Option<LeaseId>, outcome: &Outcome) {
        match (&outcome.result, revoked) {
            (Ok(Done::LeaseGranted { id, ttl_seconds }), _) => {
                let mut deadlines = self.deadlines.lock();
                let Some(deadlines) = &mut *deadlines else { return };
                let next = deadlines.next_due();
                deadlines.granted(*id, *ttl_seconds, Instant::now());
                if deadlines.next_due() != next {
                    self.earlier.notify_one();
                }
            }
            (Ok(Done::LeaseRevoked { .. }), Some(id)) => self.forget(id),
            _ => {}
        }
    }

    pub(super) fn forget(&self, id: LeaseId) {
        let waited_for = self.with(|deadlines| deadlines.gone(id)).unwrap_or(false);
        if waited_for {
            self.turn();
        }
    }

    fn turn(&self) {
        self.turns.send_modify(|turns| *turns += 1);
    }

    /// Begins a term as leader, or ends it.
    pub(super) fn begin(&self, term: Option<u64>) {
        *self.deadlines.lock() = term.map(Deadlines::new);
        self.turn();
    }

    /// Takes the leases from before `term`, if it still lasts.
    pub(super) fn load(&self, term: u64, leases: Vec<Lease>, extension: Duration) {
        self.with(|deadlines| {
            if deadlines.term == term {
                deadlines.load(leases, Instant::now(), extension);
            }
        });
        self.turn();
        self.earlier.notify_one();
    }

    /// `None` while this member does not lead.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Deadlines) -> T) -> Option<T> {
        self.deadlines.lock().as_mut().map(look)
    }

    /// Renews a lease; in which term. `None` while this member does not lead.
    pub(super) fn renew(&self, id: LeaseId) -> Option<(u64, Renewal)> {
        self.with(|deadlines| (deadlines.term, deadlines.renew(id, Instant::now())))
    }

    pub(super) fn leads_in(&self, term: u64) -> bool {
        self.with(|deadlines| deadlines.term == term).unwrap_or(false)
    }
}
