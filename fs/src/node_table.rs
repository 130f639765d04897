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
use revfs_api::keyspace::Revision;

use crate::inode_number::Numbering;
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
    /// Number of the root directory, which stays.
    root: u64,
    by_ino: HashMap<u64, Entry>,
    by_place: BTreeMap<Place, u64>,
}

#[derive(Debug)]
pub struct NodeTable {
    numbering: Numbering,
    maps: Mutex<Maps>,
}

impl NodeTable {
    #[must_use]
    pub fn new(tree: Tree, root: DirectoryKey) -> Self {
        Self::numbered(tree, root, Numbering::default())
    }

    /// The table of a tree whose numbers are those of `numbering`.
    #[must_use]
    pub fn numbered(tree: Tree, root: DirectoryKey, numbering: Numbering) -> Self {
        let place = Place::Directory { tree, directory: root };
        let ino = numbering.root();
        let mut maps = Maps { root: ino, ..Maps::default() };
        maps.by_place.insert(place.clone(), ino);
        maps.by_ino.insert(ino, Entry { node: Node::new(ino, place), lookups: 1 });
        Self { numbering, maps: Mutex::new(maps) }
    }

    #[must_use]
    pub fn numbering(&self) -> Numbering {
        self.numbering
    }

    /// The node of the root directory.
    #[must_use]
    pub fn root(&self) -> Arc<Node> {
        self.get(self.numbering.root()).expect("the root stays")
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
    pub fn intern(&self, place: &Place, numbers: impl IntoIterator<Item = u64>) -> Arc<Node> {
        let mut maps = self.maps.lock();
        if let Some(ino) = maps.by_place.get(place)
            && let Some(entry) = maps.by_ino.get(ino)
        {
            return Arc::clone(&entry.node);
        }
        let ino = numbers
            .into_iter()
            .find(|ino| *ino > ROOT && self.numbering.has(*ino) && !maps.by_ino.contains_key(ino))
            .expect("the sequence of numbers of a place has no end");
        let node = Node::new(ino, place.clone());
        maps.by_place.insert(place.clone(), ino);
        maps.by_ino.insert(ino, Entry { node: Arc::clone(&node), lookups: 0 });
        node
    }

    /// Counts one lookup by the kernel: call it exactly once for each entry in a reply that succeeds,
    /// before the reply is sent. A node that was forgotten since it was interned comes back.
    /// (The root of a transaction, which is a name in the mount, is of another table and stays there.)
    pub fn count_lookup(&self, node: &Arc<Node>) {
        if !self.numbering.has(node.ino) {
            return;
        }
        let mut maps = self.maps.lock();
        if let Some(entry) = maps.by_ino.get_mut(&node.ino) {
            entry.lookups += 1;
            return;
        }
        maps.by_place.entry(node.place()).or_insert(node.ino);
        maps.by_ino.insert(node.ino, Entry { node: Arc::clone(node), lookups: 1 });
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
        if ino == maps.root || entry.lookups > 0 || entry.node.file.lock().is_in_use() {
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

    /// Whether a node is a file that anybody may execute, if that is known.
    #[must_use]
    pub fn is_program(&self, ino: u64) -> Option<bool> {
        self.maps.lock().by_ino.get(&ino).and_then(|entry| entry.node.is_program())
    }

    /// The number of the node of `place`, if the kernel holds it.
    #[must_use]
    pub fn known_number(&self, place: &Place) -> Option<u64> {
        let maps = self.maps.lock();
        let ino = maps.by_place.get(place)?;
        maps.by_ino.get(ino).filter(|entry| entry.lookups > 0).map(|entry| entry.node.ino)
    }

    /// How many nodes there are. Never 0: the root stays.
    #[must_use]
    pub fn count(&self) -> usize {
        self.maps.lock().by_ino.len()
    }

    /// All nodes, for work on the whole table (cache loss, shutdown).
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Node>> {
        self.maps.lock().by_ino.values().map(|entry| Arc::clone(&entry.node)).collect()
    }

    /// The live file's name is gone: its node lives on detached until it is forgotten.
    pub fn detach(&self, key: &Bytes) -> Option<Arc<Node>> {
        let mut maps = self.maps.lock();
        let ino = *maps.by_place.get(&Place::File { key: key.clone() })?;
        Self::detach_number(&mut maps, ino, key)
    }

    /// Detaches `node` if it still is the node of `key`.
    pub fn detach_node(&self, node: &Node, key: &Bytes) {
        let mut maps = self.maps.lock();
        if maps.by_place.get(&Place::File { key: key.clone() }) == Some(&node.ino) {
            Self::detach_number(&mut maps, node.ino, key);
        }
    }

    fn detach_number(maps: &mut Maps, ino: u64, key: &Bytes) -> Option<Arc<Node>> {
        maps.by_place.remove(&Place::File { key: key.clone() });
        let node = Arc::clone(&maps.by_ino.get(&ino)?.node);
        *node.place.write() = Place::Detached { key: key.clone() };
        Some(node)
    }

    /// A live directory was removed through this mount. The kernel never forgives that: its inode stays
    /// dead while anyone holds it, so a directory made under the same name gets a node of its own.
    pub fn bury_directory(&self, directory: &DirectoryKey) {
        let place = Place::Directory { tree: Tree::Live, directory: directory.clone() };
        let mut maps = self.maps.lock();
        if let Some(ino) = maps.by_place.remove(&place) {
            Self::drop_if_unused(&mut maps, ino);
        }
    }

    /// A detached file is back under the name `key`, unless another has it by now.
    pub fn attach(&self, node: &Arc<Node>, key: &Bytes) {
        let mut maps = self.maps.lock();
        let place = Place::File { key: key.clone() };
        if maps.by_ino.contains_key(&node.ino) && !maps.by_place.contains_key(&place) {
            Self::place_again(&mut maps, node.ino, place);
        }
    }

    /// The live file `from` is now called `to`; what stood there is detached.
    pub fn move_file(&self, from: &Bytes, to: &Bytes) {
        let mut maps = self.maps.lock();
        let Some(ino) = maps.by_place.remove(&Place::File { key: from.clone() }) else { return };
        if let Some(&replaced) = maps.by_place.get(&Place::File { key: to.clone() }) {
            Self::detach_number(&mut maps, replaced, to);
        }
        Self::place_again(&mut maps, ino, Place::File { key: to.clone() });
    }

    /// Two live files change places (RENAME_EXCHANGE).
    pub fn exchange_files(&self, one: &Bytes, other: &Bytes) {
        let mut maps = self.maps.lock();
        let first = maps.by_place.remove(&Place::File { key: one.clone() });
        let second = maps.by_place.remove(&Place::File { key: other.clone() });
        if let Some(ino) = first {
            Self::place_again(&mut maps, ino, Place::File { key: other.clone() });
        }
        if let Some(ino) = second {
            Self::place_again(&mut maps, ino, Place::File { key: one.clone() });
        }
    }

    /// Every live node at or below `from` now stands below `to`. What stood there is detached.
    pub fn move_directory(&self, from: &DirectoryKey, to: &DirectoryKey) {
        let mut maps = self.maps.lock();
        for (place, ino) in Self::take_live_below(&mut maps, to) {
            match place {
                Place::File { key } => drop(Self::detach_number(&mut maps, ino, &key)),
                _ => Self::drop_if_unused(&mut maps, ino),
            }
        }
        let moved = Self::take_live_below(&mut maps, from);
        Self::place_below(&mut maps, moved, from, to);
    }

    /// Two live directories, neither inside the other, change places (RENAME_EXCHANGE).
    pub fn exchange_directories(&self, one: &DirectoryKey, other: &DirectoryKey) {
        let mut maps = self.maps.lock();
        let first = Self::take_live_below(&mut maps, one);
        let second = Self::take_live_below(&mut maps, other);
        Self::place_below(&mut maps, first, one, other);
        Self::place_below(&mut maps, second, other, one);
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

    /// The nodes of what `key` was in the past (for one that ends in `/`, of the directory too).
    #[must_use]
    pub fn past_of(&self, key: &Bytes) -> Vec<Arc<Node>> {
        let maps = self.maps.lock();
        let first =
            Place::PastFile { key: key.clone(), value: Revision::NONE, record: Revision::NONE };
        let files = maps.by_place.range((Bound::Included(first), Bound::Unbounded)).take_while(
            |(place, _)| matches!(place, Place::PastFile { key: own, .. } if own == key),
        );
        let mut numbers: Vec<u64> = files.map(|(_, ino)| *ino).collect();
        if let Ok(directory) = DirectoryKey::new(key.clone()) {
            // Past directories are ordered by revision; there are as many as were looked at.
            let first = Place::Directory {
                tree: Tree::Past(Revision::NONE),
                directory: DirectoryKey::default(),
            };
            let last = Place::File { key: Bytes::new() };
            numbers.extend(
                maps.by_place
                    .range((Bound::Included(first), Bound::Excluded(last)))
                    .filter(|(place, _)| {
                        matches!(place, Place::Directory { directory: own, .. } if *own == directory)
                    })
                    .map(|(_, ino)| *ino),
            );
        }
        numbers
            .iter()
            .filter_map(|ino| maps.by_ino.get(ino))
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
        let first = Place::File { key: prefix.clone() };
        let files = maps.by_place.range((Bound::Included(first), Bound::Unbounded)).take_while(
            |(place, _)| matches!(place, Place::File { key } if key.starts_with(prefix)),
        );
        directories.chain(files).map(|(place, ino)| (place.clone(), *ino)).collect()
    }

    fn take_live_below(maps: &mut Maps, directory: &DirectoryKey) -> Vec<(Place, u64)> {
        let taken = Self::live_below(maps, directory);
        for (place, _) in &taken {
            maps.by_place.remove(place);
        }
        taken
    }

    fn place_below(
        maps: &mut Maps,
        nodes: Vec<(Place, u64)>,
        from: &DirectoryKey,
        to: &DirectoryKey,
    ) {
        const BELOW: &str = "the nodes were taken from below it";
        for (old, ino) in nodes {
            let place = match old {
                Place::Directory { tree, directory } => {
                    let directory = from.rebase_directory(&directory, to).expect(BELOW);
                    Place::Directory { tree, directory }
                }
                Place::File { key } => Place::File { key: from.rebase(&key, to).expect(BELOW) },
                other => other,
            };
            Self::place_again(maps, ino, place);
        }
    }

    fn place_again(maps: &mut Maps, ino: u64, place: Place) {
        if let Some(entry) = maps.by_ino.get(&ino) {
            *entry.node.place.write() = place.clone();
        }
        maps.by_place.insert(place, ino);
    }
}

#[cfg(test)]
mod tests;
