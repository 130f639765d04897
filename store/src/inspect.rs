//! What is in a store that no process has open, and whether all of it agrees.
//!
//! The trees say many things twice: a version stands in *keys*, its change in *revisions*, its time in
//! *times*; a key's birth and death in *names*, their number in *directories*; its lease in
//! *attachments*; what an upload holds, in a row of its own before its parts. [`Inspector::check`] compares each with each. It reads the trees as they lie in
//! LMDB, so that a damaged row is reported and passed over instead of ending the work.
//!
//! Rows below the compacted revision may be there or not, as far as the physical compaction has come:
//! nothing is asked of them but that each can be read.

mod auth;
mod directories;
mod invariants;
mod uploads;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use bytes::Bytes;

use crate::backup::{OnProgress, Progress};
use crate::check::check_file;
use crate::env::{Environment, Snapshot};
use crate::error::OpenError;
use crate::options::StoreOptions;
use crate::schema::{
    FORMAT_VERSION, RowError, StateRow, Tree, Want, decode_key_row, key_of_prefix, split_descending,
};
use crate::store::{Position, Size};
use crate::types::{Revision, Time};

/// Prefixes of keys that are told apart; the rest is counted together.
const PREFIXES_MAX: usize = 10_000;

/// Progress is told after so many rows.
const ROWS_PER_PROGRESS: u64 = 10_000;

/// A row and its value.
type Found<'i> = (&'i [u8], &'i [u8]);

type EachRow<'e> = &'e mut dyn FnMut(&[u8], &[u8]) -> Result<(), RowError>;

/// Something that does not agree with the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub tree: Tree,
    pub row: Vec<u8>,
    pub reason: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tree, row, reason } = self;
        write!(f, "tree {}, row \"{}\": {reason}", tree.name(), row.escape_ascii())
    }
}

/// A tree of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeFacts {
    pub tree: Tree,
    pub rows: u64,
    /// Bytes of its pages.
    pub bytes: u64,
}

/// Living keys that begin alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefixFacts {
    pub keys: u64,
    pub value_bytes: u64,
}

/// What is in a store.
#[derive(Clone, Debug)]
pub struct Facts {
    pub format_version: u32,
    pub revision: Revision,
    /// Commit time of `revision`.
    pub time: Time,
    /// `None` before the first compaction.
    pub compacted: Option<Revision>,
    /// Up to here the space of what was compacted is free.
    pub compacted_physically: Revision,
    pub position: Position,
    pub size: Size,
    pub trees: Vec<TreeFacts>,
    /// Stored versions, deletions included.
    pub versions: u64,
    pub living: PrefixFacts,
    /// By the key's first directories, at most `depth` of them.
    pub prefixes: BTreeMap<Bytes, PrefixFacts>,
    /// Keys below further prefixes, if there are too many.
    pub other_prefixes: PrefixFacts,
}

/// See the module.
pub struct Inspector {
    environment: Environment,
    snapshot: Snapshot,
    state: StateRow,
}

impl Inspector {
    /// Opens a data file that no process writes, or a backup. With `whole` every page is looked at
    /// first, without LMDB.
    ///
    /// # Errors
    /// A file that LMDB must not see: its place and what is wrong with it.
    pub fn open(path: &Path, options: &StoreOptions, whole: bool) -> Result<Self, OpenError> {
        if whole {
            check_file(path, usize::MAX)?;
        }
        let (environment, state) = Environment::open_read_only(path, options)?;
        let snapshot = environment.snapshot().map_err(|error| lmdb(path, &error))?;
        Ok(Self { environment, snapshot, state })
    }

    /// Counts what is in the store; keys are told apart by their first `depth` directories.
    ///
    /// # Errors
    /// A damaged row, or a break of `progress`.
    pub fn facts(&self, depth: usize, progress: OnProgress<'_>) -> Result<Facts, OpenError> {
        let mut trees = Vec::new();
        for tree in Tree::ALL {
            let stat = self.environment.rows(tree).stat(&self.snapshot);
            let stat = stat.map_err(|error| self.lmdb(&error))?;
            let pages = stat.branch_pages + stat.leaf_pages + stat.overflow_pages;
            let bytes = u64::try_from(pages).unwrap_or(u64::MAX) * u64::from(stat.page_size);
            let rows = u64::try_from(stat.entries).unwrap_or(u64::MAX);
            trees.push(TreeFacts { tree, rows, bytes });
        }
        let position = self.state.applied.clone().unwrap_or_default();
        let position = Position { index: position.0, term: position.1, raft: position.2 };
        let mut facts = Facts {
            format_version: FORMAT_VERSION,
            revision: self.state.current,
            time: self.state.time,
            compacted: self.state.compacted,
            compacted_physically: self.state.pass.done,
            position,
            size: self.environment.size().map_err(|error| self.lmdb(&error))?,
            trees,
            versions: 0,
            living: PrefixFacts::default(),
            prefixes: BTreeMap::new(),
            other_prefixes: PrefixFacts::default(),
        };
        self.count_keys(&mut facts, depth, progress)?;
        Ok(facts)
    }

    fn count_keys(
        &self,
        facts: &mut Facts,
        depth: usize,
        progress: OnProgress<'_>,
    ) -> Result<(), OpenError> {
        let mut newest = Vec::new();
        self.each_row(Tree::Keys, progress, &mut |row, value| {
            facts.versions += 1;
            let (prefix, revision) = split_descending(Tree::Keys, row)?;
            if newest == prefix {
                return Ok(());
            }
            newest.clear();
            newest.extend_from_slice(prefix);
            let key = key_of_prefix(Tree::Keys, prefix)?;
            let version = decode_key_row(row, key.clone(), revision, value, Want::Header)?;
            if version.tombstone {
                return Ok(());
            }
            let group = key.slice(..group_bytes(&key, depth));
            let is_told_apart =
                facts.prefixes.len() < PREFIXES_MAX || facts.prefixes.contains_key(&group);
            let counted = if is_told_apart {
                facts.prefixes.entry(group).or_default()
            } else {
                &mut facts.other_prefixes
            };
            for counted in [counted, &mut facts.living] {
                counted.keys += 1;
                counted.value_bytes += version.kv.value_bytes;
            }
            Ok(())
        })?
        .map_err(|source| OpenError::CorruptRow { path: self.path().to_path_buf(), source })
    }

    /// Calls `each` for every row of a tree until it fails.
    fn each_row(
        &self,
        tree: Tree,
        progress: OnProgress<'_>,
        each: EachRow<'_>,
    ) -> Result<Result<(), RowError>, OpenError> {
        let rows = self.environment.rows(tree);
        let total = rows.len(&self.snapshot).map_err(|error| self.lmdb(&error))?;
        let mut done = 0;
        for found in rows.iter(&self.snapshot).map_err(|error| self.lmdb(&error))? {
            let (row, value) = found.map_err(|error| self.lmdb(&error))?;
            if let Err(error) = each(row, value) {
                return Ok(Err(error));
            }
            done += 1;
            let told = Progress { done_bytes: done, total_bytes: total };
            if done.is_multiple_of(ROWS_PER_PROGRESS) && progress(told).is_break() {
                let reason = "the inspection was given up".to_owned();
                return Err(OpenError::Lmdb { path: self.path().to_path_buf(), reason });
            }
        }
        Ok(Ok(()))
    }

    /// Compares everything with everything; `report` gets each violation. Returns how many there are.
    ///
    /// # Errors
    /// LMDB could not read the file, or a break of `progress`.
    pub fn check(
        &self,
        progress: OnProgress<'_>,
        report: &mut dyn FnMut(Violation),
    ) -> Result<u64, OpenError> {
        let mut found = 0;
        let mut count = |violation| {
            found += 1;
            report(violation);
        };
        let checks: [invariants::Check; 9] = [
            Self::check_state,
            Self::check_keys,
            Self::check_revisions,
            Self::check_times,
            Self::check_names,
            Self::check_directories,
            Self::check_others,
            Self::check_uploads,
            Self::check_auth,
        ];
        for check in checks {
            check(self, progress, &mut count)?;
        }
        Ok(found)
    }

    fn path(&self) -> &Path {
        self.environment.path()
    }

    fn lmdb(&self, error: &heed::Error) -> OpenError {
        lmdb(self.path(), error)
    }

    /// The row `key` of a tree.
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<&[u8]>, OpenError> {
        self.environment.rows(tree).get(&self.snapshot, key).map_err(|error| self.lmdb(&error))
    }

    /// The first row at or above `from` that begins with `prefix`.
    fn first<'i>(
        &'i self,
        tree: Tree,
        from: &[u8],
        prefix: &[u8],
    ) -> Result<Option<Found<'i>>, OpenError> {
        let rows = self.environment.rows(tree);
        let found = rows.get_greater_than_or_equal_to(&self.snapshot, from);
        let found = found.map_err(|error| self.lmdb(&error))?;
        Ok(found.filter(|(row, _)| row.starts_with(prefix)))
    }
}

fn lmdb(path: &Path, error: &heed::Error) -> OpenError {
    OpenError::Lmdb { path: path.to_path_buf(), reason: error.to_string() }
}

/// Length of the first `depth` directories of `key` below the root: `/app/` of `/app/a/b` for 1.
fn group_bytes(key: &[u8], depth: usize) -> usize {
    let slashes = key.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/');
    let end = slashes.map(|(at, _)| at + 1).take(depth).last();
    end.unwrap_or_else(|| key.iter().take(1).filter(|byte| **byte == b'/').count())
}

#[cfg(test)]
mod tests {
    use super::group_bytes;

    #[test]
    fn keys_are_grouped_by_their_first_directories() {
        for (key, depth, group) in [
            ("/app/a/b", 1, "/app/"),
            ("/app/a/b", 2, "/app/a/"),
            ("/app/a/b", 9, "/app/a/"),
            ("/color", 1, "/"),
            ("plain", 1, ""),
            ("a/b", 1, "a/"),
            ("", 1, ""),
        ] {
            assert_eq!(&key[..group_bytes(key.as_bytes(), depth)], group, "{key} {depth}");
        }
    }
}
