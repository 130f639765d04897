//! What is written but not yet committed belongs to the inode: one staged copy, shared by all open
//! handles of a file.

use std::sync::Arc;

use bytes::Bytes;
use revfs_api::keyspace::{Revision, Time};

use crate::attributes::Attributes;

/// A file's content as the store holds it, kept while a handle is open.
#[derive(Clone, Debug)]
pub struct Content {
    pub mod_revision: Revision,
    pub bytes: Bytes,
}

/// The part of a node that only files use.
#[derive(Debug, Default)]
pub struct FileState {
    /// Open handles of any kind.
    pub open: usize,
    /// Of these, the ones that may write.
    pub writers: usize,
    /// `create_revision` of the life that this node is; none while the file is not yet in the store.
    pub life: Revision,
    pub content: Option<Content>,
    pub staged: Option<Staged>,
}

/// Content and attributes that only this mount sees.
#[derive(Debug)]
pub struct Staged {
    /// The whole content of the file as this mount shows it; `None` while only attributes are staged.
    pub bytes: Option<Arc<Vec<u8>>>,
    /// Attributes as this mount shows them.
    pub attributes: Attributes,
    /// mtime that the mount shows until the commit.
    pub modified: Time,
}

impl FileState {
    /// Whether the node must stay in the table even if the kernel forgets it.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.open > 0 || self.staged.is_some()
    }
}
