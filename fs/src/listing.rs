//! A directory handle: the listing that it fixed, so that cookies are positions in it.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::node::Node;

/// An open directory. Offset 0 takes a new listing; later offsets are positions in it.
#[derive(Debug)]
pub struct DirectoryHandle {
    pub node: Arc<Node>,
    pub listing: Mutex<Option<Arc<Listing>>>,
}

/// What a directory held at one revision.
#[derive(Debug, Default)]
pub struct Listing {}
