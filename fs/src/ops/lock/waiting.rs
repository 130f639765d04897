//! Waiting for a lock: an entry in the line of the file's locks, until its turn comes or its process has
//! another thing to do.
//!
//! Nobody's thread waits: this is a task that is awakened when the file's locks have changed, here or
//! elsewhere, and looks at them.

use std::sync::Arc;
use std::time::Duration;

use fuser::Errno;
use revfs_api::keyspace::Revision;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::filesystem::{Answer, Caller, Filesystem};
use crate::interrupt::{LOOK_EVERY, is_interrupted};
use crate::locks::Scope;
use crate::locks::table::Entry;

/// The locks are looked at at least so often: who watches changes may have missed some.
const LOOK_AT_LOCKS_EVERY: Duration = Duration::from_secs(1);

/// How long a process waits of which /proc does not tell whether it is wanted elsewhere.
const UNKNOWN_WAITS: Duration = Duration::from_secs(30);

/// After a failed attempt to leave the line.
const RETRY: Duration = Duration::from_secs(1);

/// What a place in the line has come to.
enum Turn {
    Come,
    NotYet,
    /// It is not in the line any more: the session was lost, or the file replaced.
    Gone,
}

/// Why a look at the locks is due.
enum Woken {
    Look,
    Interrupted,
    OutOfPatience,
}

impl Filesystem {
    /// Waits for the turn of `wanted`, which stands in the line at `place`. Returns the revision at which
    /// it was taken.
    ///
    /// # Errors
    /// EINTR; EIO if the session is lost; EAGAIN after a time if the caller is not known; ENOLCK if too
    /// many wait already.
    pub(super) async fn wait_for_lock(
        self: &Arc<Self>,
        scope: &Scope,
        wanted: &Entry,
        place: u64,
        caller: Caller,
    ) -> Answer<Option<Revision>> {
        let Ok(_permit) = self.locks.waiting.try_acquire() else {
            self.leave_line(scope, wanted, place);
            return Err(Errno::ENOLCK);
        };
        // Before the first look, so that no change is missed between that and the wait.
        let mut changes = self.locks.changes(scope);
        let deadline = (caller.pid == 0).then(|| Instant::now() + UNKNOWN_WAITS);
        loop {
            changes.borrow_and_update();
            let turn = self
                .change_locks(scope, |table, _| {
                    let own = table.own_entries();
                    let is_there =
                        |own: &Entry| own.waits == Some(place) && own.owner == wanted.owner;
                    if !own.iter().any(is_there) {
                        return Turn::Gone;
                    }
                    if !table.before(wanted, Some(place)).is_empty() {
                        return Turn::NotYet;
                    }
                    table.withdraw(wanted.owner, place);
                    table.hold(wanted);
                    Turn::Come
                })
                .await;
            match turn {
                Ok((Turn::Come, revision)) => return Ok(revision),
                Ok((Turn::Gone, _)) => return Err(Errno::EIO),
                Ok((Turn::NotYet, _)) => {}
                Err(_) if scope.is_lost() => return Err(Errno::EIO),
                // Out of reach for now.
                Err(errno) => tracing::debug!(?errno, "the locks of a file cannot be looked at"),
            }
            match self.until_woken(&mut changes, caller, deadline).await {
                Woken::Look => {}
                Woken::Interrupted => {
                    self.leave_line(scope, wanted, place);
                    return Err(Errno::EINTR);
                }
                Woken::OutOfPatience => {
                    self.leave_line(scope, wanted, place);
                    return Err(Errno::EAGAIN);
                }
            }
        }
    }

    async fn until_woken(
        &self,
        changes: &mut watch::Receiver<()>,
        caller: Caller,
        deadline: Option<Instant>,
    ) -> Woken {
        let look = Instant::now() + LOOK_AT_LOCKS_EVERY;
        loop {
            if caller.pid != 0 && is_interrupted(caller.pid) {
                return Woken::Interrupted;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Woken::OutOfPatience;
            }
            match tokio::time::timeout(LOOK_EVERY, changes.changed()).await {
                Ok(_) => return Woken::Look,
                Err(_) if Instant::now() >= look => return Woken::Look,
                Err(_) => {}
            }
        }
    }

    /// Takes an entry out of the line; the caller, who has better things to do, does not wait for it.
    fn leave_line(self: &Arc<Self>, scope: &Scope, wanted: &Entry, place: u64) {
        let (own, scope, owner) = (Arc::clone(self), scope.clone(), wanted.owner);
        tokio::spawn(async move {
            while !scope.is_lost() {
                let left = own.change_locks(&scope, |table, _| table.withdraw(owner, place)).await;
                if left.is_ok() {
                    return;
                }
                tokio::time::sleep(RETRY).await;
            }
        });
    }
}
