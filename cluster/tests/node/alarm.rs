//! The alarm NOSPACE: raised at the quota, lifted by deleting and compacting alone.

use revfs_api::keyspace::{Error, KeyRange, Op, Origin, Revision, Txn};
use revfs_cluster::Node;

use crate::rig::{config, get, put, shut_down, start, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn nospace_is_raised_at_the_quota_and_lifted_by_compaction_alone() {
    let directory = tempfile::tempdir().unwrap();
    let mut small = config(directory.path());
    small.quota_bytes = Some(3 << 20);
    let node = Node::start(small.clone()).await.unwrap();
    let space = node.key_space();
    let mut written = 0;
    wait_for("the alarm", async || {
        // It is raised once a second at the soonest; what is written until then is bounded.
        if written < 60 {
            written += 1;
        }
        let refused = put(&space, &format!("/k{written}"), vec![1; 100_000]).await.err();
        refused.is_some_and(|error| matches!(error, Error::NoSpace { .. }))
    })
    .await;
    let status = space.status().await.unwrap();
    assert!(status.read_only.contains("NOSPACE"), "{}", status.read_only);
    assert_eq!(get(&space, "/k1").await.unwrap().len(), 100_000);

    let all = Op::Delete { range: KeyRange::prefix(b"/"), prev_kv: false };
    let txn = Txn { success: vec![all], ..Txn::default() };
    let deleted = space.txn(txn, Origin::default()).await.unwrap();
    assert!(matches!(put(&space, "/k", "1").await, Err(Error::NoSpace { .. })), "history is left");
    space.compact(Revision(deleted.revision.0), true).await.unwrap();
    // Lifted is the alarm only where the disk has room too, which a small or full one has not.
    wait_for("space (not even 1.25 GiB of this disk free?)", async || {
        put(&space, "/k", "1").await.is_ok()
    })
    .await;
    assert_eq!(space.status().await.unwrap().read_only, "");
    drop(space);
    shut_down(node).await;
    let node = start(directory.path()).await;
    assert_eq!(get(&node.key_space(), "/k").await.unwrap(), "1");
    shut_down(node).await;
}
