//! Renaming one file.

use std::sync::Arc;

use bytes::Bytes;
use fuser::Errno;
use revfs_api::keyspace::{Compare, Error, KeyRange, KeyValue, LeaseId, Op, Revision, Txn};
use tokio::sync::MutexGuard;

use super::NewName;
use crate::attributes::record_key;
use crate::commit::transaction::{Site, Surroundings, Verdict, key_without_value, last_key};
use crate::commit::{draft_of, operations};
use crate::errno::errno;
use crate::filesystem::{Answer, Caller, Filesystem};
use crate::node::{Node, Place};
use crate::note::Operation;
use crate::path::DirectoryKey;
use crate::reservation::{give_up, is_not_reserved};
use crate::resolve::StandingFile;
use crate::staged::{Basis, Committed, Content, Draft, Life, Uncertain};

impl Filesystem {
    /// Renames the file `from`; `stored` is what the store has of it. False if what was seen does not
    /// hold any more.
    pub(super) async fn rename_file(
        &self,
        caller: Caller,
        from: &Bytes,
        stored: Option<&StandingFile>,
        new: &NewName,
    ) -> Answer<bool> {
        if *from == new.key {
            return Ok(true);
        }
        if from.ends_with(b"/") {
            // The file `%` lies where the directory's marker has to stay.
            return Err(Errno::EPERM);
        }
        let renames = self.hold_names().await?;
        let node = self.nodes.find(&Place::File { key: from.clone() });
        let replaced = self.nodes.find(&Place::File { key: new.key.clone() });
        let own = lock_commits(node.as_ref(), replaced.as_ref()).await;
        let draft = match &node {
            Some(node) => {
                self.read_back(node).await?;
                draft_of(node).map(|(_, draft)| (node, draft))
            }
            None => None,
        };
        let is_done = match (draft, stored) {
            (Some((node, draft)), _) => self.rename_staged(caller, node, &draft, from, new).await,
            (None, Some(stored)) => self.rename_stored(caller, node.as_ref(), stored, new).await,
            // Born since it was looked at.
            (None, None) => Ok(false),
        };
        drop((own, renames));
        is_done
    }

    /// Content, attributes and name in one transaction.
    async fn rename_staged(
        &self,
        caller: Caller,
        node: &Arc<Node>,
        draft: &Draft,
        from: &Bytes,
        new: &NewName,
    ) -> Answer<bool> {
        let defaults = self.options.defaults();
        let old_site = Site { key: from, root: &self.options.root, defaults: &defaults };
        let site = Site { key: &new.key, ..old_site };
        let mut compares = self.new_name_compares(&site, new);
        let mut success = vec![
            Op::put(new.key.clone(), draft.whole()),
            site.record_op(&draft.attributes, draft.bytes.len()),
        ];
        if !draft.life.is_unborn() {
            compares.extend(old_site.life_compares(draft));
            if let Basis::Append { modified, .. } = draft.basis {
                // The bytes go to another key whole, so they must be all.
                compares.push(Compare::mod_revision(from.clone(), modified));
            }
            success.push(Op::delete(from.clone()));
            success.push(Op::delete(record_key(from)));
            success.extend(self.keep_directory(&DirectoryKey::of_key(from).0));
        }
        if draft.creation.reserved != LeaseId::default() {
            success.push(give_up(from, draft.creation.reserved));
        }
        success.extend(self.moved_locks(from, &new.key));
        success.push(key_without_value(&new.key));
        let mut note = operations(from, &draft.steps);
        note.push(Operation::Rename { from: from.clone(), to: new.key.clone() });
        let txn = Txn { compares, success, failure: old_site.surroundings() };
        let (sequence, since) = (self.next_sequence(), self.floor());
        let answer = match self.propose_as(sequence, caller.uid, note, txn).await {
            Ok(answer) => answer,
            Err(error) => {
                if matches!(error, Error::OutcomeUnknown { .. }) {
                    let (draft, renamed_to) = (draft.clone(), Some(new.key.clone()));
                    let uncertain = Uncertain { sequence, since, draft, renamed_to };
                    self.read_back_later(node, uncertain);
                }
                return Err(self.rename_failed(&error, from, &new.key));
            }
        };
        if !answer.succeeded {
            let found = Surroundings::new(&old_site, &answer.answers);
            return self.learn_of_source(node, draft, from, &found).await.map(|()| false);
        }
        let kv = last_key(&answer.answers).ok_or(Errno::EIO)?;
        self.forget_unborn(node, from);
        self.lose_name(&new.key);
        self.nodes.move_file(from, &new.key);
        node.see(kv.mod_revision);
        let committed = Committed { kv, has_foreign_bytes: false };
        node.file.lock().settle(draft, &committed);
        Ok(true)
    }

    /// What the store has of the source decides whether another attempt makes sense.
    async fn learn_of_source(
        &self,
        node: &Arc<Node>,
        draft: &Draft,
        from: &Bytes,
        found: &Surroundings,
    ) -> Answer<()> {
        if draft.life.is_unborn() {
            return Ok(());
        }
        match found.judge(draft) {
            Verdict::Again { life, creation, basis } => {
                let has_appended = matches!(basis, Basis::Append { modified, .. }
                    if found.kv.as_ref().is_some_and(|kv| kv.mod_revision != modified));
                let content = if has_appended { self.stored_content(from).await? } else { None };
                let mut state = node.file.lock();
                state.life = life;
                if let Some(staged) = &mut state.staged {
                    staged.creation = creation;
                    staged.basis = basis;
                    if let Some(content) = &content {
                        staged.put_before(content);
                    }
                }
                Ok(())
            }
            Verdict::Refused(errno) => self.refuse(node, from, errno),
        }
    }

    /// Moves key and record.
    async fn rename_stored(
        &self,
        caller: Caller,
        node: Option<&Arc<Node>>,
        stored: &StandingFile,
        new: &NewName,
    ) -> Answer<bool> {
        let from = &stored.kv.key;
        let defaults = self.options.defaults();
        let site = Site { key: &new.key, root: &self.options.root, defaults: &defaults };
        let (old_record, new_record) = (record_key(from), record_key(&new.key));
        let mut compares = self.new_name_compares(&site, new);
        compares.push(Compare::create_revision(from.clone(), stored.kv.create_revision));
        compares.push(Compare::mod_revision(old_record.clone(), stored.record));
        let mut success = vec![Op::MoveKey { from: from.clone(), to: new.key.clone() }];
        success.push(if stored.record == Revision::NONE {
            Op::delete(new_record)
        } else {
            Op::MoveKey { from: old_record, to: new_record }
        });
        success.extend(self.keep_directory(&DirectoryKey::of_key(from).0));
        success.extend(self.moved_locks(from, &new.key));
        success.push(key_without_value(&new.key));
        let note = vec![Operation::Rename { from: from.clone(), to: new.key.clone() }];
        let txn = Txn { compares, success, failure: Vec::new() };
        let answer = match self.propose(caller.uid, note, txn).await {
            Ok(answer) => answer,
            Err(error) => return Err(self.rename_failed(&error, from, &new.key)),
        };
        if answer.succeeded {
            let kv = last_key(&answer.answers).ok_or(Errno::EIO)?;
            self.lose_name(&new.key);
            self.nodes.move_file(from, &new.key);
            if let Some(node) = node {
                moved(node, &kv);
            }
        }
        Ok(answer.succeeded)
    }

    fn new_name_compares(&self, site: &Site<'_>, new: &NewName) -> Vec<Compare> {
        let below = new.directory.child_directory(&new.component).range();
        let mut compares = vec![Compare::absent(below)];
        if new.must_be_free {
            compares.push(Compare::absent(KeyRange::Key(new.key.clone())));
            compares.push(is_not_reserved(&new.key));
        }
        compares.extend(site.parent_compares(new.around));
        compares
    }

    /// After an unknown outcome neither name may be believed. What is too large for a backend that moves
    /// by plain operations the caller may copy.
    pub(super) fn rename_failed(&self, error: &Error, from: &Bytes, to: &Bytes) -> Errno {
        if matches!(error, Error::OutcomeUnknown { .. }) {
            self.forget_name(from);
            self.forget_name(to);
        }
        match error {
            Error::TooBig { .. } if !self.keys.capabilities().bulk => Errno::EXDEV,
            error => errno(error),
        }
    }
}

/// What a node knows of its content stays true under the new name.
fn moved(node: &Node, kv: &KeyValue) {
    let mut state = node.file.lock();
    state.life = Life::of(kv);
    let known = state.content.take().filter(|own| own.content_revision == kv.content_revision);
    state.drop_content();
    state.content = known.map(|own| Content { mod_revision: kv.mod_revision, ..own });
    drop(state);
    node.see(kv.mod_revision);
}

/// Waits until no commit of either node runs, and keeps others from beginning.
pub(super) async fn lock_commits<'a>(
    one: Option<&'a Arc<Node>>,
    other: Option<&'a Arc<Node>>,
) -> (Option<MutexGuard<'a, ()>>, Option<MutexGuard<'a, ()>>) {
    let (first, second) = match (one, other) {
        (Some(one), Some(other)) if one.ino == other.ino => (Some(one), None),
        (Some(one), Some(other)) if one.ino > other.ino => (Some(other), Some(one)),
        pair => pair,
    };
    let mut guards = (None, None);
    if let Some(first) = first {
        guards.0 = Some(first.commit.lock().await);
    }
    if let Some(second) = second {
        guards.1 = Some(second.commit.lock().await);
    }
    guards
}
