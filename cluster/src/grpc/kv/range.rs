//! Ranges as etcd means them. The key space reads keys in order; other orders and the bounds on
//! revisions are made from the whole range, as etcd does.

use std::cmp::Ordering;

use bytes::Bytes;
use revfs_api::keyspace::{KeyRange, KeyValue, RangeAnswer, RangeRead, Revision};
use revfs_api::status;
use revfs_api::wire::etcdserverpb::RangeRequest;
use revfs_api::wire::etcdserverpb::RangeResponse;
use revfs_api::wire::etcdserverpb::range_request::{SortOrder, SortTarget};
use tonic::Status;

use super::super::member::signed;
use super::{answer, request};

/// `range_end`: empty = the key alone; `\0` = every key from it on; else the end of an interval.
pub(super) fn key_range(key: Bytes, range_end: Bytes) -> KeyRange {
    match range_end.as_ref() {
        b"" => KeyRange::Key(key),
        b"\0" => KeyRange::From(key),
        _ => KeyRange::Span { start: key, end: range_end },
    }
}

/// A range: what to read, and what to make of it.
#[derive(Clone, Debug)]
pub(super) struct RangePlan {
    pub(super) read: RangeRead,
    /// [`Revision::NONE`] = the present.
    pub(super) revision: Revision,
    /// `None` if the answer of the key space is the answer.
    shape: Option<Shape>,
}

/// What is made of the whole range.
#[derive(Clone, Debug)]
struct Shape {
    target: SortTarget,
    order: SortOrder,
    limit: usize,
    keys_only: bool,
    mod_revisions: Bounds,
    create_revisions: Bounds,
}

/// Inclusive; 0 = no bound.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    min: i64,
    max: i64,
}

impl Bounds {
    fn hold(self, revision: Revision) -> bool {
        let revision = signed(revision.0);
        (self.min == 0 || revision >= self.min) && (self.max == 0 || revision <= self.max)
    }

    fn is_open(self) -> bool {
        self.min == 0 && self.max == 0
    }
}

impl RangePlan {
    /// Checks a request as etcd does.
    pub(super) fn new(request: RangeRequest) -> Result<Self, Status> {
        request::check_key(&request.key)?;
        let invalid = |_| Status::invalid_argument(status::INVALID_SORT_OPTION);
        let order = SortOrder::try_from(request.sort_order).map_err(invalid)?;
        let target = SortTarget::try_from(request.sort_target).map_err(invalid)?;
        let mod_revisions = Bounds { min: request.min_mod_revision, max: request.max_mod_revision };
        let create_revisions =
            Bounds { min: request.min_create_revision, max: request.max_create_revision };
        // Less than 0 is no limit; more than fits is none either.
        let limit = usize::try_from(request.limit).unwrap_or(0);
        let is_in_order = target == SortTarget::Key && order != SortOrder::Descend;
        let is_whole = mod_revisions.is_open() && create_revisions.is_open();
        let shape = Shape {
            target,
            order,
            limit,
            keys_only: request.keys_only,
            mod_revisions,
            create_revisions,
        };
        let is_plain = request.count_only || (is_in_order && is_whole);
        let read = RangeRead {
            range: key_range(request.key, request.range_end),
            limit: if is_plain { limit } else { 0 },
            keys_only: request.keys_only && target != SortTarget::Value,
            count_only: request.count_only,
        };
        let revision = Revision(u64::try_from(request.revision).unwrap_or(0));
        Ok(Self { read, revision, shape: (!is_plain).then_some(shape) })
    }

    /// etcd's answer, without its header.
    pub(super) fn answer(self, mut range: RangeAnswer) -> RangeResponse {
        if let Some(shape) = self.shape {
            shape.apply(&mut range);
        }
        if self.read.count_only {
            range.kvs.clear();
            range.more = false;
        }
        RangeResponse {
            header: None,
            kvs: range.kvs.into_iter().map(answer::key_value).collect(),
            more: range.more,
            count: signed(range.count),
        }
    }
}

impl Shape {
    /// Filters, then sorts, then cuts, then drops values.
    fn apply(&self, range: &mut RangeAnswer) {
        range.kvs.retain(|kv| {
            self.mod_revisions.hold(kv.mod_revision)
                && self.create_revisions.hold(kv.create_revision)
        });
        let is_down = self.order == SortOrder::Descend;
        range.kvs.sort_by(|one, other| {
            let order = compare(self.target, one, other);
            if is_down { order.reverse() } else { order }
        });
        range.more = self.limit > 0 && range.kvs.len() > self.limit;
        if range.more {
            range.kvs.truncate(self.limit);
        }
        if self.keys_only {
            for kv in &mut range.kvs {
                kv.value = Bytes::new();
            }
        }
    }
}

fn compare(target: SortTarget, one: &KeyValue, other: &KeyValue) -> Ordering {
    match target {
        SortTarget::Key => one.key.cmp(&other.key),
        SortTarget::Version => one.version.cmp(&other.version),
        SortTarget::Create => one.create_revision.cmp(&other.create_revision),
        SortTarget::Mod => one.mod_revision.cmp(&other.mod_revision),
        SortTarget::Value => one.value.cmp(&other.value),
    }
}
