//! The key space's answers in etcd's form.

use revfs_api::keyspace::{KeyValue, OpAnswer, Revision, TxnAnswer};
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::response_op::Response;
use revfs_api::wire::mvccpb;
use tonic::Status;

use super::super::member::signed;
use super::{misfit, range};

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

/// The answer of a transaction, without its header.
pub(super) fn txn(answer: TxnAnswer) -> Result<pb::TxnResponse, Status> {
    let TxnAnswer { succeeded, revision, answers, changed: _ } = answer;
    let response = |answer| Ok(pb::ResponseOp { response: Some(operation(answer, revision)?) });
    let responses = answers.into_iter().map(response).collect::<Result<_, Status>>()?;
    Ok(pb::TxnResponse { header: None, succeeded, responses })
}

fn operation(answer: OpAnswer, revision: Revision) -> Result<Response, Status> {
    Ok(match answer {
        OpAnswer::Put { prev_kv } => Response::ResponsePut(pb::PutResponse {
            header: inner_header(revision),
            prev_kv: prev_kv.map(key_value),
        }),
        OpAnswer::Delete { deleted, prev_kvs } => {
            Response::ResponseDeleteRange(pb::DeleteRangeResponse {
                header: inner_header(revision),
                deleted: signed(deleted),
                prev_kvs: prev_kvs.into_iter().map(key_value).collect(),
            })
        }
        OpAnswer::Range(range) => {
            let mut response = range::response(range);
            response.header = inner_header(revision);
            Response::ResponseRange(response)
        }
        OpAnswer::Txn(answer) => {
            let mut response = txn(answer)?;
            response.header = Some(pb::ResponseHeader::default());
            Response::ResponseTxn(response)
        }
        OpAnswer::Append { .. } | OpAnswer::Move { .. } | OpAnswer::Restore { .. } => {
            return Err(misfit());
        }
    })
}
