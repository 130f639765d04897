//! openraft's calls to other members, on the connections of [`Peers`].
//!
//! Appends are pipelined: one stream carries the requests of a replication session, and its answers
//! come in their order. A stream on which an answer is overdue is given up, so that a member whose
//! connection died silently is tried again on a new one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::impls::BasicNode;
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, VoteRequest, VoteResponse,
};
use openraft::type_config::TypeConfigExt;
use openraft::{Instant as _, OptionalSend};
use parking_lot::Mutex;
use revfs_api::wire::peer as pb;
use tonic::{Code, Status};

use super::copying;
use super::runtime::Instant;
use super::state_machine::SnapshotData;
use super::type_config::{RaftVote, TypeConfig};
use super::wire;
use crate::peer::{Link, PeerError, Peers};
use crate::snapshot::{Copy, Snapshots};

/// openraft pauses where it takes requests for a member that failed; a call that failed before it took any
/// would be made again at once.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// A copy is kept for so long for a member that has ceased to answer.
const COPY_KEPT: Duration = Duration::from_secs(30);

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;

type TransferLeaderResponse = openraft::raft::TransferLeaderResponse<TypeConfig>;
pub(super) type Rpc<T> = Result<T, RPCError<TypeConfig>>;
pub(super) type Boxed<'s, T> = futures_util::future::BoxFuture<'s, T>;
pub(super) type Answers<'s> =
    futures_util::stream::BoxStream<'s, Rpc<StreamAppendResult<TypeConfig>>>;

/// Makes the connections of openraft.
pub(super) struct Network {
    pub(super) peers: Arc<Peers>,
    pub(super) snapshots: Arc<Snapshots>,
    /// An answer that takes longer is overdue.
    pub(super) answer_timeout: Duration,
}

/// One member, as it is reached.
pub(super) struct Peer {
    link: Arc<Link>,
    answer_timeout: Duration,
    snapshots: Arc<Snapshots>,
    /// What is sent to it; kept until it was taken, whatever connections break, unless it stays away.
    copy: Option<Arc<Copy>>,
    silent_since: Option<Instant>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        let link = self.peers.link(target, &node.addr);
        let snapshots = Arc::clone(&self.snapshots);
        Peer {
            link,
            answer_timeout: self.answer_timeout,
            snapshots,
            copy: None,
            silent_since: None,
        }
    }
}

/// openraft asks nobody for a while who is unreachable, and at once whose call failed otherwise.
pub(super) fn failed(error: PeerError) -> RPCError<TypeConfig> {
    match error {
        PeerError::Call { ref status, .. } if status.code() == Code::Cancelled => {
            RPCError::Network(NetworkError::new(&error))
        }
        error => RPCError::Unreachable(Unreachable::new(&error)),
    }
}

impl Peer {
    fn broken(&self, error: std::io::Error) -> RPCError<TypeConfig> {
        failed(self.link.failed(Status::data_loss(error.to_string())))
    }

    async fn ask_vote(
        &self,
        rpc: VoteRequest<TypeConfig>,
        is_pre_vote: bool,
        option: &RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        let request = wire::vote(rpc, is_pre_vote);
        let mut client = self.link.client().await.map_err(failed)?;
        let answer = TypeConfig::timeout(option.hard_ttl(), client.vote(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no vote in time")));
        let answer = answer.map_err(|status| failed(self.link.failed(status)))?;
        wire::from_voted(answer.into_inner()).map_err(|error| self.broken(error))
    }
}

impl Peer {
    /// Gives up what is kept for a member that has been silent for long.
    async fn check_it_answers(&mut self) -> Rpc<()> {
        let answer = self.link.answers().await;
        let Err(error) = answer else {
            self.silent_since = None;
            return Ok(());
        };
        let since = *self.silent_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= COPY_KEPT {
            self.copy = None;
        }
        Err(failed(error))
    }

    async fn send_copy(
        &mut self,
        vote: RaftVote,
        snapshot: Snapshot,
    ) -> Rpc<SnapshotResponse<TypeConfig>> {
        // Nobody makes a copy, and keeps the log behind it, for who is not there.
        self.check_it_answers().await?;
        let copy = match snapshot.snapshot {
            SnapshotData::Copied(copy) => copy,
            // The member is noted to have all that was announced: the copy holds no less.
            SnapshotData::Committed | SnapshotData::Received(_) => {
                let at_least = snapshot.meta.last_log_id.map_or(0, |id| id.index);
                let copied = self.snapshots.copies.get(at_least).await;
                copied.map_err(|error| {
                    tracing::warn!(%error, "a member that lags behind the log waits");
                    RPCError::Unreachable(Unreachable::new(&error))
                })?
            }
        };
        let copy = &*self.copy.insert(copy);
        let sent = copying::send(&self.link, copy, self.snapshots.copies.pace(), vote).await;
        let vote = sent.map_err(failed)?;
        self.copy = None;
        Ok(SnapshotResponse { vote })
    }
}

/// When those requests were sent that have no answer yet.
pub(super) type Unanswered = Arc<Mutex<VecDeque<Instant>>>;

/// Waits for the next answer, as long as the oldest request may take.
async fn next_answer<T>(
    answers: &mut (impl Stream<Item = Result<T, Status>> + Send + Unpin),
    unanswered: &Unanswered,
    timeout: Duration,
) -> Option<Result<T, Status>> {
    loop {
        match TypeConfig::timeout(timeout, answers.next()).await {
            Ok(answer) => return answer,
            Err(_) => {
                let oldest = unanswered.lock().front().copied();
                if oldest.is_some_and(|sent| sent.elapsed() >= timeout) {
                    return Some(Err(Status::deadline_exceeded("an append was not answered")));
                }
            }
        }
    }
}

/// The requests of a stream, each noted as it is sent.
pub(super) fn requests(
    input: impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    unanswered: &Unanswered,
) -> impl Stream<Item = pb::AppendRequest> + Send + Unpin + 'static {
    let sent = Arc::clone(unanswered);
    input.map(move |request| {
        sent.lock().push_back(Instant::now());
        wire::append(request)
    })
}

/// The answers of a stream, in the order of its requests. It ends when one is overdue or cannot be read.
pub(super) fn answers<'s>(
    answers: impl Stream<Item = Result<pb::AppendResponse, Status>> + Send + Unpin + 's,
    unanswered: Unanswered,
    timeout: Duration,
    failed: impl Fn(Status) -> RPCError<TypeConfig> + std::marker::Copy + Send + 's,
) -> impl Stream<Item = Rpc<StreamAppendResult<TypeConfig>>> + Send + 's {
    stream::unfold(Some((answers, unanswered)), move |state| async move {
        let (mut answers, unanswered) = state?;
        let answer = match next_answer(&mut answers, &unanswered, timeout).await? {
            Ok(answer) => answer,
            Err(status) => return Some((Err(failed(status)), None)),
        };
        unanswered.lock().pop_front();
        match wire::from_appended(answer) {
            Ok(answer) => Some((Ok(answer), Some((answers, unanswered)))),
            Err(error) => Some((Err(failed(Status::data_loss(error.to_string()))), None)),
        }
    })
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        let one = Box::pin(stream::once(std::future::ready(rpc)));
        let mut answers = self.stream_append(one, option).await?;
        match answers.next().await {
            Some(answer) => Ok(AppendEntriesResponse::from(answer?)),
            None => {
                drop(answers);
                Err(failed(self.link.failed(Status::cancelled("the stream ended unanswered"))))
            }
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> Boxed<'s, Rpc<Answers<'s>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let unanswered = Unanswered::default();
            let requests = requests(input, &unanswered);
            let timeout = self.answer_timeout;
            let opened = async {
                let mut client = self.link.client().await?;
                let opened = TypeConfig::timeout(timeout, client.append(requests)).await;
                let opened =
                    opened.unwrap_or_else(|_| Err(Status::deadline_exceeded("no stream in time")));
                opened.map_err(|status| self.link.failed(status))
            };
            let answers = match opened.await {
                Ok(answers) => answers.into_inner(),
                Err(error) => {
                    TypeConfig::sleep(CONNECT_PAUSE).await;
                    return Err(failed(error));
                }
            };
            let this: &'s Self = self;
            let failed = move |status| failed(this.link.failed(status));
            let answers = self::answers(answers, unanswered, timeout, failed);
            Ok(answers.boxed())
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        self.ask_vote(rpc, false, &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        self.ask_vote(rpc, true, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            biased;
            sent = self.send_copy(vote, snapshot) => Ok(sent?),
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse> {
        let mut client = self.link.client().await.map_err(failed)?;
        let sent = client.transfer_leader(wire::transfer(&rpc));
        let answer = TypeConfig::timeout(option.hard_ttl(), sent).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("not in time")));
        let answer = answer.map_err(|status| failed(self.link.failed(status)))?.into_inner();
        if answer.refusal.is_empty() {
            return Ok(Ok(()));
        }
        Err(failed(self.link.failed(Status::failed_precondition(answer.refusal))))
    }
}
