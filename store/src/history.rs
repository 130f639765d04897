//! What happened: the history of a key, the changes between two revisions, stamps and times.
//!
//! What is logically compacted is invisible at once, however far the physical pass has come. Of the
//! versions at or below the compacted revision a key shows the newest only, and that only if it is
//! alive or lies exactly at that revision.

use bytes::Bytes;

use crate::error::{ReadError, StoreError};
use crate::schema::{
    KeyRow, Tree, Want, after_prefix, decode_change, decode_key_row, decode_revision_row,
    decode_stamp, key_prefix, revision_row, split_descending,
};
use crate::types::{
    ChangeKind, ChangesQuery, ChangesResult, Event, Revision, RevisionEvents, Stamp, Time,
};
use crate::view::ReadView;

fn event(version: KeyRow) -> Event {
    let kind = if version.tombstone { ChangeKind::Delete } else { ChangeKind::Put };
    Event { kind, kv: version.kv }
}

impl ReadView {
    /// Stored versions of a key at or below `at_most` ([`Revision::NONE`] = all), newest first,
    /// deletions included; `limit` 0 = all. A version older than the compacted revision has a stamp
    /// without author and note.
    ///
    /// # Errors
    /// A closed store.
    pub fn history(
        &self,
        key: &[u8],
        at_most: Revision,
        limit: usize,
        keys_only: bool,
    ) -> Result<Vec<(Event, Stamp)>, StoreError> {
        let at = if at_most.is_none() { self.current() } else { at_most.min(self.current()) };
        let limit = if limit == 0 { usize::MAX } else { limit };
        let want = if keys_only { Want::Header } else { Want::Value };
        let prefix = key_prefix(key);
        let mut from = prefix.clone();
        from.extend_from_slice(&(!at.0).to_be_bytes());
        let mut cursor = self.cursor(Tree::Keys, &from, Some(after_prefix(&prefix)))?;
        let mut versions = Vec::new();
        while versions.len() < limit {
            let Some(row) = cursor.next().map_err(|e| self.lmdb(&e))? else { break };
            let (_, revision) =
                split_descending(Tree::Keys, row.key()).map_err(|e| self.row(&e))?;
            let key = Bytes::copy_from_slice(key);
            let version = decode_key_row(row.key(), key, revision, row.value(), want)
                .map_err(|e| self.row(&e))?;
            let is_old = revision <= self.compacted();
            if is_old && !self.is_base(&version, at)? {
                break;
            }
            let stamp = if revision < self.compacted() {
                Stamp { revision, time: version.kv.time, ..Stamp::default() }
            } else {
                self.stamp_of(revision)?
            };
            versions.push((event(version), stamp));
            if is_old {
                break;
            }
        }
        Ok(versions)
    }

    /// The change of `key` that the revisions tree says was made at `revision`.
    pub(crate) fn event_at(
        &self,
        revision: Revision,
        kind: ChangeKind,
        key: &[u8],
        want: Want,
    ) -> Result<Event, StoreError> {
        let version = self.version_at(key, revision, want)?;
        let found = version.filter(|version| version.kv.mod_revision == revision).map(event);
        found.filter(|event| event.kind == kind).ok_or_else(|| {
            let key = key.escape_ascii();
            self.fault().close(&format!("tree keys has no row of \"{key}\" at revision {revision}"))
        })
    }

    /// Whether a version at or below the compacted revision is the one that compaction kept.
    fn is_base(&self, version: &KeyRow, at: Revision) -> Result<bool, StoreError> {
        let revision = version.kv.mod_revision;
        if version.tombstone {
            return Ok(revision == self.compacted());
        }
        if at >= self.compacted() {
            return Ok(true);
        }
        // Read from below the compacted revision: there may be a newer version not above it.
        let newest = self.version_at(&version.kv.key, self.compacted(), Want::Header)?;
        Ok(newest.is_some_and(|newest| newest.kv.mod_revision == revision))
    }

    pub(crate) fn stamp_of(&self, revision: Revision) -> Result<Stamp, StoreError> {
        if let Some(row) = self.get_row(Tree::Times, &revision.0.to_be_bytes())? {
            return decode_stamp(row.key(), row.value()).map_err(|e| self.row(&e));
        }
        if revision <= Revision::FIRST {
            // Nobody made the empty store.
            return Ok(Stamp { revision, ..Stamp::default() });
        }
        if let Some(skip) = self.environment().skip_of(revision) {
            // It never was: what was before it goes on.
            let time = self.stamp_of(skip.until)?.time;
            return Ok(Stamp { revision, time, ..Stamp::default() });
        }
        Err(self.fault().close(&format!("row {revision} of tree times is missing")))
    }

    /// Time, author and note of a revision.
    ///
    /// # Errors
    /// A compacted or future revision, or a closed store.
    pub fn stamp(&self, revision: Revision) -> Result<Stamp, ReadError> {
        let revision = self.resolve(revision)?;
        Ok(self.stamp_of(revision)?)
    }

    /// The revision that was current at `time`: the last one stamped at or before it.
    ///
    /// # Errors
    /// A time before the first revision that is kept, or a closed store.
    pub fn revision_at(&self, time: Time) -> Result<Revision, ReadError> {
        // Revision 1 has no time: it is older than any.
        let mut low = self.compacted().max(Revision::FIRST);
        if low > Revision::FIRST && self.stamp_of(low)?.time > time {
            let requested = Revision(low.0 - 1);
            return Err(ReadError::Compacted { requested, compacted: low });
        }
        let mut above = self.current().next();
        while low.next() < above {
            let middle = Revision(low.0 + (above.0 - low.0) / 2);
            if self.stamp_of(middle)?.time <= time {
                low = middle;
            } else {
                above = middle;
            }
        }
        Ok(low)
    }

    /// The changes of the keys in any of the ranges, by revision, from `from` to `to` inclusive.
    /// `to` above the current revision, or none, means the current one.
    ///
    /// # Errors
    /// A compacted `from`, or a closed store.
    pub fn changes(&self, query: &ChangesQuery) -> Result<ChangesResult, ReadError> {
        let (requested, compacted) = (query.from, self.compacted());
        if requested < compacted {
            return Err(ReadError::Compacted { requested, compacted });
        }
        // The empty store's revision has no changes.
        let from = requested.max(Revision::FIRST.next());
        let to = if query.to.is_none() { self.current() } else { query.to.min(self.current()) };
        let mut result = ChangesResult::default();
        let mut scan = Scan { view: self, query, looked_at: 0, result: &mut result };
        if query.newest_first {
            // A revision is few rows: each is looked up by its own.
            let mut main = self.made_at_or_before(to);
            while main >= from && scan.visit(main)? {
                main = self.made_at_or_before(Revision(main.0 - 1));
            }
        } else {
            scan.ascending(from, to)?;
        }
        Ok(result)
    }
}

/// One run of [`ReadView::changes`].
struct Scan<'v, 'r> {
    view: &'v ReadView,
    query: &'v ChangesQuery,
    looked_at: usize,
    result: &'r mut ChangesResult,
}

impl Scan<'_, '_> {
    /// Walks over the revisions in order with one cursor.
    fn ascending(&mut self, from: Revision, to: Revision) -> Result<(), StoreError> {
        let end = revision_row(to.next(), 0).to_vec();
        let mut cursor = self.view.cursor(Tree::Revisions, &revision_row(from, 0), Some(end))?;
        let (mut main, mut events) = (Revision::NONE, Vec::new());
        while let Some(row) = cursor.next().map_err(|e| self.view.lmdb(&e))? {
            let (found, _) = decode_revision_row(row.key()).map_err(|e| self.view.row(&e))?;
            if found != main {
                self.complete(main, std::mem::take(&mut events))?;
                if self.is_full(found) {
                    return Ok(());
                }
                main = found;
                self.looked_at += 1;
            }
            self.add(row.key(), row.value(), main, &mut events)?;
        }
        self.complete(main, events)
    }

    /// Adds one revision; returns whether to go on below it.
    fn visit(&mut self, main: Revision) -> Result<bool, StoreError> {
        if self.is_full(main) {
            return Ok(false);
        }
        self.looked_at += 1;
        let end = revision_row(main.next(), 0).to_vec();
        let mut cursor = self.view.cursor(Tree::Revisions, &revision_row(main, 0), Some(end))?;
        let mut events = Vec::new();
        while let Some(row) = cursor.next().map_err(|e| self.view.lmdb(&e))? {
            self.add(row.key(), row.value(), main, &mut events)?;
        }
        self.complete(main, events)?;
        Ok(true)
    }

    /// Whether a limit was reached before `main`; notes where to go on.
    fn is_full(&mut self, main: Revision) -> bool {
        let ChangesQuery { limit, scan_limit, .. } = self.query;
        let is_full = (*limit != 0 && self.result.revisions.len() >= *limit)
            || (*scan_limit != 0 && self.looked_at >= *scan_limit);
        if is_full {
            self.result.next = Some(main);
        }
        is_full
    }

    fn add(
        &self,
        row: &[u8],
        value: &[u8],
        main: Revision,
        events: &mut Vec<Event>,
    ) -> Result<(), StoreError> {
        let (is_delete, key) = decode_change(row, value).map_err(|e| self.view.row(&e))?;
        if !self.query.ranges.iter().any(|range| range.contains(key)) {
            return Ok(());
        }
        let want = if self.query.keys_only { Want::Header } else { Want::Value };
        let kind = if is_delete { ChangeKind::Delete } else { ChangeKind::Put };
        events.push(self.view.event_at(main, kind, key, want)?);
        Ok(())
    }

    fn complete(&mut self, main: Revision, events: Vec<Event>) -> Result<(), StoreError> {
        if !events.is_empty() {
            let stamp = self.view.stamp_of(main)?;
            self.result.revisions.push(RevisionEvents { stamp, events });
        }
        Ok(())
    }
}
