//! Calls whose client wants a leader (`hasleader`): refused while there is none, and ended once there has
//! been none for long. A stream of a member that is cut off would otherwise stay silent for ever.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use revfs_api::status::NO_LEADER;
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;

use crate::leader_watch::Presence;

const HAS_LEADER: &str = "hasleader";

pub(super) fn no_leader() -> Status {
    Status::unavailable(NO_LEADER)
}

pub(super) fn is_required(request: &Request<Body>) -> bool {
    request.headers().get(HAS_LEADER).is_some_and(|value| value == "true")
}

/// Makes an answer end when the leader is lost.
pub(super) fn bind(
    presence: watch::Receiver<Presence>,
    response: Response<Body>,
) -> Response<Body> {
    let lost = Box::pin(lost(presence));
    response.map(|body| Body::new(Led { body, lost: Some(lost) }))
}

/// Waits until the leader is lost, if it ever is.
async fn lost(mut presence: watch::Receiver<Presence>) {
    let lost = presence.wait_for(|&presence| presence == Presence::Lost).await.map(drop);
    if lost.is_err() {
        // The node ends: its streams are told so.
        std::future::pending::<()>().await;
    }
}

/// An answer that goes on as long as there is a leader.
struct Led {
    body: Body,
    /// `None`: it has ended.
    lost: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl HttpBody for Led {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(lost) = &mut self.lost else { return Poll::Ready(None) };
        if lost.as_mut().poll(context).is_ready() {
            *self = Self { body: Body::empty(), lost: None };
            let mut trailers = HeaderMap::new();
            let added = no_leader().add_header(&mut trailers);
            return Poll::Ready(Some(added.map(|()| Frame::trailers(trailers))));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.lost.is_none() || self.body.is_end_stream()
    }
}
