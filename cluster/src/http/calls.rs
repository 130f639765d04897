//! The gRPC services, by their names, as one. Every call is counted ([`metered`]) and, where its client
//! asks for that, bound to a leader ([`required_leader`]). Most of what a node does are calls, so they take
//! the short way: no router, no layer, and one allocation for the service's own answer.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::http::{Request, Response};
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use super::metered::{self, Call};
use super::metrics::Metrics;
use super::required_leader;
use crate::leader_watch::Presence;

/// The answer of a service that tonic has generated.
type Served = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

trait Serves: Send + Sync {
    fn serve(&self, request: Request<Body>) -> Served;
}

impl<S> Serves for S
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = Served>,
    S: Clone + Send + Sync,
{
    fn serve(&self, request: Request<Body>) -> Served {
        self.clone().call(request)
    }
}

/// Which services there are.
#[derive(Default)]
pub(crate) struct Services {
    by_name: HashMap<&'static str, Box<dyn Serves>>,
}

impl Services {
    #[must_use]
    pub(crate) fn with<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = Served>,
        S: NamedService + Clone + Send + Sync + 'static,
    {
        self.by_name.insert(S::NAME, Box::new(service));
        self
    }

    /// The service of a path, `/SERVICE/METHOD`.
    fn of(&self, path: &str) -> Option<&dyn Serves> {
        let (name, _) = path.strip_prefix('/')?.split_once('/')?;
        self.by_name.get(name).map(Box::as_ref)
    }
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Calls {
    services: Arc<Services>,
    metrics: Arc<Metrics>,
    /// `None`: there is no leader that could be asked for.
    presence: Option<watch::Receiver<Presence>>,
}

impl Calls {
    pub(super) fn new(
        services: Services,
        metrics: Arc<Metrics>,
        presence: Option<watch::Receiver<Presence>>,
    ) -> Self {
        Self { services: Arc::new(services), metrics, presence }
    }
}

impl Service<Request<Body>> for Calls {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Answering {
        let path = request.uri().path();
        let Some(service) = self.services.of(path) else {
            return Answering::at_once(Status::unimplemented(""), None);
        };
        let (request, call) = match self.metrics.method(path).cloned() {
            Some(method) => {
                let (request, call) = metered::begin(&self.metrics, method, request);
                (request, Some(call))
            }
            None => (request, None),
        };
        let led = match &self.presence {
            Some(presence) if required_leader::is_required(&request) => {
                if *presence.borrow() != Presence::Here {
                    return Answering::at_once(required_leader::no_leader(), call);
                }
                Some(presence.clone())
            }
            _ => None,
        };
        Answering { served: service.serve(request), led, call }
    }
}

/// A call that is being answered.
pub(crate) struct Answering {
    served: Served,
    led: Option<watch::Receiver<Presence>>,
    call: Option<Call>,
}

impl Answering {
    fn at_once(status: Status, call: Option<Call>) -> Self {
        let response = status.into_http();
        Self { served: Box::pin(std::future::ready(Ok(response))), led: None, call }
    }
}

impl Future for Answering {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(mut response) = ready!(self.served.as_mut().poll(context));
        if let Some(presence) = self.led.take() {
            response = required_leader::bind(presence, response);
        }
        if let Some(call) = self.call.take() {
            response = metered::end(call, response);
        }
        Poll::Ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use http_body::{Body as HttpBody, Frame};
    use revfs_api::status::NO_LEADER;
    use tower::ServiceExt as _;

    use super::*;

    /// A service whose answers never end.
    #[derive(Clone)]
    struct Endless;

    impl NamedService for Endless {
        const NAME: &'static str = "test.Endless";
    }

    struct Silence;

    impl HttpBody for Silence {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Pending
        }
    }

    impl Service<Request<Body>> for Endless {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Served;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Served {
            Box::pin(std::future::ready(Ok(Response::new(Body::new(Silence)))))
        }
    }

    fn calls(presence: &watch::Sender<Presence>) -> Calls {
        let services = Services::default().with(Endless);
        Calls::new(services, Arc::new(Metrics::new(None)), Some(presence.subscribe()))
    }

    async fn call(calls: &Calls, path: &str, has_leader: Option<&str>) -> Response<Body> {
        let mut request = Request::builder().uri(path);
        if let Some(value) = has_leader {
            request = request.header("hasleader", value);
        }
        let request = request.body(Body::empty()).expect("a request");
        let Ok(response) = calls.clone().oneshot(request).await;
        response
    }

    async fn end(body: &mut Body) -> Option<Status> {
        let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context));
        let frame = tokio::time::timeout(Duration::from_secs(60), frame).await.ok()??;
        Status::from_header_map(frame.expect("it goes on").trailers_ref()?)
    }

    #[tokio::test]
    async fn what_is_no_service_is_not_implemented() {
        let calls = calls(&watch::Sender::new(Presence::Here));
        for path in ["/", "/test.Endless", "/test.Other/Call"] {
            let response = call(&calls, path, None).await;
            let status = Status::from_header_map(response.headers()).expect("it is refused");
            assert_eq!(status.code(), tonic::Code::Unimplemented, "{path}");
        }
        let served = call(&calls, "/test.Endless/Call", None).await;
        assert!(Status::from_header_map(served.headers()).is_none());
    }

    #[tokio::test]
    async fn without_a_leader_only_who_wants_one_is_refused() {
        let presence = watch::Sender::new(Presence::Missing);
        let calls = calls(&presence);
        let call = |value| call(&calls, "/test.Endless/Call", value);
        let refused = call(Some("true")).await;
        let status = Status::from_header_map(refused.headers()).expect("it is refused");
        assert_eq!((status.code(), status.message()), (tonic::Code::Unavailable, NO_LEADER));
        for value in [None, Some("false")] {
            assert!(Status::from_header_map(call(value).await.headers()).is_none());
        }
        presence.send_replace(Presence::Here);
        assert!(Status::from_header_map(call(Some("true")).await.headers()).is_none());
    }

    #[tokio::test]
    async fn a_stream_outlasts_an_election_and_ends_when_the_leader_is_lost() {
        let presence = watch::Sender::new(Presence::Here);
        let calls = calls(&presence);
        let mut led = call(&calls, "/test.Endless/Call", Some("true")).await.into_body();
        let mut other = call(&calls, "/test.Endless/Call", None).await.into_body();
        presence.send_replace(Presence::Missing);
        assert!(end(&mut led).now_or_never().is_none(), "it goes on");
        presence.send_replace(Presence::Lost);
        let status = end(&mut led).await.expect("it ends");
        assert_eq!((status.code(), status.message()), (tonic::Code::Unavailable, NO_LEADER));
        assert!(led.is_end_stream());
        assert!(end(&mut other).now_or_never().is_none(), "who did not ask goes on");
    }
}
