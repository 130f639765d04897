//! The nodes that the kernel knows, by number and by place, with their lookup counts.
//!
//! Invariants:
//! - a place has at most one node and a node one place; a detached node has no entry by place;
//! - a node leaves the table when its lookup count is 0 and nothing is open or staged in it;
//! - a number is not given to a second node while the first is in the table.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::node::{Node, Place, Tree};
use crate::path::DirectoryKey;

/// Node id of the mount's root directory, fixed by FUSE.
pub const ROOT: u64 = 1;

#[derive(Debug)]
struct Entry {
    node: Arc<Node>,
    lookups: u64,
}

#[derive(Debug, Default)]
struct Maps {
    by_ino: HashMap<u64, Entry>,
    by_place: BTreeMap<Place, u64>,
}

#[derive(Debug)]
pub struct NodeTable {
    maps: Mutex<Maps>,
}

impl NodeTable {
    #[must_use]
    pub fn new(root: DirectoryKey) -> Self {
        let place = Place::Directory { tree: Tree::Live, directory: root };
        let mut maps = Maps::default();
        maps.by_place.insert(place.clone(), ROOT);
        maps.by_ino.insert(ROOT, Entry { node: Node::new(ROOT, place), lookups: 1 });
        Self { maps: Mutex::new(maps) }
    }

    #[must_use]
    pub fn get(&self, ino: u64) -> Option<Arc<Node>> {
        self.maps.lock().by_ino.get(&ino).map(|entry| Arc::clone(&entry.node))
    }

    #[must_use]
    pub fn find(&self, place: &Place) -> Option<Arc<Node>> {
        let maps = self.maps.lock();
        let ino = maps.by_place.get(place)?;
        maps.by_ino.get(ino).map(|entry| Arc::clone(&entry.node))
    }

    /// The node of `place`, made with the first of `numbers` that no living node has. Does not count a
    /// lookup: the answer that tells the kernel of the node does, with [`Self::count_lookup`].
    pub fn intern(&self, place: &Place, numbers: impl Iterator<Item = u64>) -> Arc<Node> {
        let mut maps = self.maps.lock();
        if let Some(ino) = maps.by_place.get(place)
            && let Some(entry) = maps.by_ino.get(ino)
        {
            return Arc::clone(&entry.node);
        }
        let ino = numbers
            .into_iter()
            .find(|ino| *ino > ROOT && !maps.by_ino.contains_key(ino))
            .expect("the sequence of numbers of a place has no end");
        let node = Node::new(ino, place.clone());
        maps.by_place.insert(place.clone(), ino);
        maps.by_ino.insert(ino, Entry { node: Arc::clone(&node), lookups: 0 });
        node
    }

    /// Counts one lookup by the kernel: call it exactly once for each entry in a reply that succeeds.
    pub fn count_lookup(&self, ino: u64) {
        if let Some(entry) = self.maps.lock().by_ino.get_mut(&ino) {
            entry.lookups += 1;
        }
    }

    /// Takes `count` lookups back.
    pub fn forget(&self, ino: u64, count: u64) {
        let mut maps = self.maps.lock();
        let Some(entry) = maps.by_ino.get_mut(&ino) else { return };
        entry.lookups = entry.lookups.saturating_sub(count);
        Self::drop_if_unused(&mut maps, ino);
    }

    /// To be called when a handle was released or staged content has gone.
    pub fn release(&self, ino: u64) {
        Self::drop_if_unused(&mut self.maps.lock(), ino);
    }

    fn drop_if_unused(maps: &mut Maps, ino: u64) {
        let Some(entry) = maps.by_ino.get(&ino) else { return };
        if ino == ROOT || entry.lookups > 0 || entry.node.file.lock().is_in_use() {
            return;
        }
        let place = entry.node.place();
        if maps.by_place.get(&place) == Some(&ino) {
            maps.by_place.remove(&place);
        }
        maps.by_ino.remove(&ino);
    }

    /// Whether the kernel holds the node.
    #[must_use]
    pub fn is_known(&self, ino: u64) -> bool {
        self.maps.lock().by_ino.get(&ino).is_some_and(|entry| entry.lookups > 0)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.maps.lock().by_ino.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// All nodes, for work on the whole table (cache loss, shutdown).
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Node>> {
        self.maps.lock().by_ino.values().map(|entry| Arc::clone(&entry.node)).collect()
    }

    /// The live file's name is gone: its node lives on detached until it is forgotten.
    pub fn detach(&self, key: &Bytes) -> Option<Arc<Node>> {
        let mut maps = self.maps.lock();
        let ino = maps.by_place.remove(&Place::File { tree: Tree::Live, key: key.clone() })?;
        let node = Arc::clone(&maps.by_ino.get(&ino)?.node);
        *node.place.write() = Place::Detached { key: key.clone() };
        Some(node)
    }

    /// The live directory is gone: the node keeps its place (the kernel may still stand in it) unless
    /// another takes it.
    pub fn move_file(&self, from: &Bytes, to: &Bytes) {
        self.detach(to);
        let mut maps = self.maps.lock();
        let old = Place::File { tree: Tree::Live, key: from.clone() };
        let Some(ino) = maps.by_place.remove(&old) else { return };
        Self::place_again(&mut maps, ino, Place::File { tree: Tree::Live, key: to.clone() });
    }

    /// Every live node at or below `from` now stands below `to`. What stood at `to` has been moved
    /// away or detached before.
    pub fn move_directory(&self, from: &DirectoryKey, to: &DirectoryKey) {
        let mut maps = self.maps.lock();
        let moved = Self::live_below(&maps, from);
        for (old, ino) in &moved {
            maps.by_place.remove(old);
            let place = match old {
                Place::Directory { tree, directory } => Place::Directory {
                    tree: *tree,
                    directory: directory.rebased(from, to),
                },
                Place::File { tree, key } => {
                    let mut moved = to.as_bytes().to_vec();
                    moved.extend_from_slice(&key[from.as_bytes().len()..]);
                    Place::File { tree: *tree, key: moved.into() }
                }
                other => other.clone(),
            };
            Self::place_again(&mut maps, *ino, place);
        }
    }

    /// Two live directories change places (RENAME_EXCHANGE).
    pub fn exchange_directories(&self, one: &DirectoryKey, other: &DirectoryKey) {
        let away = DirectoryKey::unreachable();
        self.move_directory(one, &away);
        self.move_directory(other, one);
        self.move_directory(&away, other);
    }

    /// Live files and directories whose key lies at or below `directory`.
    #[must_use]
    pub fn below(&self, directory: &DirectoryKey) -> Vec<Arc<Node>> {
        let maps = self.maps.lock();
        Self::live_below(&maps, directory)
            .iter()
            .filter_map(|(_, ino)| maps.by_ino.get(ino))
            .map(|entry| Arc::clone(&entry.node))
            .collect()
    }

    fn live_below(maps: &Maps, directory: &DirectoryKey) -> Vec<(Place, u64)> {
        let prefix = directory.as_bytes();
        let first = Place::Directory { tree: Tree::Live, directory: directory.clone() };
        let directories = maps
            .by_place
            .range((Bound::Included(first), Bound::Unbounded))
            .take_while(|(place, _)| match place {
                Place::Directory { tree: Tree::Live, directory } => {
                    directory.as_bytes().starts_with(prefix)
                }
                _ => false,
            });
        let first = Place::File { tree: Tree::Live, key: Bytes::copy_from_slice(prefix) };
        let files =
            maps.by_place.range((Bound::Included(first), Bound::Unbounded)).take_while(|(place, _)| {
                matches!(place, Place::File { tree: Tree::Live, key } if key.starts_with(prefix))
            });
        directories.chain(files).map(|(place, ino)| (place.clone(), *ino)).collect()
    }

    fn place_again(maps: &mut Maps, ino: u64, place: Place) {
        if let Some(entry) = maps.by_ino.get(&ino) {
            *entry.node.place.write() = place.clone();
        }
        maps.by_place.insert(place, ino);
    }
}
