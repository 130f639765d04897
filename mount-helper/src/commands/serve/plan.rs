//! What all settings together ask for. Nothing has happened when it is made: what does not fit together
//! is refused here, naming both sides and what to do.

use std::path::PathBuf;
use std::time::Duration;

use revfs_cluster::grpc::{Access, Limits, Names};
use revfs_cluster::{AuthConfig, AutoCompaction, NodeConfig};

use super::encryption::{self, CLIENTS, Encryption};
use super::layers::Values;
use super::logging::{Format, LogPlan, Target};
use super::members::MembersPlan;
use super::value::{self, ListenUrl, Place, Retention, duration, flag, list, number, word};
use super::view::ViewPlan;
use crate::error::{Failure, Result};
use crate::unmount::absolute;

/// etcd's quota where none is said.
const QUOTA_DEFAULT: u64 = 2 << 30;

/// etcd's bounds of the pace of replication, in milliseconds.
const ELECTION_TIMEOUT_MAX: u64 = 50_000;
const HEARTBEATS_IN_ELECTION_TIMEOUT: u64 = 5;

/// gRPC's own: a message is counted in 32 bits.
const REQUEST_BYTES_MAX: usize = 1 << 30;

/// As etcd: a change that takes longer has no answer, unless a leader was elected meanwhile.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// As etcd: more marks would be more than the changes that they stand between.
const PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Below it every short absence would change who votes.
const STANDBY_AFTER_MIN: Duration = Duration::from_secs(1);

pub(super) struct Plan {
    pub(super) name: String,
    pub(super) data_dir: PathBuf,
    pub(super) clients: Vec<ListenUrl>,
    /// Where only those are served who look how the node is.
    pub(super) metrics: Vec<ListenUrl>,
    /// Where a URL asks for it.
    pub(super) encryption: Option<Encryption>,
    pub(super) advertised: Vec<String>,
    pub(super) members: MembersPlan,
    /// The authorities that members believe.
    pub(super) members_trust: Option<PathBuf>,
    pub(super) node: NodeConfig,
    pub(super) limits: Limits,
    pub(super) watch_progress_interval: Duration,
    pub(super) access: Access,
    pub(super) log: LogPlan,
    /// Where the member's store is mounted, if anywhere.
    pub(super) view: Option<ViewPlan>,
}

impl Plan {
    pub(super) fn new(values: &Values) -> Result<Self> {
        let name = values.text("name").to_owned();
        let data_dir = match values.text("data-dir") {
            "" => PathBuf::from(format!("{name}.revfs")),
            path => PathBuf::from(path),
        };
        let data_dir = absolute(&data_dir)?;
        let clients = values.parsed("listen-client-urls", value::listen_urls)?;
        let metrics = match values.text("listen-metrics-urls") {
            "" => Vec::new(),
            _ => values.parsed("listen-metrics-urls", value::listen_urls)?,
        };
        check_apart(values, &clients, &metrics)?;
        let all: Vec<ListenUrl> = clients.iter().chain(&metrics).cloned().collect();
        let encryption = encryption::of(values, &CLIENTS, &all, &data_dir)?;
        let members_trust = values.text("peer-trusted-ca-file");
        Ok(Self {
            members: MembersPlan::new(values, &name, &data_dir)?,
            members_trust: Some(members_trust).filter(|path| !path.is_empty()).map(PathBuf::from),
            node: node(values, &data_dir)?,
            limits: limits(values)?,
            watch_progress_interval: values
                .parsed("watch-progress-notify-interval", progress_interval)?,
            access: Access {
                // As etcd: an empty list is no list.
                hosts: match values.text("host-whitelist") {
                    "" => Names::All,
                    hosts => names(hosts),
                },
                origins: names(values.text("cors")),
            },
            log: log(values)?,
            view: ViewPlan::new(values, &data_dir)?,
            name,
            data_dir,
            clients,
            metrics,
            encryption,
            advertised: values.parsed("advertise-client-urls", value::advertised_urls)?,
        })
    }
}

fn names(text: &str) -> Names {
    Names::of(list(text).map(str::to_owned).collect())
}

fn check_apart(values: &Values, clients: &[ListenUrl], metrics: &[ListenUrl]) -> Result<()> {
    let is_fixed = |url: &ListenUrl| !matches!(&url.place, Place::Tcp(at) if at.port() == 0);
    let both = metrics.iter().filter(|url| is_fixed(url));
    match both.into_iter().find(|url| clients.iter().any(|client| client.place == url.place)) {
        None => Ok(()),
        Some(url) => Err(Failure::usage(format!(
            "{} and {} both have '{}'",
            values.told("listen-metrics-urls"),
            values.told("listen-client-urls"),
            url.text
        ))
        .hint("use another port; what is shown there is shown to clients anyway")),
    }
}

fn node(values: &Values, data_dir: &std::path::Path) -> Result<NodeConfig> {
    let milliseconds = |name: &str, most: u64| {
        values.parsed(name, |text| number(text, 1, most)).map(Duration::from_millis)
    };
    let heartbeat_interval = milliseconds("heartbeat-interval", ELECTION_TIMEOUT_MAX)?;
    let election_timeout = milliseconds("election-timeout", ELECTION_TIMEOUT_MAX)?;
    if election_timeout.as_millis()
        < heartbeat_interval.as_millis() * u128::from(HEARTBEATS_IN_ELECTION_TIMEOUT)
    {
        return Err(Failure::usage(format!(
            "{} {} is too short for {} {}: one lost heartbeat would depose a leader",
            values.told("election-timeout"),
            election_timeout.as_millis(),
            values.told("heartbeat-interval"),
            heartbeat_interval.as_millis(),
        ))
        .hint(format!(
            "make it at least {HEARTBEATS_IN_ELECTION_TIMEOUT} times the heartbeat: {}",
            heartbeat_interval.as_millis() * u128::from(HEARTBEATS_IN_ELECTION_TIMEOUT)
        )));
    }
    let quota = values.parsed("quota-backend-bytes", |text| number(text, i64::MIN, i64::MAX))?;
    Ok(NodeConfig {
        quota_bytes: match u64::try_from(quota) {
            Ok(0) => Some(QUOTA_DEFAULT),
            Ok(bytes) => Some(bytes),
            Err(_) => None,
        },
        forget_above_half_quota: false,
        auth: auth(values)?,
        auto_compaction: auto_compaction(values)?,
        heartbeat_interval,
        election_timeout,
        // As etcd: what a request may take, and two elections.
        proposal_timeout: REQUEST_TIMEOUT + 2 * election_timeout,
        force_new_cluster: values.parsed("force-new-cluster", flag)?,
        copy_bytes_per_second: values
            .parsed("copy-bytes-per-second", |text| number(text, 1, u64::MAX))?,
        learners_max: values
            .parsed("max-learners", |text| number(text, 1, u32::MAX))
            .map(|count| usize::try_from(count).unwrap_or(usize::MAX))?,
        standby_after: values.parsed("standby-after", standby_after)?,
        corrupt_check_time: Some(values.parsed("corrupt-check-time", duration)?)
            .filter(|period| !period.is_zero()),
        initial_corrupt_check: values.parsed("experimental-initial-corrupt-check", flag)?,
        snapshot_entries: values.parsed("snapshot-count", |text| number(text, 1, u64::MAX))?,
        snapshot_catchup_entries: values
            .parsed("snapshot-catchup-entries", |text| number(text, 1, u64::MAX))?,
        ..NodeConfig::new(data_dir)
    })
}

fn auth(values: &Values) -> Result<AuthConfig> {
    let ttl_seconds = values.parsed("auth-token-ttl", |text| number(text, 1, u64::MAX))?;
    let cost = values.parsed("bcrypt-cost", |text| number(text, 0, u32::MAX))?;
    AuthConfig::parse(values.text("auth-token"), ttl_seconds, cost)
        .map_err(|error| Failure::usage(error.to_string()))
}

fn standby_after(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|time| match time < STANDBY_AFTER_MIN {
        true => Err(format!("at least {STANDBY_AFTER_MIN:?}")),
        false => Ok(time),
    })
}

fn progress_interval(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|interval| match interval < PROGRESS_INTERVAL_MIN {
        true => Err(format!("at least {PROGRESS_INTERVAL_MIN:?}")),
        false => Ok(interval),
    })
}

fn auto_compaction(values: &Values) -> Result<AutoCompaction> {
    let parse = values.parsed("auto-compaction-mode", |text| {
        let by_time: fn(&str) -> Result<Retention, String> = value::retention_by_time;
        word(text, &[("periodic", by_time), ("revision", value::retention_by_revision)])
    })?;
    Ok(match values.parsed("auto-compaction-retention", parse)? {
        Retention::All => AutoCompaction::Off,
        Retention::For(time) => AutoCompaction::Periodic(time),
        Retention::Revisions(count) => AutoCompaction::Revisions(count),
    })
}

fn limits(values: &Values) -> Result<Limits> {
    let interval = values.parsed("grpc-keepalive-interval", duration)?;
    let timeout = |text: &str| {
        duration(text).and_then(|time| match time.is_zero() {
            true => Err("longer than 0".to_owned()),
            false => Ok(time),
        })
    };
    Ok(Limits {
        request_bytes_max: values
            .parsed("max-request-bytes", |text| number(text, 1, REQUEST_BYTES_MAX))?,
        txn_ops_max: values
            .parsed("max-txn-ops", |text| number(text, 1, u32::MAX))
            .map(|count| usize::try_from(count).unwrap_or(usize::MAX))?,
        concurrent_streams_max: values
            .parsed("max-concurrent-streams", |text| number(text, 1, u32::MAX))?,
        keep_alive_interval: Some(interval).filter(|interval| !interval.is_zero()),
        keep_alive_timeout: values.parsed("grpc-keepalive-timeout", timeout)?,
        ..Limits::default()
    })
}

fn log(values: &Values) -> Result<LogPlan> {
    let levels = [
        ("debug", "debug"),
        ("info", "info"),
        ("warn", "warn"),
        ("error", "error"),
        // etcd has two above it.
        ("panic", "error"),
        ("fatal", "error"),
    ];
    let targets: Vec<Target> = list(values.text("log-outputs"))
        .map(|target| match target {
            "default" | "stderr" => Target::Stderr,
            "stdout" => Target::Stdout,
            path => Target::File(PathBuf::from(path)),
        })
        .collect();
    Ok(LogPlan {
        level: values.parsed("log-level", |text| word(text, &levels))?,
        is_level_said: values.is_said("log-level"),
        format: values.parsed("log-format", |text| {
            word(text, &[("console", Format::Text), ("text", Format::Text), ("json", Format::Json)])
        })?,
        targets,
    })
}
