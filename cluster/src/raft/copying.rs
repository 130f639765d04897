//! Stores on their way between members: what openraft calls a snapshot.
//!
//! The sender offers its copy, the receiver says from which byte on it wants it, the pieces follow at the
//! sender's pace and the receiver's: it reads a piece when it has written the one before. Apply and the
//! appends go on beside it. What has come is kept when the connection breaks.

use std::time::Duration;

use futures_util::{Stream, StreamExt};
use openraft::async_runtime::WatchReceiver;
use openraft::type_config::TypeConfigExt;
use revfs_api::wire::peer as pb;
use revfs_api::wire::peer::snapshot_request::Part;
use revfs_api::wire::peer::snapshot_response::Step;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::core::Raft;
use super::payload::{from_position, to_log_id};
use super::state_machine::SnapshotData;
use super::type_config::{RaftVote, TypeConfig};
use super::wire;
use crate::peer::{Link, PeerError};
use crate::snapshot::{Copy, Incoming, Pace, Received};

type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;
type Answers = mpsc::Sender<Result<pb::SnapshotResponse, Status>>;

/// Pieces under way between the copy and the connection.
const PIECES_READY: usize = 2;

/// Without a piece, or room for one, for so long the connection is given up.
const STALLED: Duration = Duration::from_secs(30);

/// Within so long a receiver has checked and installed what it has.
const CHECKED: Duration = Duration::from_secs(600);

/// Sends a copy; returns the last ballot that the member knows of.
pub(super) async fn send(
    link: &Link,
    copy: &Copy,
    pace: Pace,
    vote: RaftVote,
) -> Result<RaftVote, PeerError> {
    let failed = |status| link.failed(status);
    let mut client = link.client().await?;
    let (pieces, ready) = pieces();
    let opened = client.snapshot(ready);
    let sent = feed(copy, pace, vote, pieces, async { Ok(opened.await?.into_inner()) });
    sent.await.map_err(failed)
}

/// What is on its way to a member, and whence the connection takes it.
pub(super) fn pieces() -> (mpsc::Sender<pb::SnapshotRequest>, ReceiverStream<pb::SnapshotRequest>) {
    let (pieces, ready) = mpsc::channel(PIECES_READY);
    (pieces, ReceiverStream::new(ready))
}

/// Sends a copy piece by piece, as the answers on the connection that is `opened` want it.
pub(super) async fn feed<A>(
    copy: &Copy,
    pace: Pace,
    vote: RaftVote,
    pieces: mpsc::Sender<pb::SnapshotRequest>,
    opened: impl Future<Output = Result<A, Status>> + Send,
) -> Result<RaftVote, Status>
where
    A: Stream<Item = Result<pb::SnapshotResponse, Status>> + Send + Unpin,
{
    let offer = offer(copy, vote).map_err(|error| Status::data_loss(error.to_string()))?;
    // There is room for the first one.
    pieces.send(offer).await.ok();
    let opened = TypeConfig::timeout(STALLED, opened).await.unwrap_or_else(|_| Err(stalled()));
    let mut answers = opened?;
    let begin = match next(&mut answers, STALLED).await? {
        Step::WantedFrom(at) => at,
        Step::End(ballot) => return end(ballot),
    };
    let mut at = begin;
    while at < copy.bytes {
        let data = copy.read(at).await;
        let data = data.map_err(|error| Status::data_loss(error.to_string()))?;
        let length = u64::try_from(data.len()).expect("a piece is small");
        let checksum = crc32c::crc32c(&data);
        let piece = Part::Piece(pb::CopyPiece { offset: at, data, checksum });
        let sending = pieces.send(pb::SnapshotRequest { part: Some(piece) });
        tokio::select! {
            // An answer says that no more is wanted.
            biased;
            answer = next(&mut answers, STALLED) => match answer? {
                Step::End(ballot) => return end(ballot),
                Step::WantedFrom(_) => return Err(Status::data_loss("an answer out of turn")),
            },
            // Who has closed the stream says why in its answer.
            sent = sending => if sent.is_err() { break },
        }
        at += length;
        TypeConfig::sleep(pace.wait_after(at - begin)).await;
    }
    match next(&mut answers, CHECKED).await? {
        Step::End(ballot) => end(ballot),
        Step::WantedFrom(_) => Err(Status::data_loss("an answer out of turn")),
    }
}

fn offer(copy: &Copy, vote: RaftVote) -> std::io::Result<pb::SnapshotRequest> {
    let (last, _) = from_position(&copy.position)?;
    let offer = pb::CopyOffer {
        ballot: Some(wire::ballot(vote)),
        last: last.map(wire::log_id),
        bytes: copy.bytes,
        sha256: bytes::Bytes::copy_from_slice(&copy.sha256),
    };
    Ok(pb::SnapshotRequest { part: Some(Part::Offer(offer)) })
}

fn stalled() -> Status {
    Status::deadline_exceeded("a copy of the store goes neither forth nor back")
}

fn end(ballot: pb::Ballot) -> Result<RaftVote, Status> {
    wire::from_ballot(Some(ballot)).map_err(|error| Status::data_loss(error.to_string()))
}

async fn next(
    answers: &mut (impl Stream<Item = Result<pb::SnapshotResponse, Status>> + Send + Unpin),
    patience: Duration,
) -> Result<Step, Status> {
    let answer = TypeConfig::timeout(patience, answers.next()).await.map_err(|_| stalled())?;
    let answer = answer.unwrap_or_else(|| Err(Status::cancelled("the stream ended")))?;
    answer.step.ok_or_else(|| Status::data_loss("an answer that says nothing"))
}

/// What is offered, as it was read.
struct Offer {
    vote: RaftVote,
    last: u64,
    bytes: u64,
    sha256: [u8; 32],
}

impl Offer {
    fn read(part: Option<Part>) -> Option<Self> {
        let Some(Part::Offer(offer)) = part else { return None };
        Some(Self {
            vote: wire::from_ballot(offer.ballot).ok()?,
            last: offer.last?.index,
            bytes: offer.bytes,
            sha256: offer.sha256.as_ref().try_into().ok()?,
        })
    }
}

impl Raft {
    pub(crate) fn copies_made(&self) -> u64 {
        self.snapshots.copies.made()
    }

    /// Receives a copy and goes on with it. It is a task of its own: what has begun is ended whoever
    /// still listens.
    pub(crate) fn receive_copy<S>(
        &self,
        from: u64,
        requests: S,
    ) -> impl Stream<Item = Result<pb::SnapshotResponse, Status>> + Send + 'static + use<S>
    where
        S: Stream<Item = Result<pb::SnapshotRequest, Status>> + Send + Unpin + 'static,
    {
        let (answers, ready) = mpsc::channel(PIECES_READY);
        let raft = self.clone();
        TypeConfig::spawn(async move {
            let end = match raft.receive(from, requests, &answers).await {
                Ok(vote) => Ok(step(Step::End(wire::ballot(vote)))),
                Err(status) => {
                    tracing::warn!(
                        from = format_args!("{from:x}"),
                        reason = status.message(),
                        "a copy of another member's store was not received to its end"
                    );
                    Err(status)
                }
            };
            answers.send(end).await.ok();
        });
        ReceiverStream::new(ready)
    }

    async fn receive(
        &self,
        from: u64,
        mut requests: impl Stream<Item = Result<pb::SnapshotRequest, Status>> + Send + Unpin,
        answers: &Answers,
    ) -> Result<RaftVote, Status> {
        let first = piece_or(requests.next()).await?;
        let offer = first.and_then(|request| Offer::read(request.part));
        let offer =
            offer.ok_or_else(|| Status::invalid_argument("a copy begins with its offer"))?;
        // Who was receiving one on a connection that broke gives it up as soon as it notices.
        let mut begun = self.snapshots.begun.lock().await;
        let known = self.inner.metrics().borrow_watched().vote;
        if known > offer.vote {
            return Ok(known);
        }
        if self.snapshots.store.applied().index >= offer.last {
            return Ok(offer.vote);
        }
        let incoming = match begun.take() {
            Some((sha256, incoming)) if sha256 == offer.sha256 => incoming,
            other => {
                drop(other);
                let (snapshots, bytes) = (std::sync::Arc::clone(&self.snapshots), offer.bytes);
                let room = blocking(move || snapshots.begin(bytes)).await?;
                room.map_err(|error| Status::resource_exhausted(error.to_string()))?
            }
        };
        let at = incoming.bytes();
        tracing::info!(from = format_args!("{from:x}"), at, bytes = offer.bytes, "a copy comes");
        answers.send(Ok(step(Step::WantedFrom(at)))).await.ok();
        let (incoming, came) = take_pieces(incoming, &mut requests, offer.bytes).await;
        if let Err(status) = came {
            *begun = incoming.map(|incoming| (offer.sha256, incoming));
            return Err(status);
        }
        let Some(incoming) = incoming else { return Err(Status::internal("nothing came")) };
        let received = blocking(move || incoming.finish()).await?;
        let received = received.map_err(|error| Status::data_loss(error.to_string()))?;
        self.go_on_with(received, offer.vote).await
    }

    async fn go_on_with(&self, received: Received, vote: RaftVote) -> Result<RaftVote, Status> {
        let position = from_position(&received.summary.position);
        let (last_log_id, last_membership) =
            position.map_err(|error| Status::data_loss(error.to_string()))?;
        if let Some(id) = last_log_id.map(to_log_id) {
            tracing::info!(%id, "a copy of another member's store is whole");
        }
        let meta = SnapshotMeta { last_log_id, last_membership };
        let snapshot = Snapshot { meta, snapshot: SnapshotData::Received(received) };
        let installed = self.inner.install_full_snapshot(vote, snapshot).await;
        let installed = installed.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(installed.vote)
    }
}

fn step(step: Step) -> pb::SnapshotResponse {
    pb::SnapshotResponse { step: Some(step) }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let done = super::runtime::blocking(work).await;
    done.map_err(|error| Status::internal(error.to_string()))
}

/// The next request; `None` at the end of the stream.
async fn piece_or(
    next: impl Future<Output = Option<Result<pb::SnapshotRequest, Status>>> + Send,
) -> Result<Option<pb::SnapshotRequest>, Status> {
    let next = TypeConfig::timeout(STALLED, next).await.map_err(|_| stalled())?;
    next.transpose()
}

/// Adds the pieces that come until `bytes` are there; what has come, and why no more did.
async fn take_pieces(
    mut incoming: Incoming,
    requests: &mut (impl Stream<Item = Result<pb::SnapshotRequest, Status>> + Send + Unpin),
    bytes: u64,
) -> (Option<Incoming>, Result<(), Status>) {
    while incoming.bytes() < bytes {
        let piece = match piece_or(requests.next()).await {
            Ok(Some(pb::SnapshotRequest { part: Some(Part::Piece(piece)) })) => piece,
            Ok(_) => return (Some(incoming), Err(Status::cancelled("the pieces ended early"))),
            Err(status) => return (Some(incoming), Err(status)),
        };
        let pb::CopyPiece { offset, data, checksum } = piece;
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        if offset != incoming.bytes() || length > bytes - offset || data.is_empty() {
            let reason = format!("{length} bytes at {offset} do not follow {}", incoming.bytes());
            return (Some(incoming), Err(Status::data_loss(reason)));
        }
        if crc32c::crc32c(&data) != checksum {
            let reason = format!("the piece at {offset} has another checksum");
            return (Some(incoming), Err(Status::data_loss(reason)));
        }
        let added = blocking(move || {
            let added = incoming.add(&data);
            (incoming, added)
        });
        match added.await {
            Ok((back, Ok(()))) => incoming = back,
            Ok((back, Err(error))) => {
                let status = Status::resource_exhausted(format!("a copy is written: {error}"));
                return (Some(back), Err(status));
            }
            Err(status) => return (None, Err(status)),
        }
    }
    (Some(incoming), Ok(()))
}

#[cfg(test)]
mod tests;
