//! What replication answers to other members.

use futures_util::{Stream, StreamExt};
use revfs_api::wire::peer as pb;
use tonic::Status;

use super::core::Raft;
use super::wire;

/// Replication has ended here: another member may be asked.
fn ended(error: &impl std::fmt::Display) -> Status {
    Status::unavailable(format!("replication has stopped on this member: {error}"))
}

#[expect(clippy::needless_pass_by_value, reason = "it is given to map_err")]
fn malformed(error: std::io::Error) -> Status {
    Status::invalid_argument(error.to_string())
}

impl Raft {
    /// Appends what comes, and answers in order. What cannot be read ends the stream.
    pub(crate) fn append<S>(
        &self,
        requests: S,
    ) -> impl Stream<Item = Result<pb::AppendResponse, Status>> + Send + 'static
    where
        S: Stream<Item = Result<pb::AppendRequest, Status>> + Send + Unpin + 'static,
    {
        let requests = requests.scan((), |(), request| {
            let request = request.and_then(|request| wire::from_append(request).map_err(malformed));
            std::future::ready(
                request
                    .inspect_err(|status| {
                        // A leader that goes away closes its streams.
                        tracing::debug!(%status, "a stream of appends has ended");
                    })
                    .ok(),
            )
        });
        self.inner.stream_append(requests).map(|end| match end {
            Ok(end) => Ok(wire::appended(end)),
            Err(error) => Err(ended(&error)),
        })
    }

    pub(crate) async fn vote(&self, request: pb::VoteRequest) -> Result<pb::VoteResponse, Status> {
        let vote = wire::from_vote(&request).map_err(malformed)?;
        let answer = if request.is_pre_vote {
            self.inner.pre_vote(vote).await
        } else {
            self.inner.vote(vote).await
        };
        answer.map(|answer| wire::voted(&answer)).map_err(|error| ended(&error))
    }

    pub(crate) async fn take_over(
        &self,
        request: pb::TransferLeaderRequest,
    ) -> Result<pb::TransferLeaderResponse, Status> {
        let request = wire::from_transfer(request).map_err(malformed)?;
        let taken = self.inner.handle_transfer_leader(request).await;
        let refusal = match taken.map_err(|error| ended(&error))? {
            Ok(()) => String::new(),
            Err(refusal) => refusal.to_string(),
        };
        Ok(pb::TransferLeaderResponse { refusal })
    }
}
