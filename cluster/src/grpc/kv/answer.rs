//! The key space's answers in etcd's form.

use revfs_api::keyspace::{KeyValue, OpAnswer, Revision, TxnAnswer};
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::response_op::Response;
use revfs_api::wire::mvccpb;
use tonic::Status;

use super::super::member::signed;
use super::misfit;
use super::request::{Branches, OpShape, TxnPlan};

pub(super) fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: signed(kv.create_revision.0),
        mod_revision: signed(kv.mod_revision.0),
        version: signed(kv.version),
        value: kv.value,
        lease: kv.lease.0,
    }
}

/// The headers inside a transaction name the revision alone.
fn inner_header(revision: Revision) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision: signed(revision.0), ..pb::ResponseHeader::default() })
}

/// The answer of a whole transaction, without its header.
pub(super) fn txn(plan: TxnPlan, answer: TxnAnswer) -> Result<pb::TxnResponse, Status> {
    let mut past: Vec<_> = plan.past.into_iter().map(Some).collect();
    branch(plan.shapes, answer, &mut past)
}

fn branch(
    shapes: Branches,
    answer: TxnAnswer,
    past: &mut [Option<pb::RangeResponse>],
) -> Result<pb::TxnResponse, Status> {
    let ran = if answer.succeeded { shapes.success } else { shapes.failure };
    if ran.len() != answer.answers.len() {
        return Err(misfit());
    }
    let revision = answer.revision;
    let response = |(shape, answer)| {
        Ok(pb::ResponseOp { response: Some(operation(shape, answer, revision, past)?) })
    };
    let responses = ran.into_iter().zip(answer.answers).map(response);
    Ok(pb::TxnResponse {
        header: None,
        succeeded: answer.succeeded,
        responses: responses.collect::<Result<_, Status>>()?,
    })
}

fn operation(
    shape: OpShape,
    answer: OpAnswer,
    revision: Revision,
    past: &mut [Option<pb::RangeResponse>],
) -> Result<Response, Status> {
    Ok(match (shape, answer) {
        (OpShape::Put, OpAnswer::Put { prev_kv }) => Response::ResponsePut(pb::PutResponse {
            header: inner_header(revision),
            prev_kv: prev_kv.map(key_value),
        }),
        (OpShape::Delete, OpAnswer::Delete { deleted, prev_kvs }) => {
            Response::ResponseDeleteRange(pb::DeleteRangeResponse {
                header: inner_header(revision),
                deleted: signed(deleted),
                prev_kvs: prev_kvs.into_iter().map(key_value).collect(),
            })
        }
        (OpShape::Range(plan), OpAnswer::Range(range)) => {
            let mut response = plan.answer(range);
            response.header = inner_header(revision);
            Response::ResponseRange(response)
        }
        (OpShape::Past(place), OpAnswer::Range(_)) => {
            let mut response = past.get_mut(place).and_then(Option::take).ok_or_else(misfit)?;
            response.header = inner_header(revision);
            Response::ResponseRange(response)
        }
        (OpShape::Txn(shapes), OpAnswer::Txn(answer)) => {
            let mut response = branch(shapes, answer, past)?;
            response.header = Some(pb::ResponseHeader::default());
            Response::ResponseTxn(response)
        }
        _ => return Err(misfit()),
    })
}
