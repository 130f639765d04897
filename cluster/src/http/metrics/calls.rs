//! The calls of gRPC: all methods of all services, each with its counters from the beginning, so that a row
//! that is not there means a method that is not there.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use prost::Message;
use revfs_api::wire::DESCRIPTORS;
use tonic::Code;

use super::Labels;

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

/// Seconds: etcd's bounds, and below them those that tell calls apart that only read.
const SECONDS: [f64; 14] =
    [0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

const PEER_PACKAGE: &str = "revfs.peer.v1";

type Durations = Family<Labels, Histogram, fn() -> Histogram>;

/// The calls of one method.
pub(in crate::http) struct Method {
    pub(in crate::http) started: Counter,
    /// Messages of requests, and of answers.
    pub(in crate::http) received: Counter,
    pub(in crate::http) sent: Counter,
    handled: Vec<Counter>,
    durations: OfMethod,
}

/// How long the calls of a method took; its rows are there once it was called.
struct OfMethod {
    family: Durations,
    labels: Labels,
    own: OnceLock<Histogram>,
}

impl OfMethod {
    fn observe(&self, took: Duration) {
        let of_method = || self.family.get_or_create(&self.labels).clone();
        self.own.get_or_init(of_method).observe(took.as_secs_f64());
    }
}

impl Method {
    pub(in crate::http) fn handled(&self, code: Code, took: Duration) {
        let number = usize::try_from(i32::from(code)).unwrap_or(2);
        self.handled[number.min(CODES.len() - 1)].inc();
        self.durations.observe(took);
    }
}

pub(super) struct Calls {
    by_path: HashMap<String, Arc<Method>>,
}

impl Calls {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let [started, handled, received, sent] =
            std::array::from_fn(|_| Family::<Labels, Counter>::default());
        let durations = Durations::new_with_constructor(|| Histogram::new(SECONDS));
        let mut by_path = HashMap::new();
        for (path, labels) in methods() {
            let with_code = |code: &str| {
                let mut labels = labels.clone();
                labels.push(("grpc_code", code.to_owned()));
                handled.get_or_create(&labels).clone()
            };
            let of = |family: &Family<Labels, Counter>| family.get_or_create(&labels).clone();
            let family = durations.clone();
            let of_method = OfMethod { family, labels: labels.clone(), own: OnceLock::new() };
            let method = Method {
                handled: CODES.iter().map(|code| with_code(code)).collect(),
                started: of(&started),
                received: of(&received),
                sent: of(&sent),
                durations: of_method,
            };
            by_path.insert(path, Arc::new(method));
        }
        for (name, help, family) in [
            ("grpc_server_started", "Calls that have begun", started),
            ("grpc_server_handled", "Calls that have ended, by code", handled),
            ("grpc_server_msg_received", "Messages of clients", received),
            ("grpc_server_msg_sent", "Messages to clients", sent),
        ] {
            registry.register(name, help, family);
        }
        let help = "How long calls took; streams until their end";
        registry.register("grpc_server_handling_seconds", help, durations);
        Self { by_path }
    }

    pub(super) fn method(&self, path: &str) -> Option<&Arc<Method>> {
        self.by_path.get(path)
    }
}

/// The path of each method, and what it is called.
fn methods() -> Vec<(String, Labels)> {
    let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS);
    let mut files = set.expect("it was encoded when this was built").file;
    // Served to members only, on listeners of their own.
    files.retain(|file| file.package() != PEER_PACKAGE);
    let mut methods = Vec::new();
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
                methods.push((format!("/{service_name}/{}", method.name()), labels));
            }
        }
    }
    methods
}
