//! A commit whose outcome is not known: reading back tells.
//!
//! The transaction is never sent again. The history of the key is searched for the note that it
//! carried: mount id and sequence name exactly one revision. Found means committed. Not found, in a
//! read that the key space answered, means that it did not happen, and the copy may be committed anew;
//! should the lost transaction still be decided later, the guards of the new one notice.

use std::sync::Arc;

use bytes::Bytes;
use fuser::Errno;
use revfs_api::keyspace::{ChangeKind, Error, HistoryRequest, Read, Revision};

use super::{draft_of, key_value};
use crate::filesystem::{Answer, Filesystem};
use crate::node::{Node, Place};
use crate::note::maker;
use crate::staged::{Committed, Draft, Uncertain};

/// Versions of the key in one answer; any number may lie above the one that is looked for.
const VERSIONS_AT_ONCE: usize = 64;

impl Filesystem {
    /// Finds out what became of the last commit of `node`, if that is not known.
    ///
    /// # Errors
    /// EIO while it cannot be found out.
    pub(crate) async fn read_back(&self, node: &Arc<Node>) -> Answer<()> {
        let Some((key, _)) = draft_of(node) else { return Ok(()) };
        let uncertain = node.file.lock().staged.as_mut().and_then(|staged| staged.uncertain.take());
        let Some(uncertain) = uncertain else { return Ok(()) };
        let (draft, renamed_to) = (&uncertain.draft, &uncertain.renamed_to);
        let sent_to = renamed_to.as_ref().unwrap_or(&key);
        match self.find_commit(sent_to, &uncertain).await {
            Ok(Some(committed)) => {
                if let Some(to) = renamed_to {
                    self.has_been_renamed(node, &key, to)?;
                }
                self.settle(node, sent_to, draft, &committed).await
            }
            Ok(None) => {
                if let Some(staged) = &mut node.file.lock().staged {
                    staged.append_no_more();
                }
                Ok(())
            }
            Err(_) => {
                if let Some(staged) = &mut node.file.lock().staged {
                    staged.uncertain = Some(uncertain);
                }
                Err(Errno::EIO)
            }
        }
    }

    /// Has the outcome of what was sent found out soon, and before anything else is committed.
    pub(crate) fn read_back_later(&self, node: &Arc<Node>, uncertain: Uncertain) {
        if let Some(staged) = &mut node.file.lock().staged {
            staged.uncertain = Some(Box::new(uncertain));
        }
        self.writing.tend(node);
    }

    /// A rename of `node` has happened after all.
    fn has_been_renamed(&self, node: &Arc<Node>, from: &Bytes, to: &Bytes) -> Answer<()> {
        let is_here = |node: &Arc<Node>, key: &Bytes| {
            let found = self.nodes.find(&Place::File { key: key.clone() });
            found.is_some_and(|found| Arc::ptr_eq(&found, node))
        };
        let replaced = self.nodes.find(&Place::File { key: to.clone() });
        // Whoever writes to what has the name by now has been told nothing of a rename.
        let is_taken = replaced.is_some_and(|own| own.file.lock().staged.is_some());
        if is_taken || !is_here(node, from) {
            return self.refuse(node, from, Errno::ESTALE);
        }
        self.forget_unborn(node, from);
        self.lose_name(to);
        self.nodes.move_file(from, to);
        self.forget_name(from);
        self.forget_name(to);
        Ok(())
    }

    /// The version that this mount's transaction made of `key`.
    async fn find_commit(
        &self,
        key: &Bytes,
        uncertain: &Uncertain,
    ) -> Result<Option<Committed>, Error> {
        let Uncertain { sequence, since, draft, renamed_to } = uncertain;
        let own = Some((self.mount_id, *sequence));
        let mut at_most = Revision::NONE;
        loop {
            let request = HistoryRequest {
                key: key.clone(),
                at_most,
                limit: VERSIONS_AT_ONCE,
                keys_only: true,
            };
            let versions = match self.within_deadline(self.keys.history(request)).await {
                Err(Error::Unsupported(_)) => return self.find_content(key, draft).await,
                versions => versions?,
            };
            // The last of a full answer is looked at as the first of the next, beside what it replaced.
            let next = match versions.last().map(|last| last.event.kv.mod_revision) {
                Some(last) if versions.len() == VERSIONS_AT_ONCE && last > *since => Some(last),
                _ => None,
            };
            let looked_at = versions.len() - usize::from(next.is_some());
            let found = versions[..looked_at].iter().position(|version| {
                version.event.kind == ChangeKind::Put && maker(&version.stamp.note) == own
            });
            if let Some(index) = found {
                let before = versions.get(index + 1).map(|version| &version.event.kv);
                let is_newest = index == 0 && at_most == Revision::NONE;
                // A rename carries all bytes.
                let has_foreign_bytes = !is_newest || (renamed_to.is_none() && draft.lacks(before));
                let kv = versions[index].event.kv.clone();
                return Ok(Some(Committed { kv, has_foreign_bytes }));
            }
            match next {
                Some(next) => at_most = next,
                None => return Ok(None),
            }
        }
    }

    /// Where there are no notes the content is the only witness.
    async fn find_content(&self, key: &Bytes, draft: &Draft) -> Result<Option<Committed>, Error> {
        let read = self.keys.read(Revision::NONE, vec![Read::key(key.clone())]);
        let answer = self.within_deadline(read).await?;
        let own = key_value(&answer, 0).filter(|kv| kv.value == draft.bytes.as_slice());
        Ok(own.map(|kv| Committed { kv: kv.clone(), has_foreign_bytes: false }))
    }
}
