//! HTTP beside gRPC, on the same listeners: etcd's JSON gateway, and the paths by which other programs
//! ask how the node is.
//!
//! The gateway calls the gRPC services in this process, as a client would: what they check, they check
//! for both. Which is meant is decided by the path; no path belongs to both.

mod answer;
mod gateway;

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tonic::Status;
use tonic::service::Routes;

use crate::grpc::{ETCD_VERSION, Limits};

/// The services `grpc` and all that is beside them.
pub(crate) fn beside(grpc: Routes, limits: &Limits) -> Routes {
    let grpc = grpc.prepare();
    let gateway = gateway::routes(&grpc, limits);
    let routes = grpc.into_axum_router().fallback(unknown);
    routes.merge(gateway).merge(about()).into()
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
