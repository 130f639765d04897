//! One version of a key: the value of a row of *keys*.

use bytes::Bytes;

use super::{RowError, Tree, check_held_length, checksum, held_length, row_error};
use crate::codec::{DecodeError, Problem, Reader, Writer};
use crate::types::{KeyValue, LeaseId, Revision, Time};

const KEY_TOMBSTONE: u8 = 1;
const KEY_LEASE: u8 = 2;
const KEY_CARRIED: u8 = 4;

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
    let mut header = Writer::with_capacity(80 + kv.value.len());
    header.u32(0);
    let value = if *tombstone { &[][..] } else { kv.value.as_ref() };
    header.u32(crc32c::crc32c(value));
    let mut flags = 0;
    flags |= if *tombstone { KEY_TOMBSTONE } else { 0 };
    flags |= if !tombstone && kv.lease != LeaseId::NONE { KEY_LEASE } else { 0 };
    flags |= if !tombstone && is_carried { KEY_CARRIED } else { 0 };
    header.u8(flags);
    header.u32(*sub);
    header.i64(kv.time.0);
    if !tombstone {
        header.u64(kv.create_revision.0);
        header.u64(kv.version);
    }
    if flags & KEY_LEASE != 0 {
        header.i64(kv.lease.0);
    }
    if flags & KEY_CARRIED != 0 {
        header.u64(kv.content_revision.0);
        header.i64(kv.content_time.0);
        header.u64(kv.birth_revision.0);
    }
    let mut header = header.into_vec();
    let length = held_length(4 + header.len() + value.len());
    header[..4].copy_from_slice(&length.to_be_bytes());
    let crc = checksum(Tree::Keys, row, &header);
    let mut out = Vec::with_capacity(4 + header.len() + value.len());
    out.extend_from_slice(&crc.to_be_bytes());
    out.append(&mut header);
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
    if flags > 7 || (flags & KEY_TOMBSTONE != 0 && flags != KEY_TOMBSTONE) {
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
        kv.create_revision = Revision(reader.u64("create revision")?);
        kv.version = reader.u64("version")?;
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
