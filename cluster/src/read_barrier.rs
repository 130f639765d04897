//! Linearizable reads: a moment from which this member's store shows all that was acknowledged before.
//!
//! The leader confirms by a quorum that it leads and names an entry; whoever has applied that entry may
//! answer. One question is under way at a time, and all reads that come meanwhile share the next one:
//! reads never add more than two round trips to each other, however many there are.

use std::sync::Arc;
use std::time::Duration;

use revfs_api::keyspace::{Error, Result};
use revfs_api::wire::peer::ReadIndexRequest;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::proposal::Proposer;

/// Reads that wait for a question.
const QUEUE: usize = 65_536;

/// Pause before a leader is looked for again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// A question that takes longer than a quorum should need. etcd's bound (server/v3_server.go).
const SLOW: Duration = Duration::from_millis(500);

/// What a read is told: the entry that must be applied, or why there is none.
type Answer = Result<u64>;

/// See the module.
pub(crate) struct ReadBarrier {
    proposer: Arc<Proposer>,
    reads: mpsc::Sender<oneshot::Sender<Answer>>,
}

impl ReadBarrier {
    /// The barrier, and the task that asks.
    pub(crate) fn new(
        proposer: Arc<Proposer>,
        stop: watch::Receiver<bool>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (reads, waiting) = mpsc::channel(QUEUE);
        let task = run(Arc::clone(&proposer), waiting, stop);
        (Self { proposer, reads }, task)
    }

    /// Waits until what was acknowledged anywhere before the call can be read here.
    pub(crate) async fn pass(&self) -> Result<()> {
        if self.proposer.raft.is_alone() {
            return Ok(());
        }
        let timeout = self.proposer.timeout;
        let deadline = Instant::now() + timeout;
        let (sender, answer) = oneshot::channel();
        let asked = async {
            self.reads.send(sender).await.map_err(|_| ())?;
            answer.await.map_err(|_| ())
        };
        let index = match tokio::time::timeout_at(deadline, asked).await {
            Ok(Ok(answer)) => answer?,
            Ok(Err(())) => {
                return Err(Error::Unavailable { reason: "the node is shutting down".to_owned() });
            }
            Err(_) => return Err(Error::Timeout(timeout)),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if self.proposer.raft.is_applied(index, left).await {
            Ok(())
        } else {
            Err(Error::Timeout(timeout))
        }
    }
}

async fn run(
    proposer: Arc<Proposer>,
    mut reads: mpsc::Receiver<oneshot::Sender<Answer>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut gathered = Vec::new();
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            count = reads.recv_many(&mut gathered, QUEUE) => if count == 0 {
                return;
            },
        }
        let asked = Instant::now();
        let answer = tokio::select! {
            _ = stop.changed() => return,
            answer = ask(&proposer) => answer,
        };
        if answer.is_err() {
            proposer.meters.read_indexes_failed.inc();
        } else if asked.elapsed() > SLOW {
            proposer.meters.read_indexes_slow.inc();
        }
        for read in gathered.drain(..) {
            // Whoever waited may have lost patience.
            read.send(answer.clone()).ok();
        }
    }
}

/// Asks whoever leads, until there is an answer or the time of a change is over.
async fn ask(proposer: &Proposer) -> Answer {
    let deadline = Instant::now() + proposer.timeout;
    loop {
        let reason = match proposer.leader_elsewhere() {
            None => match proposer.raft.read_index().await {
                Ok(read) => return Ok(read.index),
                Err(error) => error.to_string(),
            },
            Some(link) => {
                let asked = async {
                    let mut client = link.client().await?;
                    let answer = client.read_index(ReadIndexRequest {}).await;
                    answer.map_err(|status| link.failed(status))
                };
                match tokio::time::timeout_at(deadline, asked).await {
                    Ok(Ok(answer)) => match answer.into_inner().read {
                        Some(read) => return Ok(read.index),
                        None => "the leader named no entry".to_owned(),
                    },
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => return Err(Error::Timeout(proposer.timeout)),
                }
            }
        };
        if Instant::now() + RETRY_PAUSE >= deadline {
            return Err(Error::NoQuorum { reason });
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}
