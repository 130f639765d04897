//! What openraft answers, each of them before and after the change was applied.

use std::num::NonZeroU64;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use revfs_api::KeySpace as _;
use revfs_api::keyspace::Error;
use revfs_api::wire::peer::proposal_end::End;
use revfs_store::types::{Author, LeaseId};
use revfs_store::{Body, Command};

use super::rig::{Cluster, change, check, unknown, wait_for};
use crate::raft::{Ending, When};

/// So long a caller waits for what is never answered.
const TIMEOUT: Duration = Duration::from_secs(5);

/// openraft says that it does not lead of what it has not appended, and of nothing else.
const ALL: [(When, Ending); 9] = [
    (When::Before, Ending::ForwardToLeader),
    (When::Before, Ending::LogEntryDiscarded),
    (When::Before, Ending::Stopped),
    (When::Before, Ending::Panicked),
    (When::Before, Ending::Silence),
    (When::After, Ending::LogEntryDiscarded),
    (When::After, Ending::Stopped),
    (When::After, Ending::Panicked),
    (When::After, Ending::Silence),
];

/// One end of a change that is proposed on the leader, or on a member that forwards it there.
async fn end(cluster: &Cluster, (when, ending): (When, Ending), is_forwarded: bool) {
    let mut tries = 0;
    let (word, told, was_applied) = wait_for("a leader that stays", async || {
        let leader = cluster.leader().await;
        let by = if is_forwarded { cluster.others(leader)[0] } else { leader };
        tries += 1;
        let word = format!("{when:?}-{ending:?}-{is_forwarded}-{tries};");
        let injected = cluster.proposer(leader).raft.injected.clone();
        injected.plan(&word, when, ending);
        let told = change(&cluster.local(by), &word).await;
        let was_applied = injected.outcome(&word);
        // Another one led when it came, or then it was refused once more: by openraft, on a very slow machine.
        let is_spoilt =
            was_applied.is_none() || (ending == Ending::ForwardToLeader && told.is_err());
        if is_spoilt {
            check(&word, &told, cluster.count(&word).await);
            return None;
        }
        was_applied.map(|was_applied| (word, told, was_applied))
    })
    .await;
    let count = cluster.count(&word).await;
    check(&word, &told, count);
    match (when, ending) {
        // Nothing had happened: it was proposed again.
        (When::Before, Ending::ForwardToLeader) => assert_eq!(count, 1, "{word} {told:?}"),
        (When::Before, _) => {
            unknown(&word, &told);
            assert_eq!(count, 0, "{word} was proposed again");
        }
        (When::After, _) if was_applied => {
            assert_eq!(count, 1, "{word} {told:?}");
            // Who forwarded it may see it applied before it hears of the end.
            if !is_forwarded {
                unknown(&word, &told);
            }
        }
        // openraft itself had refused it, or lost the lead under it.
        (When::After, _) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_openraft_answers_a_change_is_applied_once_at_most() {
    let cluster = Cluster::start(TIMEOUT).await;
    let both = |end| [(end, false), (end, true)];
    let ends = ALL.into_iter().flat_map(both).map(|(way, forwarded)| end(&cluster, way, forwarded));
    join_all(ends).await;
    for member in 0..3 {
        cluster.proposer(member).raft.injected.break_silence();
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_lead_takes_no_forwarded_change_and_forwards_it_no_further() {
    let mut cluster = Cluster::start(TIMEOUT).await;
    let (author, note) = (Author::default(), Bytes::new());
    let body = Body::LeaseGrant { id: LeaseId(77), ttl_seconds: 600 };
    let command = Command { time: crate::proposal::now(), author, note, body };
    let command = command.encode().unwrap();
    let follower = wait_for("a leader that stays", async || {
        let leader = cluster.leader().await;
        let [follower, _] = cluster.others(leader);
        let number = NonZeroU64::new(7).unwrap();
        let end = cluster.proposer(follower).propose_for(number, command.clone()).await;
        (end == End::NotLeader(cluster.id(leader))).then_some(follower)
    })
    .await;
    let leases = wait_for("the leases", async || cluster.local(follower).leases().await.ok()).await;
    assert!(leases.is_empty(), "it went no further: {leases:?}");
    // Where nobody leads the caller is refused for sure, at its deadline.
    let others = cluster.others(follower);
    for other in others {
        cluster.stop_member(other).await;
    }
    let mut all = Vec::new();
    wait_for("a member that knows no leader", async || {
        let word = format!("lost-{};", all.len());
        let told = change(&cluster.local(follower), &word).await;
        // The lead may have been handed to it: then it is unknown.
        assert!(told.is_err(), "{told:?}");
        let is_sure = matches!(told, Err(Error::NoQuorum { .. }));
        all.push((word, told));
        is_sure.then_some(())
    })
    .await;
    for other in others {
        cluster.start_member(other).await;
    }
    cluster.leader().await;
    for (word, told) in &all {
        check(word, told, cluster.count(word).await);
    }
    cluster.stop().await;
}
