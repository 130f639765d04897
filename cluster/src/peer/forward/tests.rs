//! A line to a leader that does what a test says: what the caller is told, and that nothing is sent twice. Answers
//! are lost, come twice, come late and come before the change does.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{Stream, StreamExt as _};
use revfs_api::client::Settings;
use revfs_api::wire::peer as pb;
use revfs_api::wire::peer::peer_server::{Peer, PeerServer};
use revfs_store::Done;
use revfs_store::types::Revision;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::data_dir::Identity;
use crate::peer::{Met, Peers};

/// What the leader does with the first change that comes.
#[derive(Clone, Debug)]
enum Script {
    /// It takes no changes at all.
    RefuseStream,
    /// The stream ends before the change was appended, or after; then the entry may come here or not.
    CloseStream {
        comes: bool,
    },
    /// The stream breaks.
    Break,
    Tell(Told),
    /// The change is applied, and that is told; it has come here before, or never does.
    Apply {
        comes: bool,
    },
    /// The same, and everything comes and is told twice.
    ApplyTwice,
    /// The change comes here, and its answer is lost.
    LoseAnswer,
    /// The store of this member is replaced by another one's under the change.
    Install,
    Silence,
}

struct Leader {
    script: Script,
    seen: Arc<AtomicUsize>,
    waiting: Arc<Waiting>,
}

fn identity(member: u64) -> Identity {
    Identity { cluster: 7, member, instance: u128::from(member) }
}

fn outcome() -> Outcome {
    Outcome { revision: Revision(9), result: Ok(Done::Compacted) }
}

type Answer<T> = Result<Response<T>, Status>;
type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn none<T>() -> Answer<T> {
    Err(Status::unimplemented("not in this test"))
}

impl Leader {
    async fn act(&self, number: u64) -> Boxed<pb::ProposeResponse> {
        let end = |end| pb::ProposalEnd { number, end: Some(end) };
        let told = |told| Ok(pb::ProposeResponse { ends: vec![end(told)] });
        // As apply of this member would.
        let applied = || self.waiting.applied(NonZeroU64::new(number).unwrap(), &outcome());
        let place = pb::LogId { term: 1, index: 5 };
        let answers = match &self.script {
            Script::RefuseStream => unreachable!("it was refused"),
            Script::CloseStream { comes } => {
                if *comes {
                    applied();
                }
                Vec::new()
            }
            Script::Break => vec![Err(Status::unavailable("broken"))],
            Script::Tell(end) => vec![told(end.clone())],
            Script::Apply { comes } => {
                if *comes {
                    applied();
                }
                vec![told(Told::Applied(place))]
            }
            Script::ApplyTwice => {
                applied();
                applied();
                vec![told(Told::Applied(place)), told(Told::Applied(place))]
            }
            Script::LoseAnswer => {
                applied();
                Vec::new()
            }
            Script::Install => {
                self.waiting.installed();
                Vec::new()
            }
            Script::Silence => Vec::new(),
        };
        let answers = futures_util::stream::iter(answers);
        match self.script {
            Script::CloseStream { .. } | Script::Break => Box::pin(answers),
            _ => Box::pin(answers.chain(futures_util::stream::pending())),
        }
    }
}

#[tonic::async_trait]
impl Peer for Leader {
    async fn introduce(&self, _: Request<pb::IntroduceRequest>) -> Answer<pb::IntroduceResponse> {
        Ok(Response::new(pb::IntroduceResponse {
            cluster: 7,
            member: 2,
            instance: identity(2).instance.to_be_bytes().to_vec().into(),
            ..Default::default()
        }))
    }

    type ProposeStream = Boxed<pb::ProposeResponse>;

    async fn propose(
        &self,
        request: Request<Streaming<pb::ProposeRequest>>,
    ) -> Answer<Self::ProposeStream> {
        if matches!(self.script, Script::RefuseStream) {
            return Err(Status::failed_precondition("no changes here"));
        }
        let mut batches = request.into_inner();
        let this = Self {
            script: self.script.clone(),
            seen: Arc::clone(&self.seen),
            waiting: Arc::clone(&self.waiting),
        };
        let answers = futures_util::stream::once(async move {
            let batch = batches.next().await.unwrap().unwrap();
            this.seen.fetch_add(batch.proposals.len(), Ordering::SeqCst);
            this.act(batch.proposals[0].number).await
        });
        Ok(Response::new(Box::pin(answers.flatten())))
    }

    type AppendStream = Boxed<pb::AppendResponse>;
    async fn append(&self, _: Request<Streaming<pb::AppendRequest>>) -> Answer<Self::AppendStream> {
        none()
    }
    type SnapshotStream = Boxed<pb::SnapshotResponse>;
    async fn snapshot(
        &self,
        _: Request<Streaming<pb::SnapshotRequest>>,
    ) -> Answer<Self::SnapshotStream> {
        none()
    }
    async fn vote(&self, _: Request<pb::VoteRequest>) -> Answer<pb::VoteResponse> {
        none()
    }
    async fn transfer_leader(
        &self,
        _: Request<pb::TransferLeaderRequest>,
    ) -> Answer<pb::TransferLeaderResponse> {
        none()
    }
    async fn read_index(&self, _: Request<pb::ReadIndexRequest>) -> Answer<pb::ReadIndexResponse> {
        none()
    }
    async fn lease(&self, _: Request<pb::LeaseRequest>) -> Answer<pb::LeaseResponse> {
        none()
    }
    async fn members(&self, _: Request<pb::MembersRequest>) -> Answer<pb::MembersResponse> {
        none()
    }
    async fn hash(&self, _: Request<pb::HashRequest>) -> Answer<pb::HashResponse> {
        none()
    }
}

async fn listen(leader: Leader) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let served = Server::builder()
        .add_service(PeerServer::new(leader))
        .serve_with_incoming(TcpListenerStream::new(socket));
    tokio::spawn(served);
    address
}

/// What the caller is told, and how many changes the leader has seen.
async fn forward(script: Script) -> (End, usize) {
    forward_within(script, Duration::from_secs(60)).await
}

async fn forward_within(script: Script, timeout: Duration) -> (End, usize) {
    let (waiting, seen) = (Arc::new(Waiting::default()), Arc::default());
    let leader = Leader { script, seen: Arc::clone(&seen), waiting: Arc::clone(&waiting) };
    let address = listen(leader).await;
    let met = Arc::new(Met::default());
    let peers = Peers::new(identity(1), Settings::default(), met);
    let link = peers.link(2, &format!("http://{address}"));
    let forwarder = Forwarder::new(waiting, Duration::from_millis(200));
    let deadline = Instant::now() + timeout;
    let end = forwarder.forward(&link, Bytes::from_static(b"change"), deadline).await;
    (end, seen.load(Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_was_never_open_carried_nothing() {
    assert_eq!(forward(Script::RefuseStream).await, (End::NotLeader { leader: None }, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_on_a_line_that_broke_is_unknown_unless_it_comes_in_the_log() {
    for script in [Script::CloseStream { comes: false }, Script::Break] {
        let (end, seen) = forward(script.clone()).await;
        let End::Unknown { reason } = end else { panic!("{script:?}: {end:?}") };
        assert!(reason.contains("the connection to member 2 was lost"), "{reason}");
        assert_eq!(seen, 1, "{script:?}: it was not sent again");
    }
    let end = forward(Script::CloseStream { comes: true }).await;
    assert_eq!(end, (End::Applied(outcome()), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_leader_says_counts_where_nothing_was_applied() {
    let told = [
        (Told::NotLeader(3), End::NotLeader { leader: Some(3) }),
        (Told::NotLeader(0), End::NotLeader { leader: None }),
        (Told::Refused("full".to_owned()), End::Refused { reason: "full".to_owned() }),
        (Told::Unknown("lost".to_owned()), End::Unknown { reason: "lost".to_owned() }),
    ];
    for (told, expected) in told {
        assert_eq!(forward(Script::Tell(told)).await, (expected, 1));
    }
    assert_eq!(forward(Script::Apply { comes: true }).await, (End::Applied(outcome()), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_in_the_log_is_the_answer_whatever_becomes_of_the_leaders() {
    for script in [Script::LoseAnswer, Script::ApplyTwice] {
        assert_eq!(forward(script.clone()).await, (End::Applied(outcome()), 1), "{script:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_answered_or_does_not_come_in_time_is_unknown() {
    const TIMEOUT: Duration = Duration::from_secs(4);
    let unknown = |reason: &str| (End::Unknown { reason: reason.to_owned() }, 1);
    let (applied, silence) = tokio::join!(
        forward_within(Script::Apply { comes: false }, TIMEOUT),
        forward_within(Script::Silence, TIMEOUT),
    );
    assert_eq!(applied, unknown("this member is behind the leader"));
    assert_eq!(silence, unknown("no answer in time"));
    assert_eq!(forward(Script::Install).await, unknown("apply has forgotten the change"));
}

fn item(number: u64, bytes: usize) -> Item {
    let (end, _) = oneshot::channel();
    Item { proposal: Proposal { number, command: Bytes::from(vec![0; bytes]) }, end }
}

#[test]
fn messages_are_bounded_in_bytes_and_keep_the_order() {
    let mut gathered =
        vec![item(1, 10), item(2, BATCH_BYTES), item(3, BATCH_BYTES - 5), item(4, 5), item(5, 1)];
    let mut sent = HashMap::new();
    let batches = batches_of(&mut gathered, &mut sent);
    let numbers: Vec<Vec<u64>> = batches
        .iter()
        .map(|batch| batch.proposals.iter().map(|proposal| proposal.number).collect())
        .collect();
    assert_eq!(numbers, [vec![1], vec![2], vec![3, 4], vec![5]]);
    assert_eq!(sent.len(), 5);
    assert!(gathered.is_empty());
}

#[tokio::test]
async fn apply_answers_whoever_waits_and_nobody_else() {
    let waiting = Arc::new(Waiting::default());
    let (one, other) = (NonZeroU64::new(1).unwrap(), NonZeroU64::new(2).unwrap());
    let outcome = Outcome { revision: Revision(5), result: Ok(Done::Compacted) };
    let (registered, answer) = waiting.register(one);
    waiting.applied(other, &outcome);
    waiting.applied(one, &outcome);
    assert_eq!(answer.await.unwrap(), outcome);
    drop(registered);
    let (registered, _answer) = waiting.register(other);
    drop(registered);
    assert!(waiting.0.lock().is_empty(), "who has lost patience is forgotten");
}
