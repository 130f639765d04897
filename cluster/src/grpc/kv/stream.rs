//! A range as a stream of parts: what Range answers in one message, without holding all of it.
//!
//! Each part is read from a view of its own, at the revision that the first one found: a slow reader
//! pins nothing, and is told if that revision is compacted meanwhile.

use std::pin::Pin;
use std::sync::Arc;

use revfs_api::keyspace::{RangeRead, SortOrder, SortTarget};
use revfs_api::wire::etcdserverpb as pb;
use revfs_store::RangePart;
use revfs_store::types::{KeyRange, Revision};
use tonic::Status;

use super::super::member::{Member, fail, signed};
use super::{answer, range};
use crate::convert;
use crate::local::Local;

/// Keys and values of one part; a single value may be larger.
const PART_BYTES_MAX: usize = 256 * 1024;

pub(super) type Parts =
    Pin<Box<dyn futures_util::Stream<Item = Result<pb::RangeStreamResponse, Status>> + Send>>;

struct Reading {
    member: Arc<Member>,
    node: Arc<Local>,
    at: Revision,
    /// What is left to be read; `None` after the last part.
    rest: Option<KeyRange>,
    keys_only: bool,
    /// Keys that may still be given.
    limit: usize,
    count: u64,
}

/// Checks a request as Range does, and that it is for a stream.
pub(super) fn parts(
    member: Arc<Member>,
    node: Arc<Local>,
    request: pb::RangeRequest,
) -> Result<Parts, Status> {
    let has_bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    let read = range::range_read(request)?;
    let is_in_order = read.sort_target == SortTarget::Key && read.sort_order != SortOrder::Descend;
    if !is_in_order || has_bounds != [0; 4] {
        let text =
            "RangeStream gives keys in their order and without bounds on revisions: use Range";
        return Err(Status::unimplemented(text));
    }
    if read.count_only {
        return Ok(Box::pin(futures_util::stream::once(counted(member, node, read))));
    }
    let reading = Reading {
        member,
        node,
        at: convert::revision_to_store(read.at),
        rest: Some(convert::range_to_store(read.range)),
        keys_only: read.keys_only,
        limit: if read.limit == 0 { usize::MAX } else { read.limit },
        count: 0,
    };
    Ok(Box::pin(futures_util::stream::unfold(reading, |mut reading| async move {
        let range = reading.rest.take()?;
        Some((reading.next(range).await, reading))
    })))
}

fn part(response: pb::RangeResponse) -> pb::RangeStreamResponse {
    pb::RangeStreamResponse { range_response: Some(response) }
}

async fn counted(
    member: Arc<Member>,
    node: Arc<Local>,
    read: RangeRead,
) -> Result<pb::RangeStreamResponse, Status> {
    let at = convert::revision_to_store(read.at);
    let range = convert::range_to_store(read.range);
    let (count, current) = node.range_count(at, range).map_err(fail)?;
    let header = Some(member.header(convert::revision_to_api(current)).await);
    Ok(part(pb::RangeResponse { header, count: signed(count), ..Default::default() }))
}

impl Reading {
    async fn next(&mut self, range: KeyRange) -> Result<pb::RangeStreamResponse, Status> {
        let bounds = (self.limit, PART_BYTES_MAX);
        let read = self.node.range_part(self.at, &range, self.keys_only, bounds).map_err(fail)?;
        let (RangePart { kvs, rest }, current) = read;
        if self.at.is_none() {
            self.at = current;
        }
        self.limit -= kvs.len();
        self.count += u64::try_from(kvs.len()).unwrap_or(u64::MAX);
        let kvs = kvs.into_iter().map(|kv| answer::key_value(convert::kv_to_api(kv))).collect();
        let mut response = pb::RangeResponse { kvs, ..Default::default() };
        match rest {
            Some(rest) if self.limit > 0 => self.rest = Some(rest),
            rest => {
                response.more = rest.is_some();
                if let Some(rest) = rest {
                    self.count += self.node.range_count(self.at, rest).map_err(fail)?.0;
                }
                response.count = signed(self.count);
                let current = convert::revision_to_api(current);
                response.header = Some(self.member.header(current).await);
            }
        }
        Ok(part(response))
    }
}
