//! One long random history on etcd and on a node: every answer, every event that watches are told, and
//! HashKV at every thousandth revision. `REVFS_SEED` replays a run, `REVFS_HISTORY` says how many changes.

use std::collections::BTreeMap;
use std::time::Duration;

use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::watch_client::WatchClient;
use revfs_api::wire::etcdserverpb::watch_create_request::FilterType;
use revfs_api::wire::etcdserverpb::watch_request::RequestUnion;
use revfs_api::wire::mvccpb::Event;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::etcd::Etcd;
use super::requests::{self, Random, Request};
use super::{Answer, Client, Pair, same};
use crate::node::Node;

/// Far above what any event takes.
const LIMIT: Duration = Duration::from_secs(60);

/// Every check of the project makes 20,000 of them.
const CHANGES: usize = 2_000;

/// HashKV is compared at each multiple of this.
const HASH_REVISIONS: i64 = 1_000;

/// Between two looks at the past by watches that begin there.
const PAST_EVERY: usize = 400;

/// The number of the watch that is told of everything.
const ALL: i64 = 0;

fn changes() -> usize {
    std::env::var("REVFS_HISTORY").map_or(CHANGES, |n| n.parse().expect("a number of changes"))
}

/// What is watched from the beginning.
fn watches() -> [pb::WatchCreateRequest; 4] {
    let of = |key: &'static [u8], range_end: &'static [u8]| pb::WatchCreateRequest {
        key: key.into(),
        range_end: range_end.into(),
        ..Default::default()
    };
    [
        pb::WatchCreateRequest { prev_kv: true, ..of(b"\0", b"\0") },
        pb::WatchCreateRequest { filters: vec![FilterType::Noput.into()], ..of(b"a", b"g") },
        pb::WatchCreateRequest {
            filters: vec![FilterType::Nodelete.into()],
            fragment: true,
            ..of(b"foo/", b"foo0")
        },
        of(b"a", b""),
    ]
}

/// A stream of one server, and what it said, by the number of the watch.
struct Told {
    address: String,
    _requests: mpsc::Sender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
    events: BTreeMap<i64, Vec<Event>>,
}

impl Told {
    async fn open(
        address: &str,
        watches: impl IntoIterator<Item = pb::WatchCreateRequest>,
    ) -> Self {
        let client = WatchClient::connect(format!("http://{address}")).await;
        let (requests, sent) = mpsc::channel(16);
        let mut client = client.expect("it answers");
        let mut events = BTreeMap::new();
        let mut asked = 0;
        for create in watches {
            let request =
                pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
            requests.send(request).await.expect("there is room");
            events.insert(asked, Vec::new());
            asked += 1;
        }
        let answers = client.watch(ReceiverStream::new(sent)).await.expect("it answers");
        let answers = answers.into_inner();
        let mut told = Self { address: address.to_owned(), _requests: requests, answers, events };
        // Nothing happens before they are there.
        for _ in 0..asked {
            let answer = told.next().await;
            assert!(answer.created && !answer.canceled, "{answer:?}");
        }
        told
    }

    async fn next(&mut self) -> pb::WatchResponse {
        let answer = tokio::time::timeout(LIMIT, self.answers.message()).await;
        let answer = answer.unwrap_or_else(|_| {
            let last = |events: &Vec<Event>| events.last().and_then(|event| event.kv.clone());
            let last: Vec<_> = self.events.values().map(last).collect();
            panic!("{} says nothing any more; the last it told: {last:?}", self.address)
        });
        let answer = answer.expect("no error").expect("not the end");
        let known = self.events.get_mut(&answer.watch_id);
        known.expect("a watch that was asked for").extend(answer.events.iter().cloned());
        answer
    }

    /// Waits until a watch was told of a revision.
    async fn until(&mut self, watch_id: i64, revision: i64) {
        loop {
            let last = self.events[&watch_id].last().and_then(|event| event.kv.as_ref());
            if last.is_some_and(|kv| kv.mod_revision >= revision) {
                return;
            }
            let answer = self.next().await;
            assert!(!answer.canceled, "{answer:?}");
        }
    }
}

struct Streams {
    etcd: Told,
    node: Told,
}

impl Streams {
    /// Waits until both were told of everything up to a revision.
    async fn until(&mut self, revision: i64) {
        self.etcd.until(ALL, revision).await;
        self.node.until(ALL, revision).await;
    }

    /// Compares what both were told so far, and forgets it; returns how many events that were.
    fn compare(&mut self) -> usize {
        let mut count = 0;
        for (id, expected) in &mut self.etcd.events {
            let found = self.node.events.get_mut(id).expect("both have the same watches");
            // Of the other watches one server may have told more than the other by now.
            let common = expected.len().min(found.len());
            let pairs = expected.iter().zip(&*found);
            for (expected, found) in pairs {
                assert_eq!(found, expected, "watch {id}");
            }
            let keeps = usize::from(*id == ALL);
            expected.drain(..common.saturating_sub(keeps));
            found.drain(..common.saturating_sub(keeps));
            count += common.saturating_sub(keeps);
        }
        count
    }
}

/// Both servers, and what they were told.
struct Run {
    both: Pair,
    streams: Streams,
    addresses: [String; 2],
    current: i64,
    compacted: i64,
    refused: usize,
    events: usize,
    hashes: usize,
}

impl Run {
    async fn change(&mut self, request: Request) {
        if matches!(request, Request::Compact(_)) {
            // Or one would find what an event was before, and the other would not any more.
            self.streams.until(self.current).await;
            self.events += self.streams.compare();
        }
        match self.both.ask(request.clone()).await {
            Ok(answer) => {
                self.current = same::revision(&answer).max(self.current);
                if let Request::Compact(revision) = request {
                    self.compacted = revision;
                }
            }
            Err(_) => self.refused += 1,
        }
    }

    /// HashKV at the multiples that were passed since `before`.
    async fn hash(&mut self, before: i64) {
        let first = before / HASH_REVISIONS + 1;
        for multiple in first..=self.current / HASH_REVISIONS {
            let hash = self.both.ask(Request::Hash(multiple * HASH_REVISIONS)).await;
            let Ok(Answer::Hash(hash)) = hash else { panic!("{hash:?}") };
            println!("HashKV at revision {}: {:08x}", multiple * HASH_REVISIONS, hash.hash);
            self.hashes += 1;
        }
    }

    /// A watch that begins in the past is told the same of it.
    async fn look_back(&mut self, random: &mut Random) {
        // What was deleted exactly at the compacted revision etcd 3.4 has lost.
        let oldest = self.compacted.max(1) + 1;
        if oldest > self.current {
            return;
        }
        let start_revision = oldest + requests::below(random, self.current - oldest + 1);
        let create = || {
            let [all, ..] = watches();
            [pb::WatchCreateRequest { start_revision, prev_kv: false, ..all }]
        };
        let [etcd, node] = &self.addresses;
        let (etcd, node) = (Told::open(etcd, create()).await, Told::open(node, create()).await);
        let mut past = Streams { etcd, node };
        past.until(self.current).await;
        assert_eq!(past.node.events, past.etcd.events, "from revision {start_revision}");
    }

    /// The last change, which all watches are told of, so that what they were told is whole.
    async fn end(&mut self) {
        let of = |keys: [&'static str; 2], put: bool| {
            let request = |key: &'static str| match put {
                true => pb::request_op::Request::RequestPut(pb::PutRequest {
                    key: key.into(),
                    ..Default::default()
                }),
                false => pb::request_op::Request::RequestDeleteRange(pb::DeleteRangeRequest {
                    key: key.into(),
                    ..Default::default()
                }),
            };
            let success = keys.map(|key| pb::RequestOp { request: Some(request(key)) }).into();
            Request::Txn(pb::TxnRequest { success, ..Default::default() })
        };
        self.change(of(["foo/a", "a"], true)).await;
        let put_at = self.current;
        self.change(of(["foo/a", "a"], false)).await;
        for told in [&mut self.streams.etcd, &mut self.streams.node] {
            for (watch, revision) in
                [(0, put_at + 1), (1, put_at + 1), (2, put_at), (3, put_at + 1)]
            {
                told.until(watch, revision).await;
            }
        }
        self.events += self.streams.compare();
        self.both.hash().await;
        self.hashes += 1;
        for id in self.streams.etcd.events.keys() {
            let left = self.streams.etcd.events[id].len();
            assert_eq!(self.streams.node.events[id].len(), left, "events of watch {id}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_history_is_the_same_on_both() {
    let mut random = Random::new(requests::seed());
    let (etcd, node) = (Etcd::start().await, Node::start_in_memory().await);
    let addresses = [etcd.address().to_owned(), node.address()];
    println!("etcd and node are at {addresses:?}");
    let [of_etcd, of_node] = &addresses;
    let mut both = Pair { etcd: Client::new(of_etcd).await, node: Client::new(of_node).await };
    // A watch that etcd 3.4 is asked for while it is still starting may never be told anything.
    for request in requests::first() {
        both.ask(request).await.expect("the first are accepted");
    }
    let streams = Streams {
        etcd: Told::open(of_etcd, watches()).await,
        node: Told::open(of_node, watches()).await,
    };
    // Who is waited for has been told of something, even if a compaction is the first change.
    let put = pb::PutRequest { key: "told".into(), ..Default::default() };
    let answer = both.ask(Request::Put(put)).await.expect("it is accepted");
    let current = same::revision(&answer);
    let compacted = -1;
    let mut run =
        Run { both, streams, addresses, current, compacted, refused: 0, events: 0, hashes: 0 };
    let changes = changes();
    for step in 0..changes {
        let before = run.current;
        let request = requests::change(&mut random, run.compacted, run.current);
        run.change(request).await;
        run.hash(before).await;
        if step % 4 == 0 {
            let range = requests::range(&mut random, run.compacted, run.current);
            drop(run.both.ask(Request::Range(range)).await);
        }
        if step % PAST_EVERY == 0 {
            run.look_back(&mut random).await;
        }
    }
    run.end().await;
    let Run { refused, current, compacted, events, hashes, .. } = run;
    println!(
        "{changes} changes, {refused} refused, revision {current}, compacted {compacted}, {events} events, \
         {hashes} hashes"
    );
    assert!(refused < changes / 2, "a generator that is refused proves nothing");
    assert!(hashes > 0 && events > changes / 2);
    drop((run.streams, run.both));
    drop(etcd);
    node.stop().await;
}
