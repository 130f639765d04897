//! What came with a newer release is refused until all members speak it, and then taken on all of them.

use revfs_api::keyspace::Error;
use revfs_store::FIRST_VERSION;

use super::rig::{Cluster, PATIENCE, change, check, wait_for};

const NEXT: u32 = FIRST_VERSION + 1;

fn refusal(cluster: &Cluster, member: usize, version: u32) -> String {
    match cluster.proposer(member).check_spoken_by_all(version) {
        Err(Error::Invalid(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_with_the_next_version_is_refused_until_the_last_member_speaks_it() {
    let mut cluster = Cluster::start_speaking(PATIENCE, [NEXT, NEXT, FIRST_VERSION]).await;
    let id = cluster.id(2);
    cluster.leader().await;
    let mut meanwhile = Vec::new();
    for member in 0..3 {
        let refused = refusal(&cluster, member, NEXT);
        assert!(refused.contains("needs cluster version 2, and the cluster is at 1"), "{refused}");
        assert!(refused.contains(&format!("member {id:x} speaks 1 at most")), "{refused}");
        cluster.proposer(member).check_spoken_by_all(FIRST_VERSION).unwrap();
        let word = format!("meanwhile-{member};");
        let told = change(&cluster.local(member), &word).await;
        meanwhile.push((word, told));
    }
    cluster.stop_member(2).await;
    cluster.leader().await;
    refusal(&cluster, 0, NEXT);
    cluster.speaks[2] = NEXT;
    cluster.start_member(2).await;
    for member in 0..3 {
        let is_taken = async || cluster.proposer(member).check_spoken_by_all(NEXT).ok();
        wait_for("a cluster of the next version", is_taken).await;
        let refused = refusal(&cluster, member, NEXT + 1);
        assert!(refused.contains("needs cluster version 3, and the cluster is at 2"), "{refused}");
    }
    cluster.leader().await;
    for (word, told) in &meanwhile {
        check(word, told, cluster.count(word).await);
    }
    cluster.stop().await;
}
