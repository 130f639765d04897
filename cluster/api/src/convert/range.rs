//! Ranges and their answers, on the wire and off it.

use super::{Malformed, Result, number, required, size};
use crate::keyspace::{RangeAnswer, RangeRead, Revision, RevisionBounds, SortOrder, SortTarget};
use crate::wire::revfs as wire;
use crate::wire::revfs::question;
use crate::wire::revfs::question::range::{
    Bounds, SortOrder as WireOrder, SortTarget as WireTarget,
};

impl From<RangeRead> for question::Range {
    fn from(read: RangeRead) -> Self {
        let target = match read.sort_target {
            SortTarget::Key => WireTarget::Key,
            SortTarget::Version => WireTarget::Version,
            SortTarget::CreateRevision => WireTarget::CreateRevision,
            SortTarget::ModRevision => WireTarget::ModRevision,
            SortTarget::Value => WireTarget::Value,
        };
        let order = match read.sort_order {
            SortOrder::Unspecified => WireOrder::Unspecified,
            SortOrder::Ascend => WireOrder::Ascend,
            SortOrder::Descend => WireOrder::Descend,
        };
        Self {
            range: Some(read.range.into()),
            limit: number(read.limit),
            keys_only: read.keys_only,
            count_only: read.count_only,
            at: read.at.0,
            sort_target: target.into(),
            sort_order: order.into(),
            mod_revisions: bounds_to(read.mod_revisions),
            create_revisions: bounds_to(read.create_revisions),
        }
    }
}

fn bounds_to(bounds: RevisionBounds) -> Option<Bounds> {
    let RevisionBounds { min, max } = bounds;
    (bounds != RevisionBounds::default()).then_some(Bounds { min: min.0, max: max.0 })
}

fn bounds_from(bounds: Option<Bounds>) -> RevisionBounds {
    let Bounds { min, max } = bounds.unwrap_or_default();
    RevisionBounds { min: Revision(min), max: Revision(max) }
}

impl TryFrom<question::Range> for RangeRead {
    type Error = Malformed;

    fn try_from(read: question::Range) -> Result<Self> {
        let unknown = |what: &str, number: i32| {
            Malformed::new("Question.Range", format!("{what} {number} is unknown"))
        };
        let sort_target = match WireTarget::try_from(read.sort_target) {
            Ok(WireTarget::Key) => SortTarget::Key,
            Ok(WireTarget::Version) => SortTarget::Version,
            Ok(WireTarget::CreateRevision) => SortTarget::CreateRevision,
            Ok(WireTarget::ModRevision) => SortTarget::ModRevision,
            Ok(WireTarget::Value) => SortTarget::Value,
            Err(_) => return Err(unknown("sort target", read.sort_target)),
        };
        let sort_order = match WireOrder::try_from(read.sort_order) {
            Ok(WireOrder::Unspecified) => SortOrder::Unspecified,
            Ok(WireOrder::Ascend) => SortOrder::Ascend,
            Ok(WireOrder::Descend) => SortOrder::Descend,
            Err(_) => return Err(unknown("sort order", read.sort_order)),
        };
        Ok(Self {
            range: required(read.range, "Question.Range", "range")?.try_into()?,
            at: Revision(read.at),
            limit: size(read.limit),
            keys_only: read.keys_only,
            count_only: read.count_only,
            sort_target,
            sort_order,
            mod_revisions: bounds_from(read.mod_revisions),
            create_revisions: bounds_from(read.create_revisions),
        })
    }
}

impl From<RangeAnswer> for wire::RangeAnswer {
    fn from(answer: RangeAnswer) -> Self {
        Self {
            kvs: answer.kvs.into_iter().map(Into::into).collect(),
            count: answer.count,
            more: answer.more,
        }
    }
}

impl From<wire::RangeAnswer> for RangeAnswer {
    fn from(answer: wire::RangeAnswer) -> Self {
        Self {
            kvs: answer.kvs.into_iter().map(Into::into).collect(),
            count: answer.count,
            more: answer.more,
        }
    }
}
