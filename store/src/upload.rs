//! Uploads: a transaction that is too large for one entry of the log comes in parts and is run by one
//! small command.
//!
//! An upload has the number of its lease, and ends with it: at the latest when the client that sends
//! it is gone for so long. Until the commit its parts are rows that no read, watch or hash of the
//! history sees. What can be refused for its form or its size is refused with the part that brings
//! it; what the state decides (leases, duplicates across parts, how many rows a range deletes) with
//! the commit, which leaves the parts alone if it is refused, and takes them away if a branch ran.
//!
//! A part that is there already is taken again if it holds the same, so that a client that had no
//! answer may send it again; with other operations it is refused, because one of two clients that use
//! the same number is wrong.

use bytes::Bytes;

use crate::command::{Body, Done, Refusal, UploadCommit, encode_ops};
use crate::error::StoreError;
use crate::names::NewRow;
use crate::schema::{
    Tree, UploadState, decode_upload, decode_upload_ops, decode_upload_part, encode_upload,
    encode_upload_part, split_upload_row, upload_part_row, upload_row,
};
use crate::txn::{Changes, Stop};
use crate::types::{
    CompareTarget, LeaseId, Op, TXN_ROWS_MAX, TXN_VALUE_BYTES_MAX, Txn, VALUE_BYTES_MAX,
};
use crate::validate::check_op;
use crate::view::ReadView;

/// Uploads at once. A constant of the format, like those below: every member refuses alike.
pub const UPLOADS_MAX: usize = 16;

/// Encoded bytes of all uploads at once: two of the largest.
pub const UPLOADS_BYTES_MAX: u64 = 2 * UPLOAD_BYTES_MAX;

/// Encoded bytes of one upload: the values of the largest transaction, and as much for its keys.
pub const UPLOAD_BYTES_MAX: u64 = 512 << 20;

/// Encoded bytes of one part: a value of the largest size, its key, and other small operations.
pub const UPLOAD_PART_BYTES_MAX: usize = VALUE_BYTES_MAX + (1 << 20);

/// Parts of one upload: as many as it may have operations.
pub const UPLOAD_PARTS_MAX: usize = TXN_ROWS_MAX;

/// Runs a command of uploads.
pub(crate) fn run(
    view: &ReadView,
    changes: &mut Changes<'_>,
    body: &Body,
    rows: &mut Vec<NewRow>,
) -> Result<Done, Stop> {
    match body {
        Body::UploadPart { upload, part, ops } => keep(view, *upload, *part, ops, rows),
        Body::UploadCommit(own) => commit(view, changes, own, rows),
        _ => unreachable!("apply gives the commands of uploads"),
    }
}

fn keep(
    view: &ReadView,
    upload: LeaseId,
    part: u32,
    ops: &[Op],
    rows: &mut Vec<NewRow>,
) -> Result<Done, Stop> {
    if view.lease(upload)?.is_none() {
        return Err(Refusal::LeaseNotFound.into());
    }
    if usize::try_from(part).map_or(true, |part| part >= UPLOAD_PARTS_MAX) {
        return Err(Refusal::UploadPartNumber { part, max: UPLOAD_PARTS_MAX }.into());
    }
    ops.iter().try_for_each(check_op)?;
    let encoded = encode_ops(ops).expect("the command that holds them was encoded");
    let (bytes, max) = (encoded.len(), UPLOAD_PART_BYTES_MAX);
    if bytes > max {
        return Err(Refusal::UploadPartTooLarge { bytes, max }.into());
    }
    let all = view.uploads()?;
    let known = all.iter().find(|(id, _)| *id == upload).map(|(_, state)| *state);
    let row = upload_part_row(upload, part);
    if let Some(found) = view.get_row(Tree::Uploads, &row)? {
        let held = decode_upload_part(&row, found.value()).map_err(|e| view.row(&e))?;
        if held != encoded {
            return Err(Refusal::UploadPartDiffers { part }.into());
        }
        return Ok(Done::UploadKept { parts: known.map_or(0, |state| state.parts) });
    }
    if known.is_none() && all.len() >= UPLOADS_MAX {
        return Err(Refusal::TooManyUploads { max: UPLOADS_MAX }.into());
    }
    let state = grown(known.unwrap_or_default(), ops, encoded.len())?;
    let others = all.iter().filter(|(id, _)| *id != upload).map(|(_, state)| state.bytes);
    if others.sum::<u64>() + state.bytes > UPLOADS_BYTES_MAX {
        return Err(Refusal::UploadsTooLarge { max: UPLOADS_BYTES_MAX }.into());
    }
    let value = encode_upload_part(&row, &encoded);
    rows.push((Tree::Uploads, Bytes::copy_from_slice(&row), Some(value.into())));
    let row = upload_row(upload);
    let value = encode_upload(&row, &state);
    rows.push((Tree::Uploads, Bytes::copy_from_slice(&row), Some(value.into())));
    Ok(Done::UploadKept { parts: state.parts })
}

/// What an upload holds with one more part of `bytes`, if that is not too much.
fn grown(mut state: UploadState, ops: &[Op], bytes: usize) -> Result<UploadState, Refusal> {
    state.add_part(ops, bytes);
    if state.operations > count(TXN_ROWS_MAX) {
        return Err(Refusal::TooManyRows { max: TXN_ROWS_MAX });
    }
    if state.value_bytes > count(TXN_VALUE_BYTES_MAX) {
        return Err(Refusal::TooManyBytes { max: TXN_VALUE_BYTES_MAX });
    }
    if state.bytes > UPLOAD_BYTES_MAX {
        return Err(Refusal::UploadsTooLarge { max: UPLOAD_BYTES_MAX });
    }
    Ok(state)
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

impl UploadState {
    /// Counts one more part, of `bytes` encoded bytes.
    pub(crate) fn add_part(&mut self, ops: &[Op], bytes: usize) {
        self.parts += 1;
        self.bytes += count(bytes);
        self.add(ops);
    }

    fn add(&mut self, ops: &[Op]) {
        for op in ops {
            self.operations += 1;
            match op {
                Op::Put { value, .. } | Op::Append { value, .. } => {
                    self.value_bytes += count(value.len());
                }
                Op::Txn(Txn { compares, success, failure }) => {
                    for compare in compares {
                        if let CompareTarget::Value(value) = &compare.target {
                            self.value_bytes += count(value.len());
                        }
                    }
                    self.add(success);
                    self.add(failure);
                }
                Op::Delete { .. }
                | Op::Range(_)
                | Op::Move { .. }
                | Op::MoveKey { .. }
                | Op::Restore { .. }
                | Op::Exchange { .. } => {}
            }
        }
    }
}

fn commit(
    view: &ReadView,
    changes: &mut Changes<'_>,
    commit: &UploadCommit,
    rows: &mut Vec<NewRow>,
) -> Result<Done, Stop> {
    let txn = Txn {
        compares: commit.compares.clone(),
        success: gather(view, commit.upload, commit.parts)?,
        failure: commit.failure.clone(),
    };
    let answer = changes.run(&txn)?;
    remove(view, commit.upload, rows)?;
    Ok(Done::Txn(answer))
}

/// The operations of exactly the parts below `parts`.
pub(crate) fn gather(view: &ReadView, upload: LeaseId, parts: u32) -> Result<Vec<Op>, Stop> {
    let row = upload_row(upload);
    if view.get_row(Tree::Uploads, &row)?.is_none() {
        return Err(Refusal::UploadNotFound { upload }.into());
    }
    let mut cursor = view.cursor(Tree::Uploads, &upload_part_row(upload, 0), end_of(upload))?;
    let mut ops = Vec::new();
    let mut expected = 0;
    while let Some(row) = cursor.next().map_err(|e| view.lmdb(&e))? {
        let (_, part) = split_upload_row(row.key()).map_err(|e| view.row(&e))?;
        let part = part.unwrap_or(0);
        if part >= parts && expected == parts {
            return Err(Refusal::UploadPartUnexpected { part, parts }.into());
        }
        if part != expected {
            break;
        }
        ops.extend(decode_upload_ops(row.key(), row.value()).map_err(|e| view.row(&e))?);
        expected += 1;
    }
    if expected < parts {
        return Err(Refusal::UploadPartMissing { part: expected, parts }.into());
    }
    Ok(ops)
}

/// The least row behind those of an upload, if there may be any.
fn end_of(upload: LeaseId) -> Option<Vec<u8>> {
    let row = u64::from_be_bytes(upload_row(upload));
    row.checked_add(1).map(|end| end.to_be_bytes().to_vec())
}

/// Takes away what there is of an upload.
pub(crate) fn remove(
    view: &ReadView,
    upload: LeaseId,
    rows: &mut Vec<NewRow>,
) -> Result<(), StoreError> {
    let mut cursor = view.cursor(Tree::Uploads, &upload_row(upload), end_of(upload))?;
    while let Some(row) = cursor.next().map_err(|e| view.lmdb(&e))? {
        rows.push((Tree::Uploads, Bytes::copy_from_slice(row.key()), None));
    }
    Ok(())
}

impl ReadView {
    /// The uploads under way, now, whatever the view's revision.
    ///
    /// # Errors
    /// A closed store.
    pub fn uploads(&self) -> Result<Vec<(LeaseId, UploadState)>, StoreError> {
        let mut uploads = Vec::new();
        let mut cursor = self.cursor(Tree::Uploads, &upload_row(LeaseId(i64::MIN)), None)?;
        while let Some(row) = cursor.next().map_err(|e| self.lmdb(&e))? {
            let (upload, part) = split_upload_row(row.key()).map_err(|e| self.row(&e))?;
            // Apply may be taking the upload away at this moment, what counts the parts first.
            if part.is_none() {
                let state = decode_upload(row.key(), row.value()).map_err(|e| self.row(&e))?;
                uploads.push((upload, state));
            }
            let Some(end) = end_of(upload) else { break };
            cursor.seek(&end).map_err(|e| self.lmdb(&e))?;
        }
        Ok(uploads)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{UPLOAD_BYTES_MAX, UPLOAD_PART_BYTES_MAX, grown};
    use crate::command::Refusal;
    use crate::schema::UploadState;
    use crate::types::{Op, TXN_ROWS_MAX, TXN_VALUE_BYTES_MAX, Txn, VALUE_BYTES_MAX};

    #[test]
    fn an_upload_grows_up_to_its_bounds_and_no_further() {
        let put = Op::put("k", Bytes::from(vec![0; VALUE_BYTES_MAX]));
        let nested = Op::Txn(Txn { failure: vec![put.clone()], ..Txn::default() });
        let mut state = UploadState::default();
        for _ in 0..TXN_VALUE_BYTES_MAX / VALUE_BYTES_MAX {
            state = grown(state, std::slice::from_ref(&nested), UPLOAD_PART_BYTES_MAX).unwrap();
        }
        assert_eq!((state.parts, state.operations), (16, 32));
        let more = grown(state, &[Op::put("k", "1")], 1);
        assert_eq!(more, Err(Refusal::TooManyBytes { max: TXN_VALUE_BYTES_MAX }));
        let rows = grown(state, &vec![Op::delete("k"); TXN_ROWS_MAX - 32], 1).unwrap();
        let more = grown(rows, &[Op::delete("k")], 1);
        assert_eq!(more, Err(Refusal::TooManyRows { max: TXN_ROWS_MAX }));
        let full = UploadState { bytes: UPLOAD_BYTES_MAX, ..state };
        let more = grown(full, &[], 4);
        assert_eq!(more, Err(Refusal::UploadsTooLarge { max: UPLOAD_BYTES_MAX }));
    }
}
