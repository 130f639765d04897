//! The plain vocabulary of the store: what a key's version, a range, a transaction and an event are.
//!
//! The data model is etcd's (flat binary keys in byte order, one revision per atomic change, history
//! until compaction) with the time and author of each revision added, and the *content* and *birth*
//! of a key, which survive a move. Nothing here knows the disk or the wire.

use bytes::Bytes;

mod range;

pub use range::{RangeQuery, RangeResult, RevisionBounds, SortOrder, SortTarget};

/// The largest value a key holds: 16 MiB. A constant of the format.
pub const VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The longest key after escaping (0x00 and 0x01 take two bytes): LMDB's own limit on a 4 KiB page
/// is 1,982 bytes, and a row adds a terminator and a revision. A constant of the format.
pub const KEY_BYTES_MAX: usize = 1_900;

/// A transaction that would write more rows than this is refused, on every member alike.
pub const TXN_ROWS_MAX: usize = 100_000;

/// A transaction that would write more bytes of values than this is refused, on every member alike.
pub const TXN_VALUE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Transactions nest at most so deep (etcd has no own bound; the command decoder needs one).
pub const TXN_DEPTH_MAX: usize = 32;

/// Main revision of the store: 1 when empty, plus one for each atomic change. 0 means "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    pub const NONE: Self = Self(0);
    /// The current revision of an empty store.
    pub const FIRST: Self = Self(1);

    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    #[must_use]
    pub fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl std::fmt::Display for Revision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Nanoseconds since the Unix epoch; never runs back along revisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

/// Identity of a lease; 0 means "no lease". Negative numbers are legal, as in etcd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl LeaseId {
    pub const NONE: Self = Self(0);
}

/// A lease as the store keeps it. When it ends is known to the leader alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    pub id: LeaseId,
    pub ttl_seconds: i64,
    /// What was left of it at the last checkpoint; 0 = all.
    pub remaining_seconds: i64,
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
    /// `mod_revision` of the put that gave this content; Move and Restore carry it along.
    pub content_revision: Revision,
    /// Commit time of `content_revision`.
    pub content_time: Time,
    /// `create_revision` of the life in which the file was born; Move and Restore carry it along, and
    /// later puts in the same life keep it.
    pub birth_revision: Revision,
}

/// Interval of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRange {
    Key(Bytes),
    /// `[start, end)`; empty if `end <= start`.
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

/// One level below a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQuery {
    /// Empty, or ending in `/`.
    pub directory: Bytes,
    /// Names strictly above this one, in byte order; empty = from the first.
    pub after: Bytes,
    /// 0 = all. The empty name does not count: no answer ends with it while there are others, since
    /// `after` could not say that the next one begins behind it.
    pub limit: usize,
    pub with_values: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListResult {
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
    pub directory: Option<DirectoryState>,
}

/// A directory at the revision read. Absent if `names` is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectoryState {
    /// Live names directly in it, the marker's empty name included.
    pub names: u64,
    /// Newest revision at which a name appeared or vanished directly in it; a move of the whole directory
    /// does not count.
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

/// What is known of a revision besides its changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    pub revision: Revision,
    pub time: Time,
    pub author: Author,
    /// A mount's note of its operations, opaque to the store.
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

/// All changes of one revision that the ranges of a query see, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionEvents {
    pub stamp: Stamp,
    pub events: Vec<Event>,
}

#[derive(Clone, Debug)]
pub struct ChangesQuery {
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

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangesResult {
    pub revisions: Vec<RevisionEvents>,
    /// Where to go on (inclusive) if a limit cut the answer.
    pub next: Option<Revision>,
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
/// missing key (or empty range) has version, revisions and lease 0, and no value: a comparison of its
/// value is false, whatever the result asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    pub range: KeyRange,
    pub target: CompareTarget,
    pub result: CompareResult,
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
    Range(RangeQuery),
    Txn(Txn),
    /// Puts the key's value followed by `value`; an absent key counts as empty. The lease stays.
    Append {
        key: Bytes,
        value: Bytes,
    },
    /// Every key `from + x` becomes `to + x`, with its value, lease, content and birth. The keys
    /// below `from` are deleted. What lives below `to` stays unless a key of the same name arrives.
    /// A directory whose names all arrive, and find no others there, keeps its `changed` and `time`.
    /// Neither prefix may begin with the other.
    Move {
        from: Bytes,
        to: Bytes,
    },
    /// One key becomes another, as `Move` does; nothing happens if `from` is absent or equal to `to`.
    /// What `to` held ends: its create_revision and version begin anew.
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
    /// now than then (with those of then, but a lease only if it still exists), deletes each that did
    /// not exist then.
    Restore {
        range: KeyRange,
        revision: Revision,
    },
}

impl Op {
    #[must_use]
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self::Put {
            key: key.into(),
            value: value.into(),
            lease: LeaseId::NONE,
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
    Range(RangeResult),
    Txn(TxnAnswer),
    Append { value_bytes: u64 },
    Move { moved: u64 },
    Restore { put: u64, deleted: u64 },
}
