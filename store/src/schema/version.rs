//! One version of a key: the value of a row of *keys*.

use bytes::Bytes;

use super::{RowError, Tree, check_held_length, checksum, held_length, row_error};
use crate::codec::{DecodeError, Problem, Reader, Writer};
use crate::types::{KeyValue, LeaseId, Revision, Time};

const KEY_TOMBSTONE: u8 = 1;
const KEY_LEASE: u8 = 2;
const KEY_CARRIED: u8 = 4;
/// First of its life: created at its own revision, version 1.
const KEY_FIRST: u8 = 8;

/// Bytes of a key's row before its value that every version has.
const KEY_FIXED_BYTES: usize = 25;

/// Bytes before the header of a key's row: checksum of the header, length of the value.
const KEY_PREAMBLE: usize = 8;

/// One row of *keys*.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// Place among the changes of its revision.
    pub sub: u32,
    pub tombstone: bool,
    /// For a tombstone only `key`, `mod_revision` and `time` are set.
    pub kv: KeyValue,
}

/// The value of a row of *keys*.
#[must_use]
pub fn encode_key_row(row: &[u8], version: &KeyRow) -> Vec<u8> {
    let KeyRow { sub, tombstone, kv } = version;
    let is_carried = kv.content_revision != kv.mod_revision
        || kv.content_time != kv.time
        || kv.birth_revision != kv.create_revision;
    let is_first = kv.create_revision == kv.mod_revision && kv.version == 1;
    let value = if *tombstone { &[][..] } else { kv.value.as_ref() };
    let mut flags = 0;
    flags |= if *tombstone { KEY_TOMBSTONE } else { 0 };
    flags |= if !tombstone && kv.lease != LeaseId::NONE { KEY_LEASE } else { 0 };
    flags |= if !tombstone && is_carried { KEY_CARRIED } else { 0 };
    flags |= if !tombstone && is_first { KEY_FIRST } else { 0 };
    let field = |is_there: bool, bytes: usize| if is_there { bytes } else { 0 };
    let has_life = !tombstone && !is_first;
    let fields = field(has_life, 16) + field(flags & KEY_LEASE != 0, 8);
    let header_bytes = KEY_FIXED_BYTES + fields + field(flags & KEY_CARRIED != 0, 24);
    let mut out = Writer::with_capacity(header_bytes + value.len());
    // The checksum's place.
    out.u32(0);
    out.u32(held_length(header_bytes + value.len()));
    out.u32(crc32c::crc32c(value));
    out.u8(flags);
    out.u32(*sub);
    out.i64(kv.time.0);
    if has_life {
        out.u64(kv.create_revision.0);
        out.u64(kv.version);
    }
    if flags & KEY_LEASE != 0 {
        out.i64(kv.lease.0);
    }
    if flags & KEY_CARRIED != 0 {
        out.u64(kv.content_revision.0);
        out.i64(kv.content_time.0);
        out.u64(kv.birth_revision.0);
    }
    let mut out = out.into_vec();
    debug_assert_eq!(out.len(), header_bytes, "the length stands in the header");
    let crc = checksum(Tree::Keys, row, &out[4..]);
    out[..4].copy_from_slice(&crc.to_be_bytes());
    out.extend_from_slice(value);
    out
}

/// What a reader wants of a version's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    Value,
    Header,
}

/// Reads a row of *keys*. The caller gives `key` and `revision` as it read them from the row.
///
/// # Errors
/// A row whose checksum, length or flags are wrong. With [`Want::Header`] the value is not read.
pub fn decode_key_row(
    row: &[u8],
    key: Bytes,
    revision: Revision,
    value: &[u8],
    want: Want,
) -> Result<KeyRow, RowError> {
    decode_key_row_into(row, key, revision, value, want, Bytes::copy_from_slice)
}

/// As [`decode_key_row`], with the value copied by `copy`.
#[inline]
pub(crate) fn decode_key_row_into(
    row: &[u8],
    key: Bytes,
    revision: Revision,
    value: &[u8],
    want: Want,
    copy: impl FnOnce(&[u8]) -> Bytes,
) -> Result<KeyRow, RowError> {
    decode_version(row, key, revision, value, want, copy).map_err(row_error(Tree::Keys, row))
}

#[inline]
fn decode_version(
    row: &[u8],
    key: Bytes,
    revision: Revision,
    value: &[u8],
    want: Want,
    copy: impl FnOnce(&[u8]) -> Bytes,
) -> Result<KeyRow, DecodeError> {
    check_held_length(value, 4)?;
    let mut reader = Reader::new(value);
    let expected = reader.u32("checksum")?;
    reader.raw("length", KEY_PREAMBLE - 4)?;
    let value_crc = reader.u32("value checksum")?;
    let flags = reader.u8("flags")?;
    if flags > 15 || (flags & KEY_TOMBSTONE != 0 && flags != KEY_TOMBSTONE) {
        return Err(reader.error("flags", Problem::UnknownTag { tag: u32::from(flags) }));
    }
    let sub = reader.u32("sub")?;
    let mut kv = KeyValue {
        key,
        mod_revision: revision,
        time: Time(reader.i64("time")?),
        ..Default::default()
    };
    let tombstone = flags & KEY_TOMBSTONE != 0;
    if !tombstone {
        (kv.create_revision, kv.version) = if flags & KEY_FIRST != 0 {
            (revision, 1)
        } else {
            (Revision(reader.u64("create revision")?), reader.u64("version")?)
        };
        if flags & KEY_LEASE != 0 {
            kv.lease = LeaseId(reader.i64("lease")?);
        }
        (kv.content_revision, kv.content_time, kv.birth_revision) =
            (kv.mod_revision, kv.time, kv.create_revision);
        if flags & KEY_CARRIED != 0 {
            kv.content_revision = Revision(reader.u64("content revision")?);
            kv.content_time = Time(reader.i64("content time")?);
            kv.birth_revision = Revision(reader.u64("birth revision")?);
        }
    }
    let header_end = value.len() - reader.left();
    let found = checksum(Tree::Keys, row, &value[4..header_end]);
    if found != expected {
        return Err(reader.error("checksum", Problem::Checksum { found, expected }));
    }
    let content = &value[header_end..];
    kv.value_bytes = u64::try_from(content.len()).unwrap_or(u64::MAX);
    if want == Want::Value {
        let found = crc32c::crc32c(content);
        if found != value_crc {
            let problem = Problem::Checksum { found, expected: value_crc };
            return Err(reader.error("value checksum", problem));
        }
        kv.value = copy(content);
    }
    Ok(KeyRow { sub, tombstone, kv })
}
