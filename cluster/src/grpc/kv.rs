//! etcd's KV service. A request is checked by etcd's rules ([`request`]), becomes questions or a
//! transaction of the key space, and its answer is put into etcd's form ([`answer`]).

mod answer;
mod in_place;
mod interval;
mod range;
mod request;
mod stream;

use std::sync::Arc;

use prost::Message;
use revfs_api::KeySpace;
use revfs_api::keyspace::{Answer, OpAnswer, Origin, RangeRead, Read, ReadAnswer, Revision, Txn};
use revfs_api::status;
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::kv_server::Kv;
use tonic::{Request, Response, Status};

pub(super) use self::answer::key_value;
pub(super) use self::in_place::Ranges;
use super::limits::Limits;
use super::member::{Member, fail, signed};

pub(super) struct KvService {
    pub(super) member: Arc<Member>,
    pub(super) limits: Limits,
}

/// An answer of another kind than was asked for: a bug of the key space.
fn misfit() -> Status {
    Status::internal("the key space gave an answer of another kind than was asked for")
}

fn check_size(message: &impl Message, limits: &Limits) -> Result<(), Status> {
    if message.encoded_len() > limits.request_bytes_max {
        return Err(Status::invalid_argument(status::REQUEST_TOO_LARGE));
    }
    Ok(())
}

impl KvService {
    /// Runs one operation that is not in a transaction.
    async fn change(
        keyspace: Arc<dyn KeySpace>,
        operation: revfs_api::keyspace::Op,
    ) -> Result<(OpAnswer, Revision), Status> {
        let txn = Txn { success: vec![operation], ..Txn::default() };
        let answer = keyspace.txn(txn, Origin::default()).await.map_err(fail)?;
        let revision = answer.revision;
        Ok((answer.answers.into_iter().next().ok_or_else(misfit)?, revision))
    }

    async fn read_range(
        &self,
        keyspace: Arc<dyn KeySpace>,
        is_serializable: bool,
        read: RangeRead,
    ) -> Result<pb::RangeResponse, Status> {
        if !is_serializable {
            keyspace.confirm().await.map_err(fail)?;
        }
        let answer = keyspace.read(Revision::NONE, vec![Read::Range(read)]).await;
        let ReadAnswer { current, answers, .. } = answer.map_err(fail)?;
        let Some(Answer::Range(answer)) = answers.into_iter().next() else { return Err(misfit()) };
        let header = Some(self.member.header(current).await);
        Ok(pb::RangeResponse { header, ..range::response(answer) })
    }
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let keyspace = self.member.key_space(&request)?;
        let request = request.into_inner();
        let is_serializable = request.serializable;
        let read = range::range_read(request)?;
        self.read_range(keyspace, is_serializable, read).await.map(Response::new)
    }

    type RangeStreamStream = stream::Parts;

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let node = self.member.node(&request)?;
        if !request.get_ref().serializable {
            node.confirm().await.map_err(fail)?;
        }
        stream::parts(Arc::clone(&self.member), node, request.into_inner()).map(Response::new)
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let keyspace = self.member.key_space(&request)?;
        let request = request.into_inner();
        request::check_put(&request)?;
        check_size(&request, &self.limits)?;
        let (answer, revision) = Self::change(keyspace, request::put(request)).await?;
        let OpAnswer::Put { prev_kv } = answer else { return Err(misfit()) };
        Ok(Response::new(pb::PutResponse {
            header: Some(self.member.header(revision).await),
            prev_kv: prev_kv.map(answer::key_value),
        }))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let keyspace = self.member.key_space(&request)?;
        let request = request.into_inner();
        request::check_key(&request.key)?;
        check_size(&request, &self.limits)?;
        let (answer, revision) = Self::change(keyspace, request::delete(request)).await?;
        let OpAnswer::Delete { deleted, prev_kvs } = answer else { return Err(misfit()) };
        Ok(Response::new(pb::DeleteRangeResponse {
            header: Some(self.member.header(revision).await),
            deleted: signed(deleted),
            prev_kvs: prev_kvs.into_iter().map(answer::key_value).collect(),
        }))
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let keyspace = self.member.key_space(&request)?;
        let request = request.into_inner();
        request::check_txn(&request, self.limits.txn_ops_max)?;
        interval::check_duplicates(&request)?;
        check_size(&request, &self.limits)?;
        let txn = request::txn(request)?;
        let answer = keyspace.txn(txn, Origin::default()).await.map_err(fail)?;
        let header = self.member.header(answer.revision).await;
        let mut response = answer::txn(answer)?;
        response.header = Some(header);
        Ok(Response::new(response))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let keyspace = self.member.key_space(&request)?;
        let pb::CompactionRequest { revision, physical } = request.into_inner();
        // etcd's compacted revision begins at -1: whatever is below 0 is always compacted.
        let revision =
            u64::try_from(revision).map_err(|_| Status::out_of_range(status::COMPACTED))?;
        keyspace.compact(Revision(revision), physical).await.map_err(fail)?;
        let header = Some(self.member.current_header().await?);
        Ok(Response::new(pb::CompactionResponse { header }))
    }
}
