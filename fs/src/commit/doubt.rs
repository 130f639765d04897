//! Renames of which nobody knows whether they happened: of a directory, and exchanges.
//!
//! What they concern may have any number of staged files in it, so the doubt is the mount's and not a
//! file's. Until the history has told, no live name is looked up and nothing is committed or renamed:
//! it would go to names that may be others' by now. A question that the key space cannot answer leaves
//! the doubt, and is EIO for who asked; the key space would not have taken their change either.
//!
//! A doubt begins and ends under [`Writing::renames`](super::Writing), held for writing; whoever holds
//! it for reading finds none. Found means that it happened; not found, in an answer of the key space,
//! that it did not, as for a commit (`uncertain`).

use std::time::{Duration, Instant};

use fuser::Errno;
use revfs_api::KeySpace;
use revfs_api::keyspace::{ChangesRequest, Error, KeyRange, Revision};
use tokio::sync::{RwLockReadGuard, RwLockWriteGuard};

use crate::filesystem::{Answer, Filesystem};
use crate::note::maker;
use crate::ops::rename::exchange::Exchange;
use crate::path::DirectoryKey;

/// After a question that was not answered, others are told so without a wait of their own.
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Revisions of one answer.
const REVISIONS_AT_ONCE: usize = 256;

/// Names that may have changed.
#[derive(Clone, Debug)]
pub(crate) enum NameChange {
    Directory { from: DirectoryKey, to: DirectoryKey },
    Exchange(Exchange),
}

impl NameChange {
    fn ranges(&self) -> Vec<KeyRange> {
        match self {
            Self::Directory { from, to } => vec![from.range(), to.range()],
            Self::Exchange(exchange) => exchange.ranges(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Doubt {
    /// In the note of its transaction.
    pub sequence: u64,
    /// It did not happen before this revision.
    pub since: Revision,
    pub change: NameChange,
    /// When the key space last failed to answer.
    pub unanswered: Option<Instant>,
}

impl Filesystem {
    /// Notes that nobody knows of a change of names. The caller holds `renames` for writing.
    pub(crate) fn doubt(&self, sequence: u64, since: Revision, change: NameChange) {
        let doubt = Doubt { sequence, since, change, unanswered: None };
        self.writing.doubts.lock().push(doubt);
    }

    /// Keeps the names of live files and directories as they are, for what goes to one of them.
    ///
    /// # Errors
    /// EIO while it is not known what they are.
    pub(crate) async fn hold_names(&self) -> Answer<RwLockReadGuard<'_, ()>> {
        loop {
            let held = self.writing.renames.read().await;
            if self.writing.doubts.lock().is_empty() {
                return Ok(held);
            }
            drop(held);
            drop(self.hold_names_alone().await?);
        }
    }

    /// [`Self::hold_names`], to change them.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn hold_names_alone(&self) -> Answer<RwLockWriteGuard<'_, ()>> {
        let held = self.writing.renames.write().await;
        while let Some(doubt) = self.first_doubt()? {
            let (sequence, since, change) = doubt;
            match self.find_change(sequence, since, &change).await {
                Ok(found) => {
                    self.writing.doubts.lock().remove(0);
                    if let Some(revision) = found {
                        self.names_have_changed(&change, revision);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the outcome of a rename is still unknown");
                    self.writing.doubts.lock()[0].unanswered = Some(Instant::now());
                    return Err(Errno::EIO);
                }
            }
        }
        Ok(held)
    }

    /// Ends the doubts about names, if there are any.
    ///
    /// # Errors
    /// As [`Self::hold_names`].
    pub(crate) async fn settle_names(&self) -> Answer<()> {
        if self.writing.doubts.lock().is_empty() {
            return Ok(());
        }
        self.hold_names_alone().await.map(drop)
    }

    fn first_doubt(&self) -> Answer<Option<(u64, Revision, NameChange)>> {
        let doubts = self.writing.doubts.lock();
        let Some(doubt) = doubts.first() else { return Ok(None) };
        if doubt.unanswered.is_some_and(|when| when.elapsed() < ASKED_AGAIN_AFTER) {
            return Err(Errno::EIO);
        }
        Ok(Some((doubt.sequence, doubt.since, doubt.change.clone())))
    }

    /// The revision that this mount's transaction made, if it did.
    async fn find_change(
        &self,
        sequence: u64,
        since: Revision,
        change: &NameChange,
    ) -> Result<Option<Revision>, Error> {
        let own = (self.mount_id, sequence);
        self.find_made(self.keys.as_ref(), own, since, change.ranges()).await
    }

    /// The revision whose note names the transaction `own`, among those that changed `ranges` since.
    pub(crate) async fn find_made(
        &self,
        keys: &dyn KeySpace,
        own: (u64, u64),
        since: Revision,
        ranges: Vec<KeyRange>,
    ) -> Result<Option<Revision>, Error> {
        let mut from = since;
        loop {
            let request = ChangesRequest {
                ranges: ranges.clone(),
                from,
                to: Revision::NONE,
                newest_first: false,
                limit: REVISIONS_AT_ONCE,
                scan_limit: 0,
                keys_only: true,
            };
            let answer = match self.within_deadline(keys.changes(request)).await {
                Err(Error::Compacted { compacted, .. }) if compacted > from => {
                    from = compacted;
                    continue;
                }
                // No notes there. Should it have happened, the guards of what comes notice.
                Err(Error::Unsupported(_)) => return Ok(None),
                answer => answer?,
            };
            let is_own = |note: &[u8]| maker(note) == Some(own);
            let found = answer.revisions.iter().find(|found| is_own(&found.stamp.note));
            if let Some(found) = found {
                return Ok(Some(found.stamp.revision));
            }
            match answer.next {
                Some(next) if next > from => from = next,
                _ => return Ok(None),
            }
        }
    }

    /// It has happened after all.
    fn names_have_changed(&self, change: &NameChange, revision: Revision) {
        match change {
            NameChange::Directory { from, to } => {
                self.move_here(from, to, revision);
                for directory in [from, to] {
                    self.forget_directory_name(directory);
                }
            }
            NameChange::Exchange(exchange) => {
                self.exchange_here(exchange, revision);
                self.forget_name(&exchange.a);
                self.forget_name(&exchange.b);
            }
        }
    }

    fn forget_directory_name(&self, directory: &DirectoryKey) {
        let Some((parent, component)) = directory.split() else { return };
        self.forget_name(&parent.child_key(&component));
    }
}
