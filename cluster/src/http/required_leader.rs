//! Calls whose client wants a leader (`hasleader`): refused while there is none, and ended once there has
//! been none for long. A stream of a member that is cut off would otherwise stay silent for ever.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http_body::Frame;
use revfs_api::status::NO_LEADER;
use tokio::sync::watch;
use tonic::Status;

use crate::leader_watch::Presence;

const HAS_LEADER: &str = "hasleader";

fn no_leader() -> Status {
    Status::unavailable(NO_LEADER)
}

pub(super) async fn require(
    presence: watch::Receiver<Presence>,
    request: Request,
    next: Next,
) -> Response {
    let is_required = request.headers().get(HAS_LEADER).is_some_and(|value| value == "true");
    if !is_required {
        return next.run(request).await;
    }
    if *presence.borrow() != Presence::Here {
        return no_leader().into_http();
    }
    let response = next.run(request).await;
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
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(lost) = &mut self.lost else { return Poll::Ready(None) };
        if lost.as_mut().poll(context).is_ready() {
            *self = Self { body: Body::empty(), lost: None };
            let mut trailers = HeaderMap::new();
            let added = no_leader().add_header(&mut trailers);
            return Poll::Ready(Some(
                added.map(|()| Frame::trailers(trailers)).map_err(axum::Error::new),
            ));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.lost.is_none() || self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::Method;
    use axum::{Router, middleware, routing};
    use futures_util::FutureExt as _;
    use tower::ServiceExt as _;

    use super::*;

    /// A service whose answer never ends, behind what is tested.
    fn endless(presence: &watch::Sender<Presence>) -> Router {
        let presence = presence.subscribe();
        let silent = || async {
            Body::from_stream(futures_util::stream::pending::<Result<Bytes, axum::Error>>())
        };
        Router::new().route("/stream", routing::post(silent)).layer(middleware::from_fn(
            move |request, next| require(presence.clone(), request, next),
        ))
    }

    async fn call(router: &Router, has_leader: Option<&str>) -> Response {
        let mut request = Request::builder().method(Method::POST).uri("/stream");
        if let Some(value) = has_leader {
            request = request.header(HAS_LEADER, value);
        }
        let request = request.body(Body::empty()).expect("a request");
        router.clone().oneshot(request).await.expect("it answers")
    }

    async fn end(body: &mut Body) -> Option<Status> {
        let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
        let frame = tokio::time::timeout(Duration::from_secs(60), frame).await.ok()??;
        Status::from_header_map(frame.expect("it goes on").trailers_ref()?)
    }

    #[tokio::test]
    async fn without_a_leader_only_who_wants_one_is_refused() {
        let presence = watch::Sender::new(Presence::Missing);
        let router = endless(&presence);
        let refused = call(&router, Some("true")).await;
        let status = Status::from_header_map(refused.headers()).expect("it is refused");
        assert_eq!((status.code(), status.message()), (tonic::Code::Unavailable, NO_LEADER));
        for value in [None, Some("false")] {
            assert!(Status::from_header_map(call(&router, value).await.headers()).is_none());
        }
        presence.send_replace(Presence::Here);
        assert!(Status::from_header_map(call(&router, Some("true")).await.headers()).is_none());
    }

    #[tokio::test]
    async fn a_stream_outlasts_an_election_and_ends_when_the_leader_is_lost() {
        let presence = watch::Sender::new(Presence::Here);
        let router = endless(&presence);
        let mut led = call(&router, Some("true")).await.into_body();
        let mut other = call(&router, None).await.into_body();
        presence.send_replace(Presence::Missing);
        assert!(end(&mut led).now_or_never().is_none(), "it goes on");
        presence.send_replace(Presence::Lost);
        let status = end(&mut led).await.expect("it ends");
        assert_eq!((status.code(), status.message()), (tonic::Code::Unavailable, NO_LEADER));
        assert!(led.is_end_stream());
        assert!(end(&mut other).now_or_never().is_none(), "who did not ask goes on");
    }
}
