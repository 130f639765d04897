//! Members of two releases beside each other: the cluster works throughout, and is at the lowest version that all
//! of them speak. Who is too old for that is refused, and harms nobody.

use bytes::Bytes;
use revfs_api::client::Tls;
use revfs_cluster::raft::{TooOld, VersionError};
use revfs_cluster::{Listed, NewMember, NotInvited, SPOKEN_VERSION, StartError};

use crate::rig::{Cluster, PATIENCE, get, patient, put, wait_for};

const NEXT: u32 = SPOKEN_VERSION + 1;

async fn version(cluster: &Cluster, node: usize) -> u32 {
    cluster.space(node).status().await.unwrap().cluster_version
}

async fn are_writable(cluster: &Cluster, what: &str) {
    for node in 0..3 {
        let space = cluster.space(node);
        wait_for("an acknowledged change", async || put(&space, what, "v").await.ok()).await;
    }
}

/// What was written before the first of them was upgraded.
async fn shown(cluster: &Cluster, node: usize) -> Option<Bytes> {
    let space = cluster.space(node);
    wait_for("a confirmed read", async || get(&space, "before").await.ok()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_upgraded_one_after_the_other_and_the_cluster_follows_the_last() {
    let mut cluster = Cluster::start_with(3, 1, patient).await;
    cluster.leader().await;
    are_writable(&cluster, "before").await;
    for node in 0..3 {
        cluster.stop_member(node).await;
        cluster.start_member_with(node, |config| config.speaks = NEXT).await;
        cluster.leader().await;
        are_writable(&cluster, "during").await;
        if node < 2 {
            for asked in 0..3 {
                assert_eq!(version(&cluster, asked).await, SPOKEN_VERSION, "after {node}");
            }
        }
    }
    for node in 0..3 {
        let is_next = async || (version(&cluster, node).await == NEXT).then_some(());
        wait_for("the next version", is_next).await;
    }
    let members = cluster.local(0).members(false).await.unwrap();
    assert!(members.iter().all(|listed| listed.member.version == NEXT), "{members:?}");
    assert_eq!(shown(&cluster, 0).await.unwrap(), "v");

    // It is never lowered: the release before does not start on the data any more.
    let leader = cluster.leader().await;
    let old = cluster.follower().await;
    cluster.stop_member(old).await;
    let refused = cluster.refused_start(old, |_| ()).await;
    let too_old = TooOld { needed: NEXT, speaks: SPOKEN_VERSION };
    assert!(
        matches!(&refused, StartError::Version(VersionError::TooOld(found)) if *found == too_old),
        "{refused:?}"
    );
    let words = ["the cluster is at version 2", "speaks 1 at most", "use the release"];
    assert!(words.iter().all(|words| refused.to_string().contains(words)), "{refused}");
    cluster.start_member_with(old, |config| config.speaks = NEXT).await;
    cluster.agree().await;
    joins_only_as_the_next(&mut cluster, leader).await;
    cluster.stop().await;
}

/// Node 3 is added, of the release before at first.
async fn joins_only_as_the_next(cluster: &mut Cluster, asked: usize) {
    let new = NewMember { role: None, replaces: None, peer_urls: vec![cluster.url(3)] };
    let id = wait_for("an added member", async || {
        let local = cluster.local(asked);
        local.members(true).await.ok()?;
        // An addition whose answer was lost shows in the list.
        let is_at = |listed: &Listed| listed.member.peer_urls == new.peer_urls;
        let added = local.members(false).await.unwrap().into_iter().find(is_at);
        match added {
            Some(listed) => Some(listed.member.id),
            None => local.member_add(new.clone()).await.ok(),
        }
    })
    .await;
    // A node that asks as whom it comes is told at once.
    let (others, own) = ([cluster.url(0), cluster.url(1)], [cluster.url(3)]);
    let refused = revfs_cluster::invitation(&others, &own, Tls::default(), PATIENCE).await;
    let Err(NotInvited::TooOld(found)) = refused else { panic!("{refused:?}") };
    assert_eq!(found, TooOld { needed: NEXT, speaks: SPOKEN_VERSION });
    // One that comes all the same waits outside, and the list says for what.
    cluster.invite(3, id);
    cluster.start_member(3).await;
    let waits = async || {
        let members = cluster.local(asked).members_in_detail().await.ok()?;
        let listed = members.iter().find(|listed| listed.member.id == id)?;
        let words = "a newer release: it speaks cluster version 1, the cluster is at 2";
        (listed.waits_for() == Some(words) && !listed.is_replica).then_some(())
    };
    wait_for("a member that waits for a newer release", waits).await;
    are_writable(cluster, "beside").await;
    cluster.stop_member(3).await;
    cluster.start_member_with(3, |config| config.speaks = NEXT).await;
    let votes = async || {
        let members = cluster.local(asked).members(true).await.ok()?;
        members.iter().find(|listed| listed.member.id == id && listed.votes).map(drop)
    };
    wait_for("a member that votes", votes).await;
    assert_eq!(shown(cluster, 3).await.unwrap(), "v");
}
