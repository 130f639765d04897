//! Ranges as etcd asks for them, in the key space's words.

use revfs_api::keyspace::{
    KeyRange, RangeAnswer, RangeRead, Revision, RevisionBounds, SortOrder, SortTarget,
};
use revfs_api::status;
use revfs_api::wire::etcdserverpb::range_request::{SortOrder as PbOrder, SortTarget as PbTarget};
use revfs_api::wire::etcdserverpb::{RangeRequest, RangeResponse};
use tonic::Status;

use super::super::member::signed;
use super::{answer, request};

/// 0 is no bound. No key has a revision below 2: a least one below 0 lets everything pass, a greatest
/// one nothing.
fn bounds(min: i64, max: i64) -> RevisionBounds {
    let bound = |number: i64| Revision(u64::try_from(number).unwrap_or(1));
    RevisionBounds { min: bound(min), max: bound(max) }
}

/// Checks a request as etcd does.
pub(super) fn range_read(request: RangeRequest) -> Result<RangeRead, Status> {
    request::check_key(&request.key)?;
    let invalid = |_| Status::invalid_argument(status::INVALID_SORT_OPTION);
    let sort_order = match PbOrder::try_from(request.sort_order).map_err(invalid)? {
        PbOrder::None => SortOrder::Unspecified,
        PbOrder::Ascend => SortOrder::Ascend,
        PbOrder::Descend => SortOrder::Descend,
    };
    let sort_target = match PbTarget::try_from(request.sort_target).map_err(invalid)? {
        PbTarget::Key => SortTarget::Key,
        PbTarget::Version => SortTarget::Version,
        PbTarget::Create => SortTarget::CreateRevision,
        PbTarget::Mod => SortTarget::ModRevision,
        PbTarget::Value => SortTarget::Value,
    };
    Ok(RangeRead {
        range: KeyRange::of_interval(request.key, request.range_end),
        at: Revision(u64::try_from(request.revision).unwrap_or(0)),
        // Less than 0 is no limit; more than fits is none either.
        limit: usize::try_from(request.limit).unwrap_or(0),
        keys_only: request.keys_only,
        count_only: request.count_only,
        sort_target,
        sort_order,
        mod_revisions: bounds(request.min_mod_revision, request.max_mod_revision),
        create_revisions: bounds(request.min_create_revision, request.max_create_revision),
    })
}

/// etcd's answer, without its header.
pub(super) fn response(range: RangeAnswer) -> RangeResponse {
    RangeResponse {
        header: None,
        kvs: range.kvs.into_iter().map(answer::key_value).collect(),
        more: range.more,
        count: signed(range.count),
    }
}
