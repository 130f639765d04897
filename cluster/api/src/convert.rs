//! The wire boundary of revfs.v1: its messages <-> the plain types of [`crate::keyspace`], both ways
//! and only here.
//!
//! Towards the wire nothing can fail. From the wire anything may come: what has no meaning is
//! [`Malformed`], never a panic and never a guess. Bounds that belong to the store (key length,
//! sizes, revisions) are checked by the store.

mod change;
mod range;
mod read;
mod txn;

pub use change::{
    history_answer, history_response, stamp_answer, stamp_response, watch_arguments, watch_request,
};
pub use read::{read_arguments, read_request};
pub use txn::{txn_answer, txn_arguments, txn_request, txn_response};

use crate::keyspace::{Capabilities, Error, KeyRange, KeyValue, LeaseId, Revision, Status, Time};
use crate::wire::revfs as wire;
use crate::wire::revfs::key_range::{Range as WireRange, Span};

/// Questions that one [`wire::ReadRequest`] may hold.
pub const QUESTIONS_MAX: usize = 10_000;

/// Ranges that one watch or one question for changes may name.
pub const RANGES_MAX: usize = 1_000;

/// Depth of nested transactions; prost refuses to decode messages about three times as deep.
pub const TXN_DEPTH_MAX: usize = 32;

/// A message from the wire that has no meaning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed revfs.v1.{message}: {reason}")]
pub struct Malformed {
    pub message: &'static str,
    pub reason: String,
}

impl Malformed {
    fn new(message: &'static str, reason: impl Into<String>) -> Self {
        Self { message, reason: reason.into() }
    }
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        Self::Invalid(malformed.to_string())
    }
}

type Result<T> = std::result::Result<T, Malformed>;

fn required<T>(field: Option<T>, message: &'static str, name: &str) -> Result<T> {
    field.ok_or_else(|| Malformed::new(message, format!("{name} is missing")))
}

fn at_most(count: usize, max: usize, message: &'static str, unit: &str) -> Result<()> {
    if count > max {
        return Err(Malformed::new(message, format!("{count} {unit} are over the bound of {max}")));
    }
    Ok(())
}

/// Limits and counts: what does not fit into memory is as good as "very many".
fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn number(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

impl From<KeyValue> for wire::KeyValue {
    fn from(kv: KeyValue) -> Self {
        Self {
            key: kv.key,
            value: kv.value,
            value_bytes: kv.value_bytes,
            create_revision: kv.create_revision.0,
            mod_revision: kv.mod_revision.0,
            version: kv.version,
            lease: kv.lease.0,
            time: kv.time.0,
            content_revision: kv.content_revision.0,
            content_time: kv.content_time.0,
            birth_revision: kv.birth_revision.0,
        }
    }
}

impl From<wire::KeyValue> for KeyValue {
    fn from(kv: wire::KeyValue) -> Self {
        Self {
            key: kv.key,
            value: kv.value,
            value_bytes: kv.value_bytes,
            create_revision: Revision(kv.create_revision),
            mod_revision: Revision(kv.mod_revision),
            version: kv.version,
            lease: LeaseId(kv.lease),
            time: Time(kv.time),
            content_revision: Revision(kv.content_revision),
            content_time: Time(kv.content_time),
            birth_revision: Revision(kv.birth_revision),
        }
    }
}

impl From<KeyRange> for wire::KeyRange {
    fn from(range: KeyRange) -> Self {
        let range = match range {
            KeyRange::Key(key) => WireRange::Key(key),
            KeyRange::Span { start, end } => WireRange::Span(Span { start, end }),
            KeyRange::From(start) => WireRange::From(start),
        };
        Self { range: Some(range) }
    }
}

impl TryFrom<wire::KeyRange> for KeyRange {
    type Error = Malformed;

    fn try_from(range: wire::KeyRange) -> Result<Self> {
        Ok(match required(range.range, "KeyRange", "range")? {
            WireRange::Key(key) => Self::Key(key),
            WireRange::Span(Span { start, end }) => Self::Span { start, end },
            WireRange::From(start) => Self::From(start),
        })
    }
}

/// A [`wire::StatusResponse`] from what [`crate::KeySpace`] says of itself.
#[must_use]
pub fn status_response(status: Status, capabilities: Capabilities) -> wire::StatusResponse {
    wire::StatusResponse {
        backend: status.backend,
        version: status.version,
        endpoint: status.endpoint,
        data_dir: status.data_dir,
        process_id: status.process_id,
        cluster_id: status.cluster_id,
        cluster_version: status.cluster_version,
        member_id: status.member_id,
        leader_id: status.leader_id,
        raft_term: status.raft_term,
        raft_index: status.raft_index,
        applied_index: status.applied_index,
        committed_index: status.committed_index,
        revision: status.revision,
        compacted_revision: status.compacted_revision,
        history_since: status.history_since,
        store_bytes: status.store_bytes,
        store_bytes_in_use: status.store_bytes_in_use,
        log_bytes: status.log_bytes,
        disk_free_bytes: status.disk_free_bytes,
        read_only: status.read_only,
        capabilities: Some(wire::Capabilities {
            stamps: capabilities.stamps,
            bulk: capabilities.bulk,
            value_bytes_max: number(capabilities.value_bytes_max),
        }),
    }
}

/// What a node says of itself from a [`wire::StatusResponse`].
///
/// # Errors
/// [`Malformed`] if the capabilities are missing.
pub fn status_answer(response: wire::StatusResponse) -> Result<(Status, Capabilities)> {
    let capabilities = required(response.capabilities, "StatusResponse", "capabilities")?;
    let capabilities = Capabilities {
        stamps: capabilities.stamps,
        bulk: capabilities.bulk,
        value_bytes_max: size(capabilities.value_bytes_max),
    };
    let status = Status {
        backend: response.backend,
        version: response.version,
        endpoint: response.endpoint,
        data_dir: response.data_dir,
        process_id: response.process_id,
        cluster_id: response.cluster_id,
        cluster_version: response.cluster_version,
        member_id: response.member_id,
        leader_id: response.leader_id,
        raft_term: response.raft_term,
        raft_index: response.raft_index,
        applied_index: response.applied_index,
        committed_index: response.committed_index,
        revision: response.revision,
        compacted_revision: response.compacted_revision,
        history_since: response.history_since,
        store_bytes: response.store_bytes,
        store_bytes_in_use: response.store_bytes_in_use,
        log_bytes: response.log_bytes,
        disk_free_bytes: response.disk_free_bytes,
        read_only: response.read_only,
    };
    Ok((status, capabilities))
}
