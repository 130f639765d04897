//! Why the log cannot be opened, or cannot go on.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::LogId;

#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    #[error("{operation} {path}: {source}", path = .path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: Arc<io::Error>,
    },
    /// Bytes that were acknowledged are not what was written.
    #[error(
        "the log is damaged: {file} at offset {offset}: {reason}; \
         replace this member, or restore this data directory from a backup",
        file = .file.display()
    )]
    Corrupt { file: PathBuf, offset: u64, reason: String },
    /// The log lacks what the store already holds.
    #[error(
        "the log is damaged: {file} at offset {offset}: the log ends at {end}, \
         but the store has committed {wanted}; replace this member, or restore this data directory from a backup",
        file = .file.display(),
        end = .end.map_or_else(|| "nothing".to_owned(), |id| id.to_string())
    )]
    TooShort { file: PathBuf, offset: u64, end: Option<LogId>, wanted: LogId },
    #[error(
        "{file} has log format {found}; this program reads and writes format {known}: \
         use the release that wrote it",
        file = .file.display()
    )]
    Format { file: PathBuf, found: u32, known: u32 },
    #[error("no log segment in {directory}: the log is missing", directory = .directory.display())]
    Missing { directory: PathBuf },
    #[error("{directory} already holds a log", directory = .directory.display())]
    Exists { directory: PathBuf },
    /// An earlier write or flush failed: what reached the disk is unknown until the log is opened
    /// again.
    #[error("the log is closed: {reason}")]
    Failed { reason: Arc<str> },
    #[error("the log was shut down")]
    ShutDown,
    /// Entries must follow each other.
    #[error("entry {found} cannot follow {last}", last = .last.map_or_else(|| "nothing".to_owned(), |id| id.to_string()))]
    Gap { last: Option<LogId>, found: LogId },
}

impl LogError {
    pub(super) fn io(operation: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { operation, path: path.into(), source: Arc::new(source) }
    }

    /// Whether the disk is full, so that trying again later may succeed.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_no_space(source),
            Self::Corrupt { .. }
            | Self::TooShort { .. }
            | Self::Format { .. }
            | Self::Missing { .. }
            | Self::Exists { .. }
            | Self::Failed { .. }
            | Self::ShutDown
            | Self::Gap { .. } => false,
        }
    }
}

impl From<LogError> for io::Error {
    fn from(error: LogError) -> Self {
        let kind = match &error {
            LogError::Io { source, .. } => source.kind(),
            LogError::Corrupt { .. } | LogError::TooShort { .. } | LogError::Format { .. } => {
                io::ErrorKind::InvalidData
            }
            LogError::Missing { .. } => io::ErrorKind::NotFound,
            LogError::Exists { .. } => io::ErrorKind::AlreadyExists,
            LogError::Failed { .. } | LogError::ShutDown => io::ErrorKind::BrokenPipe,
            LogError::Gap { .. } => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}

/// ENOSPC, EDQUOT, and EFBIG (a limit on the size of files): conditions that pass.
pub(super) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}
