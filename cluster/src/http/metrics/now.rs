//! How the node is at the moment of the question: asked of its parts, and of the kernel.

use std::sync::Weak;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use revfs_api::keyspace::{Result, Status};
use revfs_store::{Durations, Measured};

use super::Labels;
use crate::grpc::ETCD_VERSION;
use crate::local::Local;

pub(super) fn of(node: &Local, status: &Status) -> Result<Registry> {
    let mut registry = Registry::default();
    let mut gauge = |name: &str, help: &str, value: u64| {
        registry.register(name, help, ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)));
    };
    replication(&mut gauge, node, status);
    data(&mut gauge, node, status);
    watches(&mut gauge, node);
    process(&mut gauge);
    let parts = &node.node;
    for (name, help, measured) in [
        (
            "etcd_disk_wal_fsync_duration_seconds",
            "Flushes of the log",
            parts.proposer.log.sync_durations(),
        ),
        (
            "etcd_disk_backend_commit_duration_seconds",
            "Commits of the store",
            parts.store.commit_durations(),
        ),
    ] {
        registry.register(name, help, Histogram(measured));
    }
    identity(&mut registry, status);
    mounts(&mut registry, node);
    alarms(&mut registry, node)?;
    Ok(registry)
}

fn replication(gauge: &mut impl FnMut(&str, &str, u64), node: &Local, status: &Status) {
    let has_leader = node.has_leader();
    let is_leader = has_leader && status.leader_id == status.member_id;
    let is_learner = node.is_learner();
    gauge("etcd_server_has_leader", "Whether there is a leader", u64::from(has_leader));
    gauge("etcd_server_is_leader", "Whether this member leads", u64::from(is_leader));
    gauge("etcd_server_is_learner", "Whether this member may not vote", u64::from(is_learner));
    gauge("etcd_server_proposals_committed_total", "The last log entry", status.raft_index);
    gauge("etcd_server_proposals_applied_total", "The last one applied", status.applied_index);
    let version = u64::from(status.cluster_version);
    gauge("revfs_cluster_version", "What all members of the cluster speak", version);
    let index = status.committed_index;
    gauge("revfs_store_committed_index", "The last entry in the store's file", index);
    let proposer = &node.node.proposer;
    let purged = proposer.log.state().purged.map_or(0, |purged| purged.index);
    gauge("revfs_log_purged_index", "The last entry that the log has given up", purged);
    let copies = proposer.raft.copies_made();
    gauge("revfs_store_copies_total", "Copies of the store made for members that lag", copies);
    if let Some(leases) = node.node.leases.count() {
        gauge("revfs_leases", "Leases that live, as their leader knows", leases);
    }
}

fn data(gauge: &mut impl FnMut(&str, &str, u64), node: &Local, status: &Status) {
    let quota = node.quota_bytes().unwrap_or(0);
    gauge("etcd_server_quota_backend_bytes", "The quota; 0 = none", quota);
    gauge("etcd_mvcc_db_total_size_in_bytes", "The store's file", status.store_bytes);
    gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Of it in use", status.store_bytes_in_use);
    gauge("etcd_debugging_mvcc_current_revision", "The current revision", status.revision);
    let compacted = status.compacted_revision;
    gauge("etcd_debugging_mvcc_compact_revision", "Where history begins", compacted);
    gauge("revfs_log_bytes", "Size of the log", status.log_bytes);
    let free = status.disk_free_bytes;
    gauge("revfs_disk_free_bytes", "Free on the disk of the data directory", free);
    gauge("revfs_read_only", "Whether writes are refused", u64::from(!status.read_only.is_empty()));
}

fn watches(gauge: &mut impl FnMut(&str, &str, u64), node: &Local) {
    let stats = node.node.store.watch_stats();
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let slow = stats.watchers.saturating_sub(stats.synced);
    gauge("etcd_debugging_mvcc_watcher_total", "Watches", count(stats.watchers));
    gauge("etcd_debugging_mvcc_slow_watcher_total", "Of them behind the present", count(slow));
    let bytes = count(stats.buffered_bytes);
    gauge("revfs_watch_buffered_bytes", "Events that watches have not taken yet", bytes);
}

fn identity(registry: &mut Registry, status: &Status) {
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
}

/// What was asked of the mounts of this process.
fn mounts(registry: &mut Registry, node: &Local) {
    let mounted = node.node.mounted.lock();
    let figures: Vec<_> =
        mounted.iter().filter_map(Weak::upgrade).flat_map(|own| own.figures()).collect();
    drop(mounted);
    let (counts, errors) =
        (Family::<Labels, Counter>::default(), Family::<Labels, Counter>::default());
    let seconds = Family::<Labels, Counter<f64, AtomicU64>>::default();
    for figures in figures {
        let labels = vec![("operation", figures.operation.name().to_owned())];
        counts.get_or_create(&labels).inc_by(figures.count);
        errors.get_or_create(&labels).inc_by(figures.errors);
        seconds.get_or_create(&labels).inc_by(figures.took.as_secs_f64());
    }
    registry.register("revfs_mount_operations", "Asked of this node's mounts", counts);
    registry.register("revfs_mount_operation_errors", "Of these, in vain", errors);
    registry.register("revfs_mount_operation_seconds", "How long all took together", seconds);
}

/// As etcd: a row for each alarm that is raised.
fn alarms(registry: &mut Registry, node: &Local) -> Result<()> {
    let raised = node.view()?.alarms().map_err(crate::convert::store_error)?;
    let family = Family::<Labels, Gauge>::default();
    for alarm in raised {
        let kind = match alarm.kind {
            revfs_store::AlarmKind::NoSpace => "NOSPACE",
            revfs_store::AlarmKind::Corrupt => "CORRUPT",
        };
        let member = format!("{:x}", alarm.member);
        let labels = vec![("server_id", member), ("alarm_type", kind.to_owned())];
        family.get_or_create(&labels).set(1);
    }
    registry.register("etcd_debugging_server_alarms", "Alarms that are raised", family);
    Ok(())
}

/// What the kernel says of this process; what it does not say is left out.
fn process(gauge: &mut impl FnMut(&str, &str, u64)) {
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        let count = u64::try_from(open.count()).unwrap_or(u64::MAX);
        gauge("process_open_fds", "Open file descriptors", count);
    }
    if let Ok((most, _)) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
    {
        gauge("process_max_fds", "Of them at most", most);
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

#[derive(Debug)]
struct Histogram(Measured);

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> std::fmt::Result {
        let Measured { counts, total } = &self.0;
        let bounds = Durations::bounds().map(|bound| bound.as_secs_f64());
        let bounds = bounds.chain([f64::INFINITY]);
        let classes: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
        let count = counts.iter().sum();
        encoder.encode_histogram::<NoLabelSet>(total.as_secs_f64(), count, &classes, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
