//! One ordered walk over the overlay's layers and LMDB.
//!
//! Each source is sorted; the cursor hands out the least row of all, and where several sources hold
//! the same row the newest source's. A row that the winning source deletes is passed over.

use bytes::Bytes;
use crossbeam_skiplist::map::Entry;
use heed::RoRange;
use heed::types::Bytes as Raw;
use std::ops::Bound;

use crate::env::{Environment, Snapshot};
use crate::overlay::{Layer, Layers, RowValue};
use crate::schema::Tree;

/// A row as it was found.
#[derive(Clone, Debug)]
pub(crate) enum Row<'v> {
    Lmdb(&'v [u8], &'v [u8]),
    Layer(Bytes, Bytes),
}

impl Row<'_> {
    pub(crate) fn key(&self) -> &[u8] {
        match self {
            Self::Lmdb(key, _) => key,
            Self::Layer(key, _) => key,
        }
    }

    pub(crate) fn value(&self) -> &[u8] {
        match self {
            Self::Lmdb(_, value) => value,
            Self::Layer(_, value) => value,
        }
    }
}

/// What a cursor walks over: a view's layers and LMDB snapshot.
#[derive(Clone, Copy)]
pub(crate) struct Sources<'v> {
    pub(crate) environment: &'v Environment,
    pub(crate) snapshot: &'v Snapshot,
    pub(crate) layers: &'v Layers,
}

impl<'v> Sources<'v> {
    /// The row `key`, if it exists.
    pub(crate) fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Row<'v>>, heed::Error> {
        for layer in self.layers.newest_first() {
            if let Some(entry) = layer.tree(tree).get(key) {
                let value = entry.value().get();
                return Ok(value.map(|value| Row::Layer(entry.key().clone(), value)));
            }
        }
        let rows = self.environment.rows(tree);
        let found = rows.get_greater_than_or_equal_to(self.snapshot, key)?;
        Ok(found.filter(|(found, _)| *found == key).map(|(key, value)| Row::Lmdb(key, value)))
    }

    /// The least row at or above `from` that shares its first `prefix_bytes`.
    ///
    /// Only for versioned trees, whose layers delete nothing.
    pub(crate) fn first(
        &self,
        tree: Tree,
        from: &[u8],
        prefix_bytes: usize,
    ) -> Result<Option<Row<'v>>, heed::Error> {
        let prefix = &from[..prefix_bytes];
        let rows = self.environment.rows(tree);
        let mut best = rows
            .get_greater_than_or_equal_to(self.snapshot, from)?
            .map(|(key, value)| Row::Lmdb(key, value))
            .filter(|row| row.key().starts_with(prefix));
        for layer in self.layers.newest_first() {
            if layer.tree(tree).is_empty() {
                continue;
            }
            let Some(entry) = layer.tree(tree).lower_bound(Bound::Included(from)) else { continue };
            let is_less = best.as_ref().is_none_or(|best| entry.key().as_ref() < best.key());
            if is_less
                && entry.key().starts_with(prefix)
                && let Some(value) = entry.value().get()
            {
                best = Some(Row::Layer(entry.key().clone(), value));
            }
        }
        Ok(best)
    }

    /// A walk over `[from, end)`; without `end` to the end of the tree.
    pub(crate) fn cursor(
        &self,
        tree: Tree,
        from: &[u8],
        end: Option<Vec<u8>>,
    ) -> Result<Cursor<'v>, heed::Error> {
        let layers = std::iter::once(self.layers.active.as_ref())
            .chain(self.layers.committing.as_deref())
            .filter(|layer| !layer.tree(tree).is_empty())
            .map(|layer| LayerCursor { layer, head: None })
            .collect();
        let mut cursor = Cursor {
            sources: *self,
            tree,
            end,
            layers,
            lmdb: None,
            lmdb_head: None,
            is_head_taken: false,
        };
        cursor.seek(from)?;
        Ok(cursor)
    }
}

struct LayerCursor<'v> {
    layer: &'v Layer,
    head: Option<Entry<'v, Bytes, RowValue>>,
}

/// See the module.
pub(crate) struct Cursor<'v> {
    sources: Sources<'v>,
    tree: Tree,
    end: Option<Vec<u8>>,
    /// Newest first.
    layers: Vec<LayerCursor<'v>>,
    lmdb: Option<RoRange<'v, Raw, Raw>>,
    lmdb_head: Option<(&'v [u8], &'v [u8])>,
    /// The head was handed out: LMDB is asked for what follows only if that is wanted, because a
    /// walk over old versions mostly seeks instead.
    is_head_taken: bool,
}

/// Which source holds the least row.
#[derive(Clone, Copy)]
enum Winner {
    Lmdb,
    Layer(usize),
}

impl<'v> Cursor<'v> {
    /// Goes on at the least row at or above `from`.
    pub(crate) fn seek(&mut self, from: &[u8]) -> Result<(), heed::Error> {
        self.is_head_taken = false;
        for cursor in &mut self.layers {
            cursor.head = cursor.layer.tree(self.tree).lower_bound(Bound::Included(from));
        }
        if self.end.as_deref().is_some_and(|end| end <= from) {
            self.lmdb = None;
            self.lmdb_head = None;
            return Ok(());
        }
        // The end is compared here: LMDB's iterator would copy it at each seek.
        let rows = self.sources.environment.rows(self.tree);
        let bounds = (Bound::Included(from), Bound::Unbounded);
        self.lmdb = Some(rows.range(self.sources.snapshot, &bounds)?);
        self.advance_lmdb()
    }

    /// Takes the next row.
    pub(crate) fn next(&mut self) -> Result<Option<Row<'v>>, heed::Error> {
        if std::mem::take(&mut self.is_head_taken) {
            self.advance_lmdb()?;
        }
        if self.layers.is_empty() {
            self.is_head_taken = true;
            return Ok(self.lmdb_head.map(|(key, value)| Row::Lmdb(key, value)));
        }
        loop {
            let Some(winner) = self.winner() else { return Ok(None) };
            let row = match winner {
                Winner::Lmdb => {
                    let (key, value) = self.lmdb_head.expect("the winner has a head");
                    Some(Row::Lmdb(key, value))
                }
                Winner::Layer(at) => {
                    let head = self.layers[at].head.as_ref().expect("the winner has a head");
                    let value = head.value().get();
                    if self.is_past_end(head.key()) {
                        return Ok(None);
                    }
                    let key = head.key().clone();
                    self.pass(&key)?;
                    match value {
                        Some(value) => return Ok(Some(Row::Layer(key, value))),
                        None => continue,
                    }
                }
            };
            self.is_head_taken = true;
            return Ok(row);
        }
    }

    fn is_past_end(&self, key: &[u8]) -> bool {
        self.end.as_deref().is_some_and(|end| end <= key)
    }

    fn winner(&self) -> Option<Winner> {
        let mut best: Option<(&[u8], Winner)> = None;
        for (at, cursor) in self.layers.iter().enumerate() {
            if let Some(head) = &cursor.head
                && best.is_none_or(|(key, _)| head.key().as_ref() < key)
            {
                best = Some((head.key().as_ref(), Winner::Layer(at)));
            }
        }
        if let Some((head, _)) = self.lmdb_head
            && best.is_none_or(|(key, _)| head < key)
        {
            return Some(Winner::Lmdb);
        }
        best.map(|(_, winner)| winner)
    }

    /// Moves every source that stands at `key` past it.
    fn pass(&mut self, key: &[u8]) -> Result<(), heed::Error> {
        for cursor in &mut self.layers {
            if let Some(head) = cursor.head.take_if(|head| head.key().as_ref() == key) {
                cursor.head = head.next();
            }
        }
        if self.lmdb_head.is_some_and(|(head, _)| head == key) {
            self.advance_lmdb()?;
        }
        Ok(())
    }

    fn advance_lmdb(&mut self) -> Result<(), heed::Error> {
        self.lmdb_head = match &mut self.lmdb {
            Some(lmdb) => lmdb.next().transpose()?,
            None => None,
        };
        if self.lmdb_head.is_some_and(|(key, _)| self.is_past_end(key)) {
            self.lmdb_head = None;
            self.lmdb = None;
        }
        Ok(())
    }
}
