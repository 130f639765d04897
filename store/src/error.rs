//! Why the store could not answer: opening, running and reading each have their own error.
//!
//! A deterministic refusal of a command is not an error but an [`Outcome`](crate::Outcome): every
//! member refuses it alike and the entry is applied. An error of this file concerns one machine.

use std::path::PathBuf;
use std::sync::Arc;

use crate::command::Refusal;
use crate::schema::RowError;
use crate::types::Revision;

/// Why a store's directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("store {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("store {path} exists already: open it, or name another directory")]
    Exists { path: PathBuf },
    #[error("store {path} does not exist: create it first")]
    Missing { path: PathBuf },
    #[error(
        "store {path} has format version {found}, this program reads version {expected}: \
         use the program that wrote it, or restore a backup into a new directory"
    )]
    FormatVersion { path: PathBuf, found: u32, expected: u32 },
    #[error("store {path} was not written by this program: {reason}")]
    Foreign { path: PathBuf, reason: String },
    #[error(
        "store {path} is corrupt at byte {offset}: {reason}; \
         replace this member or restore a backup"
    )]
    CorruptPage { path: PathBuf, offset: u64, reason: String },
    #[error("store {path} is corrupt: {source}; replace this member or restore a backup")]
    CorruptRow { path: PathBuf, source: RowError },
    #[error("store {path} is open in this process already")]
    AlreadyOpen { path: PathBuf },
    #[error("store {path}: {reason}")]
    Lmdb { path: PathBuf, reason: String },
    #[error("store {path}: the committer thread could not start: {source}")]
    Thread { path: PathBuf, source: std::io::Error },
}

/// Why a running store could not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// An I/O failure or corruption closed the store until it is opened again.
    #[error("the store is closed: {reason}")]
    Closed { reason: Arc<str> },
    /// The commit did not reach the disk; the changes are kept and the commit is retried.
    #[error("no space for the commit: {reason}; free space on the disk of the data directory")]
    NoSpace { reason: Arc<str> },
    /// The commit waits for the log; the changes are kept.
    #[error("the commit waits for the log: {reason}; is the disk of the log full or slow?")]
    LogLate { reason: Arc<str> },
    #[error("log entry {found} applied out of order: the next one is {expected}")]
    OutOfOrder { expected: u64, found: u64 },
    #[error("reader slots are used up: {reason}; end long reads first")]
    ReadersFull { reason: Arc<str> },
}

/// Why a read has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("revision {requested} is compacted: history begins at {compacted}")]
    Compacted { requested: Revision, compacted: Revision },
    #[error("revision {requested} is in the future: the current one is {current}")]
    Future { requested: Revision, current: Revision },
    /// For want of permission.
    #[error(transparent)]
    Refused(Refusal),
    #[error(transparent)]
    Store(#[from] StoreError),
}
