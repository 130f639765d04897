//! A revision as pokes, where nobody says what was done: from its keys.
//!
//! A new key is a file that was made, written and closed; another value is a file that was opened,
//! written and closed; a key that is gone is a file that was removed. Directories come with the first
//! key below them and go with the last one. Renames are never guessed.

use std::collections::{BTreeSet, HashMap, HashSet};

use bytes::Bytes;
use fuser::FileType;
use revfs_api::keyspace::{
    Answer as KeyAnswer, ChangeKind, Event, KeyValue, Read, Revision, RevisionEvents,
};

use super::poke::{Action, Poke, Touch};
use crate::attributes::{Kind, RECORD_PREFIX, Record, is_marker};
use crate::filesystem::Filesystem;
use crate::node::{Node, Place};
use crate::path::DirectoryKey;
use crate::resolve::read_record;

/// One revision, being taken apart.
struct Plain<'a> {
    revision: Revision,
    /// Its side records, by the key that they are of.
    records: HashMap<Bytes, Option<Record>>,
    keys: HashSet<&'a Bytes>,
    /// Directories of which it is known whether they were there before.
    before: HashMap<DirectoryKey, bool>,
    /// Directories that something was removed from.
    emptier: BTreeSet<DirectoryKey>,
    pokes: Vec<Poke>,
}

impl<'a> Plain<'a> {
    fn new(events: &'a RevisionEvents) -> Self {
        let mut plain = Self {
            revision: events.stamp.revision,
            records: HashMap::new(),
            keys: HashSet::new(),
            before: HashMap::new(),
            emptier: BTreeSet::new(),
            pokes: Vec::new(),
        };
        for Event { kind, kv } in &events.events {
            match kv.key.strip_prefix(RECORD_PREFIX) {
                Some(subject) => {
                    let record = (*kind == ChangeKind::Put).then(|| read_record(kv)).flatten();
                    plain.records.insert(Bytes::copy_from_slice(subject), record);
                }
                None => drop(plain.keys.insert(&kv.key)),
            }
        }
        plain
    }

    fn record_of(&self, key: &Bytes) -> Option<&Record> {
        self.records.get(key).and_then(Option::as_ref)
    }
}

impl Filesystem {
    pub(super) async fn plain_pokes(&self, events: &RevisionEvents) -> Vec<Poke> {
        let mut plain = Plain::new(events);
        for event in &events.events {
            let key = &event.kv.key;
            match (key.strip_prefix(RECORD_PREFIX), event.kind) {
                (Some(subject), _) => {
                    let subject = Bytes::copy_from_slice(subject);
                    if !plain.keys.contains(&subject) {
                        plain.pokes.extend(self.attributes_poke(&subject));
                    }
                }
                (None, ChangeKind::Put) => self.key_was_put(&event.kv, &mut plain).await,
                (None, ChangeKind::Delete) => {
                    // A marker is no file of its own.
                    if !key.ends_with(b"/") {
                        plain.pokes.extend(self.remove(key, plain.revision));
                    }
                    plain.emptier.insert(DirectoryKey::of_key(key).0);
                }
            }
        }
        self.directories_went(&mut plain).await;
        plain.pokes
    }

    async fn key_was_put(&self, kv: &KeyValue, plain: &mut Plain<'_>) {
        let is_new = kv.create_revision == kv.mod_revision;
        if kv.key.ends_with(b"/") && is_marker(kv, plain.record_of(&kv.key)) {
            if is_new && let Ok(directory) = DirectoryKey::new(kv.key.clone()) {
                self.directories_came(directory, plain).await;
            }
            return;
        }
        if is_new {
            self.directories_came(DirectoryKey::of_key(&kv.key).0, plain).await;
        }
        let Some(at) = self.spot_of_key(&kv.key) else { return };
        let is_symlink =
            plain.record_of(&kv.key).is_some_and(|record| record.attributes.kind == Kind::Symlink);
        let is_new = is_new && !self.was_replaced(kv).await;
        let action = match (is_new, is_symlink) {
            (true, true) => Action::Symlink,
            (true, false) if kv.value_bytes == 0 => Action::Write { is_new, touches: Vec::new() },
            (_, false) => Action::Write { is_new, touches: vec![Touch::Content] },
            (false, true) => Action::Attributes(FileType::Symlink),
        };
        let subject = self.number_of_file(&kv.key);
        plain.pokes.push(Poke { action, at, subject });
    }

    /// Whether another file had the key until this revision: then the name is not new.
    async fn was_replaced(&self, kv: &KeyValue) -> bool {
        let node = self.nodes.find(&Place::File { key: kv.key.clone() });
        let is_older = |node: &Node| {
            let life = node.file.lock().life;
            !life.is_unborn() && life.create < kv.mod_revision
        };
        if !node.is_some_and(|node| is_older(&node)) {
            return false;
        }
        let before = Revision(kv.mod_revision.0 - 1);
        let answer = self.keys.read(before, vec![Read::key(kv.key.clone())]).await;
        answer.is_ok_and(|answer| {
            matches!(answer.answers.first(), Some(KeyAnswer::Range(range)) if !range.kvs.is_empty())
        })
    }

    /// Makes the directories from the outermost one that was not there before to this one.
    async fn directories_came(&self, directory: DirectoryKey, plain: &mut Plain<'_>) {
        let before = Revision(plain.revision.0.saturating_sub(1));
        let mut made = Vec::new();
        let mut next = Some(directory);
        while let Some(own) = next.filter(|own| self.is_below_root(own)) {
            let was_there = match plain.before.get(&own) {
                Some(was_there) => *was_there,
                None if self.was_surely_there(&own) => true,
                None if own.parent().is_some_and(|above| self.is_directory_known(&above)) => {
                    self.existed(&own, before).await
                }
                // Nobody can be told of this one; perhaps of one above it.
                None => false,
            };
            plain.before.insert(own.clone(), true);
            if was_there {
                break;
            }
            next = own.parent();
            made.push(own);
        }
        for own in made.iter().rev() {
            plain.pokes.extend(self.make_directory(own));
        }
    }

    fn is_below_root(&self, directory: &DirectoryKey) -> bool {
        *directory != self.options.root && self.options.root.contains(directory.as_bytes())
    }

    /// The kernel knows it, and was not told since that it is gone.
    fn was_surely_there(&self, directory: &DirectoryKey) -> bool {
        let tree = crate::node::Tree::Live;
        let node = self.nodes.find(&Place::Directory { tree, directory: directory.clone() });
        node.is_some_and(|node| self.nodes.is_known(node.ino) && !node.is_denied())
    }

    /// Removes the directories in which nothing is left, the innermost first.
    async fn directories_went(&self, plain: &mut Plain<'_>) {
        let mut gone: BTreeSet<DirectoryKey> = BTreeSet::new();
        for directory in std::mem::take(&mut plain.emptier) {
            let mut next = Some(directory);
            while let Some(own) = next.filter(|own| self.is_below_root(own)) {
                let above = own.parent();
                let can_matter = self.is_directory_known(&own)
                    || above.as_ref().is_some_and(|above| self.is_directory_known(above));
                if gone.contains(&own) || !can_matter || self.existed(&own, plain.revision).await {
                    break;
                }
                gone.insert(own);
                next = above;
            }
        }
        // In the order of keys what lies inside comes after what it lies in.
        for directory in gone.into_iter().rev() {
            plain.pokes.extend(self.remove_directory(directory));
        }
    }

    /// Whether a directory was there at a revision; if that cannot be told, yes: no event is made up.
    pub(super) async fn existed(&self, directory: &DirectoryKey, revision: Revision) -> bool {
        if revision == Revision::NONE {
            return true;
        }
        let question = vec![Read::Directory(directory.as_bytes().clone())];
        match self.keys.read(revision, question).await {
            Ok(answer) => matches!(
                answer.answers.first(),
                Some(KeyAnswer::Directory(directory)) if directory.names > 0
            ),
            Err(_) => true,
        }
    }
}

#[cfg(test)]
mod tests;
