//! Uploads on a real node that nobody brings to their end, or only after a restart.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use revfs_api::KeySpace;
use revfs_api::keyspace::{Answer, KeyRange, RangeRead, Read, Revision};
use revfs_store::types::{Author, LeaseId, Op};
use revfs_store::{Body, Done, StoreOptions};

use super::Upload;
use crate::auth::Caller;
use crate::local::Local;
use crate::log::LogOptions;
use crate::{Node, NodeConfig};

async fn start(directory: &Path) -> Node {
    let mut config = NodeConfig::new(directory.join("data"));
    config.ballast_bytes = 1 << 20;
    config.disk_free_min_bytes = 1 << 20;
    config.log = LogOptions { segment_bytes: 256 << 10, ..LogOptions::default() };
    config.store = StoreOptions { map_bytes: 1 << 30, ..StoreOptions::default() };
    Node::start(config).await.unwrap()
}

async fn begin(local: &Arc<Local>, ttl_seconds: i64) -> Upload {
    let leases = Arc::clone(&local.node.leases);
    Upload::begin(leases, Caller::Trusted, Author::default(), ttl_seconds).await.unwrap()
}

fn part(number: u32) -> Vec<Op> {
    let value = Bytes::from(vec![b'x'; 600_000]);
    (0..2).map(|own| Op::put(format!("/up/{number}/{own}"), value.clone())).collect()
}

/// Sends parts 0 and 1 of an upload that nobody will revoke, as if its process had been killed.
async fn send_and_forget(local: &Arc<Local>, ttl_seconds: i64) -> LeaseId {
    let (id, _) =
        local.node.leases.grant(&Caller::Trusted, LeaseId::NONE, ttl_seconds).await.unwrap();
    for number in 0..2 {
        let body = Body::UploadPart { upload: id, part: number, ops: part(number) };
        let sent =
            local.node.proposer.propose(Author::default(), Bytes::new(), body).await.unwrap();
        assert_eq!(sent.result, Ok(Done::UploadKept { parts: number + 1 }));
    }
    assert_eq!(uploads(local), 1);
    id
}

/// Revision and number of keys.
async fn state(local: &Arc<Local>) -> (Revision, usize) {
    let read = Read::Range(RangeRead::new(KeyRange::prefix(b"/up/")));
    let answer = local.read(Revision::NONE, vec![read]).await.unwrap();
    let [Answer::Range(found)] = &answer.answers[..] else { panic!("{answer:?}") };
    (answer.current, found.kvs.len())
}

fn uploads(local: &Local) -> usize {
    local.node.store.read_view().unwrap().uploads().unwrap().len()
}

async fn wait_until_nothing_is_left(local: &Arc<Local>) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while uploads(local) > 0 || !local.leases().await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "parts or lease of an upload are left");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_outlive_a_restart_and_are_committed_behind_it() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let local = Arc::clone(&node.key_space);
    let before = state(&local).await;
    let id = send_and_forget(&local, 60).await;
    assert_eq!(state(&local).await, before);
    drop(local);
    node.shutdown(Duration::from_secs(10)).await.unwrap();

    let node = start(directory.path()).await;
    let local = Arc::clone(&node.key_space);
    assert_eq!(uploads(&local), 1);
    assert_eq!(state(&local).await, before);
    let (leases, author) = (Arc::clone(&local.node.leases), Author::default());
    let caller = Caller::Trusted;
    let mut upload = Upload { leases, caller, author, id, renewed: Instant::now(), parts: 2 };
    upload.send(part(2)).await.unwrap();
    let outcome = upload.commit(Bytes::new(), Vec::new(), Vec::new()).await.unwrap();
    let Ok(Done::Txn(answer)) = outcome.result else { panic!("{outcome:?}") };
    assert!(answer.succeeded && answer.changed && answer.answers.len() == 6);
    assert_eq!(state(&local).await, (before.0.next(), 6), "one revision");
    wait_until_nothing_is_left(&local).await;
    drop(local);
    node.shutdown(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_client_that_is_gone_once_its_lease_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let local = Arc::clone(&node.key_space);
    let before = state(&local).await;
    let begun = Instant::now();
    send_and_forget(&local, 2).await;
    wait_until_nothing_is_left(&local).await;
    assert!(begun.elapsed() >= Duration::from_secs(2), "not before its time");
    assert_eq!(state(&local).await, before);

    // Whose future is dropped in this process needs no lease for that.
    let mut upload = begin(&local, 1_000).await;
    upload.send(part(0)).await.unwrap();
    assert_eq!(uploads(&local), 1);
    drop(upload);
    wait_until_nothing_is_left(&local).await;
    assert_eq!(state(&local).await, before);
    drop(local);
    node.shutdown(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_or_commit_behind_the_end_of_the_lease_changes_nothing_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let local = Arc::clone(&node.key_space);
    let before = state(&local).await;
    let mut upload = begin(&local, 60).await;
    upload.send(part(0)).await.unwrap();
    local.node.leases.revoke(&Caller::Trusted, upload.id).await.unwrap();
    let error = upload.send(part(1)).await.unwrap_err();
    assert!(error.to_string().contains("took longer than its lease"), "{error}");
    let error = upload.commit(Bytes::new(), Vec::new(), Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("took longer than its lease"), "{error}");
    assert_eq!(state(&local).await, before);
    drop(local);
    node.shutdown(Duration::from_secs(10)).await.unwrap();
}
