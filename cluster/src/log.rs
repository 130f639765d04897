//! The log of one member: entries and votes, durable before they are acknowledged.
//!
//! ```text
//! append ──► index + queue ──► writer thread: one group, one flush ──► completions
//!               │                    └─► segment files ◄── preparer thread: zeroed spares
//!               └─► read: newest payloads from memory, older ones from their segment
//! ```
//!
//! - [`group`]: the bytes of a group, whole or not at all; pure.
//! - [`segment`]: the files; [`disk`]: every operation on them.
//! - [`open`]: reading it back; what is a torn tail and what is damage.
//! - [`index`]: where each entry lies; [`queue`]: what the threads share; [`writer`], [`prepare`].
//! - [`durability`]: what the store asks of it before a commit and after an install.
//!
//! It knows nothing of Raft besides the shape of its state, and nothing of openraft. The format is
//! described to the byte in `docs/FORMAT.md`.

mod disk;
mod durability;
mod error;
mod group;
mod index;
mod open;
mod prepare;
mod queue;
mod segment;
mod writer;

#[cfg(test)]
mod by_hand;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use revfs_store::Measured;

pub use self::disk::{DiskOperation, Faults};
pub use self::error::LogError;

use self::disk::Disk;
use self::group::{GroupBuilder, Record};
use self::index::Place;
use self::queue::{Inner, Phase, Request, Shared, Write};
use self::segment::segment_path;
use self::writer::Writer;

/// Name of an entry: the term of the leader that proposed it, and its place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogId {
    pub term: u64,
    pub index: u64,
}

impl std::fmt::Display for LogId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "entry {} of term {}", self.index, self.term)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    pub term: u64,
    pub node: u64,
    pub committed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: LogId,
    /// What the payload is; the log does not care.
    pub kind: u8,
    pub payload: Bytes,
}

/// What the records of a log add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub vote: Option<Vote>,
    /// The last entry that was given up at the front.
    pub purged: Option<LogId>,
    /// A lower bound of what is committed: a hint for recovery.
    pub committed: Option<LogId>,
    /// The last entry, or the last purged one if there is none.
    pub last: Option<LogId>,
}

impl State {
    fn apply(&mut self, record: &Record<'_>) {
        match *record {
            Record::Entry { id, .. } => self.last = Some(id),
            Record::Vote(vote) => self.vote = Some(vote),
            Record::TruncateAfter(id) => self.last = self.last.min(id.max(self.purged)),
            Record::Purge(id) => {
                self.purged = self.purged.max(Some(id));
                self.last = self.last.max(self.purged);
            }
            Record::Committed(id) => self.committed = Some(id),
            Record::State(state) => *self = state,
        }
    }
}

/// Called when the disk is full and the log must go on: gives up a reserve, if there is one.
#[derive(Clone, Default)]
pub struct OnNoSpace(Option<Arc<dyn Fn() + Send + Sync>>);

impl OnNoSpace {
    pub fn new(release: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(release)))
    }

    fn release(&self) {
        if let Some(release) = &self.0 {
            release();
        }
    }
}

impl std::fmt::Debug for OnNoSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "OnNoSpace(set)" } else { "OnNoSpace(unset)" })
    }
}

#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Size of a segment file; a single larger request gets a file of its own.
    pub segment_bytes: u32,
    /// Payloads kept in memory, newest first.
    pub cache_bytes: usize,
    /// Used-up segments kept to be written again.
    pub spares_max: usize,
    pub on_no_space: OnNoSpace,
    /// For tests.
    pub faults: Faults,
    /// For the simulation: the log has no threads, and writes when it is told to.
    #[cfg(test)]
    pub(crate) is_by_hand: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            cache_bytes: 32 << 20,
            spares_max: 2,
            on_no_space: OnNoSpace::default(),
            faults: Faults::default(),
            #[cfg(test)]
            is_by_hand: false,
        }
    }
}

/// Told once when what was asked for is durable, or why it is not.
pub type Completion = Box<dyn FnOnce(Result<(), LogError>) + Send>;

#[derive(Clone, Debug)]
struct SegmentFile {
    number: u32,
    bytes: u32,
    file: Arc<File>,
    /// The highest entry that was ever written to it.
    last_index: Option<u64>,
}

/// See the module. Dropping it stops its threads after what is queued is written, without the mark
/// of an orderly shutdown.
pub struct Log {
    shared: Arc<Shared>,
    writer: Arc<Mutex<Writer>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Log {
    /// Creates an empty log in the directory `directory`, which must exist and hold no log.
    ///
    /// # Errors
    /// [`LogError::Exists`], or the disk's.
    pub fn create(directory: &Path, options: &LogOptions) -> Result<(), LogError> {
        let disk = Disk { faults: options.faults.clone(), ..Disk::default() };
        open::create(directory, options, &disk, random_u64(directory)?)
    }

    /// What the log in `directory` says, which no process has open. Nothing of it is changed.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub(crate) fn examine(
        directory: &Path,
        must_reach: Option<LogId>,
    ) -> Result<open::Examined, LogError> {
        open::examine(directory, must_reach)
    }

    /// Opens the log in `directory`. `must_reach` is what the store has committed: the log must hold
    /// or have purged it.
    ///
    /// # Errors
    /// See [`LogError`]; damage is never repaired, except for a torn tail, which was never
    /// acknowledged.
    pub fn open(
        directory: &Path,
        options: LogOptions,
        must_reach: Option<LogId>,
    ) -> Result<Self, LogError> {
        let disk = Disk { faults: options.faults.clone(), ..Disk::default() };
        let opened = open::open(directory, &options, &disk, must_reach)?;
        let active = opened.segments.last().expect("an open log has a segment").clone();
        let shared = Arc::new(Shared {
            directory: directory.to_owned(),
            options,
            disk,
            nonce: opened.nonce,
            work: Condvar::new(),
            spares_changed: Condvar::new(),
            flushed: Condvar::new(),
            inner: Mutex::new(Inner {
                queue: std::collections::VecDeque::new(),
                segments: opened.segments.into(),
                spares: opened.spares,
                next_spare: opened.next_spare,
                phase: Phase::Open,
                failed: None,
                no_room_for_spare: false,
                no_room_for_group: false,
                writer_waits: false,
                close_result: None,
                index: opened.index,
            }),
        });
        let salt = u32::try_from(random_u64(directory)? >> 32).expect("the upper half of 64 bits");
        let writer = Writer {
            shared: Arc::clone(&shared),
            active,
            written: shared.inner.lock().index.state(),
            number: opened.number,
            end: opened.end,
            next: opened.next,
            fresh: opened.fresh,
            salt,
            builder: GroupBuilder::default(),
        };
        let (preparer, queue) = (Arc::clone(&shared), Arc::clone(&shared));
        let writer = Arc::new(Mutex::new(writer));
        let log = Self { shared, writer: Arc::clone(&writer), threads: Mutex::default() };
        #[cfg(test)]
        if log.is_by_hand() {
            return Ok(log);
        }
        log.spawn("log-writer", move || Writer::run(&writer, &queue))?;
        log.spawn("log-prepare", move || prepare::run(&preparer))?;
        Ok(log)
    }

    fn spawn(&self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), LogError> {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .map_err(|error| LogError::io("start a thread for", &self.shared.directory, error))?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Adds entries behind the last one. They can be read when this returns, and are durable when
    /// `done` is called. Never blocks.
    pub fn append(&self, entries: Vec<Entry>, done: Completion) {
        if self.queue_entries(entries, done) {
            self.shared.work.notify_one();
        }
    }

    /// As [`Log::append`], but if nobody writes just now this thread does, and no other has to be awakened:
    /// it blocks for a flush. For who has nothing else to do until the entries are durable.
    pub fn append_here(&self, entries: Vec<Entry>, done: Completion) {
        if !self.queue_entries(entries, done) {
            return;
        }
        match self.writer.try_lock() {
            Some(mut writer) => writer.write_here(),
            // It looks at the queue again before it waits.
            None => drop(self.shared.work.notify_one()),
        }
    }

    /// Whether they are queued now.
    fn queue_entries(&self, entries: Vec<Entry>, done: Completion) -> bool {
        self.queue(Some(done), |inner| {
            let before = inner.index.state().last;
            let mut writes = Vec::with_capacity(entries.len());
            for entry in entries {
                match inner.index.append(entry.clone(), None) {
                    Ok(serial) => writes.push(Write::Entry { serial, entry }),
                    Err(gap) => {
                        inner.index.truncate_after(before);
                        return Err(gap);
                    }
                }
            }
            Ok(writes)
        })
    }

    /// Records a vote; it is durable when `done` is called.
    pub fn save_vote(&self, vote: Vote, done: Completion) {
        self.submit(Some(done), |inner| {
            inner.index.state_mut().vote = Some(vote);
            Ok(vec![Write::Vote(vote)])
        });
    }

    /// Forgets the entries behind `id`, durably before whatever is appended next.
    pub fn truncate_after(&self, id: Option<LogId>) {
        self.submit(None, |inner| {
            inner.index.truncate_after(id);
            Ok(vec![Write::TruncateAfter(id)])
        });
    }

    /// Gives up the entries up to and including `id`; their segments are used again once that is
    /// durable.
    pub fn purge(&self, id: LogId) {
        self.submit(None, |inner| {
            inner.index.purge(id);
            Ok(vec![Write::Purge(id)])
        });
        self.shared.flushed.notify_all();
    }

    /// Notes that entries up to `id` are committed. It goes to disk with the next group.
    pub fn hint_committed(&self, id: LogId) {
        self.shared.inner.lock().index.state_mut().committed = Some(id);
    }

    /// Changes the index and has written what that means for the disk.
    fn submit(
        &self,
        done: Option<Completion>,
        change: impl FnOnce(&mut Inner) -> Result<Vec<Write>, LogError>,
    ) {
        if self.queue(done, change) {
            self.shared.work.notify_one();
        }
    }

    /// Changes the index and queues what that means for the disk, in one step; whether there is anything.
    fn queue(
        &self,
        done: Option<Completion>,
        change: impl FnOnce(&mut Inner) -> Result<Vec<Write>, LogError>,
    ) -> bool {
        let mut inner = self.shared.inner.lock();
        let writes = match inner.refusal() {
            Some(refusal) => Err(refusal),
            None => change(&mut inner),
        };
        match writes {
            Ok(writes) => {
                inner.queue.push_back(Request { writes, done });
                true
            }
            Err(error) => {
                drop(inner);
                if let Some(done) = done {
                    done(Err(error));
                }
                false
            }
        }
    }

    #[must_use]
    pub fn state(&self) -> State {
        self.shared.inner.lock().index.state()
    }

    /// The entries with an index in `range`, without those purged or not yet appended. Stops after
    /// `bytes_max` of payload, but never before the first entry.
    ///
    /// # Errors
    /// If an entry cannot be read back as it was written.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<Entry>, LogError> {
        let found = self.shared.look_up(&range, bytes_max);
        let mut entries = Vec::with_capacity(found.len());
        for (id, kind, source) in found {
            let payload = match source {
                Source::Memory(payload) => payload,
                Source::Disk(file, place) => match self.read_record(id, &file, place)? {
                    Some(payload) => payload,
                    None => continue,
                },
            };
            entries.push(Entry { id, kind, payload });
        }
        Ok(entries)
    }

    /// `None` if the entry was purged meanwhile and its segment used again.
    fn read_record(&self, id: LogId, file: &File, place: Place) -> Result<Option<Bytes>, LogError> {
        let path = segment_path(&self.shared.directory, place.segment);
        let length = usize::try_from(place.length).expect("a record fits into memory");
        let mut bytes = vec![0; length];
        let read = file.read_exact_at(&mut bytes, u64::from(place.offset));
        let intact = match (&read, group::decode_record(&bytes, place.seed)) {
            (Ok(()), Some((_, Record::Entry { id: found, payload, .. }))) if found == id => {
                Some(length - payload.len())
            }
            _ => None,
        };
        if let Some(payload_begin) = intact {
            return Ok(Some(Bytes::from(bytes).slice(payload_begin..)));
        }
        if self.state().purged.is_some_and(|purged| purged.index >= id.index) {
            return Ok(None);
        }
        match read {
            Err(error) => Err(LogError::io("read", path, error)),
            Ok(()) => Err(LogError::Corrupt {
                file: path,
                offset: u64::from(place.offset),
                reason: format!("{id} is not there as it was written"),
            }),
        }
    }

    /// The first entry of those at the end whose payloads take at most `bytes`.
    #[must_use]
    pub fn first_index_within(&self, bytes: u64) -> u64 {
        self.shared.inner.lock().index.first_index_within(bytes)
    }

    /// Whether the disk had no room for the log when it was last tried. The log goes on by itself
    /// when there is.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        let inner = self.shared.inner.lock();
        inner.no_room_for_spare || inner.no_room_for_group
    }

    /// Why the log takes nothing any more, if so.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<str>> {
        self.shared.inner.lock().failed.clone()
    }

    /// How long each flush took.
    #[must_use]
    pub fn sync_durations(&self) -> Measured {
        self.shared.disk.syncs.measured()
    }

    /// Bytes of all files of the log, spares included.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        let inner = self.shared.inner.lock();
        let spares = u64::try_from(inner.spares.len()).unwrap_or(u64::MAX);
        inner.segments.iter().map(|segment| u64::from(segment.bytes)).sum::<u64>()
            + spares * u64::from(self.shared.options.segment_bytes)
    }

    /// Writes what is queued and the mark of an orderly shutdown, and stops. Blocks.
    ///
    /// # Errors
    /// If that cannot be written; what was acknowledged is safe all the same.
    pub fn close(&self) -> Result<(), LogError> {
        self.stop(true);
        let mut inner = self.shared.inner.lock();
        if let Some(reason) = &inner.failed {
            return Err(LogError::Failed { reason: Arc::clone(reason) });
        }
        inner.close_result.take().unwrap_or(Ok(()))
    }

    fn stop(&self, mark: bool) {
        {
            let mut inner = self.shared.inner.lock();
            if inner.phase == Phase::Open {
                inner.phase = Phase::Closing { mark };
            }
        }
        self.shared.work.notify_all();
        self.shared.spares_changed.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.stop(false);
    }
}

/// Where an entry's payload is.
enum Source {
    Memory(Bytes),
    Disk(Arc<File>, Place),
}

impl Shared {
    fn look_up(&self, range: &Range<u64>, bytes_max: usize) -> Vec<(LogId, u8, Source)> {
        let inner = self.inner.lock();
        let mut bytes = 0;
        let mut found = Vec::new();
        for slot in inner.index.range(range) {
            let (length, source) = match (&slot.payload, slot.place) {
                (Some(payload), _) => (payload.len(), Source::Memory(payload.clone())),
                (None, Some(place)) => {
                    let segment = inner.segments.iter().find(|file| file.number == place.segment);
                    let file = &segment.expect("a segment outlives its entries").file;
                    (place.length as usize, Source::Disk(Arc::clone(file), place))
                }
                (None, None) => unreachable!("an entry that was not yet written stays in memory"),
            };
            bytes += length;
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push((slot.id, slot.kind, source));
        }
        found
    }
}

fn random_u64(directory: &Path) -> Result<u64, LogError> {
    getrandom::u64().map_err(|error| {
        LogError::io("take a random number for", directory, io::Error::other(error))
    })
}
