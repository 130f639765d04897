//! What a caller of `Remote` may rely on: changes at most once, reads repeated within bounds, every
//! call ends, every error arrives as it was.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use revfs_api::KeySpace;
use revfs_api::client::Settings;
use revfs_api::keyspace::{
    Answer, ChangesRequest, Error, HistoryRequest, KeyRange, ListRead, Op, OpAnswer, Origin,
    RangeRead, Read, Revision, Time, Txn,
};
use revfs_cluster::grpc::Drained;

use crate::scripted::{Scripted, Served, place, put, quick, remote};

#[tokio::test]
async fn every_call_reaches_the_key_space_and_brings_its_answer_back() {
    let (_directory, socket) = place();
    let keyspace = Scripted::new();
    let served = Served::start(&socket, keyspace.clone()).await;
    let remote = remote(&socket, quick()).await.unwrap();
    assert_eq!(remote.capabilities(), keyspace.capabilities());

    let list =
        ListRead { directory: "/app/".into(), after: "".into(), limit: 1, with_values: false };
    let reads = vec![Read::List(list), Read::key("/key"), Read::Directory("/app/".into())];
    let answer = remote.read(Revision(4), reads).await.unwrap();
    assert_eq!((answer.revision, answer.current), (Revision(4), Revision(1)));
    assert!(
        matches!(
            answer.answers.as_slice(),
            [Answer::List(list), Answer::Range(range), Answer::Directory(directory)]
                if list.more && range.count == 7 && directory.names == 3
        ),
        "{answer:?}"
    );

    let request =
        HistoryRequest { key: "/key".into(), at_most: Revision::NONE, limit: 0, keys_only: false };
    assert_eq!(remote.history(request).await.unwrap()[0].event.kv.key, "/key");
    let published = keyspace.publish(2, 3);
    let request = ChangesRequest {
        ranges: vec![KeyRange::From("".into())],
        from: Revision(9),
        to: Revision::NONE,
        newest_first: true,
        limit: 0,
        scan_limit: 0,
        keys_only: false,
    };
    let changes = remote.changes(request).await.unwrap();
    assert_eq!((changes.revisions, changes.next), (vec![published], Some(Revision(9))));
    assert_eq!(remote.revision_at(Time(77)).await.unwrap(), Revision(77));
    assert_eq!(remote.stamp(Revision(8)).await.unwrap().revision, Revision(8));
    remote.compact(Revision(2), true).await.unwrap();
    assert_eq!(remote.status().await.unwrap().member_id, 12);

    let every = Txn {
        success: vec![
            Op::put("/a", "1"),
            Op::delete("/b"),
            Op::Range(RangeRead::new(KeyRange::Key("/c".into()))),
            Op::Txn(put()),
            Op::Append { key: "/d".into(), value: "four".into() },
            Op::Move { from: "/e/".into(), to: "/f/".into() },
            Op::MoveKey { from: "/g".into(), to: "/h".into() },
            Op::Exchange { a: "/i/".into(), b: "/j/".into() },
            Op::Restore { range: KeyRange::Key("/i".into()), revision: Revision(1) },
        ],
        ..Txn::default()
    };
    let answer = remote.txn(every, Origin::default()).await.unwrap();
    assert_eq!(answer.answers[4], OpAnswer::Append { value_bytes: 4 });
    assert_eq!(answer.answers[8], OpAnswer::Restore { put: 1, deleted: 2 });
    assert_eq!(served.stop().await, Drained::Clean);
}

#[tokio::test]
async fn the_nodes_error_arrives_as_it_was() {
    let (_directory, socket) = place();
    let keyspace = Scripted::new();
    let served = Served::start(&socket, keyspace.clone()).await;
    let remote = remote(&socket, quick()).await.unwrap();
    keyspace.fail_with(Error::Compacted { requested: Revision(3), compacted: Revision(5) });
    let read = remote.read(Revision(3), vec![]).await.unwrap_err();
    let txn = remote.txn(put(), Origin::default()).await.unwrap_err();
    for error in [read, txn] {
        assert_eq!(error.to_string(), "revision 3 is compacted: history begins at 5");
    }
    assert_eq!(
        keyspace.reads.load(Ordering::SeqCst),
        1,
        "a definite answer is not asked for again"
    );
    assert_eq!(served.stop().await, Drained::Clean);
}

#[tokio::test]
async fn connecting_to_nobody_says_where_nobody_is() {
    let (_directory, socket) = place();
    let error = remote(&socket, quick()).await.map(drop).unwrap_err();
    let Error::Unavailable { reason } = &error else { panic!("{error:?}") };
    assert!(reason.contains(socket.to_str().unwrap()), "{reason}");
    assert!(reason.contains("No such file"), "{reason}");
}

#[tokio::test]
async fn a_change_that_was_never_sent_is_unavailable_and_one_that_was_is_unknown() {
    let (_directory, socket) = place();
    let keyspace = Scripted::new();
    let served = Served::start(&socket, keyspace.clone()).await;
    let remote = remote(&socket, quick()).await.unwrap();

    keyspace.close_gate();
    let change = tokio::spawn({
        let remote = remote.clone();
        async move { remote.txn(put(), Origin::default()).await }
    });
    while keyspace.txns.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(served.stop().await, Drained::Cut);
    let error = change.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error:?}");

    let error = remote.txn(put(), Origin::default()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert_eq!(keyspace.txns.load(Ordering::SeqCst), 1, "a change is sent once");
}

#[tokio::test]
async fn a_read_outlasts_a_restart_of_the_node() {
    let (_directory, socket) = place();
    let keyspace = Scripted::new();
    let served = Served::start(&socket, keyspace.clone()).await;
    let settings = Settings { read_attempts: 1_000, ..quick() };
    let remote = remote(&socket, settings).await.unwrap();
    assert_eq!(served.stop().await, Drained::Clean);
    let read = tokio::spawn({
        let remote = remote.clone();
        async move { remote.read(Revision::NONE, vec![]).await }
    });
    tokio::task::yield_now().await;
    let served = Served::start(&socket, keyspace).await;
    assert_eq!(read.await.unwrap().unwrap().current, Revision(1));
    assert_eq!(served.stop().await, Drained::Clean);
}

#[tokio::test]
async fn reads_that_run_while_the_node_restarts_are_answered() {
    let (_directory, socket) = place();
    let keyspace = Scripted::new();
    let mut served = Served::start(&socket, keyspace.clone()).await;
    let settings = Settings { read_attempts: 1_000, ..quick() };
    let remote = remote(&socket, settings).await.unwrap();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let reading = tokio::spawn(async move {
        let mut answered = 0_u32;
        while stopped.try_recv().is_err() {
            remote.read(Revision::NONE, vec![]).await.unwrap();
            answered += 1;
        }
        answered
    });
    for restart in 1..=5 {
        while keyspace.reads.load(Ordering::SeqCst) < 20 * restart {
            tokio::task::yield_now().await;
        }
        assert_eq!(served.stop().await, Drained::Clean);
        served = Served::start(&socket, keyspace.clone()).await;
    }
    stop.send(()).unwrap();
    assert!(reading.await.unwrap() >= 100);
    assert_eq!(served.stop().await, Drained::Clean);
}

#[tokio::test]
async fn a_read_gives_up_after_its_attempts() {
    let (_directory, socket) = place();
    let keyspace = Scripted::new();
    let served = Served::start(&socket, keyspace.clone()).await;
    let settings = Settings { read_attempts: 3, ..quick() };
    let remote = remote(&socket, settings).await.unwrap();
    keyspace.fail_with(Error::Unavailable { reason: "scripted".into() });
    let error = remote.read(Revision::NONE, vec![]).await.unwrap_err();
    assert_eq!(error.to_string(), "not reachable: scripted");
    assert_eq!(keyspace.reads.load(Ordering::SeqCst), 3);
    assert_eq!(served.stop().await, Drained::Clean);
}

#[tokio::test]
async fn a_call_to_a_node_that_hangs_ends_by_its_deadline() {
    let (_directory, socket) = place();
    let keyspace = Scripted::new();
    let served = Served::start(&socket, keyspace.clone()).await;
    let call_timeout = Duration::from_millis(100);
    let remote = remote(&socket, Settings { call_timeout, ..quick() }).await.unwrap();
    keyspace.close_gate();
    let begun = Instant::now();
    let read = remote.read(Revision::NONE, vec![]).await.unwrap_err();
    assert!(matches!(read, Error::Timeout(_)), "{read:?}");
    let change = remote.txn(put(), Origin::default()).await.unwrap_err();
    assert!(matches!(change, Error::OutcomeUnknown { .. }), "{change:?}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    keyspace.open_gate();
    assert_eq!(served.stop().await, Drained::Clean);
}

#[tokio::test]
async fn the_largest_value_passes_and_a_larger_request_is_refused_before_it_is_sent() {
    let (_directory, socket) = place();
    let keyspace = Scripted::new();
    let served = Served::start(&socket, keyspace.clone()).await;
    let remote = remote(&socket, quick()).await.unwrap();
    let of =
        |bytes: usize| Txn { success: vec![Op::put("/key", vec![7; bytes])], ..Txn::default() };
    let largest = of(revfs_api::keyspace::VALUE_BYTES_MAX);
    remote.txn(largest, Origin::default()).await.unwrap();
    let error = remote.txn(of(18 * 1024 * 1024), Origin::default()).await.unwrap_err();
    assert!(matches!(error, Error::TooBig { unit: "bytes of one operation", .. }), "{error:?}");
    assert_eq!(keyspace.txns.load(Ordering::SeqCst), 1);
    assert_eq!(served.stop().await, Drained::Clean);
}
