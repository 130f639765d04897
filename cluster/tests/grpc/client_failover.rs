//! Several endpoints: requests in turn, failover in bounded time, changes at most once all the same.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use revfs_api::KeySpace;
use revfs_api::client::{Client, Endpoint, Endpoints, Settings, connect_with};
use revfs_api::keyspace::{Error, KeyRange, Origin, Revision};
use revfs_cluster::grpc::Drained;
use tonic::Code;

use crate::refusing::Refusing;
use crate::scripted::{Scripted, Served, place, put, quick};

fn endpoints(sockets: &[&Path]) -> Endpoints {
    let texts: Vec<&str> = sockets.iter().map(|path| path.to_str().expect("UTF-8")).collect();
    texts.join(",").parse().expect("endpoints")
}

async fn on(sockets: &[&Path], settings: Settings) -> Arc<dyn KeySpace> {
    connect_with(&endpoints(sockets), settings).await.expect("a node answers")
}

async fn read(keys: &Arc<dyn KeySpace>) -> Result<(), Error> {
    keys.read(Revision::NONE, Vec::new()).await.map(drop)
}

#[tokio::test]
async fn reads_and_changes_go_to_all_endpoints_in_turn() {
    let ((_a, one), (_b, other)) = (place(), place());
    let (first, second) = (Scripted::new(), Scripted::new());
    let served =
        [Served::start(&one, first.clone()).await, Served::start(&other, second.clone()).await];
    let keys = on(&[&one, &other], quick()).await;
    for _ in 0..10 {
        read(&keys).await.unwrap();
    }
    for _ in 0..4 {
        keys.txn(put(), Origin::default()).await.unwrap();
    }
    for node in [first, second] {
        assert_eq!(node.reads.load(Ordering::SeqCst), 5);
        assert_eq!(node.txns.load(Ordering::SeqCst), 2);
    }
    drop(keys);
    for server in served {
        assert_eq!(server.stop().await, Drained::Clean);
    }
}

#[tokio::test]
async fn a_node_that_is_gone_costs_no_call_and_is_asked_again_when_it_is_back() {
    let ((_a, one), (_b, other)) = (place(), place());
    let (first, second) = (Scripted::new(), Scripted::new());
    let gone = Served::start(&one, first.clone()).await;
    let stays = Served::start(&other, second.clone()).await;
    let pass_over = Duration::from_millis(50);
    let keys = on(&[&one, &other], Settings { pass_over, ..quick() }).await;
    assert_eq!(gone.stop().await, Drained::Clean);
    for _ in 0..10 {
        read(&keys).await.unwrap();
    }
    // Refused at connecting: it may go to the other one.
    for _ in 0..4 {
        keys.txn(put(), Origin::default()).await.unwrap();
    }
    assert_eq!(second.txns.load(Ordering::SeqCst), 4);
    let back = Served::start(&one, first.clone()).await;
    let before = first.reads.load(Ordering::SeqCst);
    let asked = async {
        while first.reads.load(Ordering::SeqCst) == before {
            read(&keys).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asked).await.expect("it is asked again");
    drop(keys);
    for server in [stays, back] {
        assert_eq!(server.stop().await, Drained::Clean);
    }
}

#[tokio::test]
async fn a_read_leaves_a_node_that_hangs_in_bounded_time_and_a_change_does_not() {
    let ((_a, one), (_b, other)) = (place(), place());
    let (hangs, answers) = (Scripted::new(), Scripted::new());
    let served =
        [Served::start(&one, hangs.clone()).await, Served::start(&other, answers.clone()).await];
    let failover_timeout = Duration::from_millis(200);
    let call_timeout = Duration::from_secs(5);
    let settings = Settings { failover_timeout, call_timeout, ..quick() };
    let keys = on(&[&one, &other], settings).await;
    hangs.close_gate();
    let begun = Instant::now();
    for _ in 0..6 {
        read(&keys).await.unwrap();
    }
    // It was asked once, and then passed over.
    assert_eq!(hangs.reads.load(Ordering::SeqCst), 1);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());

    let settings = Settings { call_timeout: Duration::from_millis(300), ..quick() };
    let keys = on(&[&one, &other], settings).await;
    let mut unknown = 0;
    for _ in 0..2 {
        match keys.txn(put(), Origin::default()).await {
            Ok(_) => {}
            Err(Error::OutcomeUnknown { .. }) => unknown += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(unknown, 1, "what was sent to the one is not sent to the other");
    assert_eq!(hangs.txns.load(Ordering::SeqCst), 1);
    assert_eq!(answers.txns.load(Ordering::SeqCst), 1);
    hangs.open_gate();
    drop(keys);
    for server in served {
        assert_eq!(server.stop().await, Drained::Clean);
    }
}

#[tokio::test]
async fn a_watch_goes_on_at_another_endpoint_without_gap_or_repeat() {
    let ((_a, one), (_b, other)) = (place(), place());
    let keyspace = Scripted::new();
    let mut nodes = [
        Some(Served::start(&one, keyspace.clone()).await),
        Some(Served::start(&other, keyspace.clone()).await),
    ];
    let keys = on(&[&one, &other], quick()).await;
    let everything = vec![KeyRange::From("".into())];
    let mut watch = keys.watch(everything, Revision::NONE).await.unwrap();
    let mut expected = Vec::new();
    for turn in 0..6 {
        expected.push(keyspace.publish(1, 1));
        let stopped = nodes[turn % 2].take().unwrap().stop().await;
        assert_eq!(stopped, Drained::Clean);
        expected.push(keyspace.publish(1, 1));
        for published in expected.drain(..) {
            let next = tokio::time::timeout(Duration::from_secs(30), watch.next());
            assert_eq!(next.await.expect("the watch goes on").unwrap(), published);
        }
        let socket = if turn % 2 == 0 { &one } else { &other };
        nodes[turn % 2] = Some(Served::start(socket, keyspace.clone()).await);
    }
    drop((watch, keys));
    for server in nodes.into_iter().flatten() {
        assert_eq!(server.stop().await, Drained::Clean);
    }
}

#[tokio::test]
async fn other_endpoints_take_over_and_what_is_under_way_ends_in_its_time() {
    let ((_a, one), (_b, other)) = (place(), place());
    let (first, second) = (Scripted::new(), Scripted::new());
    let old = Served::start(&one, first.clone()).await;
    let new = Served::start(&other, second.clone()).await;
    let client = Client::new(&endpoints(&[&one]), quick()).unwrap();
    let keys = client.key_space().await.unwrap();
    first.close_gate();
    let under_way = tokio::spawn({
        let keys = keys.clone();
        async move { keys.txn(put(), Origin::default()).await }
    });
    while first.txns.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    client.set_endpoints(&endpoints(&[&other])).unwrap();
    read(&keys).await.unwrap();
    assert_eq!(first.reads.load(Ordering::SeqCst), 0);
    first.open_gate();
    under_way.await.unwrap().unwrap();
    // Nobody holds a connection to the old one any more: it has nobody to wait for.
    assert_eq!(old.stop().await, Drained::Clean);
    drop((client, keys));
    assert_eq!(new.stop().await, Drained::Clean);
}

#[tokio::test]
async fn a_learner_is_not_asked_for_what_it_refuses() {
    let (_directory, socket) = place();
    let keyspace = Scripted::new();
    let served = Served::start(&socket, keyspace.clone()).await;
    let text = "etcdserver: rpc not supported for learner";
    let learner = Refusing::start(&[(Code::FailedPrecondition, text)]).await;
    let both: Endpoints = format!("{},{}", learner.endpoint, socket.display()).parse().unwrap();
    let keys = connect_with(&both, quick()).await.unwrap();
    for _ in 0..5 {
        read(&keys).await.unwrap();
        keys.txn(put(), Origin::default()).await.unwrap();
    }
    assert_eq!(keyspace.txns.load(Ordering::SeqCst), 5);
    let seen = learner.seen();
    assert_eq!(seen.len(), 1, "it was asked once");
    assert_eq!(seen[0], (None, false), "what a node is can be asked without a leader");

    let alone = connect_with(&learner.endpoint.clone().into(), quick()).await;
    let error = alone.map(drop).unwrap_err();
    assert!(error.to_string().contains("learner"), "{error}");
    drop(keys);
    assert_eq!(served.stop().await, Drained::Clean);
}

#[tokio::test]
async fn words_of_a_proxy_leave_the_outcome_of_a_change_open_and_etcds_do_not() {
    let no_quorum = (Code::Unavailable, "etcdserver: no leader");
    let duplicate = (Code::InvalidArgument, "etcdserver: duplicate key given in txn request");
    let proxy = (Code::InvalidArgument, "the proxy does not like this");
    let node = Refusing::start(&[no_quorum, duplicate, proxy]).await;
    let client = Client::new(&Endpoint::clone(&node.endpoint).into(), quick()).unwrap();
    let mut errors = Vec::new();
    for _ in 0..3 {
        let sent = client.once(Duration::from_secs(5), |at, _| async move {
            at.revfs().compact(revfs_api::wire::revfs::CompactRequest::default()).await
        });
        errors.push(sent.await.unwrap_err());
    }
    assert!(matches!(errors[0], Error::NoQuorum { .. }), "{errors:?}");
    assert!(matches!(errors[1], Error::Invalid(_)), "{errors:?}");
    assert!(matches!(errors[2], Error::OutcomeUnknown { .. }), "{errors:?}");
    let seen = node.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|(_, leader)| *leader), "a change requires a leader: {seen:?}");
}
