//! Renaming a directory: its keys, its records and its own value, as ranges.

use std::mem::take;

use fuser::Errno;
use revfs_api::keyspace::{Compare, Error, KeyRange, KeyValue, Op, Read, Revision, Txn};

use super::NewName;
use crate::attributes::record_key;
use crate::commit::doubt::NameChange;
use crate::commit::key_value;
use crate::commit::transaction::{Site, unchanged};
use crate::filesystem::{Answer, Caller, Filesystem};
use crate::note::Operation;
use crate::ops::lock::moved_lock;
use crate::path::DirectoryKey;
use crate::reservation::is_not_reserved;
use crate::resolve::StandingDirectory;

/// What lies beside the two ranges.
struct Beside {
    /// `@value` of the source and its record.
    value: Option<KeyValue>,
    value_record: Option<KeyValue>,
}

impl Filesystem {
    /// Renames a directory, over an empty one if there is one. False if what was seen does not hold
    /// any more.
    pub(super) async fn rename_directory(
        &self,
        caller: Caller,
        source: &StandingDirectory,
        new: &NewName,
        target: Option<&StandingDirectory>,
    ) -> Answer<bool> {
        let from = &source.directory;
        let to = new.directory.child_directory(&new.component);
        if *from == to {
            return Ok(true);
        }
        if from.contains(to.as_bytes()) {
            return Err(Errno::EINVAL);
        }
        // No commit may go to a key below while it is being moved.
        let renames = self.hold_names_alone().await?;
        if let Some(target) = target {
            self.check_empty(target).await?;
        }
        let beside = self.beside(from).await?;
        let txn = self.directory_transaction(source, new, &to, &beside);
        let note = Operation::Rename { from: from.as_bytes().clone(), to: to.as_bytes().clone() };
        let (sequence, since) = (self.next_sequence(), self.floor());
        let answer = match self.propose_as(sequence, caller.uid, vec![note], txn).await {
            Ok(answer) => answer,
            Err(error) => {
                if matches!(error, Error::OutcomeUnknown { .. }) {
                    let (from, to) = (from.clone(), to.clone());
                    self.doubt(sequence, since, NameChange::Directory { from, to });
                }
                return Err(self.rename_failed(&error, from.as_bytes(), to.as_bytes()));
            }
        };
        if answer.succeeded {
            self.move_here(from, &to, answer.revision);
        }
        drop(renames);
        Ok(answer.succeeded)
    }

    fn directory_transaction(
        &self,
        source: &StandingDirectory,
        new: &NewName,
        to: &DirectoryKey,
        beside: &Beside,
    ) -> Txn {
        let from = &source.directory;
        let defaults = self.options.defaults();
        let site = Site { key: &new.key, root: &self.options.root, defaults: &defaults };
        let mut compares = vec![
            unchanged(from.as_bytes(), source.marker.as_ref()),
            Compare::absent(to.range_below_marker()),
            Compare::absent(KeyRange::Key(new.key.clone())),
        ];
        if new.must_be_free {
            compares.push(is_not_reserved(&new.key));
        }
        compares.extend(site.parent_compares(new.around));
        let mut success = vec![
            Op::Move { from: from.as_bytes().clone(), to: to.as_bytes().clone() },
            // Records that are left over at the target must not become those of younger files that have
            // none. Below the source they mean nothing to anybody, whatever is made there later.
            Op::Exchange { a: record_key(from.as_bytes()), b: record_key(to.as_bytes()) },
        ];
        if let Some(old_value) = from.value_key() {
            compares.push(unchanged(&old_value, beside.value.as_ref()));
            compares.push(unchanged(&record_key(&old_value), beside.value_record.as_ref()));
            if beside.value.is_some() {
                let (old_record, new_record) = (record_key(&old_value), record_key(&new.key));
                success.push(Op::MoveKey { from: old_value, to: new.key.clone() });
                success.push(if beside.value_record.is_some() {
                    Op::MoveKey { from: old_record, to: new_record }
                } else {
                    Op::delete(new_record)
                });
            }
        }
        for (locked, session) in self.locks.locked() {
            success.extend(from.rebase(&locked, to).map(|to| moved_lock(&locked, &to, &session)));
        }
        success.extend(from.parent().and_then(|parent| self.keep_directory(&parent)));
        Txn { compares, success, failure: Vec::new() }
    }

    async fn beside(&self, from: &DirectoryKey) -> Answer<Beside> {
        let value = from.value_key().unwrap_or_else(|| from.as_bytes().clone());
        let reads = vec![Read::key(value.clone()), Read::key(record_key(&value))];
        let answer = self.ask(Revision::NONE, reads).await?;
        let key = |index| key_value(&answer, index).cloned();
        Ok(Beside { value: key(0), value_record: key(1) })
    }

    /// What this mount knows below `from` now stands below `to`.
    pub(crate) fn move_here(&self, from: &DirectoryKey, to: &DirectoryKey, revision: Revision) {
        let mut unborn = self.unborn.lock();
        for ((directory, component), node) in take(&mut *unborn) {
            let moved = from.rebase_directory(&directory, to);
            if moved.is_some() {
                node.file.lock().give_up_name();
            }
            unborn.insert((moved.unwrap_or(directory), component), node);
        }
        drop(unborn);
        // The one that was replaced.
        self.nodes.bury_directory(to);
        self.nodes.move_directory(from, to);
        if let (Some(from), Some(to)) = (from.value_key(), to.value_key()) {
            self.nodes.move_file(&from, &to);
        }
        // What is unlinked next is read where it was seen last: under its new name.
        for node in self.nodes.below(to) {
            node.see(revision);
        }
    }
}
