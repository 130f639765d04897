//! Ends as they really come about.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use revfs_api::keyspace::{Error, Result, TxnAnswer};
use tokio::task::JoinHandle;

use super::rig::{Cluster, PATIENCE, change, check, unknown, wait_for};

/// So long a caller waits where the deadline is what is tested.
const SHORT: Duration = Duration::from_secs(3);

/// A leader that does not take a change by then has lost its lease.
const APPENDED_WITHIN: Duration = Duration::from_secs(5);

type Told = Result<TxnAnswer>;

impl Cluster {
    fn propose(&self, by: usize, word: &str) -> JoinHandle<Told> {
        let (local, word) = (self.local(by), word.to_owned());
        tokio::spawn(async move { change(&local, &word).await })
    }

    /// Waits until the log of `at` is longer than `before`; false if the change ends without, or is not taken.
    async fn was_appended(&self, at: usize, before: u64, change: &JoinHandle<Told>) -> bool {
        let deadline = Instant::now() + APPENDED_WITHIN;
        while self.last_index(at) <= before {
            if change.is_finished() || Instant::now() > deadline {
                return false;
            }
            tokio::task::yield_now().await;
        }
        true
    }

    /// Waits until one of the others has as much in its log as `of`.
    async fn wait_copied(&self, of: usize) {
        let last = self.last_index(of);
        let has_all = |&other: &usize| self.last_index(other) >= last;
        let copied = async || self.others(of).iter().any(has_all).then_some(());
        wait_for("an entry that another member has, too", copied).await;
    }
}

/// Tries of what a very slow machine can spoil: a leader that heard nobody for a second takes no change, which
/// is asked again then.
const TRIES: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_times_out_is_unknown_and_applied_once_when_a_quorum_has_it() {
    let cluster = Cluster::start(SHORT).await;
    for tries in 1.. {
        let leader = cluster.leader().await;
        let (word, forwarded) = (format!("late-{tries};"), format!("forwarded-{tries};"));
        let others = cluster.others(leader);
        others.iter().for_each(|&other| cluster.disks[other].hold());
        let before = cluster.last_index(leader);
        let own = cluster.propose(leader, &word);
        let brought = cluster.propose(others[0], &forwarded);
        if cluster.was_appended(leader, before, &own).await {
            cluster.wait_copied(leader).await;
        }
        let (own, brought) = (own.await.unwrap(), brought.await.unwrap());
        others.iter().for_each(|&other| cluster.disks[other].release());
        cluster.leader().await;
        check(&forwarded, &brought, cluster.count(&forwarded).await);
        let count = cluster.count(&word).await;
        check(&word, &own, count);
        if count == 1 {
            assert!(unknown(&word, &own).contains("no answer within"), "{own:?}");
            break;
        }
        assert!(tries < TRIES, "it was never appended: {own:?}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_another_leader_overwrites_is_unknown_and_never_applied() {
    let mut cluster = Cluster::start(PATIENCE).await;
    for tries in 1.. {
        let leader = cluster.leader().await;
        let others = cluster.others(leader);
        let ids: HashSet<u64> = others.iter().map(|&other| cluster.id(other)).collect();
        for other in others {
            cluster.drop_member(other);
        }
        cluster.cut_off(leader, ids);
        let before = cluster.last_index(leader);
        let word = format!("dropped-{tries};");
        let own = cluster.propose(leader, &word);
        let was_appended = cluster.was_appended(leader, before, &own).await;
        for other in others {
            cluster.start_member(other).await;
        }
        cluster.leader_of(&others).await;
        cluster.cut_off(leader, HashSet::new());
        let told = own.await.unwrap();
        cluster.leader().await;
        let count = cluster.count(&word).await;
        check(&word, &told, count);
        if was_appended && told.is_err() {
            assert!(unknown(&word, &told).contains("another leader took over"), "{told:?}");
            assert_eq!(count, 0);
            break;
        }
        assert!(tries < TRIES, "it was never appended: {told:?}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_outlives_its_leader_is_applied_once_and_nobody_proposes_it_again() {
    let mut cluster = Cluster::start(PATIENCE).await;
    for tries in 1.. {
        let leader = cluster.leader().await;
        let (word, forwarded) = (format!("own-{tries};"), format!("forwarded-{tries};"));
        let others = cluster.others(leader);
        others.iter().for_each(|&other| cluster.disks[other].hold());
        let before = cluster.last_index(leader);
        let own = cluster.propose(leader, &word);
        let is_there = cluster.was_appended(leader, before, &own).await;
        let brought = cluster.propose(others[0], &forwarded);
        let are_there = is_there && cluster.was_appended(leader, before + 1, &brought).await;
        if are_there {
            cluster.wait_copied(leader).await;
        }
        // Both are in two logs, neither is committed, and replication ends under them.
        cluster.proposer(leader).raft.shutdown().await;
        let own = own.await.unwrap();
        others.iter().for_each(|&other| cluster.disks[other].release());
        let brought = brought.await.unwrap();
        cluster.drop_member(leader);
        cluster.leader().await;
        let counts = [cluster.count(&word).await, cluster.count(&forwarded).await];
        check(&word, &own, counts[0]);
        check(&forwarded, &brought, counts[1]);
        // The old leader learns the same.
        cluster.start_member(leader).await;
        cluster.leader().await;
        assert_eq!([cluster.count(&word).await, cluster.count(&forwarded).await], counts);
        if are_there {
            assert!(unknown(&word, &own).contains("stopped"), "{own:?}");
            assert_eq!(counts, [1, 1]);
            break;
        }
        assert!(tries < TRIES, "they were never appended: {own:?}, {brought:?}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_under_which_the_log_breaks_ends_as_it_is_told_and_the_member_takes_no_more() {
    let mut cluster = Cluster::start(PATIENCE).await;
    let leader = cluster.leader().await;
    cluster.disks[leader].break_down();
    let mut told = Vec::new();
    let refused = wait_for("a member that is closed", async || {
        let word = format!("broken-{};", told.len());
        told.push((word.clone(), change(&cluster.local(leader), &word).await));
        match told.last() {
            Some((_, Err(Error::Closed { reason }))) => Some(reason.to_string()),
            _ => None,
        }
    })
    .await;
    assert!(refused.contains("sync"), "{refused}");
    cluster.drop_member(leader);
    cluster.disks[leader].release();
    cluster.leader().await;
    for (word, told) in &told {
        check(word, told, cluster.count(word).await);
    }
    cluster.start_member(leader).await;
    cluster.leader().await;
    for (word, told) in &told {
        check(word, told, cluster.count(word).await);
    }
    cluster.stop().await;
}
