//! Changes that are applied but not yet in LMDB, as the exact rows that the committer will write.
//!
//! The overlay is two layers: the *active* one, to which apply alone adds, and the one that is *being
//! committed*, to which nothing is added. A read view holds both by `Arc`, so that neither rotation
//! nor a commit changes what it sees. Rows of the versioned trees carry their revision and are never
//! replaced: a view ignores rows above its own revision, which is why apply may add rows before it
//! makes them visible. The committer drops a layer only after its commit is durable: each row is in
//! a layer, in LMDB, or in both, where both say the same.
//!
//! Rows of the other trees (leases, attachments, uploads) have no revision: the newest layer wins, and a
//! deletion is a row without a value. Such a row changes its value in place: a skip list replaces a
//! row by taking it out first, and a reader must not find it missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;
use parking_lot::RwLock;

use crate::schema::Tree;

/// What a row costs in memory besides its bytes: a skip list node, two handles, allocator slack.
const ROW_OVERHEAD_BYTES: usize = 160;

/// What a layer says of a row; `None` deletes it.
pub(crate) struct RowValue(RwLock<Option<Bytes>>);

impl RowValue {
    pub(crate) fn get(&self) -> Option<Bytes> {
        self.0.read().clone()
    }
}

pub(crate) type Rows = SkipMap<Bytes, RowValue>;

/// One generation of rows.
#[derive(Default)]
pub(crate) struct Layer {
    trees: [Rows; Tree::ALL.len()],
    /// Counted as whole log entries are added.
    bytes: AtomicUsize,
    rows: AtomicUsize,
}

impl Layer {
    pub(crate) fn tree(&self, tree: Tree) -> &Rows {
        &self.trees[tree.index()]
    }

    /// Adds a row. Only the applying thread calls this.
    pub(crate) fn insert(&self, tree: Tree, row: Bytes, value: Option<Bytes>) {
        let bytes = row.len() + value.as_ref().map_or(0, Bytes::len) + ROW_OVERHEAD_BYTES;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.rows.fetch_add(1, Ordering::Relaxed);
        let rows = self.tree(tree);
        if tree.is_versioned() {
            rows.insert(row, RowValue(RwLock::new(value)));
            return;
        }
        let entry = rows.get_or_insert_with(row, || RowValue(RwLock::new(value.clone())));
        *entry.value().0.write() = value;
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows.load(Ordering::Relaxed)
    }
}

/// The layers that a view reads, newest first.
#[derive(Clone, Default)]
pub(crate) struct Layers {
    pub(crate) active: Arc<Layer>,
    pub(crate) committing: Option<Arc<Layer>>,
}

impl Layers {
    pub(crate) fn bytes(&self) -> usize {
        self.active.bytes() + self.committing.as_ref().map_or(0, |layer| layer.bytes())
    }

    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Layer> {
        std::iter::once(self.active.as_ref()).chain(self.committing.as_deref())
    }
}
