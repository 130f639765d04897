//! What the leader does next about the members, from what it sees: one step, or none.
//!
//! Rows say what is wanted, replication's membership says what is. Each step brings the second nearer to
//! the first and is safe by itself, so that the next leader may go on from anywhere:
//!
//! ```text
//! pending ──reached, new──► identified ──► learner ──caught up for a while──► voter
//! row removed: voter ──► learner ──► gone          (the leader hands over first)
//! replaced:    both are members until the new one votes in place of the old, in one change
//! voter gone for long: a standby votes in its place, and steps back when it has caught up again
//! ```
//!
//! Who counts changes only in ways that a majority of the old voters and of the new ones, reached just
//! now, can agree to: nothing here can cost the quorum, but for a removal that was forced.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use revfs_store::{Member, MemberRole, MemberRow};

use super::waiting::Waiting;

/// So many entries behind the leader is as good as none: they are sent in a moment.
pub(crate) const LAG_ENTRIES_MAX: u64 = 1_000;

/// Who lagged no more for so long keeps up.
pub(crate) const KEPT_UP_FOR: Duration = Duration::from_secs(1);

/// Who answered at a member's address, as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Introduction {
    pub(crate) cluster: u64,
    pub(crate) member: u64,
    pub(crate) instance: u128,
    pub(crate) version: u32,
}

/// What the leader knows of another member from its own connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Who answered at its address, or why nobody did; `None` before the first attempt ended, and of a
    /// replica that is there.
    pub(crate) introduced: Option<Result<Introduction, String>>,
    /// Entries that it lacks; `None` before it has acknowledged any.
    pub(crate) lag: Option<u64>,
    /// Since when it lacks only a few.
    pub(crate) kept_up_for: Option<Duration>,
    /// Since when it has acknowledged nothing; `None` = this leader has heard nothing of it.
    pub(crate) silent_for: Option<Duration>,
}

/// Replication's membership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replicas {
    pub(crate) voters: BTreeSet<u64>,
    /// See [`crate::raft::membership::Replication::counted`].
    pub(crate) counted: BTreeSet<u64>,
    /// Where each is found, voters and learners.
    pub(crate) addresses: BTreeMap<u64, String>,
    /// Two sets of voters must agree: a change was begun and not ended.
    pub(crate) is_joint: bool,
    /// A change is on its way.
    pub(crate) is_moving: bool,
}

/// Everything that a decision depends on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) cluster: u64,
    /// The leader.
    pub(crate) own: u64,
    pub(crate) rows: BTreeMap<u64, MemberRow>,
    pub(crate) version: u32,
    pub(crate) replicas: Replicas,
    pub(crate) peers: BTreeMap<u64, Peer>,
    /// Who answered since is there.
    pub(crate) silence_max: Duration,
    /// Since when it leads.
    pub(crate) leading_for: Duration,
    /// A voter that was silent for so long is stood in for.
    pub(crate) standby_after: Duration,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// End a change that a former leader began.
    Settle,
    Adopt {
        id: u64,
        role: MemberRole,
        address: String,
    },
    Identify {
        id: u64,
        instance: u128,
        version: u32,
    },
    AddLearner {
        id: u64,
        address: String,
    },
    SetAddress {
        id: u64,
        address: String,
    },
    /// These vote from now on; who voted until now stays as a learner.
    SetVoters(BTreeSet<u64>),
    HandOver {
        to: u64,
    },
    RemoveLearner {
        id: u64,
    },
    /// It was replaced.
    RemoveRow {
        id: u64,
    },
    RaiseVersion {
        version: u32,
    },
}

/// Several URLs are one address for replication.
pub(crate) fn address_of(urls: &[String]) -> String {
    urls.join(",")
}

pub(crate) fn next_step(seen: &Seen) -> Option<Step> {
    if seen.replicas.is_moving {
        return None;
    }
    if seen.replicas.is_joint {
        return Some(Step::Settle);
    }
    seen.adoption()
        .or_else(|| seen.end_of_replacement())
        .or_else(|| seen.removal())
        .or_else(|| seen.address())
        .or_else(|| seen.vote())
        .or_else(|| seen.arrival())
        .or_else(|| seen.version())
}

impl Seen {
    pub(super) fn live(&self) -> impl Iterator<Item = &Member> {
        self.rows.values().filter_map(MemberRow::live)
    }

    pub(super) fn votes(&self, id: u64) -> bool {
        self.replicas.voters.contains(&id)
    }

    pub(super) fn is_replica(&self, id: u64) -> bool {
        self.replicas.addresses.contains_key(&id)
    }

    pub(super) fn is_there(&self, id: u64) -> bool {
        let silent_for = self.peers.get(&id).and_then(|peer| peer.silent_for);
        id == self.own || silent_for.is_some_and(|silent| silent <= self.silence_max)
    }

    pub(super) fn keeps_up(&self, id: u64) -> bool {
        let kept_up_for = self.peers.get(&id).and_then(|peer| peer.kept_up_for);
        let keeps_up = kept_up_for.is_some_and(|since| since >= KEPT_UP_FOR);
        id == self.own || (keeps_up && self.is_there(id))
    }

    /// Whether a majority of these was reached just now.
    fn has_quorum(&self, voters: &BTreeSet<u64>) -> bool {
        voters.iter().filter(|&&id| self.is_there(id)).count() > voters.len() / 2
    }

    /// The members that are to vote, if those who vote now and they themselves can agree to it.
    fn set_voters(&self, voters: BTreeSet<u64>) -> Option<Step> {
        let now = &self.replicas.voters;
        let can = voters != *now && self.has_quorum(now) && self.has_quorum(&voters);
        can.then_some(Step::SetVoters(voters))
    }

    /// Whether a member that votes is to go on doing so: not one that was removed, replaced or demoted,
    /// nor a standby, so that no two leaders hand over to each other for ever.
    fn stays(&self, id: u64) -> bool {
        let wants = |member: &Member| member.role == MemberRole::Voter;
        let is_replaced = self.live().any(|member| member.replaces == Some(id));
        self.rows.get(&id).and_then(MemberRow::live).is_some_and(wants) && !is_replaced
    }

    /// The voter that may lead instead of this one: of those that keep up the nearest.
    fn heir(&self) -> Option<u64> {
        let voters = self.replicas.voters.iter().copied();
        let heirs = voters.filter(|&id| id != self.own && self.stays(id) && self.keeps_up(id));
        heirs.min_by_key(|id| self.peers.get(id).and_then(|peer| peer.lag))
    }

    /// `out` votes no more. A leader that does not vote could not lead, so it hands over first. Where the
    /// removal was forced, those who stay need not be there: what they must agree to waits for them.
    fn without(&self, out: u64) -> Option<Step> {
        if out == self.own {
            return self.heir().map(|to| Step::HandOver { to });
        }
        let mut voters = self.replicas.voters.clone();
        voters.remove(&out);
        match self.rows.get(&out) {
            Some(MemberRow::RemovedByForce) => Some(Step::SetVoters(voters)),
            _ => self.set_voters(voters),
        }
    }

    /// `id` votes, in place of `out` if there is such a one.
    fn vote_in_place(&self, id: u64, out: Option<u64>) -> Option<Step> {
        let mut voters = self.replicas.voters.clone();
        voters.insert(id);
        match out {
            Some(own) if own == self.own => {
                // If nobody else may lead, the new one is to: it votes first, and this one goes after it.
                if let Some(to) = self.heir() {
                    return Some(Step::HandOver { to });
                }
            }
            Some(out) => {
                voters.remove(&out);
            }
            None => {}
        }
        self.set_voters(voters)
    }

    fn adoption(&self) -> Option<Step> {
        let mut unknown =
            self.replicas.addresses.iter().filter(|(id, _)| !self.rows.contains_key(id));
        unknown.next().map(|(&id, address)| {
            let role = if self.votes(id) { MemberRole::Voter } else { MemberRole::Learner };
            Step::Adopt { id, role, address: address.clone() }
        })
    }

    /// A member that another has taken the place of.
    fn end_of_replacement(&self) -> Option<Step> {
        let has_arrived = |member: &&Member| match member.role {
            MemberRole::Voter => self.votes(member.id),
            _ => self.is_replica(member.id) && self.keeps_up(member.id),
        };
        let replaced = self.live().filter(has_arrived).filter_map(|member| member.replaces);
        let is_live = |id: &u64| self.rows.get(id).is_some_and(|row| row.live().is_some());
        let mut replaced = replaced.filter(is_live);
        replaced.find_map(|id| {
            if self.votes(id) { self.without(id) } else { Some(Step::RemoveRow { id }) }
        })
    }

    fn removal(&self) -> Option<Step> {
        self.leaving().find_map(|id| {
            if self.votes(id) { self.without(id) } else { Some(Step::RemoveLearner { id }) }
        })
    }

    /// Whom replication still knows although it was removed.
    pub(super) fn leaving(&self) -> impl Iterator<Item = u64> {
        let is_removed = |id: &u64| self.rows.get(id).is_some_and(|row| row.live().is_none());
        self.replicas.addresses.keys().copied().filter(is_removed)
    }

    fn address(&self) -> Option<Step> {
        let moved = |member: &Member| {
            let known = self.replicas.addresses.get(&member.id)?;
            let address = address_of(&member.peer_urls);
            let id = member.id;
            (!address.is_empty() && address != *known).then_some(Step::SetAddress { id, address })
        };
        self.live().find_map(moved)
    }

    fn of_role(&self, role: MemberRole, votes: bool) -> impl Iterator<Item = u64> {
        self.live()
            .filter(move |member| member.role == role && member.joined)
            .map(|member| member.id)
            .filter(move |&id| self.votes(id) == votes)
    }

    fn vote(&self) -> Option<Step> {
        let ready = |id: &u64| self.is_replica(*id) && self.keeps_up(*id);
        // Standbys that vote in place of others.
        let acting = self.of_role(MemberRole::Standby, true).next();
        if let Some(id) = self.of_role(MemberRole::Voter, false).find(ready) {
            let replaced = self.rows.get(&id).and_then(MemberRow::live).and_then(|m| m.replaces);
            return self.vote_in_place(id, replaced.filter(|old| self.votes(*old)).or(acting));
        }
        let demoted = [MemberRole::Learner, MemberRole::ReadOnly].into_iter();
        let mut demoted = demoted.flat_map(|role| self.of_role(role, true));
        if let Some(id) = demoted.next() {
            return self.without(id);
        }
        let displaced = self.of_role(MemberRole::Voter, false).count();
        let standing_in = self.of_role(MemberRole::Standby, true).count();
        if standing_in > displaced {
            return acting.and_then(|id| self.without(id));
        }
        let is_gone = |id: &u64| {
            let silent_for = self.peers.get(id).and_then(|peer| peer.silent_for);
            *id != self.own && silent_for.unwrap_or(self.leading_for) >= self.standby_after
        };
        let gone = self.of_role(MemberRole::Voter, true).find(is_gone)?;
        let standby = self.of_role(MemberRole::Standby, false).find(ready)?;
        self.vote_in_place(standby, Some(gone))
    }

    /// Someone who was added and has come up.
    fn arrival(&self) -> Option<Step> {
        let arrives = |member: &Member| match (self.is_replica(member.id), member.instance) {
            (true, _) => None,
            (false, Some(_)) if member.joined => {
                let (id, address) = (member.id, address_of(&member.peer_urls));
                Some(Step::AddLearner { id, address })
            }
            _ => match self.waiting_for_arrival(member) {
                Err(_) => None,
                Ok(Introduction { instance, version, .. }) => {
                    let (id, instance, version) = (member.id, *instance, *version);
                    Some(Step::Identify { id, instance, version })
                }
            },
        };
        self.live().find_map(arrives)
    }

    /// Who has come up as a pending member, or what it lacks.
    pub(super) fn waiting_for_arrival(&self, member: &Member) -> Result<&Introduction, Waiting> {
        let url = || address_of(&member.peer_urls);
        let found = self.peers.get(&member.id).and_then(|peer| peer.introduced.as_ref());
        let found = match found {
            None => return Err(Waiting::Answer { url: url(), reason: None }),
            Some(Err(reason)) => {
                return Err(Waiting::Answer { url: url(), reason: Some(reason.clone()) });
            }
            Some(Ok(found)) => found,
        };
        if (found.cluster, found.member) != (self.cluster, member.id) {
            let (member, cluster) = (found.member, found.cluster);
            return Err(Waiting::Another { url: url(), member, cluster });
        }
        let same =
            |other: &&Member| other.id != member.id && other.instance == Some(found.instance);
        if let Some(other) = self.live().find(same) {
            return Err(Waiting::NewDirectory { url: url(), of: other.id });
        }
        if found.version < self.version {
            let (speaks, needed) = (found.version, self.version);
            return Err(Waiting::NewerRelease { speaks, needed });
        }
        Ok(found)
    }

    fn version(&self) -> Option<Step> {
        let joined = self.live().filter(|member| member.joined);
        let version = joined.map(|member| member.version).min()?;
        (version > self.version).then_some(Step::RaiseVersion { version })
    }
}
