//! What the kernel knows: a [`Node`] for each node id.
//!
//! A node *stands for* a [`Place`]: a directory or file of the live tree, of the past, or one of the
//! hidden names. A live file keeps its node through rename and unlink; its place changes, its number
//! does not, and it never changes its type (the kernel would mark the inode bad).
//!
//! Lock order: `NodeTable`'s map before `Node::place` before `Node::file`. None of them is held over
//! an await. `Node::commit` (async) is taken before any of them and held while a commit runs, so that
//! the commits of one node are one after the other.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use revfs_api::keyspace::Revision;

use crate::path::DirectoryKey;
use crate::staged::FileState;

/// Which tree a place lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tree {
    Live,
    Past(Revision),
}

impl Tree {
    /// The revision to read this tree at; none = the current one.
    #[must_use]
    pub fn revision(self) -> Revision {
        match self {
            Self::Live => Revision::NONE,
            Self::Past(revision) => revision,
        }
    }
}

/// What a node stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Directory {
        tree: Tree,
        directory: DirectoryKey,
    },
    /// A key with a value: a file or a symlink.
    File {
        tree: Tree,
        key: Bytes,
    },
    Hidden(Hidden),
    /// Was a live file; its name is gone or belongs to another node.
    Detached {
        key: Bytes,
    },
}

/// The names that no listing shows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hidden {
    /// `@rev/` of a live directory.
    Revisions(DirectoryKey),
    /// `@time/`
    Times(DirectoryKey),
    /// `@time/T`, a symlink to `../@rev/N`.
    TimeLink { directory: DirectoryKey, name: Bytes, target: Revision },
    /// `@history/`
    History(DirectoryKey),
    /// `@history/NAME/`
    HistoryOf(Bytes),
    /// `@history/NAME/N` and `N.deleted`
    Version { key: Bytes, revision: Revision, deleted: bool },
    /// `@history/NAME/refused-TIME`: bytes whose commit was refused, kept for an hour.
    Refused { key: Bytes, time: i64 },
    /// `@status` of the root.
    Status,
    /// `@keys/` of the root.
    Keys,
}

/// One thing that the kernel has a node id for.
#[derive(Debug)]
pub struct Node {
    pub ino: u64,
    pub place: RwLock<Place>,
    /// Content, staged changes and open handles of a file; unused otherwise.
    pub file: Mutex<FileState>,
    /// Held while a commit of this node runs.
    pub commit: tokio::sync::Mutex<()>,
}

impl Node {
    #[must_use]
    pub fn new(ino: u64, place: Place) -> Arc<Self> {
        Arc::new(Self {
            ino,
            place: RwLock::new(place),
            file: Mutex::new(FileState::default()),
            commit: tokio::sync::Mutex::new(()),
        })
    }

    #[must_use]
    pub fn place(&self) -> Place {
        self.place.read().clone()
    }

    /// The live directory that this node stands for.
    #[must_use]
    pub fn live_directory(&self) -> Option<DirectoryKey> {
        match &*self.place.read() {
            Place::Directory { tree: Tree::Live, directory } => Some(directory.clone()),
            _ => None,
        }
    }

    /// The key of the live file that this node stands for.
    #[must_use]
    pub fn live_file(&self) -> Option<Bytes> {
        match &*self.place.read() {
            Place::File { tree: Tree::Live, key } => Some(key.clone()),
            _ => None,
        }
    }
}
