//! A revision as pokes, where the mount that made it says what was done.
//!
//! Its note has the operations in their order ([`crate::note`]); each is repeated as it is, a whole
//! directory renamed as one rename. A revision without a note, or with one that was cut, is taken apart
//! by its keys ([`super::plain`]). Only what the kernel knows is poked: of a directory or file that it
//! does not know, nobody can be told anything.

use std::sync::Arc;

use bytes::Bytes;
use fuser::FileType;
use revfs_api::keyspace::{ChangeKind, Event, KeyValue, Revision, RevisionEvents};

use super::answers::node_kind;
use super::poke::{Action, Poke, Spot, Touch};
use crate::filesystem::Filesystem;
use crate::node::{Node, Place, Tree};
use crate::note::{Note, Operation};
use crate::path::{DirectoryKey, encode_component, is_reservation_key};

impl Filesystem {
    /// The pokes of a revision that was made elsewhere, in order. What was renamed has its nodes moved
    /// along, so that they are the same files for whoever holds them.
    pub(crate) async fn pokes_of(&self, events: &RevisionEvents) -> Vec<Poke> {
        let is_visible = events.events.iter().any(|event| !is_reservation_key(&event.kv.key));
        if !is_visible || !self.events.is_on() {
            return Vec::new();
        }
        let note = Note::decode(&events.stamp.note);
        let pokes = match note.filter(|note| !note.is_cut && !note.operations.is_empty()) {
            Some(note) => self.repeated(&note.operations, events).await,
            None => self.plain_pokes(events).await,
        };
        pokes.into_iter().filter(|poke| self.can_matter(poke)).collect()
    }

    /// Whether the kernel knows anything that an event of it could go to.
    fn can_matter(&self, poke: &Poke) -> bool {
        let knows = |spot: &Spot| self.is_directory_known(&spot.directory);
        poke.subject.is_some() || knows(&poke.at) || poke.to().is_some_and(knows)
    }

    pub(super) fn is_directory_known(&self, directory: &DirectoryKey) -> bool {
        let place = Place::Directory { tree: Tree::Live, directory: directory.clone() };
        self.nodes.known_number(&place).is_some()
    }

    async fn repeated(&self, operations: &[Operation], events: &RevisionEvents) -> Vec<Poke> {
        let mut pokes = Vec::new();
        let mut rest = operations;
        while let Some(first) = rest.first() {
            let written = match written_key(first) {
                Some(key) => key.clone(),
                None => {
                    rest = &rest[1..];
                    pokes.extend(self.repeated_name(first, events).await);
                    continue;
                }
            };
            let count = rest
                .iter()
                .take_while(|operation| written_key(operation) == Some(&written))
                .count();
            pokes.extend(self.written(&written, &rest[..count], events));
            rest = &rest[count..];
        }
        pokes
    }

    /// What was done to one file from when it was opened until it was closed.
    fn written(
        &self,
        key: &Bytes,
        operations: &[Operation],
        events: &RevisionEvents,
    ) -> Option<Poke> {
        let size = put_of(events, key).map_or(0, |kv| kv.value_bytes);
        let mut touches: Vec<Touch> = Vec::new();
        for operation in operations {
            let touch = match operation {
                Operation::Write(_) | Operation::Append(_) | Operation::Truncate(_) => {
                    Touch::Content
                }
                Operation::Attributes(_) => Touch::Attributes,
                _ => continue,
            };
            if touches.last() != Some(&touch) {
                touches.push(touch);
            }
        }
        if let [Operation::Attributes(_)] = operations {
            return self.attributes_poke(key);
        }
        let is_new = operations.iter().any(|operation| matches!(operation, Operation::Create(_)));
        if is_new && size == 0 {
            // An empty file was made and not written.
            touches.retain(|touch| *touch == Touch::Attributes);
        }
        let action = Action::Write { is_new, touches };
        Some(Poke { action, at: self.spot_of_key(key)?, subject: self.number_of_file(key) })
    }

    async fn repeated_name(&self, operation: &Operation, events: &RevisionEvents) -> Option<Poke> {
        let revision = events.stamp.revision;
        match operation {
            Operation::MakeDirectory(marker) => {
                let directory = DirectoryKey::new(marker.clone()).ok()?;
                Some(self.make_directory(&directory)?)
            }
            Operation::RemoveDirectory(marker) => {
                let directory = DirectoryKey::new(marker.clone()).ok()?;
                Some(self.remove_directory(directory)?)
            }
            Operation::Unlink(key) => self.remove(key, revision),
            Operation::Symlink(key) => {
                Some(Poke { action: Action::Symlink, at: self.spot_of_key(key)?, subject: None })
            }
            Operation::Rename { from, to } if from.ends_with(b"/") && to.ends_with(b"/") => {
                let from = DirectoryKey::new(from.clone()).ok()?;
                let to = DirectoryKey::new(to.clone()).ok()?;
                self.renamed_directory(&from, &to, revision).await
            }
            Operation::Rename { from, to } => self.renamed_file(from, to, events),
            // Two names that change places are only forgotten.
            Operation::Exchange { .. } => None,
            Operation::Create(_)
            | Operation::Write(_)
            | Operation::Append(_)
            | Operation::Truncate(_)
            | Operation::Attributes(_)
            | Operation::Close(_) => None,
        }
    }

    /// Where a key shows: a name in its directory, or `@value` in the directory that it is.
    pub(super) fn spot_of_key(&self, key: &Bytes) -> Option<Spot> {
        if !self.options.root.contains(key) {
            return None;
        }
        let (directory, component) = DirectoryKey::of_key(key);
        let own = directory.child_directory(&component);
        if self.is_directory_known(&own) {
            return Some(Spot { directory: own, name: Bytes::from_static(b"@value") });
        }
        Some(Spot { directory, name: encode_component(&component).into_owned().into() })
    }

    pub(super) fn spot_of_directory(&self, directory: &DirectoryKey) -> Option<Spot> {
        if *directory == self.options.root {
            return Some(Spot { directory: directory.clone(), name: Bytes::new() });
        }
        let (above, component) = directory.split()?;
        let is_inside = self.options.root.contains(above.as_bytes());
        let name = encode_component(&component).into_owned().into();
        is_inside.then_some(Spot { directory: above, name })
    }

    pub(super) fn number_of_file(&self, key: &Bytes) -> Option<u64> {
        self.nodes.known_number(&Place::File { key: key.clone() })
    }

    /// A change of attributes alone; `key` is a file's, or a directory's with its slash.
    pub(super) fn attributes_poke(&self, key: &Bytes) -> Option<Poke> {
        if let Ok(directory) = DirectoryKey::new(key.clone()) {
            let place = Place::Directory { tree: Tree::Live, directory: directory.clone() };
            if let Some(subject) = self.nodes.known_number(&place) {
                let at = self.spot_of_directory(&directory)?;
                let action = Action::Attributes(FileType::Directory);
                return Some(Poke { action, at, subject: Some(subject) });
            }
        }
        let node = self.nodes.find(&Place::File { key: key.clone() });
        let kind = node.and_then(|node| node.kind()).unwrap_or(FileType::RegularFile);
        let (at, subject) = (self.spot_of_key(key)?, self.number_of_file(key));
        Some(Poke { action: Action::Attributes(kind), at, subject })
    }

    pub(super) fn make_directory(&self, directory: &DirectoryKey) -> Option<Poke> {
        let at = self.spot_of_directory(directory).filter(|spot| !spot.name.is_empty())?;
        Some(Poke { action: Action::MakeDirectory, at, subject: None })
    }

    pub(super) fn remove_directory(&self, directory: DirectoryKey) -> Option<Poke> {
        let at = self.spot_of_directory(&directory).filter(|spot| !spot.name.is_empty())?;
        let place = Place::Directory { tree: Tree::Live, directory: directory.clone() };
        let subject = self.nodes.known_number(&place);
        Some(Poke { action: Action::RemoveDirectory(directory), at, subject })
    }

    /// The file that a revision removed, if the kernel knows it and not a younger one by its name.
    pub(super) fn remove(&self, key: &Bytes, revision: Revision) -> Option<Poke> {
        let at = self.spot_of_key(key)?;
        let node = self.nodes.find(&Place::File { key: key.clone() });
        let node = node.filter(|node| is_older(node, revision));
        let kind = node.as_deref().and_then(Node::kind).unwrap_or(FileType::RegularFile);
        let subject = node.map(|node| node.ino).filter(|ino| self.nodes.is_known(*ino));
        Some(Poke { action: Action::Remove(kind), at, subject })
    }

    fn renamed_file(&self, from: &Bytes, to: &Bytes, events: &RevisionEvents) -> Option<Poke> {
        let (at, target) = (self.spot_of_key(from)?, self.spot_of_key(to)?);
        let moved = put_of(events, to)?;
        let source = self.nodes.find(&Place::File { key: from.clone() });
        let there = self.nodes.find(&Place::File { key: to.clone() });
        let source = source.filter(|node| is_life(node, moved) && is_unstaged(node));
        let replaced = there.clone().filter(|node| is_older(node, moved.mod_revision));
        let subject = match (there, source) {
            // It was looked up under its new name before this mount was told.
            (Some(there), _) if is_life(&there, moved) => Some(there),
            (None, Some(source)) => self.moved_file(from, to, source),
            (Some(_), Some(source)) if replaced.is_some() => self.moved_file(from, to, source),
            _ => None,
        };
        let kind = subject.as_deref().or(replaced.as_deref()).and_then(node_kind);
        let kind = kind.unwrap_or(FileType::RegularFile);
        let of_kind = |node: Arc<Node>| (node_kind(&node) == Some(kind)).then_some(node.ino);
        let replaced = replaced
            .filter(|replaced| subject.as_ref().is_none_or(|own| own.ino != replaced.ino))
            .and_then(of_kind)
            .filter(|ino| self.nodes.is_known(*ino));
        let subject = subject.and_then(of_kind);
        Some(Poke { action: Action::Rename { to: target, kind, replaced }, at, subject })
    }

    fn moved_file(&self, from: &Bytes, to: &Bytes, node: Arc<Node>) -> Option<Arc<Node>> {
        self.nodes.move_file(from, to);
        Some(node)
    }

    async fn renamed_directory(
        &self,
        from: &DirectoryKey,
        to: &DirectoryKey,
        revision: Revision,
    ) -> Option<Poke> {
        let (at, target) = (self.spot_of_directory(from)?, self.spot_of_directory(to)?);
        if at.name.is_empty() || target.name.is_empty() {
            return None;
        }
        let find = |directory: &DirectoryKey| {
            self.nodes.find(&Place::Directory { tree: Tree::Live, directory: directory.clone() })
        };
        let (source, there) = (find(from), find(to));
        let was_there = match &there {
            Some(_) => self.existed(to, Revision(revision.0 - 1)).await,
            None => false,
        };
        let replaced = there.as_ref().filter(|_| was_there).map(|node| node.ino);
        let subject = match (source, &there) {
            (_, Some(there)) if !was_there => Some(there.ino),
            (Some(source), _) if !self.is_busy_below(from) => {
                self.move_here(from, to, revision);
                Some(source.ino)
            }
            _ => None,
        };
        let replaced = replaced.filter(|ino| self.nodes.is_known(*ino));
        let action = Action::Rename { to: target, kind: FileType::Directory, replaced };
        Some(Poke { action, at, subject })
    }

    /// Whether something below is staged here and not yet committed.
    fn is_busy_below(&self, directory: &DirectoryKey) -> bool {
        let is_staged = |node: &Arc<Node>| !is_unstaged(node);
        self.has_unborn_below(directory) || self.nodes.below(directory).iter().any(is_staged)
    }
}

/// The file that an operation belongs to which is done while a file is open.
fn written_key(operation: &Operation) -> Option<&Bytes> {
    match operation {
        Operation::Create(key)
        | Operation::Write(key)
        | Operation::Append(key)
        | Operation::Truncate(key)
        | Operation::Attributes(key)
        | Operation::Close(key) => Some(key),
        Operation::Rename { .. }
        | Operation::Exchange { .. }
        | Operation::MakeDirectory(_)
        | Operation::RemoveDirectory(_)
        | Operation::Unlink(_)
        | Operation::Symlink(_) => None,
    }
}

/// What a revision made of a key.
fn put_of<'a>(events: &'a RevisionEvents, key: &Bytes) -> Option<&'a KeyValue> {
    let is_put = |event: &&Event| event.kind == ChangeKind::Put && event.kv.key == *key;
    events.events.iter().find(is_put).map(|event| &event.kv)
}

/// Whether the node is the file that `kv` is.
fn is_life(node: &Node, kv: &KeyValue) -> bool {
    let life = node.file.lock().life;
    !life.is_unborn() && life.birth == kv.birth_revision
}

/// Whether the node is a file that began before `revision`.
fn is_older(node: &Node, revision: Revision) -> bool {
    let life = node.file.lock().life;
    !life.is_unborn() && life.create < revision
}

fn is_unstaged(node: &Node) -> bool {
    node.file.lock().staged.is_none()
}
