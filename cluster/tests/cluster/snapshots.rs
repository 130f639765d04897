//! A member that lags behind the log is given the leader's store, and nobody else is.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use revfs_api::KeySpace;

use crate::rig::{Cluster, get, put, wait_for};

/// So short a log that a few changes push a member out of it.
const LOG_BYTES: u64 = 1 << 20;

async fn short_logs(count: u8) -> Cluster {
    Cluster::start_with(count, 0, |config| config.log_bytes_max = LOG_BYTES).await
}

/// Values of [`fill`].
const FILL: u32 = 256;

/// Changes a few keys until the logs of all that run have given up what they held at the call.
async fn fill(cluster: &Cluster, space: &Arc<dyn KeySpace>) {
    let value = "v".repeat(16 << 10);
    let before = cluster.segments();
    let mut number = 0_u32;
    let moved = async || {
        // Four times what the log may hold; then it is waited for, so that the store stays small.
        while number < FILL {
            number += 1;
            put(space, &format!("filler/{}", number % 20), &value).await.unwrap();
        }
        let now = cluster.segments();
        now.iter().zip(&before).all(|(now, before)| now.0 > before.1).then_some(())
    };
    wait_for("logs that have given up their beginning", moved).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_away_while_the_log_was_purged_comes_back_by_a_copy() {
    let mut cluster = short_logs(3).await;
    let away = cluster.follower().await;
    put(&cluster.space(away), "before", "v").await.unwrap();
    cluster.stop_member(away).await;
    let leader = cluster.leader().await;
    fill(&cluster, &cluster.space(leader)).await;
    put(&cluster.space(leader), "meanwhile", "v").await.unwrap();
    fill(&cluster, &cluster.space(leader)).await;
    assert_eq!(cluster.copies_made(), 0, "nobody is there to receive it");
    cluster.start_member(away).await;
    cluster.agree().await;
    assert_eq!(get(&cluster.space(away), "meanwhile").await.unwrap().unwrap(), "v");
    assert_eq!(cluster.copies_made(), 1);
    // It stands on the copy, and the old store is gone.
    let data_dir = cluster.config(away).data_dir;
    assert!(fs::read_to_string(data_dir.join("CURRENT")).unwrap().starts_with("store store-2\n"));
    wait_for("the replaced store is removed", async || {
        (!data_dir.join("store-1").exists()).then_some(())
    })
    .await;
    // It takes part as before, and once more after a restart.
    put(&cluster.space(away), "after", "v").await.unwrap();
    cluster.stop_member(away).await;
    cluster.start_member(away).await;
    put(&cluster.space(away), "again", "v").await.unwrap();
    cluster.agree().await;
    assert_eq!(cluster.copies_made(), 1, "what the log holds is never copied");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_lag_together_share_a_copy() {
    let mut cluster = short_logs(5).await;
    let first = cluster.follower().await;
    cluster.stop_member(first).await;
    let second = cluster.follower().await;
    cluster.stop_member(second).await;
    let leader = cluster.leader().await;
    let space = cluster.space(leader);
    fill(&cluster, &space).await;
    // Slow enough that the second comes while the first one is given its copy.
    cluster.start_member(first).await;
    cluster.start_member(second).await;
    for number in 0..20 {
        put(&space, "meanwhile", &number.to_string()).await.unwrap();
    }
    cluster.agree().await;
    assert!((1..=2).contains(&cluster.copies_made()), "{}", cluster.copies_made());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_cluster_makes_no_copy() {
    let cluster = Cluster::start_with(3, 0, |config| {
        config.snapshot_entries = 50;
        config.log_bytes_max = LOG_BYTES;
    })
    .await;
    let leader = cluster.leader().await;
    fill(&cluster, &cluster.space(leader)).await;
    fill(&cluster, &cluster.space(leader)).await;
    cluster.agree().await;
    assert_eq!(cluster.copies_made(), 0);
    for member in 0..3 {
        assert!(cluster.config(member).data_dir.join("store-1").exists());
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_catches_up_under_a_load_that_outruns_the_log() {
    let mut cluster = Cluster::start_with(3, 0, |config| {
        config.log_bytes_max = LOG_BYTES;
        // Some seconds for the copy of a few megabytes.
        config.copy_bytes_per_second = 2 << 20;
    })
    .await;
    let away = cluster.follower().await;
    cluster.stop_member(away).await;
    let leader = cluster.leader().await;
    let space = cluster.space(leader);
    fill(&cluster, &space).await;
    cluster.start_member(away).await;
    let value = "v".repeat(4 << 10);
    // More than the log holds, however fast the disk is.
    let mut left = 2 * LOG_BYTES;
    let mut caught_up = async || {
        for number in 0..20 {
            if left > 0 {
                put(&space, &format!("load/{number}"), &value).await.unwrap();
                left = left.saturating_sub(4 << 10);
            }
        }
        let there = cluster.revision(away).await + 100 > cluster.revision(leader).await;
        (there && cluster.copies_made() > 0).then_some(())
    };
    wait_for("a member that follows under load", &mut caught_up).await;
    cluster.agree().await;
    // Where the log reaches its bound it is purged to half of it, and a copy that was under way is in
    // vain: with a slow disk once for each half of what was put, at most.
    assert!(cluster.copies_made() <= 5, "{} copies", cluster.copies_made());
    tokio::time::timeout(Duration::from_secs(60), cluster.stop()).await.unwrap();
}
