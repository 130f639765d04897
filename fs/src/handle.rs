//! What is open: file handles with their opener, directory handles with the listing they fixed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::listing::DirectoryHandle;
use crate::node::Node;
use crate::watching::Watching;

/// An open file.
#[derive(Debug)]
pub struct FileHandle {
    pub node: Arc<Node>,
    /// `open(2)` flags.
    pub flags: i32,
    /// Thread that opened it (pid of the request), for the question whether a FLUSH is a close.
    pub opener: u32,
    /// A refused commit that this handle has not been told of yet.
    pub refusal: Mutex<Option<fuser::Errno>>,
    /// Its last descriptor is gone, as far as can be known: a RELEASE is all that is to come. Changes
    /// with the lock of the node's [`FileState`](crate::staged::FileState), as the count of writers.
    pub(crate) is_closed: AtomicBool,
    /// The whole content, fixed at open, of a file that is made up for its reader (`@status`).
    pub fixed: Option<Bytes>,
    /// Of an open `@watch`: how far it was read.
    pub(crate) watching: Option<Watching>,
}

impl FileHandle {
    #[must_use]
    pub fn new(node: Arc<Node>, flags: i32, opener: u32) -> Self {
        Self {
            node,
            flags,
            opener,
            refusal: Mutex::new(None),
            is_closed: AtomicBool::new(false),
            fixed: None,
            watching: None,
        }
    }

    #[must_use]
    pub fn may_write(&self) -> bool {
        self.flags & libc::O_ACCMODE != libc::O_RDONLY
    }

    /// No close of this handle is to be waited for any more.
    pub(crate) fn close(&self) {
        let mut state = self.node.file.lock();
        if self.may_write() && !self.is_closed.swap(true, Ordering::Relaxed) {
            state.writers -= 1;
        }
    }

    /// Somebody uses it, so a descriptor or a mapping was left after all.
    pub(crate) fn reopen(&self) {
        let mut state = self.node.file.lock();
        if self.may_write() && self.is_closed.swap(false, Ordering::Relaxed) {
            state.writers += 1;
        }
    }

    #[must_use]
    pub fn appends(&self) -> bool {
        self.flags & libc::O_APPEND != 0
    }
}

/// Open files and directories by handle number.
#[derive(Debug)]
pub struct Table<T> {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<T>>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { next: AtomicU64::new(1), open: Mutex::default() }
    }
}

impl<T> Table<T> {
    pub fn insert(&self, value: T) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(number, Arc::new(value));
        number
    }

    #[must_use]
    pub fn get(&self, number: u64) -> Option<Arc<T>> {
        self.open.lock().get(&number).cloned()
    }

    pub fn remove(&self, number: u64) -> Option<Arc<T>> {
        self.open.lock().remove(&number)
    }

    #[must_use]
    pub fn all(&self) -> Vec<Arc<T>> {
        self.open.lock().values().cloned().collect()
    }
}

#[derive(Debug, Default)]
pub struct HandleTable {
    pub files: Table<FileHandle>,
    pub directories: Table<DirectoryHandle>,
}
