//! Requests and events in etcd's form.

use std::collections::VecDeque;

use bytes::Bytes;
use prost::Message;
use revfs_api::keyspace::KeyRange;
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::watch_create_request::FilterType;
use revfs_api::wire::mvccpb;
use revfs_api::wire::mvccpb::event::EventType;
use revfs_store::types::{self, ChangeKind, KeyValue, Revision};
use revfs_store::{WatchRequest, WatchedEvent, WatchedRevision};
use tonic::Status;

use super::super::member::signed;
use crate::convert::range_to_store;

/// In place of the number of a watch: none, or all of the stream.
pub(super) const NO_WATCH: i64 = -1;

pub(super) const RANGE_EMPTY: &str = "mvcc: watcher range is empty";
pub(super) const DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";

/// What an event takes in a message beside its own bytes: tag and length.
const EVENT_FRAME_BYTES: usize = 6;

/// What to watch, and from where; [`Revision::NONE`] = from now. `None` if the interval is empty.
pub(super) fn watch_request(
    create: &pb::WatchCreateRequest,
    start: Revision,
) -> Option<WatchRequest> {
    // The least key.
    let key = if create.key.is_empty() { Bytes::from_static(b"\0") } else { create.key.clone() };
    let range = range_to_store(KeyRange::of_interval(key, create.range_end.clone()));
    if matches!(&range, types::KeyRange::Span { start, end } if end <= start) {
        return None;
    }
    let leaves_out = |filter: FilterType| create.filters.contains(&filter.into());
    Some(WatchRequest {
        ranges: vec![range],
        from: start,
        without_puts: leaves_out(FilterType::Noput),
        without_deletes: leaves_out(FilterType::Nodelete),
        prev_kv: create.prev_kv,
        keys_only: false,
    })
}

/// Why a watch was not created or has ended, as etcd's clients know it: the text of a whole status.
pub(super) fn reason(status: &Status) -> String {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}

pub(super) fn events(revision: &WatchedRevision) -> impl Iterator<Item = mvccpb::Event> {
    revision.events.iter().map(|event| of_event(event))
}

fn of_event(watched: &WatchedEvent) -> mvccpb::Event {
    let kv = &watched.event.kv;
    let (kind, kv) = match watched.event.kind {
        ChangeKind::Put => (EventType::Put, key_value(kv)),
        ChangeKind::Delete => {
            let (key, mod_revision) = (kv.key.clone(), signed(kv.mod_revision.0));
            (EventType::Delete, mvccpb::KeyValue { key, mod_revision, ..Default::default() })
        }
    };
    let prev_kv = watched.prev_kv.as_ref().map(key_value);
    mvccpb::Event { r#type: kind.into(), kv: Some(kv), prev_kv }
}

fn key_value(kv: &KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key.clone(),
        create_revision: signed(kv.create_revision.0),
        mod_revision: signed(kv.mod_revision.0),
        version: signed(kv.version),
        value: kv.value.clone(),
        lease: kv.lease.0,
    }
}

/// Cuts a message into parts below `bytes_max`, each of one event at least. All but the last say that
/// more follows.
pub(super) fn fragments(
    mut message: pb::WatchResponse,
    bytes_max: usize,
) -> VecDeque<pb::WatchResponse> {
    if message.events.len() < 2 || message.encoded_len() < bytes_max {
        return VecDeque::from([message]);
    }
    let events = std::mem::take(&mut message.events);
    message.fragment = true;
    let frame = message.encoded_len();
    let mut parts = VecDeque::new();
    let (mut part, mut bytes) = (message.clone(), frame);
    for event in events {
        let own = event.encoded_len() + EVENT_FRAME_BYTES;
        if !part.events.is_empty() && bytes + own >= bytes_max {
            parts.push_back(std::mem::replace(&mut part, message.clone()));
            bytes = frame;
        }
        bytes += own;
        part.events.push(event);
    }
    part.fragment = false;
    parts.push_back(part);
    parts
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use revfs_api::wire::etcdserverpb as pb;
    use revfs_api::wire::mvccpb;

    use super::{fragments, watch_request};
    use revfs_store::types::Revision;

    fn message(sizes: &[usize]) -> pb::WatchResponse {
        let event = |&size: &usize| {
            let kv = mvccpb::KeyValue { value: vec![7; size].into(), ..Default::default() };
            mvccpb::Event { kv: Some(kv), ..Default::default() }
        };
        pb::WatchResponse { events: sizes.iter().map(event).collect(), ..Default::default() }
    }

    #[test]
    fn parts_are_below_the_bound_keep_the_order_and_say_whether_more_follows() {
        let sizes: Vec<usize> = (0..40).map(|n| n * 13 % 90).collect();
        let whole = message(&sizes);
        let parts = fragments(whole.clone(), 300);
        assert!(parts.len() > 3);
        assert!(parts.iter().all(|part| part.encoded_len() < 300 && !part.events.is_empty()));
        let follows: Vec<bool> = parts.iter().map(|part| part.fragment).collect();
        assert!(follows[..parts.len() - 1].iter().all(|&more| more) && !follows[parts.len() - 1]);
        let events: Vec<_> = parts.into_iter().flat_map(|part| part.events).collect();
        assert_eq!(events, whole.events);
    }

    #[test]
    fn what_fits_or_cannot_be_cut_stays_whole() {
        assert_eq!(fragments(message(&[10, 10]), 300), [message(&[10, 10])]);
        assert_eq!(fragments(message(&[1_000]), 300), [message(&[1_000])]);
        let parts = fragments(message(&[1_000, 1_000]), 300);
        assert_eq!(parts.len(), 2, "one event at least");
    }

    #[test]
    fn an_interval_that_ends_before_it_begins_is_none() {
        let create = |key: &'static str, end: &'static str| pb::WatchCreateRequest {
            key: key.into(),
            range_end: end.into(),
            ..Default::default()
        };
        let valid = |key, end| watch_request(&create(key, end), Revision(2)).is_some();
        assert!(valid("a", "") && valid("a", "\0") && valid("a", "b") && valid("", "a"));
        assert!(!valid("b", "a") && !valid("a", "a"));
    }
}
