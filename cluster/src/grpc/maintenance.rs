//! etcd's Maintenance service: the state of this member, and what is done to its store as a whole.
//!
//! - [`alarm`]: what is wrong with a member, as a state of the cluster;
//! - [`snapshot`]: a backup as a stream.

mod alarm;
mod snapshot;

use std::sync::Arc;

use revfs_api::keyspace::Revision;
use revfs_api::status;
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::downgrade_request::DowngradeAction;
use revfs_api::wire::etcdserverpb::maintenance_server::Maintenance;
use revfs_store::Need;
use tonic::{Request, Response, Status};

use super::member::{Member, fail, signed};

/// The etcd release whose behaviour the services build, for clients that choose by it.
pub const ETCD_VERSION: &str = "3.6.0";

/// Major and minor of [`ETCD_VERSION`].
fn storage_version() -> &'static str {
    ETCD_VERSION.rsplit_once('.').map_or("", |(minor, _)| minor)
}

pub(super) struct MaintenanceService {
    pub(super) member: Arc<Member>,
}

impl MaintenanceService {
    /// A header with the present revision.
    async fn header(&self) -> Result<Option<pb::ResponseHeader>, Status> {
        Ok(Some(self.member.current_header().await?))
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Answer<pb::AlarmResponse> {
        let node = self.member.node(&request)?;
        let alarms = alarm::answer(&node, request.into_inner()).await?;
        Ok(Response::new(pb::AlarmResponse { header: self.header().await?, alarms }))
    }

    async fn status(&self, request: Request<pb::StatusRequest>) -> Answer<pb::StatusResponse> {
        let status = self.member.key_space(&request)?.status().await.map_err(fail)?;
        let header = self.member.header(Revision(status.revision)).await;
        let (errors, quota_bytes, is_learner) = match self.member.node(&request) {
            Ok(node) => {
                let alarms = node.alarms().map_err(fail)?;
                let alarms = alarms.into_iter().map(alarm::text);
                let errors = alarms.chain(node.trouble()).collect();
                (errors, node.quota_bytes().unwrap_or(0), node.is_learner())
            }
            // A key space that is no node.
            Err(_) => (Vec::new(), 0, false),
        };
        Ok(Response::new(pb::StatusResponse {
            header: Some(header),
            version: ETCD_VERSION.into(),
            db_size: signed(status.store_bytes),
            leader: status.leader_id,
            raft_index: status.raft_index,
            raft_term: status.raft_term,
            raft_applied_index: status.applied_index,
            errors,
            db_size_in_use: signed(status.store_bytes_in_use),
            is_learner,
            storage_version: storage_version().into(),
            db_size_quota: signed(quota_bytes),
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }))
    }

    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Answer<pb::DefragmentResponse> {
        self.member.node(&request)?.defragment().await.map_err(fail)?;
        Ok(Response::new(pb::DefragmentResponse { header: self.header().await? }))
    }

    async fn hash(&self, request: Request<pb::HashRequest>) -> Answer<pb::HashResponse> {
        let hash = self.member.node(&request)?.hash_all().await.map_err(fail)?;
        Ok(Response::new(pb::HashResponse { header: self.header().await?, hash }))
    }

    async fn hash_kv(&self, request: Request<pb::HashKvRequest>) -> Answer<pb::HashKvResponse> {
        let keyspace = self.member.key_space(&request)?;
        let revision = u64::try_from(request.into_inner().revision).unwrap_or(0);
        let hash = keyspace.hash_kv(Revision(revision)).await.map_err(fail)?;
        Ok(Response::new(pb::HashKvResponse {
            header: Some(self.member.header(hash.current).await),
            hash: hash.hash,
            compact_revision: hash.compacted.map_or(-1, |revision| signed(revision.0)),
            hash_revision: signed(hash.revision.0),
        }))
    }

    type SnapshotStream = snapshot::Parts;

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Answer<Self::SnapshotStream> {
        let backup = self.member.key_space(&request)?.backup().await.map_err(fail)?;
        let header = self.member.current_header().await?;
        Ok(Response::new(snapshot::parts(backup, header)))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Answer<pb::MoveLeaderResponse> {
        let node = self.member.node(&request)?;
        node.require(Need::Root).map_err(fail)?;
        let target = request.into_inner().target_id;
        let header = self.header().await?;
        if node.leader() != header.map(|header| header.member_id) {
            return Err(Status::failed_precondition(status::NOT_LEADER));
        }
        // The only member leads already.
        if node.leader() != Some(target) {
            return Err(Status::failed_precondition(status::BAD_TRANSFEREE));
        }
        Ok(Response::new(pb::MoveLeaderResponse { header }))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Answer<pb::DowngradeResponse> {
        self.member.node(&request)?.require(Need::Root).map_err(fail)?;
        let pb::DowngradeRequest { action, version } = request.into_inner();
        let refusal = match DowngradeAction::try_from(action) {
            Ok(DowngradeAction::Cancel) => Status::failed_precondition(status::NO_DOWNGRADE),
            Ok(DowngradeAction::Validate | DowngradeAction::Enable) if is_version(&version) => {
                // No older release can read the store.
                Status::invalid_argument(status::DOWNGRADE_VERSION)
            }
            Ok(DowngradeAction::Validate | DowngradeAction::Enable) => {
                Status::invalid_argument(status::DOWNGRADE_VERSION_FORMAT)
            }
            Err(_) => Status::unknown(format!("unknown downgrade action {action}")),
        };
        Err(refusal)
    }
}

/// MAJOR.MINOR, or with a patch.
fn is_version(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    matches!(parts.len(), 2 | 3) && parts.iter().all(|part| part.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::{is_version, storage_version};

    #[test]
    fn versions_are_two_or_three_numbers() {
        assert!(is_version("3.5") && is_version("3.5.0") && is_version(storage_version()));
        assert!(
            !is_version("") && !is_version("3") && !is_version("3.x") && !is_version("3.5.0.1")
        );
    }
}
