//! One openraft instance over the log and the store, with the calls that a node needs of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, InitializeError};
use openraft::impls::BasicNode;
use openraft::raft::ReadPolicy;
use openraft::{ChangeMembers, Config, ServerState, SnapshotPolicy};
use revfs_store::{Outcome, Position, Store};

use super::log_store::LogStore;
use super::network::NoPeers;
use super::payload::{from_position, to_log_id};
use super::state_machine::StateMachine;
use super::type_config::{EncodedCommand, TypeConfig};
use crate::auth::AuthTurns;
use crate::lease_clock::LeaseBook;
use crate::log::{Log, LogId};

/// Entries that stay in the log behind a snapshot, for members that lag a little.
const ENTRIES_KEPT: u64 = 5_000;

/// Purges are gathered until they give up so many entries.
const PURGE_ENTRIES: u64 = 1_000;

/// The pace of replication.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) heartbeat_interval: Duration,
    /// Within so long a lost leader is replaced.
    pub(crate) election_timeout: Duration,
    /// Entries between two snapshots: a snapshot costs nothing, it lets the log be purged.
    pub(crate) snapshot_entries: u64,
}

type Inner = openraft::Raft<TypeConfig, StateMachine>;

/// See the module. Clones are the same instance.
#[derive(Clone)]
pub struct Raft {
    inner: Inner,
    member: u64,
}

/// Why replication could not start or go on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RaftError {
    #[error("replication stopped: {reason}")]
    Stopped { reason: String },
    #[error("this member does not lead after {waited:?}: {reason}")]
    NotReady { waited: Duration, reason: String },
    #[error("the store's place in the log cannot be read: {reason}")]
    Position { reason: String },
}

/// How a proposal ended that was not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// It was refused before it reached the log: nothing happened.
    #[error("this member does not lead; the leader is {leader:?}")]
    NotLeader { leader: Option<u64> },
    /// It may or may not have happened, or still happen.
    #[error("{reason}")]
    Unknown { reason: String },
}

/// Where replication stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RaftStatus {
    pub term: u64,
    pub leader: Option<u64>,
    pub last_index: u64,
}

/// One member, as replication knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RaftMember {
    pub(crate) id: u64,
    /// Where the others find it.
    pub(crate) address: String,
    /// A learner does not vote.
    pub(crate) votes: bool,
}

/// The log id of a store's position; `None` before the first entry.
pub(crate) fn log_id_of(position: &Position) -> Result<Option<LogId>, RaftError> {
    let decoded = from_position(position);
    let (id, _) = decoded.map_err(|error| RaftError::Position { reason: error.to_string() })?;
    Ok(id.map(to_log_id))
}

fn config(cluster: u64, pace: Pace) -> Config {
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let election_timeout = milliseconds(pace.election_timeout);
    Config {
        cluster_name: format!("{cluster:016x}"),
        // A follower waits the leader's lease, which is the longer one, plus a random timeout.
        election_timeout_max: election_timeout / 2,
        election_timeout_min: election_timeout / 4,
        heartbeat_interval: milliseconds(pace.heartbeat_interval),
        enable_pre_vote: Some(true),
        quorum_loss_probe_interval: Some(election_timeout),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(pace.snapshot_entries),
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        purge_batch_size: PURGE_ENTRIES,
        ..Config::default()
    }
}

impl Raft {
    /// Starts replication for `member`; entries that the log knows to be committed are applied
    /// before this returns. The last two are told what is applied.
    pub(crate) async fn start(
        (cluster, member): (u64, u64),
        log: Arc<Log>,
        store: Arc<Store>,
        (leases, auth_turns): (Arc<LeaseBook>, Arc<AuthTurns>),
        pace: Pace,
    ) -> Result<Self, RaftError> {
        let stopped = |reason: String| RaftError::Stopped { reason };
        let config =
            config(cluster, pace).validate().map_err(|error| stopped(error.to_string()))?;
        let machine = StateMachine::new(store, leases, auth_turns)
            .map_err(|error| stopped(error.to_string()))?;
        let inner =
            Inner::new(member, Arc::new(config), NoPeers, LogStore::new(log), machine).await;
        let inner = inner.map_err(|error| stopped(error.to_string()))?;
        Ok(Self { inner, member })
    }

    /// Waits until this member leads and has applied all that the log held when it started. On a
    /// log that does not say who belongs to the cluster, this member is the only one.
    pub(crate) async fn lead(&self, timeout: Duration) -> Result<(), RaftError> {
        let not_ready = |reason: String| RaftError::NotReady { waited: timeout, reason };
        let stopped = |reason: String| RaftError::Stopped { reason };
        let members = BTreeMap::from([(self.member, BasicNode::new(""))]);
        match self.inner.initialize(members).await {
            // It stands for election by itself.
            Ok(()) => {}
            Err(openraft::errors::RaftError::APIError(InitializeError::NotAllowed(_))) => {
                // A member that led when it stopped leads again at once. Any other need not wait for
                // a timeout before it stands for election, if nobody else may vote.
                let state = self.inner.with_raft_state(|state| state.server_state).await;
                if state.map_err(|error| stopped(error.to_string()))? != ServerState::Leader {
                    let elected = self.inner.trigger().elect(false).await;
                    elected.map_err(|error| stopped(error.to_string()))?;
                }
            }
            Err(error) => return Err(stopped(error.to_string())),
        }
        let leads = self.inner.wait(Some(timeout)).state(ServerState::Leader, "to lead").await;
        leads.map_err(|error| not_ready(error.to_string()))?;
        let recovered = self.inner.wait_for_recovery(Some(timeout)).await;
        recovered.map_err(|error| not_ready(error.to_string()))?;
        Ok(())
    }

    /// Proposes an encoded command and waits until it is applied.
    pub(crate) async fn propose(&self, command: Bytes) -> Result<Outcome, WriteError> {
        let unknown = |reason: String| Err(WriteError::Unknown { reason });
        match self.inner.client_write(EncodedCommand(command)).await {
            Ok(response) => match response.data {
                Some(outcome) => Ok(outcome),
                None => unknown("the entry was applied as one without a command".to_owned()),
            },
            Err(openraft::errors::RaftError::APIError(error)) => match error {
                ClientWriteError::ForwardToLeader(forward) => {
                    Err(WriteError::NotLeader { leader: forward.leader_id })
                }
                // It contains a ForwardToLeader, but the entry may live on in another log.
                ClientWriteError::LogEntryDiscarded(_) => {
                    unknown("another leader took over before the change was committed".to_owned())
                }
                ClientWriteError::ChangeMembershipError(error) => unknown(error.to_string()),
                ClientWriteError::PreconditionFailed(error) => unknown(error.to_string()),
            },
            Err(openraft::errors::RaftError::Fatal(error)) => unknown(error.to_string()),
        }
    }

    /// Waits until a quorum has confirmed, after this was called, that this member leads, and it has
    /// applied all that was committed before.
    pub(crate) async fn confirm_leadership(&self) -> Result<(), RaftError> {
        let confirmed = self.inner.ensure_linearizable(ReadPolicy::ReadIndex).await;
        confirmed.map(drop).map_err(|error| RaftError::Stopped { reason: error.to_string() })
    }

    /// Waits until this member leads by confirmation and has applied all that its log held at the call.
    pub(crate) async fn catch_up(&self) -> Result<(), RaftError> {
        let last = self.inner.metrics().borrow_watched().last_log_index;
        self.confirm_leadership().await?;
        let applied = self.inner.wait(None).applied_index_at_least(last, "to catch up").await;
        applied.map(drop).map_err(|error| RaftError::Stopped { reason: error.to_string() })
    }

    /// Waits until the term in which this member leads is another than `known` (`None` = it does not
    /// lead), and returns it.
    pub(crate) async fn leads_other_than(&self, known: Option<u64>) -> Option<u64> {
        let mut metrics = self.inner.server_metrics();
        loop {
            let now = {
                let metrics = metrics.borrow_watched();
                let leads = metrics.state == ServerState::Leader;
                leads.then_some(metrics.vote.leader_id.term)
            };
            if now != known {
                return now;
            }
            if metrics.changed().await.is_err() {
                // Replication has ended; the node is told so elsewhere.
                return std::future::pending().await;
            }
        }
    }

    /// Lets the log be purged up to `index`, as far as LMDB holds it durably.
    pub(crate) async fn purge(&self, index: u64) -> Result<(), RaftError> {
        let stopped = |reason: String| RaftError::Stopped { reason };
        self.inner.trigger().snapshot().await.map_err(|error| stopped(error.to_string()))?;
        self.inner.trigger().purge_log(index).await.map_err(|error| stopped(error.to_string()))
    }

    #[must_use]
    pub fn status(&self) -> RaftStatus {
        let metrics = self.inner.metrics();
        let metrics = metrics.borrow_watched();
        RaftStatus {
            term: metrics.current_term,
            leader: metrics.current_leader,
            last_index: metrics.last_log_index.unwrap_or(0),
        }
    }

    /// Who belongs to the cluster, by number.
    pub(crate) fn members(&self) -> Vec<RaftMember> {
        let metrics = self.inner.metrics();
        let membership = Arc::clone(&metrics.borrow_watched().membership_config);
        let voters: Vec<u64> = membership.voter_ids().collect();
        let member = |(&id, node): (&u64, &BasicNode)| RaftMember {
            id,
            address: node.addr.clone(),
            votes: voters.contains(&id),
        };
        membership.nodes().map(member).collect()
    }

    /// Writes into the log where the others find a member.
    pub(crate) async fn set_address(&self, member: u64, address: String) -> Result<(), RaftError> {
        let nodes = BTreeMap::from([(member, BasicNode::new(address))]);
        let changed = self.inner.change_membership(ChangeMembers::SetNodes(nodes), true).await;
        changed.map(drop).map_err(|error| RaftError::Stopped { reason: error.to_string() })
    }

    /// Why replication has stopped, if it has.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let metrics = self.inner.metrics();
        let metrics = metrics.borrow_watched();
        metrics.running_state.as_ref().err().map(ToString::to_string)
    }

    pub(crate) async fn shutdown(&self) {
        if let Err(error) = self.inner.shutdown().await {
            tracing::error!(%error, "replication did not stop in order");
        }
    }
}
