//! Without most of its voters a cluster takes no change, and says so; with them it goes on by itself.

use std::time::{Duration, Instant};

use revfs_api::keyspace::Error;

use crate::rig::{Cluster, PATIENCE, get, local_get, put, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_changes_end_and_reads_of_what_is_there_go_on() {
    let mut cluster = Cluster::start(3).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    put(&cluster.space(leader), "k", "v").await.unwrap();
    assert_eq!(get(&cluster.space(follower), "k").await.unwrap().unwrap(), "v");
    for member in (0..3).filter(|&member| member != follower) {
        cluster.stop_member(member).await;
    }
    let began = Instant::now();
    let end = put(&cluster.space(follower), "lost", "v").await;
    assert!(matches!(end, Err(Error::NoQuorum { .. } | Error::OutcomeUnknown { .. })), "{end:?}");
    let read = get(&cluster.space(follower), "k").await;
    assert!(matches!(read, Err(Error::NoQuorum { .. } | Error::Timeout(_))), "{read:?}");
    assert!(began.elapsed() < PATIENCE, "every wait has a deadline");
    assert_eq!(local_get(&cluster.space(follower), "k").await.unwrap(), "v");

    cluster.start_member(leader).await;
    let space = cluster.space(follower);
    wait_for("an acknowledged change", async || put(&space, "again", "v").await.ok()).await;
    assert_eq!(get(&cluster.space(leader), "again").await.unwrap().unwrap(), "v");
    cluster.agree().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_stopped_hands_over_first() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let term = cluster.space(leader).status().await.unwrap().raft_term;
    cluster.stop_member(leader).await;
    let next = cluster.leader().await;
    let status = cluster.space(next).status().await.unwrap();
    assert_eq!(status.raft_term, term + 1, "one election was enough");
    put(&cluster.space(next), "k", "v").await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_refuses_connections_is_tried_again_with_pauses() {
    let mut cluster = Cluster::start(3).await;
    let follower = cluster.follower().await;
    cluster.stop_member(follower).await;
    let listener = tokio::net::TcpListener::bind(cluster.address(follower)).await.unwrap();
    let began = Instant::now();
    let mut calls = 0;
    while began.elapsed() < Duration::from_secs(3) {
        let call = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
        calls += u32::from(call.is_ok());
    }
    assert!(calls > 0, "it is still wanted");
    // A heartbeat each 50 ms, and replication as often.
    assert!(calls < 80 * 3, "{calls} in three seconds");
    cluster.stop().await;
}
