//! What a node is told when it starts, and why it may not start.

use std::path::PathBuf;
use std::time::Duration;

use revfs_store::{OpenError, StoreOptions};

use crate::auth::AuthConfig;
use crate::log::{LogError, LogOptions};
use crate::raft::RaftError;

/// Settings of a node. [`NodeConfig::new`] gives the defaults.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub data_dir: PathBuf,
    /// Where the node listens, for its status.
    pub endpoint: String,
    /// History is kept for so long; `None` = until somebody compacts it.
    pub keep: Option<Duration>,
    /// Bound of the store's bytes in use: at it the alarm NOSPACE is raised, and below nine tenths of
    /// it lifted. History takes at most half of it.
    pub quota_bytes: Option<u64>,
    /// Whether a store above half its quota forgets history by itself.
    pub forget_above_half_quota: bool,
    /// What is forgotten by itself beside that.
    pub auto_compaction: AutoCompaction,
    /// How often a leader shows itself.
    pub heartbeat_interval: Duration,
    /// Within so long a lost leader is replaced.
    pub election_timeout: Duration,
    /// Entries between two snapshots: behind one the log may be purged.
    pub snapshot_entries: u64,
    /// Room that is given up when the disk is full, so that what was admitted can be finished.
    pub ballast_bytes: u64,
    /// Writes are refused below so many free bytes. The default covers what the store may still have
    /// to write of what it has applied.
    pub disk_free_min_bytes: u64,
    /// Above so many bytes the log is purged of whatever the store holds durably.
    pub log_bytes_max: u64,
    /// Bound of recovery and election at start.
    pub start_timeout: Duration,
    /// Within so long a change has an answer.
    pub proposal_timeout: Duration,
    /// How users show who they are.
    pub auth: AuthConfig,
    pub log: LogOptions,
    pub store: StoreOptions,
}

impl NodeConfig {
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            endpoint: String::new(),
            keep: None,
            quota_bytes: None,
            forget_above_half_quota: true,
            auto_compaction: AutoCompaction::Off,
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
            snapshot_entries: 5_000,
            ballast_bytes: 64 << 20,
            disk_free_min_bytes: 64 << 20,
            log_bytes_max: 256 << 20,
            start_timeout: Duration::from_secs(60),
            proposal_timeout: Duration::from_secs(10),
            auth: AuthConfig::default(),
            log: LogOptions::default(),
            store: StoreOptions::default(),
        }
    }
}

/// What etcd's `--auto-compaction-mode` forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    Off,
    /// What is older, looked at as often, but once an hour at least.
    Periodic(Duration),
    /// All but so many revisions, looked at every five minutes.
    Revisions(u64),
}

/// Why a node did not start. Nothing was changed on disk, except that creating a data directory may
/// have begun, which the next start finishes.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{operation} {path}: {source}", path = .path.display())]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error(
        "data directory {path} is in use by process {pid}: stop it first, or choose another directory",
        path = .path.display()
    )]
    InUse { path: PathBuf, pid: String },
    #[error(
        "data directory {path} has format {found}; this program reads and writes format {known}: \
         use the release that wrote it",
        path = .path.display()
    )]
    Format { path: PathBuf, found: String, known: u32 },
    #[error(
        "data directory {path} is incomplete: {missing} is missing, but {present} is there; \
         restore {missing} from a backup, or move the directory away to start anew",
        path = .path.display()
    )]
    Incomplete { path: PathBuf, missing: String, present: String },
    #[error("{path} is damaged: {reason}; restore it from a backup", path = .path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(transparent)]
    Raft(#[from] RaftError),
    #[error("the start was interrupted: {reason}")]
    Interrupted { reason: String },
}

impl StartError {
    pub(crate) fn io(
        operation: &'static str,
        path: impl Into<PathBuf>,
        source: std::io::Error,
    ) -> Self {
        Self::Io { operation, path: path.into(), source }
    }
}
