//! Members come, go and are replaced, and nothing that an operator asks for costs the quorum.

use revfs_api::keyspace::Error;
use revfs_cluster::{Founding, Listed, NewMember, Node, StartError};
use revfs_store::MemberRole;

use crate::rig::{Cluster, PATIENCE, get, put, wait_for};

fn new_member(url: String) -> NewMember {
    NewMember { role: None, replaces: None, peer_urls: vec![url] }
}

impl Cluster {
    async fn add(&self, asked: usize, new: NewMember) -> u64 {
        let local = self.node(asked).local();
        wait_for("an added member", async || match local.member_add(new.clone()).await {
            Ok(id) => Some(id),
            // Nothing happened: on a busy machine a leader may be lost before it is asked.
            Err(Error::NoQuorum { .. }) => None,
            Err(error) => panic!("{error}"),
        })
        .await
    }

    /// A member as one of the nodes lists it.
    async fn listed(&self, asked: usize, id: u64) -> Option<Listed> {
        let members = self.node(asked).local().members_in_detail().await.unwrap();
        members.into_iter().find(|listed| listed.member.id == id)
    }

    async fn wait_for_vote(&self, asked: usize, id: u64) {
        let votes = async || self.listed(asked, id).await.filter(|listed| listed.votes);
        wait_for("a member that votes", votes).await;
    }

    /// Both of two sets of voters vote until the change from one to the other has ended.
    async fn wait_for_no_vote(&self, asked: usize, id: u64) {
        let waits = async || self.listed(asked, id).await.filter(|listed| !listed.votes);
        wait_for("a member that votes no more", waits).await;
    }

    /// Adds the node at its own address, starts it, and waits until it votes.
    async fn grow(&mut self, asked: usize, node: usize) -> u64 {
        let id = self.add(asked, new_member(self.url(node))).await;
        self.invite(node, id);
        self.start_member(node).await;
        self.wait_for_vote(asked, id).await;
        id
    }

    async fn is_writable(&self, node: usize) {
        put(&self.space(node), "writable", "yes").await.unwrap();
    }
}

fn invalid<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Invalid(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_becomes_two_and_two_become_three() {
    let mut cluster = Cluster::start_with_room(1, 2).await;
    put(&cluster.space(0), "before", "1").await.unwrap();
    let id = cluster.add(0, new_member(cluster.url(1))).await;
    let listed = cluster.listed(0, id).await.unwrap();
    assert!(!listed.votes && !listed.is_replica && listed.member.name.is_empty());
    cluster.is_writable(0).await;
    cluster.invite(1, id);
    cluster.start_member(1).await;
    cluster.wait_for_vote(0, id).await;
    assert_eq!(get(&cluster.space(1), "before").await.unwrap().unwrap(), "1");
    put(&cluster.space(1), "from the second", "2").await.unwrap();
    let third = cluster.grow(1, 2).await;
    put(&cluster.space(2), "from the third", "3").await.unwrap();
    cluster.agree().await;
    assert!(cluster.listed(2, third).await.unwrap().waits_for().is_none());
    // Any one of three may fail, also the one with which it began.
    cluster.stop_member(0).await;
    cluster.leader().await;
    cluster.is_writable(1).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_address_harms_nobody_and_is_taken_back_or_corrected() {
    let mut cluster = Cluster::start_with_room(1, 2).await;
    let local = cluster.node(0).local();
    // Nobody is there.
    let id = cluster.add(0, new_member(cluster.url(2))).await;
    cluster.is_writable(0).await;
    let says_why = async || {
        let listed = cluster.listed(0, id).await.unwrap();
        let reason = format!("an answer from {}: ", cluster.url(2));
        listed.waits_for().unwrap().contains(&reason).then_some(())
    };
    wait_for("why it is pending", says_why).await;
    cluster.is_writable(0).await;
    // Its address is taken, and so is that of a member.
    let taken = invalid(local.member_add(new_member(cluster.url(2))).await);
    assert_eq!(taken, "Peer URLs already exists");
    let taken = invalid(local.member_add(new_member(cluster.url(0))).await);
    assert_eq!(taken, "Peer URLs already exists");
    // Corrected, it comes up.
    local.member_set_urls(id, vec![cluster.url(1)]).await.unwrap();
    cluster.invite(1, id);
    cluster.start_member(1).await;
    cluster.wait_for_vote(0, id).await;
    // Another one is taken back, and its number is not given again.
    let id = cluster.add(1, new_member(cluster.url(2))).await;
    cluster.is_writable(1).await;
    local.member_remove(id, false).await.unwrap();
    assert!(cluster.listed(0, id).await.is_none());
    let gone = invalid(local.member_remove(id, false).await);
    assert_eq!(gone, "the member has been permanently removed from the cluster");
    cluster.is_writable(1).await;
    drop(local);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_waits_to_be_let_in_never_begins_a_cluster_of_its_own() {
    let mut cluster = Cluster::start_with_room(1, 1).await;
    let id = cluster.add(0, new_member("http://127.0.0.1:9".to_owned())).await;
    cluster.invite(1, id);
    cluster.start_member(1).await;
    cluster.stop_member(1).await;
    let mut config = cluster.config(1);
    config.founding = Founding::Alone;
    let node = Node::start(config).await.unwrap();
    let refused = put(&node.key_space(), "k", "v").await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!((node.member_id(), node.cluster_id()), (id, cluster.node(0).cluster_id()));
    node.shutdown(crate::rig::PATIENCE).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_go_the_leader_too_but_not_those_that_are_needed() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    let id = |cluster: &Cluster, node: usize| cluster.node(node).member_id();
    let (gone, stays) = (others[0], others[1]);
    let are_known = async || {
        let members = cluster.node(leader).local().members(true).await.unwrap();
        members.iter().all(|listed| listed.member.instance.is_some()).then_some(())
    };
    wait_for("the data directories of all", are_known).await;
    let (gone_id, stays_id, leader_id) =
        (id(&cluster, gone), id(&cluster, stays), id(&cluster, leader));
    cluster.stop_member(gone).await;
    cluster.is_writable(stays).await;
    let knows_silence = async || {
        let refused = cluster.node(leader).local().member_remove(stays_id, false).await;
        refused.err().map(|error| invalid::<()>(Err(error)))
    };
    // Its absence shows a little later; until then both others count as there.
    let reason = "re-configuration failed due to not enough started members";
    let silent = async || {
        let seen = cluster.listed(stays, gone_id).await.unwrap();
        (!seen.is_there()).then_some(())
    };
    wait_for("that one is not there", silent).await;
    assert!(knows_silence().await.unwrap().ends_with(reason));
    cluster.is_writable(stays).await;
    // Who is not there can go.
    cluster.node(stays).local().member_remove(gone_id, false).await.unwrap();
    assert!(cluster.listed(leader, gone_id).await.is_none());
    cluster.is_writable(leader).await;
    // The leader itself: it hands over, and is refused from then on.
    cluster.node(stays).local().member_remove(leader_id, false).await.unwrap();
    let alone = async || {
        let members = cluster.node(stays).local().members(true).await.ok()?;
        (members.len() == 1 && members[0].votes).then_some(())
    };
    wait_for("one member alone", alone).await;
    cluster.is_writable(stays).await;
    let last = cluster.node(stays).local().member_remove(stays_id, true).await;
    assert!(invalid(last).ends_with(reason), "force or not, one voter stays");
    // It learns that it was removed, and no vote of it is asked for any more.
    wait_for_removal(&cluster, leader).await;
    cluster.stop_member(leader).await;
    cluster.is_writable(stays).await;
    // So does one that was away when it was removed. The data of neither is started again.
    cluster.start_member(gone).await;
    wait_for_removal(&cluster, gone).await;
    cluster.stop_member(gone).await;
    for node in [leader, gone] {
        let refused = Node::start(cluster.config(node)).await.err().unwrap();
        assert!(matches!(refused, StartError::Removed { .. }), "{refused}");
    }
    cluster.stop().await;
}

async fn wait_for_removal(cluster: &Cluster, node: usize) {
    let removed = tokio::time::timeout(PATIENCE, cluster.node(node).removed()).await.unwrap();
    assert_eq!(removed.member, cluster.node(node).member_id());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_removal_waits_for_those_who_stay_and_loses_nothing() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (gone, out) = ((leader + 1) % 3, (leader + 2) % 3);
    put(&cluster.space(leader), "before", "1").await.unwrap();
    let (gone_id, out_id) = (cluster.node(gone).member_id(), cluster.node(out).member_id());
    cluster.stop_member(gone).await;
    let silent = async || {
        let listed = cluster.listed(leader, gone_id).await.unwrap();
        listed.seen.is_some_and(|seen| !seen.is_there).then_some(())
    };
    wait_for("that one is not there", silent).await;
    let local = cluster.node(leader).local();
    invalid(local.member_remove(out_id, false).await);
    let warning = local.member_remove(out_id, true).await.unwrap().unwrap();
    assert!(warning.starts_with("1 of the 2 voters that stay are there"), "{warning}");
    drop(local);
    // With the absent one back the change is agreed to, and the other one is let go.
    cluster.start_member(gone).await;
    let two = async || {
        let members = cluster.node(gone).local().members_in_detail().await.ok()?;
        (members.len() == 2 && members.iter().all(|listed| listed.votes)).then_some(())
    };
    wait_for("two voters", two).await;
    wait_for_removal(&cluster, out).await;
    cluster.stop_member(out).await;
    assert_eq!(get(&cluster.space(gone), "before").await.unwrap().unwrap(), "1");
    cluster.is_writable(gone).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_disk_is_replaced_at_the_same_address() {
    let mut cluster = Cluster::start(3).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    put(&cluster.space(leader), "k", "v").await.unwrap();
    let old = cluster.node(follower).member_id();
    cluster.stop_member(follower).await;
    cluster.wipe(follower);
    let new = NewMember { replaces: Some(old), ..new_member(cluster.url(follower)) };
    let id = cluster.add(leader, new.clone()).await;
    let twice = invalid(cluster.node(leader).local().member_add(new).await);
    assert!(twice.contains("replaces it already"), "{twice}");
    cluster.invite(follower, id);
    cluster.start_member(follower).await;
    cluster.wait_for_vote(leader, id).await;
    let is_gone = async || cluster.listed(leader, old).await.is_none().then_some(());
    wait_for("the old member gone", is_gone).await;
    assert_eq!(get(&cluster.space(follower), "k").await.unwrap().unwrap(), "v");
    let members = cluster.node(leader).local().members(true).await.unwrap();
    assert_eq!(members.iter().filter(|listed| listed.votes).count(), 3);
    cluster.agree().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_votes_when_it_is_promoted_and_a_standby_when_a_voter_is_gone() {
    let mut cluster = Cluster::start_with_room(3, 2).await;
    let leader = cluster.leader().await;
    let local = cluster.node(leader).local();
    let as_role = |role, url| NewMember { role: Some(role), ..new_member(url) };
    let id = cluster.add(leader, as_role(MemberRole::Learner, cluster.url(3))).await;
    let second = local.member_add(as_role(MemberRole::Learner, cluster.url(4))).await;
    assert!(invalid(second).ends_with("too many learner members in cluster"));
    let early = invalid(local.member_set_role(id, MemberRole::Voter).await);
    assert!(early.ends_with("can only promote a learner member which is in sync with leader"));
    cluster.invite(3, id);
    cluster.start_member(3).await;
    let learns = async || {
        let listed = cluster.listed(leader, id).await.unwrap();
        (listed.waits_for()? == format!("'revfs member promote {id:x}'")).then_some(())
    };
    wait_for("a learner that keeps up", learns).await;
    assert!(!cluster.listed(leader, id).await.unwrap().votes, "it was not asked to");
    local.member_set_role(id, MemberRole::Voter).await.unwrap();
    cluster.wait_for_vote(leader, id).await;
    let again = invalid(local.member_set_role(id, MemberRole::Voter).await);
    assert!(again.ends_with("can only promote a learner member"), "{again}");
    // Now it stands by, and votes once another one is gone.
    local.member_set_role(id, MemberRole::Standby).await.unwrap();
    let stands_by = async || {
        let listed = cluster.listed(leader, id).await.unwrap();
        (listed.waits_for()? == "a voter to fail").then_some(())
    };
    wait_for("a standby", stands_by).await;
    drop(local);
    let gone = (0..3).find(|node| *node != leader).unwrap();
    let gone_id = cluster.node(gone).member_id();
    cluster.stop_member(gone).await;
    cluster.wait_for_vote(leader, id).await;
    cluster.wait_for_no_vote(leader, gone_id).await;
    cluster.start_member(gone).await;
    cluster.wait_for_vote(leader, gone_id).await;
    cluster.wait_for_no_vote(leader, id).await;
    cluster.agree().await;
    cluster.stop().await;
}
