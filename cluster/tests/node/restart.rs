//! Starting, stopping and starting again.

use revfs_api::keyspace::Error;
use revfs_cluster::{Node, StartError};

use crate::rig::{all, config, get, put, shut_down, start, start_behind_dropped};

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_directory_becomes_a_cluster_of_one_at_the_first_election() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let space = node.key_space();
    let answer = put(&space, "/color", "red").await.unwrap();
    assert!(answer.changed && answer.succeeded);
    assert_eq!(get(&space, "/color").await.unwrap(), "red");

    let status = space.status().await.unwrap();
    assert_eq!(status.revision, answer.revision.0);
    assert_eq!(status.leader_id, node.member_id());
    assert_eq!(status.cluster_id, node.cluster_id());
    assert_eq!(status.process_id, std::process::id());
    assert_eq!(status.raft_term, 1);
    assert!(status.applied_index >= 1);
    assert!(status.log_bytes >= 256 << 10 && status.store_bytes > 0);
    assert_eq!(status.read_only, "");
    assert!(status.history_since.starts_with("20"), "{}", status.history_since);
    shut_down(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_restart_keeps_everything() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let (cluster, member) = (node.cluster_id(), node.member_id());
    for round in 0..5 {
        put(&node.key_space(), &format!("/k{round}"), format!("{round}")).await.unwrap();
    }
    let before = node.key_space().status().await.unwrap();
    shut_down(node).await;
    assert!(directory.path().join("data/log/clean").exists());

    let node = start(directory.path()).await;
    assert!(!directory.path().join("data/log/clean").exists());
    assert_eq!((node.cluster_id(), node.member_id()), (cluster, member));
    assert_eq!(all(&node.key_space(), "/").await.len(), 5);
    let after = node.key_space().status().await.unwrap();
    assert_eq!((after.revision, after.raft_term), (before.revision, before.raft_term + 1));
    put(&node.key_space(), "/k5", "5").await.unwrap();
    shut_down(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_on_the_same_directory_is_refused_with_the_pid() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let error = Node::start(config(directory.path())).await.err().unwrap();
    let StartError::InUse { pid, .. } = &error else { panic!("{error}") };
    assert_eq!(*pid, std::process::id().to_string());
    put(&node.key_space(), "/still", "there").await.unwrap();
    shut_down(node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_shut_down_refuses_changes_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    let space = node.key_space();
    shut_down(node).await;
    let error = put(&space, "/late", "1").await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. } | Error::Closed { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_dropped_holds_its_directory_until_its_log_has_ended() {
    let directory = tempfile::tempdir().unwrap();
    let node = start(directory.path()).await;
    put(&node.key_space(), "/k", "1").await.unwrap();
    drop(node);
    let node = start_behind_dropped(directory.path()).await;
    assert_eq!(get(&node.key_space(), "/k").await.unwrap(), "1");
    shut_down(node).await;
}

/// More entries than the log keeps, so that restarts begin behind a purge.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_purged_behind_what_the_store_holds() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.log_bytes_max = 4 << 20;
    let node = Node::start(config.clone()).await.unwrap();
    let space = node.key_space();
    let value = vec![7; 64 << 10];
    for round in 0..200 {
        put(&space, &format!("/large/{}", round % 10), value.clone()).await.unwrap();
    }
    crate::rig::wait_for("a short log", async || {
        space.status().await.unwrap().log_bytes <= config.log_bytes_max + (1 << 20)
    })
    .await;
    let revision = space.status().await.unwrap().revision;
    drop(space);
    shut_down(node).await;
    let node = Node::start(config).await.unwrap();
    assert_eq!(node.key_space().status().await.unwrap().revision, revision);
    assert_eq!(all(&node.key_space(), "/large/").await.len(), 10);
    shut_down(node).await;
}
