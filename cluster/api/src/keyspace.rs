//! [`KeySpace`]: what a mount and a command may ask of a backend.
//!
//! Two implementations are meant for users: `Local` (the node in this process) and `Remote` (a client
//! of a cluster). A third, in memory, serves the file system's own tests. What a backend cannot do it
//! says with [`Error::Unsupported`]; it never guesses.
//!
//! The data model is etcd's: flat binary keys in byte order, one revision per atomic change, history
//! until compaction. Added to it are the time and author of each revision, listings of one level
//! below a prefix, and the *content* and *birth* of a key, which survive a move.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::backup::Backup;
use crate::operations::Operations;
use crate::reservations::Reservations;

mod range;

pub use range::{RangeAnswer, RangeRead, RevisionBounds, SortOrder, SortTarget};

/// The largest value that a key holds through this trait: 16 MiB. (The etcd API has its own, lower
/// bound on requests.)
pub const VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The longest key after the store's escaping of 0x00 and 0x01 (two bytes each): a constant of the
/// disk format.
pub const KEY_BYTES_MAX: usize = 1_900;

/// Length of `key` as the store escapes it.
#[must_use]
pub fn escaped_bytes(key: &[u8]) -> usize {
    key.len() + key.iter().filter(|&&byte| byte <= 1).count()
}

/// Main revision of the store: 1 when empty, plus one for each atomic change. 0 means "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    pub const NONE: Self = Self(0);

    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Nanoseconds since the Unix epoch, as the leader stamped the command; never runs back along
/// revisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

impl Time {
    /// 2000-01-01. Before it there was no store: such a time only tells an order, as those that stand in for
    /// the times which a real etcd does not keep.
    const FIRST_KNOWN: Self = Self(946_684_800_000_000_000);

    /// Whether it says when something happened.
    #[must_use]
    pub fn is_known(self) -> bool {
        self >= Self::FIRST_KNOWN
    }
}

/// Identity of a lease; 0 means "no lease". Negative numbers are legal, as in etcd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// What is known of a lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseState {
    pub id: LeaseId,
    pub granted_seconds: i64,
    /// Whole seconds until it ends if nobody renews it.
    pub remaining_seconds: i64,
    /// Its keys in order, if they were asked for.
    pub keys: Vec<Bytes>,
}

/// One version of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    /// Empty where the request asked for keys only.
    pub value: Bytes,
    /// Length of the stored value, also where `value` was left out.
    pub value_bytes: u64,
    /// Revision at which the present life of the key began.
    pub create_revision: Revision,
    /// Revision of this version.
    pub mod_revision: Revision,
    /// 1 at creation, plus one for each change.
    pub version: u64,
    pub lease: LeaseId,
    /// Commit time of `mod_revision`.
    pub time: Time,
    /// `mod_revision` of the put that gave this content: a move carries it along, so that a renamed
    /// file keeps its mtime.
    pub content_revision: Revision,
    /// Commit time of `content_revision`.
    pub content_time: Time,
    /// `create_revision` of the life in which the content was born; carried along by a move.
    pub birth_revision: Revision,
}

/// Half-open interval of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRange {
    Key(Bytes),
    /// `[start, end)`
    Span {
        start: Bytes,
        end: Bytes,
    },
    /// `[start, ∞)`
    From(Bytes),
}

impl KeyRange {
    /// All keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        let start = Bytes::copy_from_slice(prefix);
        match prefix_end(prefix) {
            Some(end) => Self::Span { start, end },
            None => Self::From(start),
        }
    }

    /// What etcd's `key` and `range_end` mean: without an end the key alone; with the end `\0` every
    /// key from it on; else an interval.
    #[must_use]
    pub fn of_interval(key: Bytes, range_end: Bytes) -> Self {
        match range_end.as_ref() {
            b"" => Self::Key(key),
            b"\0" => Self::From(key),
            _ => Self::Span { start: key, end: range_end },
        }
    }

    #[must_use]
    pub fn start(&self) -> &Bytes {
        match self {
            Self::Key(start) | Self::From(start) | Self::Span { start, .. } => start,
        }
    }

    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::Key(own) => own == key,
            Self::Span { start, end } => start.as_ref() <= key && key < end.as_ref(),
            Self::From(start) => start.as_ref() <= key,
        }
    }
}

/// The least key above every key that begins with `prefix`; `None` if there is none (0xFF… or empty).
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Option<Bytes> {
    let kept = prefix.iter().rposition(|&byte| byte != 0xFF)?;
    let mut end = prefix[..=kept].to_vec();
    end[kept] += 1;
    Some(end.into())
}

/// One question of a [`KeySpace::read`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    Range(RangeRead),
    List(ListRead),
    /// Whether anything lives below a prefix that ends in `/`.
    Directory(Bytes),
}

impl Read {
    /// One key with its value.
    #[must_use]
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self::Range(RangeRead::new(KeyRange::Key(key.into())))
    }
}

/// One level below a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListRead {
    /// Empty, or ending in `/`.
    pub directory: Bytes,
    /// Names strictly above this one, in byte order; empty = from the first.
    pub after: Bytes,
    /// 0 = all. The empty name does not count: no answer ends with it while there are others, since
    /// `after` could not say that the next one begins behind it.
    pub limit: usize,
    pub with_values: bool,
}

/// The answers of one [`KeySpace::read`], all of one view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadAnswer {
    /// The revision that the answers show: the one asked for, or the current one.
    pub revision: Revision,
    /// The store's current revision in the same view.
    pub current: Revision,
    /// One for each question, of the same kind and in the same order.
    pub answers: Vec<Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Range(RangeAnswer),
    List(ListAnswer),
    Directory(DirectoryAnswer),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListAnswer {
    pub entries: Vec<ListEntry>,
    pub more: bool,
}

/// A name in a directory: `color` (a key), `app/` (keys lie below), or empty (the key that equals the
/// directory's prefix: its marker).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListEntry {
    pub name: Bytes,
    /// The key of that name; for a name that ends in `/` the marker of that directory, if it has one.
    pub kv: Option<KeyValue>,
    /// For a name that ends in `/`: the directory itself.
    pub directory: Option<DirectoryAnswer>,
}

/// A directory at the revision read. Absent if `names` is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectoryAnswer {
    /// Live names directly in it, the marker's empty name included.
    pub names: u64,
    /// Newest revision at which a name appeared or vanished directly in it.
    pub changed: Revision,
    /// Commit time of `changed`.
    pub time: Time,
}

/// Who made a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Author {
    /// Verified: the user, the CN of a certificate, or a lease. Empty without authentication.
    pub principal: String,
    /// What the client says: `user@host`.
    pub claimed: String,
}

/// Where a change comes from: stored with its revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    pub claimed: String,
    /// A mount's note of its operations (opaque to the store; at most 4 KiB).
    pub note: Bytes,
}

/// What is known of a revision besides its changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    pub revision: Revision,
    pub time: Time,
    pub author: Author,
    pub note: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Put,
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub kind: ChangeKind,
    /// For a deletion only `key`, `mod_revision` and `time` are set.
    pub kv: KeyValue,
}

/// All changes of one revision that a range sees, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionEvents {
    pub stamp: Stamp,
    pub events: Vec<Event>,
}

#[derive(Clone, Debug)]
pub struct ChangesRequest {
    /// Events of keys in any of these.
    pub ranges: Vec<KeyRange>,
    /// Inclusive.
    pub from: Revision,
    /// Inclusive; [`Revision::NONE`] = the current one.
    pub to: Revision,
    pub newest_first: bool,
    /// Stop after so many revisions that have events; 0 = no bound.
    pub limit: usize,
    /// Stop after looking at so many revisions of the store; 0 = no bound.
    pub scan_limit: usize,
    /// Leave the values out.
    pub keys_only: bool,
}

#[derive(Clone, Debug, Default)]
pub struct ChangesAnswer {
    pub revisions: Vec<RevisionEvents>,
    /// Where to go on (inclusive) if a limit cut the answer.
    pub next: Option<Revision>,
    pub current: Revision,
}

/// One stored version in a key's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub event: Event,
    pub stamp: Stamp,
}

#[derive(Clone, Debug)]
pub struct HistoryRequest {
    pub key: Bytes,
    /// Versions at or below this revision; [`Revision::NONE`] = all.
    pub at_most: Revision,
    /// 0 = all.
    pub limit: usize,
    pub keys_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareResult {
    Equal,
    NotEqual,
    Less,
    Greater,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    Version(u64),
    CreateRevision(Revision),
    ModRevision(Revision),
    Value(Bytes),
    Lease(LeaseId),
}

/// A condition on the state before the transaction. On a range it holds if it holds for each key; a
/// missing key (or empty range) has version, revisions and lease 0, and no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    pub range: KeyRange,
    pub target: CompareTarget,
    pub result: CompareResult,
}

impl Compare {
    /// No key of `range` exists.
    #[must_use]
    pub fn absent(range: KeyRange) -> Self {
        Self {
            range,
            target: CompareTarget::CreateRevision(Revision::NONE),
            result: CompareResult::Equal,
        }
    }

    /// The key exists.
    #[must_use]
    pub fn present(key: impl Into<Bytes>) -> Self {
        Self {
            range: KeyRange::Key(key.into()),
            target: CompareTarget::CreateRevision(Revision::NONE),
            result: CompareResult::NotEqual,
        }
    }

    #[must_use]
    pub fn mod_revision(key: impl Into<Bytes>, revision: Revision) -> Self {
        Self {
            range: KeyRange::Key(key.into()),
            target: CompareTarget::ModRevision(revision),
            result: CompareResult::Equal,
        }
    }

    #[must_use]
    pub fn create_revision(key: impl Into<Bytes>, revision: Revision) -> Self {
        Self {
            range: KeyRange::Key(key.into()),
            target: CompareTarget::CreateRevision(revision),
            result: CompareResult::Equal,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Put {
        key: Bytes,
        value: Bytes,
        lease: LeaseId,
        prev_kv: bool,
        ignore_value: bool,
        ignore_lease: bool,
    },
    Delete {
        range: KeyRange,
        prev_kv: bool,
    },
    Range(RangeRead),
    Txn(Txn),
    /// Puts the key's value followed by `value`; an absent key counts as empty. The lease stays.
    Append {
        key: Bytes,
        value: Bytes,
    },
    /// Every key `from + x` becomes `to + x`, with its value, lease, content and birth. The keys
    /// below `from` are deleted. Nothing below `to` may exist (compare it), or it stays. A directory whose
    /// names all arrive, and find no others there, keeps its `changed` and `time`.
    Move {
        from: Bytes,
        to: Bytes,
    },
    /// One key becomes another, as `Move` does; nothing happens if `from` is absent. What `to` held
    /// ends: its create_revision and version begin anew.
    MoveKey {
        from: Bytes,
        to: Bytes,
    },
    /// Two keys, or two prefixes that end in `/`, change places: each key moves as `Move` moves it, and
    /// so do directories' times. One side may be empty. Neither prefix may begin with the other;
    /// nothing happens if the two keys are one.
    Exchange {
        a: Bytes,
        b: Bytes,
    },
    /// Makes `range` what it was at `revision`: puts each key that has another content, birth or lease
    /// now than then, deletes each that did not exist then.
    Restore {
        range: KeyRange,
        revision: Revision,
    },
}

impl Op {
    #[must_use]
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::put_on(LeaseId::default(), key, value)
    }

    /// A put of a key that goes with the lease.
    #[must_use]
    pub fn put_on(lease: LeaseId, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::Put {
            key: key.into(),
            value: value.into(),
            lease,
            prev_kv: false,
            ignore_value: false,
            ignore_lease: false,
        }
    }

    #[must_use]
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Self::Delete { range: KeyRange::Key(key.into()), prev_kv: false }
    }
}

/// Guarded atomic change. One revision, however many operations; none if nothing changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    pub compares: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnAnswer {
    /// Which branch ran.
    pub succeeded: bool,
    /// The store's revision after the transaction: its own, if it changed anything.
    pub revision: Revision,
    /// Whether the transaction made a revision.
    pub changed: bool,
    /// One for each operation of the branch that ran.
    pub answers: Vec<OpAnswer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpAnswer {
    Put { prev_kv: Option<KeyValue> },
    Delete { deleted: u64, prev_kvs: Vec<KeyValue> },
    Range(RangeAnswer),
    Txn(TxnAnswer),
    Append { value_bytes: u64 },
    Move { moved: u64 },
    Restore { put: u64, deleted: u64 },
}

/// State of the backend, as `@status` and `revfs status` print it.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Status {
    pub backend: String,
    pub version: String,
    pub endpoint: String,
    pub data_dir: String,
    pub process_id: u32,
    pub cluster_id: u64,
    /// What all members speak: nothing is used that came later. 0 = the backend has no such number.
    pub cluster_version: u32,
    pub member_id: u64,
    pub leader_id: u64,
    pub raft_term: u64,
    pub raft_index: u64,
    pub applied_index: u64,
    /// Log index up to which LMDB holds the state durably.
    pub committed_index: u64,
    pub revision: u64,
    /// 0 = never compacted: history is complete.
    pub compacted_revision: u64,
    /// RFC 3339; the oldest revision whose history is complete. Empty on an empty store.
    pub history_since: String,
    pub store_bytes: u64,
    pub store_bytes_in_use: u64,
    pub log_bytes: u64,
    pub disk_free_bytes: u64,
    /// Why writes are refused at present; empty if they are not.
    pub read_only: String,
}

/// etcd's HashKV: equal where the histories are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvHash {
    pub hash: u32,
    /// The revision whose state was hashed.
    pub revision: Revision,
    /// `None` before the first compaction.
    pub compacted: Option<Revision>,
    pub current: Revision,
}

/// What a backend offers besides etcd's model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Revisions carry time and author. Without, times only tell the order: as many seconds after 1970
    /// as the number of the revision.
    pub stamps: bool,
    /// Append, Move, MoveKey, Exchange and Restore in a transaction, of any size. Without, they are put
    /// together of plain operations, a few of which fit ([`Error::TooBig`]), and a key that is moved
    /// begins anew.
    pub bulk: bool,
    pub value_bytes_max: usize,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("revision {requested} is compacted: history begins at {compacted}")]
    Compacted { requested: Revision, compacted: Revision },
    #[error("revision {requested} is in the future: the current one is {current}")]
    Future { requested: Revision, current: Revision },
    #[error("key of {bytes} bytes (encoded) is longer than {KEY_BYTES_MAX}")]
    KeyTooLong { bytes: usize },
    #[error("value of {bytes} bytes is larger than {max}")]
    ValueTooLarge { bytes: usize, max: usize },
    #[error("transaction of {count} {unit} is over the bound of {max}")]
    TooBig { unit: &'static str, count: usize, max: usize },
    #[error("no space: {reason}")]
    NoSpace { reason: String },
    #[error("too many requests: {reason}; try again")]
    Busy { reason: String },
    #[error("no quorum: {reason}")]
    NoQuorum { reason: String },
    #[error("permission denied: {reason}")]
    Denied { reason: String },
    /// etcd's `key not found`, `lease not found`, `duplicate key` …: the request as such is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The change may or may not have happened; it is never sent again.
    #[error("the outcome is unknown: {reason}")]
    OutcomeUnknown { reason: String },
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("not supported by this backend: {0}")]
    Unsupported(&'static str),
    #[error("not reachable: {reason}")]
    Unavailable { reason: String },
    /// A disk or integrity failure closed the node; it must be started again.
    #[error("the store is closed: {reason}")]
    Closed { reason: Arc<str> },
}

impl Error {
    /// A node that is about to end takes no more, and ends what waits.
    #[must_use]
    pub fn shutting_down() -> Self {
        Self::Unavailable { reason: "the node is shutting down".to_owned() }
    }
}

/// What a backend without leases does not do.
const LEASES: &str = "leases";

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Changes of a key space in order, without gap or repeat, whole revisions at a time.
#[async_trait]
pub trait Watch: Send {
    /// Waits for the next revision that has events in the watched ranges. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Compacted`] if the watch fell behind a compaction; [`Error::Unavailable`] when the
    /// stream is lost for good. After an error the watch has ended.
    async fn next(&mut self) -> Result<RevisionEvents>;

    /// Everything that the watch is to show up to this revision was handed out: a watch that begins
    /// behind it misses nothing. It moves on while nothing happens to the watched keys, and never
    /// back; [`Revision::NONE`] as long as the watch does not know.
    fn progress(&self) -> Revision;
}

/// A revisioned key space. See the module for what is promised.
///
/// The futures of a local backend's reads are ready at the first poll, so that a caller may answer
/// without a task switch.
#[async_trait]
pub trait KeySpace: Send + Sync + 'static {
    fn capabilities(&self) -> Capabilities;

    /// Names under creation, shared by all mounts of this key space: only if all of them are in this
    /// process and use this object.
    fn reservations(&self) -> Option<Arc<Reservations>> {
        None
    }

    /// Has what a mount counts shown, as long as that lives, where the node behind this key space shows what
    /// it counts itself. One that is elsewhere shows nothing of it.
    fn show_operations(&self, _: &Arc<Operations>) {}

    /// Waits until everything that was acknowledged anywhere before the call can be read here: what is
    /// read afterwards is linearizable. A backend whose every read is so has nothing to wait for.
    async fn confirm(&self) -> Result<()> {
        Ok(())
    }

    /// Answers all questions from one view: at `revision`, or the current state for
    /// [`Revision::NONE`].
    async fn read(&self, revision: Revision, reads: Vec<Read>) -> Result<ReadAnswer>;

    /// Stored versions of one key, newest first, deletions included.
    async fn history(&self, request: HistoryRequest) -> Result<Vec<Version>>;

    /// The changes between two revisions, in order.
    async fn changes(&self, request: ChangesRequest) -> Result<ChangesAnswer>;

    /// The revision that was current at `time`: the last one stamped at or before it.
    ///
    /// # Errors
    /// [`Error::Compacted`] if `time` lies before the first kept revision.
    async fn revision_at(&self, time: Time) -> Result<Revision>;

    /// Time, author and note of a revision.
    async fn stamp(&self, revision: Revision) -> Result<Stamp>;

    /// Proposes a transaction; returns when it is durable and applied.
    async fn txn(&self, txn: Txn, origin: Origin) -> Result<TxnAnswer>;

    /// Watches from `from` (inclusive; [`Revision::NONE`] = what comes after now).
    async fn watch(&self, ranges: Vec<KeyRange>, from: Revision) -> Result<Box<dyn Watch>>;

    /// Forgets history before `revision`; returns when that is decided and, with `physical`, when
    /// the space is free again.
    async fn compact(&self, revision: Revision, physical: bool) -> Result<()>;

    /// Hashes the history up to `revision` ([`Revision::NONE`] = all of it) as etcd does.
    async fn hash_kv(&self, _revision: Revision) -> Result<KvHash> {
        Err(Error::Unsupported("the hash of the history"))
    }

    async fn status(&self) -> Result<Status>;

    /// Grants a lease for so many seconds, at least the backend's minimum; with [`LeaseId`] 0 the
    /// backend chooses a positive number. Returns number and seconds. Keys that are put with it go
    /// when it ends.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is such a lease, or the time is over the backend's bound.
    async fn lease_grant(&self, _id: LeaseId, _ttl_seconds: i64) -> Result<(LeaseId, i64)> {
        Err(Error::Unsupported(LEASES))
    }

    /// Gives a lease its whole time again; returns the seconds, or `None` if there is no such lease.
    async fn lease_keep_alive(&self, _id: LeaseId) -> Result<Option<i64>> {
        Err(Error::Unsupported(LEASES))
    }

    /// Ends a lease; its keys are deleted as one revision.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is no such lease.
    async fn lease_revoke(&self, _id: LeaseId) -> Result<()> {
        Err(Error::Unsupported(LEASES))
    }

    /// `None` if there is no such lease.
    async fn lease_time_to_live(
        &self,
        _id: LeaseId,
        _with_keys: bool,
    ) -> Result<Option<LeaseState>> {
        Err(Error::Unsupported(LEASES))
    }

    /// All leases, those that end first before the others.
    async fn leases(&self) -> Result<Vec<LeaseId>> {
        Err(Error::Unsupported(LEASES))
    }

    /// Begins a backup: everything that was answered before the call is in it.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the backend has no store of its own.
    async fn backup(&self) -> Result<Box<dyn Backup>> {
        Err(Error::Unsupported("a backup"))
    }
}
