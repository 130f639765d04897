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
use crate::node::Node;
use crate::note::maker;
use crate::staged::{Committed, Draft};

/// How many later versions of the key may lie above the one that is looked for.
const VERSIONS_MAX: usize = 64;

impl Filesystem {
    /// Finds out what became of the last commit of `node`, if that is not known.
    ///
    /// # Errors
    /// EIO while it cannot be found out.
    pub(crate) async fn read_back(&self, node: &Arc<Node>) -> Answer<()> {
        let Some((key, _)) = draft_of(node) else { return Ok(()) };
        let uncertain = node.file.lock().staged.as_mut().and_then(|staged| staged.uncertain.take());
        let Some(uncertain) = uncertain else { return Ok(()) };
        let found = self.find_commit(&key, uncertain.0, &uncertain.1).await;
        match found {
            Ok(Some(committed)) => self.settle(node, &key, &uncertain.1, &committed).await,
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

    /// The version that this mount's transaction `sequence` made of `key` with `draft`.
    async fn find_commit(
        &self,
        key: &Bytes,
        sequence: u64,
        draft: &Draft,
    ) -> Result<Option<Committed>, Error> {
        let request = HistoryRequest {
            key: key.clone(),
            at_most: Revision::NONE,
            limit: VERSIONS_MAX,
            keys_only: true,
        };
        let timeout = self.options.timeout;
        let asked = tokio::time::timeout(timeout, self.keys.history(request)).await;
        match asked.unwrap_or(Err(Error::Timeout(timeout))) {
            Ok(versions) => {
                let own = Some((self.mount_id, sequence));
                let found = versions.iter().position(|version| {
                    version.event.kind == ChangeKind::Put && maker(&version.stamp.note) == own
                });
                Ok(found.map(|index| {
                    let before = versions.get(index + 1).map(|version| &version.event.kv);
                    let has_foreign_bytes = index > 0 || draft.lacks(before);
                    Committed { kv: versions[index].event.kv.clone(), has_foreign_bytes }
                }))
            }
            // No notes there: the content is the only witness.
            Err(Error::Unsupported(_)) => {
                let read = self.keys.read(Revision::NONE, vec![Read::key(key.clone())]);
                let asked = tokio::time::timeout(timeout, read).await;
                let answer = asked.unwrap_or(Err(Error::Timeout(timeout)))?;
                let own = key_value(&answer, 0).filter(|kv| kv.value == draft.bytes.as_slice());
                Ok(own.map(|kv| Committed { kv: kv.clone(), has_foreign_bytes: false }))
            }
            Err(error) => Err(error),
        }
    }
}
