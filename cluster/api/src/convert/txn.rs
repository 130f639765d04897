//! Transactions and their answers, on the wire and off it.

use bytes::Bytes;

use super::{Malformed, Result, TXN_DEPTH_MAX, required};
use crate::keyspace::{
    Compare, CompareResult, CompareTarget, KeyRange, LeaseId, Op, OpAnswer, Origin, Revision, Txn,
    TxnAnswer,
};
use crate::wire::revfs as wire;
use crate::wire::revfs::compare::{Result as WireResult, Target};
use crate::wire::revfs::{op, op_answer};

/// A [`wire::TxnRequest`] from what [`crate::KeySpace::txn`] takes.
#[must_use]
pub fn txn_request(txn: Txn, origin: Origin) -> wire::TxnRequest {
    wire::TxnRequest { txn: Some(txn.into()), claimed: origin.claimed, note: origin.note }
}

/// What [`crate::KeySpace::txn`] takes from a [`wire::TxnRequest`].
///
/// # Errors
/// [`Malformed`] if any part has no meaning or the nesting is deeper than [`TXN_DEPTH_MAX`].
pub fn txn_arguments(request: wire::TxnRequest) -> Result<(Txn, Origin)> {
    let txn = txn_from(required(request.txn, "TxnRequest", "txn")?, TXN_DEPTH_MAX)?;
    Ok((txn, Origin { claimed: request.claimed, note: request.note }))
}

impl From<Compare> for wire::Compare {
    fn from(compare: Compare) -> Self {
        let target = match compare.target {
            CompareTarget::Version(version) => Target::Version(version),
            CompareTarget::CreateRevision(revision) => Target::CreateRevision(revision.0),
            CompareTarget::ModRevision(revision) => Target::ModRevision(revision.0),
            CompareTarget::Value(value) => Target::Value(value),
            CompareTarget::Lease(lease) => Target::Lease(lease.0),
        };
        let result = match compare.result {
            CompareResult::Equal => WireResult::Equal,
            CompareResult::NotEqual => WireResult::NotEqual,
            CompareResult::Less => WireResult::Less,
            CompareResult::Greater => WireResult::Greater,
        };
        Self { range: Some(compare.range.into()), target: Some(target), result: result.into() }
    }
}

impl TryFrom<wire::Compare> for Compare {
    type Error = Malformed;

    fn try_from(compare: wire::Compare) -> Result<Self> {
        let result = match compare.result() {
            WireResult::Equal => CompareResult::Equal,
            WireResult::NotEqual => CompareResult::NotEqual,
            WireResult::Less => CompareResult::Less,
            WireResult::Greater => CompareResult::Greater,
            WireResult::Unspecified => {
                return Err(Malformed::new("Compare", format!("result is {}", compare.result)));
            }
        };
        let target = match required(compare.target, "Compare", "target")? {
            Target::Version(version) => CompareTarget::Version(version),
            Target::CreateRevision(revision) => CompareTarget::CreateRevision(Revision(revision)),
            Target::ModRevision(revision) => CompareTarget::ModRevision(Revision(revision)),
            Target::Value(value) => CompareTarget::Value(value),
            Target::Lease(lease) => CompareTarget::Lease(LeaseId(lease)),
        };
        let range = required(compare.range, "Compare", "range")?.try_into()?;
        Ok(Self { range, target, result })
    }
}

impl From<Op> for wire::Op {
    fn from(operation: Op) -> Self {
        let operation = match operation {
            Op::Put { key, value, lease, prev_kv, ignore_value, ignore_lease } => {
                let lease = lease.0;
                op::Op::Put(op::Put { key, value, lease, prev_kv, ignore_value, ignore_lease })
            }
            Op::Delete { range, prev_kv } => {
                op::Op::Delete(op::Delete { range: Some(range.into()), prev_kv })
            }
            Op::Range(range) => op::Op::Range(range.into()),
            Op::Txn(txn) => op::Op::Txn(txn.into()),
            Op::Append { key, value } => op::Op::Append(op::Append { key, value }),
            Op::Move { from, to } => op::Op::Move(op::Move { from, to }),
            Op::MoveKey { from, to } => op::Op::MoveKey(op::MoveKey { from, to }),
            Op::Exchange { a, b } => op::Op::Exchange(op::Exchange { a, b }),
            Op::Restore { range, revision } => {
                op::Op::Restore(op::Restore { range: Some(range.into()), revision: revision.0 })
            }
        };
        Self { op: Some(operation) }
    }
}

fn key(key: Bytes, message: &'static str) -> Result<Bytes> {
    if key.is_empty() {
        return Err(Malformed::new(message, "key is empty"));
    }
    Ok(key)
}

fn range(range: Option<wire::KeyRange>, message: &'static str) -> Result<KeyRange> {
    required(range, message, "range")?.try_into()
}

/// `depth` is how many levels of transactions may still lie below.
fn op_from(operation: wire::Op, depth: usize) -> Result<Op> {
    Ok(match required(operation.op, "Op", "op")? {
        op::Op::Put(put) => Op::Put {
            key: key(put.key, "Op.Put")?,
            value: put.value,
            lease: LeaseId(put.lease),
            prev_kv: put.prev_kv,
            ignore_value: put.ignore_value,
            ignore_lease: put.ignore_lease,
        },
        op::Op::Delete(delete) => {
            Op::Delete { range: range(delete.range, "Op.Delete")?, prev_kv: delete.prev_kv }
        }
        op::Op::Range(read) => Op::Range(read.try_into()?),
        op::Op::Txn(txn) => Op::Txn(txn_from(txn, depth)?),
        op::Op::Append(append) => {
            Op::Append { key: key(append.key, "Op.Append")?, value: append.value }
        }
        op::Op::Move(op::Move { from, to }) => Op::Move { from, to },
        op::Op::MoveKey(op::MoveKey { from, to }) => {
            Op::MoveKey { from: key(from, "Op.MoveKey")?, to: key(to, "Op.MoveKey")? }
        }
        op::Op::Exchange(op::Exchange { a, b }) => {
            Op::Exchange { a: key(a, "Op.Exchange")?, b: key(b, "Op.Exchange")? }
        }
        op::Op::Restore(restore) => Op::Restore {
            range: range(restore.range, "Op.Restore")?,
            revision: Revision(restore.revision),
        },
    })
}

fn ops_from(operations: Vec<wire::Op>, depth: usize) -> Result<Vec<Op>> {
    operations.into_iter().map(|operation| op_from(operation, depth)).collect()
}

impl From<Txn> for wire::Txn {
    fn from(txn: Txn) -> Self {
        Self {
            compares: txn.compares.into_iter().map(Into::into).collect(),
            success: txn.success.into_iter().map(Into::into).collect(),
            failure: txn.failure.into_iter().map(Into::into).collect(),
        }
    }
}

fn txn_from(txn: wire::Txn, depth: usize) -> Result<Txn> {
    let Some(below) = depth.checked_sub(1) else {
        let reason = format!("nested deeper than {TXN_DEPTH_MAX}");
        return Err(Malformed::new("Txn", reason));
    };
    Ok(Txn {
        compares: txn.compares.into_iter().map(Compare::try_from).collect::<Result<_>>()?,
        success: ops_from(txn.success, below)?,
        failure: ops_from(txn.failure, below)?,
    })
}

impl From<TxnAnswer> for wire::TxnAnswer {
    fn from(answer: TxnAnswer) -> Self {
        Self {
            succeeded: answer.succeeded,
            revision: answer.revision.0,
            changed: answer.changed,
            answers: answer.answers.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::TxnAnswer> for TxnAnswer {
    type Error = Malformed;

    fn try_from(answer: wire::TxnAnswer) -> Result<Self> {
        Ok(Self {
            succeeded: answer.succeeded,
            revision: Revision(answer.revision),
            changed: answer.changed,
            answers: answer.answers.into_iter().map(OpAnswer::try_from).collect::<Result<_>>()?,
        })
    }
}

/// A [`wire::TxnResponse`] from what [`crate::KeySpace::txn`] answers.
#[must_use]
pub fn txn_response(answer: TxnAnswer) -> wire::TxnResponse {
    wire::TxnResponse { answer: Some(answer.into()) }
}

/// What [`crate::KeySpace::txn`] answers from a [`wire::TxnResponse`].
///
/// # Errors
/// [`Malformed`] if any part has no meaning.
pub fn txn_answer(response: wire::TxnResponse) -> Result<TxnAnswer> {
    required(response.answer, "TxnResponse", "answer")?.try_into()
}

impl From<OpAnswer> for wire::OpAnswer {
    fn from(answer: OpAnswer) -> Self {
        let answer = match answer {
            OpAnswer::Put { prev_kv } => {
                op_answer::Answer::Put(op_answer::Put { prev_kv: prev_kv.map(Into::into) })
            }
            OpAnswer::Delete { deleted, prev_kvs } => {
                let prev_kvs = prev_kvs.into_iter().map(Into::into).collect();
                op_answer::Answer::Delete(op_answer::Delete { deleted, prev_kvs })
            }
            OpAnswer::Range(range) => op_answer::Answer::Range(range.into()),
            OpAnswer::Txn(txn) => op_answer::Answer::Txn(txn.into()),
            OpAnswer::Append { value_bytes } => {
                op_answer::Answer::Append(op_answer::Append { value_bytes })
            }
            OpAnswer::Move { moved } => op_answer::Answer::Move(op_answer::Move { moved }),
            OpAnswer::Restore { put, deleted } => {
                op_answer::Answer::Restore(op_answer::Restore { put, deleted })
            }
        };
        Self { answer: Some(answer) }
    }
}

impl TryFrom<wire::OpAnswer> for OpAnswer {
    type Error = Malformed;

    fn try_from(answer: wire::OpAnswer) -> Result<Self> {
        Ok(match required(answer.answer, "OpAnswer", "answer")? {
            op_answer::Answer::Put(put) => Self::Put { prev_kv: put.prev_kv.map(Into::into) },
            op_answer::Answer::Delete(delete) => Self::Delete {
                deleted: delete.deleted,
                prev_kvs: delete.prev_kvs.into_iter().map(Into::into).collect(),
            },
            op_answer::Answer::Range(range) => Self::Range(range.into()),
            op_answer::Answer::Txn(txn) => Self::Txn(txn.try_into()?),
            op_answer::Answer::Append(append) => Self::Append { value_bytes: append.value_bytes },
            op_answer::Answer::Move(moved) => Self::Move { moved: moved.moved },
            op_answer::Answer::Restore(restore) => {
                Self::Restore { put: restore.put, deleted: restore.deleted }
            }
        })
    }
}
