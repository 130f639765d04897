//! Backups: a consistent copy of a store in one file, made while writing goes on.
//!
//! ```text
//! LMDB file, compacted, as LMDB wrote it │ trailer: position, revision, checksums │ foot, 16 bytes
//! ```
//!
//! The copy is LMDB's own of one read transaction, so that it holds whole log entries only; everything
//! applied before it began is committed first. Because the LMDB file stands at the beginning, a store
//! can be opened read-only on the backup itself ([`Store::open_read_only`]). The trailer
//! (`backup/trailer.rs`) says where the copy stands in the log, as read from the copy itself, and has
//! the checksums of everything before it: one of each MiB, to name the place of damage, and a SHA-256.

mod adopt;
mod restore;
mod trailer;

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::check::read_state_row;
use crate::env::Environment;
use crate::error::{OpenError, StoreError};
use crate::options::StoreOptions;
use crate::schema::FORMAT_VERSION;
use crate::store::{Position, Store};
use crate::types::{Revision, Time};

pub use adopt::adopt_backup;
pub use restore::{Bump, RestoreError, restore_backup};
pub use trailer::BACKUP_VERSION;
use trailer::CHUNK_BYTES;
pub(crate) use trailer::Trailer;

/// How a backup treats the machine that it runs on.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// Pause after each MiB, so that the disk has time for the log.
    pub pause: Duration,
    /// What was written is flushed after so many MiB, so that no flush of the log waits for much.
    pub flush_chunks: usize,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self { pause: Duration::from_millis(2), flush_chunks: 8 }
    }
}

/// How far a backup, a verification or a restore has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub done_bytes: u64,
    /// Estimated while a copy is made.
    pub total_bytes: u64,
}

/// Called after each MiB; a break ends the work with an error.
pub type OnProgress<'p> = &'p mut dyn FnMut(Progress) -> ControlFlow<()>;

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSummary {
    pub store_format: u32,
    /// The last log entry whose changes are in it.
    pub position: Position,
    pub revision: Revision,
    /// `None` before the first compaction.
    pub compacted: Option<Revision>,
    /// Commit time of `revision`.
    pub time: Time,
    /// Of the LMDB file at the beginning.
    pub content_bytes: u64,
    /// Of the whole file.
    pub file_bytes: u64,
    pub sha256: [u8; 32],
}

/// Why a backup was not made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the copy could not be made: {reason}")]
    Copy { reason: String },
    #[error("the copy could not be written: {0}; is there room for it?")]
    Write(#[source] io::Error),
    #[error("the copy was given up")]
    GivenUp,
}

/// Why a file is no whole backup.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("backup {path}: {source}", path = .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "backup {path} is no whole backup: {reason} at byte {offset}; was it cut short?",
        path = .path.display()
    )]
    Incomplete { path: PathBuf, offset: u64, reason: String },
    #[error(
        "backup {path} is damaged between byte {from} and byte {to}: {reason}; use another backup",
        path = .path.display()
    )]
    Damaged { path: PathBuf, from: u64, to: u64, reason: String },
    #[error(
        "backup {path} has backup format {found}, this program reads {known}: use the release that \
         wrote it",
        path = .path.display()
    )]
    Version { path: PathBuf, found: u32, known: u32 },
    #[error("reading backup {path} was given up", path = .path.display())]
    GivenUp { path: PathBuf },
}

impl Store {
    /// Writes a backup to `file`, from its beginning: everything applied before the call, and no log
    /// entry in part. Apply and reads go on meanwhile.
    ///
    /// # Errors
    /// A store that cannot commit, a file that cannot be written, a break of `progress`. What the
    /// file holds then is no backup.
    pub fn backup(
        &self,
        file: &mut File,
        options: &BackupOptions,
        progress: OnProgress<'_>,
    ) -> Result<BackupSummary, BackupError> {
        self.commit()?;
        let total_bytes = self.size()?.in_use_bytes;
        let mut copy = Copying {
            file,
            hash: Sha256::new(),
            chunks: Vec::new(),
            done_bytes: 0,
            total_bytes,
            options,
            progress,
        };
        copy.file.rewind().and_then(|()| copy.file.set_len(0)).map_err(BackupError::Write)?;
        copy.run(&self.shared().environment())?;
        copy.finish()
    }

    /// Opens a backup, or the data file of a store that no process has open, for reading only. The
    /// file is not changed; it must not be changed by others meanwhile.
    ///
    /// Like [`Store::open`], it looks at a bounded part of the file; every row is checked when it is
    /// read. [`verify_backup`] looks at all of it.
    ///
    /// # Errors
    /// As [`Store::open`]; a backup that is cut short.
    pub fn open_read_only(path: &Path, options: StoreOptions) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(io)?;
        if let Some(trailer) = Trailer::find(&file, path)? {
            trailer.check_version(path)?;
        }
        let (environment, state) = Environment::open_read_only(path, &options)?;
        Self::of_file(environment, options, state)
    }
}

/// A copy on its way into a file.
struct Copying<'c> {
    file: &'c mut File,
    hash: Sha256,
    chunks: Vec<u32>,
    done_bytes: u64,
    total_bytes: u64,
    options: &'c BackupOptions,
    progress: OnProgress<'c>,
}

impl Copying<'_> {
    /// LMDB writes into a pipe, so that it goes no faster than we read.
    fn run(&mut self, environment: &Environment) -> Result<(), BackupError> {
        let (reader, writer) = io::pipe().map_err(BackupError::Write)?;
        std::thread::scope(|scope| {
            let copier = std::thread::Builder::new()
                .name("store-backup".to_owned())
                .spawn_scoped(scope, move || environment.copy_compacted(writer))
                .map_err(BackupError::Write)?;
            let written = self.write_all(reader);
            let copied = copier.join().map_err(|_| BackupError::Copy {
                reason: "the copying thread panicked".to_owned(),
            })?;
            // When writing failed the pipe was closed, and the copy failed because of that.
            written?;
            copied.map_err(|error| BackupError::Copy { reason: error.to_string() })
        })
    }

    fn write_all(&mut self, mut reader: impl Read) -> Result<(), BackupError> {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        loop {
            chunk.clear();
            let bound = u64::try_from(CHUNK_BYTES).expect("a MiB");
            reader.by_ref().take(bound).read_to_end(&mut chunk).map_err(BackupError::Write)?;
            if chunk.is_empty() {
                return Ok(());
            }
            self.write(&chunk)?;
            let progress = Progress {
                done_bytes: self.done_bytes,
                total_bytes: self.total_bytes.max(self.done_bytes),
            };
            if (self.progress)(progress).is_break() {
                return Err(BackupError::GivenUp);
            }
            if self.chunks.len().is_multiple_of(self.options.flush_chunks.max(1)) {
                self.file.sync_data().map_err(BackupError::Write)?;
            }
            std::thread::sleep(self.options.pause);
        }
    }

    fn write(&mut self, chunk: &[u8]) -> Result<(), BackupError> {
        self.hash.update(chunk);
        self.chunks.push(crc32c::crc32c(chunk));
        self.file.write_all(chunk).map_err(BackupError::Write)?;
        self.done_bytes += u64::try_from(chunk.len()).expect("a chunk is a MiB");
        Ok(())
    }

    fn finish(self) -> Result<BackupSummary, BackupError> {
        let state = read_state_row(self.file)
            .map_err(|error| BackupError::Copy { reason: error.to_string() })?;
        let (index, term, raft) = state.applied.unwrap_or_default();
        let mut trailer = Trailer {
            version: BACKUP_VERSION,
            store_format: FORMAT_VERSION,
            content_bytes: self.done_bytes,
            position: Position { index, term, raft },
            revision: state.current,
            compacted: state.compacted,
            time: state.time,
            chunks: self.chunks,
            sha256: [0; 32],
        };
        let encoded = trailer.seal(self.hash);
        self.file.write_all(&encoded).map_err(BackupError::Write)?;
        self.file.sync_all().map_err(BackupError::Write)?;
        Ok(trailer.summary())
    }
}

/// Reads a whole backup and compares every checksum; returns what it says of itself.
///
/// # Errors
/// The first place that is damaged or missing.
pub fn verify_backup(path: &Path, progress: OnProgress<'_>) -> Result<BackupSummary, VerifyError> {
    let file =
        File::open(path).map_err(|source| VerifyError::Io { path: path.to_path_buf(), source })?;
    trailer::read_whole(&file, path, progress, &mut |_| Ok(()))
}

/// What a backup says of itself, without reading the copy.
///
/// # Errors
/// A file that does not end as a backup does.
pub fn backup_summary(path: &Path) -> Result<BackupSummary, VerifyError> {
    let file =
        File::open(path).map_err(|source| VerifyError::Io { path: path.to_path_buf(), source })?;
    Ok(trailer::require(&file, path)?.summary())
}
