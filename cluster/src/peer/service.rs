//! What a member answers to others. Each call is checked first: see [`super::caller`].

use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use revfs_api::wire::peer as pb;
use revfs_api::wire::peer::lease_request::Ask;
use revfs_api::wire::peer::peer_server::Peer;
use revfs_api::wire::peer::proposal_end::End;
use revfs_store::types::LeaseId;
use revfs_store::{Member, StoreError};
use tonic::{Request, Response, Status, Streaming};

use super::caller::{self, Met};
use super::complaints::Complaints;
use crate::data_dir::Identity;
use crate::divergence::Points;
use crate::lease_clock::LeaseClock;
use crate::members::Reconciler;
use crate::proposal::Proposer;
use crate::raft::ReadIndexError;

/// Changes of one member that are under way at a time: what its own queue holds.
const PROPOSALS_MAX: usize = 4_096;

/// Ends of changes in one message at most.
const ENDS: usize = 256;

/// See the module.
pub(crate) struct PeerService {
    pub(crate) own: Identity,
    pub(crate) met: Arc<Met>,
    pub(crate) proposer: Arc<Proposer>,
    pub(crate) leases: Arc<LeaseClock>,
    pub(crate) members: Arc<Reconciler>,
    pub(crate) points: Arc<Points>,
    pub(crate) complaints: Complaints,
}

type Answer<T> = Result<Response<T>, Status>;
type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl PeerService {
    /// The member that calls.
    fn caller<T>(&self, request: &Request<T>) -> Result<u64, Status> {
        caller::check(request.metadata(), &self.own, &self.met).inspect_err(|status| {
            let from = request.remote_addr().map(|address| address.ip().to_string());
            let from = from.unwrap_or_default();
            let reason = status.message();
            if self.complaints.is_news(&format!("{from} {reason}")) {
                tracing::warn!(from, reason, "a call of another member was refused");
            }
        })
    }
}

impl PeerService {
    /// The pending member that is awaited at one of these addresses, and the one that lives there.
    fn expected(&self, urls: &[String]) -> Result<(u64, u64), StoreError> {
        if urls.is_empty() {
            return Ok((0, 0));
        }
        let members = self.proposer.store.read_view()?.members()?;
        let is_at = |member: &&Member| member.peer_urls.iter().any(|url| urls.contains(url));
        let there = || members.iter().filter(is_at);
        let lives = |member: &&Member| {
            let is_known = member.instance.is_some() || self.met.instance(member.id).is_some();
            member.joined && is_known
        };
        let invited = there().find(|member| !member.joined).map_or(0, |member| member.id);
        Ok((invited, there().find(lives).map_or(0, |member| member.id)))
    }
}

async fn propose(proposer: Arc<Proposer>, proposal: pb::Proposal) -> pb::ProposalEnd {
    let pb::Proposal { number, command } = proposal;
    let end = match NonZeroU64::new(number) {
        Some(number) => proposer.propose_for(number, command).await,
        None => End::Refused("a change needs a number".to_owned()),
    };
    pb::ProposalEnd { number, end: Some(end) }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn introduce(
        &self,
        request: Request<pb::IntroduceRequest>,
    ) -> Answer<pb::IntroduceResponse> {
        let initialised = self.proposer.raft.is_initialised().await;
        let is_removed = caller::is_removed(request.metadata(), &self.own, &self.met);
        let expected = self.expected(&request.into_inner().peer_urls);
        let (invited, lives) = expected.map_err(|error| Status::unavailable(error.to_string()))?;
        let view = self.proposer.store.read_view();
        let needed_version = view.and_then(|view| view.cluster_version());
        let needed_version =
            needed_version.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(pb::IntroduceResponse {
            cluster: self.own.cluster,
            member: self.own.member,
            instance: caller::bytes(self.own.instance),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            is_initialised: initialised.map_err(|error| Status::unavailable(error.to_string()))?,
            cluster_version: self.members.speaks,
            invited,
            lives,
            is_removed,
            needed_version,
        }))
    }

    type AppendStream = Boxed<pb::AppendResponse>;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Answer<Self::AppendStream> {
        self.caller(&request)?;
        let answers = self.proposer.raft.append(request.into_inner());
        Ok(Response::new(Box::pin(answers)))
    }

    type SnapshotStream = Boxed<pb::SnapshotResponse>;

    async fn snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotRequest>>,
    ) -> Answer<Self::SnapshotStream> {
        let from = self.caller(&request)?;
        let answers = self.proposer.raft.receive_copy(from, request.into_inner());
        Ok(Response::new(Box::pin(answers)))
    }

    async fn vote(&self, request: Request<pb::VoteRequest>) -> Answer<pb::VoteResponse> {
        self.caller(&request)?;
        self.proposer.raft.vote(request.into_inner()).await.map(Response::new)
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Answer<pb::TransferLeaderResponse> {
        self.caller(&request)?;
        self.proposer.raft.take_over(request.into_inner()).await.map(Response::new)
    }

    type ProposeStream = Boxed<pb::ProposeResponse>;

    async fn propose(
        &self,
        request: Request<Streaming<pb::ProposeRequest>>,
    ) -> Answer<Self::ProposeStream> {
        self.caller(&request)?;
        let proposer = Arc::clone(&self.proposer);
        let proposals = request
            .into_inner()
            // What comes after a broken message was never received.
            .take_while(|batch| std::future::ready(batch.is_ok()))
            .filter_map(|batch| std::future::ready(batch.ok()))
            .flat_map(|batch| futures_util::stream::iter(batch.proposals));
        let ends = proposals
            .map(move |proposal| propose(Arc::clone(&proposer), proposal))
            .buffer_unordered(PROPOSALS_MAX)
            .ready_chunks(ENDS)
            .map(|ends| Ok(pb::ProposeResponse { ends }));
        Ok(Response::new(Box::pin(ends)))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Answer<pb::ReadIndexResponse> {
        self.caller(&request)?;
        let read = self.proposer.raft.read_index().await.map_err(|error| match error {
            ReadIndexError::NotLeader { .. } => Status::failed_precondition(error.to_string()),
            ReadIndexError::NotConfirmed { .. } => Status::unavailable(error.to_string()),
        })?;
        let read = Some(pb::LogId { term: read.term, index: read.index });
        Ok(Response::new(pb::ReadIndexResponse { read }))
    }

    async fn members(&self, request: Request<pb::MembersRequest>) -> Answer<pb::MembersResponse> {
        self.caller(&request)?;
        match self.members.seen() {
            Ok(Some(members)) => Ok(Response::new(pb::MembersResponse { members })),
            Ok(None) => Err(Status::failed_precondition("this member does not lead")),
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }

    async fn hash(&self, request: Request<pb::HashRequest>) -> Answer<pb::HashResponse> {
        self.caller(&request)?;
        // The caller says how long it waits.
        let hash = self.points.at(request.into_inner().index).await;
        Ok(Response::new(match hash {
            Err(reason) => pb::HashResponse { refusal: reason.to_string(), ..Default::default() },
            Ok(hash) => pb::HashResponse {
                refusal: String::new(),
                term: hash.position.term,
                revision: hash.kv.revision.0,
                compacted: hash.kv.compacted.map_or(0, |revision| revision.0 + 1),
                kv_hash: hash.kv.hash,
                own_hash: hash.own,
            },
        }))
    }

    async fn lease(&self, request: Request<pb::LeaseRequest>) -> Answer<pb::LeaseResponse> {
        self.caller(&request)?;
        if !self.proposer.leads() {
            return Err(Status::failed_precondition("this member does not lead"));
        }
        let none = pb::LeaseResponse::default();
        let found = |state: Option<(i64, i64)>| match state {
            None => pb::LeaseResponse::default(),
            Some((granted_seconds, remaining_seconds)) => pb::LeaseResponse {
                is_found: true,
                granted_seconds,
                remaining_seconds,
                leases: Vec::new(),
            },
        };
        let answer = match request.into_inner().ask {
            None => Err(Status::invalid_argument("nothing is asked about leases"))?,
            Some(Ask::KeepAlive(id)) => {
                let renewed = self.leases.keep_alive_here(LeaseId(id)).await;
                renewed.map(|ttl| found(ttl.map(|ttl| (ttl, ttl))))
            }
            Some(Ask::TimeToLive(id)) => self.leases.left_here(LeaseId(id)).await.map(found),
            Some(Ask::All(pb::AllLeases {})) => self.leases.all_here().await.map(|all| {
                pb::LeaseResponse { leases: all.into_iter().map(|id| id.0).collect(), ..none }
            }),
        };
        answer.map(Response::new).map_err(|error| revfs_api::status::to_status(&error))
    }
}
