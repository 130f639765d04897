//! Removing names. A file that is still open lives on for its handles; what is written to it then goes
//! nowhere.
//!
//! A directory that loses its last file through this mount keeps its marker, or gets one, so that it
//! does not vanish under the shell that stands in it.

use std::ffi::OsStr;
use std::sync::Arc;

use bytes::Bytes;
use fuser::Errno;
use revfs_api::keyspace::{Compare, KeyRange, Op, Txn};

use crate::attributes::record_key;
use crate::commit::transaction::unchanged;
use crate::errno::{errno, name_errno};
use crate::filesystem::{Answer, Caller, Filesystem};
use crate::node::{Node, Place, Tree};
use crate::note::Operation;
use crate::path::{DirectoryKey, Name, decode_name};
use crate::resolve::{Standing, StandingDirectory, StandingFile, Subject};

/// Attempts while others keep changing what is to be removed.
const ATTEMPTS_MAX: usize = 10;

/// What an existing name leads to.
#[derive(Debug)]
pub(crate) enum Existing {
    /// A file that only this mount has.
    Unborn {
        key: Bytes,
    },
    File(Box<StandingFile>),
    Directory(Box<StandingDirectory>),
}

impl Filesystem {
    /// Removes the name of a file or symlink.
    ///
    /// # Errors
    /// ENOENT, EISDIR; EPERM for hidden names; EROFS outside the live tree.
    pub async fn unlink(&self, caller: Caller, parent: u64, name: &OsStr) -> Answer<()> {
        let directory = self.live_directory(parent)?;
        self.check_removable()?;
        for _ in 0..ATTEMPTS_MAX {
            let key = match self.existing(&directory, name).await?.ok_or(Errno::ENOENT)? {
                Existing::Directory(_) => return Err(Errno::EISDIR),
                Existing::Unborn { key } => key,
                Existing::File(file) => file.kv.key,
            };
            let renames = self.hold_names().await?;
            let node = self.nodes.find(&Place::File { key: key.clone() });
            // No commit of the file may be under way: it would find its key gone.
            let own = match &node {
                Some(node) => Some(node.commit.lock().await),
                None => None,
            };
            if let Some(node) = &node {
                // A file that may be in the store already must not stay there.
                self.read_back(node).await?;
            }
            let is_unborn = node.as_ref().is_some_and(|node| self.is_unborn(node, &key));
            let is_done = is_unborn || self.unlink_stored(caller, &directory, &key).await?;
            if is_done {
                self.lose_name(&key);
                drop((own, renames));
                return Ok(());
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Deletes key and record. False if there was no such key any more.
    async fn unlink_stored(
        &self,
        caller: Caller,
        directory: &DirectoryKey,
        key: &Bytes,
    ) -> Answer<bool> {
        // At a directory's prefix the file `%` gives way to the marker.
        let is_prefix = key == directory.as_bytes();
        let mut success = vec![
            if is_prefix { Op::put(key.clone(), Bytes::new()) } else { Op::delete(key.clone()) },
            Op::delete(record_key(key)),
        ];
        if !is_prefix {
            success.extend(self.keep_directory(&DirectoryKey::of_key(key).0));
        }
        let compares = vec![Compare::present(key.clone())];
        let txn = Txn { compares, success, failure: Vec::new() };
        let proposed = self.propose(caller.uid, vec![Operation::Unlink(key.clone())], txn).await;
        Ok(proposed.map_err(|error| errno(&error))?.succeeded)
    }

    /// Puts the marker of a directory that something is taken from, if it has none.
    pub(crate) fn keep_directory(&self, directory: &DirectoryKey) -> Option<Op> {
        let is_kept = *directory != self.options.root
            && self.options.root.contains(directory.as_bytes())
            && self.options.writes_markers;
        if !is_kept {
            return None;
        }
        let marker = directory.marker()?;
        Some(Op::Txn(Txn {
            compares: vec![Compare::absent(KeyRange::Key(marker.clone()))],
            success: vec![Op::put(marker, Bytes::new())],
            failure: Vec::new(),
        }))
    }

    /// The name of `key` is gone or another file's: the node that had it is private from now on.
    pub(crate) fn lose_name(&self, key: &Bytes) {
        self.unborn.lock().remove(&DirectoryKey::of_key(key));
        if let Some(node) = self.nodes.detach(key) {
            let mut state = node.file.lock();
            state.is_private = true;
            state.give_up_name();
            if state.open == 0 {
                state.staged = None;
            }
            drop(state);
            self.nodes.release(node.ino);
        }
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, ENOTEMPTY; EPERM for hidden names; EROFS outside the live tree.
    pub async fn rmdir(&self, caller: Caller, parent: u64, name: &OsStr) -> Answer<()> {
        if self.holds_transactions(parent) {
            return self.drop_transaction(name);
        }
        let parent = self.live_directory(parent)?;
        self.check_removable()?;
        for _ in 0..ATTEMPTS_MAX {
            let removed = match self.existing(&parent, name).await?.ok_or(Errno::ENOENT)? {
                Existing::Unborn { .. } | Existing::File(_) => return Err(Errno::ENOTDIR),
                Existing::Directory(removed) => removed,
            };
            self.check_empty(&removed).await?;
            let directory = &removed.directory;
            let marker = directory.marker().ok_or(Errno::EPERM)?;
            let mut compares = vec![
                unchanged(&marker, removed.marker.as_ref()),
                Compare::absent(directory.range_below_marker()),
            ];
            compares.extend(directory.value_key().map(|key| Compare::absent(KeyRange::Key(key))));
            let mut success = vec![Op::delete(marker.clone()), Op::delete(record_key(&marker))];
            success.extend(self.keep_directory(&parent));
            let txn = Txn { compares, success, failure: Vec::new() };
            let note = vec![Operation::RemoveDirectory(marker)];
            let proposed = self.propose(caller.uid, note, txn).await;
            if proposed.map_err(|error| errno(&error))?.succeeded {
                self.nodes.bury_directory(&removed.directory);
                return Ok(());
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Refuses a directory that holds more than its marker, here or in the store.
    pub(crate) async fn check_empty(&self, own: &StandingDirectory) -> Answer<()> {
        if own.answer.names > 1 || own.marker.is_none() || self.has_unborn_below(&own.directory) {
            return Err(Errno::ENOTEMPTY);
        }
        // `@value` and `%` are files in the directory, though no key below it.
        let keys = [own.directory.value_key(), own.directory.marker()];
        for key in keys.into_iter().flatten() {
            if self.stands(Tree::Live, &Subject::File(key)).await?.standing.is_some() {
                return Err(Errno::ENOTEMPTY);
            }
        }
        Ok(())
    }

    /// What a name leads to, in this mount or in the store.
    pub(crate) async fn existing(
        &self,
        directory: &DirectoryKey,
        name: &OsStr,
    ) -> Answer<Option<Existing>> {
        let name = decode_name(name).map_err(|error| name_errno(&error))?;
        match &name {
            Name::Hidden(_) | Name::Reserved => return Err(Errno::EPERM),
            Name::Component(component) => {
                let place = (directory.clone(), component.clone());
                if self.unborn.lock().contains_key(&place) {
                    let key = directory.child_key(component);
                    return Ok(Some(Existing::Unborn { key }));
                }
            }
            Name::Value | Name::Digest(_) => {}
        }
        let seen = self.stands_under_name(Tree::Live, directory, name).await?;
        Ok(seen.standing.map(|standing| match standing {
            Standing::File(file) => Existing::File(Box::new(file)),
            Standing::Directory(directory) => Existing::Directory(Box::new(directory)),
        }))
    }

    pub(crate) fn is_unborn(&self, node: &Arc<Node>, key: &Bytes) -> bool {
        let place = DirectoryKey::of_key(key);
        self.unborn.lock().get(&place).is_some_and(|own| Arc::ptr_eq(own, node))
    }

    pub(crate) fn has_unborn_below(&self, directory: &DirectoryKey) -> bool {
        let unborn = self.unborn.lock();
        let mut from = unborn.range((directory.clone(), Bytes::new())..);
        from.next().is_some_and(|((own, _), _)| directory.contains(own.as_bytes()))
    }
}
