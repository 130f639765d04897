//! The task that has the members compared. Every member runs it; only the leader asks, and raises alarms.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use revfs_api::wire::peer::{HashRequest, HashResponse};
use revfs_store::types::Author;
use revfs_store::{Alarm, AlarmKind, Body};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::integrity::Integrity;
use super::points::Points;
use super::verdict::{Held, Verdict, verdict};
use crate::config::{NodeConfig, StartError};
use crate::peer::{Link, Peers};
use crate::proposal::Proposer;

/// The others are waited for so long …
const PATIENCE: Duration = Duration::from_secs(60);

/// … and so many times as long as this member's own hash took.
const PATIENCE_FACTOR: u32 = 4;

/// A difference that nobody can be blamed for is looked at so often, if not all voters answer.
const UNDECIDED_LOOKS: u32 = 5;

/// Before such a difference is looked at again.
const UNDECIDED_PAUSE: Duration = Duration::from_secs(10);

/// Between two looks at whether a corrupt member leads.
const LOOK: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Comparison {
    member: u64,
    proposer: Arc<Proposer>,
    peers: Arc<Peers>,
    points: Arc<Points>,
    integrity: Arc<Integrity>,
    /// Besides each compaction.
    period: Option<Duration>,
}

/// What was found at the last place: an alarm is raised for what is found twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Suspicion {
    odd: BTreeSet<u64>,
    /// So often in a row there was no majority.
    undecided: u32,
}

impl Comparison {
    /// Compares this member first, if that is asked for, and refuses the start of one that holds other data
    /// than a majority.
    pub(crate) async fn begin(
        config: &NodeConfig,
        member: u64,
        (proposer, peers): (Arc<Proposer>, Arc<Peers>),
        (points, integrity): (Arc<Points>, Arc<Integrity>),
    ) -> Result<Self, StartError> {
        let period = config.corrupt_check_time;
        let this = Self { member, proposer, peers, points, integrity, period };
        if config.initial_corrupt_check && this.is_odd(config.start_timeout).await {
            return Err(StartError::Diverged { member });
        }
        Ok(this)
    }

    /// Runs until `stop` is set or its sender is gone.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.go_on() => {}
            // An error says that the node is gone.
            _ = stop.wait_for(|stop| *stop) => {}
        }
        self.points.stop();
    }

    /// Whether this member, which has just started, holds other data than a majority. What cannot be found
    /// out within `timeout` is no reason not to start.
    async fn is_odd(&self, timeout: Duration) -> bool {
        let asked = async {
            if self.proposer.raft.replication().addresses.len() < 2 {
                return false;
            }
            // Without a leader there is no answer; there may be one soon.
            let (author, note) = (Author::default(), Bytes::new());
            while let Err(error) =
                self.proposer.propose(author.clone(), note.clone(), Body::Check).await
            {
                tracing::info!(%error, "this member waits to be compared with the others");
                tokio::time::sleep(LOOK).await;
            }
            let index = self.points.newer_than(0).await;
            let Ok(own) = self.points.at(index).await else { return false };
            let replication = self.proposer.raft.replication();
            let mut answers = self.ask(index, &replication.addresses).await;
            answers.insert(self.member, Held::of(&own));
            let members = answers.len();
            let found = verdict(&replication.voters, &answers);
            tracing::info!(index, members, ?found, "this member was compared with the others");
            matches!(found, Verdict::Odd(odd) if odd.contains(&self.member))
        };
        tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| {
            tracing::warn!(?timeout, "this member was not compared with the others in time");
            false
        })
    }

    async fn go_on(&self) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut checked = Instant::now();
        let (mut last, mut suspicion) = (0, Suspicion::default());
        loop {
            tokio::select! {
                index = self.points.newer_than(last) => {
                    last = index;
                    if self.proposer.leads() {
                        suspicion = self.compare(index, suspicion).await;
                    }
                }
                _ = looks.tick() => {
                    let is_due = self.period.is_some_and(|period| checked.elapsed() >= period);
                    if is_due {
                        checked = Instant::now();
                        self.check().await;
                    }
                    self.hand_over().await;
                }
            }
        }
    }

    /// Has all members keep their states at one place of the log, if this one leads others.
    async fn check(&self) {
        if !self.proposer.leads() || self.proposer.raft.replication().addresses.len() < 2 {
            return;
        }
        self.propose(Body::Check, "the members are not compared").await;
    }

    async fn propose(&self, body: Body, complaint: &'static str) {
        let proposed = self.proposer.propose(Author::default(), Bytes::new(), body).await;
        let refused = match proposed {
            Ok(outcome) => outcome.result.err().map(|refusal| refusal.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(reason) = refused {
            tracing::warn!(reason, "{complaint}");
        }
    }

    /// Asks all members what they held after the entry `index`, and does what follows.
    async fn compare(&self, index: u64, before: Suspicion) -> Suspicion {
        let Ok(own) = self.points.at(index).await else { return before };
        let replication = self.proposer.raft.replication();
        let mut answers = self.ask(index, &replication.addresses).await;
        answers.insert(self.member, Held::of(&own));
        let known = self.known_corrupt();
        match verdict(&replication.voters, &answers) {
            Verdict::Same => {
                tracing::debug!(index, members = answers.len(), "the members hold the same");
                Suspicion::default()
            }
            Verdict::Odd(odd) => {
                let odd: BTreeSet<u64> = odd.difference(&known).copied().collect();
                self.blame(index, odd, &before, &answers).await
            }
            Verdict::Undecided { .. } if known.contains(&0) => before,
            Verdict::Undecided { all_voters_answered } => {
                self.doubt(index, all_voters_answered, &before, &answers).await
            }
        }
    }

    /// Raises the alarm for those who were odd twice; has the others compared once more.
    async fn blame(
        &self,
        index: u64,
        odd: BTreeSet<u64>,
        before: &Suspicion,
        answers: &BTreeMap<u64, Held>,
    ) -> Suspicion {
        for member in &odd {
            let (name, held) = (format!("{member:x}"), answers.get(member));
            if before.odd.contains(member) {
                tracing::error!(
                    member = name,
                    index,
                    ?held,
                    "a member holds other data than a majority: the alarm CORRUPT is raised for it; replace it"
                );
                self.raise(*member).await;
            } else {
                tracing::warn!(
                    member = name,
                    index,
                    ?held,
                    "a member holds other data than a majority: looking again"
                );
            }
        }
        let fresh = odd.difference(&before.odd).copied().collect::<BTreeSet<u64>>();
        if !fresh.is_empty() {
            self.check().await;
        }
        Suspicion { odd: fresh, undecided: 0 }
    }

    /// Raises the alarm for nobody in particular, as etcd does, once it is sure that there is no majority.
    async fn doubt(
        &self,
        index: u64,
        all_voters_answered: bool,
        before: &Suspicion,
        answers: &BTreeMap<u64, Held>,
    ) -> Suspicion {
        let undecided = before.undecided + 1;
        let is_sure = (all_voters_answered && undecided > 1) || undecided >= UNDECIDED_LOOKS;
        if is_sure {
            tracing::error!(
                index,
                ?answers,
                "members hold different data, and no majority holds the same: the alarm CORRUPT is \
                 raised for the whole cluster; find out which of them is right, replace the others, \
                 then 'revfs alarm disarm'"
            );
            self.raise(0).await;
            return Suspicion::default();
        }
        tracing::warn!(
            index,
            ?answers,
            "members hold different data, and no majority holds the same: looking again"
        );
        if !all_voters_answered {
            tokio::time::sleep(UNDECIDED_PAUSE).await;
        }
        self.check().await;
        Suspicion { odd: BTreeSet::new(), undecided }
    }

    async fn raise(&self, member: u64) {
        let alarm = Alarm { member, kind: AlarmKind::Corrupt };
        let body = Body::Alarm { alarm, is_raised: true };
        self.propose(body, "the alarm CORRUPT was not raised").await;
    }

    /// For whom the alarm is raised already.
    fn known_corrupt(&self) -> BTreeSet<u64> {
        let alarms = self.proposer.store.read_view().and_then(|view| view.alarms());
        let corrupt = alarms.unwrap_or_default().into_iter();
        let corrupt = corrupt.filter(|alarm| alarm.kind == AlarmKind::Corrupt);
        corrupt.map(|alarm| alarm.member).collect()
    }

    /// What the others held; who does not say in time is left out.
    async fn ask(&self, index: u64, addresses: &BTreeMap<u64, String>) -> BTreeMap<u64, Held> {
        let mut asked = JoinSet::new();
        for (&member, address) in addresses.iter().filter(|(id, _)| **id != self.member) {
            let link = self.peers.link(member, address);
            asked.spawn(async move { (member, held_by(&link, index).await) });
        }
        let patience = PATIENCE + self.points.took() * PATIENCE_FACTOR;
        let mut answers = BTreeMap::new();
        let all = async {
            while let Some(answer) = asked.join_next().await {
                match answer {
                    Ok((member, Ok(held))) => {
                        answers.insert(member, held);
                    }
                    Ok((member, Err(reason))) => {
                        let member = format!("{member:x}");
                        tracing::debug!(member, index, reason, "a member is not compared");
                    }
                    Err(error) => tracing::error!(%error, "a member was not asked"),
                }
            }
        };
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::debug!(index, ?patience, "not all members said in time what they hold");
        }
        answers
    }

    /// A corrupt member gives its lead, and with it its store as the source of copies, to another one.
    async fn hand_over(&self) {
        if !self.integrity.is_corrupt() || !self.proposer.leads() {
            return;
        }
        let corrupt = self.known_corrupt();
        let voters = self.proposer.raft.replication().voters;
        let progress = self.proposer.raft.progress();
        let healthy =
            progress.iter().filter(|(id, _)| voters.contains(id) && !corrupt.contains(id));
        let nearest = healthy.min_by_key(|(_, progress)| progress.lag.unwrap_or(u64::MAX));
        let Some((&to, _)) = nearest else { return };
        tracing::warn!(
            to = format!("{to:x}"),
            "this member is corrupt: it asks another one to lead"
        );
        if let Err(error) = self.proposer.raft.hand_over_to(to).await {
            tracing::warn!(%error, "no other member was asked to lead");
        }
    }
}

async fn held_by(link: &Link, index: u64) -> Result<Held, String> {
    let mut client = link.client().await.map_err(|error| error.to_string())?;
    let answer = client.hash(HashRequest { index }).await;
    let answer = answer.map_err(|status| link.failed(status).to_string())?.into_inner();
    let HashResponse { refusal, term, revision, compacted, kv_hash, own_hash } = answer;
    if !refusal.is_empty() {
        return Err(refusal);
    }
    Ok(Held { term, revision, compacted, kv: kv_hash, own: own_hash })
}
