//! The state after one entry of the log, kept until it is hashed: what members compare.
//!
//! Rows with revisions are read at the revision of then, however long that takes. Rows without are
//! replaced in place: those that LMDB does not hold yet are noted when the state is frozen, and the rest
//! comes from the LMDB snapshot of that moment, which is given up before the history is read.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Hashing, Hold, KvHash, ROWS_PER_VIEW};
use crate::error::StoreError;
use crate::schema::{Tree, after_prefix, decode_directory, split_descending};
use crate::store::{Position, Store};
use crate::types::Revision;
use crate::view::{Newest, ReadView};

/// Rows of a tree that LMDB may not hold yet, as they are; `None` = deleted.
type Pending = BTreeMap<Bytes, Option<Bytes>>;

/// See the module. While it exists physical compaction rests.
pub struct Frozen {
    view: ReadView,
    unversioned: Vec<(Tree, Pending)>,
    position: Position,
    hold: Hold,
}

/// What a store held after one entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointHash {
    pub position: Position,
    pub kv: KvHash,
    /// Of what etcd does not know.
    pub own: u32,
}

impl Store {
    /// Keeps the state after the last entry that was applied. Called by who applies, it is the state after
    /// the entry that this one has just applied; it costs a copy of the overlay's rows that have no
    /// revision.
    ///
    /// # Errors
    /// A closed store.
    pub fn freeze(&self) -> Result<Frozen, StoreError> {
        let shared = self.shared();
        let hold = Hold::new(shared);
        let writer = shared.writer.lock();
        let position = self.applied();
        let view = self.read_view()?;
        let trees = Tree::ALL.into_iter().filter(|&tree| is_own(tree));
        let unversioned = trees.map(|tree| (tree, pending(&view, tree))).collect();
        drop(writer);
        Ok(Frozen { view, unversioned, position, hold })
    }
}

/// The trees without revisions that are the same on all members; *meta* says how a store came to its state.
fn is_own(tree: Tree) -> bool {
    !tree.is_versioned() && tree != Tree::Meta
}

fn pending(view: &ReadView, tree: Tree) -> Pending {
    let mut rows = Pending::new();
    for layer in view.sources().layers.newest_first() {
        for entry in layer.tree(tree) {
            rows.entry(entry.key().clone()).or_insert_with(|| entry.value().get());
        }
    }
    rows
}

impl Frozen {
    #[must_use]
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Hashes it. `go_on` is called from time to time: it may wait, and says whether to go on.
    ///
    /// # Errors
    /// A closed store, or a hash that is not wanted any more.
    pub fn hash(self, mut go_on: impl FnMut() -> bool) -> Result<PointHash, StoreError> {
        let Self { view, unversioned, position, hold } = self;
        let (current, compacted) = (view.current(), view.compacted_or_none());
        let base = compacted.unwrap_or_default();
        let mut hashing = Hashing::new(view, current, base, &mut go_on);
        for (tree, rows) in &unversioned {
            hashing.unversioned(*tree, rows)?;
        }
        hashing.renew()?;
        hashing.times()?;
        hashing.directories()?;
        hashing.history()?;
        drop(hold);
        let kv = KvHash { hash: hashing.hash, revision: current, compacted, current };
        Ok(PointHash { position, kv, own: hashing.own })
    }
}

impl Hashing<'_> {
    fn row(&mut self, row: &[u8], value: &[u8]) {
        self.own_bytes(row);
        self.own_bytes(value);
    }

    /// All rows of a tree as they were when `pending` was noted, from one snapshot of LMDB.
    fn unversioned(&mut self, tree: Tree, pending: &Pending) -> Result<(), StoreError> {
        self.own_bytes(tree.name().as_bytes());
        let mut own = self.own;
        let mut add = |row: &[u8], value: &[u8]| {
            own = crc32c::crc32c_append(crc32c::crc32c_append(own, row), value);
        };
        let sources = self.view.sources();
        let mut pending = pending.iter().peekable();
        let lmdb = |error: heed::Error| self.view.lmdb(&error);
        for row in sources.environment.rows(tree).iter(sources.snapshot).map_err(lmdb)? {
            let (row, value) = row.map_err(lmdb)?;
            while let Some((row, value)) = pending.next_if(|(newer, _)| &newer[..] < row) {
                value.iter().for_each(|value| add(row, value));
            }
            match pending.next_if(|(newer, _)| &newer[..] == row) {
                Some((row, value)) => value.iter().for_each(|value| add(row, value)),
                None => add(row, value),
            }
        }
        for (row, value) in pending {
            value.iter().for_each(|value| add(row, value));
        }
        self.own = own;
        Ok(())
    }

    /// Time, author and note of each revision from the compacted one on.
    fn times(&mut self) -> Result<(), StoreError> {
        self.own_bytes(Tree::Times.name().as_bytes());
        let end = self.revision.next().0.to_be_bytes().to_vec();
        let mut from = self.base;
        loop {
            let mut rows = 0;
            let mut own = self.own;
            let mut cursor =
                self.view.cursor(Tree::Times, &from.0.to_be_bytes(), Some(end.clone()))?;
            while rows < ROWS_PER_VIEW
                && let Some(row) = cursor.next().map_err(|e| self.view.lmdb(&e))?
            {
                own = crc32c::crc32c_append(crc32c::crc32c_append(own, row.key()), row.value());
                let main: [u8; 8] = row.key().try_into().unwrap_or([u8::MAX; 8]);
                from = Revision(u64::from_be_bytes(main).saturating_add(1));
                rows += 1;
            }
            drop(cursor);
            self.own = own;
            if rows < ROWS_PER_VIEW {
                return Ok(());
            }
            self.renew()?;
        }
    }

    /// The directories that exist, with their numbers.
    fn directories(&mut self) -> Result<(), StoreError> {
        self.own_bytes(Tree::Directories.name().as_bytes());
        // LMDB has no empty keys.
        let mut from = vec![0];
        loop {
            let (mut rows, mut found) = (0, Vec::new());
            let mut walk = Newest::new(&self.view, Tree::Directories, &from, None, self.revision)?;
            while rows < ROWS_PER_VIEW
                && let Some(row) = walk.next()?
            {
                rows += 1;
                let decoded = decode_directory(row.key(), row.value());
                let state = decoded.map_err(|e| self.view.row(&e))?;
                let (prefix, _) = split_descending(Tree::Directories, row.key())
                    .map_err(|e| self.view.row(&e))?;
                if rows == ROWS_PER_VIEW {
                    from = after_prefix(prefix);
                }
                if state.names > 0 {
                    found.push((prefix.to_vec(), state));
                }
            }
            drop(walk);
            for (prefix, state) in found {
                self.row(&prefix, &state.names.to_be_bytes());
                self.own_number(state.changed.0);
                self.own_number(state.time.0.cast_unsigned());
            }
            if rows < ROWS_PER_VIEW {
                return Ok(());
            }
            self.renew()?;
        }
    }
}
