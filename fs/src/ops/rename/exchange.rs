//! RENAME_EXCHANGE of two files.
//!
//! A transaction writes no key twice, so the two do not change places by moves: each key gets the
//! other's value and attributes, its time included. Directories cannot be exchanged in this way.

use bytes::Bytes;
use fuser::Errno;
use revfs_api::keyspace::{Compare, Error, Op, Revision, Txn};

use super::file::lock_commits;
use crate::attributes::{Attributes, record_key};
use crate::commit::doubt::NameChange;
use crate::commit::transaction::unchanged;
use crate::filesystem::{Answer, Caller, Filesystem};
use crate::node::Place;
use crate::note::Operation;
use crate::ops::remove::Existing;
use crate::stored::StoredFile;

impl Filesystem {
    /// Exchanges two files. False if what was seen does not hold any more.
    pub(super) async fn exchange(
        &self,
        caller: Caller,
        one: Existing,
        other: Existing,
    ) -> Answer<bool> {
        let (Some(one), Some(other)) = (file_key(one), file_key(other)) else {
            return Err(Errno::EINVAL);
        };
        if one == other {
            return Ok(true);
        }
        let renames = self.hold_names_alone().await?;
        let first = self.nodes.find(&Place::File { key: one.clone() });
        let second = self.nodes.find(&Place::File { key: other.clone() });
        let own = lock_commits(first.as_ref(), second.as_ref()).await;
        for node in [&first, &second].into_iter().flatten() {
            self.commit_locked(node, caller.uid).await?;
        }
        let stored = (
            self.stored_file(&one, Revision::NONE).await?,
            self.stored_file(&other, Revision::NONE).await?,
        );
        let (Some(a), Some(b)) = stored else { return Ok(false) };
        let mut compares = Vec::new();
        for file in [&a, &b] {
            let key = &file.kv.key;
            compares.push(Compare::mod_revision(key.clone(), file.kv.mod_revision));
            compares.push(unchanged(&record_key(key), file.record.as_ref()));
        }
        let mut success = self.put_as(&one, &b);
        success.extend(self.put_as(&other, &a));
        let note = vec![Operation::Exchange { one: one.clone(), other: other.clone() }];
        let txn = Txn { compares, success, failure: Vec::new() };
        let (sequence, since) = (self.next_sequence(), self.floor());
        let answer = match self.propose_as(sequence, caller.uid, note, txn).await {
            Ok(answer) => answer,
            Err(error) => {
                if matches!(error, Error::OutcomeUnknown { .. }) {
                    let (one, other) = ((one.clone(), a.life()), (other.clone(), b.life()));
                    self.doubt(sequence, since, NameChange::Exchange { one, other });
                }
                return Err(self.rename_failed(&error, &one, &other));
            }
        };
        if answer.succeeded {
            self.nodes.exchange_files(&one, &other);
            // Each key keeps its life, and each node its content.
            for (node, life) in [(&first, b.life()), (&second, a.life())] {
                if let Some(node) = node {
                    let mut state = node.file.lock();
                    state.life = life;
                    state.drop_content();
                    drop(state);
                    node.see(answer.revision);
                }
            }
        }
        drop((own, renames));
        Ok(answer.succeeded)
    }

    /// Puts under `key` what `file` is.
    fn put_as(&self, key: &Bytes, file: &StoredFile) -> Vec<Op> {
        let attributes = Attributes {
            mtime: file.attributes.mtime.or(Some(file.kv.content_time)),
            ..file.attributes.clone()
        };
        let content = Op::Put {
            key: key.clone(),
            value: file.kv.value.clone(),
            lease: file.kv.lease,
            prev_kv: false,
            ignore_value: false,
            ignore_lease: false,
        };
        vec![content, Op::put(record_key(key), attributes.encode())]
    }
}

fn file_key(end: Existing) -> Option<Bytes> {
    match end {
        Existing::Unborn { key } => Some(key),
        Existing::File(file) => Some(file.kv.key),
        Existing::Directory(_) => None,
    }
}
