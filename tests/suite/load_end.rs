//! The end of `revfs serve` while clients write, watch and keep leases: what was acknowledged stays, what was
//! refused did not happen, and streams end with a code that clients retry.

use std::collections::BTreeSet;
use std::sync::Arc;

use nix::sys::signal::Signal;
use revfs_api::KeySpace;
use revfs_api::client::{Endpoints, connect};
use revfs_api::keyspace::{Answer, Error, KeyRange, Op, Origin, RangeRead, Read, Revision, Txn};
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::lease_client::LeaseClient;
use revfs_api::wire::etcdserverpb::watch_client::WatchClient;
use revfs_api::wire::etcdserverpb::watch_request::RequestUnion;
use revfs_tests::{Server, wait};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Channel;

const WRITERS: usize = 8;

/// Writes of each before the signal is given: the end comes in the midst of them.
const WRITTEN_BEFORE: usize = 25;

/// What one writer knows of its keys.
#[derive(Default)]
struct Written {
    acknowledged: Vec<String>,
    refused: Vec<String>,
    unknown: Vec<String>,
}

async fn client(url: &str) -> Arc<dyn KeySpace> {
    let endpoints: Endpoints = url.parse().expect("a URL");
    connect(&endpoints).await.expect("it answers")
}

/// Puts key after key until one is not acknowledged.
async fn write(keys: Arc<dyn KeySpace>, writer: usize, so_far: mpsc::Sender<()>) -> Written {
    let mut written = Written::default();
    for number in 0.. {
        let key = format!("/w/{writer}/{number}");
        let success = vec![Op::put(key.clone(), "v")];
        match keys.txn(Txn { success, ..Txn::default() }, Origin::default()).await {
            Ok(_) => written.acknowledged.push(key),
            Err(Error::OutcomeUnknown { .. } | Error::Timeout(_)) => {
                written.unknown.push(key);
                break;
            }
            Err(_) => {
                written.refused.push(key);
                break;
            }
        }
        if number + 1 == WRITTEN_BEFORE {
            so_far.send(()).await.expect("the test waits");
        }
    }
    written
}

async fn all_keys(keys: &dyn KeySpace) -> BTreeSet<String> {
    let all = RangeRead { keys_only: true, ..RangeRead::new(KeyRange::prefix(b"/w/")) };
    let answer = keys.read(Revision::NONE, vec![Read::Range(all)]).await.expect("it answers");
    let Some(Answer::Range(range)) = answer.answers.into_iter().next() else { panic!("a range") };
    let text = |key: &[u8]| String::from_utf8(key.to_vec()).expect("text was written");
    range.kvs.iter().map(|kv| text(&kv.key)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_the_end_is_there_after_the_next_start() {
    let mut server = Server::start(&[]);
    let (so_far, mut reached) = mpsc::channel(WRITERS);
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let keys = client(server.url()).await;
        writers.push(tokio::spawn(write(keys, writer, so_far.clone())));
    }
    for _ in 0..WRITERS {
        reached.recv().await.expect("the writers write");
    }
    server.signal(Signal::SIGTERM);
    let mut known = Written::default();
    for writer in writers {
        let written = writer.await.expect("a writer ends");
        known.acknowledged.extend(written.acknowledged);
        known.refused.extend(written.refused);
        known.unknown.extend(written.unknown);
    }
    assert!(server.wait_for_end(wait::LIMIT).success());
    assert!(known.acknowledged.len() >= WRITERS * WRITTEN_BEFORE);

    server.start_again();
    let found = all_keys(client(server.url()).await.as_ref()).await;
    let lost: Vec<_> = known.acknowledged.iter().filter(|key| !found.contains(*key)).collect();
    assert!(lost.is_empty(), "acknowledged, and lost: {lost:?}");
    let done: Vec<_> = known.refused.iter().filter(|key| found.contains(*key)).collect();
    assert!(done.is_empty(), "refused, and done: {done:?}");
    let told: BTreeSet<_> = known.acknowledged.iter().chain(&known.unknown).collect();
    assert!(found.iter().all(|key| told.contains(key)), "nobody wrote that");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_with_a_code_that_clients_retry() {
    let mut server = Server::start(&[]);
    let channel = Channel::from_shared(server.url().to_owned()).expect("a URL");
    let channel = channel.connect().await.expect("it answers");
    let (watches, sent) = mpsc::channel(1);
    let create = pb::WatchCreateRequest { key: "k".into(), ..Default::default() };
    let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    watches.send(create).await.expect("there is room");
    let mut watching = WatchClient::new(channel.clone());
    let mut watching = watching.watch(ReceiverStream::new(sent)).await.expect("it answers");
    assert!(watching.get_mut().message().await.expect("it answers").is_some());
    let mut leases = LeaseClient::new(channel.clone());
    let grant = pb::LeaseGrantRequest { ttl: 60, id: 7 };
    leases.lease_grant(grant).await.expect("it answers");
    let (renewals, sent) = mpsc::channel(1);
    renewals.send(pb::LeaseKeepAliveRequest { id: 7 }).await.expect("there is room");
    let mut renewing =
        leases.lease_keep_alive(ReceiverStream::new(sent)).await.expect("it answers");
    assert!(renewing.get_mut().message().await.expect("it answers").is_some());

    server.signal(Signal::SIGTERM);
    let watch_end = watching.get_mut().message().await.expect_err("it ends");
    assert_eq!(watch_end.code(), Code::Unavailable, "{watch_end:?}");
    let renewal_end = renewing.get_mut().message().await.expect_err("it ends");
    assert_eq!(renewal_end.code(), Code::Unavailable, "{renewal_end:?}");
    assert!(server.wait_for_end(wait::LIMIT).success());
}
