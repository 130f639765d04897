//! A backup over the network: the pieces of one stream, which is never resumed.

use std::time::Duration;

use async_trait::async_trait;
use tonic::{Request, Streaming};

use super::Caller;
use crate::backup::{Backup, BackupPart};
use crate::keyspace::{Error, Result};
use crate::wire::revfs::{BackupRequest, BackupResponse};

/// A node that says nothing for so long while it makes or sends a backup has given up: it speaks with
/// every MiB.
const SILENCE_MAX: Duration = Duration::from_secs(60);

pub(super) struct RemoteBackup {
    caller: Caller,
    stream: Box<Streaming<BackupResponse>>,
}

impl RemoteBackup {
    pub(super) async fn open(caller: &Caller) -> Result<Self> {
        let mut client = caller.client.clone();
        let opening = client.backup(Request::new(BackupRequest {}));
        let response = tokio::time::timeout(SILENCE_MAX, opening)
            .await
            .map_err(|_| Error::Timeout(SILENCE_MAX))?
            .map_err(|status| caller.read_error(&status))?;
        Ok(Self { caller: caller.clone(), stream: Box::new(response.into_inner()) })
    }
}

#[async_trait]
impl Backup for RemoteBackup {
    async fn next(&mut self) -> Result<Option<BackupPart>> {
        let part = tokio::time::timeout(SILENCE_MAX, self.stream.message())
            .await
            .map_err(|_| Error::Timeout(SILENCE_MAX))?
            .map_err(|status| self.caller.read_error(&status))?;
        let to_part = |BackupResponse { chunk, done_bytes, total_bytes }| BackupPart {
            chunk,
            done_bytes,
            total_bytes,
        };
        Ok(part.map(to_part))
    }
}
