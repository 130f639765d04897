//! HTTP beside gRPC, on the same listeners: etcd's JSON gateway, and the paths by which other programs
//! ask how the node is.
//!
//! What a request is decides where it goes: gRPC to the services ([`calls`]), everything else to the pages.
//! The gateway, one of them, calls the services in this process, as a client would: what they check, they
//! check for both.

mod access;
mod answer;
mod calls;
mod gateway;
mod health;
mod metered;
mod metrics;
mod required_leader;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::http::{self, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::future::RouteFuture;
use axum::routing::get;
use axum::{Router, middleware};
use futures_util::TryFutureExt as _;
use futures_util::future::{Either, MapOk};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

pub use self::access::{Access, Names};
pub(crate) use self::calls::Services;
use self::calls::{Answering, Calls};
use self::metrics::Metrics;
use crate::grpc::{ETCD_VERSION, Limits};
use crate::local::Local;

/// All that is served: to clients, and to those who only look how the node is.
pub(crate) struct Sites {
    pub(crate) clients: Site,
    pub(crate) lookers: Site,
}

/// What one listener serves.
#[derive(Clone)]
pub(crate) struct Site {
    calls: Option<Calls>,
    pages: Router,
}

impl Service<http::Request<Body>> for Site {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Either<Answering, MapOk<RouteFuture<Infallible>, fn(Response) -> Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Both are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match &mut self.calls {
            Some(calls) if access::is_grpc(&request) => Either::Left(calls.call(request)),
            _ => Either::Right(self.pages.call(request).map_ok(|page| page.map(Body::new))),
        }
    }
}

/// The services and all that is beside them; `node` is whose services they are, if a node's.
pub(crate) fn beside(
    services: Services,
    node: Option<Arc<Local>>,
    limits: &Limits,
    access: &Access,
) -> Sites {
    let meters = node.as_ref().map(|node| node.node.proposer.meters.as_ref());
    let metrics = Arc::new(Metrics::new(meters));
    let presence = node.as_ref().map(|node| node.node.presence.clone());
    let calls = Calls::new(services, Arc::clone(&metrics), presence);
    let gateway = gateway::routes(&calls, limits);
    let mut lookers = about(node.clone());
    let (access, asked) = (Arc::new(access.clone()), node.clone());
    if let Some(node) = node {
        lookers =
            lookers.merge(health::routes(&node, &metrics)).merge(metrics::routes(node, metrics));
    }
    let pages = gateway.merge(lookers.clone()).fallback(unknown);
    let pages = pages.layer(middleware::from_fn(move |request, next| {
        access::control(Arc::clone(&access), asked.clone(), request, next)
    }));
    Sites {
        // With its state given a router is ready for its requests.
        clients: Site { calls: Some(calls), pages: pages.with_state(()) },
        lookers: Site { calls: None, pages: lookers.fallback(unknown).with_state(()) },
    }
}

fn about(node: Option<Arc<Local>>) -> Router {
    Router::new().route("/version", get(move || std::future::ready(version(node.as_deref()))))
}

/// etcd's names: clients choose by them what they may ask. Beside them what all members of this cluster
/// speak, which tells an operator how far an upgrade has come.
fn version(node: Option<&Local>) -> Response {
    let cluster = node.and_then(|node| node.view().ok()?.cluster_version().ok());
    let body = serde_json::json!({
        "etcdserver": ETCD_VERSION,
        "etcdcluster": ETCD_VERSION,
        "storage": ETCD_VERSION,
        "revfs": env!("CARGO_PKG_VERSION"),
        "revfscluster": cluster,
    });
    answer::json(StatusCode::OK, &body)
}

/// A path that nobody serves: a gRPC client is told in its way.
async fn unknown(request: Request) -> Response {
    if access::is_grpc(&request) {
        return Status::unimplemented("").into_http();
    }
    if request.uri().path().starts_with("/v3/") {
        return answer::refusal(&Status::not_found("Not Found"));
    }
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}
