//! A consistent read at any revision that is not compacted.
//!
//! A [`ReadView`] is taken in this order: (1) under one lock the current and compacted revisions and
//! the overlay's layers; (2) an LMDB read transaction; (3) the compacted revision again. What step 3
//! finds is the bound below which the view answers `Compacted`, because a physical pass may have
//! removed rows between 1 and 2. Rows above the view's revision are ignored.
//!
//! Where an idle read transaction of the last commit is at hand it is taken under the lock of step 1,
//! and that is all: what it shows is no newer than the lock. A view gives its own back when dropped.
//!
//! A view pins pages of the LMDB file: take it, read, drop it; a long read calls
//! [`ReadView::renew`], which keeps the view's revision.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use crate::auth::Auth;
use crate::copies::Copies;
use crate::counts::Span;
use crate::cursor::{Cursor, Row, Sources};
use crate::env::{Environment, Snapshot};
use crate::error::{ReadError, StoreError};
use crate::fault::Fault;
use crate::overlay::Layers;
use crate::range::{self, Living};
use crate::schema::{
    KeyRow, RowError, Tree, VersionRef, Want, decode_key_row, decode_key_row_ref, key_lower_bound,
    key_of_prefix, key_of_prefix_into, key_row, replace_terminator, split_descending,
};
use crate::seen::Seen;
use crate::store::Shared;
use crate::successor::Successor;
use crate::types::{KeyRange, KeyValue, RangeQuery, RangeResult, Revision};

/// After so many rows of one key that a walk does not want, it seeks instead of stepping.
const STEPS_BEFORE_SEEK: u32 = 4;

/// A walk that had to seek expects the same of the keys that follow, and seeks so often at the first
/// row that it does not want, before it tries steps again.
const EAGER_SEEKS: u32 = 32;

/// See the module.
pub struct ReadView {
    shared: Arc<Shared>,
    environment: Arc<Environment>,
    /// `None` only while the view is dropped.
    snapshot: Option<Snapshot>,
    /// Commits that the snapshot holds at least.
    generation: u64,
    layers: Layers,
    current: Revision,
    compacted: Option<Revision>,
    auth: Arc<Auth>,
}

impl ReadView {
    pub(crate) fn take(shared: Arc<Shared>) -> Result<Self, StoreError> {
        loop {
            let seen = shared.see()?;
            if seen.snapshot.is_some() {
                return Self::of_writer(shared, seen);
            }
            let current = seen.current;
            let mut view = Self::of_writer(Arc::clone(&shared), seen)?;
            view.compacted = shared.revisions()?.1;
            // A compaction above our revision was applied meanwhile: this view could answer nothing.
            if view.compacted.is_none_or(|compacted| compacted <= current) {
                return Ok(view);
            }
        }
    }

    /// A view of what apply has written so far, above the current revision too. Nothing is compacted
    /// meanwhile: that is applied as well.
    pub(crate) fn of_writer(shared: Arc<Shared>, seen: Seen) -> Result<Self, StoreError> {
        let Seen { environment, current, compacted, auth, layers, generation, snapshot } = seen;
        let snapshot = match snapshot {
            Some(snapshot) => snapshot,
            None => environment.snapshot().map_err(|e| shared.fault.lmdb(&e))?,
        };
        let snapshot = Some(snapshot);
        Ok(Self { shared, environment, snapshot, generation, layers, current, compacted, auth })
    }

    /// Gives up the pages that the view pins and goes on at the same revision. Reads below a
    /// compaction that happened meanwhile are refused from now on. A view of an environment that was
    /// replaced stays as it is.
    ///
    /// # Errors
    /// A closed store.
    pub fn renew(&mut self) -> Result<(), StoreError> {
        let mut fresh = Self::take(Arc::clone(&self.shared))?;
        if !Arc::ptr_eq(&fresh.environment, &self.environment) {
            // What was replaced is written no more: its pages are free for nobody.
            return Ok(());
        }
        fresh.current = self.current;
        *self = fresh;
        Ok(())
    }

    /// The store's current revision in this view.
    #[must_use]
    pub fn current(&self) -> Revision {
        self.current
    }

    /// The compacted revision; [`Revision::NONE`] before the first compaction.
    #[must_use]
    pub fn compacted(&self) -> Revision {
        self.compacted.unwrap_or_default()
    }

    /// `revision`, or the last one before those that a restore left out.
    #[must_use]
    pub fn made_at_or_before(&self, revision: Revision) -> Revision {
        self.environment.skip_of(revision).map_or(revision, |skip| skip.after)
    }

    /// `revision`, or the first one behind those that a restore left out.
    #[must_use]
    pub fn made_at_or_after(&self, revision: Revision) -> Revision {
        self.environment.skip_of(revision).map_or(revision, |skip| skip.until)
    }

    /// Users, roles and whether they matter, as of the last log entry that this view shows. They have no
    /// history: a read of the past is authorised by them too.
    #[must_use]
    pub fn auth(&self) -> &Auth {
        &self.auth
    }

    /// Distinguishes "never" from "at revision 0".
    pub(crate) fn compacted_or_none(&self) -> Option<Revision> {
        self.compacted
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    pub(crate) fn fault(&self) -> &Fault {
        &self.shared.fault
    }

    pub(crate) fn sources(&self) -> Sources<'_> {
        Sources {
            environment: &self.environment,
            snapshot: self.snapshot.as_ref().expect("only a drop takes it"),
            layers: &self.layers,
        }
    }

    pub(crate) fn lmdb(&self, error: &heed::Error) -> StoreError {
        if self.environment.is_retired() {
            return replaced(&error.to_string());
        }
        self.shared.fault.lmdb(error)
    }

    pub(crate) fn row(&self, error: &RowError) -> StoreError {
        if self.environment.is_retired() {
            return replaced(&error.to_string());
        }
        self.shared.fault.row(self.environment().path(), error)
    }

    /// The row `key` of a tree, whatever its revision.
    pub(crate) fn get_row(&self, tree: Tree, key: &[u8]) -> Result<Option<Row<'_>>, StoreError> {
        self.sources().get(tree, key).map_err(|e| self.lmdb(&e))
    }

    pub(crate) fn cursor(
        &self,
        tree: Tree,
        from: &[u8],
        end: Option<Vec<u8>>,
    ) -> Result<Cursor<'_>, StoreError> {
        self.sources().cursor(tree, from, end).map_err(|e| self.lmdb(&e))
    }

    /// The newest row of `prefix` not above `at` in a tree whose rows end in a descending revision.
    pub(crate) fn newest(
        &self,
        tree: Tree,
        prefix: &[u8],
        at: Revision,
    ) -> Result<Option<Row<'_>>, StoreError> {
        let mut from = Vec::with_capacity(prefix.len() + 8);
        from.extend_from_slice(prefix);
        from.extend_from_slice(&(!at.0).to_be_bytes());
        self.newest_from(tree, &from)
    }

    /// The least row at or above `from` with the same prefix, where `from` ends in a revision.
    fn newest_from(&self, tree: Tree, from: &[u8]) -> Result<Option<Row<'_>>, StoreError> {
        let prefix_bytes = from.len() - 8;
        self.sources().first(tree, from, prefix_bytes).map_err(|e| self.lmdb(&e))
    }

    /// Turns a requested revision into the one to read at.
    pub(crate) fn resolve(&self, at: Revision) -> Result<Revision, ReadError> {
        let at = if at.is_none() { self.current } else { at };
        if at > self.current {
            return Err(ReadError::Future { requested: at, current: self.current });
        }
        match self.compacted {
            Some(compacted) if at < compacted => {
                Err(ReadError::Compacted { requested: at, compacted })
            }
            _ => match self.environment.skip_of(at) {
                Some(skip) => Err(ReadError::Compacted { requested: at, compacted: skip.until }),
                None => Ok(at),
            },
        }
    }

    /// Keys and values of an interval at `at` ([`Revision::NONE`] = the view's own), or at the
    /// revision that the query names itself.
    ///
    /// # Errors
    /// A compacted or future revision, or a closed store.
    pub fn range(&self, at: Revision, query: &RangeQuery) -> Result<RangeResult, ReadError> {
        let at = self.resolve(if query.at.is_none() { at } else { query.at })?;
        Ok(range::answer(&At { view: self, at }, query)?)
    }

    /// One key at `at`.
    ///
    /// # Errors
    /// A compacted or future revision, or a closed store.
    pub fn get(
        &self,
        at: Revision,
        key: &[u8],
        keys_only: bool,
    ) -> Result<Option<KeyValue>, ReadError> {
        let at = self.resolve(at)?;
        let want = if keys_only { Want::Header } else { Want::Value };
        Ok(self.version_at(key, at, want)?.filter(|row| !row.tombstone).map(|row| row.kv))
    }

    /// The newest version of `key` not above `at`, tombstones included.
    pub(crate) fn version_at(
        &self,
        key: &[u8],
        at: Revision,
        want: Want,
    ) -> Result<Option<KeyRow>, StoreError> {
        let Some(row) = self.newest_from(Tree::Keys, &key_row(key, at))? else { return Ok(None) };
        let (_, revision) = split_descending(Tree::Keys, row.key()).map_err(|e| self.row(&e))?;
        let key = Bytes::copy_from_slice(key);
        let version = decode_key_row(row.key(), key, revision, row.value(), want);
        version.map(Some).map_err(|e| self.row(&e))
    }

    /// Calls `each` for every key of `range` that lives at `at`, in order.
    pub(crate) fn scan(
        &self,
        range: &KeyRange,
        at: Revision,
        want: Want,
        mut each: impl FnMut(KeyRow) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut copies = Copies::default();
        self.scan_in_place(range, at, want, |prefix, version| {
            let key = key_of_prefix_into(Tree::Keys, prefix, |key| copies.add(key))?;
            let value = match want {
                Want::Value => copies.add(version.value),
                Want::Header => Bytes::new(),
            };
            Ok(each(version.into_row(key, value)))
        })
    }

    /// As [`Self::scan`], with the prefix of a key's rows for its name, and without copying.
    pub(crate) fn scan_in_place(
        &self,
        range: &KeyRange,
        at: Revision,
        want: Want,
        mut each: impl FnMut(&[u8], VersionRef<'_>) -> Result<ControlFlow<()>, RowError>,
    ) -> Result<(), StoreError> {
        let mut each = |row: &Row<'_>| {
            let (prefix, revision) = split_descending(Tree::Keys, row.key())?;
            let version = decode_key_row_ref(row.key(), revision, row.value(), want)?;
            if version.tombstone { Ok(ControlFlow::Continue(())) } else { each(prefix, version) }
        };
        let Some(Span { from, to }) = span(range) else {
            if let KeyRange::Key(key) = range
                && let Some(row) = self.newest_from(Tree::Keys, &key_row(key, at))?
            {
                // One key: nothing follows that a break would stop.
                let (ControlFlow::Continue(()) | ControlFlow::Break(())) =
                    each(&row).map_err(|e| self.row(&e))?;
            }
            return Ok(());
        };
        let end = to.as_deref().map(key_lower_bound);
        let mut walk = Newest::of_living_keys(self, &key_lower_bound(&from), end, at)?;
        while let Some(row) = walk.next()? {
            if each(&row).map_err(|e| self.row(&e))?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// How many keys of `range` live at `at`; reads no value, and no row where the number is known.
    pub(crate) fn count(&self, range: &KeyRange, at: Revision) -> Result<u64, StoreError> {
        let Some(span) = span(range) else {
            let mut count = 0;
            self.scan(range, at, Want::Header, |_| {
                count += 1;
                ControlFlow::Continue(())
            })?;
            return Ok(count);
        };
        self.environment.counts().count(&span, at, |span, walked| {
            let end = span.to.as_deref().map(key_lower_bound);
            let mut walk = Newest::of_living_keys(self, &key_lower_bound(&span.from), end, at)?;
            while let Some(row) = walk.next()? {
                let (key, value) = (row.key(), row.value());
                let no_name = Bytes::new();
                let version = decode_key_row(key, no_name, Revision::NONE, value, Want::Header);
                if !version.map_err(|e| self.row(&e))?.tombstone {
                    walked.add(|| self.name_of(key))?;
                }
            }
            Ok(())
        })
    }

    fn name_of(&self, row: &[u8]) -> Result<Bytes, StoreError> {
        let name = split_descending(Tree::Keys, row)
            .and_then(|(prefix, _)| key_of_prefix(Tree::Keys, prefix));
        name.map_err(|e| self.row(&e))
    }
}

impl Drop for ReadView {
    fn drop(&mut self) {
        if let Some(snapshot) = self.snapshot.take() {
            self.shared.give_back(snapshot, self.generation);
        }
    }
}

/// Damage of what was replaced says nothing of what is in use.
fn replaced(reason: &str) -> StoreError {
    StoreError::Closed { reason: format!("a view of the store that was replaced: {reason}").into() }
}

/// `None` for one key, and for an empty interval.
fn span(range: &KeyRange) -> Option<Span> {
    match range {
        KeyRange::Key(_) => None,
        KeyRange::Span { start, end } if end <= start => None,
        KeyRange::Span { start, end } => Some(Span { from: start.clone(), to: Some(end.clone()) }),
        KeyRange::From(start) => Some(Span { from: start.clone(), to: None }),
    }
}

/// The keys that live at a revision.
struct At<'v> {
    view: &'v ReadView,
    at: Revision,
}

impl Living for At<'_> {
    fn walk(
        &self,
        range: &KeyRange,
        want: Want,
        each: &mut dyn FnMut(KeyValue) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.view.scan(range, self.at, want, |version| each(version.kv))
    }

    fn fill(&self, kv: &mut KeyValue) -> Result<(), StoreError> {
        let version = self.view.version_at(&kv.key, self.at, Want::Value)?;
        kv.value = version.map(|version| version.kv.value).unwrap_or_default();
        Ok(())
    }

    fn count(&self, range: &KeyRange) -> Result<u64, StoreError> {
        self.view.count(range, self.at)
    }
}

/// A walk over the newest row not above a revision of each prefix, in a tree whose rows end in a
/// descending revision.
pub(crate) struct Newest<'v> {
    view: &'v ReadView,
    tree: Tree,
    cursor: Cursor<'v>,
    at: Revision,
    /// Prefix of the row handed out last.
    done: Vec<u8>,
    /// Where to seek to; kept for its memory.
    wanted: Vec<u8>,
    eager_seeks: u32,
    /// So many keys more are asked of `successor`, because one was found at a newer version.
    questions: u32,
    /// Tells the next key where only living ones are wanted.
    successor: Option<Box<Successor<'v>>>,
}

impl<'v> Newest<'v> {
    pub(crate) fn new(
        view: &'v ReadView,
        tree: Tree,
        from: &[u8],
        end: Option<Vec<u8>>,
        at: Revision,
    ) -> Result<Self, StoreError> {
        let cursor = view.cursor(tree, from, end)?;
        let (done, wanted) = (Vec::new(), Vec::new());
        Ok(Self {
            view,
            tree,
            cursor,
            at,
            done,
            wanted,
            eager_seeks: 0,
            questions: 0,
            successor: None,
        })
    }

    /// The same over *keys*, where some of the keys that do not live are passed over.
    fn of_living_keys(
        view: &'v ReadView,
        from: &[u8],
        end: Option<Vec<u8>>,
        at: Revision,
    ) -> Result<Self, StoreError> {
        let successor = Some(Box::new(Successor::new(view, at)));
        Ok(Self { successor, ..Self::new(view, Tree::Keys, from, end, at)? })
    }

    pub(crate) fn next(&mut self) -> Result<Option<Row<'v>>, StoreError> {
        let mut steps = 0;
        while let Some(row) = self.cursor.next().map_err(|e| self.view.lmdb(&e))? {
            let (prefix, revision) =
                split_descending(self.tree, row.key()).map_err(|e| self.view.row(&e))?;
            let is_done = prefix == self.done;
            if !is_done && revision <= self.at {
                self.done.clear();
                self.done.extend_from_slice(prefix);
                return Ok(Some(row));
            }
            steps += 1;
            if self.eager_seeks == 0 && steps <= STEPS_BEFORE_SEEK {
                continue;
            }
            self.want_after(prefix, is_done)?;
            self.eager_seeks = self.eager_seeks.checked_sub(1).unwrap_or(EAGER_SEEKS);
            self.cursor.seek(&self.wanted).map_err(|e| self.view.lmdb(&e))?;
            steps = 0;
        }
        Ok(None)
    }

    /// Makes `wanted` the row to seek from one of `prefix`: the next key's, or its own at `at`.
    fn want_after(&mut self, prefix: &[u8], is_done: bool) -> Result<(), StoreError> {
        let has_next = match &mut self.successor {
            Some(successor) if is_done && self.questions > 0 => {
                self.questions -= 1;
                successor.after(prefix, &mut self.wanted)?
            }
            _ => false,
        };
        if !has_next {
            self.wanted.clear();
            self.wanted.extend_from_slice(prefix);
        }
        if is_done && !has_next {
            replace_terminator(&mut self.wanted);
        } else {
            self.questions = if is_done { self.questions } else { EAGER_SEEKS };
            self.wanted.extend_from_slice(&(!self.at.0).to_be_bytes());
        }
        Ok(())
    }
}
