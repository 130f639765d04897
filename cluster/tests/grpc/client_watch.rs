//! A watch over the network: whole revisions, in order, without gap or repeat, across restarts.

use std::time::Duration;

use revfs_api::client::Settings;
use revfs_api::keyspace::{Error, KeyRange, Revision};
use revfs_cluster::grpc::Drained;

use crate::scripted::{Scripted, Served, place, quick, remote};

fn all() -> Vec<KeyRange> {
    vec![KeyRange::From("".into())]
}

#[tokio::test]
async fn a_revision_larger_than_a_message_part_arrives_whole() {
    let (_directory, socket) = place();
    let keyspace = Scripted::new();
    let served = Served::start(&socket, keyspace.clone()).await;
    let remote = remote(&socket, quick()).await.unwrap();
    let mut watch = remote.watch(all(), Revision::NONE).await.unwrap();
    let large = keyspace.publish(50, 300_000);
    let small = keyspace.publish(1, 1);
    let empty = keyspace.publish(0, 0);
    for expected in [large, small, empty] {
        assert_eq!(watch.next().await.unwrap(), expected);
    }
    assert_eq!(served.stop().await, Drained::Clean);
}

#[tokio::test]
async fn a_watch_goes_on_where_it_was_after_restarts() {
    let (_directory, socket) = place();
    let keyspace = Scripted::new();
    let mut served = Served::start(&socket, keyspace.clone()).await;
    let remote = remote(&socket, quick()).await.unwrap();
    let mut watch = remote.watch(all(), Revision::NONE).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let before = keyspace.publish(1, 1);
        // Published, but the connection may be lost before it was sent.
        assert_eq!(served.stop().await, Drained::Clean);
        let after = keyspace.publish(1, 1);
        served = Served::start(&socket, keyspace.clone()).await;
        for expected in [before, after] {
            let revision = watch.next().await.unwrap();
            assert_eq!(revision, expected);
            seen.push(revision.stamp.revision.0);
        }
    }
    assert_eq!(seen, (2..8).collect::<Vec<_>>());
    assert_eq!(served.stop().await, Drained::Clean);
}

#[tokio::test]
async fn dropping_the_wait_for_a_revision_loses_nothing() {
    let (_directory, socket) = place();
    let keyspace = Scripted::new();
    let served = Served::start(&socket, keyspace.clone()).await;
    let remote = remote(&socket, quick()).await.unwrap();
    let mut watch = remote.watch(all(), Revision::NONE).await.unwrap();
    let published: Vec<_> = (0..20).map(|_| keyspace.publish(8, 300_000)).collect();
    for expected in published {
        let mut tries = 0;
        let revision = loop {
            // Polled once and dropped, most often in the middle of a revision.
            let next = tokio::time::timeout(Duration::ZERO, watch.next()).await;
            if let Ok(revision) = next {
                break revision.unwrap();
            }
            tries += 1;
            assert!(tries < 1_000_000, "the revision never came");
            tokio::task::yield_now().await;
        };
        assert_eq!(revision, expected);
    }
    drop(watch);
    assert_eq!(served.stop().await, Drained::Clean);
}

#[tokio::test]
async fn a_watch_that_is_only_waited_for_in_short_turns_comes_back_all_the_same() {
    let (_directory, socket) = place();
    let keyspace = Scripted::new();
    let served = Served::start(&socket, keyspace.clone()).await;
    // Each pause is longer than a turn.
    let pause = Duration::from_millis(60);
    let settings = Settings { pause, pause_max: pause, ..quick() };
    let remote = remote(&socket, settings).await.unwrap();
    let mut watch = remote.watch(all(), Revision::NONE).await.unwrap();
    assert_eq!(served.stop().await, Drained::Clean);
    let turn = Duration::from_millis(20);
    // The loss is seen while nobody is there.
    for _ in 0..5 {
        assert!(tokio::time::timeout(turn, watch.next()).await.is_err());
    }
    let published = keyspace.publish(1, 1);
    let served = Served::start(&socket, keyspace.clone()).await;
    let back = async {
        loop {
            if let Ok(next) = tokio::time::timeout(turn, watch.next()).await {
                break next.unwrap();
            }
        }
    };
    let back = tokio::time::timeout(Duration::from_secs(30), back).await;
    assert_eq!(back.expect("the watch came back"), published);
    drop(watch);
    assert_eq!(served.stop().await, Drained::Clean);
}

#[tokio::test]
async fn a_watch_that_fell_behind_a_compaction_says_so() {
    let (_directory, socket) = place();
    let keyspace = Scripted::new();
    let served = Served::start(&socket, keyspace.clone()).await;
    let remote = remote(&socket, quick()).await.unwrap();
    let mut watch = remote.watch(all(), Revision::NONE).await.unwrap();
    assert_eq!(served.stop().await, Drained::Clean);
    keyspace.compact_to(Revision(9));
    let served = Served::start(&socket, keyspace.clone()).await;
    let error = watch.next().await.unwrap_err();
    let is_compacted =
        matches!(error, Error::Compacted { requested: Revision(2), compacted: Revision(9) });
    assert!(is_compacted, "{error:?}");
    let opened = remote.watch(all(), Revision(3)).await.map(drop).unwrap_err();
    assert!(matches!(opened, Error::Compacted { .. }), "{opened:?}");
    assert_eq!(served.stop().await, Drained::Clean);
}

#[tokio::test]
async fn a_watch_that_missed_nothing_does_not_fall_behind_a_compaction() {
    let (_directory, socket) = place();
    let keyspace = Scripted::new();
    keyspace.idle_to(Revision(8));
    let served = Served::start(&socket, keyspace.clone()).await;
    let remote = remote(&socket, quick()).await.unwrap();
    let mut watch = remote.watch(all(), Revision(2)).await.unwrap();
    assert_eq!(watch.progress(), Revision(1));
    let told = async {
        while watch.progress() < Revision(8) {
            // Nothing happens: the stream only says how far it has come.
            let next = tokio::time::timeout(Duration::from_millis(1), watch.next()).await;
            assert!(next.is_err(), "{next:?}");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.expect("progress");
    assert_eq!(served.stop().await, Drained::Clean);
    keyspace.compact_to(Revision(9));
    let served = Served::start(&socket, keyspace.clone()).await;
    let published = keyspace.publish(1, 1);
    assert_eq!(watch.next().await.unwrap(), published);
    assert_eq!(watch.progress(), Revision(9));
    assert_eq!(served.stop().await, Drained::Clean);
}

#[tokio::test]
async fn a_watch_whose_node_stays_away_ends_in_bounded_time() {
    let (_directory, socket) = place();
    let keyspace = Scripted::new();
    let served = Served::start(&socket, keyspace.clone()).await;
    let watch_patience = Duration::from_millis(100);
    let remote = remote(&socket, Settings { watch_patience, ..quick() }).await.unwrap();
    let mut watch = remote.watch(all(), Revision::NONE).await.unwrap();
    assert_eq!(served.stop().await, Drained::Clean);
    for _ in 0..2 {
        let next = tokio::time::timeout(Duration::from_secs(5), watch.next());
        let error = next.await.expect("the patience is far shorter").unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    }
}
