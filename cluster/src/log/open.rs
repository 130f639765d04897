//! Opening a log: every group is read and checked, and what the records add up to is rebuilt.
//!
//! The log ends at the first place that does not hold the group whose turn it is. Whether that is
//! the torn tail of a power failure or damage is decided by what follows. One group is in flight at
//! a time, so a valid group with a higher number, or a segment begun after it, proves that the
//! missing group was durable: damage, and the log is refused. Otherwise the group was never
//! acknowledged and is cut, unless the mark of an orderly shutdown says that the log went further.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::disk::Disk;
use super::group::{self, ALIGNMENT, HEADER_BYTES, Header, Invalid, Position, Record};
use super::index::{Index, Place};
use super::segment::{
    self, CLEAN, CleanMark, HEADER_PAGE_BYTES, HeaderPage, SegmentHeader, segment_path, spare_path,
};
use super::{Entry, LogError, LogId, LogOptions, SegmentFile, State};

const FIRST_SEGMENT: u32 = 1;

/// A log as it was found, ready to be written on.
pub(super) struct Opened {
    pub(super) nonce: u64,
    /// Of the last group; 0 if there is none.
    pub(super) number: u64,
    /// Where the last group ends.
    pub(super) end: Position,
    /// Where the next group goes, if it fits into the last segment.
    pub(super) next: Position,
    /// The last segment has no group yet.
    pub(super) fresh: bool,
    pub(super) index: Index,
    /// Oldest first; the last one is written to.
    pub(super) segments: Vec<SegmentFile>,
    pub(super) spares: Vec<PathBuf>,
    /// Above the number of every spare.
    pub(super) next_spare: u32,
}

/// Creates an empty log in `directory`, which must exist.
pub(super) fn create(
    directory: &Path,
    options: &LogOptions,
    disk: &Disk,
    nonce: u64,
) -> Result<(), LogError> {
    let listing = segment::list(directory)?;
    if !listing.segments.is_empty() {
        return Err(LogError::Exists { directory: directory.to_owned() });
    }
    let temporary = directory.join(segment::SPARE_TEMPORARY);
    let file = disk.create_zeroed(&temporary, options.segment_bytes)?;
    let header = SegmentHeader {
        nonce,
        segment: FIRST_SEGMENT,
        bytes: options.segment_bytes,
        first_group: 1,
    };
    disk.write(&file, &temporary, &header.encode(), 0)?;
    disk.sync(&file, &temporary)?;
    disk.rename(&temporary, &segment_path(directory, FIRST_SEGMENT))?;
    disk.sync_directory(directory)
}

pub(super) fn open(
    directory: &Path,
    options: &LogOptions,
    disk: &Disk,
    must_reach: Option<LogId>,
) -> Result<Opened, LogError> {
    let listing = segment::list(directory)?;
    for path in &listing.temporary {
        disk.remove(path)?;
    }
    let (obsolete, current) = contiguous_tail(&listing.segments);
    let Some(&first) = current.first() else {
        return Err(LogError::Missing { directory: directory.to_owned() });
    };
    let mark = CleanMark::read(directory)?;
    let mut scan = Scan::new(directory, options, first);
    for (at, &number) in current.iter().enumerate() {
        scan.segment(number, at + 1 == current.len())?;
    }
    scan.check_complete(first)?;
    scan.check_mark(mark)?;
    scan.check_reaches(must_reach)?;
    for &number in obsolete {
        disk.remove(&segment_path(directory, number))?;
    }
    let spares = usable_spares(directory, options, disk, &listing.spares)?;
    if mark.is_some() {
        disk.remove(&directory.join(CLEAN))?;
        disk.sync_directory(directory)?;
    }
    let next_spare = listing.spares.last().map_or(1, |last| last + 1);
    Ok(scan.finish(spares, next_spare))
}

/// What a log says of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Examined {
    pub(crate) state: State,
    /// It was shut down in order.
    pub(crate) was_closed: bool,
    /// Entries that it holds.
    pub(crate) entries: u64,
}

/// What a log says, without changing anything of it.
pub(super) fn examine(directory: &Path, must_reach: Option<LogId>) -> Result<Examined, LogError> {
    let options = LogOptions::default();
    let listing = segment::list(directory)?;
    let (_, current) = contiguous_tail(&listing.segments);
    let Some(&first) = current.first() else {
        return Err(LogError::Missing { directory: directory.to_owned() });
    };
    let mark = CleanMark::read(directory)?;
    let mut scan = Scan::new(directory, &options, first);
    for (at, &number) in current.iter().enumerate() {
        scan.segment(number, at + 1 == current.len())?;
    }
    scan.check_complete(first)?;
    let was_closed = mark.is_some();
    scan.check_mark(mark)?;
    scan.check_reaches(must_reach)?;
    let entries = scan.index.as_ref().map_or(0, |_| {
        let from = scan.state.purged.map_or(0, |id| id.index);
        scan.state.last.map_or(0, |id| id.index).saturating_sub(from)
    });
    Ok(Examined { state: scan.state, was_closed, entries })
}

/// Splits the sorted numbers before their last gap. Segments are deleted oldest first, and a power
/// failure may undo some of the deletions: what lies before a gap is obsolete, which
/// [`Scan::check_complete`] makes sure of.
fn contiguous_tail(numbers: &[u32]) -> (&[u32], &[u32]) {
    let gap = numbers.windows(2).rposition(|pair| pair[0].checked_add(1) != Some(pair[1]));
    numbers.split_at(gap.map_or(0, |at| at + 1))
}

fn usable_spares(
    directory: &Path,
    options: &LogOptions,
    disk: &Disk,
    numbers: &[u32],
) -> Result<Vec<PathBuf>, LogError> {
    let mut usable = Vec::new();
    for &number in numbers {
        let path = spare_path(directory, number);
        let length =
            std::fs::metadata(&path).map_err(|error| LogError::io("stat", &path, error))?.len();
        if length == u64::from(options.segment_bytes) && usable.len() < options.spares_max {
            usable.push(path);
        } else {
            disk.remove(&path)?;
        }
    }
    Ok(usable)
}

struct Scan<'a> {
    directory: &'a Path,
    nonce: u64,
    number: u64,
    end: Position,
    next: Position,
    fresh: bool,
    /// What the records so far add up to, compared with the state that opens each segment.
    state: State,
    /// Exists once the state record of the first group was read.
    index: Option<Index>,
    cache_bytes: usize,
    segments: Vec<SegmentFile>,
    /// Where the segment before ended, and why nothing valid was seen there.
    stopped: Option<(u32, Invalid)>,
}

impl<'a> Scan<'a> {
    fn new(directory: &'a Path, options: &LogOptions, first: u32) -> Self {
        let begin = Position { segment: first, offset: HEADER_PAGE_BYTES };
        Self {
            directory,
            nonce: 0,
            number: 0,
            end: begin,
            next: begin,
            fresh: true,
            state: State::default(),
            index: None,
            cache_bytes: options.cache_bytes,
            segments: Vec::new(),
            stopped: None,
        }
    }

    fn corrupt(&self, segment: u32, offset: impl Into<u64>, reason: String) -> LogError {
        let file = segment_path(self.directory, segment);
        LogError::Corrupt { file, offset: offset.into(), reason }
    }

    fn segment(&mut self, segment: u32, is_last: bool) -> Result<(), LogError> {
        let path = segment_path(self.directory, segment);
        let bytes = segment::read_whole(&path)?;
        let header = self.check_header(segment, &bytes)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| LogError::io("open", &path, error))?;
        self.segments.push(SegmentFile {
            number: segment,
            bytes: header.bytes,
            file: Arc::new(file),
            last_index: None,
        });
        self.next = Position { segment, offset: HEADER_PAGE_BYTES };
        self.fresh = true;
        let invalid = loop {
            match self.decode_group(segment, &bytes) {
                Ok((header, seed, records)) => self.take_group(&header, seed, records)?,
                Err(invalid) => break invalid,
            }
        };
        if self.index.is_none() && header.first_group > 1 {
            // The segments before this one were given up because this group was durable.
            let reason = format!("group {} is invalid: {}", self.number + 1, invalid.reason);
            return Err(self.corrupt(segment, invalid.offset, reason));
        }
        if is_last && let Some(later) = self.later_group(&bytes) {
            let reason = format!(
                "group {} is invalid ({}), but the later group {} lies at offset {}",
                self.number + 1,
                invalid.reason,
                later.number,
                later.position.offset
            );
            return Err(self.corrupt(segment, invalid.offset, reason));
        }
        self.stopped = Some((segment, invalid));
        Ok(())
    }

    fn check_header(&mut self, segment: u32, bytes: &[u8]) -> Result<SegmentHeader, LogError> {
        let header = match SegmentHeader::decode(bytes) {
            HeaderPage::Valid(header) if header.segment == segment => header,
            HeaderPage::OtherFormat(found) => {
                let file = segment_path(self.directory, segment);
                return Err(LogError::Format { file, found, known: segment::FORMAT_VERSION });
            }
            HeaderPage::Valid(_) | HeaderPage::Invalid => {
                let reason = "the segment's header is invalid".to_owned();
                return Err(self.corrupt(segment, 0_u32, reason));
            }
        };
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if length != u64::from(header.bytes) {
            let reason =
                format!("the file has {length} bytes instead of {}: it was cut", header.bytes);
            return Err(self.corrupt(segment, length.min(u64::from(header.bytes)), reason));
        }
        let Some((before, invalid)) = &self.stopped else {
            self.nonce = header.nonce;
            self.number = header.first_group.saturating_sub(1);
            return Ok(header);
        };
        if header.nonce != self.nonce {
            let reason = "the segment belongs to another log".to_owned();
            return Err(self.corrupt(segment, 0_u32, reason));
        }
        if header.first_group != self.number + 1 {
            let reason = format!(
                "group {} is invalid ({}), but the next segment begins with group {}",
                self.number + 1,
                invalid.reason,
                header.first_group
            );
            return Err(self.corrupt(*before, invalid.offset, reason));
        }
        Ok(header)
    }

    /// The group whose turn it is, if it lies at `self.next`.
    fn decode_group<'b>(&self, segment: u32, bytes: &'b [u8]) -> Result<DecodedGroup<'b>, Invalid> {
        let at = self.next.offset;
        let invalid = |reason| Invalid { offset: at, reason };
        let (header, seed) = bytes
            .get(at as usize..)
            .and_then(Header::decode)
            .ok_or_else(|| invalid("no group header with a matching checksum"))?;
        if header.nonce != self.nonce || header.position != (Position { segment, offset: at }) {
            return Err(invalid("left over from an earlier use of the file"));
        }
        if header.number != self.number + 1 {
            return Err(invalid("a group out of turn"));
        }
        if self.index.is_some() && header.previous_end != self.end {
            return Err(invalid("a group that does not begin where the previous one ended"));
        }
        let records = group::decode_records(bytes, &header, seed)?;
        if self.fresh && !matches!(records.first(), Some((_, Record::State(_)))) {
            return Err(invalid("the first group of a segment does not begin with the state"));
        }
        Ok((header, seed, records))
    }

    fn take_group(
        &mut self,
        header: &Header,
        seed: u32,
        records: Vec<group::PlacedRecord<'_>>,
    ) -> Result<(), LogError> {
        let segment = header.position.segment;
        for (bytes, record) in records {
            if let Record::State(found) = record {
                if self.index.is_none() {
                    self.state = found;
                    self.index = Some(Index::new(self.cache_bytes, found));
                } else if found != self.state {
                    let reason = format!("the state is {found:?} instead of {:?}", self.state);
                    return Err(self.corrupt(segment, bytes.start, reason));
                }
                continue;
            }
            self.state.apply(&record);
            let index = self.index.as_mut().expect("the first record is the state");
            match record {
                Record::Entry { id, kind, payload } => {
                    let length = bytes.end - bytes.start;
                    let place = Place { segment, offset: bytes.start, length, seed };
                    let entry = Entry { id, kind, payload: Bytes::copy_from_slice(payload) };
                    if let Err(gap) = index.append(entry, Some(place)) {
                        return Err(self.corrupt(segment, bytes.start, gap.to_string()));
                    }
                    if let Some(file) = self.segments.last_mut() {
                        file.last_index = file.last_index.max(Some(id.index));
                    }
                }
                Record::TruncateAfter(id) => index.truncate_after(id),
                Record::Purge(id) => index.purge(id),
                Record::Vote(_) | Record::Committed(_) | Record::State(_) => {}
            }
        }
        self.number = header.number;
        self.end = Position { segment, offset: header.end().expect("it was decoded") };
        self.next = self.end;
        self.fresh = false;
        Ok(())
    }

    /// A group behind the end of the log that can only have been written after the missing one was
    /// durable.
    fn later_group(&self, bytes: &[u8]) -> Option<Header> {
        let mut at = self.next.offset.next_multiple_of(ALIGNMENT);
        while let Some(rest) = bytes.get(at as usize..)
            && rest.len() >= HEADER_BYTES as usize
        {
            if let Some((header, _)) = Header::decode(rest)
                && header.nonce == self.nonce
                && header.position == (Position { segment: self.next.segment, offset: at })
                && header.number > self.number + 1
            {
                return Some(header);
            }
            at += ALIGNMENT;
        }
        None
    }

    /// Refuses a log whose first entries lie in a segment that is gone.
    fn check_complete(&self, first: u32) -> Result<(), LogError> {
        let Some(index) = &self.index else { return Ok(()) };
        let found = index.first_index();
        let reason = match self.state.purged {
            Some(purged) if found > purged.index + 1 => format!(
                "the log begins at entry {found} instead of {}: an earlier segment is missing",
                purged.index + 1
            ),
            None if first > FIRST_SEGMENT => {
                "nothing was ever purged, but the first segment is missing".to_owned()
            }
            Some(_) | None => return Ok(()),
        };
        Err(self.corrupt(first, HEADER_PAGE_BYTES, reason))
    }

    fn check_mark(&self, mark: Option<CleanMark>) -> Result<(), LogError> {
        let Some(mark) = mark else { return Ok(()) };
        if mark.nonce == self.nonce && mark.number == self.number && mark.end == self.end {
            return Ok(());
        }
        let reason = format!(
            "the log was shut down in order at group {} (segment {}, offset {}),              but it ends at group {}",
            mark.number, mark.end.segment, mark.end.offset, self.number
        );
        Err(self.corrupt(self.end.segment, self.end.offset, reason))
    }

    fn check_reaches(&self, wanted: Option<LogId>) -> Result<(), LogError> {
        let Some(wanted) = wanted else { return Ok(()) };
        let end = self.state.last;
        if end.is_none_or(|end| end.index < wanted.index) {
            return Err(LogError::TooShort {
                file: segment_path(self.directory, self.end.segment),
                offset: u64::from(self.end.offset),
                end,
                wanted,
            });
        }
        let found = self.index.as_ref().and_then(|index| {
            index.range(&(wanted.index..wanted.index + 1)).next().map(|slot| slot.id)
        });
        match found {
            Some(found) if found != wanted => {
                let reason = format!("the log holds {found}, but the store has {wanted}");
                Err(self.corrupt(self.end.segment, self.end.offset, reason))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn finish(self, spares: Vec<PathBuf>, next_spare: u32) -> Opened {
        let mut index =
            self.index.unwrap_or_else(|| Index::new(self.cache_bytes, State::default()));
        *index.state_mut() = self.state;
        Opened {
            nonce: self.nonce,
            number: self.number,
            end: self.end,
            next: self.next,
            fresh: self.fresh,
            index,
            segments: self.segments,
            spares,
            next_spare,
        }
    }
}

type DecodedGroup<'a> = (Header, u32, Vec<group::PlacedRecord<'a>>);
