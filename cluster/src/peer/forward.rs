//! Changes that are proposed on a member that does not lead: brought to the leader, once.
//!
//! ```text
//! caller ─► number ─► line to the leader (batches) ═► leader: log ─► … ─► apply here, same number ─► caller
//!                            └──── how it ended, if it was not applied ─────────────────────────────┘
//! ```
//!
//! The caller's answer is what this member's own apply says, so that it reads here at once what it has
//! written. The leader's word matters only where there is no such answer: *did not happen* (and may be
//! tried again), or *unknown*. What was sent on a line that broke is unknown unless it turns up in the
//! log within a bound; what was not sent yet did not happen.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use revfs_api::wire::peer::proposal_end::End as Told;
use revfs_api::wire::peer::{Proposal, ProposalEnd, ProposeRequest, ProposeResponse};
use revfs_store::Outcome;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::link::{Link, PeerError};

/// Changes in one message at most.
const BATCH: usize = 64;

/// Bytes of changes in one message, unless one alone has more.
const BATCH_BYTES: usize = 1 << 20;

/// Changes that wait for a line; the proposer bounds how many there are.
const QUEUE: usize = 4_096;

/// Batches under way between the line and the connection.
const BATCHES_READY: usize = 4;

/// A line that carries nothing for so long ends.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// How a forwarded change ended that was not applied here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Applied(Outcome),
    /// Nothing happened: it may be proposed again.
    NotLeader {
        leader: Option<u64>,
    },
    /// Nothing happened, and the leader says why.
    Refused {
        reason: String,
    },
    Unknown {
        reason: String,
    },
}

/// Those whose changes are under way, by number.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<HashMap<NonZeroU64, oneshot::Sender<Outcome>>>);

impl Waiting {
    /// Called by apply.
    pub(crate) fn applied(&self, number: NonZeroU64, outcome: &Outcome) {
        if let Some(waiter) = self.0.lock().remove(&number) {
            // Whoever waited may have lost patience.
            waiter.send(outcome.clone()).ok();
        }
    }

    /// The store is another member's: what it holds was not applied here, and nobody can say how it
    /// ended.
    pub(crate) fn installed(&self) {
        self.0.lock().clear();
    }

    fn register(self: &Arc<Self>, number: NonZeroU64) -> (Registered, oneshot::Receiver<Outcome>) {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().insert(number, sender);
        (Registered { number, waiting: Arc::clone(self) }, receiver)
    }
}

/// Nobody waits any more when it is dropped.
struct Registered {
    number: NonZeroU64,
    waiting: Arc<Waiting>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.waiting.0.lock().remove(&self.number);
    }
}

/// A change on its way to a line.
struct Item {
    proposal: Proposal,
    /// Dropped unsent when the line broke under it.
    end: oneshot::Sender<Told>,
}

/// Brings changes to whoever leads.
pub(crate) struct Forwarder {
    waiting: Arc<Waiting>,
    /// By the member that is called.
    lines: Mutex<HashMap<u64, mpsc::Sender<Item>>>,
    /// How long a change that was sent on a line that broke may still turn up in the log.
    patience: Duration,
}

impl Forwarder {
    pub(crate) fn new(waiting: Arc<Waiting>, patience: Duration) -> Self {
        Self { waiting, lines: Mutex::default(), patience }
    }

    /// Brings an encoded command to the member that `link` leads to.
    pub(crate) async fn forward(&self, link: &Arc<Link>, command: Bytes, deadline: Instant) -> End {
        let number = match getrandom::u64() {
            Ok(number) => NonZeroU64::new(number).unwrap_or(NonZeroU64::MAX),
            Err(error) => return End::Refused { reason: error.to_string() },
        };
        let (registered, mut outcome) = self.waiting.register(number);
        let (end, mut told) = oneshot::channel();
        let proposal = Proposal { number: number.get(), command };
        self.send(link, Item { proposal, end }).await;
        let late = || End::Unknown { reason: "no answer in time".to_owned() };
        let told = tokio::select! {
            biased;
            outcome = &mut outcome => return applied(outcome),
            told = &mut told => told,
            () = tokio::time::sleep_until(deadline) => return late(),
        };
        let (until, reason) = match told {
            Ok(Told::NotLeader(leader)) => {
                return End::NotLeader { leader: (leader != 0).then_some(leader) };
            }
            Ok(Told::Refused(reason)) => return End::Refused { reason },
            Ok(Told::Unknown(reason)) => return End::Unknown { reason },
            // It has happened, and comes here in the log.
            Ok(Told::Applied(_)) => (deadline, "this member is behind the leader".to_owned()),
            Err(_) => (
                deadline.min(Instant::now() + self.patience),
                format!("the connection to member {:x} was lost", link.member()),
            ),
        };
        let end = match tokio::time::timeout_at(until, outcome).await {
            Ok(outcome) => applied(outcome),
            Err(_) => End::Unknown { reason },
        };
        drop(registered);
        end
    }

    /// Puts it into the line to a member, which is made if there is none.
    async fn send(&self, link: &Arc<Link>, item: Item) {
        let mut item = item;
        // A line that has ended meanwhile is made once more; an item that is dropped was not sent.
        for _ in 0..2 {
            let line = {
                let mut lines = self.lines.lock();
                lines.retain(|_, line| !line.is_closed());
                lines.entry(link.member()).or_insert_with(|| begin(Arc::clone(link))).clone()
            };
            match line.send(item).await {
                Ok(()) => return,
                Err(back) => item = back.0,
            }
        }
        item.end.send(Told::NotLeader(0)).ok();
    }
}

fn applied(outcome: Result<Outcome, oneshot::error::RecvError>) -> End {
    match outcome {
        Ok(outcome) => End::Applied(outcome),
        Err(_) => End::Unknown { reason: "apply has forgotten the change".to_owned() },
    }
}

fn begin(link: Arc<Link>) -> mpsc::Sender<Item> {
    let (line, items) = mpsc::channel(QUEUE);
    tokio::spawn(run(link, items));
    line
}

/// Carries changes to one member until the connection fails or nothing has come for long. What is in the
/// queue then has not been sent.
async fn run(link: Arc<Link>, mut items: mpsc::Receiver<Item>) {
    if let Err(error) = carry(&link, &mut items).await {
        tracing::debug!(%error, "no more changes are brought to a member for now");
    }
    items.close();
    while let Some(item) = items.recv().await {
        item.end.send(Told::NotLeader(0)).ok();
    }
}

/// Ends well for want of work, or if the far side has closed it.
async fn carry(link: &Arc<Link>, items: &mut mpsc::Receiver<Item>) -> Result<(), PeerError> {
    let mut client = link.client().await?;
    let (batches, ready) = mpsc::channel(BATCHES_READY);
    let opened = client.propose(ReceiverStream::new(ready)).await;
    let mut ends = opened.map_err(|status| link.failed(status))?.into_inner();
    // Dropped with this function: their callers learn that the line is gone.
    let mut sent: HashMap<u64, oneshot::Sender<Told>> = HashMap::new();
    let mut gathered = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            count = items.recv_many(&mut gathered, BATCH) => {
                if count == 0 {
                    return Ok(());
                }
                for batch in batches_of(&mut gathered, &mut sent) {
                    if batches.send(batch).await.is_err() {
                        return Ok(());
                    }
                }
            }
            answer = ends.next() => match answer {
                Some(Ok(ProposeResponse { ends })) => for end in ends {
                    resolve(&mut sent, end);
                },
                Some(Err(status)) => return Err(link.failed(status)),
                None => return Ok(()),
            },
            () = tokio::time::sleep(IDLE_MAX), if sent.is_empty() => return Ok(()),
        }
    }
}

fn resolve(sent: &mut HashMap<u64, oneshot::Sender<Told>>, end: ProposalEnd) {
    if let (Some(waiter), Some(told)) = (sent.remove(&end.number), end.end) {
        waiter.send(told).ok();
    }
}

/// The gathered changes as messages of bounded size; from here on they count as sent.
fn batches_of(
    gathered: &mut Vec<Item>,
    sent: &mut HashMap<u64, oneshot::Sender<Told>>,
) -> Vec<ProposeRequest> {
    let mut batches = Vec::new();
    let (mut proposals, mut bytes) = (Vec::new(), 0);
    for Item { proposal, end } in gathered.drain(..) {
        if bytes > 0 && bytes + proposal.command.len() > BATCH_BYTES {
            batches.push(ProposeRequest { proposals: std::mem::take(&mut proposals) });
            bytes = 0;
        }
        bytes += proposal.command.len();
        sent.insert(proposal.number, end);
        proposals.push(proposal);
    }
    batches.push(ProposeRequest { proposals });
    batches
}

#[cfg(test)]
mod tests;
