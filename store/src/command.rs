//! What the log replicates: a [`Command`], its stable encoding, and the [`Outcome`] of applying it.
//!
//! A command carries everything that apply may not find out for itself: the leader's time, the
//! author, generated ids. The encoding is versioned by its first byte and specified in
//! docs/FORMAT.md; a command of an unknown kind is an error, because a member that skipped it would
//! diverge.

use bytes::Bytes;

use crate::alarm::Alarm;
use crate::auth::{AuthChange, AuthRefusal};
use crate::codec::{DecodeError, Problem, Reader, Writer};
use crate::member::{MemberChange, MemberRefusal};
use crate::types::{Author, KeyRange, LeaseId, Op, Revision, TXN_DEPTH_MAX, Time, Txn, TxnAnswer};

mod auth;
mod body;
mod compare;
mod member;
mod range;
mod tag;
mod upload;

pub use upload::UploadCommit;
pub(crate) use upload::{decode_ops, encode_ops};

/// First byte of every encoded command.
pub const COMMAND_FORMAT: u8 = 1;

/// One entry of the log, as the store sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The leader's stamp. Apply raises it to the time of the previous revision if it is older.
    pub time: Time,
    pub author: Author,
    pub note: Bytes,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Txn(Txn),
    /// Forgets history before `revision`. To wait for the space, see `Store::wait_compacted`.
    Compact {
        revision: Revision,
    },
    LeaseGrant {
        id: LeaseId,
        ttl_seconds: i64,
    },
    /// Deletes the keys of the lease, sorted, in one revision.
    LeaseRevoke {
        id: LeaseId,
    },
    /// Revokes a lease whose time is over by the clock of the leader of `term`. Does nothing in an
    /// entry of another term: a later leader has given the lease new time.
    LeaseExpire {
        id: LeaseId,
        term: u64,
    },
    /// Notes how much time leases had left by the clock of the leader of `term`, so that the next
    /// leader does not begin anew. As above in an entry of another term; leases that are gone
    /// meanwhile are passed over.
    LeaseCheckpoint {
        term: u64,
        /// Seconds left; 0 = its full time.
        remaining: Vec<(LeaseId, i64)>,
    },
    /// Raises or lifts an alarm of a member; apply consults those that are raised.
    Alarm {
        alarm: Alarm,
        is_raised: bool,
    },
    /// Keeps some of the operations of a transaction that is too large for one entry of the log. An
    /// upload has the number of the lease with which it ends; parts are numbered from 0 and come in
    /// any order.
    UploadPart {
        upload: LeaseId,
        part: u32,
        ops: Vec<Op>,
    },
    UploadCommit(UploadCommit),
    Auth(AuthChange),
    Member(MemberChange),
    /// Changes nothing: the place in the log at which members compare what they hold.
    Check,
    /// What a client asks for. It is refused if `user` may not have it, or if users and roles changed
    /// since it was found out, at `auth_revision`, that it is this user who asks. A body that is not
    /// wrapped is the node's own, and not asked by anybody. Requests do not nest.
    Request {
        user: String,
        auth_revision: u64,
        body: Box<Body>,
    },
}

impl Body {
    /// What is to be done, whoever asks.
    #[must_use]
    pub fn inner(&self) -> &Self {
        match self {
            Self::Request { body, .. } => body,
            own => own,
        }
    }
}

/// The answer of apply: the same on every member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The store's current revision after the command.
    pub revision: Revision,
    pub result: Result<Done, Refusal>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    Txn(TxnAnswer),
    Compacted,
    LeaseGranted {
        id: LeaseId,
        ttl_seconds: i64,
    },
    /// Also of an expiry.
    LeaseRevoked {
        deleted: u64,
    },
    LeasesNoted {
        leases: u64,
    },
    AlarmSet {
        changed: bool,
    },
    /// The part is kept, now or since it came for the first time.
    UploadKept {
        parts: u32,
    },
    /// Users, roles or whether they matter; also if it was so already.
    AuthSet {
        auth_revision: u64,
    },
    MemberSet {
        changed: bool,
    },
    Checked,
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("key is empty")]
    KeyEmpty,
    #[error("key of {bytes} bytes (encoded) is longer than {max}")]
    KeyTooLong { bytes: usize, max: usize },
    #[error("value of {bytes} bytes is larger than {max}")]
    ValueTooLarge { bytes: usize, max: usize },
    /// `ignore_value` or `ignore_lease` on a key that does not exist.
    #[error("key not found")]
    KeyNotFound,
    #[error("duplicate key given in transaction")]
    DuplicateKey,
    #[error("requested lease not found")]
    LeaseNotFound,
    #[error("lease already exists")]
    LeaseExists,
    #[error("lease id 0 means no lease")]
    LeaseIdZero,
    #[error("decided by the leader of term {decided}, but this is an entry of term {entry}")]
    OtherTerm { decided: u64, entry: u64 },
    #[error("revision {requested} is compacted: history begins at {compacted}")]
    Compacted { requested: Revision, compacted: Revision },
    #[error("revision {requested} is in the future: the current one is {current}")]
    Future { requested: Revision, current: Revision },
    #[error("neither prefix of a move or exchange may begin with the other")]
    MoveOverlaps,
    #[error("an exchange is of two keys, or of two prefixes that end in /")]
    ExchangeMixed,
    #[error("transaction writes more than {max} rows")]
    TooManyRows { max: usize },
    #[error("transaction writes more than {max} bytes of values")]
    TooManyBytes { max: usize },
    /// The alarm NOSPACE is raised.
    #[error("mvcc: database space exceeded")]
    NoSpace,
    /// The alarm CORRUPT is raised.
    #[error("corrupt cluster")]
    Corrupt,
    #[error("upload {} has no parts: its lease has ended, or none was sent", .upload.0)]
    UploadNotFound { upload: LeaseId },
    #[error("part {part} of {parts} is missing: send it, then commit")]
    UploadPartMissing { part: u32, parts: u32 },
    #[error("part {part} is there, but only {parts} parts were to be committed")]
    UploadPartUnexpected { part: u32, parts: u32 },
    #[error("part {part} was sent already, with other operations")]
    UploadPartDiffers { part: u32 },
    #[error("part {part}: parts have numbers below {max}")]
    UploadPartNumber { part: u32, max: usize },
    #[error("part of {bytes} bytes is larger than {max}: send more, smaller parts")]
    UploadPartTooLarge { bytes: usize, max: usize },
    #[error("{max} uploads are under way: wait until one has ended")]
    TooManyUploads { max: usize },
    /// Of one upload, or of all.
    #[error("uploaded parts of more than {max} bytes")]
    UploadsTooLarge { max: u64 },
    #[error(transparent)]
    Auth(#[from] AuthRefusal),
    #[error(transparent)]
    Member(#[from] MemberRefusal),
}

/// A command that cannot be encoded; refused before it is proposed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("transactions nest deeper than {max}")]
    TooDeep { max: usize },
    #[error("field of {bytes} bytes does not fit in a command")]
    TooLong { bytes: usize },
    #[error("a request inside a request: wrap what the client asks for once")]
    RequestInRequest,
}

impl Command {
    /// Returns the bytes that the log replicates.
    ///
    /// # Errors
    /// A transaction nested too deep, or a field that is too long for the format.
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        let mut out = Encoder(Writer::with_capacity(128));
        out.0.u8(COMMAND_FORMAT);
        out.0.i64(self.time.0);
        out.bytes(self.author.principal.as_bytes())?;
        out.bytes(self.author.claimed.as_bytes())?;
        out.bytes(&self.note)?;
        out.body(&self.body)?;
        Ok(out.0.into_vec().into())
    }

    /// Reads what [`Command::encode`] wrote. Keys and values share the memory of `bytes`.
    ///
    /// # Errors
    /// Anything else than exactly one command of this format.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut input = Decoder { source: bytes, reader: Reader::new(bytes) };
        let format = input.reader.u8("command format")?;
        if format != COMMAND_FORMAT {
            return Err(input.unknown("command format", format));
        }
        let time = Time(input.reader.i64("time")?);
        let principal = input.reader.text("principal")?;
        let claimed = input.reader.text("claimed author")?;
        let note = input.bytes("note")?;
        let tag = input.reader.u8("body")?;
        let body = input.body(tag)?;
        input.reader.end("command")?;
        Ok(Self { time, author: Author { principal, claimed }, note, body })
    }
}

struct Encoder(Writer);

impl Encoder {
    fn bytes(&mut self, value: &[u8]) -> Result<(), EncodeError> {
        self.0.bytes(value).map_err(|bytes| EncodeError::TooLong { bytes })
    }

    fn count(&mut self, count: usize) -> Result<(), EncodeError> {
        let count = u32::try_from(count).map_err(|_| EncodeError::TooLong { bytes: count })?;
        self.0.u32(count);
        Ok(())
    }

    fn range(&mut self, range: &KeyRange) -> Result<(), EncodeError> {
        match range {
            KeyRange::Key(key) => {
                self.0.u8(tag::RANGE_KEY);
                self.bytes(key)
            }
            KeyRange::Span { start, end } => {
                self.0.u8(tag::RANGE_SPAN);
                self.bytes(start)?;
                self.bytes(end)
            }
            KeyRange::From(start) => {
                self.0.u8(tag::RANGE_FROM);
                self.bytes(start)
            }
        }
    }

    fn txn(&mut self, txn: &Txn, depth: usize) -> Result<(), EncodeError> {
        if depth > TXN_DEPTH_MAX {
            return Err(EncodeError::TooDeep { max: TXN_DEPTH_MAX });
        }
        self.compares(&txn.compares)?;
        self.branch(&txn.success, depth)?;
        self.branch(&txn.failure, depth)
    }

    fn branch(&mut self, ops: &[Op], depth: usize) -> Result<(), EncodeError> {
        self.count(ops.len())?;
        ops.iter().try_for_each(|op| self.op(op, depth))
    }

    fn op(&mut self, op: &Op, depth: usize) -> Result<(), EncodeError> {
        match op {
            Op::Put { key, value, lease, prev_kv, ignore_value, ignore_lease } => {
                self.0.u8(tag::OP_PUT);
                self.0.u8(flags(&[*prev_kv, *ignore_value, *ignore_lease]));
                self.0.i64(lease.0);
                self.bytes(key)?;
                self.bytes(value)
            }
            Op::Delete { range, prev_kv } => {
                self.0.u8(tag::OP_DELETE);
                self.0.u8(flags(&[*prev_kv]));
                self.range(range)
            }
            Op::Range(query) => self.range_query(query),
            Op::Txn(txn) => {
                self.0.u8(tag::OP_TXN);
                self.txn(txn, depth + 1)
            }
            Op::Append { key, value } => self.pair(tag::OP_APPEND, key, value),
            Op::Move { from, to } => self.pair(tag::OP_MOVE, from, to),
            Op::MoveKey { from, to } => self.pair(tag::OP_MOVE_KEY, from, to),
            Op::Exchange { a, b } => self.pair(tag::OP_EXCHANGE, a, b),
            Op::Restore { range, revision } => {
                self.0.u8(tag::OP_RESTORE);
                self.0.u64(revision.0);
                self.range(range)
            }
        }
    }

    fn pair(&mut self, tag: u8, first: &[u8], second: &[u8]) -> Result<(), EncodeError> {
        self.0.u8(tag);
        self.bytes(first)?;
        self.bytes(second)
    }
}

/// Flags in the order given, the first in the lowest bit.
fn flags(set: &[bool]) -> u8 {
    set.iter().enumerate().fold(0, |all, (bit, &is_set)| all | (u8::from(is_set) << bit))
}

struct Decoder<'a> {
    source: &'a Bytes,
    reader: Reader<'a>,
}

impl Decoder<'_> {
    fn unknown(&self, field: &'static str, tag: u8) -> DecodeError {
        self.reader.error(field, Problem::UnknownTag { tag: u32::from(tag) })
    }

    fn bytes(&mut self, field: &'static str) -> Result<Bytes, DecodeError> {
        let taken = self.reader.bytes(field)?;
        Ok(self.source.slice_ref(taken))
    }

    fn flags<const N: usize>(&mut self, field: &'static str) -> Result<[bool; N], DecodeError> {
        let byte = self.reader.u8(field)?;
        if u32::from(byte) >> N != 0 {
            return Err(self.unknown(field, byte));
        }
        Ok(std::array::from_fn(|bit| (byte >> bit) & 1 == 1))
    }

    fn remaining(&mut self) -> Result<Vec<(LeaseId, i64)>, DecodeError> {
        let leases = self.reader.count("leases")?;
        let one = |_| Ok((LeaseId(self.reader.i64("lease")?), self.reader.i64("remaining")?));
        (0..leases).map(one).collect()
    }

    fn range(&mut self) -> Result<KeyRange, DecodeError> {
        match self.reader.u8("range")? {
            tag::RANGE_KEY => Ok(KeyRange::Key(self.bytes("key")?)),
            tag::RANGE_SPAN => {
                Ok(KeyRange::Span { start: self.bytes("start")?, end: self.bytes("end")? })
            }
            tag::RANGE_FROM => Ok(KeyRange::From(self.bytes("start")?)),
            other => Err(self.unknown("range", other)),
        }
    }

    fn txn(&mut self, depth: usize) -> Result<Txn, DecodeError> {
        if depth > TXN_DEPTH_MAX {
            let value = u64::try_from(depth).unwrap_or(u64::MAX);
            return Err(self.reader.error("nesting", Problem::OutOfBounds { value }));
        }
        let compares = self.compares()?;
        let success = self.branch("success", depth)?;
        let failure = self.branch("failure", depth)?;
        Ok(Txn { compares, success, failure })
    }

    fn branch(&mut self, field: &'static str, depth: usize) -> Result<Vec<Op>, DecodeError> {
        let ops = self.reader.count(field)?;
        (0..ops).map(|_| self.op(depth)).collect()
    }

    fn op(&mut self, depth: usize) -> Result<Op, DecodeError> {
        match self.reader.u8("operation")? {
            tag::OP_PUT => {
                let [prev_kv, ignore_value, ignore_lease] = self.flags("put flags")?;
                let lease = LeaseId(self.reader.i64("lease")?);
                let key = self.bytes("key")?;
                let value = self.bytes("value")?;
                Ok(Op::Put { key, value, lease, prev_kv, ignore_value, ignore_lease })
            }
            tag::OP_DELETE => {
                let [prev_kv] = self.flags("delete flags")?;
                Ok(Op::Delete { range: self.range()?, prev_kv })
            }
            tag::OP_RANGE => Ok(Op::Range(self.range_query()?)),
            tag::OP_TXN => Ok(Op::Txn(self.txn(depth + 1)?)),
            tag::OP_APPEND => {
                Ok(Op::Append { key: self.bytes("key")?, value: self.bytes("value")? })
            }
            tag::OP_MOVE => Ok(Op::Move { from: self.bytes("from")?, to: self.bytes("to")? }),
            tag::OP_MOVE_KEY => {
                Ok(Op::MoveKey { from: self.bytes("from")?, to: self.bytes("to")? })
            }
            tag::OP_EXCHANGE => Ok(Op::Exchange { a: self.bytes("a")?, b: self.bytes("b")? }),
            tag::OP_RESTORE => {
                let revision = Revision(self.reader.u64("revision")?);
                Ok(Op::Restore { range: self.range()?, revision })
            }
            other => Err(self.unknown("operation", other)),
        }
    }
}
