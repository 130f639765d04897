//! `@status`: the state of the backend and of this mount, as one JSON object.

use std::collections::BTreeMap;

use bytes::Bytes;
use fuser::Errno;
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use revfs_api::operations::Figures;
use serde::Serialize;

use crate::filesystem::{Answer, CommitAt, Filesystem};
use crate::node::Tree;

/// What `@status` says besides the backend's own status.
#[derive(Debug, Serialize)]
struct MountStatus {
    #[serde(flatten)]
    backend: revfs_api::keyspace::Status,
    /// Where `revfs get`, `put` and the others reach the node behind this mount.
    mount: Mount,
}

#[derive(Debug, Serialize)]
struct Mount {
    /// Hexadecimal; in the note of each change made here.
    mount_id: String,
    /// The key of the directory that is mounted; `%` and what is not printable ASCII as `%XX`.
    root: String,
    /// The revision that a mount of the past shows; null for the present.
    revision: Option<u64>,
    read_only: bool,
    /// How new what is shown is: `watch` or `linear`.
    consistency: &'static str,
    /// When what is written becomes a revision: at `close`, or at each `write`.
    commit: &'static str,
    /// Whether a rewrite is refused of what changed since it was opened.
    cas: bool,
    /// Whether changes made elsewhere are being watched; without it nothing is cached.
    watching: bool,
    /// The revision up to which the kernel has been told of changes made elsewhere.
    told: u64,
    /// The newest revision shown: an older state is never shown again.
    floor: u64,
    nodes: usize,
    /// Files with content that is not committed yet.
    staged_files: usize,
    staged_bytes: usize,
    /// Names of files that stay in this mount, and how many there are.
    local: String,
    local_files: usize,
    /// Files that had to be committed at a FLUSH because /proc did not tell whether it was a close.
    blind_flushes: u64,
    /// Whether changes made elsewhere raise inotify events: `full`, or `off` where this process lacks
    /// the privilege.
    events: &'static str,
    /// Changes made elsewhere that were repeated to raise their events, and those that were overtaken,
    /// or had no room in the queue.
    events_raised: u64,
    events_lost: u64,
    /// For how many seconds what follows was counted.
    seconds: u64,
    /// What was asked of this mount, by kind.
    operations: BTreeMap<&'static str, Asked>,
    /// Files that processes hold locks of through this mount.
    locks: Vec<Locked>,
    /// Why every change is refused because of locks that were lost; null if none is.
    fenced: Option<String>,
    /// What this mount does otherwise because of the backend, or because it was told to.
    limits: Vec<&'static str>,
}

const NOT_PLAIN: &AsciiSet = &CONTROLS.add(b'%');

#[derive(Debug, Serialize)]
struct Asked {
    count: u64,
    /// Of these, those answered with an error.
    errors: u64,
    /// How long all took together.
    microseconds: u64,
    /// A bound in microseconds (null: none) and how many took so long, and longer than the bound before.
    histogram: Vec<(Option<u64>, u64)>,
}

#[derive(Debug, Serialize)]
struct Locked {
    /// Empty for a file that has no key.
    key: String,
    process: u32,
}

const NO_STAMPS: &str = "revisions have neither time nor author: @time is refused (EOPNOTSUPP), and \
     a file's mtime is its revision in seconds after 1970";
const NO_BULK: &str = "a rename of a directory holds as many keys as a transaction of the backend has \
     operations; beyond it is EXDEV, and mv copies";
const NO_MARKERS: &str = "directories are not kept: mkdir is refused (EPERM), and a directory goes with \
     its last file";
const NO_ATTRIBUTES: &str = "attributes are not kept: chmod, chown, touch, symlinks and xattrs are \
     refused (EPERM)";

const OWN_LOCKS: &str = "locks (flock, fcntl) hold among the processes of this mount only";

impl Locked {
    fn new((key, process): (Option<Bytes>, u32)) -> Self {
        Self { key: key.unwrap_or_default().escape_ascii().to_string(), process }
    }
}

impl Filesystem {
    fn limits(&self) -> Vec<&'static str> {
        let (capabilities, options) = (self.keys.capabilities(), &self.options);
        let is_writable = !options.read_only;
        let limits = [
            (!capabilities.stamps, NO_STAMPS),
            (is_writable && !capabilities.bulk, NO_BULK),
            (is_writable && !options.writes_markers, NO_MARKERS),
            (is_writable && !options.writes_attributes, NO_ATTRIBUTES),
            (!is_writable || !options.writes_attributes, OWN_LOCKS),
        ];
        limits.into_iter().filter(|(holds, _)| *holds).map(|(_, words)| words).collect()
    }

    fn asked(&self) -> BTreeMap<&'static str, Asked> {
        let asked = |figures: Figures| {
            let Figures { operation, count, errors, took, histogram } = figures;
            let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            (operation.name(), Asked { count, errors, microseconds, histogram })
        };
        self.operations.figures().into_iter().map(asked).collect()
    }

    pub(crate) async fn status_text(&self) -> Answer<Bytes> {
        if let Some(private) = &self.private {
            self.ask_again(private).await;
            return self.transaction_text(private);
        }
        let mut backend = self.within(self.keys.status()).await?;
        if self.options.is_remote {
            // What is to be waited for when the mount ends; the data is elsewhere.
            backend.process_id = std::process::id();
            backend.data_dir.clear();
        }
        let staged = self.nodes.all();
        let staged = staged
            .iter()
            .filter(|node| node.file.lock().staged.is_some() && !self.stays_here(node));
        let (events_raised, events_lost) = self.events.counts();
        let mount = Mount {
            mount_id: format!("{:016x}", self.mount_id),
            root: percent_encode(self.options.root.as_bytes(), NOT_PLAIN).to_string(),
            revision: match self.options.tree {
                Tree::Live => None,
                Tree::Past(revision) => Some(revision.0),
            },
            read_only: self.options.read_only,
            consistency: self.options.consistency.word(),
            commit: match self.options.commit {
                CommitAt::Close => "close",
                CommitAt::Write => "write",
            },
            cas: self.options.compare_and_swap,
            watching: self.coherence.is_connected(),
            told: self.coherence.position().0,
            floor: self.floor().0,
            nodes: self.nodes.count(),
            staged_files: staged.count(),
            staged_bytes: self.writing.budget.used(),
            local: self.options.local.to_string(),
            local_files: self.local_files(),
            blind_flushes: self.writing.blind_flushes(),
            events: if self.events.is_on() { "full" } else { "off" },
            events_raised,
            events_lost,
            seconds: self.operations.since().as_secs(),
            operations: self.asked(),
            locks: self.locks.held().into_iter().map(Locked::new).collect(),
            fenced: self.locks.fenced(),
            limits: self.limits(),
        };
        let mut text =
            serde_json::to_vec_pretty(&MountStatus { backend, mount }).map_err(|error| {
                tracing::error!(%error, "@status");
                Errno::EIO
            })?;
        text.push(b'\n');
        Ok(text.into())
    }
}
