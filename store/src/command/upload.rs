//! Uploads in an encoded command: the operations of a part stand in the command as in its row.

use bytes::Bytes;

use super::{Body, Decoder, EncodeError, Encoder, tag};
use crate::codec::{DecodeError, Reader, Writer};
use crate::types::{Compare, LeaseId, Op};

/// Runs the operations of all parts, one behind the other, as the success of one transaction, and
/// ends the upload, whichever branch ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadCommit {
    pub upload: LeaseId,
    /// How many parts there must be: those from 0 on, and no more.
    pub parts: u32,
    pub compares: Vec<Compare>,
    pub failure: Vec<Op>,
}

/// Returns what a row of a part holds.
///
/// # Errors
/// Transactions nested too deep, or a field that is too long for the format.
pub(crate) fn encode_ops(ops: &[Op]) -> Result<Vec<u8>, EncodeError> {
    let mut out = Encoder(Writer::with_capacity(128));
    out.branch(ops, 1)?;
    Ok(out.0.into_vec())
}

/// Reads what [`encode_ops`] wrote. Keys and values share the memory of `bytes`.
pub(crate) fn decode_ops(bytes: &Bytes) -> Result<Vec<Op>, DecodeError> {
    let mut input = Decoder { source: bytes, reader: Reader::new(bytes) };
    let ops = input.branch("operations", 1)?;
    input.reader.end("operations")?;
    Ok(ops)
}

impl Encoder {
    pub(super) fn upload_part(
        &mut self,
        upload: LeaseId,
        part: u32,
        ops: &[Op],
    ) -> Result<(), EncodeError> {
        self.0.u8(tag::BODY_UPLOAD_PART);
        self.0.i64(upload.0);
        self.0.u32(part);
        self.branch(ops, 1)
    }

    pub(super) fn upload_commit(&mut self, commit: &UploadCommit) -> Result<(), EncodeError> {
        let UploadCommit { upload, parts, compares, failure } = commit;
        self.0.u8(tag::BODY_UPLOAD_COMMIT);
        self.0.i64(upload.0);
        self.0.u32(*parts);
        self.compares(compares)?;
        self.branch(failure, 1)
    }
}

impl Decoder<'_> {
    pub(super) fn upload_part(&mut self) -> Result<Body, DecodeError> {
        Ok(Body::UploadPart {
            upload: LeaseId(self.reader.i64("upload")?),
            part: self.reader.u32("part")?,
            ops: self.branch("operations", 1)?,
        })
    }

    pub(super) fn upload_commit(&mut self) -> Result<UploadCommit, DecodeError> {
        Ok(UploadCommit {
            upload: LeaseId(self.reader.i64("upload")?),
            parts: self.reader.u32("parts")?,
            compares: self.compares()?,
            failure: self.branch("failure", 1)?,
        })
    }
}
