//! What the poker's requests are answered: as if the change that it repeats happened now.
//!
//! Nothing that stands in these answers may be kept (their time to live is zero), so that it does not
//! matter how far the key space has gone on meanwhile. Where the node of what is there, or of what was,
//! is known, it is named, since somebody may watch it; else a number is made up. A node whose kind the
//! kernel would find changed, and one with staged content, is never named.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use fuser::{Errno, FileAttr, FileType};
use revfs_api::keyspace::{Answer as KeyAnswer, Read, Revision, Time};

use super::Sought;
use super::poke::Action;
use crate::attributes::Kind;
use crate::filesystem::{Answer, Filesystem, Found};
use crate::found::{Shown, file_attr};
use crate::inode_number::Numbering;
use crate::node::{Node, Place, Tree};
use crate::path::{DirectoryKey, Name, decode_name};

/// An entry for the poker; without a node it is made up.
pub(crate) struct PokeEntry {
    pub attr: FileAttr,
    pub node: Option<Arc<Node>>,
}

impl PokeEntry {
    fn of(found: Found) -> Self {
        Self { attr: found.attr, node: Some(found.node) }
    }
}

impl Filesystem {
    pub(crate) async fn poke_lookup(&self, parent: u64, name: &OsStr) -> Answer<PokeEntry> {
        match self.events.seek(parent, name.as_bytes()) {
            Sought::Absent => Err(Errno::ENOENT),
            Sought::Before(number, kind) => self.what_was(number, kind).await,
            Sought::Present(kind) => self.what_is(parent, name, kind).await,
            Sought::Other => self.on_the_way(parent, name).await,
        }
    }

    /// CREATE, MKDIR, SYMLINK.
    pub(crate) async fn poke_create(
        &self,
        parent: u64,
        name: &OsStr,
        kind: FileType,
    ) -> Answer<PokeEntry> {
        let is_it = |poke: &super::poke::Poke| poke.creates() && poke.kind() == kind;
        let expected =
            self.events.expected(parent, name.as_bytes(), |attempt| is_it(&attempt.poke));
        expected.ok_or(Errno::ECANCELED)?;
        self.what_is(parent, name, kind).await
    }

    /// UNLINK, RMDIR. What goes is what the kernel was told in this attempt to be there.
    pub(crate) async fn poke_remove(&self, parent: u64, name: &OsStr) -> Answer<()> {
        let expected = self.events.expected(parent, name.as_bytes(), |attempt| attempt.at_seen);
        let poke = expected.ok_or(Errno::ECANCELED)?;
        match &poke.action {
            Action::Remove(_) => Ok(()),
            Action::RemoveDirectory(directory) => {
                if self.is_back(directory).await? {
                    return Err(Errno::ECANCELED);
                }
                // The kernel's inode is dead from now on.
                self.nodes.bury_directory(directory);
                Ok(())
            }
            _ => Err(Errno::ECANCELED),
        }
    }

    pub(crate) fn poke_rename(
        &self,
        (parent, name): (u64, &OsStr),
        (new_parent, new_name): (u64, &OsStr),
    ) -> Answer<()> {
        let expected = self.events.expected(parent, name.as_bytes(), |attempt| {
            let is_target = attempt.to_parent == Some(new_parent)
                && attempt.poke.to().is_some_and(|to| to.name == new_name.as_bytes());
            is_target && attempt.at_seen && attempt.to_seen
        });
        expected.map(drop).ok_or(Errno::ECANCELED)
    }

    /// OPEN to write, which nothing will be.
    pub(crate) fn poke_open(&self, ino: u64) -> Answer<()> {
        match self.nodes.get(ino) {
            Some(node) if is_staged(&node) => Err(Errno::EBUSY),
            Some(_) => Ok(()),
            None if Numbering::is_made_up(ino) => Ok(()),
            None => Err(Errno::ESTALE),
        }
    }

    /// SETATTR: what was asked for has happened.
    pub(crate) async fn poke_setattr(&self, ino: u64) -> Answer<Shown> {
        if Numbering::is_made_up(ino) {
            let kind = self.events.kind_under_way().unwrap_or(FileType::RegularFile);
            let attr = self.made_up_attr(ino, kind);
            return Ok(Shown { attr, ttl: Duration::ZERO });
        }
        let node = self.nodes.get(ino).ok_or(Errno::ESTALE)?;
        if is_staged(&node) {
            return Err(Errno::EBUSY);
        }
        let shown = self.shown(&node).await?;
        Ok(Shown { ttl: Duration::ZERO, ..shown })
    }

    /// What was under a name: the node, or one that is made up.
    async fn what_was(&self, number: Option<u64>, kind: FileType) -> Answer<PokeEntry> {
        let node = number.and_then(|number| self.nodes.get(number));
        let node = node.filter(|node| node_kind(node) == Some(kind) && !is_staged(node));
        let Some(node) = node else { return Ok(self.made_up_entry(kind)) };
        if let Some(directory) = node.live_directory()
            && self.events.removes_under_way(&directory)
            && self.is_back(&directory).await?
        {
            return Ok(self.made_up_entry(kind));
        }
        let Ok(mut shown) = self.shown(&node).await else { return Ok(self.made_up_entry(kind)) };
        shown.attr.nlink = 1;
        Ok(PokeEntry { attr: shown.attr, node: Some(node) })
    }

    /// What is under a name, if it is of this kind; else something made up.
    async fn what_is(&self, parent: u64, name: &OsStr, kind: FileType) -> Answer<PokeEntry> {
        match self.lookup_or_absent(parent, name).await {
            Ok(Some(found)) if is_staged(&found.node) => Err(Errno::EBUSY),
            Ok(Some(found)) if found.attr.kind == kind => Ok(PokeEntry::of(found)),
            Ok(_) | Err(Errno::ENOENT) => Ok(self.made_up_entry(kind)),
            Err(errno) => Err(errno),
        }
    }

    /// A directory that leads to what is poked, though the key space may have lost it since.
    async fn on_the_way(&self, parent: u64, name: &OsStr) -> Answer<PokeEntry> {
        let found = self.lookup_or_absent(parent, name).await;
        if let Ok(Some(found)) = found {
            return Ok(PokeEntry::of(found));
        }
        let above = self.nodes.get(parent).and_then(|node| node.live_directory());
        let (Some(above), Ok(Name::Component(component))) = (above, decode_name(name)) else {
            return Err(Errno::ENOENT);
        };
        let directory = above.child_directory(&component);
        let place = Place::Directory { tree: Tree::Live, directory };
        let node = self.nodes.find(&place).ok_or(Errno::ENOENT)?;
        let mut shown = self.shown(&node).await?;
        shown.attr.nlink = 1;
        Ok(PokeEntry { attr: shown.attr, node: Some(node) })
    }

    /// Whether a directory that was removed is there again.
    async fn is_back(&self, directory: &DirectoryKey) -> Answer<bool> {
        let question = vec![Read::Directory(directory.as_bytes().clone())];
        let answer = self.ask(Revision::NONE, question).await?;
        let names = match answer.answers.first() {
            Some(KeyAnswer::Directory(directory)) => directory.names,
            _ => 0,
        };
        Ok(names > 0)
    }

    fn made_up_entry(&self, kind: FileType) -> PokeEntry {
        PokeEntry { attr: self.made_up_attr(self.events.make_up(), kind), node: None }
    }

    fn made_up_attr(&self, ino: u64, kind: FileType) -> FileAttr {
        let kind = match kind {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            _ => Kind::File,
        };
        file_attr(ino, 0, &self.made_up(kind, 0o600, Time(0)))
    }
}

fn is_staged(node: &Node) -> bool {
    node.file.lock().staged.is_some()
}

/// A directory's node is one by its place.
pub(super) fn node_kind(node: &Node) -> Option<FileType> {
    match node.live_directory() {
        Some(_) => Some(FileType::Directory),
        None => node.kind(),
    }
}
