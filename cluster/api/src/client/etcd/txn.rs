//! A transaction in etcd's operations.
//!
//! An operation that etcd knows becomes one of its; any other is worked out beforehand ([`super::bulk`]) and
//! becomes several, which answer as one. A transaction with such operations is sent inside another one,
//! whose compares hold only if nothing of what they were worked out from has changed; if they do not hold,
//! it is worked out anew.

use super::bulk::{Bulk, Worked};
use super::plain::{compare, current, interval, key_value, range_answer, range_request};
use super::{Etcd, REQUEST_BYTES_MAX};
use crate::client::within;
use crate::keyspace::{Error, Op, OpAnswer, Result, Revision, Txn, TxnAnswer};
use crate::status::{REQUEST_TOO_LARGE, TOO_MANY_OPERATIONS};
use crate::wire::etcdserverpb as pb;
use crate::wire::etcdserverpb::request_op::Request as WireOp;
use crate::wire::etcdserverpb::response_op::Response as WireAnswer;
use prost::Message;

/// How often a transaction is worked out while others keep changing what it rests on.
const ATTEMPTS_MAX: u32 = 10;

/// Operations, or compares, that etcd takes in one list unless it is told otherwise.
pub(super) const OPERATIONS_MAX: usize = 128;

/// How the answers of etcd's operations become that of one of ours.
enum Shape {
    Put,
    Delete,
    Range {
        keys_only: bool,
    },
    Txn {
        success: Vec<Shape>,
        failure: Vec<Shape>,
    },
    /// So many operations, whose outcome was worked out before.
    Known {
        operations: usize,
        answer: OpAnswer,
    },
}

impl Etcd {
    pub(super) async fn run(&self, txn: Txn) -> Result<TxnAnswer> {
        if !has_bulk(&txn) {
            let (request, success, failure) = translate(txn, &mut Vec::new().into_iter());
            let shape = Shape::Txn { success, failure };
            let response = self.send(request).await?;
            return answer_of(&shape, response);
        }
        for _ in 0..ATTEMPTS_MAX {
            let Worked { guards, bulks } = self.work_out(&txn).await?;
            let (inner, success, failure) = translate(txn.clone(), &mut bulks.into_iter());
            let shape = Shape::Txn { success, failure };
            let inner = pb::RequestOp { request: Some(WireOp::RequestTxn(inner)) };
            let outer = pb::TxnRequest {
                compare: guards.into_iter().map(compare).collect(),
                success: vec![inner],
                failure: Vec::new(),
            };
            let response = self.send(outer).await?;
            if !response.succeeded {
                continue;
            }
            let header = response.header;
            let inner = response.responses.into_iter().next().and_then(|answer| answer.response);
            let Some(WireAnswer::ResponseTxn(mut inner)) = inner else { return Err(unknown()) };
            inner.header = header;
            return answer_of(&shape, inner);
        }
        let reason =
            format!("keys of the transaction changed {ATTEMPTS_MAX} times while it was made");
        Err(Error::Busy { reason })
    }

    async fn send(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse> {
        let bytes = request.encoded_len();
        let count = longest(&request);
        let sent = self.client.once(self.client.settings().call_timeout, |at, limit| {
            let request = within(request.clone(), limit);
            async move { at.kv().txn(request).await }
        });
        let bare = |text: &'static str| text.strip_prefix("etcdserver: ").unwrap_or(text);
        match sent.await {
            Ok(response) => {
                self.see(response.header.as_ref());
                Ok(response)
            }
            Err(Error::Invalid(text)) if text == bare(REQUEST_TOO_LARGE) => {
                Err(Error::TooBig { unit: "bytes", count: bytes, max: REQUEST_BYTES_MAX })
            }
            Err(Error::Invalid(text)) if text == bare(TOO_MANY_OPERATIONS) => {
                Err(Error::TooBig { unit: "operations", count, max: OPERATIONS_MAX })
            }
            Err(error) => Err(self.explain(error, Revision::NONE).await),
        }
    }
}

/// The longest list in a request.
fn longest(txn: &pb::TxnRequest) -> usize {
    let inner = txn.success.iter().chain(&txn.failure).map(|op| match &op.request {
        Some(WireOp::RequestTxn(inner)) => longest(inner),
        _ => 0,
    });
    let own = [txn.compare.len(), txn.success.len(), txn.failure.len()];
    inner.chain(own).max().unwrap_or(0)
}

fn unknown() -> Error {
    Error::OutcomeUnknown { reason: "the answers are not those of the operations".into() }
}

fn has_bulk(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::Txn(inner) => has_bulk(inner),
        other => is_bulk(other),
    })
}

/// Whether etcd has no operation for it.
pub(super) fn is_bulk(op: &Op) -> bool {
    match op {
        Op::Append { .. }
        | Op::Move { .. }
        | Op::MoveKey { .. }
        | Op::Exchange { .. }
        | Op::Restore { .. } => true,
        Op::Put { .. } | Op::Delete { .. } | Op::Range(_) | Op::Txn(_) => false,
    }
}

/// The transaction in etcd's operations, and how the answers of its branches are to be read. `bulks` are
/// what was worked out, in the order of the operations.
fn translate(
    txn: Txn,
    bulks: &mut dyn Iterator<Item = Bulk>,
) -> (pb::TxnRequest, Vec<Shape>, Vec<Shape>) {
    let mut list = |ops: Vec<Op>| {
        let mut requests = Vec::new();
        let shapes = ops.into_iter().map(|op| one(op, bulks, &mut requests)).collect();
        (requests, shapes)
    };
    let (success, success_shapes) = list(txn.success);
    let (failure, failure_shapes) = list(txn.failure);
    let compare = txn.compares.into_iter().map(compare).collect();
    (pb::TxnRequest { compare, success, failure }, success_shapes, failure_shapes)
}

fn one(op: Op, bulks: &mut dyn Iterator<Item = Bulk>, requests: &mut Vec<pb::RequestOp>) -> Shape {
    let (request, shape) = match op {
        Op::Put { key, value, lease, prev_kv, ignore_value, ignore_lease } => {
            let put =
                pb::PutRequest { key, value, lease: lease.0, prev_kv, ignore_value, ignore_lease };
            (WireOp::RequestPut(put), Shape::Put)
        }
        Op::Delete { range, prev_kv } => {
            let (key, range_end) = interval(&range);
            let delete = pb::DeleteRangeRequest { key, range_end, prev_kv };
            (WireOp::RequestDeleteRange(delete), Shape::Delete)
        }
        Op::Range(read) => {
            let range = range_request(&read, Revision::NONE);
            (WireOp::RequestRange(range), Shape::Range { keys_only: read.keys_only })
        }
        Op::Txn(inner) => {
            let (inner, success, failure) = translate(inner, bulks);
            (WireOp::RequestTxn(inner), Shape::Txn { success, failure })
        }
        Op::Append { .. }
        | Op::Move { .. }
        | Op::MoveKey { .. }
        | Op::Exchange { .. }
        | Op::Restore { .. } => {
            let bulk = bulks.next().expect("each of them was worked out");
            let (plain, answer) = bulk.into_parts();
            let operations = plain.len();
            // They hold no operation that has to be worked out.
            for op in plain {
                one(op, &mut std::iter::empty(), requests);
            }
            return Shape::Known { operations, answer };
        }
    };
    requests.push(pb::RequestOp { request: Some(request) });
    shape
}

fn answer_of(shape: &Shape, response: pb::TxnResponse) -> Result<TxnAnswer> {
    let revision = current(response.header.as_ref());
    read_txn(shape, response, revision).ok_or_else(unknown)
}

/// `None` if the answers do not fit.
fn read_txn(shape: &Shape, response: pb::TxnResponse, revision: Revision) -> Option<TxnAnswer> {
    let Shape::Txn { success, failure } = shape else { return None };
    let succeeded = response.succeeded;
    let shapes = if succeeded { success } else { failure };
    let mut responses = response.responses.into_iter().map(|answer| answer.response);
    let mut changed = false;
    let mut answers = Vec::with_capacity(shapes.len());
    for shape in shapes {
        let (answer, has_changed) = read_one(shape, &mut responses, revision)?;
        changed |= has_changed;
        answers.push(answer);
    }
    responses.next().is_none().then_some(TxnAnswer { succeeded, revision, changed, answers })
}

fn read_one(
    shape: &Shape,
    responses: &mut dyn Iterator<Item = Option<WireAnswer>>,
    revision: Revision,
) -> Option<(OpAnswer, bool)> {
    if let Shape::Known { operations, answer } = shape {
        for _ in 0..*operations {
            responses.next()?;
        }
        return Some((answer.clone(), *operations > 0));
    }
    Some(match (shape, responses.next()??) {
        (Shape::Put, WireAnswer::ResponsePut(put)) => {
            let prev_kv = put.prev_kv.map(|kv| key_value(kv, false));
            (OpAnswer::Put { prev_kv }, true)
        }
        (Shape::Delete, WireAnswer::ResponseDeleteRange(deleted)) => {
            let prev_kvs = deleted.prev_kvs.into_iter().map(|kv| key_value(kv, false)).collect();
            let deleted = u64::try_from(deleted.deleted).unwrap_or(0);
            (OpAnswer::Delete { deleted, prev_kvs }, deleted > 0)
        }
        (Shape::Range { keys_only }, WireAnswer::ResponseRange(range)) => {
            (OpAnswer::Range(range_answer(range, *keys_only)), false)
        }
        (Shape::Txn { .. }, WireAnswer::ResponseTxn(inner)) => {
            let answer = read_txn(shape, inner, revision)?;
            let changed = answer.changed;
            (OpAnswer::Txn(answer), changed)
        }
        _ => return None,
    })
}
