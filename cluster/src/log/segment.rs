//! The files of a log directory.
//!
//! ```text
//! 0000000007.log   segment 7: one page of header, then groups
//! spare-0000000003 a zeroed or used-up file of the usual size, to become the next segment
//! spare.tmp        a spare that is being written
//! clean            where the log ended at the last orderly shutdown; absent while the log is open
//!
//! segment header   magic "revfslog" 8 | CRC32C 4 | format version 4 | log nonce 8
//!                  | segment number 4 | length of the file 4 | number of the first group 8
//! clean mark       magic "revfsend" 8 | CRC32C 4 | log nonce 8 | last group number 8 | its end 8
//! ```
//!
//! A segment has its full length on disk before it gets its name, and its header is durable before
//! its first group is written. A file that is shorter than its header says was therefore cut by
//! something else than a power failure.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::LogError;
use super::group::Position;
use crate::fields::Fields;

pub(super) const FORMAT_VERSION: u32 = 1;
/// The header has a page of its own, so that no later write touches its sector.
pub(super) const HEADER_PAGE_BYTES: u32 = 4096;
const HEADER_BYTES: usize = 40;
const MAGIC: [u8; 8] = *b"revfslog";
const CLEAN_MAGIC: [u8; 8] = *b"revfsend";
const CLEAN_BYTES: usize = 36;

pub(super) const SPARE_TEMPORARY: &str = "spare.tmp";
pub(super) const CLEAN: &str = "clean";
const CLEAN_TEMPORARY: &str = "clean.tmp";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) nonce: u64,
    pub(super) segment: u32,
    pub(super) bytes: u32,
    pub(super) first_group: u64,
}

/// What the first page of a segment file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HeaderPage {
    Valid(SegmentHeader),
    /// Intact, but of another format.
    OtherFormat(u32),
    Invalid,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; HEADER_PAGE_BYTES as usize];
        page[..8].copy_from_slice(&MAGIC);
        page[12..16].copy_from_slice(&FORMAT_VERSION.to_be_bytes());
        page[16..24].copy_from_slice(&self.nonce.to_be_bytes());
        page[24..28].copy_from_slice(&self.segment.to_be_bytes());
        page[28..32].copy_from_slice(&self.bytes.to_be_bytes());
        page[32..40].copy_from_slice(&self.first_group.to_be_bytes());
        let crc = crc32c::crc32c(&page[12..HEADER_BYTES]);
        page[8..12].copy_from_slice(&crc.to_be_bytes());
        page
    }

    pub(super) fn decode(segment: &[u8]) -> HeaderPage {
        let Some(page) = segment.get(..HEADER_PAGE_BYTES as usize) else {
            return HeaderPage::Invalid;
        };
        if page[..8] != MAGIC || page[HEADER_BYTES..].iter().any(|&byte| byte != 0) {
            return HeaderPage::Invalid;
        }
        Self::decode_fields(page).unwrap_or(HeaderPage::Invalid)
    }

    fn decode_fields(page: &[u8]) -> Option<HeaderPage> {
        let mut fields = Fields(page.get(8..HEADER_BYTES)?);
        let crc = fields.u32()?;
        if crc32c::crc32c(page.get(12..HEADER_BYTES)?) != crc {
            return None;
        }
        let version = fields.u32()?;
        if version != FORMAT_VERSION {
            return Some(HeaderPage::OtherFormat(version));
        }
        Some(HeaderPage::Valid(Self {
            nonce: fields.u64()?,
            segment: fields.u32()?,
            bytes: fields.u32()?,
            first_group: fields.u64()?,
        }))
    }
}

/// Where the log ended when it was shut down in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CleanMark {
    pub(super) nonce: u64,
    pub(super) number: u64,
    pub(super) end: Position,
}

impl CleanMark {
    fn encode(&self) -> [u8; CLEAN_BYTES] {
        let mut bytes = [0; CLEAN_BYTES];
        bytes[..8].copy_from_slice(&CLEAN_MAGIC);
        bytes[12..20].copy_from_slice(&self.nonce.to_be_bytes());
        bytes[20..28].copy_from_slice(&self.number.to_be_bytes());
        bytes[28..].copy_from_slice(&self.end.to_u64().to_be_bytes());
        let crc = crc32c::crc32c(&bytes[12..]);
        bytes[8..12].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != CLEAN_BYTES || bytes[..8] != CLEAN_MAGIC {
            return None;
        }
        let mut fields = Fields(&bytes[8..]);
        let crc = fields.u32()?;
        if crc32c::crc32c(&bytes[12..]) != crc {
            return None;
        }
        Some(Self {
            nonce: fields.u64()?,
            number: fields.u64()?,
            end: Position::from_u64(fields.u64()?),
        })
    }

    /// The mark in `directory`, if the log was shut down in order.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>, LogError> {
        let path = directory.join(CLEAN);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LogError::io("read", path, error)),
        };
        match Self::decode(&bytes) {
            Some(mark) => Ok(Some(mark)),
            None => Err(LogError::Corrupt {
                file: path,
                offset: 0,
                reason: "the mark of an orderly shutdown does not match its checksum".to_owned(),
            }),
        }
    }

    pub(super) fn write(&self, directory: &Path, disk: &super::disk::Disk) -> Result<(), LogError> {
        let temporary = directory.join(CLEAN_TEMPORARY);
        let file = disk.create_zeroed(&temporary, 0)?;
        disk.write(&file, &temporary, &self.encode(), 0)?;
        disk.sync(&file, &temporary)?;
        disk.rename(&temporary, &directory.join(CLEAN))?;
        disk.sync_directory(directory)
    }
}

pub(super) fn segment_path(directory: &Path, segment: u32) -> PathBuf {
    directory.join(format!("{segment:010}.log"))
}

pub(super) fn spare_path(directory: &Path, spare: u32) -> PathBuf {
    directory.join(format!("spare-{spare:010}"))
}

/// The files that a log directory holds, sorted by number.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) segments: Vec<u32>,
    pub(super) spares: Vec<u32>,
    /// Half-written files, of no value.
    pub(super) temporary: Vec<PathBuf>,
}

pub(super) fn list(directory: &Path) -> Result<Listing, LogError> {
    let mut listing = Listing::default();
    let error = |error| LogError::io("list", directory, error);
    for entry in fs::read_dir(directory).map_err(error)? {
        let entry = entry.map_err(error)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name == SPARE_TEMPORARY || name == CLEAN_TEMPORARY {
            listing.temporary.push(entry.path());
        } else if let Some(number) = name.strip_suffix(".log").and_then(number) {
            listing.segments.push(number);
        } else if let Some(number) = name.strip_prefix("spare-").and_then(number) {
            listing.spares.push(number);
        }
    }
    listing.segments.sort_unstable();
    listing.spares.sort_unstable();
    Ok(listing)
}

fn number(digits: &str) -> Option<u32> {
    (digits.len() == 10).then(|| digits.parse().ok()).flatten()
}

/// The whole file.
pub(super) fn read_whole(path: &Path) -> Result<Vec<u8>, LogError> {
    let read = || {
        let mut file = fs::File::open(path)?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
        let mut bytes = Vec::with_capacity(length);
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error| LogError::io("read", path, error))
}
