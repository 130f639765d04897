//! One openraft instance over the log and the store, with the calls that a node needs of it.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, InitializeError, LinearizableReadError};
use openraft::impls::BasicNode;
use openraft::raft::ReadPolicy;
use openraft::{Config, ServerState, SnapshotPolicy};
use revfs_store::{Outcome, Position};

use super::log_store::LogStore;
use super::network::Network;
use super::own_thread::OwnThread;
use super::payload::{from_position, to_log_id};
use super::state_machine::{StateMachine, Told};
use super::type_config::{EncodedCommand, TypeConfig};
use crate::log::LogId;
use crate::peer::Peers;
use crate::snapshot::Snapshots;

/// Purges are gathered until they give up so many entries, or as many as lie between two snapshots.
const PURGE_ENTRIES: u64 = 1_000;

/// The pace of replication.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) heartbeat_interval: Duration,
    /// Within so long a lost leader is replaced.
    pub(crate) election_timeout: Duration,
    /// Entries between two snapshots: a snapshot costs nothing, it lets the log be purged.
    pub(crate) snapshot_entries: u64,
    /// Entries that stay in the log behind a snapshot, for members that lag a little.
    pub(crate) entries_kept: u64,
}

pub(super) type Inner = openraft::Raft<TypeConfig, StateMachine>;

/// What openraft answers to a proposal.
pub(super) type Written = Result<
    openraft::raft::ClientWriteResponse<TypeConfig>,
    openraft::errors::RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
>;

/// See the module. Clones are the same instance.
#[derive(Clone)]
pub struct Raft {
    pub(super) inner: Inner,
    pub(super) snapshots: Arc<Snapshots>,
    member: u64,
    _thread: Arc<OwnThread>,
    #[cfg(test)]
    pub(crate) injected: super::injection::Injected,
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

/// Why no index was given that linearizable reads may be answered from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadIndexError {
    #[error("this member does not lead; the leader is {leader:?}")]
    NotLeader { leader: Option<u64> },
    #[error("no quorum confirmed that this member leads: {reason}")]
    NotConfirmed { reason: String },
}

/// Where replication stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RaftStatus {
    pub term: u64,
    pub leader: Option<u64>,
    pub last_index: u64,
}

/// The log id of a store's position; `None` before the first entry.
pub(crate) fn log_id_of(position: &Position) -> Result<Option<LogId>, RaftError> {
    let decoded = from_position(position);
    let (id, _) = decoded.map_err(|error| RaftError::Position { reason: error.to_string() })?;
    Ok(id.map(to_log_id))
}

pub(super) fn config(cluster: u64, pace: Pace) -> Config {
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
        // Entries go to the others while they are flushed here. A leader that was killed may have lost
        // some that the others hold: in the same term it would give their places to other entries.
        enable_leader_restore: Some(false),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(pace.snapshot_entries),
        max_in_snapshot_log_to_keep: pace.entries_kept,
        purge_batch_size: PURGE_ENTRIES.min(pace.snapshot_entries),
        ..Config::default()
    }
}

impl Raft {
    /// Starts replication for `member`; entries that the log knows to be committed are applied
    /// before this returns.
    pub(crate) async fn start(
        peers: Arc<Peers>,
        snapshots: Arc<Snapshots>,
        told: Told,
        pace: Pace,
    ) -> Result<Self, RaftError> {
        let stopped = |reason: String| RaftError::Stopped { reason };
        let (cluster, member) = (peers.own().cluster, peers.own().member);
        let config =
            config(cluster, pace).validate().map_err(|error| stopped(error.to_string()))?;
        let log = LogStore::new(Arc::clone(&snapshots.log), member);
        let machine = StateMachine::new(Arc::clone(&snapshots), told)
            .map_err(|error| stopped(error.to_string()))?;
        let network = Network {
            peers,
            snapshots: Arc::clone(&snapshots),
            answer_timeout: pace.election_timeout,
        };
        let thread = OwnThread::new().map_err(|error| stopped(error.to_string()))?;
        let known = log.clone();
        let inner = thread.run(Inner::new(member, Arc::new(config), network, log, machine)).await?;
        let inner = inner.map_err(|error| stopped(error.to_string()))?;
        known.learn(inner.metrics().borrow_watched().membership_config.membership());
        Ok(Self::over(inner, snapshots, member, thread))
    }

    /// The calls of an instance that runs on `thread`.
    pub(super) fn over(
        inner: Inner,
        snapshots: Arc<Snapshots>,
        member: u64,
        thread: OwnThread,
    ) -> Self {
        Self {
            inner,
            member,
            snapshots,
            _thread: Arc::new(thread),
            #[cfg(test)]
            injected: super::injection::Injected::default(),
        }
    }

    /// Whether the log says who belongs to the cluster.
    pub(crate) async fn is_initialised(&self) -> Result<bool, RaftError> {
        let initialised = self.inner.is_initialized().await;
        initialised.map_err(|error| RaftError::Stopped { reason: error.to_string() })
    }

    /// Begins a cluster of `members`, each with its address. All of them may do so, with the same
    /// members; a log that says already who belongs to the cluster is left as it is.
    pub(crate) async fn initialise(
        &self,
        members: impl IntoIterator<Item = (u64, String)>,
    ) -> Result<(), RaftError> {
        let members: BTreeMap<u64, BasicNode> =
            members.into_iter().map(|(id, address)| (id, BasicNode::new(address))).collect();
        match self.inner.initialize(members).await {
            Ok(()) | Err(openraft::errors::RaftError::APIError(InitializeError::NotAllowed(_))) => {
                Ok(())
            }
            Err(error) => Err(RaftError::Stopped { reason: error.to_string() }),
        }
    }

    /// Waits until this member, which is the only voter, leads and has applied all that the log held when
    /// it started.
    pub(crate) async fn lead(&self, timeout: Duration) -> Result<(), RaftError> {
        let not_ready = |reason: String| RaftError::NotReady { waited: timeout, reason };
        let stopped = |reason: String| RaftError::Stopped { reason };
        // One that has just begun a cluster stands for election by itself. Any other need not wait for a
        // timeout: nobody else may vote.
        let state = self.inner.with_raft_state(|state| state.server_state).await;
        if state.map_err(|error| stopped(error.to_string()))? == ServerState::Follower {
            let elected = self.inner.trigger().elect(false).await;
            elected.map_err(|error| stopped(error.to_string()))?;
        }
        let leads = self.inner.wait(Some(timeout)).state(ServerState::Leader, "to lead").await;
        leads.map_err(|error| not_ready(error.to_string()))?;
        let recovered = self.inner.wait_for_recovery(Some(timeout)).await;
        recovered.map_err(|error| not_ready(error.to_string()))?;
        Ok(())
    }

    /// Proposes an encoded command and waits until it is applied here.
    pub(crate) async fn propose(&self, command: Bytes) -> Result<Outcome, WriteError> {
        self.write(None, command).await.map(|(_, outcome)| outcome)
    }

    /// Proposes a command for the member that knows it by `number`; its place in the log once it is applied.
    pub(crate) async fn propose_for(
        &self,
        number: NonZeroU64,
        command: Bytes,
    ) -> Result<LogId, WriteError> {
        self.write(Some(number), command).await.map(|(id, _)| id)
    }

    async fn write(
        &self,
        forwarded: Option<NonZeroU64>,
        bytes: Bytes,
    ) -> Result<(LogId, Outcome), WriteError> {
        let unknown = |reason: String| Err(WriteError::Unknown { reason });
        match self.client_write(EncodedCommand { forwarded, bytes }).await {
            Ok(response) => match response.data {
                Some(outcome) => Ok((to_log_id(response.log_id), outcome)),
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

    async fn client_write(&self, command: EncodedCommand) -> Written {
        #[cfg(test)]
        if let Some(injection) = self.injected.of(&command.bytes) {
            return injection.instead_of(self.inner.client_write(command)).await;
        }
        self.inner.client_write(command).await
    }

    /// Waits until a quorum has confirmed, after this was called, that this member leads, and it has
    /// applied all that was committed before.
    pub(crate) async fn confirm_leadership(&self) -> Result<(), RaftError> {
        let confirmed = self.inner.ensure_linearizable(ReadPolicy::ReadIndex).await;
        confirmed.map(drop).map_err(|error| RaftError::Stopped { reason: error.to_string() })
    }

    /// A quorum has confirmed, after this was called, that this member leads: whoever has applied the
    /// entry that is returned may answer linearizable reads that came before the call.
    pub(crate) async fn read_index(&self) -> Result<LogId, ReadIndexError> {
        match self.inner.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((read, _)) => Ok(to_log_id(*read.log_id())),
            Err(openraft::errors::RaftError::APIError(LinearizableReadError::ForwardToLeader(
                forward,
            ))) => Err(ReadIndexError::NotLeader { leader: forward.leader_id }),
            Err(error) => Err(ReadIndexError::NotConfirmed { reason: error.to_string() }),
        }
    }

    /// Waits until the entry `index` is applied here; false if it is not within `timeout`.
    pub(crate) async fn is_applied(&self, index: u64, timeout: Duration) -> bool {
        let wait = self.inner.wait(Some(timeout));
        wait.applied_index_at_least(Some(index), "a confirmed read").await.is_ok()
    }

    /// As [`Raft::is_alone`], as the log says: what was measured may be older than that.
    pub(crate) async fn decides_alone(&self) -> Result<bool, RaftError> {
        let own = self.member;
        let alone = self.inner.with_raft_state(move |state| {
            let mut voters = state.membership_state.effective().voter_ids();
            voters.next() == Some(own) && voters.next().is_none()
        });
        alone.await.map_err(|error| RaftError::Stopped { reason: error.to_string() })
    }

    /// Gives the lead to the voter that is nearest to this one, if this one leads and has another; waits
    /// until it leads no more.
    pub(crate) async fn hand_over(&self, timeout: Duration) {
        let next = {
            let metrics = self.inner.metrics();
            let metrics = metrics.borrow_watched();
            let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
            let others = metrics.replication.iter().flatten();
            let voters = others.filter(|(id, _)| **id != self.member && voters.contains(*id));
            voters.max_by_key(|(_, matched)| matched.map(|id| id.index)).map(|(id, _)| *id)
        };
        let Some(next) = next else { return };
        if self.inner.trigger().transfer_leader(next).await.is_err() {
            return;
        }
        let follows = |metrics: &openraft::RaftMetrics<TypeConfig>| {
            metrics.state != ServerState::Leader && metrics.current_leader.is_some()
        };
        if self.inner.wait(Some(timeout)).metrics(follows, "to hand over").await.is_err() {
            tracing::info!("no other member took the lead in time; the others elect one");
        }
    }

    /// This member alone decides: what it has applied is all that was acknowledged anywhere.
    pub(crate) fn is_alone(&self) -> bool {
        let metrics = self.inner.metrics();
        let membership = Arc::clone(&metrics.borrow_watched().membership_config);
        let mut voters = membership.voter_ids();
        voters.next() == Some(self.member) && voters.next().is_none()
    }

    /// Whether this member belongs to the cluster without a voice, as far as its log says.
    pub(crate) fn is_learner(&self) -> bool {
        let metrics = self.inner.metrics();
        let membership = Arc::clone(&metrics.borrow_watched().membership_config);
        let belongs = membership.nodes().any(|(id, _)| *id == self.member);
        belongs && membership.voter_ids().all(|id| id != self.member)
    }

    /// Where a member is found, as far as the log says.
    pub(crate) fn address_of(&self, member: u64) -> Option<String> {
        let metrics = self.inner.metrics();
        let membership = Arc::clone(&metrics.borrow_watched().membership_config);
        let mut nodes = membership.nodes();
        nodes.find(|(id, _)| **id == member).map(|(_, node)| node.addr.clone())
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
