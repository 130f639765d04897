//! The disk boundary: every tree of the LMDB environment, every row's key and value.
//!
//! docs/FORMAT.md specifies the same byte for byte and keeps checksums of these files: change both
//! or none, and raise [`FORMAT_VERSION`] when a store written before would be read differently.
//!
//! Every value begins with a CRC32C over the tree's number, the row's key and the rest of the value,
//! and every value of variable length says its length, so that a flipped bit, a zeroed page or a row
//! that stands under another key is an error and never data. The header of a key's row has a
//! checksum of its own, so that a listing need not read the values.

use std::fmt;

use bytes::Bytes;

use crate::codec::{DecodeError, Problem, Reader, Writer};
use crate::escape::{TERMINATOR, escape_into, is_plain, unescape};
use crate::types::{Author, DirectoryState, Revision, Stamp, Time};

mod alarm;
mod auth;
mod lease;
mod member;
mod state;
mod upload;
mod version;

pub use alarm::{alarm_row, decode_alarm, encode_alarm};
pub use auth::{
    AUTH_ROW, decode_auth, decode_role, decode_user, encode_auth, encode_role, encode_user,
};
pub use lease::{
    attachment_row, decode_attachment, decode_lease, encode_attachment, encode_lease, lease_row,
};
pub use member::{
    VERSION_ROW, decode_member, decode_version, encode_member, encode_version, member_row,
};
pub use state::{
    CompactionPass, ROW_FORMAT, ROW_STATE, Skip, StateRow, decode_format, decode_state,
    encode_format, encode_state,
};
pub use upload::{
    UploadState, decode_upload, decode_upload_ops, decode_upload_part, encode_upload,
    encode_upload_part, split_upload_row, upload_part_row, upload_row,
};
pub(crate) use version::decode_key_row_ref;
pub use version::{KeyRow, VersionRef, Want, decode_key_row, encode_key_row};

/// Raised when a store written by an older program would be read differently.
pub const FORMAT_VERSION: u32 = 1;

/// First bytes of the row `format` of the tree `meta`.
pub const FORMAT_MAGIC: [u8; 8] = *b"revfs-st";

/// LMDB's page size: fixed, so that a data directory can move between machines.
pub const PAGE_BYTES: usize = 4096;

/// The LMDB databases. The number is part of each row's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Tree {
    Meta = 0,
    Keys = 1,
    Revisions = 2,
    Names = 3,
    Directories = 4,
    Times = 5,
    Leases = 6,
    Attachments = 7,
    Users = 8,
    Roles = 9,
    Alarms = 10,
    Members = 11,
    Counters = 12,
    Uploads = 13,
}

impl Tree {
    pub const ALL: [Self; 14] = [
        Self::Meta,
        Self::Keys,
        Self::Revisions,
        Self::Names,
        Self::Directories,
        Self::Times,
        Self::Leases,
        Self::Attachments,
        Self::Users,
        Self::Roles,
        Self::Alarms,
        Self::Members,
        Self::Counters,
        Self::Uploads,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Keys => "keys",
            Self::Revisions => "revisions",
            Self::Names => "names",
            Self::Directories => "directories",
            Self::Times => "times",
            Self::Leases => "leases",
            Self::Attachments => "attachments",
            Self::Users => "users",
            Self::Roles => "roles",
            Self::Alarms => "alarms",
            Self::Members => "members",
            Self::Counters => "counters",
            Self::Uploads => "uploads",
        }
    }

    /// Whether its rows carry their revision, and so are never replaced.
    #[must_use]
    pub fn is_versioned(self) -> bool {
        match self {
            Self::Keys | Self::Revisions | Self::Names | Self::Directories | Self::Times => true,
            Self::Meta
            | Self::Leases
            | Self::Attachments
            | Self::Users
            | Self::Roles
            | Self::Alarms
            | Self::Members
            | Self::Counters
            | Self::Uploads => false,
        }
    }

    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self as u8)
    }
}

/// A row that does not say what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    pub tree: Tree,
    pub row: Vec<u8>,
    pub source: DecodeError,
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tree, row, source } = self;
        write!(f, "row \"{}\" of tree {}: {source}", row.escape_ascii(), tree.name())
    }
}

impl std::error::Error for RowError {}

fn row_error(tree: Tree, row: &[u8]) -> impl FnOnce(DecodeError) -> RowError + '_ {
    move |source| RowError { tree, row: row.to_vec(), source }
}

fn checksum(tree: Tree, row: &[u8], body: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(CHECKSUM_OF_NUMBER[tree.index()], row);
    crc32c::crc32c_append(crc, body)
}

/// The checksum of each tree's number, with which every row's begins.
const CHECKSUM_OF_NUMBER: [u32; Tree::ALL.len()] = {
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    let mut checksums = [0; Tree::ALL.len()];
    let mut at = 0;
    while at < checksums.len() {
        let mut crc = !(Tree::ALL[at] as u32);
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg());
            bit += 1;
        }
        checksums[at] = !crc;
        at += 1;
    }
    checksums
};

/// Puts the checksum before `body`.
fn sealed(tree: Tree, row: &[u8], body: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(4 + body.len());
    value.extend_from_slice(&checksum(tree, row, body).to_be_bytes());
    value.extend_from_slice(body);
    value
}

/// Puts the length before `body` and the checksum before both.
fn sealed_with_length(tree: Tree, row: &[u8], body: &Writer) -> Vec<u8> {
    let mut whole = Writer::with_capacity(4 + body.as_slice().len());
    whole.u32(held_length(8 + body.as_slice().len()));
    whole.raw(body.as_slice());
    sealed(tree, row, whole.as_slice())
}

/// Compares the checksum; returns what follows it.
fn opened<'a>(tree: Tree, row: &[u8], value: &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let mut reader = Reader::new(value);
    let expected = reader.u32("checksum")?;
    let body = &value[4..];
    let found = checksum(tree, row, body);
    if found != expected {
        return Err(reader.error("checksum", Problem::Checksum { found, expected }));
    }
    Ok(body)
}

/// Refuses a value whose length is not `expected`, before anything beyond the length is touched:
/// a flipped bit in LMDB's own length may point beyond the file.
fn check_length(value: &[u8], expected: usize) -> Result<(), DecodeError> {
    if value.len() == expected {
        return Ok(());
    }
    let found = u64::try_from(value.len()).unwrap_or(u64::MAX);
    Err(DecodeError { field: "length", offset: 0, problem: Problem::OutOfBounds { value: found } })
}

/// Compares LMDB's length with the one that a row of variable length holds at `offset`.
fn check_held_length(value: &[u8], offset: usize) -> Result<(), DecodeError> {
    let held = value.get(offset..offset + 4).ok_or(DecodeError {
        field: "length",
        offset,
        problem: Problem::Truncated { wanted: offset + 4, left: value.len() },
    })?;
    let held = u32::from_be_bytes(held.try_into().expect("four bytes were taken"));
    check_length(value, usize::try_from(held).unwrap_or(usize::MAX))
}

fn held_length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a row is bounded by VALUE_BYTES_MAX and the size of a command")
}

// ---- keys: escaped key, 00, revision descending -> version --------------------------------------

/// All rows of `key` begin with this.
#[must_use]
pub fn key_prefix(key: &[u8]) -> Vec<u8> {
    prefix_with_room(key, 0)
}

/// A prefix with room for `more` bytes and none to spare, because many of these are kept.
fn prefix_with_room(key: &[u8], more: usize) -> Vec<u8> {
    let mut row = Vec::with_capacity(key.len() + 1 + more);
    escape_into(key, &mut row);
    row.push(TERMINATOR);
    row
}

/// The row of `key` at exactly `revision`; the first row at or after it is the newest version not
/// above `revision`.
#[must_use]
pub fn key_row(key: &[u8], revision: Revision) -> Vec<u8> {
    let mut row = prefix_with_room(key, 8);
    row.extend_from_slice(&(!revision.0).to_be_bytes());
    row
}

/// The least row of any key at or above `key`.
#[must_use]
pub fn key_lower_bound(key: &[u8]) -> Vec<u8> {
    key_prefix(key)
}

/// The least byte string above every row that begins with `prefix`, which ends in a terminator.
#[must_use]
pub fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut row = prefix.to_vec();
    replace_terminator(&mut row);
    row
}

/// Makes a prefix the least byte string above every row that begins with it.
pub(crate) fn replace_terminator(prefix: &mut [u8]) {
    if let Some(last) = prefix.last_mut() {
        *last = TERMINATOR + 1;
    }
}

fn take_descending(row: &[u8], rest: &[u8]) -> Result<Revision, DecodeError> {
    let offset = row.len() - rest.len();
    let bytes: [u8; 8] = rest.try_into().map_err(|_| DecodeError {
        field: "revision",
        offset,
        problem: Problem::Truncated { wanted: 8, left: rest.len() },
    })?;
    Ok(Revision(!u64::from_be_bytes(bytes)))
}

/// Splits a row of *keys* into its prefix (with terminator) and its revision, without unescaping.
///
/// # Errors
/// A row shorter than a revision and a terminator.
#[inline]
pub fn split_descending(tree: Tree, row: &[u8]) -> Result<(&[u8], Revision), RowError> {
    let Some(at) = row.len().checked_sub(8).filter(|&at| at > 0 && row[at - 1] == TERMINATOR)
    else {
        let problem = Problem::Truncated { wanted: 9, left: row.len() };
        return Err(row_error(tree, row)(DecodeError { field: "revision", offset: 0, problem }));
    };
    let (prefix, tail) = row.split_at(at);
    let revision = take_descending(row, tail).map_err(row_error(tree, row))?;
    Ok((prefix, revision))
}

/// The raw key of a prefix that [`split_descending`] returned.
///
/// # Errors
/// A prefix that is not one escaped key.
pub fn key_of_prefix(tree: Tree, prefix: &[u8]) -> Result<Bytes, RowError> {
    key_of_prefix_into(tree, prefix, Bytes::copy_from_slice)
}

/// As [`key_of_prefix`], with the key copied by `copy` where it stands as it is.
pub(crate) fn key_of_prefix_into(
    tree: Tree,
    prefix: &[u8],
    copy: impl FnOnce(&[u8]) -> Bytes,
) -> Result<Bytes, RowError> {
    if let Some((&TERMINATOR, key)) = prefix.split_last()
        && is_plain(key)
    {
        return Ok(copy(key));
    }
    let (key, rest) = unescape(prefix).map_err(row_error(tree, prefix))?;
    if rest.is_empty() {
        return Ok(key.into());
    }
    let problem = Problem::Trailing { left: rest.len() };
    let offset = prefix.len() - rest.len();
    Err(row_error(tree, prefix)(DecodeError { field: "escaped key", offset, problem }))
}

// ---- revisions: main, sub -> kind, key -----------------------------------------------------------

const CHANGE_PUT: u8 = 1;
const CHANGE_DELETE: u8 = 2;

#[must_use]
pub fn revision_row(main: Revision, sub: u32) -> [u8; 12] {
    let mut row = [0; 12];
    row[..8].copy_from_slice(&main.0.to_be_bytes());
    row[8..].copy_from_slice(&sub.to_be_bytes());
    row
}

/// # Errors
/// A row that is not twelve bytes long.
pub fn decode_revision_row(row: &[u8]) -> Result<(Revision, u32), RowError> {
    let mut reader = Reader::new(row);
    let fields = (|| Ok((Revision(reader.u64("main")?), reader.u32("sub")?)))();
    fields
        .and_then(|fields| reader.end("sub").map(|()| fields))
        .map_err(row_error(Tree::Revisions, row))
}

#[must_use]
pub fn encode_change(row: &[u8], is_delete: bool, key: &[u8]) -> Vec<u8> {
    let mut body = Writer::with_capacity(8 + key.len());
    body.u32(held_length(9 + key.len()));
    body.u8(if is_delete { CHANGE_DELETE } else { CHANGE_PUT });
    body.raw(key);
    sealed(Tree::Revisions, row, body.as_slice())
}

/// Returns whether the change is a deletion, and its key.
///
/// # Errors
/// A row whose checksum, length or kind is wrong.
pub fn decode_change<'a>(row: &[u8], value: &'a [u8]) -> Result<(bool, &'a [u8]), RowError> {
    let read = || {
        check_held_length(value, 4)?;
        let mut reader = Reader::new(opened(Tree::Revisions, row, value)?);
        reader.raw("length", 4)?;
        let is_delete = match reader.u8("kind")? {
            CHANGE_PUT => false,
            CHANGE_DELETE => true,
            other => {
                return Err(reader.error("kind", Problem::UnknownTag { tag: u32::from(other) }));
            }
        };
        Ok((is_delete, reader.raw("key", reader.left())?))
    };
    read().map_err(row_error(Tree::Revisions, row))
}

// ---- names: directory, 00, name, 00, revision descending -> appears or vanishes ------------------

#[must_use]
pub fn name_prefix(directory: &[u8], name: &[u8]) -> Vec<u8> {
    name_prefix_with_room(directory, name, 0)
}

fn name_prefix_with_room(directory: &[u8], name: &[u8], more: usize) -> Vec<u8> {
    let mut row = prefix_with_room(directory, name.len() + 1 + more);
    escape_into(name, &mut row);
    row.push(TERMINATOR);
    row
}

#[must_use]
pub fn name_row(directory: &[u8], name: &[u8], revision: Revision) -> Vec<u8> {
    let mut row = name_prefix_with_room(directory, name, 8);
    row.extend_from_slice(&(!revision.0).to_be_bytes());
    row
}

/// The name in a prefix of *names* whose directory's prefix is `directory_bytes` long.
///
/// # Errors
/// A prefix that does not hold one escaped name after the directory.
pub fn name_of_prefix(prefix: &[u8], directory_bytes: usize) -> Result<Bytes, RowError> {
    let name = prefix.get(directory_bytes..).unwrap_or_default();
    key_of_prefix(Tree::Names, name)
}

#[must_use]
pub fn encode_name(row: &[u8], appears: bool) -> Vec<u8> {
    sealed(Tree::Names, row, &[u8::from(appears)])
}

/// # Errors
/// A row whose checksum, length or state is wrong.
pub fn decode_name(row: &[u8], value: &[u8]) -> Result<bool, RowError> {
    let read = || {
        check_length(value, 5)?;
        let mut reader = Reader::new(opened(Tree::Names, row, value)?);
        match reader.u8("state")? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(reader.error("state", Problem::UnknownTag { tag: u32::from(other) })),
        }
    };
    read().map_err(row_error(Tree::Names, row))
}

// ---- directories: directory, 00, revision descending -> live names, when they changed -----------

#[must_use]
pub fn encode_directory(row: &[u8], state: &DirectoryState) -> Vec<u8> {
    let mut body = Writer::with_capacity(24);
    body.u64(state.names);
    body.u64(state.changed.0);
    body.i64(state.time.0);
    sealed(Tree::Directories, row, body.as_slice())
}

/// # Errors
/// A row whose checksum or length is wrong.
pub fn decode_directory(row: &[u8], value: &[u8]) -> Result<DirectoryState, RowError> {
    let read = || {
        check_length(value, 28)?;
        let mut reader = Reader::new(opened(Tree::Directories, row, value)?);
        Ok(DirectoryState {
            names: reader.u64("names")?,
            changed: Revision(reader.u64("changed")?),
            time: Time(reader.i64("time")?),
        })
    };
    read().map_err(row_error(Tree::Directories, row))
}

// ---- times: main -> time, author, note ------------------------------------------------------------

#[must_use]
pub fn encode_stamp(row: &[u8], stamp: &Stamp) -> Vec<u8> {
    let Stamp { time, author, note, .. } = stamp;
    let mut body = Writer::with_capacity(32 + note.len());
    body.u32(0);
    body.i64(time.0);
    for field in [author.principal.as_bytes(), author.claimed.as_bytes(), note.as_ref()] {
        body.bytes(field).expect("the fields come from a command, whose lengths have four bytes");
    }
    let mut body = body.into_vec();
    let length = held_length(4 + body.len());
    body[..4].copy_from_slice(&length.to_be_bytes());
    sealed(Tree::Times, row, &body)
}

/// # Errors
/// A row whose checksum, length or text is wrong.
pub fn decode_stamp(row: &[u8], value: &[u8]) -> Result<Stamp, RowError> {
    let read = || {
        check_length(row, 8)?;
        check_held_length(value, 4)?;
        let revision = Revision(Reader::new(row).u64("main")?);
        let mut reader = Reader::new(opened(Tree::Times, row, value)?);
        reader.raw("length", 4)?;
        let time = Time(reader.i64("time")?);
        let principal = reader.text("principal")?;
        let claimed = reader.text("claimed author")?;
        let note = Bytes::copy_from_slice(reader.bytes("note")?);
        reader.end("note")?;
        Ok(Stamp { revision, time, author: Author { principal, claimed }, note })
    };
    read().map_err(row_error(Tree::Times, row))
}
