//! The rows of *meta*: the format, and where the store stands.

use bytes::Bytes;

use super::{
    FORMAT_MAGIC, RowError, Tree, check_held_length, held_length, opened, row_error, sealed,
};
use crate::codec::{Problem, Reader, Writer};
use crate::types::{Revision, Time};

pub const ROW_FORMAT: &[u8] = b"format";
pub const ROW_STATE: &[u8] = b"state";

#[must_use]
pub fn encode_format(version: u32) -> [u8; 12] {
    let mut value = [0; 12];
    value[..8].copy_from_slice(&FORMAT_MAGIC);
    value[8..].copy_from_slice(&version.to_be_bytes());
    value
}

/// Returns the format version; `None` if the magic is missing.
#[must_use]
pub fn decode_format(value: &[u8]) -> Option<u32> {
    let version = value.strip_prefix(&FORMAT_MAGIC)?;
    Some(u32::from_be_bytes(version.try_into().ok()?))
}

/// Where the store stands, as of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateRow {
    /// The LMDB transaction that wrote this row: compared with the one that LMDB found at open,
    /// because its meta pages have no checksum.
    pub txn: u64,
    pub current: Revision,
    /// `None` before the first compaction.
    pub compacted: Option<Revision>,
    /// Time of the current revision.
    pub time: Time,
    /// Index, term and opaque bytes of the last applied log entry; `None` before the first.
    pub applied: Option<(u64, u64, Bytes)>,
    pub pass: CompactionPass,
    /// In ascending order.
    pub skips: Vec<Skip>,
}

/// Revisions above `after` and below `until` that a restore left out: the cluster that was backed up may
/// have made such and lost them, so that nobody who has seen one may be taken for up to date. `until`
/// itself shows what `after` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skip {
    pub after: Revision,
    pub until: Revision,
}

impl Skip {
    #[must_use]
    pub fn holds(self, revision: Revision) -> bool {
        self.after < revision && revision < self.until
    }
}

/// How far physical compaction has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionPass {
    /// Rows that the compaction at this revision forgot are gone.
    pub done: Revision,
    /// The pass in progress ends at this revision; none if no pass is in progress.
    pub target: Revision,
    /// The first revision that the pass in progress has still to visit.
    pub next: Revision,
}

#[must_use]
pub fn encode_state(state: &StateRow) -> Vec<u8> {
    let mut body = Writer::with_capacity(96);
    body.u32(0);
    body.u64(state.txn);
    body.u64(state.current.0);
    body.u64(state.compacted.map_or(0, |revision| revision.0 + 1));
    body.i64(state.time.0);
    body.u64(state.pass.done.0);
    body.u64(state.pass.target.0);
    body.u64(state.pass.next.0);
    match &state.applied {
        None => body.u8(0),
        Some((index, term, raft)) => {
            body.u8(1);
            body.u64(*index);
            body.u64(*term);
            body.bytes(raft).expect("a log id and a membership are far below 4 GiB");
        }
    }
    for Skip { after, until } in &state.skips {
        body.u64(after.0);
        body.u64(until.0);
    }
    let mut body = body.into_vec();
    let length = held_length(4 + body.len());
    body[..4].copy_from_slice(&length.to_be_bytes());
    sealed(Tree::Meta, ROW_STATE, &body)
}

/// # Errors
/// A row whose checksum, length or fields are wrong.
pub fn decode_state(value: &[u8]) -> Result<StateRow, RowError> {
    let read = || {
        check_held_length(value, 4)?;
        let mut reader = Reader::new(opened(Tree::Meta, ROW_STATE, value)?);
        reader.raw("length", 4)?;
        let txn = reader.u64("transaction")?;
        let current = Revision(reader.u64("current")?);
        let compacted = reader.u64("compacted")?.checked_sub(1).map(Revision);
        let time = Time(reader.i64("time")?);
        let pass = CompactionPass {
            done: Revision(reader.u64("pass done")?),
            target: Revision(reader.u64("pass target")?),
            next: Revision(reader.u64("pass next")?),
        };
        let applied = match reader.u8("applied")? {
            0 => None,
            1 => {
                let index = reader.u64("applied index")?;
                let term = reader.u64("applied term")?;
                Some((index, term, Bytes::copy_from_slice(reader.bytes("raft")?)))
            }
            other => {
                return Err(reader.error("applied", Problem::UnknownTag { tag: u32::from(other) }));
            }
        };
        let mut skips: Vec<Skip> = Vec::new();
        while reader.left() > 0 {
            let after = Revision(reader.u64("skip after")?);
            let until = Revision(reader.u64("skip until")?);
            let before = skips.last().map_or(Revision::NONE, |skip| skip.until);
            if after < before || until <= after || until > current {
                return Err(reader.error("skip until", Problem::OutOfBounds { value: until.0 }));
            }
            skips.push(Skip { after, until });
        }
        Ok(StateRow { txn, current, compacted, time, applied, pass, skips })
    };
    read().map_err(row_error(Tree::Meta, ROW_STATE))
}
