//! etcd's Maintenance service, as far as it is built: the state of this member.

use std::sync::Arc;

use revfs_api::keyspace::Revision;
use revfs_api::wire::etcdserverpb::maintenance_server::Maintenance;
use revfs_api::wire::etcdserverpb::{HashKvRequest, HashKvResponse, StatusRequest, StatusResponse};
use tonic::{Request, Response, Status};

use super::member::{Member, fail, signed};

/// The etcd release whose behaviour the services build, for clients that choose by it.
pub const ETCD_VERSION: &str = "3.6.0";

pub(super) struct MaintenanceService {
    pub(super) member: Arc<Member>,
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let keyspace = self.member.key_space(&request)?;
        let status = keyspace.status().await.map_err(fail)?;
        let header = self.member.header(Revision(status.revision)).await;
        let mut errors = Vec::new();
        if !status.read_only.is_empty() {
            errors.push(status.read_only);
        }
        Ok(Response::new(StatusResponse {
            header: Some(header),
            version: ETCD_VERSION.into(),
            db_size: signed(status.store_bytes),
            leader: status.leader_id,
            raft_index: status.raft_index,
            raft_term: status.raft_term,
            raft_applied_index: status.applied_index,
            errors,
            db_size_in_use: signed(status.store_bytes_in_use),
            is_learner: false,
            storage_version: ETCD_VERSION.rsplit_once('.').map_or("", |(minor, _)| minor).into(),
            db_size_quota: 0,
            downgrade_info: None,
        }))
    }
    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        let keyspace = self.member.key_space(&request)?;
        let revision = u64::try_from(request.into_inner().revision).unwrap_or(0);
        let hash = keyspace.hash_kv(Revision(revision)).await;
        let hash = hash.map_err(fail)?;
        Ok(Response::new(HashKvResponse {
            header: Some(self.member.header(hash.current).await),
            hash: hash.hash,
            compact_revision: hash.compacted.map_or(-1, |revision| signed(revision.0)),
            hash_revision: signed(hash.revision.0),
        }))
    }
}
