//! How the node is, for machines that watch it: `/health` as etcd has had it from the beginning, and
//! `/livez` and `/readyz` with a check for each reason.
//!
//! Alive is who can read at all; ready is who can also confirm that what is read is the newest. A full
//! store does neither harm: restarting the node would not help, and reading goes on.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use revfs_api::KeySpace;
use revfs_api::keyspace::Revision;
use revfs_store::AlarmKind;

use super::answer;
use super::metrics::Metrics;
use crate::local::Local;

/// As long as etcd waits for any request: five seconds and two election timeouts.
const CHECK_TIMEOUT: Duration = Duration::from_secs(7);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

const LIVE: &[Check] = &[Check::SerializableRead];
const READY: &[Check] =
    &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    async fn run(self, node: &Local) -> Result<(), String> {
        match self {
            Self::DataCorruption => match is_alarmed(node, AlarmKind::Corrupt)? {
                true => Err("alarm activated: CORRUPT".to_owned()),
                false => Ok(()),
            },
            Self::SerializableRead => serializable_read(node).await,
            Self::LinearizableRead => linearizable_read(node).await,
            // Every member of a cluster of one votes.
            Self::NonLearner => Ok(()),
        }
    }
}

/// Whether an alarm keeps this member from serving; that another one is corrupt does not, as long as more
/// members are not.
fn is_alarmed(node: &Local, kind: AlarmKind) -> Result<bool, String> {
    if kind == AlarmKind::Corrupt && node.check_serves().is_err() {
        return Ok(true);
    }
    let view = node.view().map_err(|error| error.to_string())?;
    let alarmed = match kind {
        AlarmKind::Corrupt => view.corrupt_stops_all(),
        AlarmKind::NoSpace => {
            view.alarms().map(|alarms| alarms.iter().any(|alarm| alarm.kind == kind))
        }
    };
    alarmed.map_err(|error| error.to_string())
}

async fn serializable_read(node: &Local) -> Result<(), String> {
    let read = node.read(Revision::NONE, Vec::new()).await;
    read.map(drop).map_err(|error| error.to_string())
}

async fn linearizable_read(node: &Local) -> Result<(), String> {
    let confirmed = node.node.proposer.raft.confirm_leadership();
    match tokio::time::timeout(CHECK_TIMEOUT, confirmed).await {
        Ok(confirmed) => confirmed.map_err(|error| error.to_string())?,
        Err(_) => return Err(revfs_api::status::REQUEST_TIMED_OUT.to_owned()),
    }
    serializable_read(node).await
}

pub(super) fn routes(node: &Arc<Local>, metrics: &Arc<Metrics>) -> Router {
    let (of_health, counted) = (Arc::clone(node), Arc::clone(metrics));
    let health = async move |uri: Uri| {
        let reason = unhealthy(&of_health, &uri).await;
        counted.health_checked(reason.is_none());
        health_answer(reason)
    };
    let mut router = Router::new().route("/health", get(health));
    for (root, checks) in [("/livez", LIVE), ("/readyz", READY)] {
        router = router.route(root, checked(node, checks));
        for at in 0..checks.len() {
            let path = format!("{root}/{}", checks[at].name());
            router = router.route(&path, checked(node, &checks[at..=at]));
        }
    }
    router.method_not_allowed_fallback(only_get)
}

async fn only_get() -> Response {
    let allow = [(header::ALLOW, HeaderValue::from_static("GET"))];
    (StatusCode::METHOD_NOT_ALLOWED, allow, "Method Not Allowed\n").into_response()
}

/// Values of a name in the query; a name without a value has an empty one.
fn query<'a>(uri: &'a Uri, name: &'a str) -> impl Iterator<Item = &'a str> {
    let pairs = uri.query().unwrap_or("").split('&');
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.filter(move |(found, _)| *found == name).map(|(_, value)| value)
}

/// Why the node is not healthy, in etcd's words.
async fn unhealthy(node: &Local, uri: &Uri) -> Option<String> {
    for (kind, name) in [(AlarmKind::NoSpace, "NOSPACE"), (AlarmKind::Corrupt, "CORRUPT")] {
        let is_excluded = query(uri, "exclude").any(|excluded| excluded == name);
        match is_alarmed(node, kind) {
            Ok(true) if !is_excluded => return Some(format!("ALARM {name}")),
            Ok(_) => {}
            Err(error) => return Some(format!("RANGE ERROR:{error}")),
        }
    }
    let is_serializable = query(uri, "serializable").any(|value| value == "true");
    if is_serializable {
        return serializable_read(node).await.err().map(|error| format!("RANGE ERROR:{error}"));
    }
    if !node.has_leader() {
        return Some("RAFT NO LEADER".to_owned());
    }
    linearizable_read(node).await.err().map(|error| format!("RANGE ERROR:{error}"))
}

fn health_answer(reason: Option<String>) -> Response {
    let (code, health) = match reason {
        None => (StatusCode::OK, "true"),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "false"),
    };
    let reason = reason.unwrap_or_default();
    answer::json(code, &serde_json::json!({ "health": health, "reason": reason }))
}

fn checked(node: &Arc<Local>, checks: &'static [Check]) -> axum::routing::MethodRouter {
    let node = Arc::clone(node);
    get(async move |uri: Uri| {
        let mut report = String::new();
        let mut is_well = true;
        for check in checks {
            if query(&uri, "exclude").any(|excluded| excluded == check.name()) {
                continue;
            }
            let line = match check.run(&node).await {
                Ok(()) => writeln!(report, "[+]{} ok", check.name()),
                Err(reason) => {
                    is_well = false;
                    writeln!(report, "[-]{} failed: {reason}", check.name())
                }
            };
            line.expect("a String takes all");
        }
        if !is_well {
            return (StatusCode::SERVICE_UNAVAILABLE, report).into_response();
        }
        let is_verbose = query(&uri, "verbose").next().is_some();
        format!("{}ok\n", if is_verbose { &report } else { "" }).into_response()
    })
}
