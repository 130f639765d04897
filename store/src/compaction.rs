//! Physical compaction: a paced walk over the revisions that a compaction made invisible.
//!
//! A pass goes from the previous compacted revision (inclusive, because tombstones lying exactly at
//! it were kept) to the new one, after LMDB holds the compaction's own commit. For each change it
//! removes the key's older rows, and the tombstone itself unless it lies exactly at the new revision;
//! then the change's row in *revisions*. The names and directories that changed with the key are
//! found by climbing from it, as they were written. Its cost follows the revisions compacted.
//!
//! A pass is made of steps, each within a commit that also records how far the pass has come: a kill
//! loses nothing and the next start goes on.

use bytes::Bytes;
use heed::RwTxn;
use std::ops::Bound;
use std::time::Duration;

use crate::error::StoreError;
use crate::names::{split_directory, split_name};
use crate::schema::{
    CompactionPass, Tree, Want, after_prefix, decode_change, decode_directory, decode_key_row,
    decode_name, decode_revision_row, key_prefix, name_prefix, revision_row,
};
use crate::store::{Shared, Store};
use crate::types::Revision;

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

/// Goes on with the pass in progress, or begins the next one, for at most one batch.
///
/// The error type is LMDB's; a row that cannot be read closes the store and ends the step.
pub(crate) fn step(
    shared: &Shared,
    wtxn: &mut RwTxn<'_>,
    mut pass: CompactionPass,
    durable_compacted: Revision,
) -> Result<CompactionPass, heed::Error> {
    if pass.target == Revision::NONE {
        if pass.done >= durable_compacted {
            return Ok(pass);
        }
        pass.target = durable_compacted;
        pass.next = pass.done;
    }
    let mut step = Step { shared, wtxn, target: pass.target };
    let mut left = shared.options.compaction_batch.max(1);
    // Whole revisions only, so that `next` is a main revision.
    while left > 0 {
        let Some(main) = step.next_revision(pass.next)? else {
            return Ok(CompactionPass {
                done: pass.target,
                target: Revision::NONE,
                next: Revision::NONE,
            });
        };
        left = left.saturating_sub(step.visit(main)?);
        pass.next = main.next();
    }
    Ok(pass)
}

/// Key and value of a row, kept while the tree is written.
type OwnedRow = (Vec<u8>, Vec<u8>);

struct Step<'s, 'w, 'e> {
    shared: &'s Shared,
    wtxn: &'w mut RwTxn<'e>,
    target: Revision,
}

impl Step<'_, '_, '_> {
    /// The first revision with changes at or above `from` and not above the target.
    fn next_revision(&mut self, from: Revision) -> Result<Option<Revision>, heed::Error> {
        let rows = self.shared.environment.rows(Tree::Revisions);
        let found = rows.get_greater_than_or_equal_to(self.wtxn, &revision_row(from, 0))?;
        let Some((row, _)) = found else { return Ok(None) };
        let (main, _) = decode_revision_row(row).map_err(|e| self.corrupt(&e))?;
        Ok(Some(main).filter(|&main| main <= self.target))
    }

    /// Removes what the changes of one revision superseded; returns how many changes it had.
    fn visit(&mut self, main: Revision) -> Result<usize, heed::Error> {
        let rows = self.shared.environment.rows(Tree::Revisions);
        let bounds = (revision_row(main, 0).to_vec(), revision_row(main.next(), 0).to_vec());
        let bounds = (Bound::Included(&bounds.0[..]), Bound::Excluded(&bounds.1[..]));
        let mut changes = Vec::new();
        for found in rows.range(self.wtxn, &bounds)? {
            let (row, value) = found?;
            let (is_delete, key) = decode_change(row, value).map_err(|e| self.corrupt(&e))?;
            changes.push((is_delete, key.to_vec()));
        }
        for (is_delete, key) in &changes {
            let removes_itself = *is_delete && main < self.target;
            self.remove_older(Tree::Keys, &key_prefix(key), main, removes_itself)?;
            self.climb(main, key, *is_delete)?;
        }
        if main < self.target {
            rows.delete_range(self.wtxn, &bounds)?;
            self.shared.environment.rows(Tree::Times).delete(self.wtxn, &main.0.to_be_bytes())?;
        }
        Ok(changes.len())
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
        let found = self.shared.environment.rows(Tree::Keys).get(self.wtxn, &row)?;
        let Some(value) = found else { return Ok(false) };
        let read = decode_key_row(&row, Bytes::new(), main, value, Want::Header);
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
        let found = self.shared.environment.rows(tree).get(self.wtxn, &row)?;
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
        let rows = self.shared.environment.rows(tree);
        rows.delete_range(self.wtxn, &(start, Bound::Excluded(&end[..])))?;
        Ok(())
    }

    /// Closes the store; the error ends the commit, whose own report comes second and is dropped.
    fn corrupt(&self, error: &crate::schema::RowError) -> heed::Error {
        drop(self.shared.fault.row(self.shared.environment.path(), error));
        heed::Error::Mdb(heed::MdbError::Corrupted)
    }
}

fn at(prefix: &[u8], main: Revision) -> Vec<u8> {
    let mut row = prefix.to_vec();
    row.extend_from_slice(&(!main.0).to_be_bytes());
    row
}
