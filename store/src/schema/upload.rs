//! The rows of *uploads*: (lease) -> what has come so far, and (lease, part) -> its operations.
//!
//! The first kind is shorter than the second and stands before the parts that it counts.

use bytes::Bytes;

use super::{
    RowError, Tree, check_held_length, check_length, held_length, lease_row, opened, row_error,
    sealed,
};
use crate::codec::{Reader, Writer};
use crate::command::decode_ops;
use crate::types::{LeaseId, Op};

/// What an upload holds so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UploadState {
    pub parts: u32,
    /// Nested ones too.
    pub operations: u64,
    /// Of operations and comparisons.
    pub value_bytes: u64,
    /// Of the encoded operations.
    pub bytes: u64,
}

/// Which upload a row belongs to, and which part it holds; `None` = it counts the parts.
///
/// # Errors
/// A row of another length.
pub fn split_upload_row(row: &[u8]) -> Result<(LeaseId, Option<u32>), RowError> {
    let read = || {
        let mut reader = Reader::new(row);
        let upload = LeaseId(reader.i64("lease")? ^ i64::MIN);
        let part = if reader.left() == 0 { None } else { Some(reader.u32("part")?) };
        reader.end("part")?;
        Ok((upload, part))
    };
    read().map_err(row_error(Tree::Uploads, row))
}

#[must_use]
pub fn upload_row(upload: LeaseId) -> [u8; 8] {
    lease_row(upload)
}

#[must_use]
pub fn encode_upload(row: &[u8], state: &UploadState) -> Vec<u8> {
    let mut body = Writer::with_capacity(28);
    body.u32(state.parts);
    body.u64(state.operations);
    body.u64(state.value_bytes);
    body.u64(state.bytes);
    sealed(Tree::Uploads, row, body.as_slice())
}

/// # Errors
/// A row whose checksum or length is wrong.
pub fn decode_upload(row: &[u8], value: &[u8]) -> Result<UploadState, RowError> {
    let read = || {
        check_length(row, 8)?;
        check_length(value, 32)?;
        let mut reader = Reader::new(opened(Tree::Uploads, row, value)?);
        Ok(UploadState {
            parts: reader.u32("parts")?,
            operations: reader.u64("operations")?,
            value_bytes: reader.u64("value bytes")?,
            bytes: reader.u64("bytes")?,
        })
    };
    read().map_err(row_error(Tree::Uploads, row))
}

#[must_use]
pub fn upload_part_row(upload: LeaseId, part: u32) -> [u8; 12] {
    let mut row = [0; 12];
    row[..8].copy_from_slice(&upload_row(upload));
    row[8..].copy_from_slice(&part.to_be_bytes());
    row
}

/// `ops` is encoded.
#[must_use]
pub fn encode_upload_part(row: &[u8], ops: &[u8]) -> Vec<u8> {
    let mut body = Writer::with_capacity(4 + ops.len());
    body.u32(held_length(8 + ops.len()));
    body.raw(ops);
    sealed(Tree::Uploads, row, body.as_slice())
}

/// Returns the encoded operations.
///
/// # Errors
/// A row whose checksum or length is wrong.
pub fn decode_upload_part<'v>(row: &[u8], value: &'v [u8]) -> Result<&'v [u8], RowError> {
    let read = || {
        check_length(row, 12)?;
        check_held_length(value, 4)?;
        let mut reader = Reader::new(opened(Tree::Uploads, row, value)?);
        reader.raw("length", 4)?;
        reader.raw("operations", reader.left())
    };
    read().map_err(row_error(Tree::Uploads, row))
}

/// The operations of a part.
///
/// # Errors
/// A row that does not hold operations.
pub fn decode_upload_ops(row: &[u8], value: &[u8]) -> Result<Vec<Op>, RowError> {
    let ops = Bytes::copy_from_slice(decode_upload_part(row, value)?);
    decode_ops(&ops).map_err(row_error(Tree::Uploads, row))
}
