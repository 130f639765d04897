//! What became of a transaction when nobody said so, and who keeps one that is still open.
//!
//! Each commit carries a note that names it. A commit whose outcome is unknown is looked for in the history, when
//! it is answered and whenever somebody asks again: found, it has happened. Not found, it may still come, so
//! it stays unknown; it is never sent again.
//!
//! Who holds a lock of `@commit` (`revfs txn` does) is who the transaction is for: if they close it, which is how a
//! killed process ends too, the transaction is dropped.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use revfs_api::keyspace::{KeyRange, Op, Revision};

use super::{Outcome, Private};
use crate::filesystem::Filesystem;
use crate::node::{Hidden, Place};
use crate::note::Note;

/// Between two attempts to reach a key space that has no quorum just now.
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What names the commit of a transaction: a mount of its own, since it is others' change even to this mount.
pub(super) fn note_of(id: u64) -> Bytes {
    Note { mount_id: id, sequence: 0, operations: Vec::new(), is_cut: false }.encode()
}

/// A key that a commit changes in any case.
pub(super) fn witness(success: &[Op]) -> Option<Bytes> {
    success.iter().find_map(|op| match op {
        Op::Put { key, .. } => Some(key.clone()),
        Op::MoveKey { to, .. } => Some(to.clone()),
        Op::Delete { range: KeyRange::Key(key), .. } => Some(key.clone()),
        _ => None,
    })
}

impl Filesystem {
    /// Waits until the key space can be asked what became of a commit, and asks it.
    pub(super) async fn read_back_commit(&self, private: &Private) -> Option<Revision> {
        let deadline = tokio::time::Instant::now() + self.options.timeout;
        loop {
            let base = private.overlay.base();
            if self.within(base.confirm()).await.is_ok() {
                return self.find_committed(private).await;
            }
            if tokio::time::Instant::now() + ASKED_AGAIN_AFTER > deadline {
                return None;
            }
            tokio::time::sleep(ASKED_AGAIN_AFTER).await;
        }
    }

    async fn find_committed(&self, private: &Private) -> Option<Revision> {
        let witness = private.overlay.witness()?;
        let base = private.overlay.base();
        let (own, since) = ((private.id, 0), private.overlay.at);
        let found = self.find_made(base.as_ref(), own, since, vec![KeyRange::Key(witness)]).await;
        found.inspect_err(|error| tracing::warn!(%error, "a commit stays unknown")).ok().flatten()
    }

    /// Asks again for a commit that is not known, unless somebody does so already.
    pub(crate) async fn ask_again(&self, private: &Private) {
        let Ok(mut outcome) = private.outcome.try_lock() else { return };
        if matches!(*outcome, Some(Outcome::Unknown(_)))
            && let Some(revision) = self.find_committed(private).await
        {
            let committed = Outcome::Committed(revision);
            private.floor.fetch_max(revision.0, Ordering::AcqRel);
            *private.decided.lock() = Some(committed.clone());
            *outcome = Some(committed);
        }
    }

    /// Who held a lock of this node through a handle has closed that.
    pub(crate) fn lock_was_closed(&self, ino: u64) {
        let Some(private) = &self.private else { return };
        let is_commit =
            self.nodes.get(ino).is_some_and(|node| node.place() == Place::Hidden(Hidden::Commit));
        if is_commit {
            private.is_abandoned.store(true, Ordering::Release);
        }
    }
}
