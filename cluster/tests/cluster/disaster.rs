//! Most members are lost for good: one that is left goes on alone, with all that it has.

use crate::rig::{Cluster, get, put, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn one_survivor_goes_on_alone_and_the_lost_ones_cannot_touch_it() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    for number in 0..50 {
        put(&cluster.space(leader), &format!("k/{number}"), "acknowledged").await.unwrap();
    }
    cluster.agree().await;
    let survivor = cluster.follower().await;
    let old_id = cluster.space(survivor).status().await.unwrap().cluster_id;
    let lost: Vec<usize> = (0..3).filter(|&member| member != survivor).collect();
    for &member in &lost {
        cluster.stop_member(member).await;
    }
    cluster.stop_member(survivor).await;

    cluster.start_member_with(survivor, |config| config.force_new_cluster = true).await;
    let space = cluster.space(survivor);
    for number in 0..50 {
        let value = get(&space, &format!("k/{number}")).await.unwrap().unwrap();
        assert_eq!(value, "acknowledged");
    }
    put(&space, "alone", "v").await.unwrap();
    let status = space.status().await.unwrap();
    assert_ne!(status.cluster_id, old_id);
    assert_eq!(status.leader_id, status.member_id);

    // The lost ones come back: they are most of the old cluster, which is another one.
    for &member in &lost {
        cluster.start_member(member).await;
    }
    let other = cluster.space(lost[0]);
    wait_for("a change in the old cluster", async || put(&other, "old", "v").await.ok()).await;
    put(&space, "still alone", "v").await.unwrap();
    assert_eq!(get(&space, "old").await.unwrap(), None);
    assert_eq!(get(&other, "still alone").await.unwrap(), None);
    let after = space.status().await.unwrap();
    assert_eq!((after.raft_term, after.leader_id), (status.raft_term, status.member_id));
    // A store is open as long as somebody may ask it.
    drop((space, other));
    for &member in &lost {
        cluster.stop_member(member).await;
    }

    // Said again it changes nothing, and it need not be said again.
    for is_forced in [true, false] {
        cluster.stop_member(survivor).await;
        let tune: fn(&mut revfs_cluster::NodeConfig) =
            if is_forced { |config| config.force_new_cluster = true } else { |_| () };
        cluster.start_member_with(survivor, tune).await;
        let space = cluster.space(survivor);
        assert_eq!(get(&space, "still alone").await.unwrap().unwrap(), "v");
        assert_eq!(space.status().await.unwrap().cluster_id, status.cluster_id);
        put(&space, "again", "v").await.unwrap();
    }
    cluster.stop().await;
}
