//! The key space's answers in etcd's form.

use revfs_api::keyspace::{KeyValue, OpAnswer, Revision, TxnAnswer};
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::response_op::Response;
use revfs_api::wire::mvccpb;
use tonic::Status;

use super::super::member::signed;
use super::{misfit, range};

pub(in crate::grpc) fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: signed(kv.create_revision.0),
        mod_revision: signed(kv.mod_revision.0),
        version: signed(kv.version),
        value: kv.value,
        lease: kv.lease.0,
    }
}

/// The answer of a transaction, without its header.
pub(super) fn txn(answer: TxnAnswer) -> Result<pb::TxnResponse, Status> {
    let after = answer.revision;
    let before = Revision(after.0 - u64::from(answer.changed));
    branch(answer, &mut Inner { before, after, has_changed: false })
}

/// The revision that an operation's header names: the transaction's own, once it has changed
/// anything.
struct Inner {
    before: Revision,
    after: Revision,
    has_changed: bool,
}

impl Inner {
    /// The headers inside a transaction name the revision alone.
    fn header(&mut self, changes: bool) -> Option<pb::ResponseHeader> {
        self.has_changed |= changes;
        let revision = if self.has_changed { self.after } else { self.before };
        Some(pb::ResponseHeader { revision: signed(revision.0), ..pb::ResponseHeader::default() })
    }
}

fn branch(answer: TxnAnswer, inner: &mut Inner) -> Result<pb::TxnResponse, Status> {
    let response = |answer| Ok(pb::ResponseOp { response: Some(operation(answer, inner)?) });
    let responses = answer.answers.into_iter().map(response).collect::<Result<_, Status>>()?;
    Ok(pb::TxnResponse { header: None, succeeded: answer.succeeded, responses })
}

fn operation(answer: OpAnswer, inner: &mut Inner) -> Result<Response, Status> {
    Ok(match answer {
        OpAnswer::Put { prev_kv } => Response::ResponsePut(pb::PutResponse {
            header: inner.header(true),
            prev_kv: prev_kv.map(key_value),
        }),
        OpAnswer::Delete { deleted, prev_kvs } => {
            Response::ResponseDeleteRange(pb::DeleteRangeResponse {
                header: inner.header(deleted > 0),
                deleted: signed(deleted),
                prev_kvs: prev_kvs.into_iter().map(key_value).collect(),
            })
        }
        OpAnswer::Range(range) => {
            let mut response = range::response(range);
            response.header = inner.header(false);
            Response::ResponseRange(response)
        }
        OpAnswer::Txn(answer) => {
            let mut response = branch(answer, inner)?;
            response.header = Some(pb::ResponseHeader::default());
            Response::ResponseTxn(response)
        }
        OpAnswer::Append { .. } | OpAnswer::Move { .. } | OpAnswer::Restore { .. } => {
            return Err(misfit());
        }
    })
}
