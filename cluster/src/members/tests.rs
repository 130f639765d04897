//! What is decided, case by case: each line is a cluster as its leader sees it, and the next step.

use std::collections::BTreeSet;
use std::time::Duration;

use revfs_store::{Member, MemberRole, MemberRow};

use super::decision::{Introduction, Peer, Replicas, Seen, Step, next_step};
use super::waiting::{Absence, Waiting, waiting, waiting_to_leave};

const CLUSTER: u64 = 0xC;

fn url(id: u64) -> String {
    format!("http://m{id}:2380")
}

/// A member with a row as it is once it has been reached.
fn member(id: u64, role: MemberRole) -> Member {
    let peer_urls = vec![url(id)];
    let instance = Some(u128::from(id) << 64);
    Member { id, role, joined: true, instance, version: 1, peer_urls, ..Member::default() }
}

fn pending(id: u64, role: MemberRole) -> Member {
    Member { joined: false, instance: None, version: 0, ..member(id, role) }
}

/// One that keeps up.
fn there() -> Peer {
    Peer {
        introduced: None,
        lag: Some(0),
        kept_up_for: Some(Duration::from_secs(60)),
        silent_for: Some(Duration::ZERO),
    }
}

fn gone_for(seconds: u64) -> Peer {
    Peer { kept_up_for: None, silent_for: Some(Duration::from_secs(seconds)), ..there() }
}

fn silent(id: u64, seconds: u64) -> Waiting {
    let absence = Absence::Silent { url: url(id), since: Duration::from_secs(seconds) };
    Waiting::Return { absence, is_stood_in: false }
}

fn introduced(member: u64, instance: u128) -> Peer {
    let found = Introduction { cluster: CLUSTER, member, instance, version: 1 };
    Peer { introduced: Some(Ok(found)), ..Peer::default() }
}

/// Voters 1 (which leads) to `voters`, all of them as they should be.
fn cluster(voters: u64) -> Seen {
    let ids = 1..=voters;
    let row = |id| (id, MemberRow::Live(member(id, MemberRole::Voter)));
    Seen {
        cluster: CLUSTER,
        own: 1,
        rows: ids.clone().map(row).collect(),
        version: 1,
        replicas: Replicas {
            voters: ids.clone().collect(),
            counted: ids.clone().collect(),
            addresses: ids.clone().map(|id| (id, url(id))).collect(),
            ..Replicas::default()
        },
        peers: ids.skip(1).map(|id| (id, there())).collect(),
        silence_max: Duration::from_secs(3),
        leading_for: Duration::from_secs(3_600),
        standby_after: Duration::from_secs(60),
    }
}

impl Seen {
    fn with(mut self, member: Member, peer: Peer) -> Self {
        self.peers.insert(member.id, peer);
        self.rows.insert(member.id, MemberRow::Live(member));
        self
    }

    /// The member receives the log.
    fn learning(mut self, member: Member, peer: Peer) -> Self {
        self.replicas.addresses.insert(member.id, url(member.id));
        self.with(member, peer)
    }

    fn peer(mut self, id: u64, peer: Peer) -> Self {
        self.peers.insert(id, peer);
        self
    }

    fn removed(mut self, id: u64) -> Self {
        self.rows.insert(id, MemberRow::Removed);
        self
    }

    fn voters(mut self, voters: &[u64]) -> Self {
        self.replicas.voters = voters.iter().copied().collect();
        self.replicas.counted = self.replicas.voters.clone();
        self
    }

    fn step(&self) -> Option<Step> {
        next_step(self)
    }

    fn waits(&self, id: u64) -> Option<Waiting> {
        waiting(self, self.rows[&id].live().unwrap())
    }
}

fn votes(voters: &[u64]) -> Option<Step> {
    Some(Step::SetVoters(voters.iter().copied().collect::<BTreeSet<u64>>()))
}

use MemberRole::{Learner, ReadOnly, Standby, Voter};

#[test]
fn nothing_is_done_where_all_is_as_it_should_be() {
    for voters in 1..=5 {
        let seen = cluster(voters);
        assert_eq!(seen.step(), None);
        assert!((1..=voters).all(|id| seen.waits(id).is_none()));
    }
}

#[test]
fn a_change_on_its_way_is_waited_for_and_one_that_was_left_is_ended() {
    let mut seen = cluster(3).removed(3);
    seen.replicas.is_joint = true;
    assert_eq!(seen.step(), Some(Step::Settle));
    seen.replicas.is_moving = true;
    assert_eq!(seen.step(), None);
}

#[test]
fn who_is_half_way_to_vote_waits_for_its_vote() {
    let mut seen = cluster(3);
    seen.replicas.is_joint = true;
    seen.replicas.counted.remove(&3);
    assert_eq!(seen.waits(3), Some(Waiting::Vote));
    assert_eq!(seen.waits(2), None);
}

#[test]
fn whom_replication_knows_without_a_row_is_adopted_first() {
    let mut seen = cluster(3).removed(2);
    seen.rows.remove(&3);
    let adopt = |id, role| Some(Step::Adopt { id, role, address: url(id) });
    assert_eq!(seen.step(), adopt(3, Voter));
    assert_eq!(seen.clone().voters(&[1, 2]).step(), adopt(3, Learner));
    seen.replicas.is_moving = true;
    assert_eq!(seen.step(), None);
}

#[test]
fn who_is_pending_counts_nowhere_until_it_has_come_up_as_itself() {
    let new = pending(4, Voter);
    let no_answer = Peer { introduced: Some(Err("connection refused".into())), ..Peer::default() };
    for peer in [Peer::default(), no_answer.clone()] {
        let seen = cluster(3).with(new.clone(), peer);
        assert_eq!(seen.step(), None);
        assert!(matches!(seen.waits(4), Some(Waiting::Answer { .. })));
    }
    let seen = cluster(3).with(new.clone(), no_answer);
    let words = seen.waits(4).unwrap().to_string();
    assert!(words.contains("http://m4:2380: connection refused"), "{words}");
    // A wrong address: another member answers there, or one of another cluster.
    let seen = cluster(3).with(new.clone(), introduced(2, 2 << 64));
    assert_eq!(seen.step(), None);
    assert!(matches!(seen.waits(4), Some(Waiting::Another { member: 2, .. })));
    let mut other = introduced(4, 9);
    let Some(Ok(found)) = &mut other.introduced else { unreachable!("it was introduced") };
    found.cluster = 0xD;
    let seen = cluster(3).with(new.clone(), other);
    assert_eq!(seen.step(), None);
    assert!(matches!(seen.waits(4), Some(Waiting::Another { cluster: 0xD, .. })));
    // The data of another member, and a release that is too old.
    let seen = cluster(3).with(new.clone(), introduced(4, 2 << 64));
    assert_eq!(
        (seen.step(), seen.waits(4)),
        (None, Some(Waiting::NewDirectory { url: url(4), of: 2 }))
    );
    let mut seen = cluster(3).with(new.clone(), introduced(4, 9));
    seen.version = 2;
    assert_eq!(seen.step(), None);
    assert_eq!(seen.waits(4), Some(Waiting::NewerRelease { speaks: 1, needed: 2 }));
    // It is new.
    let seen = cluster(3).with(new, introduced(4, 9));
    assert_eq!(seen.step(), Some(Step::Identify { id: 4, instance: 9, version: 1 }));
    assert_eq!(seen.waits(4), Some(Waiting::Leader));
}

#[test]
fn who_was_identified_learns_and_votes_once_it_keeps_up() {
    let new = || member(2, Voter);
    let seen = cluster(1).with(new(), introduced(2, 2 << 64));
    assert_eq!(seen.step(), Some(Step::AddLearner { id: 2, address: url(2) }));
    let unheard = Peer::default();
    let far = Peer { lag: Some(70_000), kept_up_for: None, ..there() };
    let just_now = Peer { kept_up_for: Some(Duration::from_millis(900)), ..there() };
    for (peer, waits) in [
        (unheard, Waiting::FirstAnswer),
        (far, Waiting::Log { behind: 70_000 }),
        (just_now, Waiting::Log { behind: 0 }),
        (gone_for(4), silent(2, 4)),
    ] {
        let seen = cluster(1).learning(new(), peer);
        assert_eq!((seen.step(), seen.waits(2)), (None, Some(waits)));
    }
    let seen = cluster(1).learning(new(), there());
    assert_eq!((seen.step(), seen.waits(2)), (votes(&[1, 2]), Some(Waiting::Vote)));
    // Not while too few of the voters are there to agree: 1 of 3, and 2 of the 4 that would be.
    let seen = cluster(3).learning(member(4, Voter), there());
    assert_eq!(seen.step(), votes(&[1, 2, 3, 4]));
    assert_eq!(seen.clone().peer(2, gone_for(9)).step(), votes(&[1, 2, 3, 4]));
    assert_eq!(seen.peer(2, gone_for(9)).peer(3, gone_for(9)).step(), None);
}

#[test]
fn learners_vote_only_if_they_are_wanted_to() {
    for (role, waits) in [
        (Learner, Some(Waiting::Promotion { id: 4 })),
        (Standby, Some(Waiting::Failure)),
        (ReadOnly, None),
    ] {
        let seen = cluster(3).learning(member(4, role), there());
        assert_eq!((seen.step(), seen.waits(4)), (None, waits));
    }
    let seen = cluster(3).with(member(3, Learner), there());
    assert_eq!(seen.step(), votes(&[1, 2]), "a voter that is wanted as a learner");
}

#[test]
fn who_was_removed_votes_no_more_and_then_is_gone() {
    let seen = cluster(3).removed(3);
    assert_eq!(seen.step(), votes(&[1, 2]));
    assert_eq!(seen.clone().voters(&[1, 2]).step(), Some(Step::RemoveLearner { id: 3 }));
    // It does not matter whether it is there, but those who are left must be.
    assert_eq!(seen.clone().peer(3, gone_for(99)).step(), votes(&[1, 2]));
    assert_eq!(seen.peer(2, gone_for(9)).step(), None);
    // The leader hands over to whoever keeps up, the nearest first.
    let seen = cluster(3).removed(1);
    let nearest = Peer { lag: Some(3), ..there() };
    assert_eq!(seen.clone().peer(2, nearest).step(), Some(Step::HandOver { to: 3 }));
    assert_eq!(seen.peer(2, gone_for(9)).peer(3, gone_for(9)).step(), None);
}

#[test]
fn a_removal_that_was_forced_asks_nobody_who_stays() {
    let without = |row: MemberRow| {
        let mut seen = cluster(3).peer(3, gone_for(9));
        seen.rows.insert(2, row);
        seen
    };
    let asked = without(MemberRow::Removed);
    assert_eq!(asked.step(), None, "1 of the 2 that would stay is there");
    assert_eq!(asked.leaving().collect::<Vec<_>>(), [2]);
    assert_eq!(waiting_to_leave(&asked, 2), Waiting::Leave { there: 1, of: 2 });
    assert_eq!(without(MemberRow::RemovedByForce).step(), votes(&[1, 3]));
    // Also a leader that goes by force hands over to who keeps up.
    let mut leader = cluster(3).peer(3, gone_for(9));
    leader.rows.insert(1, MemberRow::RemovedByForce);
    assert_eq!(leader.step(), Some(Step::HandOver { to: 2 }));
}

#[test]
fn what_a_voter_that_is_not_there_waits_for_is_told() {
    let with = |introduced| cluster(3).peer(3, Peer { introduced, ..gone_for(12) });
    assert_eq!(with(None).waits(3), Some(silent(3, 12)));
    let refused = with(Some(Err("connection refused".into())));
    let words = refused.waits(3).unwrap().to_string();
    assert_eq!(words, "an answer from http://m3:2380: connection refused");
    // It answers, and is about to go on; or it has lost its data; or somebody else is there.
    assert_eq!(with(introduced(3, 3 << 64).introduced).waits(3), Some(silent(3, 12)));
    let wiped = with(introduced(3, 9).introduced).waits(3).unwrap().to_string();
    assert!(wiped.contains("'revfs member replace 3 http://m3:2380'"), "{wiped}");
    let other = with(introduced(4, 4 << 64).introduced).waits(3).unwrap().to_string();
    assert!(other.contains("member 4 is now"), "{other}");
    let unheard = cluster(3).peer(3, Peer::default());
    assert_eq!(unheard.waits(3), Some(Waiting::FirstAnswer));
}

#[test]
fn an_address_follows_its_row() {
    let mut moved = member(2, Voter);
    moved.peer_urls = vec!["http://a:1".into(), "http://b:1".into()];
    let address = "http://a:1,http://b:1".to_owned();
    let seen = cluster(3).with(moved.clone(), there());
    assert_eq!(seen.step(), Some(Step::SetAddress { id: 2, address }));
    moved.peer_urls.clear();
    assert_eq!(cluster(3).with(moved, there()).step(), None, "a founder that has none yet");
}

#[test]
fn a_member_is_replaced_in_one_change() {
    let new = Member { replaces: Some(3), ..member(4, Voter) };
    let seen = cluster(3).learning(new.clone(), gone_for(9)).peer(3, gone_for(999));
    assert_eq!(seen.step(), None, "the old one stays until the new one keeps up");
    let seen = seen.peer(4, there());
    assert_eq!(seen.step(), votes(&[1, 2, 4]));
    let seen = seen.voters(&[1, 2, 4]);
    assert_eq!(seen.step(), Some(Step::RemoveRow { id: 3 }));
    assert_eq!(seen.removed(3).step(), Some(Step::RemoveLearner { id: 3 }));
    // A learner is replaced as well.
    let new = Member { replaces: Some(4), ..member(5, Learner) };
    let seen = cluster(3).learning(member(4, Learner), gone_for(99)).learning(new, there());
    assert_eq!(seen.step(), Some(Step::RemoveRow { id: 4 }));
    // A leader that is replaced hands over first.
    let new = Member { replaces: Some(1), ..member(4, Voter) };
    assert_eq!(cluster(3).learning(new.clone(), there()).step(), Some(Step::HandOver { to: 2 }));
    let seen = cluster(1).learning(new, there());
    assert_eq!(seen.step(), votes(&[1, 4]), "it is to lead, so it votes first");
    assert_eq!(seen.voters(&[1, 4]).step(), Some(Step::HandOver { to: 4 }));
}

#[test]
fn a_standby_votes_in_place_of_who_is_gone_until_that_keeps_up_again() {
    let seen = cluster(3).learning(member(4, Standby), there());
    assert_eq!(seen.clone().peer(3, gone_for(59)).step(), None);
    let seen = seen.peer(3, gone_for(60));
    assert_eq!(seen.step(), votes(&[1, 2, 4]));
    assert_eq!(seen.clone().peer(4, gone_for(4)).step(), None, "the standby is gone too");
    // A new leader counts from its election.
    let unheard = seen.clone().peer(3, Peer::default());
    assert_eq!(unheard.step(), votes(&[1, 2, 4]));
    let fresh = Seen { leading_for: Duration::from_secs(5), ..unheard };
    assert_eq!(fresh.step(), None);
    let seen = seen.voters(&[1, 2, 4]);
    let absence = Absence::Silent { url: url(3), since: Duration::from_secs(60) };
    let stood_in = Waiting::Return { absence, is_stood_in: true };
    assert_eq!((seen.step(), seen.waits(3)), (None, Some(stood_in)));
    assert_eq!(seen.clone().peer(3, there()).step(), votes(&[1, 2, 3]));
    // Nobody is left to stand in for.
    let mut seen = seen.removed(3);
    seen.replicas.addresses.remove(&3);
    assert_eq!(seen.step(), votes(&[1, 2]));
}

#[test]
fn the_version_is_raised_when_the_last_member_speaks_it() {
    let speaks = |id, version| Member { version, ..member(id, Voter) };
    let seen = cluster(2).with(speaks(1, 3), there()).with(speaks(2, 2), there());
    assert_eq!(seen.step(), Some(Step::RaiseVersion { version: 2 }));
    let unknown = seen.clone().with(speaks(2, 0), there());
    assert_eq!(unknown.step(), None);
    let with_pending = seen.with(pending(3, Voter), Peer::default());
    assert_eq!(with_pending.step(), Some(Step::RaiseVersion { version: 2 }));
}

/// From any beginning the steps come to an end, and on the way no change of the voters is without a
/// majority of both sides that is there.
#[test]
fn steps_come_to_an_end_and_never_cost_the_quorum() {
    let mut random = 1u64;
    let mut dice = |sides: u64| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % sides
    };
    for _ in 0..2_000 {
        let mut seen = cluster(1 + dice(5));
        for id in 1..=8 {
            let role = MemberRole::ALL[usize::try_from(dice(4)).unwrap()];
            let replaces = (dice(3) == 0).then(|| 1 + dice(8)).filter(|old| *old != id);
            let peer = if dice(3) == 0 { gone_for(dice(120)) } else { there() };
            match dice(5) {
                0 => seen = seen.removed(id).peer(id, peer),
                1 | 2 => seen = seen.with(Member { replaces, ..member(id, role) }, peer),
                3 => {
                    let found = introduced(id, u128::from(id) << 64).introduced;
                    seen = seen.with(pending(id, role), Peer { introduced: found, ..peer });
                }
                _ => {}
            }
        }
        run_to_the_end(seen);
    }
}

fn run_to_the_end(mut seen: Seen) {
    let is_there = |seen: &Seen, id: u64| {
        let silent = seen.peers.get(&id).and_then(|peer| peer.silent_for);
        id == seen.own || silent.is_some_and(|silent| silent < Duration::from_secs(4))
    };
    for _ in 0..60 {
        let Some(step) = seen.step() else { return };
        match step {
            Step::SetVoters(voters) => {
                for side in [&seen.replicas.voters, &voters] {
                    let there = side.iter().filter(|id| is_there(&seen, **id)).count();
                    assert!(2 * there > side.len(), "{voters:?} of {seen:?}");
                }
                assert!(voters.contains(&seen.own), "a leader votes: {seen:?}");
                assert!(voters.iter().all(|id| seen.replicas.addresses.contains_key(id)));
                seen.replicas.counted = voters.clone();
                seen.replicas.voters = voters;
            }
            Step::HandOver { to } => {
                assert!(seen.replicas.voters.contains(&to) && to != seen.own);
                seen.own = to;
            }
            Step::Adopt { id, role, .. } => {
                seen.rows.insert(id, MemberRow::Live(member(id, role)));
            }
            Step::Identify { id, instance, version } => {
                let Some(MemberRow::Live(row)) = seen.rows.get_mut(&id) else { panic!("{seen:?}") };
                (row.joined, row.instance, row.version) = (true, Some(instance), version);
            }
            Step::AddLearner { id, address } | Step::SetAddress { id, address } => {
                seen.replicas.addresses.insert(id, address);
            }
            Step::RemoveLearner { id } => {
                assert!(!seen.replicas.voters.contains(&id));
                seen.replicas.addresses.remove(&id);
            }
            Step::RemoveRow { id } => {
                assert!(!seen.replicas.voters.contains(&id));
                seen.rows.insert(id, MemberRow::Removed);
            }
            Step::RaiseVersion { version } => seen.version = version,
            Step::Settle => panic!("nothing was begun: {seen:?}"),
        }
    }
    panic!("no end: {seen:?}");
}
