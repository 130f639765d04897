//! etcd's Lease service: grants, renewals and what is left, by the clock of the leader.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use revfs_api::keyspace::{Error, LeaseId};
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::lease_server::Lease;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::connection::{Phase, reached};
use super::credentials::Credentials;
use super::member::{Member, fail};

pub(super) struct LeaseService {
    pub(super) member: Arc<Member>,
    pub(super) phases: watch::Receiver<Phase>,
}

/// Renewals of one client, in the order of its messages.
struct Renewing {
    member: Arc<Member>,
    credentials: Credentials,
    requests: Streaming<pb::LeaseKeepAliveRequest>,
    phases: watch::Receiver<Phase>,
    has_ended: bool,
}

impl Renewing {
    async fn next(&mut self) -> Option<Result<pb::LeaseKeepAliveResponse, Status>> {
        if self.has_ended {
            return None;
        }
        let request = tokio::select! {
            request = self.requests.message() => request,
            () = reached(self.phases.clone(), Phase::Draining) => {
                Err(fail(Error::shutting_down()))
            }
        };
        let answer = match request {
            Ok(None) => return None,
            Ok(Some(request)) => self.renew(request.id).await,
            Err(status) => Err(status),
        };
        self.has_ended = answer.is_err();
        Some(answer)
    }

    async fn renew(&self, id: i64) -> Result<pb::LeaseKeepAliveResponse, Status> {
        // From before the renewal: who reads at it later sees the keys of a lease that was alive.
        let header = self.member.current_header().await?;
        let keyspace = self.member.key_space_for(&self.credentials)?;
        let renewed = keyspace.lease_keep_alive(LeaseId(id)).await.map_err(fail)?;
        let ttl = renewed.unwrap_or(0);
        Ok(pb::LeaseKeepAliveResponse { header: Some(header), id, ttl })
    }
}

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let keyspace = self.member.key_space(&request)?;
        let pb::LeaseGrantRequest { id, ttl } = request.into_inner();
        let granted = keyspace.lease_grant(LeaseId(id), ttl).await;
        let (LeaseId(id), ttl) = granted.map_err(fail)?;
        let header = Some(self.member.current_header().await?);
        Ok(Response::new(pb::LeaseGrantResponse { header, id, ttl, error: String::new() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let keyspace = self.member.key_space(&request)?;
        let id = LeaseId(request.into_inner().id);
        keyspace.lease_revoke(id).await.map_err(fail)?;
        let header = Some(self.member.current_header().await?);
        Ok(Response::new(pb::LeaseRevokeResponse { header }))
    }

    type LeaseKeepAliveStream =
        Pin<Box<dyn Stream<Item = Result<pb::LeaseKeepAliveResponse, Status>> + Send>>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let renewing = Renewing {
            member: Arc::clone(&self.member),
            credentials: Credentials::of(&request),
            requests: request.into_inner(),
            phases: self.phases.clone(),
            has_ended: false,
        };
        let answers = futures_util::stream::unfold(renewing, |mut renewing| async move {
            let answer = renewing.next().await?;
            Some((answer, renewing))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let keyspace = self.member.key_space(&request)?;
        let pb::LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let found = keyspace.lease_time_to_live(LeaseId(id), keys).await;
        let found = found.map_err(fail)?;
        let header = Some(self.member.current_header().await?);
        let ttl = found.as_ref().map_or(-1, |lease| lease.remaining_seconds);
        let lease = found.unwrap_or_default();
        Ok(Response::new(pb::LeaseTimeToLiveResponse {
            header,
            id,
            ttl,
            granted_ttl: lease.granted_seconds,
            keys: lease.keys,
        }))
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let keyspace = self.member.key_space(&request)?;
        let leases = keyspace.leases().await.map_err(fail)?;
        let leases = leases.into_iter().map(|LeaseId(id)| pb::LeaseStatus { id }).collect();
        let header = Some(self.member.current_header().await?);
        Ok(Response::new(pb::LeaseLeasesResponse { header, leases }))
    }
}
