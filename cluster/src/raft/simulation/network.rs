//! The network of a simulation: streams and calls between members, as HTTP/2 over TCP has them.
//!
//! On a stream nothing is lost and nothing is overtaken: what is lost is sent again and comes late, as does all
//! behind it. What was sent before a connection was given up may come when the next one is in use already.
//! Where one direction is cut, what is sent waits; if that lasts, the connection breaks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{self, Either};
use futures_util::{Stream, StreamExt, stream};
use openraft::OptionalSend;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::impls::BasicNode;
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use openraft::type_config::TypeConfigExt;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::super::core::Raft;
use super::super::network::{Answers, Boxed, Rpc, Unanswered, answers, failed, requests};
use super::super::state_machine::SnapshotData;
use super::super::type_config::{RaftVote, TypeConfig};
use super::super::{copying, wire};
use super::executor::{self, Party, WORLD};
use super::trace::Trace;
use crate::peer::PeerError;
use crate::snapshot::Snapshots;

/// Messages under way on one stream, in one direction.
const UNDER_WAY: usize = 64;

/// What is lost is sent again after so long.
const SENT_AGAIN: Duration = Duration::from_millis(200);

/// A connection breaks that was cut for so long.
const BROKEN_AFTER: Duration = Duration::from_secs(2);

/// After a connection that could not be made, as the real network waits.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;
type Stamped = (Duration, Result<Vec<u8>, Status>);

/// How messages fare.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    pub(super) delay_max: Duration,
    /// Of a thousand messages, so many are lost and sent again.
    pub(super) lost: u64,
}

struct State {
    weather: Weather,
    /// From whom to whom nothing comes.
    cut: BTreeSet<(u64, u64)>,
    running: BTreeMap<u64, (Raft, Party)>,
}

/// See the module.
pub(super) struct Network {
    state: Mutex<State>,
    changed: Notify,
    pub(super) trace: Arc<Trace>,
}

/// A number in `0..bound`.
pub(super) fn below(bound: u64) -> u64 {
    executor::here().roll() % bound.max(1)
}

pub(super) fn below_time(bound: Duration) -> Duration {
    Duration::from_nanos(below(u64::try_from(bound.as_nanos()).expect("times are short")))
}

impl Network {
    pub(super) fn new(weather: Weather, trace: Arc<Trace>) -> Self {
        let state = State { weather, cut: BTreeSet::new(), running: BTreeMap::new() };
        Self { state: Mutex::new(state), changed: Notify::new(), trace }
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        self.state.lock().weather = weather;
    }

    pub(super) fn cut(&self, pairs: impl IntoIterator<Item = (u64, u64)>) {
        self.state.lock().cut.extend(pairs);
    }

    pub(super) fn heal(&self) {
        self.state.lock().cut.clear();
        self.changed.notify_waiters();
    }

    pub(super) fn listen(&self, member: u64, raft: Raft, party: Party) {
        self.state.lock().running.insert(member, (raft, party));
    }

    pub(super) fn hang_up(&self, member: u64) {
        let gone = self.state.lock().running.remove(&member);
        drop(gone);
    }

    pub(super) fn running(&self, member: u64) -> Option<(Raft, Party)> {
        self.state.lock().running.get(&member).cloned()
    }

    /// Waits until what was sent at `sent` has come; false if it never does.
    async fn pass(&self, from: u64, to: u64, sent: Duration) -> bool {
        let weather = self.state.lock().weather;
        let mut takes = below_time(weather.delay_max);
        if below(1_000) < weather.lost {
            takes += SENT_AGAIN;
        }
        let executor = executor::here();
        TypeConfig::sleep((sent + takes).saturating_sub(executor.now())).await;
        let broken_at = executor.now() + BROKEN_AFTER;
        while self.state.lock().cut.contains(&(from, to)) {
            let left = broken_at.saturating_sub(executor.now());
            if TypeConfig::timeout(left, self.changed.notified()).await.is_err() {
                return false;
            }
        }
        true
    }

    /// One direction of a stream.
    fn wire(
        self: &Arc<Self>,
        from: u64,
        to: u64,
    ) -> (mpsc::Sender<Stamped>, mpsc::Receiver<Result<Vec<u8>, Status>>) {
        let (send, mut sent) = mpsc::channel::<Stamped>(UNDER_WAY);
        let (deliver, delivered) = mpsc::channel(UNDER_WAY);
        let network = Arc::clone(self);
        executor::here().spawn_in(WORLD, async move {
            while let Some((at, message)) = sent.recv().await {
                if !network.pass(from, to, at).await {
                    return;
                }
                network.trace.message(from, to, message.as_ref().map_or(0, Vec::len));
                if deliver.send(message).await.is_err() {
                    return;
                }
            }
        });
        (send, delivered)
    }
}

fn stamped(message: Result<Vec<u8>, Status>) -> Stamped {
    (executor::here().now(), message)
}

fn read<M: Message + Default>(message: Result<Vec<u8>, Status>) -> Result<M, Status> {
    M::decode(&message?[..]).map_err(|error| Status::data_loss(error.to_string()))
}

fn received<M: Message + Default + 'static>(
    wire: mpsc::Receiver<Result<Vec<u8>, Status>>,
) -> impl Stream<Item = Result<M, Status>> + Send + Unpin + 'static {
    ReceiverStream::new(wire).map(read)
}

/// What comes over a stream.
type Asked<Q> = Box<dyn Stream<Item = Result<Q, Status>> + Send + Unpin>;

/// The way back.
struct Tell(mpsc::Sender<Stamped>);

impl Tell {
    async fn all<A: Message>(self, answers: impl Stream<Item = Result<A, Status>>) {
        let mut answers = std::pin::pin!(answers);
        while let Some(answer) = answers.next().await {
            let answer = stamped(answer.map(|answer| answer.encode_to_vec()));
            if self.0.send(answer).await.is_err() {
                return;
            }
        }
    }
}

/// Makes the connections of one member.
pub(super) struct Connections {
    pub(super) network: Arc<Network>,
    pub(super) own: u64,
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) answer_timeout: Duration,
}

/// One member, as another one reaches it.
pub(super) struct Peer {
    network: Arc<Network>,
    from: u64,
    to: u64,
    snapshots: Arc<Snapshots>,
    answer_timeout: Duration,
}

impl RaftNetworkFactory<TypeConfig> for Connections {
    type Network = Peer;

    async fn new_client(&mut self, to: u64, _node: &BasicNode) -> Peer {
        Peer {
            network: Arc::clone(&self.network),
            from: self.own,
            to,
            snapshots: Arc::clone(&self.snapshots),
            answer_timeout: self.answer_timeout,
        }
    }
}

impl Peer {
    fn failed(&self, status: Status) -> RPCError<TypeConfig> {
        failed(PeerError::Call { member: self.to, address: String::new(), status })
    }

    async fn connect(&self) -> Result<(Raft, Party), Status> {
        let now = || executor::here().now();
        let (from, to) = (self.from, self.to);
        if !self.network.pass(from, to, now()).await || !self.network.pass(to, from, now()).await {
            return Err(Status::unavailable("no connection"));
        }
        self.network.running(to).ok_or_else(|| Status::unavailable("connection refused"))
    }

    /// Opens a stream that `serve` answers over there.
    async fn open<Q, A, F>(
        &self,
        requests: impl Stream<Item = Q> + Send + Unpin + 'static,
        serve: impl FnOnce(Raft, Asked<Q>, Tell) -> F,
    ) -> Result<impl Stream<Item = Result<A, Status>> + Send + Unpin + 'static, Status>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (raft, party) = self.connect().await?;
        let executor = executor::here();
        let (ask, asked) = self.network.wire(self.from, self.to);
        let (tell, told) = self.network.wire(self.to, self.from);
        // Whoever drops the answers has closed the stream.
        let (open, closed) = oneshot::channel::<()>();
        let sending = send(requests, ask, closed);
        executor.spawn_in(executor.running(), sending);
        executor.spawn_in(party, serve(raft, Box::new(received(asked)), Tell(tell)));
        Ok(received(told).map(move |answer| {
            let _: &oneshot::Sender<()> = &open;
            answer
        }))
    }

    async fn call<Q, A, F>(
        &self,
        request: Q,
        within: Duration,
        serve: impl FnOnce(Raft, Q) -> F + Send + 'static,
    ) -> Rpc<A>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
        F: Future<Output = Result<A, Status>> + Send + 'static,
    {
        let called = async {
            let one = stream::iter([request]);
            let serve = move |raft: Raft, mut asked: Asked<Q>, tell: Tell| async move {
                let answer = async {
                    let asked = asked.next().await.unwrap_or_else(|| Err(cancelled()))?;
                    serve(raft, asked).await
                };
                tell.all(stream::once(answer)).await;
            };
            let mut answers = Box::pin(self.open(one, serve).await?);
            answers.next().await.unwrap_or_else(|| Err(cancelled()))
        };
        let end = TypeConfig::timeout(within, called).await;
        end.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
            .map_err(|status| self.failed(status))
    }
}

fn cancelled() -> Status {
    Status::unavailable("the connection broke")
}

/// Sends what comes until somebody closes the stream.
async fn send<Q: Message>(
    mut requests: impl Stream<Item = Q> + Unpin,
    wire: mpsc::Sender<Stamped>,
    mut closed: oneshot::Receiver<()>,
) {
    while let Either::Left((Some(request), _)) = future::select(requests.next(), &mut closed).await
    {
        if wire.send(stamped(Ok(request.encode_to_vec()))).await.is_err() {
            return;
        }
    }
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
                Err(self.failed(Status::cancelled("the stream ended unanswered")))
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
            let timeout = self.answer_timeout;
            let opened = self.open(requests(input, &unanswered), |raft, asked, tell| async move {
                tell.all(raft.append(asked)).await;
            });
            let opened = TypeConfig::timeout(timeout, opened).await;
            let opened =
                opened.unwrap_or_else(|_| Err(Status::deadline_exceeded("no stream in time")));
            match opened {
                Ok(told) => {
                    let this: &'s Self = self;
                    let failed = move |status| this.failed(status);
                    Ok(answers(told, unanswered, timeout, failed).boxed())
                }
                Err(status) => {
                    TypeConfig::sleep(CONNECT_PAUSE).await;
                    Err(self.failed(status))
                }
            }
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        let serve = |raft: Raft, request| async move { raft.vote(request).await };
        let answer = self.call(wire::vote(rpc, false), option.hard_ttl(), serve).await?;
        wire::from_voted(answer).map_err(|error| self.failed(Status::data_loss(error.to_string())))
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        let serve = |raft: Raft, request| async move { raft.vote(request).await };
        let answer = self.call(wire::vote(rpc, true), option.hard_ttl(), serve).await?;
        wire::from_voted(answer).map_err(|error| self.failed(Status::data_loss(error.to_string())))
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let sent = async {
            let copy = match snapshot.snapshot {
                SnapshotData::Copied(copy) => copy,
                SnapshotData::Committed | SnapshotData::Received(_) => {
                    let at_least = snapshot.meta.last_log_id.map_or(0, |id| id.index);
                    let copied = self.snapshots.copies.get(at_least).await;
                    copied.map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))?
                }
            };
            let (pieces, ready) = copying::pieces();
            let from = self.from;
            let opened = self.open(ready, move |raft, asked, tell| async move {
                tell.all(raft.receive_copy(from, asked)).await;
            });
            let pace = self.snapshots.copies.pace();
            let sent = copying::feed(&copy, pace, vote, pieces, opened).await;
            sent.map(|vote| SnapshotResponse { vote }).map_err(|status| self.failed(status))
        };
        match future::select(std::pin::pin!(sent), std::pin::pin!(cancel)).await {
            Either::Left((sent, _)) => Ok(sent?),
            Either::Right((closed, _)) => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<openraft::raft::TransferLeaderResponse<TypeConfig>> {
        let serve = |raft: Raft, request| async move { raft.take_over(request).await };
        let answer = self.call(wire::transfer(&rpc), option.hard_ttl(), serve).await?;
        if answer.refusal.is_empty() {
            return Ok(Ok(()));
        }
        Err(self.failed(Status::failed_precondition(answer.refusal)))
    }
}
