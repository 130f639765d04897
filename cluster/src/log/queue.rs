//! What the writer, the readers and the preparer of spare segments share, under one lock.
//!
//! `append` puts entries into the index and the queue in one step, so that they are readable at once
//! and reach the disk in the same order. Nothing here does IO under the lock.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::disk::Disk;
use super::group::Record;
use super::index::{Index, Place};
use super::segment::spare_path;
use super::{Completion, Entry, LogError, LogId, LogOptions, SegmentFile, Vote};

/// A group takes no further request once it has this many bytes: it bounds the time of one flush
/// and the writer's buffer. A single larger request still goes whole.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// One record on its way to the disk.
#[derive(Debug)]
pub(super) enum Write {
    Entry { serial: u64, entry: Entry },
    Vote(Vote),
    TruncateAfter(Option<LogId>),
    Purge(LogId),
}

impl Write {
    pub(super) fn record(&self) -> Record<'_> {
        match self {
            Self::Entry { entry: Entry { id, kind, payload }, .. } => {
                Record::Entry { id: *id, kind: *kind, payload }
            }
            Self::Vote(vote) => Record::Vote(*vote),
            Self::TruncateAfter(id) => Record::TruncateAfter(*id),
            Self::Purge(id) => Record::Purge(*id),
        }
    }

    fn payload_bytes(&self) -> usize {
        match self {
            Self::Entry { entry, .. } => entry.payload.len(),
            Self::Vote(_) | Self::TruncateAfter(_) | Self::Purge(_) => 0,
        }
    }
}

pub(super) struct Request {
    pub(super) writes: Vec<Write>,
    pub(super) done: Option<Completion>,
}

/// The requests of one group.
pub(super) struct Batch {
    requests: Vec<Request>,
    /// The hint that goes along.
    pub(super) committed: Option<LogId>,
}

impl Batch {
    pub(super) fn only_committed(committed: Option<LogId>) -> Self {
        Self { requests: Vec::new(), committed }
    }

    pub(super) fn writes(&self) -> impl Iterator<Item = &Write> {
        self.requests.iter().flat_map(|request| &request.writes)
    }

    pub(super) fn complete(&mut self) {
        for done in self.requests.drain(..).filter_map(|request| request.done) {
            done(Ok(()));
        }
    }

    pub(super) fn fail(&mut self, error: &LogError) {
        for done in self.requests.drain(..).filter_map(|request| request.done) {
            done(Err(error.clone()));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// Write what is queued, then stop, leaving the mark of an orderly shutdown if `mark`.
    Closing {
        mark: bool,
    },
}

pub(super) struct Inner {
    pub(super) index: Index,
    pub(super) queue: VecDeque<Request>,
    /// Oldest first; the last one is written to.
    pub(super) segments: VecDeque<SegmentFile>,
    pub(super) spares: Vec<PathBuf>,
    /// Number of the next spare: never one in use.
    pub(super) next_spare: u32,
    pub(super) phase: Phase,
    pub(super) failed: Option<Arc<str>>,
    /// The disk had no room for the next segment when that was last tried.
    pub(super) no_room_for_spare: bool,
    /// The disk had no room for a group when that was last tried.
    pub(super) no_room_for_group: bool,
    /// The writer stands still for want of a segment.
    pub(super) writer_waits: bool,
    pub(super) close_result: Option<Result<(), LogError>>,
}

pub(super) struct Shared {
    pub(super) directory: PathBuf,
    pub(super) options: LogOptions,
    pub(super) disk: Disk,
    pub(super) nonce: u64,
    pub(super) inner: Mutex<Inner>,
    /// Something was queued, or the log closes.
    pub(super) work: Condvar,
    /// A spare was taken or added, or the log closes.
    pub(super) spares_changed: Condvar,
    /// A group became durable, entries were given up, or the log failed.
    pub(super) flushed: Condvar,
}

impl Inner {
    /// Why no request is taken any more, if so.
    pub(super) fn refusal(&self) -> Option<LogError> {
        if let Some(reason) = &self.failed {
            return Some(LogError::Failed { reason: Arc::clone(reason) });
        }
        match self.phase {
            Phase::Open => None,
            Phase::Closing { .. } => Some(LogError::ShutDown),
        }
    }
}

impl Shared {
    /// Waits until something is queued; `false` when the log closes and nothing is left.
    pub(super) fn wait_for_work(&self) -> bool {
        let mut inner = self.inner.lock();
        while inner.queue.is_empty() {
            if inner.phase != Phase::Open || inner.failed.is_some() {
                return false;
            }
            self.work.wait(&mut inner);
        }
        true
    }

    /// The next group, if anything is queued. Only who holds the writer takes one.
    pub(super) fn take_batch(&self) -> Option<Batch> {
        let mut inner = self.inner.lock();
        let mut bytes = 0;
        let mut requests = Vec::new();
        while let Some(request) = inner.queue.front() {
            let more: usize = request.writes.iter().map(Write::payload_bytes).sum();
            if !requests.is_empty() && bytes + more > GROUP_BYTES_MAX {
                break;
            }
            bytes += more;
            requests.extend(inner.queue.pop_front());
        }
        let committed = inner.index.state().committed;
        (!requests.is_empty()).then_some(Batch { requests, committed })
    }

    /// Leaves a group that was taken, and not written, to the writer's thread.
    pub(super) fn put_back(&self, batch: Batch) {
        let mut inner = self.inner.lock();
        for request in batch.requests.into_iter().rev() {
            inner.queue.push_front(request);
        }
        drop(inner);
        self.work.notify_one();
    }

    /// Makes a group's entries readable from disk; returns the segments that nothing needs any more.
    pub(super) fn publish(
        &self,
        placed: &[(u64, u64, Place)],
        last_index: Option<u64>,
        purged: Option<LogId>,
    ) -> Vec<SegmentFile> {
        let mut inner = self.inner.lock();
        inner.no_room_for_group = false;
        for &(index, serial, place) in placed {
            inner.index.set_place(index, serial, place);
        }
        inner.index.evict();
        if let Some(active) = inner.segments.back_mut() {
            active.last_index = active.last_index.max(last_index);
        }
        let mut obsolete = Vec::new();
        while inner.segments.len() > 1
            && let Some(purged) = purged
            && let Some(oldest) =
                inner.segments.pop_front_if(|oldest| oldest.last_index <= Some(purged.index))
        {
            obsolete.push(oldest);
        }
        drop(inner);
        self.flushed.notify_all();
        obsolete
    }

    pub(super) fn add_segment(&self, segment: SegmentFile) {
        self.inner.lock().segments.push_back(segment);
    }

    /// Waits until the preparer has a spare segment.
    pub(super) fn take_spare(&self) -> Result<PathBuf, LogError> {
        let mut inner = self.inner.lock();
        let taken = loop {
            if let Some(spare) = inner.spares.pop() {
                break Ok(spare);
            }
            if let Some(reason) = &inner.failed {
                break Err(LogError::Failed { reason: Arc::clone(reason) });
            }
            if inner.no_room_for_spare && inner.phase != Phase::Open {
                break Err(LogError::ShutDown);
            }
            if !inner.writer_waits {
                inner.writer_waits = true;
                self.spares_changed.notify_all();
            }
            self.spares_changed.wait(&mut inner);
        };
        inner.writer_waits = false;
        self.spares_changed.notify_all();
        taken
    }

    pub(super) fn new_spare_path(&self) -> PathBuf {
        let mut inner = self.inner.lock();
        let number = inner.next_spare;
        inner.next_spare += 1;
        spare_path(&self.directory, number)
    }

    pub(super) fn put_spare_back(&self, spare: PathBuf) {
        self.inner.lock().spares.push(spare);
        self.spares_changed.notify_all();
    }

    pub(super) fn wants_spare(&self) -> bool {
        self.inner.lock().spares.len() < self.options.spares_max
    }

    /// Notes that the disk is full and gives up the ballast; `false` if the log closes.
    pub(super) fn wait_for_space(&self, pause: Duration) -> bool {
        self.options.on_no_space.release();
        let mut inner = self.inner.lock();
        inner.no_room_for_group = true;
        if inner.phase != Phase::Open {
            return false;
        }
        self.spares_changed.wait_for(&mut inner, pause);
        true
    }

    pub(super) fn committed(&self) -> Option<LogId> {
        self.inner.lock().index.state().committed
    }

    pub(super) fn wants_mark(&self) -> bool {
        let inner = self.inner.lock();
        inner.failed.is_none() && inner.phase == Phase::Closing { mark: true }
    }

    pub(super) fn set_close_result(&self, result: Result<(), LogError>) {
        self.inner.lock().close_result = Some(result);
    }

    /// Closes the log for good: everything queued is answered with the reason.
    pub(super) fn fail(&self, error: &LogError) {
        let mut queue = {
            let mut inner = self.inner.lock();
            inner.failed.get_or_insert_with(|| error.to_string().into());
            std::mem::take(&mut inner.queue)
        };
        self.work.notify_all();
        self.spares_changed.notify_all();
        self.flushed.notify_all();
        for done in queue.drain(..).filter_map(|request| request.done) {
            done(Err(error.clone()));
        }
    }
}
