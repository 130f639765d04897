//! Leases, by etcd's own service, which nodes of revfs offer as well.

use std::time::Duration;

use super::{Client, Wire, within};
use crate::keyspace::{LeaseId, LeaseState, Result};
use crate::wire::etcdserverpb as pb;
use crate::wire::etcdserverpb::lease_client::LeaseClient;
use tonic::Response;

impl Client {
    /// Sent once: a repetition without a number of its own would leave a lease behind.
    pub(super) async fn grant(&self, id: LeaseId, ttl_seconds: i64) -> Result<(LeaseId, i64)> {
        let timeout = self.settings().call_timeout;
        let request = pb::LeaseGrantRequest { id: id.0, ttl: ttl_seconds };
        let granted = self.once(timeout, |at, limit| async move {
            at.lease().lease_grant(within(request, limit)).await
        });
        let granted = granted.await?;
        Ok((LeaseId(granted.id), granted.ttl))
    }

    pub(super) async fn revoke(&self, id: LeaseId) -> Result<()> {
        let timeout = self.settings().call_timeout;
        let request = pb::LeaseRevokeRequest { id: id.0 };
        let revoked = self.once(timeout, |at, limit| async move {
            at.lease().lease_revoke(within(request, limit)).await
        });
        revoked.await.map(drop)
    }

    pub(super) async fn keep_alive(&self, id: LeaseId) -> Result<Option<i64>> {
        let renewed = self.repeat(|at, limit| renew(at.lease(), id, limit)).await?;
        Ok(Some(renewed.ttl).filter(|&ttl| ttl > 0))
    }

    pub(super) async fn time_to_live(
        &self,
        id: LeaseId,
        with_keys: bool,
    ) -> Result<Option<LeaseState>> {
        let request = pb::LeaseTimeToLiveRequest { id: id.0, keys: with_keys };
        let found = self.repeat(|at, limit| async move {
            at.lease().lease_time_to_live(within(request, limit)).await
        });
        let found = found.await?;
        let state = LeaseState {
            id,
            granted_seconds: found.granted_ttl,
            remaining_seconds: found.ttl,
            keys: found.keys,
        };
        Ok((found.ttl >= 0).then_some(state))
    }

    pub(super) async fn list_leases(&self) -> Result<Vec<LeaseId>> {
        let found = self.repeat(|at, limit| async move {
            at.lease().lease_leases(within(pb::LeaseLeasesRequest {}, limit)).await
        });
        Ok(found.await?.leases.into_iter().map(|lease| LeaseId(lease.id)).collect())
    }
}

/// One renewal: a stream of one message, and the first of the answers.
async fn renew(
    mut client: LeaseClient<Wire>,
    id: LeaseId,
    limit: Duration,
) -> Result<Response<pb::LeaseKeepAliveResponse>, tonic::Status> {
    let request = futures_util::stream::iter([pb::LeaseKeepAliveRequest { id: id.0 }]);
    let mut answers = client.lease_keep_alive(within(request, limit)).await?.into_inner();
    let answer = answers.message().await?;
    let none = || tonic::Status::unavailable("the node ended the stream of renewals");
    answer.map(Response::new).ok_or_else(none)
}
