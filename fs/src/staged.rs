//! What is written but not yet committed belongs to the inode: one staged copy, shared by all open
//! handles of a file.

use std::sync::Arc;

use bytes::Bytes;
use revfs_api::keyspace::{KeyValue, Revision, Time};

use crate::attributes::Attributes;

/// A file's content as the store holds it, kept while a handle is open.
#[derive(Clone, Debug)]
pub struct Content {
    pub mod_revision: Revision,
    /// The put that gave these bytes: stays when the file is moved.
    pub content_revision: Revision,
    pub bytes: Bytes,
}

impl Content {
    #[must_use]
    pub fn new(kv: &KeyValue) -> Self {
        Self {
            mod_revision: kv.mod_revision,
            content_revision: kv.content_revision,
            bytes: kv.value.clone(),
        }
    }
}

/// Which file a node is: a life of a key, wherever it was moved to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// `create_revision` of the key that has this file's name now; none while the file is not yet in
    /// the store.
    pub create: Revision,
    /// `birth_revision`: the same before and after a move.
    pub birth: Revision,
}

impl Life {
    #[must_use]
    pub fn of(kv: &KeyValue) -> Self {
        Self { create: kv.create_revision, birth: kv.birth_revision }
    }

    #[must_use]
    pub fn is_unborn(self) -> bool {
        self.create == Revision::NONE
    }
}

/// The part of a node that only files use.
#[derive(Debug, Default)]
pub struct FileState {
    /// Open handles of any kind.
    pub open: usize,
    /// Of these, the ones that may write.
    pub writers: usize,
    pub life: Life,
    pub content: Option<Content>,
    pub staged: Option<Staged>,
}

/// Content and attributes that only this mount sees.
#[derive(Debug)]
pub struct Staged {
    /// The whole content of the file as this mount shows it.
    pub bytes: Arc<Vec<u8>>,
    /// Attributes as this mount shows them.
    pub attributes: Attributes,
    /// mtime that the mount shows until the commit, if none was set by hand.
    pub modified: Time,
}

impl FileState {
    /// Whether the node must stay in the table even if the kernel forgets it.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.open > 0 || self.staged.is_some()
    }
}
