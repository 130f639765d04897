//! A change is proposed once every member can apply it: one that does not know it would stop at it.
//!
//! Every command belongs to the cluster version with which it came. The cluster is at the lowest version that its
//! members speak, and never goes back.

use revfs_api::keyspace::{Error, Result};
use revfs_store::{Body, FIRST_VERSION, Member};

use super::Proposer;
use crate::convert::store_error;

/// The cluster version with which a command came; for a transaction the newest of its operations.
pub(super) fn of(body: &Body) -> u32 {
    match body.inner() {
        Body::Txn(_)
        | Body::Compact { .. }
        | Body::LeaseGrant { .. }
        | Body::LeaseRevoke { .. }
        | Body::LeaseExpire { .. }
        | Body::LeaseCheckpoint { .. }
        | Body::Alarm { .. }
        | Body::UploadPart { .. }
        | Body::UploadCommit(_)
        | Body::Auth(_)
        | Body::Member(_)
        | Body::Check
        | Body::Request { .. } => FIRST_VERSION,
    }
}

impl Proposer {
    /// Refuses what came with a later version than the cluster's, and says whose release is too old for it.
    pub(super) fn check_spoken_by_all(&self, version: u32) -> Result<()> {
        if version <= FIRST_VERSION {
            return Ok(());
        }
        let view = self.store.read_view().map_err(store_error)?;
        let cluster = view.cluster_version().map_err(store_error)?;
        if version <= cluster {
            return Ok(());
        }
        let joined = view.members().map_err(store_error)?.into_iter().filter(|one| one.joined);
        let who = match joined.min_by_key(|member| member.version) {
            Some(Member { id, version: speaks, .. }) if speaks < version => {
                format!("member {id:x} speaks {speaks} at most: run this release there, too")
            }
            _ => "it is raised as soon as a leader has heard of all members".to_owned(),
        };
        Err(Error::Invalid(format!(
            "this needs cluster version {version}, and the cluster is at {cluster}; {who}"
        )))
    }
}
