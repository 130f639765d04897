//! Tells of changes of users and roles. Apply turns the count before it applies the next entry, so that
//! who has seen no turn may show whatever was applied until then.

use revfs_store::{Done, Outcome};
use tokio::sync::watch;

/// See the module.
pub(crate) struct AuthTurns(watch::Sender<u64>);

impl Default for AuthTurns {
    fn default() -> Self {
        Self(watch::channel(0).0)
    }
}

impl AuthTurns {
    /// Takes note of what an entry did. Called by apply, in the order of the log.
    pub(crate) fn applied(&self, outcome: &Outcome) {
        if matches!(outcome.result, Ok(Done::AuthSet { .. })) {
            self.0.send_modify(|turns| *turns += 1);
        }
    }

    /// All users and roles may be others now.
    pub(crate) fn installed(&self) {
        self.0.send_modify(|turns| *turns += 1);
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
}
