//! Who holds or waits for locks, on all mounts of a cluster.

use bytes::Bytes;
use revfs_api::KeySpace;
use revfs_api::keyspace::{Answer, KeyRange, RangeRead, Read, Result, Revision};

use super::stored::Record;
use super::table::{Entry, Kind, LAST_BYTE};
use crate::path::{LOCK_PREFIX, parse_lock_key};

/// One lock, or one that is waited for.
#[derive(Clone, Debug)]
pub struct LockedBy {
    /// The file's key.
    pub key: Bytes,
    /// The machine of the process, and the mount that it uses.
    pub host: String,
    pub mount: String,
    /// On its machine; 0 if it is not known there.
    pub process: u32,
    pub kind: Kind,
    pub start: u64,
    /// Inclusive; `None` = to the end, however far the file grows.
    pub end: Option<u64>,
    pub waits: bool,
}

/// The locks of all files below a prefix, in the order of their keys; those that are held before those that
/// are waited for.
///
/// # Errors
/// As [`KeySpace::read`].
pub async fn list(keys: &dyn KeySpace, prefix: &[u8]) -> Result<Vec<LockedBy>> {
    let below = KeyRange::prefix(&[LOCK_PREFIX, prefix].concat());
    let read = keys.read(Revision::NONE, vec![Read::Range(RangeRead::new(below))]).await?;
    let mut all = Vec::new();
    for answer in &read.answers {
        let Answer::Range(range) = answer else { continue };
        for kv in &range.kvs {
            let Some((key, _)) = parse_lock_key(&kv.key) else { continue };
            let Ok(record) = serde_json::from_slice::<Record>(&kv.value) else { continue };
            all.extend(record.entries.iter().map(|entry| (entry.waits, of(&key, &record, entry))));
        }
    }
    all.sort_by(|(one_waits, one), (other_waits, other)| {
        (&one.key, one_waits, one.start).cmp(&(&other.key, other_waits, other.start))
    });
    Ok(all.into_iter().map(|(_, lock)| lock).collect())
}

fn of(key: &Bytes, record: &Record, entry: &Entry) -> LockedBy {
    LockedBy {
        key: key.clone(),
        host: record.host.clone(),
        mount: record.mount.clone(),
        process: entry.pid,
        kind: entry.kind,
        start: entry.start,
        end: (entry.end < LAST_BYTE).then_some(entry.end),
        waits: entry.waits.is_some(),
    }
}
