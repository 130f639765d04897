//! The store's types and the key space's, both ways, only here. They say the same things; the two
//! crates do not know each other.

use revfs_api::keyspace as api;
use revfs_store::types as store;
use revfs_store::{AuthRefusal, Done, ReadError, Refusal, StoreError};

pub(crate) fn revision_to_store(revision: api::Revision) -> store::Revision {
    store::Revision(revision.0)
}

pub(crate) fn revision_to_api(revision: store::Revision) -> api::Revision {
    api::Revision(revision.0)
}

pub(crate) fn lease_to_store(lease: api::LeaseId) -> store::LeaseId {
    store::LeaseId(lease.0)
}

pub(crate) fn lease_to_api(lease: store::LeaseId) -> api::LeaseId {
    api::LeaseId(lease.0)
}

/// An answer of another command than the one proposed: the entry is applied, but not understood.
pub(crate) fn unexpected(done: &Done) -> api::Error {
    api::Error::OutcomeUnknown { reason: format!("the store answered {done:?}") }
}

fn time_to_api(time: store::Time) -> api::Time {
    api::Time(time.0)
}

pub(crate) fn range_to_store(range: api::KeyRange) -> store::KeyRange {
    match range {
        api::KeyRange::Key(key) => store::KeyRange::Key(key),
        api::KeyRange::Span { start, end } => store::KeyRange::Span { start, end },
        api::KeyRange::From(start) => store::KeyRange::From(start),
    }
}

pub(crate) fn ranges_to_store(ranges: Vec<api::KeyRange>) -> Vec<store::KeyRange> {
    ranges.into_iter().map(range_to_store).collect()
}

pub(crate) fn range_read_to_store(read: api::RangeRead) -> store::RangeQuery {
    store::RangeQuery {
        range: range_to_store(read.range),
        at: revision_to_store(read.at),
        limit: read.limit,
        keys_only: read.keys_only,
        count_only: read.count_only,
        sort_target: match read.sort_target {
            api::SortTarget::Key => store::SortTarget::Key,
            api::SortTarget::Version => store::SortTarget::Version,
            api::SortTarget::CreateRevision => store::SortTarget::CreateRevision,
            api::SortTarget::ModRevision => store::SortTarget::ModRevision,
            api::SortTarget::Value => store::SortTarget::Value,
        },
        sort_order: match read.sort_order {
            api::SortOrder::Unspecified => store::SortOrder::Unspecified,
            api::SortOrder::Ascend => store::SortOrder::Ascend,
            api::SortOrder::Descend => store::SortOrder::Descend,
        },
        mod_revisions: bounds_to_store(read.mod_revisions),
        create_revisions: bounds_to_store(read.create_revisions),
    }
}

fn bounds_to_store(bounds: api::RevisionBounds) -> store::RevisionBounds {
    let api::RevisionBounds { min, max } = bounds;
    store::RevisionBounds { min: revision_to_store(min), max: revision_to_store(max) }
}

pub(crate) fn list_read_to_store(read: api::ListRead) -> store::ListQuery {
    let api::ListRead { directory, after, limit, with_values } = read;
    store::ListQuery { directory, after, limit, with_values }
}

pub(crate) fn changes_to_store(request: api::ChangesRequest) -> store::ChangesQuery {
    let api::ChangesRequest { ranges, from, to, newest_first, limit, scan_limit, keys_only } =
        request;
    store::ChangesQuery {
        ranges: ranges_to_store(ranges),
        from: revision_to_store(from),
        to: revision_to_store(to),
        newest_first,
        limit,
        scan_limit,
        keys_only,
    }
}

pub(crate) fn txn_to_store(txn: api::Txn) -> store::Txn {
    store::Txn {
        compares: txn.compares.into_iter().map(compare_to_store).collect(),
        success: txn.success.into_iter().map(op_to_store).collect(),
        failure: txn.failure.into_iter().map(op_to_store).collect(),
    }
}

fn compare_to_store(compare: api::Compare) -> store::Compare {
    store::Compare {
        range: range_to_store(compare.range),
        target: match compare.target {
            api::CompareTarget::Version(version) => store::CompareTarget::Version(version),
            api::CompareTarget::CreateRevision(revision) => {
                store::CompareTarget::CreateRevision(revision_to_store(revision))
            }
            api::CompareTarget::ModRevision(revision) => {
                store::CompareTarget::ModRevision(revision_to_store(revision))
            }
            api::CompareTarget::Value(value) => store::CompareTarget::Value(value),
            api::CompareTarget::Lease(lease) => {
                store::CompareTarget::Lease(store::LeaseId(lease.0))
            }
        },
        result: match compare.result {
            api::CompareResult::Equal => store::CompareResult::Equal,
            api::CompareResult::NotEqual => store::CompareResult::NotEqual,
            api::CompareResult::Less => store::CompareResult::Less,
            api::CompareResult::Greater => store::CompareResult::Greater,
        },
    }
}

fn op_to_store(op: api::Op) -> store::Op {
    match op {
        api::Op::Put { key, value, lease, prev_kv, ignore_value, ignore_lease } => store::Op::Put {
            key,
            value,
            lease: store::LeaseId(lease.0),
            prev_kv,
            ignore_value,
            ignore_lease,
        },
        api::Op::Delete { range, prev_kv } => {
            store::Op::Delete { range: range_to_store(range), prev_kv }
        }
        api::Op::Range(read) => store::Op::Range(range_read_to_store(read)),
        api::Op::Txn(txn) => store::Op::Txn(txn_to_store(txn)),
        api::Op::Append { key, value } => store::Op::Append { key, value },
        api::Op::Move { from, to } => store::Op::Move { from, to },
        api::Op::MoveKey { from, to } => store::Op::MoveKey { from, to },
        api::Op::Exchange { a, b } => store::Op::Exchange { a, b },
        api::Op::Restore { range, revision } => store::Op::Restore {
            range: range_to_store(range),
            revision: revision_to_store(revision),
        },
    }
}

pub(crate) fn kv_to_api(kv: store::KeyValue) -> api::KeyValue {
    api::KeyValue {
        key: kv.key,
        value: kv.value,
        value_bytes: kv.value_bytes,
        create_revision: revision_to_api(kv.create_revision),
        mod_revision: revision_to_api(kv.mod_revision),
        version: kv.version,
        lease: api::LeaseId(kv.lease.0),
        time: time_to_api(kv.time),
        content_revision: revision_to_api(kv.content_revision),
        content_time: time_to_api(kv.content_time),
        birth_revision: revision_to_api(kv.birth_revision),
    }
}

pub(crate) fn range_to_api(result: store::RangeResult) -> api::RangeAnswer {
    let store::RangeResult { kvs, count, more } = result;
    api::RangeAnswer { kvs: kvs.into_iter().map(kv_to_api).collect(), count, more }
}

pub(crate) fn hash_to_api(hash: revfs_store::KvHash) -> api::KvHash {
    let revfs_store::KvHash { hash, revision, compacted, current } = hash;
    api::KvHash {
        hash,
        revision: revision_to_api(revision),
        compacted: compacted.map(revision_to_api),
        current: revision_to_api(current),
    }
}

pub(crate) fn list_to_api(result: store::ListResult) -> api::ListAnswer {
    let entry = |entry: store::ListEntry| api::ListEntry {
        name: entry.name,
        kv: entry.kv.map(kv_to_api),
        directory: entry.directory.map(directory_to_api),
    };
    api::ListAnswer { entries: result.entries.into_iter().map(entry).collect(), more: result.more }
}

pub(crate) fn directory_to_api(state: store::DirectoryState) -> api::DirectoryAnswer {
    api::DirectoryAnswer {
        names: state.names,
        changed: revision_to_api(state.changed),
        time: time_to_api(state.time),
    }
}

pub(crate) fn stamp_to_api(stamp: store::Stamp) -> api::Stamp {
    let store::Author { principal, claimed } = stamp.author;
    api::Stamp {
        revision: revision_to_api(stamp.revision),
        time: time_to_api(stamp.time),
        author: api::Author { principal, claimed },
        note: stamp.note,
    }
}

fn event_to_api(event: store::Event) -> api::Event {
    let kind = match event.kind {
        store::ChangeKind::Put => api::ChangeKind::Put,
        store::ChangeKind::Delete => api::ChangeKind::Delete,
    };
    api::Event { kind, kv: kv_to_api(event.kv) }
}

pub(crate) fn events_to_api(events: store::RevisionEvents) -> api::RevisionEvents {
    api::RevisionEvents {
        stamp: stamp_to_api(events.stamp),
        events: events.events.into_iter().map(event_to_api).collect(),
    }
}

pub(crate) fn version_to_api((event, stamp): (store::Event, store::Stamp)) -> api::Version {
    api::Version { event: event_to_api(event), stamp: stamp_to_api(stamp) }
}

pub(crate) fn txn_to_api(answer: store::TxnAnswer) -> api::TxnAnswer {
    api::TxnAnswer {
        succeeded: answer.succeeded,
        revision: revision_to_api(answer.revision),
        changed: answer.changed,
        answers: answer.answers.into_iter().map(op_to_api).collect(),
    }
}

fn op_to_api(answer: store::OpAnswer) -> api::OpAnswer {
    match answer {
        store::OpAnswer::Put { prev_kv } => api::OpAnswer::Put { prev_kv: prev_kv.map(kv_to_api) },
        store::OpAnswer::Delete { deleted, prev_kvs } => api::OpAnswer::Delete {
            deleted,
            prev_kvs: prev_kvs.into_iter().map(kv_to_api).collect(),
        },
        store::OpAnswer::Range(result) => api::OpAnswer::Range(range_to_api(result)),
        store::OpAnswer::Txn(answer) => api::OpAnswer::Txn(txn_to_api(answer)),
        store::OpAnswer::Append { value_bytes } => api::OpAnswer::Append { value_bytes },
        store::OpAnswer::Move { moved } => api::OpAnswer::Move { moved },
        store::OpAnswer::Restore { put, deleted } => api::OpAnswer::Restore { put, deleted },
    }
}

pub(crate) fn store_error(error: StoreError) -> api::Error {
    match error {
        StoreError::Closed { reason } => api::Error::Closed { reason },
        StoreError::NoSpace { reason } => api::Error::NoSpace { reason: reason.to_string() },
        StoreError::ReadersFull { .. } | StoreError::LogLate { .. } => {
            api::Error::Busy { reason: error.to_string() }
        }
        StoreError::OutOfOrder { .. } => api::Error::Closed { reason: error.to_string().into() },
    }
}

pub(crate) fn read_error(error: ReadError) -> api::Error {
    match error {
        ReadError::Compacted { requested, compacted } => api::Error::Compacted {
            requested: revision_to_api(requested),
            compacted: revision_to_api(compacted),
        },
        ReadError::Future { requested, current } => api::Error::Future {
            requested: revision_to_api(requested),
            current: revision_to_api(current),
        },
        ReadError::Refused(own) => refusal(own),
        ReadError::Store(error) => store_error(error),
    }
}

pub(crate) fn refusal(refusal: Refusal) -> api::Error {
    match refusal {
        Refusal::KeyTooLong { bytes, max: _ } => api::Error::KeyTooLong { bytes },
        Refusal::ValueTooLarge { bytes, max } => api::Error::ValueTooLarge { bytes, max },
        Refusal::Compacted { requested, compacted } => api::Error::Compacted {
            requested: revision_to_api(requested),
            compacted: revision_to_api(compacted),
        },
        Refusal::Future { requested, current } => api::Error::Future {
            requested: revision_to_api(requested),
            current: revision_to_api(current),
        },
        Refusal::TooManyRows { max } => {
            api::Error::TooBig { unit: "rows", count: max.saturating_add(1), max }
        }
        Refusal::TooManyBytes { max } => {
            api::Error::TooBig { unit: "bytes of values", count: max.saturating_add(1), max }
        }
        Refusal::TooManyUploads { .. } | Refusal::UploadsTooLarge { .. } => {
            api::Error::Busy { reason: refusal.to_string() }
        }
        Refusal::Auth(AuthRefusal::PermissionDenied) => {
            api::Error::Denied { reason: refusal.to_string() }
        }
        Refusal::NoSpace => api::Error::NoSpace {
            reason: "the alarm NOSPACE is raised: compact, or raise the quota".to_owned(),
        },
        Refusal::KeyEmpty
        | Refusal::Corrupt
        | Refusal::KeyNotFound
        | Refusal::DuplicateKey
        | Refusal::LeaseNotFound
        | Refusal::LeaseExists
        | Refusal::LeaseIdZero
        | Refusal::OtherTerm { .. }
        | Refusal::UploadNotFound { .. }
        | Refusal::UploadPartMissing { .. }
        | Refusal::UploadPartUnexpected { .. }
        | Refusal::UploadPartDiffers { .. }
        | Refusal::UploadPartNumber { .. }
        | Refusal::UploadPartTooLarge { .. }
        | Refusal::Auth(_)
        | Refusal::Member(_)
        | Refusal::MoveOverlaps
        | Refusal::ExchangeMixed => api::Error::Invalid(refusal.to_string()),
    }
}
