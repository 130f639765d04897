//! The invariants of names and directories.

use std::collections::BTreeMap;

use super::Inspector;
use super::invariants::{Report, after};
use crate::backup::OnProgress;
use crate::error::OpenError;
use crate::escape::unescape;
use crate::names::split_directory;
use crate::schema::{
    RowError, Tree, Want, decode_directory, decode_key_row, decode_name, key_of_prefix, key_prefix,
    name_prefix, split_descending,
};
use crate::types::Revision;

impl Inspector {
    pub(super) fn check_names(
        &self,
        progress: OnProgress<'_>,
        report: Report<'_>,
    ) -> Result<(), OpenError> {
        let mut done: Vec<u8> = Vec::new();
        self.walk(Tree::Names, progress, report, |judge, row, value| {
            let Some((prefix, revision)) = judge.read(split_descending(Tree::Names, row)) else {
                return Ok(());
            };
            let Some(appears) = judge.read(decode_name(row, value)) else { return Ok(()) };
            let Some((directory, name)) = judge.read(split_names(prefix)) else { return Ok(()) };
            let is_newest = done != prefix;
            done.clear();
            done.extend_from_slice(prefix);
            if revision < self.floor() && !is_newest {
                return Ok(());
            }
            // What the name stands for lives at that revision, if the name does. Of what is older than
            // the compacted revision only the state there is left.
            let at = revision.max(self.floor());
            let whole = [directory.as_slice(), name.as_slice()].concat();
            let own = key_prefix(&whole);
            let mut from = own.clone();
            from.extend_from_slice(&(!at.0).to_be_bytes());
            let lives = if name.ends_with(b"/") {
                let found = self.first(Tree::Directories, &from, &own)?;
                let count = found.map(|(row, value)| decode_directory(row, value));
                count.is_some_and(|read| judge.read(read).is_some_and(|state| state.names > 0))
            } else {
                let found = self.first(Tree::Keys, &from, &own)?;
                let version = found.map(|(row, value)| {
                    decode_key_row(row, whole.clone().into(), revision, value, Want::Header)
                });
                version.is_some_and(|read| judge.read(read).is_some_and(|row| !row.tombstone))
            };
            if lives != appears {
                let (says, is) = if appears { ("lives", "does not") } else { ("is gone", "lives") };
                let whole = whole.escape_ascii();
                judge.wrong(row, format!("it says that \"{whole}\" {says}, which {is}"));
            }
            // A directory that is empty at the compacted revision is forgotten with the first of the names
            // that vanished from it there; the others may be left for a later step.
            let may_be_forgotten = !appears && Some(revision) == self.state.compacted;
            if revision >= self.floor() && !may_be_forgotten {
                let mut directory_row = key_prefix(&directory);
                directory_row.extend_from_slice(&(!revision.0).to_be_bytes());
                if self.get(Tree::Directories, &directory_row)?.is_none() {
                    judge.wrong(row, format!("directories says nothing at revision {revision}"));
                }
            }
            Ok(())
        })
    }

    pub(super) fn check_directories(
        &self,
        progress: OnProgress<'_>,
        report: Report<'_>,
    ) -> Result<(), OpenError> {
        // The names of the directory that the walk is in.
        let mut names = Names::default();
        self.walk(Tree::Directories, progress, report, |judge, row, value| {
            let Some((prefix, revision)) = judge.read(split_descending(Tree::Directories, row))
            else {
                return Ok(());
            };
            let Some(state) = judge.read(decode_directory(row, value)) else { return Ok(()) };
            let count = state.names;
            if state.changed > revision {
                judge.wrong(row, format!("its names changed later, at {}", state.changed));
            }
            let is_newest = names.prefix != prefix;
            if is_newest {
                names = self.names_of(prefix)?;
                if count != names.living {
                    let living = names.living;
                    judge.wrong(row, format!("it counts {count} names, {living} live"));
                }
                let directory = judge.read(key_of_prefix(Tree::Directories, prefix));
                if let Some(directory) = directory
                    && let Some((parent, own)) = split_directory(&directory)
                {
                    let own = name_prefix(parent, own);
                    let found = self.first(Tree::Names, &own, &own)?;
                    let state = found.map(|(row, value)| decode_name(row, value));
                    let is_named = state.is_some_and(|read| judge.read(read) == Some(true));
                    if is_named != (count > 0) {
                        judge.wrong(row, "the directory above it says the opposite");
                    }
                }
            }
            // At the compacted revision itself names that vanished are gone, and the row before it.
            if revision < self.floor() || Some(revision) == self.state.compacted {
                return Ok(());
            }
            let older = self.first(Tree::Directories, &after(row), prefix)?;
            let older = older.and_then(|(row, value)| judge.read(decode_directory(row, value)));
            let before = older.map_or(0, |older| i128::from(older.names));
            // One that was moved here may have had the same names before.
            let is_moved = state.changed < revision;
            let delta = names.deltas.get(&revision).copied().or(is_moved.then_some(0));
            match delta {
                None => judge.wrong(row, format!("no name changed at revision {revision}")),
                Some(delta) if before + delta != i128::from(count) => {
                    judge.wrong(
                        row,
                        format!("it counts {count} names after {before} and {delta:+}"),
                    );
                }
                Some(_) => {}
            }
            Ok(())
        })
    }

    fn names_of(&self, directory: &[u8]) -> Result<Names, OpenError> {
        let mut names = Names { prefix: directory.to_vec(), ..Names::default() };
        let mut done: Vec<u8> = Vec::new();
        let rows = self.environment.rows(Tree::Names);
        let found = rows.prefix_iter(&self.snapshot, directory);
        for found in found.map_err(|error| self.lmdb(&error))? {
            let (row, value) = found.map_err(|error| self.lmdb(&error))?;
            // A row that cannot be read is reported by the walk over the names.
            let Ok((prefix, revision)) = split_descending(Tree::Names, row) else { continue };
            let Ok(appears) = decode_name(row, value) else { continue };
            *names.deltas.entry(revision).or_default() += if appears { 1 } else { -1 };
            if done != prefix {
                done.clear();
                done.extend_from_slice(prefix);
                names.living += u64::from(appears);
            }
        }
        Ok(names)
    }
}

/// What *names* says of one directory.
#[derive(Default)]
struct Names {
    /// The directory's, in rows of *directories* and *names* alike.
    prefix: Vec<u8>,
    living: u64,
    deltas: BTreeMap<Revision, i128>,
}

fn split_names(prefix: &[u8]) -> Result<(Vec<u8>, Vec<u8>), RowError> {
    let failed = |source| RowError { tree: Tree::Names, row: prefix.to_vec(), source };
    let (directory, rest) = unescape(prefix).map_err(failed)?;
    let (name, _) = unescape(rest).map_err(failed)?;
    Ok((directory, name))
}
