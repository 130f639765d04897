//! A backup of a whole key space on its way: first the node makes its copy, then the file is sent.

use async_trait::async_trait;
use bytes::Bytes;

use crate::keyspace::Result;

/// One sign of life or piece of a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupPart {
    /// The next bytes of the file; empty while the node makes its copy.
    pub chunk: Bytes,
    /// Of the copy, or of the file with this chunk.
    pub done_bytes: u64,
    /// Estimated while the node makes its copy.
    pub total_bytes: u64,
}

impl BackupPart {
    #[must_use]
    pub fn is_copying(&self) -> bool {
        self.chunk.is_empty()
    }
}

/// A backup that is being made. Dropping it ends the work.
#[async_trait]
pub trait Backup: Send {
    /// The next part; `None` behind the last one. The file says of itself whether it is whole.
    ///
    /// # Errors
    /// The copy could not be made, or the node went away: what was received is no backup.
    async fn next(&mut self) -> Result<Option<BackupPart>>;
}
