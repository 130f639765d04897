//! The watches of one stream, and which of them has something to say.
//!
//! Each watch has a bell. The hub rings it when there is an event, and the watch queues up behind those
//! that rang before: each has its turn, whatever the others have to say, and nobody looks at the silent
//! ones.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;
use revfs_store::types::Revision;
use revfs_store::{ReadError, WatchedRevision};

use crate::meters::Counted;
use crate::watch::GuardedWatcher;

/// Revisions in one message at most.
const BATCH_REVISIONS: usize = 1_000;

/// A message takes no further revision beyond so many bytes of keys and values.
const BATCH_BYTES: usize = 256 * 1024;

/// One watch of a stream.
pub(super) struct Watching {
    watcher: GuardedWatcher,
    _open: Counted,
    bell: Arc<Bell>,
    waker: Waker,
    /// The revision that was asked for; none = what comes after now.
    pub(super) start: Revision,
    pub(super) fragment: bool,
    /// Progress was asked for, and whether the next mark is to be given: not after events.
    pub(super) progress: Option<bool>,
    /// It began in the past and has not come to the present yet.
    is_catching_up: bool,
    /// Comes after the revisions that were taken with it.
    end: Option<ReadError>,
}

/// How a watch is to be shown.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner {
    pub(super) start: Revision,
    pub(super) fragment: bool,
    pub(super) progress: bool,
}

/// What a watch had to say.
pub(super) struct Taken {
    pub(super) revisions: Vec<WatchedRevision>,
    /// Revisions of the past: more may have happened since.
    pub(super) is_past: bool,
}

impl Watching {
    /// The revisions that are there, as many as one message takes. Empty if the bell rang for nothing.
    ///
    /// # Errors
    /// The watch has ended.
    pub(super) fn take(&mut self) -> Result<Taken, ReadError> {
        if let Some(end) = self.end.take() {
            return Err(end);
        }
        let (mut revisions, mut bytes) = (Vec::new(), 0);
        while revisions.len() < BATCH_REVISIONS && bytes < BATCH_BYTES {
            match self.watcher.poll_next(&self.waker) {
                Poll::Pending => return Ok(self.taken(revisions)),
                Poll::Ready(Ok(revision)) => {
                    bytes += bytes_of(&revision);
                    revisions.push(revision);
                }
                Poll::Ready(Err(error)) if revisions.is_empty() => return Err(error),
                Poll::Ready(Err(error)) => {
                    self.end = Some(error);
                    break;
                }
            }
        }
        // Not empty yet, or ended: it comes again when the others have had their turn.
        self.bell.ring();
        Ok(self.taken(revisions))
    }

    fn taken(&mut self, revisions: Vec<WatchedRevision>) -> Taken {
        let is_past = self.is_catching_up;
        self.is_catching_up &= !self.watcher.is_synced();
        Taken { revisions, is_past }
    }

    /// How far it has come, if it has come to the present `current`.
    pub(super) fn progress(&self, current: Revision) -> Option<Revision> {
        let is_present = self.start <= current && self.end.is_none() && self.watcher.is_synced();
        // Asked later: what it is given meanwhile is not in this number.
        is_present.then(|| self.watcher.progress())
    }
}

fn bytes_of(revision: &WatchedRevision) -> usize {
    let of = |kv: &revfs_store::types::KeyValue| kv.key.len() + kv.value.len();
    let events = revision.events.iter();
    events.map(|event| of(&event.event.kv) + event.prev_kv.as_ref().map_or(0, of)).sum()
}

/// See the module.
#[derive(Default)]
pub(super) struct Watches {
    watches: HashMap<i64, Watching>,
    next_id: i64,
    queue: Arc<Queue>,
}

impl Watches {
    pub(super) fn len(&self) -> usize {
        self.watches.len()
    }

    pub(super) fn contains(&self, id: i64) -> bool {
        self.watches.contains_key(&id)
    }

    /// The least number that is not used yet, in order.
    pub(super) fn free_id(&mut self) -> i64 {
        while self.contains(self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }

    /// Adds a watch under a number that is free.
    pub(super) fn add(
        &mut self,
        id: i64,
        (watcher, open): (GuardedWatcher, Counted),
        current: Revision,
        manner: Manner,
    ) {
        let bell = Arc::new(Bell { id, queue: Arc::clone(&self.queue), rang: false.into() });
        let waker = Waker::from(Arc::clone(&bell));
        // The first look sets the waker.
        bell.ring();
        let is_catching_up = watcher.from() <= current;
        let watching = Watching {
            watcher,
            _open: open,
            bell,
            waker,
            start: manner.start,
            fragment: manner.fragment,
            progress: manner.progress.then_some(true),
            is_catching_up,
            end: None,
        };
        self.watches.insert(id, watching);
    }

    /// Ends a watch; whether there was one.
    pub(super) fn remove(&mut self, id: i64) -> bool {
        self.watches.remove(&id).is_some()
    }

    pub(super) fn get(&mut self, id: i64) -> Option<&mut Watching> {
        self.watches.get_mut(&id)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (i64, &mut Watching)> {
        self.watches.iter_mut().map(|(&id, watching)| (id, watching))
    }

    /// Has each of them looked at, also those that have nothing to say.
    pub(super) fn ring_all(&self) {
        self.watches.values().for_each(|watching| watching.bell.ring());
    }

    /// How far all of them have come, if they have all come to `current`. None if there is no watch.
    pub(super) fn progress(&self, current: Revision) -> Option<Revision> {
        let progress = self.watches.values().map(|watching| watching.progress(current));
        let least = progress.min()??;
        (least >= current).then_some(least)
    }

    /// The number whose bell rang first; there may be no such watch any more.
    pub(super) fn poll_rung(&self, context: &Context<'_>) -> Poll<i64> {
        let mut rung = self.queue.rung.lock();
        match rung.ids.pop_front() {
            Some(id) => {
                drop(rung);
                if let Some(watching) = self.watches.get(&id) {
                    watching.bell.rang.store(false, Ordering::Release);
                }
                Poll::Ready(id)
            }
            None => {
                rung.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[derive(Default)]
struct Queue {
    rung: Mutex<Rung>,
}

#[derive(Default)]
struct Rung {
    ids: VecDeque<i64>,
    /// Of the task that serves the stream.
    waker: Option<Waker>,
}

struct Bell {
    id: i64,
    queue: Arc<Queue>,
    /// It stands in the queue.
    rang: AtomicBool,
}

impl Bell {
    fn ring(&self) {
        if self.rang.swap(true, Ordering::AcqRel) {
            return;
        }
        let waker = {
            let mut rung = self.queue.rung.lock();
            rung.ids.push_back(self.id);
            rung.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}
