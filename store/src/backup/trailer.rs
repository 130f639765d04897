//! The trailer of a backup, and the reading that compares a backup with it.
//!
//! Specified in docs/FORMAT.md. The foot is the last thing written: a file without it is no backup.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{BackupSummary, OnProgress, Progress, VerifyError};
use crate::codec::{DecodeError, Problem, Reader, Writer};
use crate::error::OpenError;
use crate::store::Position;
use crate::types::{Revision, Time};

/// Version of the trailer's layout.
pub const BACKUP_VERSION: u32 = 1;

/// The copy has a checksum for each so many bytes.
pub(super) const CHUNK_BYTES: usize = 1 << 20;

const TRAILER_MAGIC: [u8; 8] = *b"revfs-bt";
const FOOT_MAGIC: [u8; 8] = *b"revfs-bk";
/// Length of the trailer, checksum of it, magic.
const FOOT_BYTES: u64 = 16;
/// etcd's tools take a snapshot for whole if it is a digest longer than whole blocks of a disk.
const BLOCK_BYTES: usize = 512;
const BLOCK_REST: usize = 32;
/// A trailer of this size would belong to a copy of 200 TiB.
const TRAILER_BYTES_MAX: u64 = 1 << 30;

/// See docs/FORMAT.md.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) version: u32,
    pub(crate) store_format: u32,
    /// Bytes of the copy before the trailer.
    pub(crate) content_bytes: u64,
    pub(crate) position: Position,
    pub(crate) revision: Revision,
    pub(crate) compacted: Option<Revision>,
    pub(crate) time: Time,
    /// CRC32C of each chunk of the copy.
    pub(crate) chunks: Vec<u32>,
    /// Of the copy and of the trailer up to here.
    pub(crate) sha256: [u8; 32],
}

impl Trailer {
    /// Completes the digest with the trailer's own fields; returns trailer and foot.
    pub(super) fn seal(&mut self, mut hash: Sha256) -> Vec<u8> {
        let mut body = self.fields();
        hash.update(&body);
        self.sha256 = hash.finalize().into();
        body.extend_from_slice(&self.sha256);
        let length = u32::try_from(body.len()).expect("a trailer is below TRAILER_BYTES_MAX");
        let crc = crc32c::crc32c(&body);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(&crc.to_be_bytes());
        body.extend_from_slice(&FOOT_MAGIC);
        body
    }

    fn fields(&self) -> Vec<u8> {
        let mut body = Writer::with_capacity(128 + self.chunks.len() * 4);
        body.raw(&TRAILER_MAGIC);
        body.u32(self.version);
        body.u32(self.store_format);
        body.u64(self.content_bytes);
        body.u64(self.position.index);
        body.u64(self.position.term);
        body.bytes(&self.position.raft).expect("a log id and a membership are far below 4 GiB");
        body.u64(self.revision.0);
        body.u64(self.compacted.map_or(0, |revision| revision.0 + 1));
        body.i64(self.time.0);
        body.u32(u32::try_from(self.chunks.len()).expect("a file has fewer than 2^32 MiB"));
        for chunk in &self.chunks {
            body.u32(*chunk);
        }
        // Without the padding, but with its length.
        let unpadded = body.as_slice().len() + size_of::<u32>();
        let padding = vec![0; self.padding_bytes(unpadded)];
        body.bytes(&padding).expect("it is less than a block");
        body.into_vec()
    }

    /// What makes the file end [`BLOCK_REST`] bytes behind a whole block.
    fn padding_bytes(&self, unpadded: usize) -> usize {
        let block = u64::try_from(BLOCK_BYTES).expect("a small constant");
        let copy = usize::try_from(self.content_bytes % block).expect("below a small constant");
        let foot = usize::try_from(FOOT_BYTES).expect("a small constant");
        let bytes = copy + unpadded + self.sha256.len() + foot;
        (BLOCK_BYTES + BLOCK_REST - bytes % BLOCK_BYTES) % BLOCK_BYTES
    }

    fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        if reader.raw("magic", 8)? != TRAILER_MAGIC {
            return Err(reader.error("magic", Problem::UnknownTag { tag: 0 }));
        }
        let version = reader.u32("version")?;
        let store_format = reader.u32("store format")?;
        let content_bytes = reader.u64("copied bytes")?;
        let index = reader.u64("index")?;
        let term = reader.u64("term")?;
        let raft = Bytes::copy_from_slice(reader.bytes("raft")?);
        let revision = Revision(reader.u64("revision")?);
        let compacted = reader.u64("compacted")?.checked_sub(1).map(Revision);
        let time = Time(reader.i64("time")?);
        let chunks = (0..reader.count("chunks")?)
            .map(|_| reader.u32("chunk"))
            .collect::<Result<Vec<u32>, DecodeError>>()?;
        let padding = reader.bytes("padding")?.len();
        if padding >= BLOCK_BYTES {
            let value = u64::try_from(padding).unwrap_or(u64::MAX);
            return Err(reader.error("padding", Problem::OutOfBounds { value }));
        }
        let sha256 = reader.raw("digest", 32)?.try_into().expect("raw returned 32 bytes");
        let wanted = content_bytes.div_ceil(u64::try_from(CHUNK_BYTES).expect("a MiB"));
        if u64::try_from(chunks.len()).ok() != Some(wanted) {
            let value = u64::try_from(chunks.len()).unwrap_or(u64::MAX);
            return Err(reader.error("chunks", Problem::OutOfBounds { value }));
        }
        reader.end("digest")?;
        let position = Position { index, term, raft };
        Ok(Self {
            version,
            store_format,
            content_bytes,
            position,
            revision,
            compacted,
            time,
            chunks,
            sha256,
        })
    }

    /// The trailer of `file`; `None` if it does not end as a backup does.
    pub(crate) fn find(file: &File, path: &Path) -> Result<Option<Self>, OpenError> {
        match require(file, path) {
            Ok(trailer) => Ok(Some(trailer)),
            Err(VerifyError::Incomplete { .. }) => Ok(None),
            Err(VerifyError::Io { path, source }) => Err(OpenError::Io { path, source }),
            Err(VerifyError::Version { path, found, known }) => {
                Err(OpenError::FormatVersion { path, found, expected: known })
            }
            Err(VerifyError::Damaged { path, from, reason, .. }) => {
                Err(OpenError::CorruptPage { path, offset: from, reason })
            }
            Err(VerifyError::GivenUp { path }) => {
                let reason = "reading was given up".to_owned();
                Err(OpenError::CorruptPage { path, offset: 0, reason })
            }
        }
    }

    pub(crate) fn check_version(&self, path: &Path) -> Result<(), OpenError> {
        if self.version == BACKUP_VERSION {
            return Ok(());
        }
        let path = path.to_path_buf();
        Err(OpenError::FormatVersion { path, found: self.version, expected: BACKUP_VERSION })
    }

    fn file_bytes(&self) -> u64 {
        let own = u64::try_from(self.fields().len() + self.sha256.len()).unwrap_or(u64::MAX);
        self.content_bytes + own + FOOT_BYTES
    }

    pub(super) fn summary(&self) -> BackupSummary {
        BackupSummary {
            store_format: self.store_format,
            position: self.position.clone(),
            revision: self.revision,
            compacted: self.compacted,
            time: self.time,
            content_bytes: self.content_bytes,
            file_bytes: self.file_bytes(),
            sha256: self.sha256,
        }
    }
}

/// The trailer of `file`, its own checksum compared.
pub(super) fn require(file: &File, path: &Path) -> Result<Trailer, VerifyError> {
    let io = |source: io::Error| VerifyError::Io { path: path.to_path_buf(), source };
    let incomplete = |offset: u64, reason: &str| VerifyError::Incomplete {
        path: path.to_path_buf(),
        offset,
        reason: reason.to_owned(),
    };
    let file_bytes = file.metadata().map_err(io)?.len();
    let Some(foot_at) = file_bytes.checked_sub(FOOT_BYTES) else {
        return Err(incomplete(file_bytes, "the file ends"));
    };
    let mut foot = [0; 16];
    file.read_exact_at(&mut foot, foot_at).map_err(io)?;
    if foot[8..] != FOOT_MAGIC {
        return Err(incomplete(foot_at, "the foot is missing"));
    }
    let length = u64::from(u32::from_be_bytes([foot[0], foot[1], foot[2], foot[3]]));
    let expected = u32::from_be_bytes([foot[4], foot[5], foot[6], foot[7]]);
    let damaged = |from: u64, reason: String| VerifyError::Damaged {
        path: path.to_path_buf(),
        from,
        to: file_bytes,
        reason,
    };
    let trailer_at = foot_at.checked_sub(length).filter(|_| length <= TRAILER_BYTES_MAX);
    let Some(trailer_at) = trailer_at else {
        return Err(damaged(foot_at, format!("a trailer of {length} bytes does not fit")));
    };
    let mut body = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut body, trailer_at).map_err(io)?;
    let found = crc32c::crc32c(&body);
    if found != expected {
        let reason = Problem::Checksum { found, expected }.to_string();
        return Err(damaged(trailer_at, reason));
    }
    let trailer = Trailer::decode(&body).map_err(|error| damaged(trailer_at, error.to_string()))?;
    if trailer.version != BACKUP_VERSION {
        let (path, found) = (path.to_path_buf(), trailer.version);
        return Err(VerifyError::Version { path, found, known: BACKUP_VERSION });
    }
    if trailer.content_bytes != trailer_at {
        let reason =
            format!("the copy should have {} bytes, it has {trailer_at}", trailer.content_bytes);
        return Err(damaged(trailer_at.min(trailer.content_bytes), reason));
    }
    Ok(trailer)
}

/// Reads a whole backup, compares every checksum, and gives the copy's chunks to `each`, in order,
/// each after its own checksum was compared.
pub(super) fn read_whole(
    file: &File,
    path: &Path,
    progress: OnProgress<'_>,
    each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<BackupSummary, VerifyError> {
    let io = |source: io::Error| VerifyError::Io { path: path.to_path_buf(), source };
    let trailer = require(file, path)?;
    let total_bytes = trailer.content_bytes;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = 0;
    for &expected in &trailer.chunks {
        let left = usize::try_from(total_bytes - at).unwrap_or(usize::MAX);
        let part = &mut chunk[..left.min(CHUNK_BYTES)];
        file.read_exact_at(part, at).map_err(io)?;
        let end = at + u64::try_from(part.len()).expect("a chunk is a MiB");
        let found = crc32c::crc32c(part);
        if found != expected {
            let reason = Problem::Checksum { found, expected }.to_string();
            return Err(VerifyError::Damaged {
                path: path.to_path_buf(),
                from: at,
                to: end,
                reason,
            });
        }
        hash.update(&*part);
        each(part).map_err(io)?;
        at = end;
        if progress(Progress { done_bytes: at, total_bytes }).is_break() {
            return Err(VerifyError::GivenUp { path: path.to_path_buf() });
        }
    }
    hash.update(trailer.fields());
    let found: [u8; 32] = hash.finalize().into();
    if found != trailer.sha256 {
        let reason = format!("SHA-256 {}, {} expected", hex(&found), hex(&trailer.sha256));
        let path = path.to_path_buf();
        return Err(VerifyError::Damaged { path, from: 0, to: total_bytes, reason });
    }
    Ok(trailer.summary())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
