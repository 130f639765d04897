//! `@txn/`: several files changed at once.
//!
//! A transaction on the mount is a [`Filesystem`] of its own, over an [`overlay`] of the mount's key space:
//! the same operations on the same tree, but nobody else sees what they change. Its nodes have numbers
//! of their own ([`Numbering`]), by which a request finds its tree. To commit makes one revision of all that was
//! changed, if nothing that was read or written has changed since the transaction began; what came of
//! it is decided once.
//!
//! Transactions are in the memory of the mount. What is not committed goes with it, with whoever held a lock of
//! its `@commit`, and after an hour in which nobody asked for anything in it.

mod commit;
mod overlay;
mod status;
mod unknown;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fuser::Errno;
use parking_lot::Mutex;
use revfs_api::keyspace::{Error, Origin, Revision};
use revfs_api::operations::OperationKind;

pub(crate) use self::commit::Outcome;
use self::commit::Style;
use self::overlay::Overlay;
use crate::budget::Budget;
use crate::coherence::Coherence;
use crate::errno::{errno, name_errno};
use crate::filesystem::{Answer, Caller, Filesystem, Found, MountOptions};
use crate::found::Shown;
use crate::inode_number::Numbering;
use crate::listing::{Entry, Listing, What};
use crate::locks::Locks;
use crate::node::{Hidden, Place, Tree};
use crate::node_table::{NodeTable, ROOT};
use crate::notices::Notice;
use crate::path::{Name, decode_name};

/// Transactions of a mount at once.
const TRANSACTIONS_MAX: usize = 64;

/// A transaction that nobody has asked for anything for so long is dropped.
const IDLE_MAX: Duration = Duration::from_secs(3600);

/// How long a commit waits for what is still staged in open files.
const STAGED_WAIT: Duration = Duration::from_secs(10);

/// The transactions of a mount.
#[derive(Debug)]
pub(crate) struct Transactions {
    table: Mutex<Table>,
    /// Of what all of them hold.
    budget: Arc<Budget>,
    /// Knows no node and no handle: the tree of what was dropped.
    gone: OnceLock<Arc<Filesystem>>,
}

#[derive(Debug, Default)]
struct Table {
    next: u32,
    by_name: BTreeMap<Bytes, Transaction>,
}

#[derive(Debug)]
struct Transaction {
    number: u32,
    filesystem: Arc<Filesystem>,
    used: Instant,
}

/// What a filesystem is that is a transaction.
#[derive(Debug)]
pub(crate) struct Private {
    name: Bytes,
    /// Random; in the note of its commit.
    id: u64,
    pub(crate) maker: Caller,
    overlay: Arc<Overlay>,
    /// What the commit came to; held while one is under way.
    outcome: tokio::sync::Mutex<Option<Outcome>>,
    /// The same, to look at.
    decided: Mutex<Option<Outcome>>,
    /// Why the last attempt to commit failed, of which nothing happened.
    failure: Mutex<Option<String>>,
    /// Whoever it was for is gone.
    is_abandoned: AtomicBool,
    /// Of the mount: how far its kernel was told, and the newest revision that it has shown.
    coherence: Arc<Coherence>,
    floor: Arc<AtomicU64>,
    /// Of the mount, too: who holds some commits nothing without them.
    locks: Arc<Locks>,
}

impl Private {
    /// Whether nothing can be changed any more.
    pub(crate) fn is_decided(&self) -> bool {
        self.overlay.is_sealed()
    }
}

impl Transactions {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { table: Mutex::default(), budget: Budget::new(bytes_max), gone: OnceLock::new() }
    }

    fn get(&self, name: &[u8]) -> Option<Arc<Filesystem>> {
        self.table.lock().by_name.get(name).map(|own| Arc::clone(&own.filesystem))
    }

    fn all(&self) -> Vec<Arc<Filesystem>> {
        self.table.lock().by_name.values().map(|own| Arc::clone(&own.filesystem)).collect()
    }

    fn numbered(&self, number: u32) -> Option<Arc<Filesystem>> {
        let mut table = self.table.lock();
        let own = table.by_name.values_mut().find(|own| own.number == number)?;
        own.used = Instant::now();
        Some(Arc::clone(&own.filesystem))
    }

    fn remove(&self, name: &[u8]) -> bool {
        self.table.lock().by_name.remove(name).is_some()
    }

    /// Drops those that nobody has used since `since`, and those whose maker is gone; their names.
    fn remove_left(&self, since: Option<Instant>) -> Vec<Bytes> {
        let is_left = |own: &Transaction| {
            let private = own.filesystem.private.as_ref();
            private.is_some_and(|private| private.is_abandoned.load(Ordering::Acquire))
                || since.is_some_and(|since| own.used < since)
        };
        let mut table = self.table.lock();
        table.by_name.extract_if(.., |_, own| is_left(own)).map(|(name, _)| name).collect()
    }
}

impl Table {
    /// A number that no transaction has, and that none had lately.
    fn free_number(&mut self) -> u32 {
        loop {
            let number = self.next;
            self.next = (self.next + 1) % Numbering::TRANSACTIONS;
            if self.by_name.values().all(|own| own.number != number) {
                return number;
            }
        }
    }
}

impl Filesystem {
    /// The tree that a node belongs to: the mount's, a transaction's, or, of one that was dropped, a tree
    /// that has neither its nodes nor its handles.
    #[must_use]
    pub fn tree_of(self: &Arc<Self>, ino: u64) -> Arc<Self> {
        let Some(number) = Numbering::transaction_of(ino) else { return Arc::clone(self) };
        self.transactions.numbered(number).unwrap_or_else(|| {
            let gone = || {
                let (keys, options) = (Arc::clone(&self.keys), self.options.clone());
                Arc::new(Self::new(keys, options, self.notices.clone(), self.mount_id))
            };
            Arc::clone(self.transactions.gone.get_or_init(gone))
        })
    }

    /// Whether a node is `@txn/`.
    pub(crate) fn holds_transactions(&self, ino: u64) -> bool {
        let node = self.nodes.get(ino);
        node.is_some_and(|node| node.place() == Place::Hidden(Hidden::Transactions))
    }

    /// `mkdir @txn/NAME`
    pub(crate) async fn begin_transaction(&self, caller: Caller, name: &OsStr) -> Answer<Found> {
        let name = match decode_name(name).map_err(|error| name_errno(&error))? {
            Name::Component(_) => Bytes::copy_from_slice(name.as_bytes()),
            Name::Value | Name::Hidden(_) | Name::Reserved => return Err(Errno::EPERM),
            Name::Digest(_) => return Err(Errno::EINVAL),
        };
        self.check_writable()?;
        let at = self.ask(Revision::NONE, Vec::new()).await?.current;
        let mut id = [0; 8];
        getrandom::fill(&mut id).map_err(|_| Errno::EIO)?;
        let id = u64::from_be_bytes(id);
        let filesystem = {
            let mut table = self.transactions.table.lock();
            if table.by_name.contains_key(&name) {
                return Err(Errno::EEXIST);
            }
            if table.by_name.len() >= TRANSACTIONS_MAX {
                tracing::warn!(
                    max = TRANSACTIONS_MAX,
                    "as many transactions as a mount has at once: rmdir one in @txn"
                );
                return Err(Errno::EDQUOT);
            }
            let number = table.free_number();
            let filesystem = Arc::new(self.private(caller, (name.clone(), id), number, at));
            let (filesystem_of, used) = (Arc::clone(&filesystem), Instant::now());
            let own = Transaction { number, filesystem: filesystem_of, used };
            table.by_name.insert(name, own);
            filesystem
        };
        filesystem.found_root().await
    }

    /// A tree of its own over this one's key space as of `at`.
    fn private(&self, maker: Caller, (name, id): (Bytes, u64), number: u32, at: Revision) -> Self {
        let root = self.options.root.clone();
        let budget = &self.transactions.budget;
        let overlay = Arc::new(Overlay::new(Arc::clone(&self.keys), at, root.clone(), budget));
        let options = MountOptions {
            // Each name is looked up, so that it is known to have been read.
            cache: Duration::ZERO,
            ..self.options.clone()
        };
        let mut own = Self::new(
            Arc::<Overlay>::clone(&overlay),
            options,
            self.notices.clone(),
            self.mount_id,
        );
        own.nodes =
            Arc::new(NodeTable::numbered(Tree::Live, root, Numbering::of_transaction(number)));
        own.writing.budget = Arc::clone(budget);
        own.operations = Arc::clone(&self.operations);
        own.private = Some(Private {
            name,
            id,
            maker,
            overlay,
            outcome: tokio::sync::Mutex::default(),
            decided: Mutex::default(),
            failure: Mutex::default(),
            is_abandoned: AtomicBool::new(false),
            coherence: Arc::clone(&self.coherence),
            floor: Arc::clone(&self.floor),
            locks: Arc::clone(&self.locks),
        });
        own
    }

    /// The root of this tree, as a name in `@txn/`.
    async fn found_root(&self) -> Answer<Found> {
        let node = self.nodes.root();
        let Shown { attr, .. } = self.shown(&node).await?;
        Ok(Found { attr, entry_ttl: Duration::ZERO, attr_ttl: Duration::ZERO, node })
    }

    /// `rmdir @txn/NAME`
    pub(crate) fn drop_transaction(&self, name: &OsStr) -> Answer<()> {
        let is_there = self.transactions.remove(name.as_bytes());
        if is_there { Ok(()) } else { Err(Errno::ENOENT) }
    }

    pub(crate) async fn lookup_transaction(&self, name: &OsStr) -> Answer<Found> {
        let own = self.transactions.get(name.as_bytes()).ok_or(Errno::ENOENT)?;
        own.found_root().await
    }

    pub(crate) async fn list_transactions(&self) -> Answer<Listing> {
        let mut entries = Vec::new();
        for own in self.transactions.all() {
            let Some(private) = &own.private else { continue };
            let (name, found) = (private.name.clone(), own.found_root().await?);
            entries.push(Entry { name, what: What::Transaction(Box::new(found)) });
        }
        Ok(Listing { entries, is_unwatched: true, ..Listing::default() })
    }

    /// Looks after what is staged in transactions, and drops those that were left alone.
    pub async fn tend_transactions(&self) {
        let idle = Instant::now().checked_sub(IDLE_MAX);
        for name in self.transactions.remove_left(idle) {
            tracing::info!(name = %name.escape_ascii(), "a transaction that was left alone is dropped");
            if let Some(parent) = self.nodes.find(&Place::Hidden(Hidden::Transactions)) {
                self.notices.send(Notice::Entry { parent: parent.ino, name });
            }
        }
        for own in self.transactions.all() {
            own.tend().await;
        }
    }

    /// What OPEN for writing and SETATTR of `@commit` do. The first decides; the others hear the same.
    pub(crate) async fn commit_transaction(&self, caller: Caller) -> Answer<()> {
        let private = self.private.as_ref().ok_or(Errno::ENOENT)?;
        self.ask_again(private).await;
        let mut outcome = private.outcome.lock().await;
        let known = match &*outcome {
            Some(known) => known.clone(),
            None => {
                let decided = self.decide(private, caller).await;
                let decided = decided.map_err(|(errno, reason)| {
                    *private.failure.lock() = Some(reason);
                    errno
                })?;
                *private.decided.lock() = Some(decided.clone());
                outcome.insert(decided).clone()
            }
        };
        match known {
            Outcome::Committed(_) => Ok(()),
            Outcome::Conflict(_) => Err(Errno::ESTALE),
            Outcome::Unknown(_) => Err(Errno::EIO),
        }
    }

    async fn decide(&self, private: &Private, caller: Caller) -> Result<Outcome, (Errno, String)> {
        let refused = self.commit_all(STAGED_WAIT).await;
        if refused > 0 {
            let reason = format!("{refused} files that are open cannot be taken along");
            return Err((Errno::EIO, reason));
        }
        let claimed = self.writing.authors.claim(caller.uid);
        let origin = Origin { claimed, note: unknown::note_of(private.id) };
        let defaults = self.options.defaults();
        let writes_attributes = self.options.writes_attributes;
        let style = Style { defaults: &defaults, writes_attributes };
        let failed = |error: Error| (errno(&error), error.to_string());
        let began = Instant::now();
        let committed = private.overlay.commit(origin, style, &private.locks).await;
        let is_error = !matches!(committed, Ok(Outcome::Committed(_)));
        self.operations.record(OperationKind::Commit, began.elapsed(), is_error);
        let mut outcome = committed.map_err(failed)?;
        if matches!(outcome, Outcome::Unknown(_))
            && let Some(revision) = self.read_back_commit(private).await
        {
            outcome = Outcome::Committed(revision);
        }
        if let Outcome::Committed(revision) = outcome {
            private.floor.fetch_max(revision.0, Ordering::AcqRel);
            // What is read in the mount from now on is what was committed.
            let told = async {
                private.coherence.reaches(revision).await;
                self.notices.settled(Notice::Attributes(ROOT)).await;
            };
            if tokio::time::timeout(self.options.timeout, told).await.is_err() {
                tracing::warn!(%revision, "the kernel has not been told of all that was committed");
            }
        }
        Ok(outcome)
    }
}
