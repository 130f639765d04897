//! etcd's messages <-> the plain types, as far as a real etcd has words for them.
//!
//! etcd knows no time of a revision and no content apart from the key's last change. So a time here
//! only tells the order: as many seconds after 1970 as the number of the revision; content and birth are
//! the last change and the creation.

use bytes::Bytes;

use crate::keyspace::{
    ChangeKind, Compare, CompareResult, CompareTarget, Event, KeyRange, KeyValue, LeaseId,
    RangeAnswer, RangeRead, Revision, SortOrder, SortTarget, Time,
};
use crate::wire::etcdserverpb as pb;
use crate::wire::mvccpb;

const NANOSECONDS: i64 = 1_000_000_000;

pub(super) fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// etcd says −1 where it means "none".
pub(super) fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0))
}

pub(super) fn time_of(revision: Revision) -> Time {
    Time(number(revision).saturating_mul(NANOSECONDS))
}

pub(super) fn current(header: Option<&pb::ResponseHeader>) -> Revision {
    header.map_or(Revision::NONE, |header| revision(header.revision))
}

pub(super) fn key_value(kv: mvccpb::KeyValue, keys_only: bool) -> KeyValue {
    let (create, modified) = (revision(kv.create_revision), revision(kv.mod_revision));
    KeyValue {
        key: kv.key,
        value_bytes: u64::try_from(kv.value.len()).unwrap_or(u64::MAX),
        value: if keys_only { Bytes::new() } else { kv.value },
        create_revision: create,
        mod_revision: modified,
        version: u64::try_from(kv.version).unwrap_or(0),
        lease: LeaseId(kv.lease),
        time: time_of(modified),
        content_revision: modified,
        content_time: time_of(modified),
        birth_revision: create,
    }
}

pub(super) fn event(event: mvccpb::Event) -> Event {
    let kv = event.kv.unwrap_or_default();
    if event.r#type == i32::from(mvccpb::event::EventType::Delete) {
        let modified = revision(kv.mod_revision);
        let (key, time) = (kv.key, time_of(modified));
        let kv = KeyValue { key, mod_revision: modified, time, ..KeyValue::default() };
        return Event { kind: ChangeKind::Delete, kv };
    }
    Event { kind: ChangeKind::Put, kv: key_value(kv, false) }
}

/// `key` and `range_end`. No key is empty, so the empty start is the least key.
pub(super) fn interval(range: &KeyRange) -> (Bytes, Bytes) {
    let least = Bytes::from_static(b"\0");
    let start = |start: &Bytes| if start.is_empty() { least.clone() } else { start.clone() };
    // Where its end is no higher than its start, a range is empty; etcd takes no empty key.
    let nothing = Bytes::from_static(b"\x01");
    match range {
        KeyRange::Key(key) if key.is_empty() => (nothing.clone(), nothing),
        KeyRange::Key(key) => (key.clone(), Bytes::new()),
        // etcd would take an empty end for one key.
        KeyRange::Span { end, .. } if end.is_empty() => (nothing.clone(), nothing),
        KeyRange::Span { start: from, end } => (start(from), end.clone()),
        KeyRange::From(from) => (start(from), least),
    }
}

/// Values come along even where only keys are asked for: etcd does not tell their sizes otherwise.
pub(super) fn range_request(read: &RangeRead, at: Revision) -> pb::RangeRequest {
    let (key, range_end) = interval(&read.range);
    let at = if read.at == Revision::NONE { at } else { read.at };
    let target = match read.sort_target {
        SortTarget::Key => pb::range_request::SortTarget::Key,
        SortTarget::Version => pb::range_request::SortTarget::Version,
        SortTarget::CreateRevision => pb::range_request::SortTarget::Create,
        SortTarget::ModRevision => pb::range_request::SortTarget::Mod,
        SortTarget::Value => pb::range_request::SortTarget::Value,
    };
    let order = match read.sort_order {
        SortOrder::Unspecified => pb::range_request::SortOrder::None,
        SortOrder::Ascend => pb::range_request::SortOrder::Ascend,
        SortOrder::Descend => pb::range_request::SortOrder::Descend,
    };
    pb::RangeRequest {
        key,
        range_end,
        limit: i64::try_from(read.limit).unwrap_or(i64::MAX),
        revision: number(at),
        sort_order: order.into(),
        sort_target: target.into(),
        serializable: false,
        keys_only: false,
        count_only: read.count_only,
        min_mod_revision: number(read.mod_revisions.min),
        max_mod_revision: number(read.mod_revisions.max),
        min_create_revision: number(read.create_revisions.min),
        max_create_revision: number(read.create_revisions.max),
    }
}

pub(super) fn range_answer(response: pb::RangeResponse, keys_only: bool) -> RangeAnswer {
    RangeAnswer {
        kvs: response.kvs.into_iter().map(|kv| key_value(kv, keys_only)).collect(),
        count: u64::try_from(response.count).unwrap_or(0),
        more: response.more,
    }
}

pub(super) fn compare(compare: Compare) -> pb::Compare {
    use pb::compare::{CompareResult as WireResult, CompareTarget as WireTarget, TargetUnion};
    let (key, range_end) = interval(&compare.range);
    let result = match compare.result {
        CompareResult::Equal => WireResult::Equal,
        CompareResult::NotEqual => WireResult::NotEqual,
        CompareResult::Less => WireResult::Less,
        CompareResult::Greater => WireResult::Greater,
    };
    let (target, union) = match compare.target {
        CompareTarget::Version(version) => {
            let version = i64::try_from(version).unwrap_or(i64::MAX);
            (WireTarget::Version, TargetUnion::Version(version))
        }
        CompareTarget::CreateRevision(revision) => {
            (WireTarget::Create, TargetUnion::CreateRevision(number(revision)))
        }
        CompareTarget::ModRevision(revision) => {
            (WireTarget::Mod, TargetUnion::ModRevision(number(revision)))
        }
        CompareTarget::Value(value) => (WireTarget::Value, TargetUnion::Value(value)),
        CompareTarget::Lease(LeaseId(lease)) => (WireTarget::Lease, TargetUnion::Lease(lease)),
    };
    pb::Compare {
        result: result.into(),
        target: target.into(),
        key,
        range_end,
        target_union: Some(union),
    }
}
