//! Who replicates: openraft's membership, seen and changed. Each change holds only for the membership
//! that was seen when it was decided.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::ClientWriteError;
use openraft::impls::BasicNode;
use openraft::raft::Precondition;
use openraft::{ChangeMembers, Instant};

use super::core::{Raft, WriteError};
use super::type_config::{RaftLogId, StoredMembership, TypeConfig};

/// The membership at one place of the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replication {
    /// The entry that holds it.
    at: Option<RaftLogId>,
    /// All that are asked: while one set of voters takes over from another, those of both.
    pub(crate) voters: BTreeSet<u64>,
    /// Those whose majority decides whatever happens next. Until a change of the voters has ended, it is theirs that
    /// were voters before: the leader may be lost half way.
    pub(crate) counted: BTreeSet<u64>,
    /// Where each is found, voters and learners.
    pub(crate) addresses: BTreeMap<u64, String>,
    pub(crate) is_joint: bool,
    pub(crate) is_committed: bool,
}

/// How far another member has come, as its leader knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Entries that it lacks; `None` before it has acknowledged any.
    pub(crate) lag: Option<u64>,
    /// Since its last acknowledgement.
    pub(crate) silent_for: Option<Duration>,
}

/// A change of the membership.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Ends one that a former leader began.
    Settle,
    AddLearner {
        id: u64,
        address: String,
    },
    SetAddress {
        id: u64,
        address: String,
    },
    /// Who votes no longer goes on as a learner.
    SetVoters(BTreeSet<u64>),
    RemoveLearner {
        id: u64,
    },
}

impl Replication {
    fn of(now: &StoredMembership, committed: &StoredMembership) -> Self {
        let before = committed.membership().get_joint_config().first();
        Self {
            at: *now.log_id(),
            voters: now.voter_ids().collect(),
            counted: before.cloned().unwrap_or_default(),
            addresses: now.nodes().map(|(&id, node)| (id, node.addr.clone())).collect(),
            is_joint: now.membership().get_joint_config().len() > 1,
            is_committed: now.log_id() == committed.log_id(),
        }
    }
}

impl Raft {
    pub(crate) fn replication(&self) -> Replication {
        let metrics = self.inner.server_metrics();
        let metrics = metrics.borrow_watched();
        Replication::of(&metrics.membership_config, &metrics.committed_membership_config)
    }

    /// How far the others have come; empty unless this member leads.
    pub(crate) fn progress(&self) -> BTreeMap<u64, Progress> {
        let metrics = self.inner.data_metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log.map_or(0, |id| id.index);
        let (Some(matched), Some(acknowledged)) = (&metrics.replication, &metrics.heartbeat) else {
            return BTreeMap::new();
        };
        let progress = |(&id, matched): (&u64, &Option<RaftLogId>)| {
            let lag = matched.map(|matched| last.saturating_sub(matched.index));
            let acknowledged = acknowledged.get(&id).and_then(Option::as_ref);
            (id, Progress { lag, silent_for: acknowledged.map(|at| at.elapsed()) })
        };
        matched.iter().map(progress).collect()
    }

    /// Changes the membership if it still is the one that was seen. Returns when the change is
    /// committed, both of its steps if it has two.
    pub(crate) async fn change(
        &self,
        seen: &Replication,
        change: Change,
    ) -> Result<(), WriteError> {
        let node = |id, address: String| BTreeMap::from([(id, BasicNode::new(address))]);
        let change = match change {
            Change::Settle => ChangeMembers::AddVoterIds(BTreeSet::new()),
            Change::AddLearner { id, address } => ChangeMembers::AddNodes(node(id, address)),
            Change::SetAddress { id, address } => ChangeMembers::SetNodes(node(id, address)),
            Change::SetVoters(voters) => ChangeMembers::ReplaceAllVoters(voters),
            Change::RemoveLearner { id } => ChangeMembers::RemoveNodes(BTreeSet::from([id])),
        };
        let unchanged =
            Precondition::<TypeConfig>::LastMembershipLogId { last_membership_log_id: seen.at };
        let changed = self.inner.change_membership_if(change, true, [unchanged]).await;
        let unknown = |reason: String| Err(WriteError::Unknown { reason });
        match changed {
            Ok(_) => Ok(()),
            Err(openraft::errors::RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                Err(WriteError::NotLeader { leader: to.leader_id })
            }
            Err(openraft::errors::RaftError::APIError(error)) => unknown(error.to_string()),
            Err(openraft::errors::RaftError::Fatal(error)) => unknown(error.to_string()),
        }
    }

    /// Asks another voter to lead instead of this member.
    pub(crate) async fn hand_over_to(&self, to: u64) -> Result<(), WriteError> {
        let handed = self.inner.trigger().transfer_leader(to).await;
        handed.map_err(|error| WriteError::Unknown { reason: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use openraft::impls::BasicNode;

    use super::Replication;
    use crate::raft::type_config::{CommittedLeaderId, Membership, RaftLogId, StoredMembership};

    fn at(index: u64, configurations: &[&[u64]]) -> StoredMembership {
        let sets = configurations.iter().map(|set| set.iter().copied().collect::<BTreeSet<_>>());
        let nodes: BTreeMap<u64, BasicNode> =
            (1..=4).map(|id| (id, BasicNode::default())).collect();
        let id = RaftLogId::new(CommittedLeaderId::new(1), index);
        StoredMembership::new(Some(id), Membership::new(sets.collect(), nodes).unwrap())
    }

    #[test]
    fn a_vote_counts_when_the_change_has_ended_and_until_then() {
        let before = at(1, &[&[1, 2]]);
        let both = at(5, &[&[1, 2], &[2, 3, 4]]);
        let after = at(6, &[&[2, 3, 4]]);
        for (now, committed, counted) in [
            (&before, &before, vec![1, 2]),
            (&both, &before, vec![1, 2]),
            (&both, &both, vec![1, 2]),
            (&after, &both, vec![1, 2]),
            (&after, &after, vec![2, 3, 4]),
        ] {
            let seen = Replication::of(now, committed);
            assert_eq!(seen.counted, counted.into_iter().collect(), "{now} after {committed}");
        }
        assert_eq!(Replication::of(&both, &before).voters, BTreeSet::from([1, 2, 3, 4]));
    }
}
