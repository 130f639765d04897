//! etcd's Election service: of all candidates the one that came first leads.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use revfs_api::KeySpace;
use revfs_api::keyspace::{ChangeKind, Error, KeyRange, KeyValue, LeaseId, Op, Revision, Watch};
use revfs_api::line;
use revfs_api::wire::v3electionpb as pb;
use revfs_api::wire::v3electionpb::election_server::Election;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::connection::{Phase, reached};
use super::kv::key_value;
use super::lock::wait_for;
use super::member::{Member, fail, signed};
use super::turn::{self, Turn};

pub(super) struct ElectionService {
    pub(super) member: Arc<Member>,
    pub(super) phases: watch::Receiver<Phase>,
}

type Answer<T> = Result<Response<T>, Status>;

/// etcd has no code for these.
fn no_leader() -> Status {
    Status::unknown("election: no leader")
}

fn not_leader() -> Status {
    Status::unknown("election: not leader")
}

fn leader_key(leader: Option<pb::LeaderKey>) -> Result<pb::LeaderKey, Status> {
    leader.ok_or_else(|| Status::unknown("\"leader\" field must be provided"))
}

fn revision_of(leader: &pb::LeaderKey) -> Revision {
    Revision(u64::try_from(leader.rev).unwrap_or(0))
}

fn say(key: Bytes, value: Bytes, lease: LeaseId) -> Op {
    Op::put_on(lease, key, value)
}

/// Changes what a leader says; the revision of that.
async fn proclaim(
    keys: &dyn KeySpace,
    (key, revision): (&Bytes, Revision),
    value: Bytes,
    lease: LeaseId,
) -> Result<Revision, Status> {
    let put = say(key.clone(), value, lease);
    match turn::guarded(keys, key, revision, put).await.map_err(fail)? {
        (true, revision) => Ok(revision),
        (false, _) => Err(not_leader()),
    }
}

#[tonic::async_trait]
impl Election for ElectionService {
    async fn campaign(
        &self,
        request: Request<pb::CampaignRequest>,
    ) -> Answer<pb::CampaignResponse> {
        let keys = self.member.key_space(&request)?;
        let pb::CampaignRequest { name, lease, value } = request.into_inner();
        let lease = turn::lease(keys.as_ref(), lease).await.map_err(fail)?;
        let turn =
            Turn::enter(Arc::clone(&keys), &name, lease, value.clone()).await.map_err(fail)?;
        if turn.before.as_ref().is_some_and(|before| *before != value) {
            proclaim(keys.as_ref(), (&turn.key, turn.revision), value, lease).await?;
        }
        wait_for(&turn, &self.phases).await?;
        let leader = pb::LeaderKey {
            name,
            key: turn.key.clone(),
            rev: signed(turn.revision.0),
            lease: turn.lease.0,
        };
        // As etcd: the header tells when the candidate came, not when it won.
        let header = Some(self.member.header(turn.entered).await);
        turn.keep();
        Ok(Response::new(pb::CampaignResponse { header, leader: Some(leader) }))
    }

    async fn proclaim(
        &self,
        request: Request<pb::ProclaimRequest>,
    ) -> Answer<pb::ProclaimResponse> {
        let keys = self.member.key_space(&request)?;
        let pb::ProclaimRequest { leader, value } = request.into_inner();
        let leader = leader_key(leader)?;
        let at = (&leader.key, revision_of(&leader));
        let revision = proclaim(keys.as_ref(), at, value, LeaseId(leader.lease)).await?;
        let header = Some(self.member.header(revision).await);
        Ok(Response::new(pb::ProclaimResponse { header }))
    }

    async fn leader(&self, request: Request<pb::LeaderRequest>) -> Answer<pb::LeaderResponse> {
        let keys = self.member.key_space(&request)?;
        let first = line::first(line::of(&request.into_inner().name));
        let (first, current) = turn::read(keys.as_ref(), first).await.map_err(fail)?;
        let kv = Some(key_value(first.ok_or_else(no_leader)?));
        let header = Some(self.member.header(current).await);
        Ok(Response::new(pb::LeaderResponse { header, kv }))
    }

    type ObserveStream =
        Pin<Box<dyn futures_util::Stream<Item = Result<pb::LeaderResponse, Status>> + Send>>;

    async fn observe(&self, request: Request<pb::LeaderRequest>) -> Answer<Self::ObserveStream> {
        let observing = Observing {
            member: Arc::clone(&self.member),
            keys: self.member.key_space(&request)?,
            line: line::of(&request.into_inner().name),
            leader: None,
        };
        let draining = self.phases.clone();
        let stream = futures_util::stream::unfold(Some(observing), move |observing| {
            let draining = draining.clone();
            async move {
                let mut observing = observing?;
                let told = tokio::select! {
                    told = observing.next() => told,
                    () = reached(draining, Phase::Draining) => Err(Error::shutting_down()),
                };
                match told {
                    Ok(told) => Some((Ok(told), Some(observing))),
                    Err(error) => Some((Err(fail(error)), None)),
                }
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn resign(&self, request: Request<pb::ResignRequest>) -> Answer<pb::ResignResponse> {
        let keys = self.member.key_space(&request)?;
        let leader = leader_key(request.into_inner().leader)?;
        let delete = Op::delete(leader.key.clone());
        let at = revision_of(&leader);
        // Who does not lead any more has nothing to give up.
        let resigned = turn::guarded(keys.as_ref(), &leader.key, at, delete).await;
        let (_, revision) = resigned.map_err(fail)?;
        let header = Some(self.member.header(revision).await);
        Ok(Response::new(pb::ResignResponse { header }))
    }
}

/// One who is told who leads.
struct Observing {
    member: Arc<Member>,
    keys: Arc<dyn KeySpace>,
    line: KeyRange,
    /// A watch of the leader's key, from behind what was told.
    leader: Option<Box<dyn Watch>>,
}

impl Observing {
    async fn next(&mut self) -> Result<pb::LeaderResponse, Error> {
        loop {
            let Some(watch) = &mut self.leader else { return self.find().await };
            let revision = watch.next().await?;
            let Some(event) = revision.events.into_iter().next() else { continue };
            match event.kind {
                ChangeKind::Put => {
                    return Ok(tell(&self.member, event.kv, revision.stamp.revision).await);
                }
                ChangeKind::Delete => self.leader = None,
            }
        }
    }

    /// Waits until somebody leads.
    async fn find(&mut self) -> Result<pb::LeaderResponse, Error> {
        let first = line::first(self.line.clone());
        let (first, mut current) = turn::read(self.keys.as_ref(), first).await?;
        let leader = match first {
            Some(first) => first,
            None => {
                let all = vec![self.line.clone()];
                let mut anyone = self.keys.watch(all, current.next()).await?;
                loop {
                    let revision = anyone.next().await?;
                    current = revision.stamp.revision;
                    let mut puts = revision.events.into_iter();
                    let put = puts.find(|event| event.kind == ChangeKind::Put);
                    if let Some(put) = put {
                        break put.kv;
                    }
                }
            }
        };
        let key = vec![KeyRange::Key(leader.key.clone())];
        self.leader = Some(self.keys.watch(key, current.next()).await?);
        Ok(tell(&self.member, leader, current).await)
    }
}

async fn tell(member: &Member, kv: KeyValue, revision: Revision) -> pb::LeaderResponse {
    let header = Some(member.header(revision).await);
    pb::LeaderResponse { header, kv: Some(key_value(kv)) }
}
