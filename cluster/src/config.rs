//! What a node is told when it starts, and why it may not start.

use std::path::PathBuf;
use std::time::Duration;

use revfs_store::{OpenError, StoreOptions};

use crate::auth::AuthConfig;
use crate::founding::Founding;
use crate::grpc::ListenError;
use crate::log::{LogError, LogOptions};
use crate::members::SPOKEN_VERSION;
use crate::peer::PeerListen;
use crate::raft::{RaftError, VersionError};

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
    /// Who begins the cluster that this node belongs to.
    pub founding: Founding,
    /// The member goes on alone from its data: see [`crate::Node::start`].
    pub force_new_cluster: bool,
    /// Where other members find this one, and how they believe each other.
    pub peers: PeerListen,
    /// So many members may be wanted as plain learners.
    pub learners_max: usize,
    /// A voter that is gone for so long is stood in for by a standby, if there is one.
    pub standby_after: Duration,
    /// How often a leader shows itself.
    pub heartbeat_interval: Duration,
    /// Within so long a lost leader is replaced.
    pub election_timeout: Duration,
    /// Entries between two snapshots: behind one the log may be purged.
    pub snapshot_entries: u64,
    /// Entries that stay in the log behind a snapshot, for members that lag a little.
    pub snapshot_catchup_entries: u64,
    /// Room that is given up when the disk is full, so that what was admitted can be finished.
    pub ballast_bytes: u64,
    /// Writes are refused below so many free bytes. The default covers what the store may still have
    /// to write of what it has applied.
    pub disk_free_min_bytes: u64,
    /// Bytes a second of a copy of the store, as it is made and as it is sent to a member that lags.
    pub copy_bytes_per_second: u64,
    /// Above so many bytes the log is purged of whatever the store holds durably, down to half of them: what a
    /// member may lag without a copy of the store, and what a start has to read and check.
    pub log_bytes_max: u64,
    /// Bound of recovery and election at start.
    pub start_timeout: Duration,
    /// Within so long a change has an answer.
    pub proposal_timeout: Duration,
    /// Between two comparisons of what the members hold, besides those at each compaction.
    pub corrupt_check_time: Option<Duration>,
    /// Whether this member is compared with the others before it serves clients.
    pub initial_corrupt_check: bool,
    /// The newest cluster version that this node speaks. Only tests of upgrades change it: they have a
    /// node of this release claim to be of the next one.
    pub speaks: u32,
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
            founding: Founding::Alone,
            force_new_cluster: false,
            peers: PeerListen::default(),
            learners_max: 1,
            standby_after: Duration::from_secs(300),
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
            snapshot_entries: 5_000,
            snapshot_catchup_entries: 5_000,
            ballast_bytes: 64 << 20,
            disk_free_min_bytes: 64 << 20,
            copy_bytes_per_second: 100 << 20,
            log_bytes_max: 128 << 20,
            start_timeout: Duration::from_secs(60),
            proposal_timeout: Duration::from_secs(10),
            corrupt_check_time: None,
            initial_corrupt_check: false,
            speaks: SPOKEN_VERSION,
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
    #[error(
        "member {member:x} has been permanently removed from the cluster {cluster:016x}, and {path} is its \
         data: move the directory away; with an empty one the node may be added anew",
        path = .path.display()
    )]
    Removed { path: PathBuf, cluster: u64, member: u64 },
    #[error("{path} is damaged: {reason}; restore it from a backup", path = .path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error(transparent)]
    Raft(#[from] RaftError),
    #[error(transparent)]
    Version(#[from] VersionError),
    #[error("other members cannot be served: {0}")]
    Peers(#[from] ListenError),
    #[error(
        "member {member:x} holds other data than a majority of the cluster: \
         replace it ('revfs member replace {member:x}')"
    )]
    Diverged { member: u64 },
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
