//! Transactions that are too large for one entry of the log: one revision all the same.

use std::time::Duration;

use bytes::Bytes;
use revfs_api::keyspace::{
    Compare, Error, KeyRange, Op, OpAnswer, Origin, Revision, Txn, VALUE_BYTES_MAX,
};

use crate::rig::{all, put, settled_index, shut_down, start, wait_for};

const MIB: usize = 1 << 20;

fn puts(count: usize, bytes: usize) -> Vec<Op> {
    let value = Bytes::from(vec![b'x'; bytes]);
    (0..count).map(|number| Op::put(format!("/up/{number:06}"), value.clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_40_mib_is_one_revision_that_a_watch_sees_whole() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let space = node.key_space();
    put(&space, "/up/000000", "old").await.unwrap();
    let last = put(&space, "/gone", "old").await.unwrap().revision;
    let mut watch = space.watch(vec![KeyRange::prefix(b"/")], last.next()).await.unwrap();
    let entries = space.status().await.unwrap().raft_index;
    let success = [puts(40, MIB), vec![Op::delete("/gone")]].concat();
    let txn = Txn {
        compares: vec![Compare::absent(KeyRange::Key(Bytes::from_static(b"/up/000001")))],
        success,
        failure: vec![Op::put("/failed", "1")],
    };
    let origin = Origin { claimed: "test@host".to_owned(), note: Bytes::from_static(b"note") };
    let answer = space.txn(txn.clone(), origin.clone()).await.unwrap();
    assert!(answer.succeeded && answer.changed);
    assert_eq!(answer.revision, last.next());
    assert_eq!(answer.answers.len(), 41);
    assert!(matches!(answer.answers[40], OpAnswer::Delete { deleted: 1, .. }));
    assert!(space.status().await.unwrap().raft_index >= entries + 10, "it came in parts");

    let seen = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap().unwrap();
    assert_eq!((seen.stamp.revision, seen.events.len()), (answer.revision, 41));
    assert_eq!(
        (seen.stamp.note, seen.stamp.author.claimed),
        (origin.note.clone(), origin.claimed.clone())
    );
    assert!(all(&space, "/up/").await.iter().all(|(_, value)| value.len() == MIB));

    // The second time the comparison fails: only the other branch runs.
    let answer = space.txn(txn, origin).await.unwrap();
    assert!(!answer.succeeded && answer.changed);
    assert_eq!((answer.revision, answer.answers.len()), (last.next().next(), 1));
    // The leases of both are revoked behind the answer.
    wait_for("the end of the leases", async || space.leases().await.unwrap().is_empty()).await;
    assert_eq!(space.status().await.unwrap().revision, answer.revision.0);
    drop(space);
    shut_down(node).await;
    let node = start(directory.path()).await;
    assert_eq!(all(&node.key_space(), "/up/").await.len(), 40);
    shut_down(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_revision_cannot_hold_is_refused_before_anything_is_proposed() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let space = node.key_space();
    let before = settled_index(&space).await;
    let nested = Txn { success: puts(2, VALUE_BYTES_MAX), ..Txn::default() };
    let (note, claimed) = (vec![0; 5_000], String::new());
    for (unit, ops, note) in [
        ("operations", puts(100_001, 300), Vec::new()),
        ("bytes of values", puts(257, MIB), Vec::new()),
        ("bytes of one operation", vec![Op::Txn(nested)], Vec::new()),
        ("bytes of note", puts(20, MIB), note),
    ] {
        let txn = Txn { success: ops, ..Txn::default() };
        let origin = Origin { claimed: claimed.clone(), note: note.into() };
        let error = space.txn(txn, origin).await.unwrap_err();
        assert!(matches!(error, Error::TooBig { unit: found, .. } if found == unit), "{error}");
    }
    assert_eq!(space.status().await.unwrap().raft_index, before);

    // What only the state tells is refused by the commit, and leaves nothing behind.
    let mut twice = puts(20, MIB);
    twice.push(Op::put("/up/000003", "again"));
    let txn = Txn { success: twice, ..Txn::default() };
    let error = space.txn(txn, Origin::default()).await.unwrap_err();
    assert!(error.to_string().contains("duplicate key"), "{error}");
    wait_for("the end of the lease", async || space.leases().await.unwrap().is_empty()).await;
    assert_eq!(space.status().await.unwrap().revision, Revision(1).0);
    drop(space);
    shut_down(node).await;
}
