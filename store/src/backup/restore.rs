//! Restoring: a backup becomes a store of its own.
//!
//! The copy is checked while it is written, each row of it afterwards, and it gets its name only when
//! it is whole and durable. The caller says where the new store stands in *its* log.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::trailer::read_whole;
use super::{BackupSummary, OnProgress, VerifyError};
use crate::check::check_file;
use crate::env::{DATA_FILE, Environment, sync_folder};
use crate::error::OpenError;
use crate::options::StoreOptions;
use crate::schema::{Skip, StateRow};
use crate::store::Position;
use crate::types::Revision;

/// Why a backup was not restored. The directory holds no store then.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Backup(#[from] VerifyError),
    #[error("restoring into {path}: {source}", path = .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error("the backup's place in the log cannot be continued: {reason}")]
    Position { reason: String },
    #[error("revision {current} cannot be raised by {bump}: the last one is {REVISION_MAX}")]
    Bump { current: Revision, bump: u64 },
}

/// Clients count revisions in 63 bits.
const REVISION_MAX: u64 = i64::MAX.unsigned_abs();

/// At which revision a restored store goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bump {
    /// So many above that of the backup. Those between were never made here: whoever asks for one, or
    /// goes on behind one, is answered as if it were compacted.
    pub revisions: u64,
    /// Everything before that revision is compacted.
    pub mark_compacted: bool,
}

impl Bump {
    /// The current revision of the restored store.
    ///
    /// # Errors
    /// One beyond what clients count.
    pub fn above(self, current: Revision) -> Result<Revision, RestoreError> {
        let bump = self.revisions;
        let raised = current.0.checked_add(bump).filter(|&raised| raised <= REVISION_MAX);
        raised.map(Revision).ok_or(RestoreError::Bump { current, bump })
    }

    fn apply(self, state: &mut StateRow) -> Result<(), RestoreError> {
        if self.revisions > 0 {
            let after = state.current;
            state.current = self.above(after)?;
            state.skips.push(Skip { after, until: state.current });
        }
        if self.mark_compacted {
            state.compacted = Some(state.current);
        }
        Ok(())
    }
}

/// Makes `dir` a store with what the backup `from` holds. `position` turns the backup's position into
/// the one of the new store's log, and `bump` says at which revision it goes on.
///
/// # Errors
/// A backup that is not whole, a directory that holds a store, an I/O error.
pub fn restore_backup(
    from: &Path,
    dir: &Path,
    options: &StoreOptions,
    bump: Bump,
    position: impl FnOnce(&Position) -> Result<Bytes, String>,
    progress: OnProgress<'_>,
) -> Result<BackupSummary, RestoreError> {
    let path = dir.join(DATA_FILE);
    let io = |source| RestoreError::Io { path: path.clone(), source };
    if path.try_exists().map_err(io)? {
        return Err(OpenError::Exists { path }.into());
    }
    let backup =
        File::open(from).map_err(|source| VerifyError::Io { path: from.to_path_buf(), source })?;
    std::fs::create_dir_all(dir).map_err(io)?;
    let temporary = dir.join(format!("{DATA_FILE}.tmp"));
    let mut file = File::create(&temporary).map_err(io)?;
    // A full disk is about the directory, not about the backup that is read.
    let mut failed = None;
    let read = read_whole(&backup, from, progress, &mut |chunk| {
        file.write_all(chunk).map_err(|error| {
            let copy = io::Error::new(error.kind(), error.to_string());
            failed = Some(error);
            copy
        })
    });
    if let Some(error) = failed {
        return Err(io(error));
    }
    let summary = read?;
    file.sync_all().map_err(io)?;
    drop(file);
    check_file(&temporary, usize::MAX)?;
    let raft = position(&summary.position).map_err(|reason| RestoreError::Position { reason })?;
    std::fs::rename(&temporary, &path).map_err(io)?;
    for folder in [Some(dir), dir.parent()].into_iter().flatten() {
        sync_folder(folder)?;
    }
    let (environment, mut state) = Environment::open(dir, options)?;
    if let Some((_, _, old)) = &mut state.applied {
        *old = raft;
    }
    bump.apply(&mut state)?;
    environment.write_restored(&state)?;
    Ok(summary)
}
