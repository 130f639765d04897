//! A backup as etcd streams a snapshot. The bytes are a backup of revfs (docs/FORMAT.md), which
//! ends with digests of its own; no other trailer follows.

use std::pin::Pin;

use revfs_api::backup::{Backup, BackupPart};
use revfs_api::wire::etcdserverpb as pb;
use tonic::Status;

use super::super::member::fail;
use super::storage_version;

pub(super) type Parts =
    Pin<Box<dyn futures_util::Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

/// Pulled: a slow reader waits alone.
pub(super) fn parts(backup: Box<dyn Backup>, header: pb::ResponseHeader) -> Parts {
    Box::pin(futures_util::stream::unfold(Some(backup), move |backup| async move {
        let mut backup = backup?;
        loop {
            match backup.next().await {
                Ok(None) => return None,
                // The file is still being made: there is nothing to send.
                Ok(Some(BackupPart { chunk, .. })) if chunk.is_empty() => {}
                Ok(Some(BackupPart { chunk, done_bytes, total_bytes })) => {
                    let part = pb::SnapshotResponse {
                        header: Some(header),
                        remaining_bytes: total_bytes.saturating_sub(done_bytes),
                        blob: chunk,
                        version: storage_version().to_owned(),
                    };
                    return Some((Ok(part), Some(backup)));
                }
                Err(error) => return Some((Err(fail(error)), None)),
            }
        }
    }))
}
