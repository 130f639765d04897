//! The invariants of versions, changes, times and attachments. Each is named after its tree: what a
//! row of that tree says must be what the other trees say of it.

use bytes::Bytes;

use super::{Inspector, Violation};
use crate::backup::OnProgress;
use crate::error::OpenError;
use crate::names::split_name;
use crate::schema::{
    KeyRow, RowError, Tree, Want, attachment_row, decode_attachment, decode_change, decode_key_row,
    decode_name, decode_revision_row, decode_stamp, key_of_prefix, key_prefix, key_row, lease_row,
    name_row, revision_row, split_descending,
};
use crate::types::{LeaseId, Revision, Time};
use crate::verify::verify_row;

pub(super) type Report<'r> = &'r mut dyn FnMut(Violation);

pub(super) type Check = fn(&Inspector, OnProgress<'_>, Report<'_>) -> Result<(), OpenError>;

/// Says what is wrong with one row.
pub(super) struct Judge<'j> {
    pub(super) tree: Tree,
    pub(super) report: Report<'j>,
}

impl Judge<'_> {
    pub(super) fn wrong(&mut self, row: &[u8], reason: impl Into<String>) {
        let reason = reason.into();
        (self.report)(Violation { tree: self.tree, row: row.to_vec(), reason });
    }

    /// What was read, or a violation of the row that does not say it.
    pub(super) fn read<T>(&mut self, read: Result<T, RowError>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(RowError { tree, row, source }) => {
                (self.report)(Violation { tree, row, reason: source.to_string() });
                None
            }
        }
    }
}

impl Inspector {
    /// Everything at or above this revision must be complete.
    pub(super) fn floor(&self) -> Revision {
        self.state.compacted.unwrap_or_default().max(Revision::FIRST.next())
    }

    /// Whether a restore went on at `revision`, which changed nothing.
    fn is_skipped_to(&self, revision: Revision) -> bool {
        self.state.skips.iter().any(|skip| skip.until == revision)
    }

    /// `next`, or the first revision that may have changes behind what restores left out.
    fn after_skips(&self, mut next: Revision) -> Revision {
        for skip in &self.state.skips {
            if skip.after < next && next <= skip.until {
                next = skip.until.next();
            }
        }
        next
    }

    /// Walks a tree; `judge` looks at each row, its errors are LMDB's.
    pub(super) fn walk(
        &self,
        tree: Tree,
        progress: OnProgress<'_>,
        report: Report<'_>,
        mut judge: impl FnMut(&mut Judge<'_>, &[u8], &[u8]) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        let mut failed = None;
        let walked = self.each_row(tree, progress, &mut |row, value| {
            let mut own = Judge { tree, report: &mut *report };
            if failed.is_none()
                && let Err(error) = judge(&mut own, row, value)
            {
                failed = Some(error);
            }
            Ok(())
        })?;
        match (failed, walked) {
            (Some(error), _) => Err(error),
            (None, Ok(())) => Ok(()),
            (None, Err(source)) => {
                Err(OpenError::CorruptRow { path: self.path().to_path_buf(), source })
            }
        }
    }

    pub(super) fn check_state(
        &self,
        _: OnProgress<'_>,
        report: Report<'_>,
    ) -> Result<(), OpenError> {
        let mut judge = Judge { tree: Tree::Meta, report };
        let row = crate::schema::ROW_STATE;
        let current = self.state.current;
        if self.state.compacted.is_some_and(|compacted| compacted > current) {
            judge.wrong(row, format!("it is compacted beyond its revision {current}"));
        }
        if current <= Revision::FIRST {
            return Ok(());
        }
        let main = current.0.to_be_bytes();
        match self.get(Tree::Times, &main)? {
            None => judge.wrong(row, format!("revision {current} has no time")),
            Some(value) => {
                let stamp = judge.read(decode_stamp(&main, value));
                if stamp.is_some_and(|stamp| stamp.time != self.state.time) {
                    judge.wrong(row, format!("its time is not the one of revision {current}"));
                }
            }
        }
        Ok(())
    }

    pub(super) fn check_keys(
        &self,
        progress: OnProgress<'_>,
        report: Report<'_>,
    ) -> Result<(), OpenError> {
        // The row before, which is the next newer version if it is of the same key.
        let mut newer: Option<(Vec<u8>, KeyRow)> = None;
        self.walk(Tree::Keys, progress, report, |judge, row, value| {
            let Some((prefix, revision)) = judge.read(split_descending(Tree::Keys, row)) else {
                return Ok(());
            };
            let Some(key) = judge.read(key_of_prefix(Tree::Keys, prefix)) else { return Ok(()) };
            let read = decode_key_row(row, key.clone(), revision, value, Want::Value);
            let Some(version) = judge.read(read) else { return Ok(()) };
            let same = newer.take().filter(|(newer, _)| newer.starts_with(prefix));
            match &same {
                Some((newer_row, newer)) => check_order(judge, newer_row, newer, &version),
                None => self.check_newest(judge, row, &version)?,
            }
            let next = self.first(Tree::Keys, &after(row), prefix)?;
            let older = next.and_then(|(row, value)| {
                let read = decode_key_row(row, key.clone(), revision, value, Want::Header);
                judge.read(read)
            });
            // A key that another was moved over begins a new life, and its name goes on.
            let is_named = older.is_some_and(|older| !older.tombstone) == version.tombstone;
            self.check_version(judge, row, &version, is_named)?;
            // Before the compacted revision itself nothing need be left.
            let is_cut = revision < self.floor() || Some(revision) == self.state.compacted;
            if next.is_none() && !is_cut && !is_birth(&version) {
                judge.wrong(row, "the version before it is missing");
            }
            newer = Some((row.to_vec(), version));
            Ok(())
        })
    }

    /// What a version says of its revision, and what its revision says of it.
    fn check_version(
        &self,
        judge: &mut Judge<'_>,
        row: &[u8],
        version: &KeyRow,
        is_named: bool,
    ) -> Result<(), OpenError> {
        let KeyRow { sub, tombstone, kv } = version;
        let main = kv.mod_revision;
        if main > self.state.current {
            judge.wrong(row, format!("it is above the current revision {}", self.state.current));
        }
        if kv.create_revision > main || kv.content_revision > main || kv.birth_revision > main {
            judge.wrong(row, "it was created, written or born after itself");
        }
        if !tombstone && kv.version == 0 {
            judge.wrong(row, "a living version has number 0");
        }
        let stamp_row = main.0.to_be_bytes();
        if let Some(value) = self.get(Tree::Times, &stamp_row)? {
            let stamp = judge.read(decode_stamp(&stamp_row, value));
            if stamp.is_some_and(|stamp| stamp.time != kv.time) {
                judge.wrong(row, format!("its time is not the one of revision {main}"));
            }
        }
        if main < self.floor() {
            return Ok(());
        }
        let change_row = revision_row(main, *sub);
        match self.get(Tree::Revisions, &change_row)? {
            None => judge.wrong(row, format!("revisions has no change {main}.{sub}")),
            Some(value) => {
                let change = judge.read(decode_change(&change_row, value));
                if change.is_some_and(|change| change != (*tombstone, &*kv.key)) {
                    judge.wrong(row, format!("change {main}.{sub} is of another key or kind"));
                }
            }
        }
        if is_named || *tombstone {
            let (directory, name) = split_name(&kv.key);
            let name_row = name_row(directory, name, main);
            let state = self.get(Tree::Names, &name_row)?;
            let state = state.map(|value| judge.read(decode_name(&name_row, value)));
            match state {
                Some(Some(appears)) if appears == *tombstone => {
                    judge.wrong(row, format!("names says the opposite at revision {main}"));
                }
                // What was deleted exactly at the compacted revision is known to *keys* alone, and what
                // was before it is gone.
                None if Some(main) == self.state.compacted => {}
                None => judge.wrong(row, format!("names says nothing at revision {main}")),
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// A key's newest version and its lease.
    fn check_newest(
        &self,
        judge: &mut Judge<'_>,
        row: &[u8],
        version: &KeyRow,
    ) -> Result<(), OpenError> {
        let KeyRow { kv, tombstone, .. } = version;
        if *tombstone || kv.lease == LeaseId::NONE {
            return Ok(());
        }
        if self.get(Tree::Leases, &lease_row(kv.lease))?.is_none() {
            judge.wrong(row, format!("its lease {} does not exist", kv.lease.0));
        }
        if self.get(Tree::Attachments, &attachment_row(kv.lease, &kv.key))?.is_none() {
            judge.wrong(row, format!("attachments does not know it under lease {}", kv.lease.0));
        }
        Ok(())
    }

    pub(super) fn check_revisions(
        &self,
        progress: OnProgress<'_>,
        report: Report<'_>,
    ) -> Result<(), OpenError> {
        let floor = self.floor();
        let mut expected = (floor, 0);
        let mut last = None;
        self.walk(Tree::Revisions, progress, &mut *report, |judge, row, value| {
            let Some((main, sub)) = judge.read(decode_revision_row(row)) else { return Ok(()) };
            let change = judge.read(decode_change(row, value));
            if main < floor {
                return Ok(());
            }
            let next = self.after_skips(expected.0.next());
            // Of the compacted revision itself only those changes need be left that still show.
            let is_cut = Some(main) == self.state.compacted;
            let follows = (main, sub) == expected || (sub == 0 && main == next) || is_cut;
            if !follows {
                let (main, sub) = expected;
                judge.wrong(row, format!("change {main}.{sub} or the next revision is missing"));
            }
            expected = (main, sub + 1);
            last = Some(main);
            let Some((is_delete, key)) = change else { return Ok(()) };
            let key_row = key_row(key, main);
            let Some(value) = self.get(Tree::Keys, &key_row)? else {
                judge.wrong(row, "keys has no such version");
                return Ok(());
            };
            let key = Bytes::copy_from_slice(key);
            let version = decode_key_row(&key_row, key, main, value, Want::Header);
            let version = judge.read(version);
            if version.is_some_and(|version| (version.tombstone, version.sub) != (is_delete, sub)) {
                judge.wrong(row, "keys has another change there");
            }
            if self.get(Tree::Times, &main.0.to_be_bytes())?.is_none() {
                judge.wrong(row, format!("revision {main} has no time"));
            }
            Ok(())
        })?;
        let current = self.state.current;
        let is_bare = Some(current) == self.state.compacted || self.is_skipped_to(current);
        if current >= floor && last != Some(current) && !is_bare {
            let mut judge = Judge { tree: Tree::Revisions, report };
            let row = revision_row(current, 0);
            judge.wrong(&row, format!("the changes of the current revision {current} are missing"));
        }
        Ok(())
    }

    pub(super) fn check_times(
        &self,
        progress: OnProgress<'_>,
        report: Report<'_>,
    ) -> Result<(), OpenError> {
        let mut before = Time(i64::MIN);
        self.walk(Tree::Times, progress, report, |judge, row, value| {
            let Some(stamp) = judge.read(decode_stamp(row, value)) else { return Ok(()) };
            if stamp.time < before {
                judge.wrong(row, "time runs back");
            }
            before = stamp.time;
            let main = stamp.revision;
            let is_bare = main < self.floor()
                || Some(main) == self.state.compacted
                || self.is_skipped_to(main);
            if !is_bare && self.get(Tree::Revisions, &revision_row(main, 0))?.is_none() {
                judge.wrong(row, format!("revision {main} has a time but no changes"));
            }
            Ok(())
        })
    }

    /// Leases, attachments, and the trees whose rows stand for themselves.
    pub(super) fn check_others(
        &self,
        progress: OnProgress<'_>,
        report: Report<'_>,
    ) -> Result<(), OpenError> {
        for tree in [Tree::Leases, Tree::Alarms, Tree::Members, Tree::Counters] {
            self.walk(tree, progress, report, |judge, row, value| {
                judge.read(verify_row(tree, row, value));
                Ok(())
            })?;
        }
        self.walk(Tree::Attachments, progress, report, |judge, row, value| {
            let Some(key) = judge.read(decode_attachment(row, value)) else { return Ok(()) };
            let lease = &row[..8];
            if self.get(Tree::Leases, lease)?.is_none() {
                judge.wrong(row, "its lease does not exist");
            }
            let prefix = key_prefix(&key);
            let newest = self.first(Tree::Keys, &prefix, &prefix)?;
            let version = newest.and_then(|(row, value)| {
                let (_, revision) = judge.read(split_descending(Tree::Keys, row))?;
                let version = decode_key_row(row, key.clone(), revision, value, Want::Header);
                judge.read(version)
            });
            let is_attached = version
                .is_some_and(|version| !version.tombstone && lease_row(version.kv.lease) == lease);
            if !is_attached {
                judge.wrong(row, "the key does not exist or has another lease");
            }
            Ok(())
        })
    }
}

/// The version is the first of its key's life.
fn is_birth(version: &KeyRow) -> bool {
    !version.tombstone && version.kv.version == 1
}

fn check_order(judge: &mut Judge<'_>, newer_row: &[u8], newer: &KeyRow, older: &KeyRow) {
    if newer.kv.time < older.kv.time {
        judge.wrong(newer_row, "its time is before that of the version before it");
    }
    let is_right = match (newer.tombstone, older.tombstone) {
        (true, true) => false,
        (true, false) => true,
        (false, true) => newer.kv.version == 1 && newer.kv.create_revision == newer.kv.mod_revision,
        (false, false) if is_birth(newer) => newer.kv.create_revision == newer.kv.mod_revision,
        (false, false) => {
            newer.kv.version == older.kv.version + 1
                && newer.kv.create_revision == older.kv.create_revision
        }
    };
    if !is_right {
        judge.wrong(newer_row, "it does not follow from the version before it");
    }
}

/// The least row above `row`.
pub(super) fn after(row: &[u8]) -> Vec<u8> {
    let mut after = row.to_vec();
    after.push(0);
    after
}
