//! The stored form of [`Attributes`], version 1. Numbers are big-endian:
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | format version: 1 |
//! | 1 | kind: 1 file, 2 directory, 3 symlink, 4 fifo, 5 socket, 6 character device, 7 block device |
//! | 2 | mode, at most 07777 |
//! | 1 | which of the next three follow: 1 uid, 2 gid, 4 mtime |
//! | 4, 4, 8 | uid, gid, mtime in nanoseconds since the epoch (signed) |
//! | 4 | device number, for kinds 6 and 7 only |
//! | 2 | number of xattrs |
//! | 1 + n | of each xattr, in ascending order of names: the name (1 to 255 bytes) |
//! | 4 + n | and its value |
//!
//! Decoding accepts only what encoding produces, so equal attributes are equal bytes.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut, TryGetError};
use revfs_api::keyspace::{KeyValue, Revision, Time};

use super::xattrs::{XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XATTRS_BYTES_MAX, xattrs_bytes};
use super::{Attributes, Kind};

const FORMAT_VERSION: u8 = 1;
const HAS_UID: u8 = 1;
const HAS_GID: u8 = 2;
const HAS_MTIME: u8 = 4;

/// No record is longer: besides 25 bytes, an xattr takes 4 more than the bound on all xattrs counts,
/// which is at least 2.
pub const RECORD_BYTES_MAX: usize = 25 + 3 * XATTRS_BYTES_MAX;

/// Why a stored value is no side record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("side record of format {version}: this program knows {FORMAT_VERSION}")]
    Version { version: u8 },
    #[error("side record of {bytes} bytes ends too early: {wanted} wanted, {left} left")]
    Short { bytes: usize, wanted: usize, left: usize },
    #[error("side record of {bytes} bytes: {what} is {value}")]
    Field { bytes: usize, what: &'static str, value: u64 },
}

/// A side record as it was read, with what decides whether it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub attributes: Attributes,
    pub content_revision: Revision,
    /// Commit time of the record.
    pub time: Time,
}

impl Record {
    /// # Errors
    /// [`RecordError`] if the value is none; the caller logs it and goes on without a record.
    pub fn read(kv: &KeyValue) -> Result<Self, RecordError> {
        let attributes = Attributes::decode(&kv.value)?;
        Ok(Self { attributes, content_revision: kv.content_revision, time: kv.time })
    }

    /// Whether the record belongs to the present life of `file` and not to a directory.
    #[must_use]
    pub fn is_of_file(&self, file: &KeyValue) -> bool {
        self.holds_for(file) && self.attributes.kind != Kind::Directory
    }

    /// Whether the record belongs to the directory that `marker` has kept since it was last made.
    #[must_use]
    pub fn is_of_directory(&self, marker: &KeyValue) -> bool {
        self.holds_for(marker) && self.attributes.kind == Kind::Directory
    }

    fn holds_for(&self, file: &KeyValue) -> bool {
        self.content_revision >= file.birth_revision
    }
}

impl Attributes {
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out =
            BytesMut::with_capacity(25 + xattrs_bytes(&self.xattrs) + self.xattrs.len() * 4);
        let (kind, rdev) = kind_number(self.kind);
        let present = |has: bool, bit: u8| if has { bit } else { 0 };
        out.put_u8(FORMAT_VERSION);
        out.put_u8(kind);
        out.put_u16(self.mode & 0o7777);
        out.put_u8(
            present(self.uid.is_some(), HAS_UID)
                | present(self.gid.is_some(), HAS_GID)
                | present(self.mtime.is_some(), HAS_MTIME),
        );
        for number in [self.uid, self.gid].into_iter().flatten() {
            out.put_u32(number);
        }
        if let Some(Time(mtime)) = self.mtime {
            out.put_i64(mtime);
        }
        if let Some(rdev) = rdev {
            out.put_u32(rdev);
        }
        out.put_u16(u16::try_from(self.xattrs.len()).expect("bounded by the bytes of all xattrs"));
        for (name, value) in &self.xattrs {
            out.put_u8(u8::try_from(name.len()).expect("bounded by XATTR_NAME_BYTES_MAX"));
            out.put_slice(name);
            out.put_u32(u32::try_from(value.len()).expect("bounded by XATTR_VALUE_BYTES_MAX"));
            out.put_slice(value);
        }
        out.freeze()
    }

    /// # Errors
    /// [`RecordError`] for everything that [`Self::encode`] does not produce.
    pub fn decode(record: &Bytes) -> Result<Self, RecordError> {
        let bytes = record.len();
        let short = |error| short(bytes, &error);
        let field = |what, value: u64| RecordError::Field { bytes, what, value };
        let mut rest = record.clone();

        let version = rest.try_get_u8().map_err(short)?;
        if version != FORMAT_VERSION {
            return Err(RecordError::Version { version });
        }
        let kind = rest.try_get_u8().map_err(short)?;
        let mode = rest.try_get_u16().map_err(short)?;
        if mode > 0o7777 {
            return Err(field("mode", mode.into()));
        }
        let present = rest.try_get_u8().map_err(short)?;
        if present > (HAS_UID | HAS_GID | HAS_MTIME) {
            return Err(field("the byte of what is present", present.into()));
        }
        let number = |bit, rest: &mut Bytes| {
            (present & bit != 0).then(|| rest.try_get_u32()).transpose().map_err(short)
        };
        let uid = number(HAS_UID, &mut rest)?;
        let gid = number(HAS_GID, &mut rest)?;
        let mtime = (present & HAS_MTIME != 0).then(|| rest.try_get_i64()).transpose();
        let mtime = mtime.map_err(short)?.map(Time);
        let kind = match kind {
            1 => Kind::File,
            2 => Kind::Directory,
            3 => Kind::Symlink,
            4 => Kind::Fifo,
            5 => Kind::Socket,
            6 => Kind::CharDevice { rdev: rest.try_get_u32().map_err(short)? },
            7 => Kind::BlockDevice { rdev: rest.try_get_u32().map_err(short)? },
            other => return Err(field("kind", other.into())),
        };
        let xattrs = decode_xattrs(&mut rest, bytes)?;
        if !rest.is_empty() {
            return Err(field("the number of bytes after the end", rest.len() as u64));
        }
        Ok(Self { kind, mode, uid, gid, mtime, xattrs })
    }
}

fn decode_xattrs(rest: &mut Bytes, bytes: usize) -> Result<BTreeMap<Bytes, Bytes>, RecordError> {
    let short = |error| short(bytes, &error);
    let field = |what, value: usize| RecordError::Field { bytes, what, value: value as u64 };
    let count = rest.try_get_u16().map_err(short)?;
    let mut xattrs = BTreeMap::new();
    for index in 0..usize::from(count) {
        let name_bytes = usize::from(rest.try_get_u8().map_err(short)?);
        if name_bytes == 0 {
            return Err(field("a name's length", name_bytes));
        }
        let name = try_split(rest, name_bytes).map_err(short)?;
        let value_bytes = rest.try_get_u32().map_err(short)?;
        let value_bytes = usize::try_from(value_bytes).unwrap_or(usize::MAX);
        if value_bytes > XATTR_VALUE_BYTES_MAX {
            return Err(field("a value's length", value_bytes));
        }
        let value = try_split(rest, value_bytes).map_err(short)?;
        if xattrs.last_key_value().is_some_and(|(last, _)| *last >= name) {
            return Err(field("the index of a name out of order", index));
        }
        xattrs.insert(name, value);
    }
    let all = xattrs_bytes(&xattrs);
    if all > XATTRS_BYTES_MAX {
        return Err(field("the length of all xattrs", all));
    }
    Ok(xattrs)
}

fn short(bytes: usize, error: &TryGetError) -> RecordError {
    RecordError::Short { bytes, wanted: error.requested, left: error.available }
}

fn try_split(rest: &mut Bytes, requested: usize) -> Result<Bytes, TryGetError> {
    if rest.len() < requested {
        return Err(TryGetError { requested, available: rest.len() });
    }
    Ok(rest.split_to(requested))
}

fn kind_number(kind: Kind) -> (u8, Option<u32>) {
    match kind {
        Kind::File => (1, None),
        Kind::Directory => (2, None),
        Kind::Symlink => (3, None),
        Kind::Fifo => (4, None),
        Kind::Socket => (5, None),
        Kind::CharDevice { rdev } => (6, Some(rdev)),
        Kind::BlockDevice { rdev } => (7, Some(rdev)),
    }
}

const _: () = assert!(XATTR_NAME_BYTES_MAX == u8::MAX as usize, "a name's length is one byte");
