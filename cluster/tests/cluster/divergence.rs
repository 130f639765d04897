//! A member that holds other data than the rest is found, serves nothing, and is replaced; the rest goes on.
//! Nobody is blamed who holds the same.

use std::time::{Duration, Instant};

use revfs_api::keyspace::{Error, KeyRange, LeaseId, Revision};
use revfs_cluster::{NewMember, StartError};

use crate::rig::{Cluster, get, local_get, put, wait_for};

async fn filled(cluster: &Cluster) {
    let leader = cluster.leader().await;
    for number in 0..20 {
        put(&cluster.space(leader), &format!("k{number:02}"), "v").await.unwrap();
    }
}

async fn compact(cluster: &Cluster, member: usize) {
    let revision = Revision(cluster.revision(member).await - 1);
    cluster.space(member).compact(revision, false).await.unwrap();
}

/// Why a member serves nothing, once it does not.
async fn refusal(cluster: &Cluster, member: usize) -> String {
    let says_so = async || {
        let status = cluster.space(member).status().await.unwrap();
        status.read_only.contains("alarm CORRUPT").then_some(status.read_only)
    };
    wait_for("a member that is known to be corrupt", says_so).await
}

async fn serves_nothing(cluster: &Cluster, member: usize) {
    let space = cluster.space(member);
    let closed = |error: Option<Error>| {
        assert!(matches!(&error, Some(Error::Closed { .. })), "{error:?}");
    };
    closed(put(&space, "k", "v").await.err());
    closed(get(&space, "k01").await.err());
    closed(space.read(Revision::NONE, Vec::new()).await.err());
    closed(space.leases().await.err());
    closed(space.lease_grant(LeaseId(0), 60).await.err());
    closed(space.watch(vec![KeyRange::prefix(b"k")], Revision::NONE).await.err());
    closed(space.backup().await.err());
    space.hash_kv(Revision::NONE).await.unwrap();
}

async fn all_but_serve(cluster: &Cluster, odd: usize) {
    for member in (0..3).filter(|member| *member != odd) {
        let space = cluster.space(member);
        put(&space, "healthy", "yes").await.unwrap();
        assert_eq!(get(&space, "k07").await.unwrap().unwrap(), "v");
        assert_eq!(space.status().await.unwrap().read_only, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_differs_on_one_member_is_found_at_a_compaction_and_the_member_replaced() {
    let mut cluster = Cluster::start(3).await;
    filled(&cluster).await;
    let (leader, odd) = (cluster.leader().await, cluster.follower().await);
    let id = cluster.node(odd).member_id();
    cluster.stop_member(odd).await;
    cluster.plant_value(odd, "k07", "w").await;
    cluster.start_member(odd).await;
    get(&cluster.space(odd), "k00").await.unwrap();
    assert_eq!(local_get(&cluster.space(odd), "k07").await.unwrap(), "w", "nobody knows yet");
    let from = Revision(cluster.revision(odd).await + 1);
    let mut watch = cluster.space(odd).watch(vec![KeyRange::prefix(b"k")], from).await.unwrap();
    compact(&cluster, leader).await;
    let refusal = refusal(&cluster, odd).await;
    assert!(refusal.contains(&format!("revfs member replace {id:x}")), "{refusal}");
    serves_nothing(&cluster, odd).await;
    assert!(matches!(watch.next().await, Err(Error::Closed { .. })));
    all_but_serve(&cluster, odd).await;
    // It stays so when it is started again, and it is not even started if it is to be compared first.
    cluster.stop_member(odd).await;
    cluster.start_member(odd).await;
    serves_nothing(&cluster, odd).await;

    cluster.stop_member(odd).await;
    let refused = cluster.refused_start(odd, |config| config.initial_corrupt_check = true).await;
    assert!(matches!(refused, StartError::Diverged { member } if member == id), "{refused}");
    cluster.wipe(odd);
    let new = NewMember { role: None, replaces: Some(id), peer_urls: vec![cluster.url(odd)] };
    let new = cluster.local(leader).member_add(new).await.unwrap();
    cluster.invite(odd, new);
    cluster.start_member(odd).await;
    let is_whole = async || {
        let members = cluster.local(leader).members(true).await.ok()?;
        let votes = members.iter().filter(|listed| listed.votes).count();
        (members.len() == 3 && votes == 3).then_some(())
    };
    wait_for("three voters, and the old one gone", is_whole).await;
    assert_eq!(get(&cluster.space(odd), "k07").await.unwrap().unwrap(), "v");
    put(&cluster.space(odd), "whole", "again").await.unwrap();
    cluster.agree().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_only_one_member_has_is_found_when_it_is_time_to_look() {
    let mut cluster = Cluster::start_with(3, 0, |config| {
        config.corrupt_check_time = Some(Duration::from_millis(500));
    })
    .await;
    filled(&cluster).await;
    let odd = cluster.follower().await;
    cluster.stop_member(odd).await;
    cluster.plant_lease(odd, 77).await;
    cluster.start_member(odd).await;
    refusal(&cluster, odd).await;
    serves_nothing(&cluster, odd).await;
    all_but_serve(&cluster, odd).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_leader_has_another_one_lead() {
    let mut cluster = Cluster::start(3).await;
    filled(&cluster).await;
    let odd = cluster.follower().await;
    cluster.stop_member(odd).await;
    cluster.plant_value(odd, "k07", "w").await;
    cluster.start_member(odd).await;
    let mut leader = cluster.leader().await;
    while leader != odd {
        cluster.stop_member(leader).await;
        cluster.leader().await;
        cluster.start_member(leader).await;
        leader = cluster.leader().await;
    }
    compact(&cluster, odd).await;
    refusal(&cluster, odd).await;
    let led_by = async || (cluster.leader().await != odd).then_some(());
    wait_for("another leader", led_by).await;
    all_but_serve(&cluster, odd).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_members_nobody_knows_which_is_right_and_nothing_is_changed_any_more() {
    let mut cluster = Cluster::start(2).await;
    filled(&cluster).await;
    let odd = cluster.follower().await;
    cluster.stop_member(odd).await;
    cluster.plant_value(odd, "k07", "w").await;
    cluster.start_member(odd).await;
    let leader = cluster.leader().await;
    get(&cluster.space(odd), "k00").await.unwrap();
    compact(&cluster, leader).await;
    let refused = async || match put(&cluster.space(leader), "k", "v").await {
        Err(Error::Invalid(reason)) => Some(reason),
        _ => None,
    };
    let reason = wait_for("a cluster that takes no more", refused).await;
    assert_eq!(reason, "corrupt cluster");
    // As in etcd, reading goes on.
    for member in 0..2 {
        assert_eq!(get(&cluster.space(member), "k01").await.unwrap().unwrap(), "v");
        let status = cluster.space(member).status().await.unwrap();
        assert!(status.read_only.contains("CORRUPT"), "{}", status.read_only);
    }
    cluster.stop().await;
}

/// How long members are compared under load: `REVFS_SOAK` seconds.
fn soak() -> Duration {
    let seconds = std::env::var("REVFS_SOAK").map_or(4, |text| text.parse().unwrap());
    Duration::from_secs(seconds)
}

/// Under load, compactions, restarts and copies of the store all the time.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_blamed_who_holds_the_same() {
    let mut cluster = Cluster::start_with(3, 0, |config| {
        config.corrupt_check_time = Some(Duration::from_millis(300));
        config.log_bytes_max = 1 << 20;
        config.snapshot_entries = 500;
    })
    .await;
    cluster.leader().await;
    let end = Instant::now() + soak();
    let writers = [0, 1, 2].map(|writer| tokio::spawn(load(cluster.spaces(), writer, end)));
    let mut round = 0;
    while Instant::now() < end || round < 2 {
        let away = if round % 3 == 0 { cluster.leader().await } else { cluster.follower().await };
        cluster.stop_member(away).await;
        let other = cluster.leader().await;
        let before = cluster.revision(other).await;
        let moved = async || {
            let is_over = Instant::now() >= end;
            (is_over || cluster.revision(other).await > before + 50).then_some(())
        };
        wait_for("changes while a member is away", moved).await;
        cluster.start_member(away).await;
        cluster.leader().await;
        let compacted = Revision(cluster.revision(other).await.saturating_sub(20));
        // Another one may have compacted further; whether it is done does not matter.
        cluster.space(other).compact(compacted, false).await.ok();
        round += 1;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    cluster.agree().await;
    for member in 0..3 {
        assert_eq!(cluster.space(member).status().await.unwrap().read_only, "");
    }
    cluster.stop().await;
}

async fn load(spaces: crate::rig::Spaces, writer: usize, end: Instant) {
    let value = "v".repeat(2 << 10);
    let mut number = 0_usize;
    while Instant::now() < end {
        number += 1;
        let space = spaces.lock().unwrap()[(writer + number) % 3].clone();
        let Some(space) = space else {
            tokio::task::yield_now().await;
            continue;
        };
        // What fails under restarts is none of this test's.
        match number % 10 {
            0 => drop(space.lease_grant(LeaseId(0), 2).await),
            1 => drop(put(&space, &format!("d{}/f{number}", number % 7), "").await),
            _ => drop(put(&space, &format!("k{}", number % 50), &value).await),
        }
    }
}
