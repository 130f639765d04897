//! The clock on a real node that may not do what is due.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use revfs_store::types::{Author, LeaseId};
use revfs_store::{Alarm, AlarmKind, Body, Done, StoreOptions};

use crate::auth::Caller;
use crate::local::Local;
use crate::log::LogOptions;
use crate::{Node, NodeConfig};

async fn set_corrupt(local: &Arc<Local>, is_raised: bool) {
    let alarm = Alarm { member: 1, kind: AlarmKind::Corrupt };
    let body = Body::Alarm { alarm, is_raised };
    let set = local.node.proposer.propose(Author::default(), Bytes::new(), body).await.unwrap();
    assert_eq!(set.result, Ok(Done::AlarmSet { changed: true }));
}

async fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come true");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_whose_expiry_an_alarm_forbids_ends_when_the_alarm_is_lifted() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = NodeConfig::new(directory.path().join("data"));
    config.ballast_bytes = 1 << 20;
    config.disk_free_min_bytes = 1 << 20;
    config.log = LogOptions { segment_bytes: 256 << 10, ..LogOptions::default() };
    config.store = StoreOptions { map_bytes: 1 << 30, ..StoreOptions::default() };
    let node = Node::start(config).await.unwrap();
    let local = Arc::clone(&node.key_space);
    let (id, _) = local.node.leases.grant(&Caller::Trusted, LeaseId(7), 2).await.unwrap();
    set_corrupt(&local, true).await;
    let begun = Instant::now();
    wait_for("the expiry", || begun.elapsed() > Duration::from_secs(3)).await;
    let lives = || local.node.store.read_view().unwrap().lease(id).unwrap().is_some();
    assert!(lives());
    assert_eq!(local.node.leases.book.with(|deadlines| deadlines.contains(id)), Some(true));
    set_corrupt(&local, false).await;
    wait_for("the end of the lease", || !lives()).await;
    drop(local);
    node.shutdown(Duration::from_secs(10)).await.unwrap();
}
