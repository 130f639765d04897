//! The rows of *leases* (id -> ttl, remaining) and *attachments* (id, key -> nothing).

use bytes::Bytes;

use super::{RowError, Tree, check_length, opened, row_error, sealed};
use crate::codec::{Reader, Writer};
use crate::types::{Lease, LeaseId};

/// Lease ids in numeric order, negative ones first.
#[must_use]
pub fn lease_row(id: LeaseId) -> [u8; 8] {
    (id.0 ^ i64::MIN).to_be_bytes()
}

#[must_use]
pub fn encode_lease(row: &[u8], lease: &Lease) -> Vec<u8> {
    let mut body = Writer::with_capacity(16);
    body.i64(lease.ttl_seconds);
    body.i64(lease.remaining_seconds);
    sealed(Tree::Leases, row, body.as_slice())
}

/// # Errors
/// A row whose checksum or length is wrong.
pub fn decode_lease(row: &[u8], value: &[u8]) -> Result<Lease, RowError> {
    let read = || {
        check_length(row, 8)?;
        check_length(value, 20)?;
        let id = LeaseId(Reader::new(row).i64("lease")? ^ i64::MIN);
        let mut reader = Reader::new(opened(Tree::Leases, row, value)?);
        let ttl_seconds = reader.i64("ttl")?;
        let remaining_seconds = reader.i64("remaining")?;
        Ok(Lease { id, ttl_seconds, remaining_seconds })
    };
    read().map_err(row_error(Tree::Leases, row))
}

#[must_use]
pub fn attachment_row(id: LeaseId, key: &[u8]) -> Vec<u8> {
    let mut row = lease_row(id).to_vec();
    row.extend_from_slice(key);
    row
}

#[must_use]
pub fn encode_attachment(row: &[u8]) -> Vec<u8> {
    sealed(Tree::Attachments, row, &[])
}

/// Returns the key.
///
/// # Errors
/// A row whose checksum or length is wrong.
pub fn decode_attachment(row: &[u8], value: &[u8]) -> Result<Bytes, RowError> {
    let read = || {
        check_length(value, 4)?;
        opened(Tree::Attachments, row, value)?;
        let mut reader = Reader::new(row);
        reader.raw("lease", 8)?;
        Ok(Bytes::copy_from_slice(reader.raw("key", reader.left())?))
    };
    read().map_err(row_error(Tree::Attachments, row))
}
