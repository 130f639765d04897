//! `/metrics`, for Prometheus: etcd's names where the meaning is etcd's, so that its dashboards work, and
//! names with `revfs_` for what is ours.
//!
//! Calls are counted as they come ([`super::metered`]), what the node does as it does it
//! ([`crate::meters`]); how the node is ([`now`]) is asked when it is looked at.

mod calls;
mod now;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use revfs_api::KeySpace;
use revfs_api::keyspace;

use crate::local::Local;
use crate::meters::Meters;

use self::calls::Calls;
pub(super) use self::calls::Method;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;

/// What is counted as it happens.
pub(super) struct Metrics {
    registry: Registry,
    calls: Calls,
    pub(super) received_bytes: Counter,
    pub(super) sent_bytes: Counter,
    healthy: Gauge,
    unhealthy: Gauge,
}

impl Metrics {
    /// `meters` are those of the node whose services they are, if a node's.
    pub(super) fn new(meters: Option<&Meters>) -> Self {
        let mut registry = Registry::default();
        let calls = Calls::new(&mut registry);
        let (received_bytes, sent_bytes) = (Counter::default(), Counter::default());
        let bytes = "Bytes of gRPC messages";
        registry.register("etcd_network_client_grpc_received_bytes", bytes, received_bytes.clone());
        registry.register("etcd_network_client_grpc_sent_bytes", bytes, sent_bytes.clone());
        // Gauges, because counters of this format end in _total, and etcd's do not.
        let (healthy, unhealthy) = (Gauge::default(), Gauge::default());
        registry.register("etcd_server_health_success", "Checks that ended well", healthy.clone());
        registry.register("etcd_server_health_failures", "Checks that did not", unhealthy.clone());
        if let Some(meters) = meters {
            of_node(&mut registry, meters);
        }
        Self { registry, calls, received_bytes, sent_bytes, healthy, unhealthy }
    }

    pub(super) fn health_checked(&self, is_healthy: bool) {
        if is_healthy {
            self.healthy.inc()
        } else {
            self.unhealthy.inc()
        };
    }

    /// The method that a path calls, if it is one: who calls paths that are none makes no rows here.
    pub(super) fn method(&self, path: &str) -> Option<&Arc<Method>> {
        self.calls.method(path)
    }
}

/// What a node counts. The format adds `_total` to the name of a counter.
fn of_node(registry: &mut Registry, meters: &Meters) {
    for (name, help, counter) in [
        ("etcd_mvcc_put", "Keys put, appended to too", &meters.puts),
        ("etcd_mvcc_delete", "Deletions of keys and ranges", &meters.deletes),
        ("etcd_mvcc_range", "Ranges read", &meters.ranges),
        ("etcd_mvcc_txn", "Transactions of several operations", &meters.txns),
        ("etcd_debugging_mvcc_events", "Events sent to watches", &meters.watch_events),
        ("etcd_server_slow_apply", "Entries that took over 100 ms", &meters.slow_applies),
        ("etcd_server_proposals_failed", "Changes without an outcome", &meters.proposals_failed),
        ("etcd_server_leader_changes_seen", "Leaders seen to begin", &meters.leader_changes),
        ("etcd_server_read_indexes_failed", "No quorum for a read", &meters.read_indexes_failed),
        ("etcd_server_slow_read_indexes", "Over 500 ms to a quorum", &meters.read_indexes_slow),
        ("etcd_debugging_lease_granted", "Leases granted", &meters.leases_granted),
        ("etcd_debugging_lease_revoked", "Leases revoked", &meters.leases_revoked),
        ("etcd_debugging_server_lease_expired", "Leases that ended", &meters.leases_expired),
        ("etcd_debugging_lease_renewed", "Leases kept alive here", &meters.leases_renewed),
    ] {
        registry.register(name, help, counter.clone());
    }
    for (name, help, gauge) in [
        ("etcd_server_proposals_pending", "Changes on their way", &meters.proposals_pending),
        (
            "etcd_debugging_mvcc_watch_stream_total",
            "Open streams of watches",
            &meters.watch_streams,
        ),
    ] {
        registry.register(name, help, gauge.clone());
    }
}

pub(super) fn routes(node: Arc<Local>, metrics: Arc<Metrics>) -> Router {
    Router::new().route(
        "/metrics",
        get(async move || match text(&metrics, &node).await {
            Ok(text) => {
                let kind = [(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE))];
                (kind, text).into_response()
            }
            Err(error) => failed(&error),
        }),
    )
}

fn failed(error: &dyn std::error::Error) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
}

async fn text(metrics: &Metrics, node: &Local) -> Result<String, keyspace::Error> {
    let now = now::of(node, &node.status().await?)?;
    let mut text = String::new();
    encode_registry(&mut text, &metrics.registry)
        .and_then(|()| encode_registry(&mut text, &now))
        .and_then(|()| encode_eof(&mut text))
        .expect("a String takes all");
    Ok(text)
}
