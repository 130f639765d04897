//! Leases on a real node: they end by its clock, outlive its restart, and are answered as etcd does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use revfs_api::KeySpace;
use revfs_api::keyspace::{
    ChangeKind, Error, HistoryRequest, LeaseId, Op, Origin, Revision, Txn, TxnAnswer,
};

use crate::rig::{all, get, shut_down, start, wait_for};

async fn put_on_lease(space: &Arc<dyn KeySpace>, key: &'static str, lease: LeaseId) -> TxnAnswer {
    let put = Op::Put {
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::from_static(b"1"),
        lease,
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    };
    let txn = Txn { success: vec![put], ..Txn::default() };
    space.txn(txn, Origin::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_nobody_renews_takes_its_keys_with_it_as_one_revision() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let space = node.key_space();
    let begun = Instant::now();
    // Asked for nothing, it gets the least.
    let (id, ttl) = space.lease_grant(LeaseId(0), -7).await.unwrap();
    assert!(id.0 > 0);
    assert_eq!(ttl, 2);
    let (other, _) = space.lease_grant(LeaseId(-5), 60).await.unwrap();
    assert_eq!(other, LeaseId(-5));
    put_on_lease(&space, "/b", id).await;
    put_on_lease(&space, "/other", other).await;
    let last = put_on_lease(&space, "/a", id).await;
    let found = space.lease_time_to_live(id, true).await.unwrap().unwrap();
    assert_eq!(found.granted_seconds, 2);
    assert!(found.remaining_seconds <= 1, "{found:?}");
    assert_eq!(found.keys, ["/a", "/b"]);
    assert_eq!(space.leases().await.unwrap(), [id, other]);

    wait_for("expiry", async || all(&space, "/").await.len() == 1).await;
    assert!(begun.elapsed() >= Duration::from_secs(2), "not before its time");
    assert_eq!(space.status().await.unwrap().revision, last.revision.0 + 1, "one revision");
    assert_eq!(get(&space, "/other").await.unwrap(), "1");
    assert_eq!(space.leases().await.unwrap(), [other]);
    assert_eq!(space.lease_keep_alive(id).await.unwrap(), None);
    assert_eq!(space.lease_time_to_live(id, false).await.unwrap(), None);
    let request = HistoryRequest {
        key: Bytes::from_static(b"/a"),
        at_most: Revision::NONE,
        limit: 1,
        keys_only: false,
    };
    let history = space.history(request).await.unwrap();
    assert_eq!(history[0].event.kind, ChangeKind::Delete);
    assert_eq!(history[0].stamp.author.principal, format!("lease {:x}", id.0), "who did it");
    shut_down(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_renewed_lives_and_a_revoked_one_is_gone_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let space = node.key_space();
    let (id, _) = space.lease_grant(LeaseId(9), 2).await.unwrap();
    put_on_lease(&space, "/k", id).await;
    let begun = Instant::now();
    wait_for("four seconds with renewals", async || {
        assert_eq!(space.lease_keep_alive(id).await.unwrap(), Some(2));
        begun.elapsed() > Duration::from_secs(4)
    })
    .await;
    assert_eq!(get(&space, "/k").await.unwrap(), "1");

    let again = space.lease_grant(id, 9).await.unwrap_err();
    assert!(matches!(&again, Error::Invalid(text) if text == "lease already exists"), "{again}");
    space.lease_revoke(id).await.unwrap();
    assert_eq!(get(&space, "/k").await, None);
    let unknown = space.lease_revoke(id).await.unwrap_err();
    assert!(unknown.to_string().contains("requested lease not found"), "{unknown}");
    let long = space.lease_grant(LeaseId(0), 9_000_000_001).await.unwrap_err();
    assert!(long.to_string().contains("too large lease TTL"), "{long}");
    let longest = space.lease_grant(LeaseId(0), 9_000_000_000).await.unwrap();
    assert_eq!(longest.1, 9_000_000_000);
    shut_down(node).await;
}

/// The renewal comes when the time is over, but the revocation may not have been applied: it waits for
/// it, and never revives a lease whose keys are about to go.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_comes_too_late_waits_for_the_revocation() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let space = node.key_space();
    let (id, _) = space.lease_grant(LeaseId(7), 2).await.unwrap();
    put_on_lease(&space, "/k", id).await;
    let mut renewed = Instant::now();
    // The clock of the leases may have begun a moment later: then this one is renewed, and tried again.
    for _ in 0..20 {
        wait_for("the end of its time", async || renewed.elapsed() >= Duration::from_secs(2)).await;
        if space.lease_keep_alive(id).await.unwrap().is_none() {
            break;
        }
        assert_eq!(get(&space, "/k").await.unwrap(), "1", "it was renewed");
        renewed = Instant::now();
    }
    assert_eq!(space.lease_keep_alive(id).await.unwrap(), None);
    assert_eq!(get(&space, "/k").await, None);
    shut_down(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_outlive_a_restart_with_new_time_and_then_end() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let space = node.key_space();
    let (short, _) = space.lease_grant(LeaseId(0), 2).await.unwrap();
    let (long, _) = space.lease_grant(LeaseId(0), 1_000).await.unwrap();
    put_on_lease(&space, "/short", short).await;
    put_on_lease(&space, "/long", long).await;
    drop(space);
    shut_down(node).await;

    let begun = Instant::now();
    let node = start(directory.path()).await;
    let space = node.key_space();
    // Full time and the election timeout.
    let found = space.lease_time_to_live(long, true).await.unwrap().unwrap();
    assert_eq!((found.granted_seconds, found.keys), (1_000, vec![Bytes::from_static(b"/long")]));
    assert!((990..=1_001).contains(&found.remaining_seconds), "{}", found.remaining_seconds);
    assert_eq!(space.lease_keep_alive(short).await.unwrap(), Some(2));
    wait_for("expiry", async || get(&space, "/short").await.is_none()).await;
    assert!(begun.elapsed() >= Duration::from_secs(2));
    assert_eq!(space.leases().await.unwrap(), [long]);
    assert_eq!(get(&space, "/long").await.unwrap(), "1");
    shut_down(node).await;
}
