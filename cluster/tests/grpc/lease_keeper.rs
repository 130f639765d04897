//! A lease that is kept outlives its time; one that is lost is told of.

use std::sync::Arc;
use std::time::Duration;

use revfs_api::client::LeaseKeeper;
use revfs_api::keyspace::Error;

use crate::node::Node;
use crate::scripted::{Scripted, quick, remote};

/// Far above what anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_kept_beyond_its_time_until_somebody_ends_it() {
    let node = Node::start().await;
    let keys = remote(node.socket(), quick()).await.unwrap();
    let mut kept = LeaseKeeper::grant(Arc::clone(&keys), 1).await.unwrap();
    let ttl = keys.lease_time_to_live(kept.id(), false).await.unwrap().unwrap().granted_seconds;
    let twice = Duration::from_secs(2 * u64::try_from(ttl).unwrap());
    let is_lost = tokio::time::timeout(twice, kept.lost()).await.is_ok();
    assert!(!is_lost && kept.is_held());
    assert_eq!(keys.leases().await.unwrap(), [kept.id()]);
    keys.lease_revoke(kept.id()).await.unwrap();
    tokio::time::timeout(LIMIT, kept.lost()).await.expect("it is told");
    assert!(!kept.is_held());
    let again = kept.revoke().await.unwrap_err();
    assert!(matches!(again, Error::Invalid(_)), "{again:?}");

    let given_up = LeaseKeeper::grant(Arc::clone(&keys), 60).await.unwrap();
    given_up.revoke().await.unwrap();
    assert!(keys.leases().await.unwrap().is_empty());
    drop(keys);
    node.stop().await;
}

#[tokio::test]
async fn a_lease_that_cannot_be_renewed_is_lost_when_it_may_have_ended() {
    let keys = Scripted::new();
    keys.grant_leases(1);
    let mut kept = LeaseKeeper::grant(keys.clone(), 1).await.unwrap();
    assert!(kept.is_held());
    keys.fail_with(Error::Unavailable { reason: "scripted".into() });
    let begun = std::time::Instant::now();
    tokio::time::timeout(LIMIT, kept.lost()).await.expect("it is told");
    assert!(!kept.is_held());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
