//! Proposing one transaction: its note, its deadline, and the guard of a mount that holds locks.

use std::time::Duration;

use revfs_api::keyspace::{Error, Origin, Txn, TxnAnswer};
use revfs_api::operations::OperationKind;

use crate::filesystem::Filesystem;
use crate::note::{Note, Operation};

/// Between two attempts of a transaction that the key space was too busy for.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

impl Filesystem {
    /// Proposes one transaction in the name of `uid` with a note of its operations.
    pub(crate) async fn propose(
        &self,
        uid: u32,
        operations: Vec<Operation>,
        txn: Txn,
    ) -> Result<TxnAnswer, Error> {
        let sequence = self.next_sequence();
        self.propose_as(sequence, uid, operations, txn).await
    }

    /// # Errors
    /// [`Error::Unavailable`] if this mount has lost locks that are still to be let go.
    pub(crate) async fn propose_as(
        &self,
        sequence: u64,
        uid: u32,
        operations: Vec<Operation>,
        txn: Txn,
    ) -> Result<TxnAnswer, Error> {
        let fence = self.locks.fence()?;
        let mut answer = self.send(sequence, uid, operations, fence.guard(txn)).await?;
        self.locks.check(&fence, &mut answer)?;
        Ok(answer)
    }

    /// Proposes a transaction as it is, whatever has become of locks.
    pub(crate) async fn send(
        &self,
        sequence: u64,
        uid: u32,
        operations: Vec<Operation>,
        txn: Txn,
    ) -> Result<TxnAnswer, Error> {
        let note = Note { mount_id: self.mount_id, sequence, operations, is_cut: false };
        let origin = Origin { claimed: self.writing.authors.claim(uid), note: note.encode() };
        let began = tokio::time::Instant::now();
        let deadline = began + self.options.timeout;
        let answer = loop {
            let proposed = self.keys.txn(txn.clone(), origin.clone());
            match tokio::time::timeout_at(deadline, proposed).await {
                Ok(Err(Error::Busy { .. }))
                    if tokio::time::Instant::now() + BUSY_PAUSE < deadline =>
                {
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                Ok(answer) => break answer,
                Err(_) => {
                    let reason = format!("no answer within {:?}", self.options.timeout);
                    break Err(Error::OutcomeUnknown { reason });
                }
            }
        };
        if self.private.is_none() {
            self.operations.record(OperationKind::Commit, began.elapsed(), answer.is_err());
        }
        self.writing.learn(&answer);
        if let Ok(answer) = &answer {
            self.raise_floor(answer.revision);
        }
        answer
    }
}
