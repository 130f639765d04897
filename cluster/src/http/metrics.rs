//! `/metrics`, for Prometheus: etcd's names where the meaning is etcd's, so that its dashboards work, and
//! names with `revfs_` for what is ours.
//!
//! Calls are counted as they come ([`super::metered`]); how the node is, is asked when it is looked at.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use prost::Message;
use revfs_api::KeySpace;
use revfs_api::keyspace::Status;
use revfs_api::wire::DESCRIPTORS;
use tonic::Code;

use crate::grpc::ETCD_VERSION;
use crate::local::Local;

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// gRPC's codes, by their numbers.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

type Labels = Vec<(&'static str, String)>;

/// What is counted as it happens.
pub(super) struct Metrics {
    registry: Registry,
    methods: HashMap<String, Method>,
    pub(super) received_bytes: Counter,
    pub(super) sent_bytes: Counter,
    healthy: Gauge,
    unhealthy: Gauge,
}

/// The calls of one method.
#[derive(Clone)]
pub(super) struct Method {
    pub(super) started: Counter,
    handled: Arc<[Counter]>,
}

impl Method {
    pub(super) fn handled(&self, code: Code) {
        let number = usize::try_from(i32::from(code)).unwrap_or(2);
        self.handled[number.min(CODES.len() - 1)].inc();
    }
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::default();
        let methods = methods(&mut registry);
        let (received_bytes, sent_bytes) = (Counter::default(), Counter::default());
        let bytes = "Bytes of gRPC messages";
        registry.register("etcd_network_client_grpc_received_bytes", bytes, received_bytes.clone());
        registry.register("etcd_network_client_grpc_sent_bytes", bytes, sent_bytes.clone());
        // Gauges, because counters of this format end in _total, and etcd's do not.
        let (healthy, unhealthy) = (Gauge::default(), Gauge::default());
        registry.register("etcd_server_health_success", "Checks that ended well", healthy.clone());
        registry.register("etcd_server_health_failures", "Checks that did not", unhealthy.clone());
        Self { registry, methods, received_bytes, sent_bytes, healthy, unhealthy }
    }

    pub(super) fn health_checked(&self, is_healthy: bool) {
        if is_healthy {
            self.healthy.inc()
        } else {
            self.unhealthy.inc()
        };
    }

    /// The method that a path calls, if it is one: who calls paths that are none makes no rows here.
    pub(super) fn method(&self, path: &str) -> Option<&Method> {
        self.methods.get(path)
    }
}

/// All methods of all services, each with its counters.
fn methods(registry: &mut Registry) -> HashMap<String, Method> {
    let started = Family::<Labels, Counter>::default();
    let handled = Family::<Labels, Counter>::default();
    let mut methods = HashMap::new();
    let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS);
    let files = set.expect("it was encoded when this was built").file;
    for file in &files {
        for service in &file.service {
            let service_name = format!("{}.{}", file.package(), service.name());
            for method in &service.method {
                let kind = match (method.client_streaming(), method.server_streaming()) {
                    (false, false) => "unary",
                    (true, false) => "client_stream",
                    (false, true) => "server_stream",
                    (true, true) => "bidi_stream",
                };
                let labels = vec![
                    ("grpc_type", kind.to_owned()),
                    ("grpc_service", service_name.clone()),
                    ("grpc_method", method.name().to_owned()),
                ];
                let with_code = |code: &str| {
                    let mut labels = labels.clone();
                    labels.push(("grpc_code", code.to_owned()));
                    handled.get_or_create(&labels).clone()
                };
                let counters = Method {
                    handled: CODES.iter().map(|code| with_code(code)).collect(),
                    started: started.get_or_create(&labels).clone(),
                };
                methods.insert(format!("/{service_name}/{}", method.name()), counters);
            }
        }
    }
    registry.register("grpc_server_started", "Calls that have begun", started);
    registry.register("grpc_server_handled", "Calls that have ended, by code", handled);
    methods
}

pub(super) fn routes(node: Arc<Local>, metrics: Arc<Metrics>) -> Router {
    let shown = async move || match node.status().await {
        Ok(status) => match text(&metrics, &status, node.quota_bytes().unwrap_or(0)) {
            Ok(text) => {
                let kind = [(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE))];
                (kind, text).into_response()
            }
            Err(error) => failed(&error),
        },
        Err(error) => failed(&error),
    };
    Router::new().route("/metrics", get(shown))
}

fn failed(error: &dyn std::error::Error) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
}

fn text(metrics: &Metrics, status: &Status, quota: u64) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    encode_registry(&mut text, &metrics.registry)?;
    encode_registry(&mut text, &of_node(status, quota))?;
    encode_eof(&mut text)?;
    Ok(text)
}

/// How the node is now.
fn of_node(status: &Status, quota: u64) -> Registry {
    let mut registry = Registry::default();
    let mut gauge = |name: &str, help: &str, value: u64| {
        registry.register(name, help, ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)));
    };
    let is_leader = status.leader_id != 0 && status.leader_id == status.member_id;
    gauge("etcd_server_has_leader", "Whether there is a leader", u64::from(status.leader_id != 0));
    gauge("etcd_server_is_leader", "Whether this member leads", u64::from(is_leader));
    gauge("etcd_server_is_learner", "Whether this member may not vote", 0);
    gauge("etcd_server_proposals_committed_total", "The last log entry", status.raft_index);
    gauge("etcd_server_proposals_applied_total", "The last one applied", status.applied_index);
    gauge("etcd_server_quota_backend_bytes", "The quota; 0 = none", quota);
    gauge("etcd_mvcc_db_total_size_in_bytes", "The store's file", status.store_bytes);
    gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Of it in use", status.store_bytes_in_use);
    gauge("etcd_debugging_mvcc_current_revision", "The current revision", status.revision);
    gauge(
        "etcd_debugging_mvcc_compact_revision",
        "Where history begins",
        status.compacted_revision,
    );
    gauge("revfs_log_bytes", "Size of the log", status.log_bytes);
    gauge(
        "revfs_disk_free_bytes",
        "Free on the disk of the data directory",
        status.disk_free_bytes,
    );
    gauge(
        "revfs_store_committed_index",
        "The last entry in the store's file",
        status.committed_index,
    );
    gauge("revfs_read_only", "Whether writes are refused", u64::from(!status.read_only.is_empty()));
    process(&mut gauge);
    for (name, label, value) in [
        ("etcd_server_id", "server_id", format!("{:x}", status.member_id)),
        ("etcd_server_version", "server_version", ETCD_VERSION.to_owned()),
        ("etcd_cluster_version", "cluster_version", ETCD_VERSION.to_owned()),
        ("revfs_version", "version", status.version.clone()),
    ] {
        let family = Family::<Labels, Gauge>::default();
        family.get_or_create(&vec![(label, value)]).set(1);
        registry.register(name, "What this member is", family);
    }
    registry
}

/// What the kernel says of this process; what it does not say is left out.
fn process(gauge: &mut impl FnMut(&str, &str, u64)) {
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        let count = u64::try_from(open.count()).unwrap_or(u64::MAX);
        gauge("process_open_fds", "Open file descriptors", count);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    for (name, help, field) in [
        ("process_resident_memory_bytes", "Memory in use", "VmRSS:"),
        ("process_virtual_memory_bytes", "Address space", "VmSize:"),
    ] {
        if let Some(kilobytes) = kilobytes(field) {
            gauge(name, help, kilobytes.saturating_mul(1_024));
        }
    }
}
