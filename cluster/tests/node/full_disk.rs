//! A full disk refuses changes before they reach the log, and passes; a failed flush closes the node;
//! behind one that stalls, no more is queued than the bounds allow.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use revfs_api::keyspace::{Error, KeyRange, LeaseId, Op, Origin, Txn};
use revfs_cluster::Node;
use revfs_cluster::log::{DiskOperation, Faults};

use crate::rig::{all, config, get, put, shut_down, start, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn without_room_for_the_next_segment_changes_are_refused_until_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let mut config = config(directory.path());
    let switch = Arc::clone(&full);
    config.log.spares_max = 0;
    config.log.faults = Faults::new(move |operation, _| {
        if operation == DiskOperation::Create && switch.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        Ok(())
    });
    let node = Node::start(config).await.unwrap();
    let space = node.key_space();
    full.store(true, Ordering::Relaxed);
    let mut acknowledged = 0;
    let error = loop {
        match put(&space, &format!("/k{acknowledged:03}"), vec![1; 20_000]).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
        assert!(acknowledged < 100, "the disk is full, but nobody noticed");
    };
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    assert!(!space.status().await.unwrap().read_only.is_empty());
    assert_eq!(get(&space, "/k000").await.unwrap().len(), 20_000);
    assert!(node.failure().is_none());

    full.store(false, Ordering::Relaxed);
    wait_for("space", async || put(&space, "/again", "1").await.is_ok()).await;
    assert_eq!(all(&space, "/k").await.len(), acknowledged);
    assert_eq!(space.status().await.unwrap().read_only, "");
    drop(space);
    shut_down(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_wanted_free_space_changes_are_refused_before_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let (lease, _) = node.key_space().lease_grant(LeaseId(0), 600).await.unwrap();
    shut_down(node).await;
    let mut config = config(directory.path());
    config.disk_free_min_bytes = 1 << 60;
    let node = Node::start(config).await.unwrap();
    let before = node.key_space().status().await.unwrap();
    let error = put(&node.key_space(), "/k", "1").await.unwrap_err();
    assert!(matches!(&error, Error::NoSpace { reason } if reason.contains("are free")), "{error}");
    assert_eq!(node.key_space().status().await.unwrap().revision, before.revision);
    // What makes room passes.
    let everything = Op::Delete { range: KeyRange::prefix(b"/"), prev_kv: false };
    let txn = Txn { success: vec![everything], ..Txn::default() };
    node.key_space().txn(txn, Origin::default()).await.unwrap();
    // Locks hang on leases: their end needs no room.
    node.key_space().lease_revoke(lease).await.unwrap();
    assert_eq!(node.key_space().leases().await.unwrap(), []);
    shut_down(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_flush_closes_the_node_until_it_is_started_again() {
    let directory = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let mut config = config(directory.path());
    let switch = Arc::clone(&broken);
    config.log.faults = Faults::new(move |operation, _| {
        if operation == DiskOperation::Sync && switch.load(Ordering::Relaxed) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    });
    let node = Node::start(config).await.unwrap();
    let space = node.key_space();
    put(&space, "/kept", "1").await.unwrap();
    broken.store(true, Ordering::Relaxed);
    let error = put(&space, "/unknown", "1").await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. } | Error::Closed { .. }), "{error}");
    broken.store(false, Ordering::Relaxed);
    let error = put(&space, "/refused", "1").await.unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{error}");
    assert!(node.failure().is_some());
    // Reads go on from what was applied.
    assert_eq!(get(&space, "/kept").await.unwrap(), "1");
    drop(space);
    assert!(node.shutdown(Duration::from_secs(5)).await.is_err());

    let node = start(directory.path()).await;
    assert_eq!(get(&node.key_space(), "/kept").await.unwrap(), "1");
    assert_eq!(get(&node.key_space(), "/refused").await, None);
    put(&node.key_space(), "/again", "1").await.unwrap();
    shut_down(node).await;
}

/// A file system of its own that is really full, where the test may mount one.
#[tokio::test(flavor = "multi_thread")]
async fn a_really_full_file_system_gives_no_space_and_recovers() {
    let directory = tempfile::tempdir().unwrap();
    let result = nix::mount::mount(
        Some("tmpfs"),
        directory.path(),
        Some("tmpfs"),
        nix::mount::MsFlags::empty(),
        Some("size=16m"),
    );
    result.expect("this test mounts a file system of its own: run it as root");
    let mounted = Mounted(directory.path().to_owned());
    let node = start(directory.path()).await;
    let space = node.key_space();
    put(&space, "/first", "1").await.unwrap();
    let filler = directory.path().join("filler");
    fill(&filler);
    let error = put(&space, "/second", vec![1; 10_000]).await.unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error}");
    assert_eq!(get(&space, "/first").await.unwrap(), "1");
    std::fs::remove_file(&filler).unwrap();
    wait_for("space", async || put(&space, "/second", vec![1; 10_000]).await.is_ok()).await;
    drop(space);
    shut_down(node).await;
    let node = start(directory.path()).await;
    assert_eq!(all(&node.key_space(), "/").await.len(), 2);
    shut_down(node).await;
    drop(mounted);
}

fn fill(path: &std::path::Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    let piece = vec![0; 64 << 10];
    while file.write_all(&piece).is_ok() {}
}

/// Unmounts when dropped.
struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_whose_callers_have_gone_keep_their_place_until_they_are_decided() {
    const IN_FLIGHT_MAX: usize = 4_096;
    let directory = tempfile::tempdir().unwrap();
    let stalled = Arc::new((Mutex::new(false), Condvar::new()));
    let mut config = config(directory.path());
    config.proposal_timeout = Duration::from_millis(500);
    let gate = Arc::clone(&stalled);
    config.log.faults = Faults::new(move |operation, _| {
        if operation == DiskOperation::Sync {
            let (stalled, over) = &*gate;
            over.wait_while(&mut stalled.lock(), |stalled| *stalled);
        }
        Ok(())
    });
    let node = Node::start(config).await.unwrap();
    let space = node.key_space();
    let error = {
        *stalled.0.lock() = true;
        let mut puts = tokio::task::JoinSet::new();
        for number in 0..IN_FLIGHT_MAX {
            let space = Arc::clone(&space);
            puts.spawn(async move { put(&space, &format!("/k{number:04}"), "1").await });
        }
        for outcome in puts.join_all().await {
            assert!(matches!(outcome, Err(Error::OutcomeUnknown { .. })), "{outcome:?}");
        }
        let error = put(&space, "/one-more", "1").await.unwrap_err();
        *stalled.0.lock() = false;
        stalled.1.notify_all();
        error
    };
    assert!(matches!(error, Error::Busy { .. }), "{error}");

    wait_for("room", async || put(&space, "/again", "1").await.is_ok()).await;
    assert_eq!(all(&space, "/k").await.len(), IN_FLIGHT_MAX, "each was decided in the end");
    assert_eq!(get(&space, "/one-more").await, None);
    drop(space);
    shut_down(node).await;
}
