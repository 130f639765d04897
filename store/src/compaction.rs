//! Physical compaction: a paced walk over the revisions that a compaction made invisible.
//!
//! A pass goes from the previous compacted revision (inclusive, because tombstones lying exactly at
//! it were kept) to the new one, after LMDB holds the compaction's own commit. For each change it
//! removes the key's older rows, and the tombstone itself unless it lies exactly at the new revision;
//! then the change's row in *revisions*. The names and directories that changed with the key are
//! found by climbing from it, as they were written. Its cost follows the revisions compacted.
//!
//! Where a key has newer versions that the pass supersedes as well, they go in the same visit, oldest
//! first: they lie on the same page, and their own visits find nothing left to write.
//!
//! A pass is made of steps, each within a commit that also records how far the pass has come: a kill
//! loses nothing and the next start goes on. A step is small beside the commit that it rides in,
//! because apply may have to wait for that: it is bounded by the pages that it is likely to write and
//! by time, and smaller the less room the overlay has. Never nothing: a pass ends under any load.

use bytes::Bytes;
use heed::RwTxn;
use std::ops::Bound;
use std::time::{Duration, Instant};

use crate::committer::Batch;
use crate::env::Environment;
use crate::error::StoreError;
use crate::names::{split_directory, split_name};
use crate::overlay::Layer;
use crate::schema::{
    CompactionPass, Tree, Want, after_prefix, decode_change, decode_directory, decode_key_row,
    decode_name, decode_revision_row, key_prefix, name_prefix, revision_row, split_descending,
};
use crate::store::{Shared, Store};
use crate::types::Revision;

/// A step ends after so long, whatever is left of its batch.
const STEP_TIME_MAX: Duration = Duration::from_millis(20);

/// With a full overlay a step is so much smaller than the batch allows.
const SMALLEST_STEP: usize = 16;

/// A visit that wrote to *keys* counts as so many that found nothing to do there.
const COST_OF_WRITE: usize = 16;

/// As many removed rows of a key count as one visit.
const ROWS_PER_COST: usize = 4;

/// So many newer versions of a key are looked at in one visit; the next visit goes on.
const AHEAD_MAX: usize = 256;

/// Changes that are read before they are visited.
const CHANGES_AT_ONCE: usize = 64;

impl Store {
    /// Waits until the rows that the compaction at `revision` forgot are gone from LMDB, at most
    /// `timeout`; returns whether they are.
    ///
    /// # Errors
    /// A closed store.
    pub fn wait_compacted(
        &self,
        revision: Revision,
        timeout: Duration,
    ) -> Result<bool, StoreError> {
        let shared = self.shared();
        let mut state = shared.state.lock();
        state.commit_wanted = true;
        shared.work.notify_one();
        shared.progress.wait_while_for(
            &mut state,
            |state| state.pass.done < revision && !state.ended && shared.fault.check().is_ok(),
            timeout,
        );
        shared.fault.check()?;
        Ok(state.pass.done >= revision)
    }
}

/// Where a pass stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) pass: CompactionPass,
    /// The first change of `pass.next` that was not visited. It is not written: after a restart the
    /// changes before it are gone, or visited again in vain.
    pub(crate) sub: u32,
}

/// Goes on with the pass in progress, or begins the next one, for at most one batch.
///
/// The error type is LMDB's; a row that cannot be read closes the store and ends the step.
pub(crate) fn step(
    shared: &Shared,
    wtxn: &mut RwTxn<'_>,
    mut from: Progress,
    batch: &Batch,
) -> Result<Progress, heed::Error> {
    let (pass, durable_compacted) = (&mut from.pass, batch.durable_compacted);
    if pass.target == Revision::NONE {
        if pass.done >= durable_compacted {
            return Ok(from);
        }
        pass.target = durable_compacted;
        pass.next = pass.done;
        from.sub = 0;
    }
    let target = pass.target;
    let (environment, left) = (&*batch.environment, batch_size(shared, &batch.layer));
    let mut step = Step { shared, environment, wtxn, target, left, start: now() };
    while step.goes_on() {
        if !step.advance(&mut from)? {
            let pass =
                CompactionPass { done: target, target: Revision::NONE, next: Revision::NONE };
            return Ok(Progress { pass, sub: 0 });
        }
    }
    Ok(from)
}

/// The clock decides when a row goes, and nothing that is ever answered.
#[expect(clippy::disallowed_methods, reason = "the committer may read the clock; apply does not")]
fn now() -> Instant {
    Instant::now()
}

/// What a step may cost: the less, the fuller the overlay is. From half on it is the least, because
/// apply fills the other half while this commit runs; that follows what the commit itself writes, so
/// that a pass keeps up with a load that never lets the overlay drain.
fn batch_size(shared: &Shared, layer: &Layer) -> usize {
    let options = &shared.options;
    let bound = (options.overlay_bytes_max / 2).max(1);
    let room = bound.saturating_sub(shared.state.lock().layers.bytes());
    // In steps of a sixteenth.
    let share = room / (bound / SMALLEST_STEP).max(1);
    let batch = options.compaction_batch.saturating_mul(share.min(SMALLEST_STEP)) / SMALLEST_STEP;
    let least = options.compaction_batch.max(layer.rows()) / SMALLEST_STEP;
    batch.max(least).max(1).saturating_mul(COST_OF_WRITE)
}

/// Key and value of a row, kept while the tree is written.
type OwnedRow = (Vec<u8>, Vec<u8>);

/// A row of *revisions*.
struct Visited {
    main: Revision,
    sub: u32,
    is_delete: bool,
    key: Vec<u8>,
}

struct Step<'s, 'w, 'e> {
    shared: &'s Shared,
    environment: &'s Environment,
    wtxn: &'w mut RwTxn<'e>,
    target: Revision,
    /// What this step may still cost.
    left: usize,
    start: Instant,
}

impl Step<'_, '_, '_> {
    fn goes_on(&self) -> bool {
        self.left > 0 && self.start.elapsed() < STEP_TIME_MAX
    }

    /// Visits the next changes; returns whether there were any.
    fn advance(&mut self, from: &mut Progress) -> Result<bool, heed::Error> {
        let changes = self.changes_from(from.pass.next, from.sub)?;
        let Some(first) = changes.first().map(|change| (change.main, change.sub)) else {
            return Ok(false);
        };
        let mut last = first;
        for change in &changes {
            self.visit(change)?;
            last = (change.main, change.sub);
            if !self.goes_on() {
                break;
            }
        }
        self.forget(first, last)?;
        (from.pass.next, from.sub) = match last.1.checked_add(1) {
            Some(sub) => (last.0, sub),
            None => (last.0.next(), 0),
        };
        Ok(true)
    }

    /// The first changes at or above a place in *revisions* and not above the target.
    fn changes_from(&mut self, main: Revision, sub: u32) -> Result<Vec<Visited>, heed::Error> {
        let rows = self.environment.rows(Tree::Revisions);
        let (from, end) = (revision_row(main, sub), revision_row(self.target.next(), 0));
        let bounds = (Bound::Included(&from[..]), Bound::Excluded(&end[..]));
        let mut changes = Vec::with_capacity(CHANGES_AT_ONCE);
        for found in rows.range(self.wtxn, &bounds)?.take(CHANGES_AT_ONCE) {
            let (row, value) = found?;
            let (main, sub) = decode_revision_row(row).map_err(|e| self.corrupt(&e))?;
            let (is_delete, key) = decode_change(row, value).map_err(|e| self.corrupt(&e))?;
            changes.push(Visited { main, sub, is_delete, key: key.to_vec() });
        }
        Ok(changes)
    }

    /// Removes what a change superseded.
    fn visit(&mut self, change: &Visited) -> Result<(), heed::Error> {
        let &Visited { main, is_delete, ref key, .. } = change;
        let removed = self.remove_versions(key, main, is_delete && main < self.target)?;
        self.climb(main, key, is_delete)?;
        let cost = if removed > 0 { COST_OF_WRITE + removed / ROWS_PER_COST } else { 1 };
        self.left = self.left.saturating_sub(cost);
        Ok(())
    }

    /// Removes the versions of `key` below `main`, with `itself` the one at `main`, and what is newer
    /// but superseded at the target too; returns how many.
    fn remove_versions(
        &mut self,
        key: &[u8],
        main: Revision,
        itself: bool,
    ) -> Result<usize, heed::Error> {
        let rows = self.environment.rows(Tree::Keys);
        let prefix = key_prefix(key);
        let (own, newest) = (at(&prefix, main), at(&prefix, self.target));
        // Each is superseded by the one that is found after it.
        let mut superseded = None;
        let mut previous: Option<Vec<u8>> = None;
        let mut is_there = false;
        let bounds = (Bound::Included(&newest[..]), Bound::Included(&own[..]));
        for found in rows.rev_range(self.wtxn, &bounds)?.take(AHEAD_MAX) {
            let (row, value) = found?;
            superseded = previous.or(superseded);
            is_there |= row == own;
            // Where it came from is asked for in its own visit.
            if self.is_carried_row(row, value)? {
                break;
            }
            previous = Some(row.to_vec());
        }
        if superseded.is_none() && !is_there {
            // It went in an earlier visit, and all that is older with it.
            return Ok(0);
        }
        let start = match &superseded {
            Some(row) => Bound::Included(&row[..]),
            None if itself => Bound::Included(&own[..]),
            None => Bound::Excluded(&own[..]),
        };
        rows.delete_range(self.wtxn, &(start, Bound::Excluded(&after_prefix(&prefix)[..])))
    }

    /// Removes the rows of *revisions* between two changes that were visited, and the times of their
    /// revisions. Those of the target stay.
    fn forget(&mut self, first: (Revision, u32), last: (Revision, u32)) -> Result<(), heed::Error> {
        let end = last.min((self.target, 0));
        let bounds = (revision_row(first.0, first.1), revision_row(end.0, end.1));
        let is_whole = last.0 == self.target;
        let end =
            if is_whole { Bound::Excluded(&bounds.1[..]) } else { Bound::Included(&bounds.1[..]) };
        let bounds = (Bound::Included(&bounds.0[..]), end);
        self.environment.rows(Tree::Revisions).delete_range(self.wtxn, &bounds)?;
        let (first, last) = (first.0.0.to_be_bytes(), last.0.0.to_be_bytes());
        let end = if is_whole { Bound::Excluded(&last[..]) } else { Bound::Included(&last[..]) };
        let bounds = (Bound::Included(&first[..]), end);
        self.environment.rows(Tree::Times).delete_range(self.wtxn, &bounds)?;
        Ok(())
    }

    /// Removes superseded rows of the names and directories that changed with `key` at `main`.
    fn climb(&mut self, main: Revision, key: &[u8], is_delete: bool) -> Result<(), heed::Error> {
        let (mut directory, mut name) = split_name(key);
        // A directory that was moved here has a row although its names may be those of the one before.
        let mut is_known_moved = false;
        loop {
            let prefix = name_prefix(directory, name);
            if let Some(row) = self.row_at(Tree::Names, &prefix, main)? {
                let appears = decode_name(&row.0, &row.1).map_err(|e| self.corrupt(&e))?;
                self.remove_older(Tree::Names, &prefix, main, !appears)?;
            } else {
                if !is_known_moved && (is_delete || !self.is_carried(main, key)?) {
                    return Ok(());
                }
                is_known_moved = true;
            }
            let prefix = key_prefix(directory);
            if let Some(row) = self.row_at(Tree::Directories, &prefix, main)? {
                let state = decode_directory(&row.0, &row.1).map_err(|e| self.corrupt(&e))?;
                self.remove_older(Tree::Directories, &prefix, main, state.names == 0)?;
            }
            let Some((parent, own)) = split_directory(directory) else { return Ok(()) };
            (directory, name) = (parent, own);
        }
    }

    /// Whether the version that `main` made of `key` came from elsewhere.
    fn is_carried(&self, main: Revision, key: &[u8]) -> Result<bool, heed::Error> {
        let row = at(&key_prefix(key), main);
        let found = self.environment.rows(Tree::Keys).get(self.wtxn, &row)?;
        found.map_or(Ok(false), |value| self.is_carried_row(&row, value))
    }

    fn is_carried_row(&self, row: &[u8], value: &[u8]) -> Result<bool, heed::Error> {
        let (_, main) = split_descending(Tree::Keys, row).map_err(|e| self.corrupt(&e))?;
        let read = decode_key_row(row, Bytes::new(), main, value, Want::Header);
        Ok(read.map_err(|e| self.corrupt(&e))?.kv.content_revision < main)
    }

    /// The row of `prefix` at exactly `main`.
    fn row_at(
        &self,
        tree: Tree,
        prefix: &[u8],
        main: Revision,
    ) -> Result<Option<OwnedRow>, heed::Error> {
        let row = at(prefix, main);
        let found = self.environment.rows(tree).get(self.wtxn, &row)?;
        Ok(found.map(|value| (row, value.to_vec())))
    }

    /// Removes the rows of `prefix` below `main`, and with `itself` the one at `main`.
    fn remove_older(
        &mut self,
        tree: Tree,
        prefix: &[u8],
        main: Revision,
        itself: bool,
    ) -> Result<(), heed::Error> {
        let (own, end) = (at(prefix, main), after_prefix(prefix));
        let start = if itself { Bound::Included(&own[..]) } else { Bound::Excluded(&own[..]) };
        let rows = self.environment.rows(tree);
        rows.delete_range(self.wtxn, &(start, Bound::Excluded(&end[..])))?;
        Ok(())
    }

    /// Closes the store; the error ends the commit, whose own report comes second and is dropped.
    fn corrupt(&self, error: &crate::schema::RowError) -> heed::Error {
        drop(self.shared.fault.row(self.environment.path(), error));
        heed::Error::Mdb(heed::MdbError::Corrupted)
    }
}

fn at(prefix: &[u8], main: Revision) -> Vec<u8> {
    let mut row = prefix.to_vec();
    row.extend_from_slice(&(!main.0).to_be_bytes());
    row
}
