//! Whoever writes groups: a thread of its own, or the one that appends, if nobody writes just then.
//!
//! The writer takes everything that is queued, writes it as one group, flushes once, reports, and takes what
//! has been queued meanwhile: it never waits for more, so a lone request costs one flush and many
//! share one. Between the write and the end of its flush no other group is begun.
//!
//! A full disk stops it until space returns; nothing is lost and nothing is reported. Any other
//! failure closes the log: what reached the disk is then unknown until the next open.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::group::{
    ENTRY_OVERHEAD_BYTES, GroupBuilder, HEADER_BYTES, Header, Position, RECORD_HEADER_BYTES,
    Record, STATE_BYTES_MAX,
};
use super::index::Place;
use super::queue::{Batch, Shared, Write};
use super::segment::{CleanMark, HEADER_PAGE_BYTES, SegmentHeader, segment_path};
use super::{LogError, LogId, SegmentFile, State};

/// How long a writer that found the disk full waits before it tries again.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) active: SegmentFile,
    /// What the groups written so far add up to.
    pub(super) written: State,
    pub(super) number: u64,
    pub(super) end: Position,
    pub(super) next: Position,
    pub(super) fresh: bool,
    pub(super) salt: u32,
    pub(super) builder: GroupBuilder,
}

/// An entry that the group holds: index, serial number, place.
pub(super) type Placed = (u64, u64, Place);

enum WriteError {
    /// Nothing was flushed: the same group may be written again.
    Full(LogError),
    Fatal(LogError),
}

impl From<LogError> for WriteError {
    fn from(error: LogError) -> Self {
        if error.is_no_space() { Self::Full(error) } else { Self::Fatal(error) }
    }
}

impl Writer {
    /// The writer's thread: runs until the log is closed or fails.
    pub(super) fn run(writer: &Mutex<Self>, shared: &Shared) {
        while shared.wait_for_work() {
            let mut writer = writer.lock();
            // Whoever appended it may have written it by now.
            let Some(batch) = shared.take_batch() else { continue };
            let written = writer.write_batch(&batch);
            if !writer.finish(batch, written) {
                return;
            }
        }
        if shared.wants_mark() {
            let marked = writer.lock().write_mark();
            shared.set_close_result(marked);
        }
    }

    /// Writes what is queued on this thread, for at most one flush a group. What would have to wait for
    /// room is left to the writer's thread.
    pub(super) fn write_here(&mut self) {
        let shared = Arc::clone(&self.shared);
        while let Some(batch) = shared.take_batch() {
            if needed_bytes(&batch) > self.room() {
                return shared.put_back(batch);
            }
            let written = match self.try_write(&batch) {
                Ok(placed) => Ok(placed),
                Err(WriteError::Full(_)) => return shared.put_back(batch),
                Err(WriteError::Fatal(error)) => Err(error),
            };
            if !self.finish(batch, written) {
                return;
            }
        }
    }

    /// Tells those who wait for a group how it ended; `false` if the log has failed.
    pub(super) fn finish(
        &mut self,
        mut batch: Batch,
        written: Result<Vec<Placed>, LogError>,
    ) -> bool {
        match written {
            Ok(placed) => {
                self.publish(&placed);
                batch.complete();
                true
            }
            Err(error) => {
                self.shared.fail(&error);
                batch.fail(&error);
                false
            }
        }
    }

    fn room(&self) -> u64 {
        u64::from(self.active.bytes - self.next.offset)
    }

    /// Writes the batch as one group, however long the disk stays full.
    pub(super) fn write_batch(&mut self, batch: &Batch) -> Result<Vec<Placed>, LogError> {
        loop {
            match self.try_write(batch) {
                Ok(placed) => return Ok(placed),
                Err(WriteError::Fatal(error)) => return Err(error),
                Err(WriteError::Full(error)) => {
                    if !self.shared.wait_for_space(FULL_DISK_PAUSE) {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn try_write(&mut self, batch: &Batch) -> Result<Vec<Placed>, WriteError> {
        let needed = needed_bytes(batch);
        if needed > self.room() {
            self.rotate(needed)?;
        }
        self.builder.clear();
        if self.fresh {
            self.builder.push(&Record::State(self.written));
        }
        let mut written = self.written;
        let mut placed = Vec::new();
        for write in batch.writes() {
            let record = write.record();
            let offset = self.builder.push(&record);
            written.apply(&record);
            if let Write::Entry { serial, entry } = write {
                let length = ENTRY_OVERHEAD_BYTES
                    + u32::try_from(entry.payload.len()).expect("bounded by the size of a segment");
                placed.push((entry.id, *serial, offset, length));
            }
        }
        if let Some(committed) = batch.committed
            && written.committed != Some(committed)
        {
            let record = Record::Committed(committed);
            self.builder.push(&record);
            written.apply(&record);
        }
        if self.builder.is_empty() {
            return Ok(Vec::new());
        }
        let seed = self.write_group()?;
        self.written = written;
        Ok(self.places(&placed, seed))
    }

    fn places(&self, placed: &[(LogId, u64, u32, u32)], seed: u32) -> Vec<Placed> {
        let begin = self.end_of_previous_group();
        let place = |&(id, serial, offset, length): &(LogId, u64, u32, u32)| {
            let segment = self.active.number;
            (id.index, serial, Place { segment, offset: begin + offset, length, seed })
        };
        placed.iter().map(place).collect()
    }

    /// Where the group that was just written begins.
    fn end_of_previous_group(&self) -> u32 {
        let total = u32::try_from(self.builder.total_bytes()).expect("it fitted into a segment");
        self.end.offset - total
    }

    /// Writes and flushes what the builder holds; returns the seed of its records.
    fn write_group(&mut self) -> Result<u32, WriteError> {
        let header = Header {
            nonce: self.shared.nonce,
            number: self.number + 1,
            position: self.next,
            previous_end: self.end,
            length: 0,
            salt: self.salt,
        };
        let path = segment_path(&self.shared.directory, self.active.number);
        let (bytes, seed) = self.builder.finish(header);
        let disk = &self.shared.disk;
        disk.write(&self.active.file, &path, bytes, u64::from(self.next.offset))?;
        disk.sync(&self.active.file, &path).map_err(WriteError::Fatal)?;
        let total = u32::try_from(bytes.len()).expect("it fitted into a segment");
        self.number += 1;
        self.next.offset += total;
        self.end = self.next;
        self.fresh = false;
        Ok(seed)
    }

    /// Goes on in a new segment with room for a group of `needed` bytes.
    fn rotate(&mut self, needed: u64) -> Result<(), WriteError> {
        let segment = self.active.number + 1;
        let needed = needed + u64::from(HEADER_PAGE_BYTES);
        let usual = self.shared.options.segment_bytes;
        let disk = &self.shared.disk;
        let (spare, bytes) = if needed <= u64::from(usual) {
            (self.shared.take_spare()?, usual)
        } else {
            let path = self.shared.new_spare_path();
            let bytes = u32::try_from(needed.next_multiple_of(u64::from(HEADER_PAGE_BYTES)))
                .expect("requests are bounded far below 4 GiB");
            drop(disk.create_zeroed(&path, bytes)?);
            (path, bytes)
        };
        match self.begin_segment(segment, &spare, bytes) {
            Ok(active) => {
                self.shared.add_segment(active.clone());
                self.active = active;
                self.next = Position { segment, offset: HEADER_PAGE_BYTES };
                self.fresh = true;
                Ok(())
            }
            Err(error) => {
                if bytes == usual {
                    self.shared.put_spare_back(spare);
                }
                Err(error)
            }
        }
    }

    /// Turns a spare into a segment. Its header is durable before it gets its name.
    fn begin_segment(
        &self,
        segment: u32,
        spare: &PathBuf,
        bytes: u32,
    ) -> Result<SegmentFile, WriteError> {
        let disk = &self.shared.disk;
        let path = segment_path(&self.shared.directory, segment);
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(spare)
            .map_err(|error| LogError::io("open", spare, error))?;
        let first_group = self.number + 1;
        let header = SegmentHeader { nonce: self.shared.nonce, segment, bytes, first_group };
        disk.write(&file, spare, &header.encode(), 0)?;
        disk.sync(&file, spare).map_err(WriteError::Fatal)?;
        disk.rename(spare, &path)?;
        disk.sync_directory(&self.shared.directory).map_err(WriteError::Fatal)?;
        Ok(SegmentFile { number: segment, bytes, file: Arc::new(file), last_index: None })
    }

    fn publish(&self, placed: &[Placed]) {
        let last_index = placed.iter().map(|&(index, ..)| index).max();
        for obsolete in self.shared.publish(placed, last_index, self.written.purged) {
            self.recycle(&obsolete);
        }
    }

    /// Makes a spare of a segment whose entries are purged, or deletes it. The purge is durable:
    /// the file's fate decides nothing but disk space.
    fn recycle(&self, obsolete: &SegmentFile) {
        let path = segment_path(&self.shared.directory, obsolete.number);
        let spare = self.shared.new_spare_path();
        let disk = &self.shared.disk;
        let result =
            if obsolete.bytes == self.shared.options.segment_bytes && self.shared.wants_spare() {
                disk.rename(&path, &spare).map(|()| self.shared.put_spare_back(spare))
            } else {
                disk.remove(&path)
            };
        if let Err(error) = result {
            tracing::warn!(%error, "a segment of the log could not be given up");
        }
    }

    fn write_mark(&mut self) -> Result<(), LogError> {
        let committed = self.shared.committed();
        let batch = Batch::only_committed(committed);
        match self.try_write(&batch) {
            Ok(_) => {}
            Err(WriteError::Full(error) | WriteError::Fatal(error)) => return Err(error),
        }
        let mark = CleanMark { nonce: self.shared.nonce, number: self.number, end: self.end };
        mark.write(&self.shared.directory, &self.shared.disk)
    }
}

/// Room that a group of these takes at most.
fn needed_bytes(batch: &Batch) -> u64 {
    batch.writes().map(write_bytes).sum::<u64>()
        + u64::from(HEADER_BYTES + RECORD_HEADER_BYTES + 16 + STATE_BYTES_MAX)
}

/// Room that a write takes in a group.
fn write_bytes(write: &Write) -> u64 {
    match write {
        Write::Entry { entry, .. } => {
            u64::from(ENTRY_OVERHEAD_BYTES) + u64::try_from(entry.payload.len()).unwrap_or(u64::MAX)
        }
        Write::Vote(_) | Write::TruncateAfter(_) | Write::Purge(_) => {
            u64::from(RECORD_HEADER_BYTES) + 17
        }
    }
}
