//! A directory handle: the listing that it fixed, so that cookies are positions in it.
//!
//! Position 0 is `.`, 1 is `..`, and 2 + i the i-th entry. The cookie of an entry is the position after
//! it. A READDIR at position 0 takes a new listing; a later one goes on in the same.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use revfs_api::keyspace::Revision;

use crate::filesystem::Found;
use crate::found::Shown;
use crate::node::{Hidden, Node, Tree};
use crate::resolve::Standing;

/// Entries that are in every directory and in no [`Listing`].
pub(crate) const DOTS: usize = 2;

/// An open directory.
#[derive(Debug)]
pub struct DirectoryHandle {
    pub node: Arc<Node>,
    pub(crate) state: Mutex<Reading>,
}

/// How far a directory was read.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub listing: Option<Arc<Listing>>,
    /// Where each page begins that was read before, of a directory that is listed in pages.
    pub pages: Vec<(usize, Bytes)>,
}

/// What a directory held at one revision, or a page of it.
#[derive(Debug, Default)]
pub struct Listing {
    pub(crate) revision: Revision,
    /// Number of the first entry.
    pub(crate) first: usize,
    pub(crate) entries: Vec<Entry>,
    /// Nobody tells the kernel when a name of it comes or goes.
    pub(crate) is_unwatched: bool,
    /// Where the next page begins.
    pub(crate) next: Option<Bytes>,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub name: Bytes,
    pub what: What,
}

/// What is known of an entry.
#[derive(Debug)]
pub(crate) enum What {
    Standing {
        tree: Tree,
        standing: Box<Standing>,
    },
    /// A file that the store does not have yet.
    Unborn(Arc<Node>),
    Hidden {
        hidden: Hidden,
        shown: Shown,
    },
    /// The root of another tree.
    Transaction(Box<Found>),
}

impl DirectoryHandle {
    #[must_use]
    pub fn new(node: Arc<Node>) -> Self {
        Self { node, state: Mutex::default() }
    }
}
