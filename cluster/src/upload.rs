//! A transaction that is too large for one entry of the log: sent in parts, then run by one command.
//!
//! ```text
//! bounds ─► a turn ─► grant a lease ─► part 0 … part n ─► commit ─► revoke the lease
//! ```
//!
//! The parts are replicated, but nobody sees them before the commit. Until that is proposed nothing has
//! happened and nothing will: whatever fails is an error that says so. The outcome of the commit may be
//! unknown, as that of any change. However the way ends, also where its client is gone, the lease is
//! revoked, and with it goes what is left of the parts; where that fails too, the lease ends by itself.

mod size;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use revfs_api::keyspace::{Error, Result};
use revfs_store::types::{Author, LeaseId, Op, Txn};
use revfs_store::{Body, Done, Outcome, Refusal, UploadCommit};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::auth::Caller;
use crate::convert;
use crate::lease_clock::LeaseClock;
use crate::proposal::{check_origin, check_txn};

pub(crate) use self::size::is_large;

/// Uploads of this node at once: more than two of the largest the store would not hold. Others wait.
const TURNS: usize = 2;

/// An upload whose node is gone is dropped after this. A part has an answer within a third of it.
const TTL_SECONDS: i64 = 30;

/// The lease is renewed before the next part when so much of its time is over.
const RENEW_AFTER: Duration = Duration::from_secs(10);

/// The way of large transactions of this node.
pub(crate) struct Uploads {
    leases: Arc<LeaseClock>,
    turns: Semaphore,
}

/// One upload under way; dropped, it is gone.
struct Upload {
    leases: Arc<LeaseClock>,
    caller: Caller,
    author: Author,
    id: LeaseId,
    renewed: Instant,
    parts: u32,
}

impl Uploads {
    pub(crate) fn new(leases: Arc<LeaseClock>) -> Self {
        Self { leases, turns: Semaphore::new(TURNS) }
    }

    /// Runs a transaction of any size within the bounds of one revision.
    pub(crate) async fn run(
        &self,
        caller: Caller,
        author: Author,
        note: Bytes,
        txn: Txn,
    ) -> Result<Outcome> {
        check_origin(&author, &note)?;
        check_txn(&txn)?;
        let Txn { compares, success, failure } = txn;
        size::check_commit(&compares, &failure)?;
        let parts = size::parts(success)?;
        let timeout = self.leases.proposer.timeout;
        let turn = tokio::time::timeout(timeout, self.turns.acquire()).await;
        let turn = turn.map_err(|_| Error::Busy {
            reason: format!("other large transactions were under way for {timeout:?}"),
        })?;
        let mut upload =
            Upload::begin(Arc::clone(&self.leases), caller, author, TTL_SECONDS).await?;
        for ops in parts {
            upload.send(ops).await?;
        }
        let outcome = upload.commit(note, compares, failure).await;
        drop(turn);
        outcome
    }
}

impl Upload {
    async fn begin(
        leases: Arc<LeaseClock>,
        caller: Caller,
        author: Author,
        ttl_seconds: i64,
    ) -> Result<Self> {
        let granted = leases.grant(&caller, LeaseId::NONE, ttl_seconds).await;
        let (id, _) = granted.map_err(|error| nothing_happened("its lease", error))?;
        Ok(Self { leases, caller, author, id, renewed: Instant::now(), parts: 0 })
    }

    /// Sends the next part and waits until it is replicated.
    async fn send(&mut self, ops: Vec<Op>) -> Result<()> {
        let failed = |error| nothing_happened("a part", error);
        if self.renewed.elapsed() > RENEW_AFTER {
            let renewed = Instant::now();
            let left = self.leases.keep_alive(self.id).await.map_err(failed)?;
            left.ok_or_else(too_late)?;
            self.renewed = renewed;
        }
        let part = Body::UploadPart { upload: self.id, part: self.parts, ops };
        let body = self.caller.ask(part);
        let sent = self.leases.proposer.propose(self.author.clone(), Bytes::new(), body).await;
        match sent.map_err(failed)?.result {
            Ok(Done::UploadKept { .. }) => {}
            Ok(other) => return Err(failed(convert::unexpected(&other))),
            Err(Refusal::LeaseNotFound) => return Err(too_late()),
            Err(refusal) => return Err(convert::refusal(refusal)),
        }
        self.parts += 1;
        Ok(())
    }

    async fn commit(
        self,
        note: Bytes,
        compares: Vec<revfs_store::types::Compare>,
        failure: Vec<Op>,
    ) -> Result<Outcome> {
        let commit = UploadCommit { upload: self.id, parts: self.parts, compares, failure };
        let body = self.caller.ask(Body::UploadCommit(commit));
        let outcome = self.leases.proposer.propose(self.author.clone(), note, body).await?;
        match outcome.result {
            Err(Refusal::UploadNotFound { .. }) => Err(too_late()),
            _ => Ok(outcome),
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Without a runtime the node has ended too, and the lease ends after its next start.
        let Ok(runtime) = Handle::try_current() else { return };
        let (leases, id) = (Arc::clone(&self.leases), self.id);
        drop(runtime.spawn(async move {
            // The node's own business: the client's permissions may have changed.
            if let Err(error) = leases.revoke(&Caller::Trusted, id).await {
                tracing::debug!(lease = id.0, %error, "what is left of an upload ends with its lease");
            }
        }));
    }
}

/// A part whose outcome is not known leaves no doubt about the transaction.
fn nothing_happened(what: &str, error: Error) -> Error {
    match error {
        Error::OutcomeUnknown { reason } => Error::Busy {
            reason: format!("{what} of a large transaction was not confirmed: {reason}"),
        },
        other => other,
    }
}

fn too_late() -> Error {
    Error::Busy { reason: "a large transaction took longer than its lease".to_owned() }
}
