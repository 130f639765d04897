//! What the kernel knows: a [`Node`] for each node id.
//!
//! A node *stands for* a [`Place`]: a directory or file of the live tree, of the past, or one of the
//! hidden names. A live file keeps its node through rename and unlink; its place changes, its number
//! does not, and it never changes its type (the kernel would mark the inode bad).
//!
//! A node of a live file is one *life* of its key: what is created anew under the same name gets a new
//! node, and the old one lives on detached while the kernel knows it.
//!
//! Lock order: `NodeTable`'s map before `Node::place` before `Node::file`. None of them is held over
//! an await. `Node::commit` (async) is taken before any of them and held while a commit runs, so that
//! the commits of one node are one after the other.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use fuser::FileType;
use parking_lot::{Mutex, RwLock};
use revfs_api::keyspace::Revision;

use crate::path::DirectoryKey;
use crate::staged::{FileState, Life};

/// Which tree a directory lies in.
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
    /// A key of the live tree that has a value: a file or a symlink.
    File {
        key: Bytes,
    },
    /// A file or symlink as it was: the key with the `mod_revision` of its value and of its side
    /// record (none without one). Revisions with equal content share it.
    PastFile {
        key: Bytes,
        value: Revision,
        record: Revision,
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
    /// `@rev/N` itself: the directory as of N, whose mtime is the commit time of N. Below it lie
    /// ordinary places of the past.
    Revision { directory: DirectoryKey, revision: Revision },
    /// `@rev/older-than-N`: where a listing that was cut goes on.
    OlderRevisions { directory: DirectoryKey, below: Revision },
    /// `@time/`
    Times(DirectoryKey),
    /// `@time/T`, a symlink to `../@rev/N`; asked anew each time.
    TimeLink { directory: DirectoryKey, name: Bytes },
    /// `@history/`
    History(DirectoryKey),
    /// `@history/NAME/`
    HistoryOf(Bytes),
    /// `@history/NAME/N` and `N.deleted`
    Version { key: Bytes, revision: Revision, deleted: bool },
    /// `@history/NAME/refused-TIME`: bytes whose commit was refused, kept for an hour.
    Refused { key: Bytes, time: i64 },
    /// `@watch` and `@watch.N` (from revision N) of a live directory.
    Watch { directory: DirectoryKey, from: Option<u64> },
    /// `@status` of the root.
    Status,
    /// `@keys/` of the root.
    Keys,
    /// `@txn/` of the root: the transactions, each the root of a tree of its own.
    Transactions,
    /// `@commit` in the root of a transaction.
    Commit,
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
    /// What it is, from the first answer about it on.
    kind: OnceLock<FileType>,
    /// The newest revision at which it was seen to exist: there, a detached or past file can be read.
    seen: AtomicU64,
    /// The kernel was told that there is no such directory, and may remember that.
    denied: AtomicBool,
    /// Whether anybody may execute the file, from the last answer about it until that may have changed.
    is_program: Mutex<Option<bool>>,
}

impl Node {
    #[must_use]
    pub fn new(ino: u64, place: Place) -> Arc<Self> {
        Arc::new(Self {
            ino,
            place: RwLock::new(place),
            file: Mutex::new(FileState::default()),
            commit: tokio::sync::Mutex::new(()),
            kind: OnceLock::new(),
            seen: AtomicU64::new(0),
            denied: AtomicBool::new(false),
            is_program: Mutex::default(),
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
            Place::File { key } => Some(key.clone()),
            _ => None,
        }
    }

    #[must_use]
    pub fn kind(&self) -> Option<FileType> {
        self.kind.get().copied()
    }

    /// Notes what the node is. Returns false if it has been something else: then this is not the node.
    pub fn is_or_becomes(&self, kind: FileType) -> bool {
        *self.kind.get_or_init(|| kind) == kind
    }

    /// Notes the life that a live file is. Returns false if the node is another one. (While something
    /// is staged, what the store has under its name is not looked at.)
    pub fn is_or_begins(&self, life: Life) -> bool {
        let mut file = self.file.lock();
        if file.staged.is_some() {
            return true;
        }
        let is_same = file.life.is_unborn() || file.life.birth == life.birth;
        if is_same {
            file.life = life;
        }
        is_same
    }

    #[must_use]
    pub fn seen(&self) -> Revision {
        Revision(self.seen.load(Ordering::Acquire))
    }

    /// Notes that it exists at `revision`.
    pub fn see(&self, revision: Revision) {
        self.seen.fetch_max(revision.0, Ordering::AcqRel);
    }

    /// Whether anybody may execute the file, if that is known.
    #[must_use]
    pub fn is_program(&self) -> Option<bool> {
        *self.is_program.lock()
    }

    /// Notes whether anybody may execute the file; `None`: that may be otherwise now.
    pub fn note_program(&self, is_program: Option<bool>) {
        *self.is_program.lock() = is_program;
    }

    /// Notes that the kernel is about to be told that there is no such directory (any more).
    pub fn deny(&self) {
        self.denied.store(true, Ordering::SeqCst);
    }

    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.denied.load(Ordering::SeqCst)
    }

    /// Whether the kernel was told so; forgets it.
    pub fn take_denial(&self) -> bool {
        self.denied.swap(false, Ordering::SeqCst)
    }
}
