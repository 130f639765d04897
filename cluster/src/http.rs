//! HTTP beside gRPC, on the same listeners: etcd's JSON gateway, and the paths by which other programs
//! ask how the node is.
//!
//! The gateway calls the gRPC services in this process, as a client would: what they check, they check
//! for both. Which is meant is decided by the path; no path belongs to both.

mod answer;
mod gateway;
mod health;
mod metered;
mod metrics;

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use tonic::Status;
use tonic::service::Routes;

use self::metrics::Metrics;
use crate::grpc::{ETCD_VERSION, Limits};
use crate::local::Local;

/// All that is served: to clients, and to those who only look how the node is.
pub(crate) struct Sites {
    pub(crate) clients: Routes,
    pub(crate) lookers: Routes,
}

/// The services `grpc` and all that is beside them; `node` is whose services they are, if a node's.
pub(crate) fn beside(grpc: Routes, node: Option<Arc<Local>>, limits: &Limits) -> Sites {
    let metrics = Arc::new(Metrics::new());
    let calls = Arc::clone(&metrics);
    let grpc = grpc.into_axum_router().layer(middleware::from_fn(move |request, next| {
        metered::count(Arc::clone(&calls), request, next)
    }));
    let grpc = Routes::from(grpc).prepare();
    let gateway = gateway::routes(&grpc, limits);
    let mut lookers = about();
    if let Some(node) = node {
        lookers =
            lookers.merge(health::routes(&node, &metrics)).merge(metrics::routes(node, metrics));
    }
    let clients = grpc.into_axum_router().fallback(unknown).merge(gateway).merge(lookers.clone());
    Sites { clients: clients.into(), lookers: lookers.fallback(unknown).into() }
}

fn about() -> Router {
    Router::new().route("/version", get(version))
}

/// etcd's names: clients choose by them what they may ask.
async fn version() -> Response {
    let body = serde_json::json!({
        "etcdserver": ETCD_VERSION,
        "etcdcluster": ETCD_VERSION,
        "storage": ETCD_VERSION,
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
