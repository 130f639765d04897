//! Leases by the leader's clock, asked for on any member.

use revfs_api::keyspace::{LeaseId, Op};

use crate::rig::{Cluster, change, get, wait_for};

fn leased(key: &'static str, value: &'static str, lease: LeaseId) -> Op {
    let mut op = Op::put(key, value);
    let Op::Put { lease: own, .. } = &mut op else { panic!("{op:?}") };
    *own = lease;
    op
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_does_not_lead_answers_for_leases_by_the_leaders_clock() {
    let cluster = Cluster::start(3).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let space = cluster.space(follower);
    let (id, ttl) = space.lease_grant(LeaseId(0), 600).await.unwrap();
    assert_eq!(space.lease_keep_alive(id).await.unwrap(), Some(ttl));
    let op = leased("k", "v", id);
    change(&space, op).await.unwrap();
    let state = space.lease_time_to_live(id, true).await.unwrap().unwrap();
    assert_eq!((state.granted_seconds, state.keys.len()), (ttl, 1));
    assert!(state.remaining_seconds <= ttl);
    assert_eq!(space.leases().await.unwrap(), [id]);
    assert_eq!(cluster.space(leader).leases().await.unwrap(), [id]);
    space.lease_revoke(id).await.unwrap();
    assert_eq!(space.lease_keep_alive(id).await.unwrap(), None);
    assert_eq!(get(&cluster.space(leader), "k").await.unwrap(), None);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_nobody_renews_ends_after_its_leader_was_lost() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (id, _) = cluster.space(leader).lease_grant(LeaseId(0), 1).await.unwrap();
    change(&cluster.space(leader), leased("k", "v", id)).await.unwrap();
    cluster.stop_member(leader).await;
    let next = cluster.leader().await;
    let space = cluster.space(next);
    let is_gone = async || get(&space, "k").await.is_ok_and(|found| found.is_none()).then_some(());
    wait_for("the end of the lease", is_gone).await;
    cluster.stop().await;
}
