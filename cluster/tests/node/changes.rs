//! What changes, watches and compactions promise through the key space.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use revfs_api::KeySpace;
use revfs_api::keyspace::{
    ChangeKind, ChangesRequest, Compare, Error, KeyRange, Op, Origin, Read, Revision, Txn,
    VALUE_BYTES_MAX, Watch,
};

use crate::rig::{get, put, settled_index, shut_down, start};

async fn next(watch: &mut Box<dyn Watch>) -> revfs_api::keyspace::RevisionEvents {
    let event = tokio::time::timeout(Duration::from_secs(10), watch.next()).await;
    event.expect("an event within ten seconds").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_sees_every_revision_once_in_order_whole() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let space = node.key_space();
    let mut live = space.watch(vec![KeyRange::prefix(b"/w/")], Revision::NONE).await.unwrap();
    let writers = (0..4).map(|writer| {
        let space = node.key_space();
        tokio::spawn(async move {
            for count in 0..100 {
                let ops = vec![
                    Op::put(format!("/w/{writer}/{count}"), "a"),
                    Op::put(format!("/w/{writer}/{count}/b"), "b"),
                    Op::put(format!("/other/{writer}"), "c"),
                ];
                let txn = Txn { success: ops, ..Txn::default() };
                space.txn(txn, Origin::default()).await.unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let mut seen = Vec::new();
    for _ in 0..400 {
        seen.push(next(&mut live).await);
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let revisions: Vec<u64> = seen.iter().map(|events| events.stamp.revision.0).collect();
    assert!(revisions.windows(2).all(|pair| pair[1] == pair[0] + 1), "{revisions:?}");
    assert!(seen.iter().all(|events| events.events.len() == 2));

    let first = Revision(revisions[0]);
    let mut replay = space.watch(vec![KeyRange::prefix(b"/w/")], first).await.unwrap();
    for events in &seen {
        assert_eq!(next(&mut replay).await, *events);
    }
    assert!(replay.next().now_or_never().is_none(), "nothing is left");
    drop(space);
    shut_down(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_the_future_waits_and_one_of_the_forgotten_ends() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let space = node.key_space();
    let current = put(&space, "/k", "1").await.unwrap().revision;
    let future = Revision(current.0 + 2);
    let mut watch = space.watch(vec![KeyRange::prefix(b"/")], future).await.unwrap();
    put(&space, "/k", "2").await.unwrap();
    put(&space, "/k", "3").await.unwrap();
    let events = next(&mut watch).await;
    assert_eq!(events.stamp.revision, future);
    assert_eq!(events.stamp.author.claimed, "test@host");
    assert_eq!(events.events[0].kind, ChangeKind::Put);

    space.compact(future, true).await.unwrap();
    let error = space.watch(vec![KeyRange::prefix(b"/")], current).await.err().unwrap();
    assert!(matches!(error, Error::Compacted { compacted, .. } if compacted == future), "{error}");
    let error = space.read(current, vec![Read::key("/k")]).await.unwrap_err();
    assert!(matches!(error, Error::Compacted { .. }), "{error}");
    let status = space.status().await.unwrap();
    assert_eq!(status.compacted_revision, future.0);
    drop(space);
    shut_down(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_sees_nothing_knows_how_far_it_has_come() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let space = node.key_space();
    let mut idle = space.watch(vec![KeyRange::prefix(b"/idle/")], Revision::NONE).await.unwrap();
    for _ in 0..10 {
        put(&space, "/busy", "x").await.unwrap();
    }
    let current = space.read(Revision::NONE, Vec::new()).await.unwrap().current;
    let learned = async {
        while idle.progress() < current {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), learned).await.expect("progress");
    assert!(idle.next().now_or_never().is_none());
    space.compact(current, false).await.unwrap();
    let from = idle.progress().next();
    let mut again = space.watch(vec![KeyRange::prefix(b"/idle/")], from).await.unwrap();
    let revision = put(&space, "/idle/k", "x").await.unwrap().revision;
    assert_eq!(next(&mut again).await.stamp.revision, revision);
    drop(space);
    shut_down(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_when_the_node_stops() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let mut watch =
        node.key_space().watch(vec![KeyRange::prefix(b"/")], Revision::NONE).await.unwrap();
    let waiting = tokio::spawn(async move { watch.next().await });
    shut_down(node).await;
    let ended = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    assert!(matches!(ended, Err(Error::Unavailable { .. } | Error::Closed { .. })), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_ready_at_the_first_poll() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let space = node.key_space();
    let revision = put(&space, "/a/b", "1").await.unwrap().revision;
    let read = space.read(Revision::NONE, vec![Read::key("/a/b")]);
    assert_eq!(read.now_or_never().unwrap().unwrap().current, revision);
    assert!(space.stamp(revision).now_or_never().unwrap().is_ok());
    let changes = ChangesRequest {
        ranges: vec![KeyRange::prefix(b"/")],
        from: revision,
        to: Revision::NONE,
        newest_first: false,
        limit: 0,
        scan_limit: 0,
        keys_only: true,
    };
    let answer = space.changes(changes).now_or_never().unwrap().unwrap();
    assert_eq!(answer.revisions.len(), 1);
    drop(space);
    shut_down(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_compare_changes_nothing_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let space = node.key_space();
    put(&space, "/k", "1").await.unwrap();
    let txn = Txn {
        compares: vec![Compare::absent(KeyRange::Key(Bytes::from_static(b"/k")))],
        success: vec![Op::put("/k", "2")],
        failure: Vec::new(),
    };
    let answer = space.txn(txn, Origin::default()).await.unwrap();
    assert!(!answer.succeeded && !answer.changed);
    assert_eq!(get(&space, "/k").await.unwrap(), "1");
    drop(space);
    shut_down(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused_before_it_is_proposed() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let space: Arc<dyn KeySpace> = node.key_space();
    let before = settled_index(&space).await;
    let error = put(&space, "/k", vec![0; VALUE_BYTES_MAX + 1]).await.unwrap_err();
    assert!(matches!(error, Error::ValueTooLarge { .. }), "{error}");
    let error = put(&space, &"k".repeat(1_901), "1").await.unwrap_err();
    assert!(matches!(error, Error::KeyTooLong { bytes: 1_901 }), "{error}");
    let origin = Origin { claimed: String::new(), note: vec![0; 5_000].into() };
    let error = space.txn(Txn::default(), origin).await.unwrap_err();
    assert!(matches!(error, Error::TooBig { .. }), "{error}");
    assert_eq!(space.status().await.unwrap().raft_index, before);

    // The largest value goes through a segment of its own and survives.
    put(&space, "/large", vec![5; VALUE_BYTES_MAX]).await.unwrap();
    drop(space);
    shut_down(node).await;
    let node = start(directory.path()).await;
    assert_eq!(get(&node.key_space(), "/large").await.unwrap().len(), VALUE_BYTES_MAX);
    shut_down(node).await;
}
