//! The service revfs.v1: the key space as it is.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use revfs_api::backup::{Backup, BackupPart};
use revfs_api::convert;
use revfs_api::keyspace::{ChangesRequest, Error, Revision, Time};
use revfs_api::wire::revfs as wire;
use revfs_api::wire::revfs::revfs_server::Revfs;
use tokio::sync::{Semaphore, watch};
use tonic::{Request, Response, Status, Streaming};

use super::connection::Phase;
use super::large_txn;
use super::member::{Member, fail};
use super::watch_stream::watch_stream;

pub(super) struct RevfsService {
    pub(super) member: Arc<Member>,
    pub(super) phases: watch::Receiver<Phase>,
    /// Transactions in several messages that are being received.
    pub(super) large: Semaphore,
}

fn refuse(malformed: convert::Malformed) -> Status {
    fail(Error::from(malformed))
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Revfs for RevfsService {
    async fn read(&self, request: Request<wire::ReadRequest>) -> Answer<wire::ReadResponse> {
        let keyspace = self.member.key_space(&request)?;
        let request = request.into_inner();
        let is_serializable = request.serializable;
        let (revision, reads) = convert::read_arguments(request).map_err(refuse)?;
        if !is_serializable {
            keyspace.confirm().await.map_err(fail)?;
        }
        let answer = keyspace.read(revision, reads).await.map_err(fail)?;
        Ok(Response::new(answer.into()))
    }

    async fn history(
        &self,
        request: Request<wire::HistoryRequest>,
    ) -> Answer<wire::HistoryResponse> {
        let keyspace = self.member.key_space(&request)?;
        let request = request.into_inner().into();
        let versions = keyspace.history(request).await.map_err(fail)?;
        Ok(Response::new(convert::history_response(versions)))
    }

    async fn changes(
        &self,
        request: Request<wire::ChangesRequest>,
    ) -> Answer<wire::ChangesResponse> {
        let keyspace = self.member.key_space(&request)?;
        let request = ChangesRequest::try_from(request.into_inner()).map_err(refuse)?;
        let answer = keyspace.changes(request).await.map_err(fail)?;
        Ok(Response::new(answer.into()))
    }

    async fn revision_at(
        &self,
        request: Request<wire::RevisionAtRequest>,
    ) -> Answer<wire::RevisionAtResponse> {
        let keyspace = self.member.key_space(&request)?;
        let time = Time(request.into_inner().time);
        let revision = keyspace.revision_at(time).await.map_err(fail)?;
        Ok(Response::new(wire::RevisionAtResponse { revision: revision.0 }))
    }

    async fn stamp(&self, request: Request<wire::StampRequest>) -> Answer<wire::StampResponse> {
        let keyspace = self.member.key_space(&request)?;
        let revision = Revision(request.into_inner().revision);
        let stamp = keyspace.stamp(revision).await.map_err(fail)?;
        Ok(Response::new(convert::stamp_response(stamp)))
    }

    async fn txn(&self, request: Request<wire::TxnRequest>) -> Answer<wire::TxnResponse> {
        let keyspace = self.member.key_space(&request)?;
        let (txn, origin) = convert::txn_arguments(request.into_inner()).map_err(refuse)?;
        let answer = keyspace.txn(txn, origin).await.map_err(fail)?;
        Ok(Response::new(convert::txn_response(answer)))
    }

    async fn large_txn(
        &self,
        request: Request<Streaming<wire::LargeTxnRequest>>,
    ) -> Answer<wire::TxnResponse> {
        let keyspace = self.member.key_space(&request)?;
        // What has no turn is not read: the connection holds it back.
        let turn = self.large.acquire().await.map_err(|_| Status::unavailable("shutting down"))?;
        let (txn, origin) = large_txn::receive(request.into_inner()).await?;
        let answer = keyspace.txn(txn, origin).await.map_err(fail)?;
        drop(turn);
        Ok(Response::new(convert::txn_response(answer)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<wire::WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<wire::WatchRequest>) -> Answer<Self::WatchStream> {
        let keyspace = self.member.key_space(&request)?;
        let (ranges, mut from) = convert::watch_arguments(request.into_inner()).map_err(refuse)?;
        if from == Revision::NONE {
            // The client must know where to go on after a lost connection.
            let now = keyspace.read(Revision::NONE, Vec::new()).await.map_err(fail)?;
            from = now.current.next();
        }
        let watch = keyspace.watch(ranges, from).await.map_err(fail)?;
        Ok(Response::new(Box::pin(watch_stream(watch, from, self.phases.clone()))))
    }

    async fn compact(
        &self,
        request: Request<wire::CompactRequest>,
    ) -> Answer<wire::CompactResponse> {
        let keyspace = self.member.key_space(&request)?;
        let wire::CompactRequest { revision, physical } = request.into_inner();
        keyspace.compact(Revision(revision), physical).await.map_err(fail)?;
        Ok(Response::new(wire::CompactResponse {}))
    }

    async fn status(&self, request: Request<wire::StatusRequest>) -> Answer<wire::StatusResponse> {
        let keyspace = self.member.key_space(&request)?;
        let status = keyspace.status().await.map_err(fail)?;
        Ok(Response::new(convert::status_response(status, keyspace.capabilities())))
    }

    type BackupStream = Pin<Box<dyn Stream<Item = Result<wire::BackupResponse, Status>> + Send>>;

    async fn backup(&self, request: Request<wire::BackupRequest>) -> Answer<Self::BackupStream> {
        let keyspace = self.member.key_space(&request)?;
        let backup = keyspace.backup().await.map_err(fail)?;
        Ok(Response::new(Box::pin(backup_stream(backup))))
    }
}

/// The parts of a backup as messages; an error is the last one. Pulled: a slow reader waits alone.
fn backup_stream(
    backup: Box<dyn Backup>,
) -> impl Stream<Item = Result<wire::BackupResponse, Status>> + Send {
    futures_util::stream::unfold(Some(backup), |backup| async move {
        let mut backup = backup?;
        match backup.next().await {
            Ok(None) => None,
            Ok(Some(BackupPart { chunk, done_bytes, total_bytes })) => {
                let message = wire::BackupResponse { chunk, done_bytes, total_bytes };
                Some((Ok(message), Some(backup)))
            }
            Err(error) => Some((Err(fail(error)), None)),
        }
    })
}
