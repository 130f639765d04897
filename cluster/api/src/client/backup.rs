//! Backups over the network, ours and etcd's: the pieces of one stream, which is never resumed.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tonic::{Request, Streaming};

use super::{Client, Endpoint};
use crate::backup::{Backup, BackupPart};
use crate::keyspace::{Error, Result};
use crate::wire::etcdserverpb as pb;
use crate::wire::revfs::{BackupRequest, BackupResponse};

/// A node that says nothing for so long while it makes or sends a backup has given up: it speaks with
/// every MiB.
const SILENCE_MAX: Duration = Duration::from_secs(60);

pub(super) struct RemoteBackup {
    client: Client,
    endpoint: Endpoint,
    stream: Box<Streaming<BackupResponse>>,
}

impl RemoteBackup {
    pub(super) async fn open(client: &Client) -> Result<Self> {
        let opening = client.repeat_at(|at, _| async move {
            at.revfs().backup(Request::new(BackupRequest {})).await
        });
        let (endpoint, response) = opening.await?;
        let stream = Box::new(response.into_inner());
        Ok(Self { client: client.clone(), endpoint, stream })
    }
}

#[async_trait]
impl Backup for RemoteBackup {
    async fn next(&mut self) -> Result<Option<BackupPart>> {
        let part = tokio::time::timeout(SILENCE_MAX, self.stream.message())
            .await
            .map_err(|_| Error::Timeout(SILENCE_MAX))?
            .map_err(|status| self.client.read_error(&self.endpoint, &status))?;
        let to_part = |BackupResponse { chunk, done_bytes, total_bytes }| BackupPart {
            chunk,
            done_bytes,
            total_bytes,
        };
        Ok(part.map(to_part))
    }
}

/// What `etcdctl snapshot save` receives, on its way.
pub struct EtcdSnapshot {
    client: Client,
    endpoint: Endpoint,
    stream: Streaming<pb::SnapshotResponse>,
}

impl Client {
    /// Asks for etcd's own snapshot: its data file, and a digest behind it. The stream is never resumed.
    ///
    /// # Errors
    /// What a read meets.
    pub async fn etcd_snapshot(&self) -> Result<EtcdSnapshot> {
        let opening = self.repeat_at(|at, _| async move {
            at.maintenance().snapshot(Request::new(pb::SnapshotRequest {})).await
        });
        let (endpoint, response) = opening.await?;
        Ok(EtcdSnapshot { client: self.clone(), endpoint, stream: response.into_inner() })
    }
}

impl EtcdSnapshot {
    /// The next piece, and how many bytes are left behind it; `None` at the end.
    ///
    /// # Errors
    /// A stream that was cut, or is silent.
    pub async fn next(&mut self) -> Result<Option<(Bytes, u64)>> {
        let part = tokio::time::timeout(SILENCE_MAX, self.stream.message())
            .await
            .map_err(|_| Error::Timeout(SILENCE_MAX))?
            .map_err(|status| self.client.read_error(&self.endpoint, &status))?;
        Ok(part.map(|part| (part.blob, part.remaining_bytes)))
    }
}
