//! The task that brings replication's membership after the members' rows: it looks, decides, does one
//! step, and looks again.
//!
//! Every member runs it: each tells the cluster of itself, and knows from the rows whom it may listen to.
//! Only the leader takes steps; each holds only for the membership that was seen.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use revfs_api::keyspace::Error;
use revfs_api::wire::peer::SeenMember;
use revfs_store::types::Author;
use revfs_store::{Body, Command, MemberChange, MemberRole, MemberRow, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;

use super::decision::{Introduction, LAG_ENTRIES_MAX, Peer, Replicas, Seen, Step, next_step};
use super::departure::Departure;
use super::waiting::{Waiting, waiting, waiting_to_leave};
use crate::config::NodeConfig;
use crate::convert;
use crate::data_dir::{DataDir, Identity};
use crate::peer::Peers;
use crate::proposal::{Proposer, now};
use crate::raft::{Change, Progress, Replication};

/// Between two looks.
const TICK: Duration = Duration::from_millis(200);

/// Between a step and the next look, which is to see what came of it.
const BETWEEN_STEPS: Duration = Duration::from_millis(20);

/// Between two attempts to reach who is pending, and after a step that failed.
const RETRY: Duration = Duration::from_secs(1);

/// A change of the membership that takes longer is left to itself: it is on its way, or has no quorum.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);

/// The newest cluster version that this release speaks.
pub const SPOKEN_VERSION: u32 = revfs_store::FIRST_VERSION;

/// What a member tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Presence {
    pub(crate) peer_urls: Vec<String>,
    /// How it is called, and where clients find it; `None` while that is not known.
    pub(crate) clients: Option<(String, Vec<String>)>,
}

/// How soon somebody counts as gone.
#[derive(Clone, Copy, Debug)]
struct MemberPace {
    /// Who is there has acknowledged something in this time, once at least.
    heartbeats: Duration,
    silence_max: Duration,
    standby_after: Duration,
}

/// See the module.
pub(crate) struct Reconciler {
    own: Identity,
    proposer: Arc<Proposer>,
    peers: Arc<Peers>,
    pace: MemberPace,
    /// The newest cluster version that this member speaks.
    pub(crate) speaks: u32,
    pub(super) learners_max: usize,
    departure: Departure,
    presence: Mutex<Presence>,
    found: Mutex<Found>,
}

/// What a leader has found out; forgotten when another one leads.
#[derive(Default)]
struct Found {
    leads_since: Option<(u64, Instant)>,
    keeps_up_since: HashMap<u64, Instant>,
    answers: HashMap<u64, Arc<Mutex<Probe>>>,
}

/// Who answers at the addresses of a pending member.
#[derive(Default)]
struct Probe {
    urls: Vec<String>,
    is_asking: bool,
    asked: Option<Instant>,
    answer: Option<Result<Introduction, String>>,
}

impl Reconciler {
    pub(crate) fn new(
        (own, data_dir): (Identity, Arc<DataDir>),
        (proposer, peers): (Arc<Proposer>, Arc<Peers>),
        config: &NodeConfig,
    ) -> Self {
        let heartbeats = 3 * config.heartbeat_interval;
        let pace = MemberPace {
            heartbeats,
            silence_max: config.election_timeout.max(heartbeats),
            standby_after: config.standby_after,
        };
        let presence = Presence { peer_urls: config.peers.advertised.clone(), clients: None };
        let (presence, found) = (Mutex::new(presence), Mutex::default());
        let learners_max = config.learners_max;
        let departure = Departure::new(data_dir, config.election_timeout);
        let speaks = config.speaks;
        Self { own, proposer, peers, pace, speaks, learners_max, departure, presence, found }
    }

    /// Set once the cluster goes on without this member, for ever.
    pub(crate) fn has_left(&self) -> watch::Receiver<bool> {
        self.departure.has_left()
    }

    /// Changes what the cluster is told of this member, now and whenever it no longer says so.
    pub(crate) fn present(&self, change: impl FnOnce(&mut Presence)) {
        change(&mut self.presence.lock());
    }

    pub(crate) async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut complaint = String::new();
        loop {
            let turn = tokio::select! {
                turn = self.turn() => turn,
                // What is on its way goes on without this task.
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let pause = match turn {
                Ok(true) => BETWEEN_STEPS,
                Ok(false) => {
                    complaint.clear();
                    TICK
                }
                Err(reason) => {
                    if reason != complaint {
                        tracing::warn!(%reason, "the members are not as they are wanted yet");
                        complaint = reason;
                    }
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// Whether there may be more to do at once.
    async fn turn(&self) -> Result<bool, String> {
        let rows = self.rows().map_err(|error| error.to_string())?;
        self.know(&rows);
        if self.departure.check(&self.own, &self.proposer.raft, &self.peers, &rows).await {
            return Ok(false);
        }
        self.publish(&rows).await?;
        match self.look(rows).map_err(|error| error.to_string())? {
            None => Ok(false),
            Some((seen, replication)) => match next_step(&seen) {
                None => Ok(false),
                Some(step) if !self.holds(&step).await? => Ok(true),
                Some(step) => {
                    tracing::info!(?step, "a step towards the members that are wanted");
                    self.take(step, &replication).await.map(|()| true)
                }
            },
        }
    }

    /// Whether a change of who votes is right by what was acknowledged after it was decided: somebody who
    /// has just failed looks as if it were there.
    async fn holds(&self, step: &Step) -> Result<bool, String> {
        if !matches!(step, Step::SetVoters(_)) {
            return Ok(true);
        }
        let decided = Instant::now();
        tokio::time::sleep(self.pace.heartbeats).await;
        let rows = self.rows().map_err(|error| error.to_string())?;
        let seen = self.look(rows).map_err(|error| error.to_string())?;
        let seen = seen.map(|(seen, _)| Seen { silence_max: decided.elapsed(), ..seen });
        Ok(seen.and_then(|seen| next_step(&seen)).as_ref() == Some(step))
    }

    /// Whom this member listens to: until it replicates no more even who was removed, for it may lead.
    fn know(&self, rows: &[(u64, MemberRow)]) {
        let instance = |(id, row): &(u64, MemberRow)| Some((*id, row.live()?.instance?));
        let replicas = self.proposer.raft.replication().addresses;
        let gone = rows.iter().filter(|(_, row)| row.live().is_none()).map(|(id, _)| *id);
        let gone = gone.filter(|id| !replicas.contains_key(id)).collect();
        self.peers.met().know(rows.iter().filter_map(instance), gone);
    }

    fn rows(&self) -> Result<Vec<(u64, MemberRow)>, StoreError> {
        self.proposer.store.read_view()?.member_rows()
    }

    /// Tells of this member what its row does not say yet.
    async fn publish(&self, rows: &[(u64, MemberRow)]) -> Result<(), String> {
        let Presence { peer_urls, clients } = self.presence.lock().clone();
        let own = rows.iter().find(|(id, _)| *id == self.own.member);
        // Without a row it is adopted first; after its removal nobody listens.
        let Some(member) = own.and_then(|(_, row)| row.live()) else { return Ok(()) };
        let (name, client_urls) =
            clients.unwrap_or_else(|| (member.name.clone(), member.client_urls.clone()));
        let says_so = member.name == name
            && member.client_urls == client_urls
            && (!member.peer_urls.is_empty() || peer_urls.is_empty())
            && (member.instance, member.version) == (Some(self.own.instance), self.speaks);
        if says_so {
            return Ok(());
        }
        let (id, instance, version) = (self.own.member, self.own.instance, self.speaks);
        let change = MemberChange::Publish { id, instance, version, name, peer_urls, client_urls };
        self.change_rows(change).await
    }

    pub(super) async fn change_rows(&self, change: MemberChange) -> Result<(), String> {
        let body = Body::Member(change);
        let result = if self.proposer.leads() {
            // Past the count of changes in flight: nobody waits for it when the node stops, and the next
            // leader does what has not happened.
            let (author, note) = (Author::default(), Bytes::new());
            let command = Command { time: now(), author, note, body };
            let encoded = command.encode().map_err(|error| error.to_string())?;
            let proposed = self.proposer.raft.propose(encoded);
            let late = |_| format!("no quorum took it within {CHANGE_TIMEOUT:?}");
            let outcome = tokio::time::timeout(CHANGE_TIMEOUT, proposed).await.map_err(late)?;
            outcome.map_err(|error| error.to_string())?.result
        } else {
            let proposed = self.proposer.propose(Author::default(), Bytes::new(), body).await;
            proposed.map_err(|error| error.to_string())?.result
        };
        result.map(drop).map_err(|refusal| refusal.to_string())
    }

    /// What the leader sees; `None` on any other member.
    fn look(&self, rows: Vec<(u64, MemberRow)>) -> Result<Option<(Seen, Replication)>, StoreError> {
        let status = self.proposer.raft.status();
        let mut found = self.found.lock();
        if status.leader != Some(self.own.member) {
            *found = Found::default();
            return Ok(None);
        }
        let now = Instant::now();
        if found.leads_since.is_none_or(|(term, _)| term != status.term) {
            *found = Found { leads_since: Some((status.term, now)), ..Found::default() };
        }
        let replication = self.proposer.raft.replication();
        let progress = self.proposer.raft.progress();
        let mut peers = HashMap::new();
        for (id, row) in rows.iter().filter(|(id, _)| *id != self.own.member) {
            let is_replica = replication.addresses.contains_key(id);
            if row.live().is_none() && !is_replica {
                continue;
            }
            // Who was removed is asked for its vote as long as it has one.
            let urls = row.live().map(|member| &member.peer_urls[..]).unwrap_or_default();
            let progress = progress.get(id).copied().unwrap_or_default();
            let peer = self.peer(&mut found, (*id, urls), progress, is_replica, now);
            peers.insert(*id, peer);
        }
        let seen = Seen {
            cluster: self.own.cluster,
            own: self.own.member,
            version: self.proposer.store.read_view()?.cluster_version()?,
            rows: rows.into_iter().collect(),
            replicas: Replicas {
                voters: replication.voters.clone(),
                counted: replication.counted.clone(),
                addresses: replication.addresses.clone(),
                is_joint: replication.is_joint,
                is_moving: !replication.is_committed,
            },
            peers: peers.into_iter().collect(),
            leading_for: found.leads_since.map_or(Duration::ZERO, |(_, since)| now - since),
            silence_max: self.pace.silence_max,
            standby_after: self.pace.standby_after,
        };
        Ok(Some((seen, replication)))
    }

    fn peer(
        &self,
        found: &mut Found,
        (id, urls): (u64, &[String]),
        progress: Progress,
        is_replica: bool,
        now: Instant,
    ) -> Peer {
        let Progress { lag, silent_for } = progress;
        let is_there = silent_for.is_some_and(|silent| silent <= self.pace.silence_max);
        let keeps_up = is_there && lag.is_some_and(|lag| lag <= LAG_ENTRIES_MAX);
        let kept_up_for = if keeps_up {
            Some(now - *found.keeps_up_since.entry(id).or_insert(now))
        } else {
            found.keeps_up_since.remove(&id);
            None
        };
        let introduced = if is_replica && is_there {
            found.answers.remove(&id);
            None
        } else {
            self.ask(Arc::clone(found.answers.entry(id).or_default()), urls)
        };
        Peer { introduced, lag, kept_up_for, silent_for }
    }

    /// The last answer at a member's addresses; asks again in the background when it is time.
    fn ask(
        &self,
        probe: Arc<Mutex<Probe>>,
        urls: &[String],
    ) -> Option<Result<Introduction, String>> {
        let mut state = probe.lock();
        if state.urls != urls {
            *state = Probe { urls: urls.to_vec(), ..Probe::default() };
        }
        let answer = state.answer.clone();
        if !state.is_asking && state.asked.is_none_or(|asked| asked.elapsed() >= RETRY) {
            state.is_asking = true;
            let (peers, urls) = (Arc::clone(&self.peers), state.urls.clone());
            drop(state);
            tokio::spawn(async move {
                let answer = who_is_at(&peers, &urls).await;
                let mut state = probe.lock();
                if state.urls == urls {
                    state.answer = Some(answer);
                }
                (state.is_asking, state.asked) = (false, Some(Instant::now()));
            });
        }
        answer
    }

    async fn take(&self, step: Step, seen: &Replication) -> Result<(), String> {
        let raft = &self.proposer.raft;
        let change = match step {
            Step::Adopt { id, role, address } => {
                return self.change_rows(adoption(id, role, &address)).await;
            }
            Step::Identify { id, instance, version } => {
                return self.change_rows(MemberChange::Identify { id, instance, version }).await;
            }
            Step::RemoveRow { id } => return self.change_rows(MemberChange::Remove { id }).await,
            Step::RaiseVersion { version } => {
                return self.change_rows(MemberChange::RaiseVersion { version }).await;
            }
            Step::HandOver { to } => {
                raft.hand_over_to(to).await.map_err(|error| error.to_string())?;
                // It leads until the other one has been elected.
                tokio::time::sleep(RETRY).await;
                return Ok(());
            }
            Step::Settle => Change::Settle,
            Step::AddLearner { id, address } => Change::AddLearner { id, address },
            Step::SetAddress { id, address } => Change::SetAddress { id, address },
            Step::SetVoters(voters) => Change::SetVoters(voters),
            Step::RemoveLearner { id } => Change::RemoveLearner { id },
        };
        match tokio::time::timeout(CHANGE_TIMEOUT, raft.change(seen, change)).await {
            Ok(changed) => changed.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no quorum confirmed the change within {CHANGE_TIMEOUT:?}")),
        }
    }

    /// What the leader sees of the members; `None` unless this one leads.
    pub(crate) fn seen(&self) -> Result<Option<Vec<SeenMember>>, Error> {
        let rows = self.rows().map_err(convert::store_error)?;
        let Some((seen, _)) = self.look(rows).map_err(convert::store_error)? else {
            return Ok(None);
        };
        let behind = |id: u64| match id == seen.own {
            true => Some(0),
            false => seen.peers.get(&id).and_then(|peer| peer.lag),
        };
        let one = |id: u64, waits_for: Option<Waiting>| SeenMember {
            member: id,
            is_there: seen.is_there(id),
            keeps_up: seen.is_replica(id) && seen.keeps_up(id),
            waits_for: waits_for.map(|words| words.to_string()).unwrap_or_default(),
            behind: behind(id),
        };
        let live = seen.live().map(|member| one(member.id, waiting(&seen, member)));
        let leaving = seen.leaving().map(|id| one(id, Some(waiting_to_leave(&seen, id))));
        Ok(Some(live.chain(leaving).collect()))
    }
}

fn adoption(id: u64, role: MemberRole, address: &str) -> MemberChange {
    let urls = address.split(',').filter(|url| !url.is_empty());
    MemberChange::Adopt { id, role, peer_urls: urls.map(str::to_owned).collect() }
}

/// Makes rows of those whom replication knows and who have none.
pub(super) fn adoptions<'r>(
    replication: &'r Replication,
    rows: &'r [(u64, MemberRow)],
) -> impl Iterator<Item = MemberChange> + 'r {
    let unknown = |(id, _): &(&u64, &String)| !rows.iter().any(|(known, _)| known == *id);
    replication.addresses.iter().filter(unknown).map(|(&id, address)| {
        let votes = replication.voters.contains(&id);
        let role = if votes { MemberRole::Voter } else { MemberRole::Learner };
        adoption(id, role, address)
    })
}

/// Who answers at one of the addresses, or why nobody does at the last.
async fn who_is_at(peers: &Peers, urls: &[String]) -> Result<Introduction, String> {
    let mut reason = "it has no peer URL".to_owned();
    for url in urls {
        match peers.who_is_at(url, &[]).await {
            Ok(found) => {
                let instance = <[u8; 16]>::try_from(&found.instance[..]);
                let instance =
                    instance.map_err(|_| "who answers does not tell its data directory")?;
                return Ok(Introduction {
                    cluster: found.cluster,
                    member: found.member,
                    instance: u128::from_be_bytes(instance),
                    version: found.cluster_version,
                });
            }
            Err(error) => reason = error.reason(),
        }
    }
    Err(reason)
}
