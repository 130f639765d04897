//! The state that the operations of one mount share.
//!
//! The layers: `fuse` decodes a request, calls an async operation here (`ops/`), and replies; the
//! operation reads the key space through [`KeySpace`], looks at the node table and at what is staged,
//! and answers with an [`Errno`] or the truth. Nothing here knows how a reply is sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fuser::{Errno, FileAttr};
use parking_lot::Mutex;
use revfs_api::KeySpace;
use revfs_api::keyspace::{Read, ReadAnswer, Revision};
use revfs_api::operations::{OperationKind, Operations};
use revfs_api::reservations::Reservations;

use crate::attributes::Defaults;
use crate::coherence::Coherence;
use crate::commit::Writing;
use crate::errno::errno;
use crate::events::Events;
use crate::handle::HandleTable;
use crate::linear::{Consistency, Unconfirmed};
use crate::local_names::LocalNames;
use crate::locks::Locks;
use crate::mount_lease::MountLease;
use crate::node::{Hidden, Node, Place, Tree};
use crate::node_table::NodeTable;
use crate::notices::Notices;
use crate::path::DirectoryKey;
use crate::txn::{Private, Transactions};
use crate::watching::Watchers;

pub type Answer<T> = Result<T, Errno>;

/// How often a state older than one already shown is asked for again.
const FLOOR_ATTEMPTS: u32 = 5;

/// A read that takes longer may be one that waits for a change.
const READ_MAX: Duration = Duration::from_millis(1);

/// Settings of one mount.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// The keys below this prefix are the tree.
    pub root: DirectoryKey,
    /// As of when. A mount of the past is read-only, whatever `read_only` says.
    pub tree: Tree,
    /// Owner of keys without a side record.
    pub uid: u32,
    pub gid: u32,
    /// Bits that files (of 0666) and directories (of 0777) without a side record do not have.
    pub umask: u16,
    pub read_only: bool,
    /// Directories are kept by markers. Without, there is no mkdir, and a directory goes with its last
    /// file: only keys that the user names are written.
    pub writes_markers: bool,
    /// Attributes are kept in side records, and reservations in the store. Without, what is made has the
    /// attributes of a plain key, and changing them is EPERM.
    pub writes_attributes: bool,
    /// The key space is that of another process: `@status` names this one.
    pub is_remote: bool,
    /// Lets other users than the mounting one in (root mounts: yes).
    pub allow_other: bool,
    /// No program is run from the mount.
    pub no_exec: bool,
    /// How new what is shown is.
    pub consistency: Consistency,
    /// When what was written becomes a revision.
    pub commit: CommitAt,
    /// A rewrite from empty is ESTALE, too, if the file has changed since it was opened.
    pub compare_and_swap: bool,
    /// Files of these names stay in this mount.
    pub local: LocalNames,
    /// How long the kernel keeps names and attributes that it will be told of changes of.
    pub cache: Duration,
    /// Deadline of every wait for the key space.
    pub timeout: Duration,
    /// Zone of `@time/T` without one.
    pub time_zone: jiff::tz::TimeZone,
    /// For how long locks are kept of a machine that is not heard of; whole seconds.
    pub lock_lease: Duration,
    /// Staged bytes of all files together.
    pub staged_bytes_max: usize,
    /// Past modes are shown as they were, not masked with the present ones.
    pub history_as_is: bool,
    /// FUSE workers.
    pub workers: usize,
    /// Shown as the mount's source.
    pub source: String,
}

/// When what was written becomes a revision, if it is not synced before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommitAt {
    #[default]
    Close,
    /// Each write and change of length is one.
    Write,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            root: DirectoryKey::default(),
            tree: Tree::Live,
            uid: 0,
            gid: 0,
            umask: 0o022,
            read_only: false,
            writes_markers: true,
            writes_attributes: true,
            is_remote: false,
            allow_other: false,
            no_exec: false,
            consistency: Consistency::Watch,
            commit: CommitAt::Close,
            compare_and_swap: false,
            local: LocalNames::default(),
            cache: Duration::from_secs(3600),
            timeout: Duration::from_secs(10),
            time_zone: jiff::tz::TimeZone::system(),
            lock_lease: Duration::from_secs(15),
            staged_bytes_max: 256 * 1024 * 1024,
            history_as_is: false,
            workers: 2,
            source: "revfs".to_owned(),
        }
    }
}

impl MountOptions {
    /// What a key without a side record looks like.
    #[must_use]
    pub fn defaults(&self) -> Defaults {
        Defaults {
            file_mode: 0o666 & !self.umask,
            directory_mode: 0o777 & !self.umask,
            uid: self.uid,
            gid: self.gid,
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    /// Thread id in the mounter's pid namespace; 0 = unknown.
    pub pid: u32,
}

/// What a name leads to: the answer of lookup, create, mkdir, symlink. Whoever tells the kernel of it
/// counts a lookup of `node`.
#[derive(Clone, Debug)]
pub struct Found {
    pub node: Arc<Node>,
    pub attr: FileAttr,
    /// How long the kernel may keep the name and the attributes.
    pub entry_ttl: Duration,
    pub attr_ttl: Duration,
}

pub struct Filesystem {
    pub(crate) keys: Arc<dyn KeySpace>,
    pub(crate) options: MountOptions,
    pub(crate) nodes: Arc<NodeTable>,
    pub(crate) handles: HandleTable,
    /// Files created here whose first commit is still to come, by directory and component.
    pub(crate) unborn: Mutex<BTreeMap<(DirectoryKey, Bytes), Arc<Node>>>,
    /// What the operations that change something share.
    pub(crate) writing: Writing,
    /// Names under creation, where neither the store nor the key space is to hold them.
    pub(crate) own_reservations: Arc<Reservations>,
    /// On which hangs what this mount holds in the store.
    pub(crate) lease: MountLease,
    /// flock and fcntl locks.
    pub(crate) locks: Arc<Locks>,
    /// To the thread that tells the kernel to forget.
    pub(crate) notices: Notices,
    /// How far the kernel has been told of changes made elsewhere.
    pub(crate) coherence: Arc<Coherence>,
    /// Of changes made elsewhere, for programs that wait for them.
    pub(crate) events: Arc<Events>,
    /// Open `@watch` files.
    pub(crate) watchers: Arc<Watchers>,
    /// Random; tells this mount's own changes from others'.
    pub(crate) mount_id: u64,
    sequence: AtomicU64,
    /// What was asked of this mount, its transactions included.
    pub(crate) operations: Arc<Operations>,
    /// Of a mount that shows nothing old: when that was not possible.
    pub(crate) unconfirmed: Unconfirmed,
    /// The newest revision that this mount has shown: it never goes back behind it.
    pub(crate) floor: Arc<AtomicU64>,
    /// Those of this mount.
    pub(crate) transactions: Transactions,
    /// What this is, if it is one of those itself.
    pub(crate) private: Option<Private>,
}

impl std::fmt::Debug for Filesystem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filesystem")
            .field("mount_id", &format_args!("{:016x}", self.mount_id))
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Filesystem {
    #[must_use]
    pub fn new(
        keys: Arc<dyn KeySpace>,
        options: MountOptions,
        notices: Notices,
        mount_id: u64,
    ) -> Self {
        let read_only = options.read_only || options.tree != Tree::Live;
        let options = MountOptions { read_only, ..options };
        Self {
            nodes: Arc::new(NodeTable::new(options.tree, options.root.clone())),
            handles: HandleTable::default(),
            unborn: Mutex::default(),
            writing: Writing::new(options.staged_bytes_max),
            coherence: Arc::default(),
            events: Arc::default(),
            watchers: Arc::default(),
            lease: MountLease::new(Arc::clone(&keys)),
            own_reservations: Arc::default(),
            locks: Arc::default(),
            sequence: AtomicU64::new(0),
            operations: Arc::default(),
            floor: Arc::default(),
            unconfirmed: Unconfirmed::default(),
            transactions: Transactions::new(options.staged_bytes_max),
            private: None,
            keys,
            options,
            notices,
            mount_id,
        }
    }

    /// Takes note of what was asked about a node.
    pub(crate) fn count(&self, operation: OperationKind, ino: u64, took: Duration, is_error: bool) {
        let waited = operation == OperationKind::Read && took > READ_MAX && self.is_watch(ino);
        let operation = if waited { OperationKind::Watch } else { operation };
        self.operations.record(operation, took, is_error);
    }

    fn is_watch(&self, ino: u64) -> bool {
        let place = self.nodes.get(ino).map(|node| node.place());
        matches!(place, Some(Place::Hidden(Hidden::Watch { .. })))
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Notes that this mount has shown `revision`.
    pub(crate) fn raise_floor(&self, revision: Revision) {
        self.floor.fetch_max(revision.0, Ordering::AcqRel);
    }

    #[must_use]
    pub fn floor(&self) -> Revision {
        Revision(self.floor.load(Ordering::Acquire))
    }

    /// Asks the key space, with the deadline of this mount. A present state older than one already
    /// shown (from a member that lags) is asked for again a few times.
    pub(crate) async fn ask(&self, revision: Revision, reads: Vec<Read>) -> Answer<ReadAnswer> {
        if revision == Revision::NONE {
            self.confirm_present().await?;
        }
        for attempt in 0..FLOOR_ATTEMPTS {
            let floor = self.floor();
            let answer = self.within(self.keys.read(revision, reads.clone())).await?;
            if revision != Revision::NONE {
                return Ok(answer);
            }
            if answer.current >= floor {
                self.raise_floor(answer.current);
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_millis(10 << attempt)).await;
        }
        tracing::warn!(
            floor = self.floor().0,
            "the key space answers with a state that was overtaken"
        );
        Err(Errno::ETIMEDOUT)
    }

    /// The answer of the key space, or ETIMEDOUT. Only for what changes nothing: what is dropped at
    /// the deadline may still happen.
    pub(crate) async fn within<T>(
        &self,
        question: impl Future<Output = revfs_api::keyspace::Result<T>>,
    ) -> Answer<T> {
        self.within_deadline(question).await.map_err(|error| errno(&error))
    }

    /// [`Self::within`], with the error as it is.
    pub(crate) async fn within_deadline<T>(
        &self,
        question: impl Future<Output = revfs_api::keyspace::Result<T>>,
    ) -> revfs_api::keyspace::Result<T> {
        let timeout = self.options.timeout;
        let asked = tokio::time::timeout(timeout, question).await;
        asked.unwrap_or(Err(revfs_api::keyspace::Error::Timeout(timeout)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fuser::Errno;
    use revfs_api::KeySpace;
    use revfs_api::keyspace::{Op, Origin, Revision, Txn};

    use super::{Filesystem, MountOptions};
    use crate::memory::Memory;
    use crate::notices::Notices;

    fn on(memory: &Arc<Memory>) -> Filesystem {
        Filesystem::new(memory.clone(), MountOptions::default(), Notices::default(), 1)
    }

    #[tokio::test]
    async fn a_state_older_than_one_already_shown_is_asked_for_again() {
        let memory = Arc::new(Memory::new());
        let own = on(&memory);
        let coming = memory.current().next();
        own.raise_floor(coming);
        let txn = Txn { success: vec![Op::put("/a", "1")], ..Txn::default() };
        let (answer, put) =
            tokio::join!(own.ask(Revision::NONE, Vec::new()), memory.txn(txn, Origin::default()));
        assert_eq!(put.unwrap().revision, coming);
        assert_eq!(answer.unwrap().current, coming);
    }

    #[tokio::test]
    async fn a_state_that_stays_old_is_refused() {
        let memory = Arc::new(Memory::new());
        let own = on(&memory);
        own.raise_floor(memory.current().next());
        assert_eq!(own.ask(Revision::NONE, Vec::new()).await.unwrap_err(), Errno::ETIMEDOUT);
        // The past does not change, so it is good from whoever has it.
        own.ask(memory.current(), Vec::new()).await.unwrap();
    }
}
