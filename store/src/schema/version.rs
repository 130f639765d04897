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

/// One version of a key as it lies in its row: nothing is copied.
#[derive(Clone, Copy, Debug)]
pub struct VersionRef<'r> {
    /// Place among the changes of its revision.
    pub sub: u32,
    pub tombstone: bool,
    pub revision: Revision,
    pub time: Time,
    /// This and what follows is of no meaning for a tombstone.
    pub create_revision: Revision,
    pub version: u64,
    pub lease: LeaseId,
    pub content_revision: Revision,
    pub content_time: Time,
    pub birth_revision: Revision,
    /// Checked only with [`Want::Value`].
    pub value: &'r [u8],
}

impl VersionRef<'_> {
    /// The version of `key`, with what of the value was copied.
    #[inline]
    pub(crate) fn into_row(self, key: Bytes, value: Bytes) -> KeyRow {
        let kv = KeyValue {
            key,
            value,
            value_bytes: u64::try_from(self.value.len()).unwrap_or(u64::MAX),
            create_revision: self.create_revision,
            mod_revision: self.revision,
            version: self.version,
            lease: self.lease,
            time: self.time,
            content_revision: self.content_revision,
            content_time: self.content_time,
            birth_revision: self.birth_revision,
        };
        KeyRow { sub: self.sub, tombstone: self.tombstone, kv }
    }
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
    let version = decode_key_row_ref(row, revision, value, want)?;
    let content = match want {
        Want::Value => Bytes::copy_from_slice(version.value),
        Want::Header => Bytes::new(),
    };
    Ok(version.into_row(key, content))
}

/// As [`decode_key_row`], without copying.
///
/// # Errors
/// As [`decode_key_row`].
#[inline]
pub(crate) fn decode_key_row_ref<'r>(
    row: &[u8],
    revision: Revision,
    value: &'r [u8],
    want: Want,
) -> Result<VersionRef<'r>, RowError> {
    read_version(row, revision, value, want).map_err(row_error(Tree::Keys, row))
}

#[inline]
fn read_version<'r>(
    row: &[u8],
    revision: Revision,
    value: &'r [u8],
    want: Want,
) -> Result<VersionRef<'r>, DecodeError> {
    check_held_length(value, 4)?;
    let mut reader = Reader::new(value);
    let expected = reader.u32("checksum")?;
    reader.raw("length", KEY_PREAMBLE - 4)?;
    let value_crc = reader.u32("value checksum")?;
    let flags = reader.u8("flags")?;
    if flags > 15 || (flags & KEY_TOMBSTONE != 0 && flags != KEY_TOMBSTONE) {
        return Err(reader.error("flags", Problem::UnknownTag { tag: u32::from(flags) }));
    }
    let mut version = VersionRef {
        sub: reader.u32("sub")?,
        tombstone: flags & KEY_TOMBSTONE != 0,
        revision,
        time: Time(reader.i64("time")?),
        create_revision: Revision::NONE,
        version: 0,
        lease: LeaseId::NONE,
        content_revision: Revision::NONE,
        content_time: Time::default(),
        birth_revision: Revision::NONE,
        value: &[],
    };
    if !version.tombstone {
        (version.create_revision, version.version) = if flags & KEY_FIRST != 0 {
            (revision, 1)
        } else {
            (Revision(reader.u64("create revision")?), reader.u64("version")?)
        };
        if flags & KEY_LEASE != 0 {
            version.lease = LeaseId(reader.i64("lease")?);
        }
        (version.content_revision, version.content_time, version.birth_revision) =
            (version.revision, version.time, version.create_revision);
        if flags & KEY_CARRIED != 0 {
            version.content_revision = Revision(reader.u64("content revision")?);
            version.content_time = Time(reader.i64("content time")?);
            version.birth_revision = Revision(reader.u64("birth revision")?);
        }
    }
    let header_end = value.len() - reader.left();
    let found = checksum(Tree::Keys, row, &value[4..header_end]);
    if found != expected {
        return Err(reader.error("checksum", Problem::Checksum { found, expected }));
    }
    version.value = &value[header_end..];
    if want == Want::Value {
        let found = crc32c::crc32c(version.value);
        if found != value_crc {
            let problem = Problem::Checksum { found, expected: value_crc };
            return Err(reader.error("value checksum", problem));
        }
    }
    Ok(version)
}
