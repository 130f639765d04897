//! What becomes of a change: checked, stamped, proposed, applied, and how it may end.
//!
//! Everything that can be refused is refused before the change reaches the log: its size, a full
//! disk, a node that lags or is closed. From then on only a direct "this member does not lead" means
//! that nothing happened. Every other end, the deadline included, leaves the outcome unknown: the
//! change may have been applied, may still be, and is never sent again. Until replication has answered
//! it, it counts as one in flight, though its caller may have gone.
//!
//! A member that does not lead brings the change to the one that does ([`crate::peer`]), once; what it
//! answers is what its own store applied.

mod bounds;
mod to_its_end;
mod version;

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use revfs_api::keyspace::{Error, Result};
use revfs_api::wire::peer::{self, proposal_end::End};
use revfs_store::types::{Author, Time};
use revfs_store::{Body, Command, Health, Outcome, Store, takes_space};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ballast::FreeRoom;
use crate::log::{Log, LogId};
use crate::meters::Meters;
use crate::peer::{End as Forwarded, Forwarder, Link, Peers};
use crate::raft::{Raft, WriteError};

pub use self::bounds::NOTE_BYTES_MAX;
pub(crate) use self::bounds::{check_origin, check_txn, range as check_range};
use self::to_its_end::ToItsEnd;

/// Proposals in flight; more wait for their turn.
const IN_FLIGHT_MAX: usize = 4_096;

/// Bytes of the proposals in flight: three of the largest.
const IN_FLIGHT_BYTES_MAX: usize = 64 << 20;

/// New changes wait while applying is so many entries ahead of what the store holds durably.
const UNCOMMITTED_ENTRIES_MAX: u64 = 5_000;

/// Pause before a change that did not happen is proposed again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Takes changes of this node's clients.
pub(crate) struct Proposer {
    pub(crate) raft: Raft,
    pub(crate) log: Arc<Log>,
    pub(crate) store: Arc<Store>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) data_dir: PathBuf,
    pub(crate) disk_free_min_bytes: u64,
    /// For those who ask; the alarm NOSPACE enforces it.
    pub(crate) quota_bytes: Option<u64>,
    pub(crate) timeout: Duration,
    way: Way,
    in_flight: Arc<Semaphore>,
    in_flight_bytes: Arc<Semaphore>,
    closing: AtomicBool,
    free_room: FreeRoom,
}

impl Proposer {
    pub(crate) fn new(
        raft: Raft,
        (peers, forwarder): (Arc<Peers>, Arc<Forwarder>),
        log: Arc<Log>,
        store: Arc<Store>,
        meters: Arc<Meters>,
        config: &crate::NodeConfig,
    ) -> Self {
        Self {
            way: Way { raft: raft.clone(), peers, forwarder },
            raft,
            log,
            store,
            meters,
            data_dir: config.data_dir.clone(),
            disk_free_min_bytes: config.disk_free_min_bytes,
            quota_bytes: config.quota_bytes,
            timeout: config.proposal_timeout,
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            in_flight_bytes: Arc::new(Semaphore::new(IN_FLIGHT_BYTES_MAX)),
            closing: AtomicBool::new(false),
            free_room: FreeRoom::default(),
        }
    }

    /// Proposes a change and waits until it is durable and applied.
    pub(crate) async fn propose(&self, author: Author, note: Bytes, body: Body) -> Result<Outcome> {
        let deadline = Instant::now() + self.timeout;
        bounds::check(&author, &note, &body)?;
        self.check_open()?;
        self.check_spoken_by_all(version::of(&body))?;
        let room = Room::of(body.inner());
        let command = Command { time: now(), author, note, body };
        self.store.touch(&command);
        let encoded = command.encode().map_err(|error| Error::Invalid(error.to_string()))?;
        // The encoded bytes hold it all from here on.
        drop(command);
        self.check_space(room, encoded.len())?;
        let permits = self.admit(encoded.len(), deadline).await?;
        let way = self.way.clone();
        let try_under_way = Arc::new(AtomicBool::new(false));
        let sent = {
            let try_under_way = Arc::clone(&try_under_way);
            ToItsEnd::new(async move {
                let outcome = way.send(encoded, deadline, &try_under_way).await;
                drop(permits);
                outcome
            })
        };
        let late = |_| match try_under_way.load(Ordering::SeqCst) {
            true => {
                let reason = format!("no answer within {:?}", self.timeout);
                Error::OutcomeUnknown { reason }
            }
            false => Error::NoQuorum { reason: no_leader(self.raft.status().leader) },
        };
        let _pending = self.meters.pending();
        let outcome = tokio::time::timeout_at(deadline.into(), sent).await.map_err(late);
        let outcome = outcome.and_then(std::convert::identity);
        outcome.inspect_err(|_| {
            self.meters.proposals_failed.inc();
        })
    }

    /// Proposes what another member has forwarded, and tells how that ended. It was checked there; what
    /// this member has room for is checked here.
    pub(crate) async fn propose_for(&self, number: NonZeroU64, command: Bytes) -> End {
        let deadline = Instant::now() + self.timeout;
        let not_leader = |leader: Option<u64>| End::NotLeader(leader.unwrap_or(0));
        if !self.leads() {
            return not_leader(self.raft.status().leader);
        }
        let admitted = async {
            self.check_open()?;
            self.admit(command.len(), deadline).await
        };
        let permits = match admitted.await {
            Ok(permits) => permits,
            Err(error) => return End::Refused(error.to_string()),
        };
        let raft = self.raft.clone();
        let end = ToItsEnd::new(async move {
            let end = raft.propose_for(number, command).await;
            drop(permits);
            end
        });
        match end.await {
            Ok(LogId { term, index }) => End::Applied(peer::LogId { term, index }),
            Err(WriteError::NotLeader { leader }) => not_leader(leader),
            Err(WriteError::Unknown { reason }) => End::Unknown(reason),
        }
    }

    /// The way to the member that leads, if this one knows it and it is another.
    pub(crate) fn leader_elsewhere(&self) -> Option<Arc<Link>> {
        let leader = self.raft.status().leader?;
        if leader == self.way.peers.own().member {
            return None;
        }
        self.raft.address_of(leader).map(|address| self.way.peers.link(leader, &address))
    }

    /// Whether this member leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        self.raft.status().leader == Some(self.way.peers.own().member)
    }

    /// Waits for a place among the proposals in flight, within the deadline.
    async fn admit(
        &self,
        bytes: usize,
        deadline: Instant,
    ) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let busy = |what: &str| Error::Busy { reason: format!("{what} for {:?}", self.timeout) };
        let bytes = u32::try_from(bytes.min(IN_FLIGHT_BYTES_MAX)).unwrap_or(u32::MAX);
        let permits = async {
            let one = Arc::clone(&self.in_flight).acquire_owned().await;
            let bytes = Arc::clone(&self.in_flight_bytes).acquire_many_owned(bytes).await;
            one.and_then(|one| Ok((one, bytes?)))
        };
        let permits = tokio::time::timeout_at(deadline.into(), permits)
            .await
            .map_err(|_| busy("other changes filled the queue"))?
            .map_err(|_| self.closed())?;
        self.wait_for_store(deadline).await.map_err(|error| match error {
            Error::Timeout(_) => busy("the store was behind with its commits"),
            other => other,
        })?;
        Ok(permits)
    }

    /// Waits while too much is applied that LMDB does not hold durably.
    async fn wait_for_store(&self, deadline: Instant) -> Result<()> {
        let is_behind = || {
            let ahead = self.store.applied().index.saturating_sub(self.store.committed().index);
            ahead > UNCOMMITTED_ENTRIES_MAX
        };
        while is_behind() {
            let store = Arc::clone(&self.store);
            let commit = tokio::task::spawn_blocking(move || store.commit());
            match tokio::time::timeout_at(deadline.into(), commit).await {
                Err(_) => return Err(Error::Timeout(self.timeout)),
                Ok(Err(_)) => return Err(self.closed()),
                Ok(Ok(committed)) => committed.map_err(crate::convert::store_error)?,
            };
        }
        Ok(())
    }

    /// Why nothing is taken any more, if so.
    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        if let Some(reason) = self.log.failure() {
            return Some(reason);
        }
        if let Health::Closed { reason } = self.store.health() {
            return Some(reason);
        }
        self.raft.failure().map(Arc::from)
    }

    fn check_open(&self) -> Result<()> {
        if self.closing.load(Ordering::Acquire) {
            return Err(self.closed());
        }
        self.failure().map_or(Ok(()), |reason| Err(Error::Closed { reason }))
    }

    fn closed(&self) -> Error {
        match self.failure() {
            Some(reason) => Error::Closed { reason },
            None => Error::shutting_down(),
        }
    }

    /// Refuses what the disk may not hold. `bytes` go into the log, and into the store later.
    fn check_space(&self, room: Room, bytes: usize) -> Result<()> {
        let short = match room {
            Room::Ballast => None,
            Room::Log => self.log_full(),
            Room::Disk => self.no_space(bytes),
        };
        short.map_or(Ok(()), |reason| Err(Error::NoSpace { reason }))
    }

    fn log_full(&self) -> Option<String> {
        self.log.is_disk_full().then(|| "the disk has no room for the log".to_owned())
    }

    /// Why a change of so many bytes would be refused for want of space, if so.
    pub(crate) fn no_space(&self, bytes: usize) -> Option<String> {
        if let Some(reason) = self.log_full() {
            return Some(reason);
        }
        if let Health::NoSpace { reason } = self.store.health() {
            return Some(reason.to_string());
        }
        let wanted = self.disk_free_min_bytes.saturating_add(u64::try_from(bytes).unwrap_or(0));
        match self.free_room.bytes(&self.data_dir, wanted) {
            Ok(free) if free < wanted => Some(format!(
                "{free} bytes are free on the disk of {}, {wanted} are wanted",
                self.data_dir.display()
            )),
            Ok(_) => None,
            Err(error) => Some(format!("{}: {error}", self.data_dir.display())),
        }
    }

    /// Takes no more changes and waits for those in flight until `deadline`; whether all ended.
    pub(crate) async fn drain(&self, deadline: Instant) -> bool {
        self.closing.store(true, Ordering::Release);
        let all = u32::try_from(IN_FLIGHT_MAX).expect("a small constant");
        // Longer nobody waits for an answer: without a quorum some changes never have one.
        let until = deadline.min(Instant::now() + self.timeout);
        let drained = tokio::time::timeout_at(until.into(), self.in_flight.acquire_many(all)).await;
        self.in_flight.close();
        self.in_flight_bytes.close();
        drained.is_ok()
    }
}

/// What there must be room for when a change is proposed.
#[derive(Clone, Copy, Debug)]
enum Room {
    /// Its entry in the log and what it stores.
    Disk,
    /// Its entry in the log alone: deletions make room.
    Log,
    /// Nothing but what is held back for it: what makes room, or says that there is none, must pass where
    /// room is short; and so must the end of a lease, for locks hang on it.
    Ballast,
}

impl Room {
    fn of(body: &Body) -> Self {
        match body {
            Body::Alarm { .. }
            | Body::Member(_)
            | Body::Check
            | Body::Compact { .. }
            | Body::LeaseRevoke { .. }
            | Body::LeaseExpire { .. }
            | Body::LeaseCheckpoint { .. } => Self::Ballast,
            Body::Txn(_) if !takes_space(body) => Self::Log,
            Body::Txn(_)
            | Body::LeaseGrant { .. }
            | Body::UploadPart { .. }
            | Body::UploadCommit(_)
            | Body::Auth(_)
            | Body::Request { .. } => Self::Disk,
        }
    }
}

/// How a change comes to the leader.
#[derive(Clone)]
struct Way {
    raft: Raft,
    peers: Arc<Peers>,
    forwarder: Arc<Forwarder>,
}

impl Way {
    /// Proposes until replication answers, here or where the leader is. What is refused because the
    /// leader is another is not proposed again after the deadline: whoever finds no `try_under_way` from
    /// then on knows that nothing happened and nothing will.
    async fn send(
        &self,
        command: Bytes,
        deadline: Instant,
        try_under_way: &AtomicBool,
    ) -> Result<Outcome> {
        let mut leader = self.raft.status().leader;
        loop {
            // Told before the clock is read, as the other side reads the clock first.
            try_under_way.store(true, Ordering::SeqCst);
            if Instant::now() >= deadline {
                return Err(Error::NoQuorum { reason: no_leader(leader) });
            }
            leader = match self.raft.status().leader {
                Some(leader) if leader != self.peers.own().member => {
                    match self.forward(leader, command.clone(), deadline).await {
                        Forwarded::Applied(outcome) => return Ok(outcome),
                        Forwarded::Refused { reason } => return Err(Error::Busy { reason }),
                        Forwarded::Unknown { reason } => {
                            return Err(Error::OutcomeUnknown { reason });
                        }
                        Forwarded::NotLeader { leader } => leader,
                    }
                }
                _ => match self.raft.propose(command.clone()).await {
                    Ok(outcome) => return Ok(outcome),
                    Err(WriteError::Unknown { reason }) => {
                        return Err(Error::OutcomeUnknown { reason });
                    }
                    Err(WriteError::NotLeader { leader }) => leader,
                },
            };
            try_under_way.store(false, Ordering::SeqCst);
            if Instant::now() + RETRY_PAUSE >= deadline {
                return Err(Error::NoQuorum { reason: no_leader(leader) });
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn forward(&self, leader: u64, command: Bytes, deadline: Instant) -> Forwarded {
        match self.raft.address_of(leader) {
            Some(address) => {
                let link = self.peers.link(leader, &address);
                self.forwarder.forward(&link, command, deadline.into()).await
            }
            None => Forwarded::NotLeader { leader: None },
        }
    }
}

fn no_leader(known: Option<u64>) -> String {
    match known {
        Some(member) => format!("member {member:x} is said to lead, but does not take the change"),
        None => {
            "the cluster has no leader: more than half of its voters must be reached".to_owned()
        }
    }
}

/// The clock, in nanoseconds since the epoch. The store makes it run forwards.
pub(crate) fn now() -> Time {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
