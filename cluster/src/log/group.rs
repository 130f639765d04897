//! The bytes of a group: what one flush makes durable, whole or not at all.
//!
//! ```text
//! group   magic "RVG1" 4 | header CRC32C 4 | log nonce 8 | number 8 | own position 8
//!         | end of the previous group 8 | length of the records 4 | salt 4
//!         | records | zeros up to a multiple of 8
//! record  CRC32C 4 | length of the body 4 | kind 1 | body
//! ```
//!
//! All numbers are big-endian. The header's checksum covers what follows it in the header. It is the
//! seed of every record's checksum, which covers length, kind and body: a record belongs to its
//! group alone. What an earlier use of the segment or a torn write of the same group number left
//! behind therefore never passes, not even where its boundaries match: the salt is new at each open.
//! Nonce and position keep a copy of log bytes inside a value from ever being taken for a group.
//!
//! Nothing here touches a file, and no input makes it panic.

use std::ops::Range;

use super::{LogId, State, Vote};
use crate::fields::Fields;

pub(super) const HEADER_BYTES: u32 = 48;
pub(super) const RECORD_HEADER_BYTES: u32 = 9;
/// Groups begin at multiples of this, so that a search for them looks at few offsets.
pub(super) const ALIGNMENT: u32 = 8;
const MAGIC: [u8; 4] = *b"RVG1";

/// A place in the log: segments are numbered without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) segment: u32,
    pub(super) offset: u32,
}

impl Position {
    pub(super) fn to_u64(self) -> u64 {
        (u64::from(self.segment) << 32) | u64::from(self.offset)
    }

    pub(super) fn from_u64(packed: u64) -> Self {
        let low = packed & u64::from(u32::MAX);
        Self {
            segment: u32::try_from(packed >> 32).expect("the upper half of 64 bits"),
            offset: u32::try_from(low).expect("the lower half of 64 bits"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) nonce: u64,
    pub(super) number: u64,
    pub(super) position: Position,
    pub(super) previous_end: Position,
    pub(super) length: u32,
    pub(super) salt: u32,
}

impl Header {
    /// Offset just behind the group, where the next one begins; `None` where no segment is that
    /// large.
    pub(super) fn end(&self) -> Option<u32> {
        self.position
            .offset
            .checked_add(HEADER_BYTES)?
            .checked_add(self.length)?
            .checked_next_multiple_of(ALIGNMENT)
    }

    fn encode(&self) -> ([u8; HEADER_BYTES as usize], u32) {
        let mut bytes = [0; HEADER_BYTES as usize];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.nonce.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.position.to_u64().to_be_bytes());
        bytes[32..40].copy_from_slice(&self.previous_end.to_u64().to_be_bytes());
        bytes[40..44].copy_from_slice(&self.length.to_be_bytes());
        bytes[44..].copy_from_slice(&self.salt.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_be_bytes());
        (bytes, crc)
    }

    /// The header at the start of `bytes` and its checksum, if it is whole.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Self, u32)> {
        let bytes = bytes.get(..HEADER_BYTES as usize)?;
        if bytes[..4] != MAGIC {
            return None;
        }
        let mut fields = Fields(&bytes[4..]);
        let crc = fields.u32()?;
        if crc32c::crc32c(&bytes[8..]) != crc {
            return None;
        }
        let header = Self {
            nonce: fields.u64()?,
            number: fields.u64()?,
            position: Position::from_u64(fields.u64()?),
            previous_end: Position::from_u64(fields.u64()?),
            length: fields.u32()?,
            salt: fields.u32()?,
        };
        Some((header, crc))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    Entry {
        id: LogId,
        kind: u8,
        payload: &'a [u8],
    },
    Vote(Vote),
    TruncateAfter(Option<LogId>),
    Purge(LogId),
    Committed(LogId),
    /// First record of each segment: the state that the earlier segments, which may be gone, add up
    /// to.
    State(State),
}

const KIND_ENTRY: u8 = 1;
const KIND_VOTE: u8 = 2;
const KIND_TRUNCATE_AFTER: u8 = 3;
const KIND_PURGE: u8 = 4;
const KIND_COMMITTED: u8 = 5;
const KIND_STATE: u8 = 6;

/// Bytes that an entry takes in a group besides its payload.
pub(super) const ENTRY_OVERHEAD_BYTES: u32 = RECORD_HEADER_BYTES + 17;
/// The largest state record.
pub(super) const STATE_BYTES_MAX: u32 = RECORD_HEADER_BYTES + 18 + 3 * 17;

/// Builds a group; its buffer is used again for the next.
#[derive(Default)]
pub(super) struct GroupBuilder {
    bytes: Vec<u8>,
    /// Where each record begins in `bytes`.
    records: Vec<usize>,
}

impl GroupBuilder {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(HEADER_BYTES as usize, 0);
        self.records.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Length of the whole group so far, padding included.
    pub(super) fn total_bytes(&self) -> usize {
        self.bytes.len().next_multiple_of(ALIGNMENT as usize)
    }

    /// Returns where the record begins, counted from the start of the group.
    pub(super) fn push(&mut self, record: &Record<'_>) -> u32 {
        let begin = self.bytes.len();
        self.records.push(begin);
        self.bytes.extend_from_slice(&[0; 8]);
        match record {
            Record::Entry { id, kind, payload } => {
                self.bytes.push(KIND_ENTRY);
                self.push_id(*id);
                self.bytes.push(*kind);
                self.bytes.extend_from_slice(payload);
            }
            Record::Vote(vote) => {
                self.bytes.push(KIND_VOTE);
                self.push_vote(*vote);
            }
            Record::TruncateAfter(id) => {
                self.bytes.push(KIND_TRUNCATE_AFTER);
                self.push_optional_id(*id);
            }
            Record::Purge(id) => {
                self.bytes.push(KIND_PURGE);
                self.push_id(*id);
            }
            Record::Committed(id) => {
                self.bytes.push(KIND_COMMITTED);
                self.push_id(*id);
            }
            Record::State(state) => {
                self.bytes.push(KIND_STATE);
                match state.vote {
                    None => self.bytes.push(0),
                    Some(vote) => {
                        self.bytes.push(1);
                        self.push_vote(vote);
                    }
                }
                self.push_optional_id(state.purged);
                self.push_optional_id(state.committed);
                self.push_optional_id(state.last);
            }
        }
        let body = self.bytes.len() - begin - RECORD_HEADER_BYTES as usize;
        let body = u32::try_from(body).expect("callers bound a group far below 4 GiB");
        self.bytes[begin + 4..begin + 8].copy_from_slice(&body.to_be_bytes());
        u32::try_from(begin).expect("callers bound a group far below 4 GiB")
    }

    fn push_id(&mut self, id: LogId) {
        self.bytes.extend_from_slice(&id.term.to_be_bytes());
        self.bytes.extend_from_slice(&id.index.to_be_bytes());
    }

    fn push_optional_id(&mut self, id: Option<LogId>) {
        self.bytes.push(u8::from(id.is_some()));
        if let Some(id) = id {
            self.push_id(id);
        }
    }

    fn push_vote(&mut self, vote: Vote) {
        self.bytes.extend_from_slice(&vote.term.to_be_bytes());
        self.bytes.extend_from_slice(&vote.node.to_be_bytes());
        self.bytes.push(u8::from(vote.committed));
    }

    /// Completes header and checksums: returns the group's bytes and the seed of its records.
    pub(super) fn finish(&mut self, mut header: Header) -> (&[u8], u32) {
        let length = self.bytes.len() - HEADER_BYTES as usize;
        header.length = u32::try_from(length).expect("callers bound a group far below 4 GiB");
        let (head, seed) = header.encode();
        self.bytes[..HEADER_BYTES as usize].copy_from_slice(&head);
        let ends = self.records.iter().skip(1).copied().chain([self.bytes.len()]);
        for (&begin, end) in self.records.iter().zip(ends.collect::<Vec<_>>()) {
            let crc = crc32c::crc32c_append(seed, &self.bytes[begin + 4..end]);
            self.bytes[begin..begin + 4].copy_from_slice(&crc.to_be_bytes());
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
        (&self.bytes, seed)
    }
}

/// Why bytes are not the group that was looked for, and where that shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Invalid {
    pub(super) offset: u32,
    pub(super) reason: &'static str,
}

/// A record and the place of its bytes in the segment.
pub(super) type PlacedRecord<'a> = (Range<u32>, Record<'a>);

/// Decodes the group that `header` begins. `segment` holds the segment's bytes from offset 0.
pub(super) fn decode_records<'a>(
    segment: &'a [u8],
    header: &Header,
    seed: u32,
) -> Result<Vec<PlacedRecord<'a>>, Invalid> {
    let begin = header.position.offset;
    let invalid = |offset: u32, reason| Invalid { offset, reason };
    let end = header.end().ok_or_else(|| invalid(begin, "a group longer than any segment"))?;
    if usize::try_from(end).is_ok_and(|end| end > segment.len()) {
        return Err(invalid(begin, "a group that runs over the end of the file"));
    }
    let mut records = Vec::new();
    let mut at = begin + HEADER_BYTES;
    let records_end = at + header.length;
    while at < records_end {
        let Some((length, record)) =
            decode_record(&segment[at as usize..records_end as usize], seed)
        else {
            return Err(invalid(at, "a record whose checksum does not match"));
        };
        records.push((at..at + length, record));
        at += length;
    }
    if segment[records_end as usize..end as usize].iter().any(|&byte| byte != 0) {
        return Err(invalid(records_end, "padding that is not zero"));
    }
    if records.is_empty() {
        return Err(invalid(begin, "a group without records"));
    }
    Ok(records)
}

/// The record at the start of `bytes` and its whole length; `None` if it is not intact.
pub(super) fn decode_record(bytes: &[u8], seed: u32) -> Option<(u32, Record<'_>)> {
    let mut fields = Fields(bytes);
    let crc = fields.u32()?;
    let body = fields.u32()?;
    let length = RECORD_HEADER_BYTES.checked_add(body)?;
    let whole = bytes.get(..usize::try_from(length).ok()?)?;
    if crc32c::crc32c_append(seed, &whole[4..]) != crc {
        return None;
    }
    let mut fields = Fields(&whole[8..]);
    let record = match fields.u8()? {
        KIND_ENTRY => {
            let id = fields.id()?;
            let kind = fields.u8()?;
            let payload = fields.rest();
            Record::Entry { id, kind, payload }
        }
        KIND_VOTE => Record::Vote(fields.vote()?),
        KIND_TRUNCATE_AFTER => Record::TruncateAfter(fields.optional_id()?),
        KIND_PURGE => Record::Purge(fields.id()?),
        KIND_COMMITTED => Record::Committed(fields.id()?),
        KIND_STATE => {
            let vote = if fields.bool()? { Some(fields.vote()?) } else { None };
            Record::State(State {
                vote,
                purged: fields.optional_id()?,
                committed: fields.optional_id()?,
                last: fields.optional_id()?,
            })
        }
        _ => return None,
    };
    fields.0.is_empty().then_some((length, record))
}

impl Fields<'_> {
    fn id(&mut self) -> Option<LogId> {
        Some(LogId { term: self.u64()?, index: self.u64()? })
    }

    fn optional_id(&mut self) -> Option<Option<LogId>> {
        if self.bool()? { Some(Some(self.id()?)) } else { Some(None) }
    }

    fn vote(&mut self) -> Option<Vote> {
        Some(Vote { term: self.u64()?, node: self.u64()?, committed: self.bool()? })
    }
}
