//! HTTP beside gRPC, on the same listeners: etcd's JSON gateway, and the paths by which other programs
//! ask how the node is.
//!
//! The gateway calls the gRPC services in this process, as a client would: what they check, they check
//! for both. Which is meant is decided by the path; no path belongs to both.

mod access;
mod answer;
mod gateway;
mod health;
mod metered;
mod metrics;
mod required_leader;

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use tonic::Status;
use tonic::service::Routes;

pub use self::access::{Access, Names};
use self::metrics::Metrics;
use crate::grpc::{ETCD_VERSION, Limits};
use crate::local::Local;

/// All that is served: to clients, and to those who only look how the node is.
pub(crate) struct Sites {
    pub(crate) clients: Routes,
    pub(crate) lookers: Routes,
}

/// The services `grpc` and all that is beside them; `node` is whose services they are, if a node's.
pub(crate) fn beside(
    grpc: Routes,
    node: Option<Arc<Local>>,
    limits: &Limits,
    access: &Access,
) -> Sites {
    let meters = node.as_ref().map(|node| node.node.proposer.meters.as_ref());
    let metrics = Arc::new(Metrics::new(meters));
    let calls = Arc::clone(&metrics);
    let mut grpc = grpc.into_axum_router();
    if let Some(node) = &node {
        let presence = node.node.presence.clone();
        grpc = grpc.layer(middleware::from_fn(move |request, next| {
            required_leader::require(presence.clone(), request, next)
        }));
    }
    let grpc = grpc.layer(middleware::from_fn(move |request, next| {
        metered::count(Arc::clone(&calls), request, next)
    }));
    let grpc = Routes::from(grpc).prepare();
    let gateway = gateway::routes(&grpc, limits);
    let mut lookers = about(node.clone());
    let (access, asked) = (Arc::new(access.clone()), node.clone());
    if let Some(node) = node {
        lookers =
            lookers.merge(health::routes(&node, &metrics)).merge(metrics::routes(node, metrics));
    }
    let clients = grpc.into_axum_router().fallback(unknown).merge(gateway).merge(lookers.clone());
    let clients = clients.layer(middleware::from_fn(move |request, next| {
        access::control(Arc::clone(&access), asked.clone(), request, next)
    }));
    Sites { clients: clients.into(), lookers: lookers.fallback(unknown).into() }
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
    let kind = request.headers().get(header::CONTENT_TYPE);
    let is_grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        return Status::unimplemented("").into_http();
    }
    if request.uri().path().starts_with("/v3/") {
        return answer::refusal(&Status::not_found("Not Found"));
    }
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}
