//! etcd's Lock service: who waits longest has the lock as soon as it is free.

use std::sync::Arc;

use bytes::Bytes;
use revfs_api::keyspace::{Error, Op, Origin, Revision, Txn};
use revfs_api::wire::v3lockpb as pb;
use revfs_api::wire::v3lockpb::lock_server::Lock;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::connection::{Phase, reached};
use super::member::{Member, fail};
use super::turn::{self, Turn};

pub(super) struct LockService {
    pub(super) member: Arc<Member>,
    pub(super) phases: watch::Receiver<Phase>,
}

/// Waits for a turn; what it answers is the present revision then.
pub(super) async fn wait_for(
    turn: &Turn,
    phases: &watch::Receiver<Phase>,
) -> Result<Revision, Status> {
    tokio::select! {
        waited = turn.wait() => waited.map_err(fail),
        () = reached(phases.clone(), Phase::Draining) => {
            Err(fail(Error::shutting_down()))
        }
    }
}

#[tonic::async_trait]
impl Lock for LockService {
    async fn lock(
        &self,
        request: Request<pb::LockRequest>,
    ) -> Result<Response<pb::LockResponse>, Status> {
        let keys = self.member.key_space(&request)?;
        let pb::LockRequest { name, lease } = request.into_inner();
        let lease = turn::lease(keys.as_ref(), lease).await.map_err(fail)?;
        let turn = Turn::enter(keys, &name, lease, Bytes::new()).await.map_err(fail)?;
        let mut revision = wait_for(&turn, &self.phases).await?;
        if !turn.was_first() {
            // The lease may have ended meanwhile.
            let confirmed = turn.confirm().await.map_err(fail)?;
            revision = confirmed.ok_or_else(|| Status::unknown("mutex: session is expired"))?;
        }
        let key = turn.key.clone();
        turn.keep();
        let header = Some(self.member.header(revision).await);
        Ok(Response::new(pb::LockResponse { header, key }))
    }

    async fn unlock(
        &self,
        request: Request<pb::UnlockRequest>,
    ) -> Result<Response<pb::UnlockResponse>, Status> {
        let keys = self.member.key_space(&request)?;
        let key = request.into_inner().key;
        let txn = Txn { success: vec![Op::delete(key)], ..Txn::default() };
        let answer = keys.txn(txn, Origin::default()).await.map_err(fail)?;
        let header = Some(self.member.header(answer.revision).await);
        Ok(Response::new(pb::UnlockResponse { header }))
    }
}
