//! etcd's Watch service on a real node: order, wholeness, filters, progress, compaction, and readers
//! that do not read.

use std::time::Duration;

use bytes::Bytes;
use revfs_api::keyspace::{Op, Origin, Txn};
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::kv_client::KvClient;
use revfs_api::wire::etcdserverpb::watch_client::WatchClient;
use revfs_api::wire::etcdserverpb::watch_create_request::FilterType;
use revfs_api::wire::etcdserverpb::watch_request::RequestUnion;
use revfs_api::wire::mvccpb::Event;
use revfs_api::wire::mvccpb::event::EventType;
use revfs_cluster::grpc::{Limits, Listen};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::node::Node;

/// Far above what any answer takes.
const LIMIT: Duration = Duration::from_secs(30);

/// One stream, as a client holds it.
struct Watches {
    requests: mpsc::Sender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
}

fn create(key: &'static str, range_end: &'static str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest { key: key.into(), range_end: range_end.into(), ..Default::default() }
}

fn all() -> pb::WatchCreateRequest {
    create("\0", "\0")
}

impl Watches {
    async fn open(node: &Node) -> Self {
        let (requests, sent) = mpsc::channel(16);
        let client = WatchClient::new(node.channel().await);
        let mut client = client.max_decoding_message_size(64 << 20);
        let answers = client.watch(ReceiverStream::new(sent)).await.expect("it answers at once");
        Self { requests, answers: answers.into_inner() }
    }

    async fn ask(&self, request: RequestUnion) {
        let request = pb::WatchRequest { request_union: Some(request) };
        self.requests.send(request).await.expect("the stream is open");
    }

    async fn answer(&mut self) -> Result<pb::WatchResponse, Status> {
        let answer = tokio::time::timeout(LIMIT, self.answers.message()).await;
        answer.expect("an answer in time").map(|answer| answer.expect("not the end"))
    }

    async fn next(&mut self) -> pb::WatchResponse {
        self.answer().await.expect("no error")
    }

    /// Creates a watch; its number and the revision that the answer names.
    async fn create(&mut self, create: pb::WatchCreateRequest) -> (i64, i64) {
        self.ask(RequestUnion::CreateRequest(create)).await;
        let created = self.next().await;
        assert!(created.created && !created.canceled, "{created:?}");
        (created.watch_id, revision(&created))
    }

    /// Creates a watch that is refused; why.
    async fn refused(&mut self, create: pb::WatchCreateRequest) -> String {
        self.ask(RequestUnion::CreateRequest(create)).await;
        let answer = self.next().await;
        assert!(answer.created && answer.canceled && answer.watch_id == -1, "{answer:?}");
        answer.cancel_reason
    }

    async fn cancel(&mut self, watch_id: i64) {
        self.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id })).await;
    }

    async fn ask_progress(&mut self) {
        self.ask(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    }

    /// The next events, as `key=value@revision` or `-key@revision`.
    async fn said(&mut self, count: usize) -> Vec<String> {
        let mut events = Vec::new();
        while events.len() < count {
            let answer = self.next().await;
            assert!(!answer.events.is_empty(), "{answer:?}");
            events.extend(answer.events.iter().map(said));
        }
        events
    }
}

fn revision(answer: &pb::WatchResponse) -> i64 {
    answer.header.as_ref().expect("every answer has a header").revision
}

fn said(event: &Event) -> String {
    let kv = event.kv.as_ref().expect("every event has a key");
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).expect("the tests put text");
    let was =
        event.prev_kv.as_ref().map_or(String::new(), |kv| format!(" was {}", text(&kv.value)));
    let (key, at) = (text(&kv.key), kv.mod_revision);
    if event.r#type() == EventType::Put {
        format!("{key}={}@{at}{was}", text(&kv.value))
    } else {
        assert_eq!((kv.version, kv.create_revision, kv.lease), (0, 0, 0));
        format!("-{key}@{at}{was}")
    }
}

async fn put(kv: &mut KvClient<Channel>, key: &str, value: &str) -> i64 {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    let put = kv.put(pb::PutRequest { key, value, ..Default::default() }).await;
    put.expect("it is put").into_inner().header.expect("a header").revision
}

async fn delete(kv: &mut KvClient<Channel>, key: &'static str) {
    let request = pb::DeleteRangeRequest { key: key.into(), ..Default::default() };
    kv.delete_range(request).await.expect("it is deleted");
}

async fn compact(kv: &mut KvClient<Channel>, revision: i64) {
    let request = pb::CompactionRequest { revision, physical: false };
    kv.compact(request).await.expect("it is compacted");
}

#[tokio::test]
async fn a_watch_sees_what_happens_to_its_keys_from_now_on() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    put(&mut kv, "a", "0").await;
    let mut watches = Watches::open(&node).await;
    assert_eq!(watches.create(create("a", "c")).await, (0, 2));
    put(&mut kv, "a", "1").await;
    put(&mut kv, "c", "outside").await;
    delete(&mut kv, "a").await;
    let put_of = |key: &str| Op::put(key.to_owned(), "t");
    let txn = Txn { success: vec![put_of("b"), put_of("d"), put_of("a")], ..Txn::default() };
    node.key_space().txn(txn, Origin::default()).await.unwrap();
    let first = watches.next().await;
    assert_eq!((revision(&first), said(&first.events[0])), (3, "a=1@3".to_owned()));
    assert_eq!(watches.said(3).await, ["-a@5", "b=t@6", "a=t@6"]);
    drop(watches);
    node.stop().await;
}

#[tokio::test]
async fn a_watch_of_the_past_is_given_it_first_and_a_future_one_waits() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    for value in ["2", "3", "4", "5"] {
        put(&mut kv, "k", value).await;
    }
    let mut watches = Watches::open(&node).await;
    let from = |start_revision| pb::WatchCreateRequest { start_revision, ..create("k", "") };
    assert_eq!(watches.create(from(3)).await, (0, 5));
    assert_eq!(watches.said(3).await, ["k=3@3", "k=4@4", "k=5@5"]);
    watches.cancel(0).await;
    assert!(watches.next().await.canceled);
    assert_eq!(watches.create(from(7)).await, (1, 5));
    put(&mut kv, "k", "6").await;
    put(&mut kv, "k", "7").await;
    assert_eq!(watches.said(1).await, ["k=7@7"]);
    drop(watches);
    node.stop().await;
}

#[tokio::test]
async fn numbers_ranges_and_starts_are_refused_as_etcd_refuses_them() {
    let node = Node::start().await;
    let mut watches = Watches::open(&node).await;
    let numbered = |watch_id| pb::WatchCreateRequest { watch_id, ..all() };
    assert_eq!(watches.create(numbered(1)).await.0, 1);
    assert_eq!(watches.create(numbered(0)).await.0, 0);
    assert_eq!(watches.create(numbered(0)).await.0, 2, "1 is in use");
    assert_eq!(watches.create(numbered(-7)).await.0, -7);
    let reason = watches.refused(numbered(1)).await;
    assert_eq!(reason, "mvcc: duplicate watch ID provided on the WatchStream");
    for empty in [create("b", "a"), create("b", "b")] {
        assert_eq!(watches.refused(empty).await, "mvcc: watcher range is empty");
    }
    let negative = pb::WatchCreateRequest { start_revision: -1, ..all() };
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    assert_eq!(watches.refused(negative).await, compacted);
    let long: Bytes = vec![b'k'; 2_000].into();
    let reason = watches.refused(pb::WatchCreateRequest { key: long, ..all() }).await;
    assert!(reason.contains("2000 bytes"), "{reason}");
    watches.cancel(99).await;
    watches.ask(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 1 })).await;
    let canceled = watches.next().await;
    assert_eq!((canceled.watch_id, canceled.canceled, canceled.created), (1, true, false));
    assert_eq!(watches.create(numbered(1)).await.0, 1, "it is free again");
    drop(watches);
    node.stop().await;
}

#[tokio::test]
async fn filters_leave_out_and_previous_values_come_along() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    let mut watches = Watches::open(&node).await;
    let no_puts = pb::WatchCreateRequest {
        filters: vec![FilterType::Noput.into()],
        prev_kv: true,
        ..create("", "\0")
    };
    let no_deletes = pb::WatchCreateRequest {
        filters: vec![FilterType::Nodelete.into()],
        prev_kv: true,
        ..all()
    };
    let mut second = Watches::open(&node).await;
    watches.create(no_puts).await;
    second.create(no_deletes).await;
    put(&mut kv, "k", "1").await;
    put(&mut kv, "k", "2").await;
    delete(&mut kv, "k").await;
    put(&mut kv, "k", "3").await;
    assert_eq!(watches.said(1).await, ["-k@4 was 2"]);
    assert_eq!(second.said(3).await, ["k=1@2", "k=2@3 was 1", "k=3@5"]);
    compact(&mut kv, 3).await;
    let past = pb::WatchCreateRequest { start_revision: 3, prev_kv: true, ..all() };
    second.create(past).await;
    assert_eq!(second.said(3).await, ["k=2@3", "-k@4 was 2", "k=3@5"]);
    drop((watches, second));
    node.stop().await;
}

#[tokio::test]
async fn a_compacted_past_cancels_the_watch() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    for value in ["2", "3", "4", "5"] {
        put(&mut kv, "k", value).await;
    }
    compact(&mut kv, 4).await;
    let mut watches = Watches::open(&node).await;
    let from = |start_revision| pb::WatchCreateRequest { start_revision, ..create("k", "") };
    assert_eq!(watches.create(from(3)).await, (0, 5));
    let canceled = watches.next().await;
    assert!(canceled.canceled && !canceled.created, "{canceled:?}");
    assert_eq!((canceled.watch_id, canceled.compact_revision, revision(&canceled)), (0, 4, 0));
    assert_eq!(canceled.cancel_reason, "");
    watches.create(from(4)).await;
    assert_eq!(watches.said(2).await, ["k=4@4", "k=5@5"]);
    drop(watches);
    node.stop().await;
}

#[tokio::test]
async fn a_revision_comes_whole_or_in_parts_that_fit_a_request() {
    let node = Node::start().await;
    let mut whole = Watches::open(&node).await;
    whole.create(all()).await;
    let mut parts = Watches::open(&node).await;
    parts.create(pb::WatchCreateRequest { fragment: true, ..all() }).await;
    let success: Vec<Op> =
        (0..40).map(|n| Op::put(format!("k{n:02}"), vec![b'v'; 100_000])).collect();
    let txn = Txn { success, ..Txn::default() };
    node.key_space().txn(txn, Origin::default()).await.unwrap();
    let one = whole.next().await;
    assert_eq!((one.events.len(), one.fragment, revision(&one)), (40, false, 2));
    let mut events = Vec::new();
    loop {
        let part = parts.next().await;
        assert!(prost::Message::encoded_len(&part) < 1_572_864);
        let follows = part.fragment;
        events.extend(part.events);
        if !follows {
            break;
        }
        assert!(events.len() < 40, "the last part says that it is");
    }
    assert_eq!(events, one.events);
    drop((whole, parts));
    node.stop().await;
}

#[tokio::test]
async fn progress_is_told_when_it_is_asked_for_and_overtakes_nothing() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    let mut watches = Watches::open(&node).await;
    watches.ask_progress().await;
    watches.create(create("a", "")).await;
    watches.create(create("b", "")).await;
    let now = put(&mut kv, "elsewhere", "1").await;
    watches.ask_progress().await;
    let told = watches.next().await;
    assert_eq!((told.watch_id, told.events.len()), (-1, 0), "none of the first question: {told:?}");
    assert_eq!(revision(&told), now);
    for round in 0..100 {
        let put_at = put(&mut kv, "a", &round.to_string()).await;
        watches.ask_progress().await;
        let event = watches.next().await;
        assert_eq!(event.events.len(), 1, "the event comes first: {event:?}");
        let told = watches.next().await;
        assert_eq!((told.watch_id, revision(&told)), (-1, put_at));
    }
    // A watch whose first revision has not come keeps all of them silent.
    watches.create(pb::WatchCreateRequest { start_revision: 10_000, ..create("c", "") }).await;
    watches.ask_progress().await;
    put(&mut kv, "a", "x").await;
    assert_eq!(watches.said(1).await, [format!("a=x@{}", now + 101)]);
    drop(watches);
    node.stop().await;
}

#[tokio::test]
async fn idle_watches_that_asked_for_it_are_told_how_far_they_have_come() {
    let watch_progress_interval = Duration::from_millis(100);
    let node = Node::start_with(Listen { watch_progress_interval, ..Listen::default() }).await;
    let mut kv = node.kv().await;
    let mut watches = Watches::open(&node).await;
    watches.create(create("silent", "")).await;
    let notified = pb::WatchCreateRequest { progress_notify: true, ..create("idle", "") };
    let (id, _) = watches.create(notified).await;
    let future =
        pb::WatchCreateRequest { progress_notify: true, start_revision: 99, ..create("f", "") };
    watches.create(future).await;
    let now = put(&mut kv, "elsewhere", "1").await;
    loop {
        let told = watches.next().await;
        assert_eq!((told.watch_id, told.events.len()), (id, 0), "{told:?}");
        if revision(&told) == now {
            break;
        }
    }
    drop(watches);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_disturbs_nobody_and_misses_nothing() {
    let node = Node::start().await;
    let mut slow = Watches::open(&node).await;
    slow.create(all()).await;
    let mut fast = Watches::open(&node).await;
    fast.create(create("k", "")).await;
    // Several times what a watch buffers and a connection's windows hold.
    let (value, rounds) = (vec![b'v'; 100_000], 100);
    let key_space = node.key_space();
    for round in 0..rounds {
        let success = vec![Op::put("k", value.clone())];
        key_space.txn(Txn { success, ..Txn::default() }, Origin::default()).await.unwrap();
        let told = fast.next().await;
        assert_eq!(told.events[0].kv.as_ref().unwrap().mod_revision, round + 2);
    }
    let mut expected = 2;
    while expected < rounds + 2 {
        for event in slow.next().await.events {
            assert_eq!(event.kv.unwrap().mod_revision, expected);
            expected += 1;
        }
    }
    drop((slow, fast));
    node.stop().await;
}

#[tokio::test]
async fn many_watches_share_a_stream_and_each_has_its_events() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    let mut watches = Watches::open(&node).await;
    const WATCHES: i64 = 500;
    for id in 0..WATCHES {
        let key = format!("k{id}").into();
        let create = pb::WatchCreateRequest { key, ..Default::default() };
        assert_eq!(watches.create(create).await.0, id);
    }
    for id in (0..WATCHES).step_by(50) {
        put(&mut kv, &format!("k{id}"), "x").await;
        let told = watches.next().await;
        assert_eq!((told.watch_id, told.events.len()), (id, 1));
    }
    drop(watches);
    node.stop().await;
}

#[tokio::test]
async fn a_node_takes_so_many_watches_of_all_its_clients() {
    let limits = Limits { watches_max: 3, ..Limits::default() };
    let node = Node::start_with(Listen { limits, ..Listen::default() }).await;
    let (mut one, mut other) = (Watches::open(&node).await, Watches::open(&node).await);
    let (first, _) = one.create(create("a", "")).await;
    one.create(create("b", "")).await;
    other.create(create("c", "")).await;
    let reason = other.refused(create("d", "")).await;
    let busy = "rpc error: code = ResourceExhausted desc = etcdserver: too many requests";
    assert_eq!(reason, busy);
    one.cancel(first).await;
    assert!(one.next().await.canceled);
    other.create(create("d", "")).await;
    drop((one, other));
    node.stop().await;
}

#[tokio::test]
async fn a_stream_ends_at_shutdown_with_a_code_that_clients_retry() {
    let node = Node::start().await;
    let mut watches = Watches::open(&node).await;
    watches.create(all()).await;
    let stopping = node.signal();
    let status = watches.answer().await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "etcdserver: server stopped")
    );
    drop(watches);
    stopping.finished().await;
}

#[tokio::test]
async fn a_client_that_asks_nothing_more_is_still_told() {
    let node = Node::start().await;
    let mut kv = node.kv().await;
    let mut watches = Watches::open(&node).await;
    watches.create(create("k", "")).await;
    let Watches { requests, answers } = watches;
    drop(requests);
    put(&mut kv, "k", "1").await;
    let mut watches = Watches { requests: mpsc::channel(1).0, answers };
    assert_eq!(watches.said(1).await, ["k=1@2"]);
    drop(watches);
    node.stop().await;
}
