//! [`Watcher`]: what the one who watches holds, and the buffer between it and the hub.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};

use parking_lot::Mutex;

use super::post::{Message, Post, WatcherId};
use super::{WatchRequest, WatchedRevision};
use crate::error::ReadError;
use crate::types::Revision;

/// The hub's side and the watcher's side meet here.
pub(super) struct Cell {
    state: Mutex<State>,
}

struct State {
    buffer: VecDeque<(WatchedRevision, usize)>,
    bytes: usize,
    /// Given everything up to the hub's position; else everything up to `seen`.
    is_synced: bool,
    seen: Revision,
    /// The hub reads nothing for it until there is room again.
    is_parked: bool,
    /// Nobody will read it.
    is_left: bool,
    /// Comes after what is in the buffer.
    end: Option<ReadError>,
    waker: Option<Waker>,
}

impl Cell {
    /// Adds a revision; returns whether there was room. If not, the watcher is parked.
    pub(super) fn deliver(&self, post: &Post, revision: WatchedRevision) -> bool {
        let own: usize = revision.events.iter().map(|event| event.bytes()).sum();
        let bytes = own + revision.stamp.note.len();
        let (counters, options) = (&post.counters, &post.options);
        let mut state = self.state.lock();
        if state.is_left {
            return true;
        }
        let all = counters.buffered_bytes.load(Ordering::Relaxed) + bytes;
        let has_room =
            state.bytes + bytes <= options.watcher_bytes_max && all <= options.buffered_bytes_max;
        if !has_room && !state.buffer.is_empty() {
            state.is_synced = false;
            state.is_parked = true;
            state.seen = Revision(revision.stamp.revision.0 - 1);
            return false;
        }
        state.bytes += bytes;
        state.buffer.push_back((revision, bytes));
        counters.buffered_bytes.fetch_add(bytes, Ordering::Relaxed);
        let waker = state.waker.take();
        drop(state);
        counters.delivered.fetch_add(1, Ordering::Relaxed);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }

    /// From now on the hub's position counts.
    pub(super) fn set_synced(&self) {
        self.state.lock().is_synced = true;
    }

    pub(super) fn end(&self, error: ReadError) {
        let mut state = self.state.lock();
        state.end.get_or_insert(error);
        state.is_synced = false;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A watch of a store. Dropping it ends the watch.
pub struct Watcher {
    id: WatcherId,
    cell: Arc<Cell>,
    post: Arc<Post>,
    from: Revision,
    /// The last revision that was handed out, or the one before the first to be seen.
    handed_out: Revision,
}

impl Watcher {
    pub(super) fn join(post: Arc<Post>, request: WatchRequest) -> Result<Self, ReadError> {
        let from = request.from;
        let handed_out = Revision(from.0.saturating_sub(1));
        let state = State {
            buffer: VecDeque::new(),
            bytes: 0,
            is_synced: false,
            seen: handed_out,
            is_parked: false,
            is_left: false,
            end: None,
            waker: None,
        };
        let cell = Arc::new(Cell { state: Mutex::new(state) });
        let id = post.join(request, Arc::clone(&cell))?;
        post.counters.watchers.fetch_add(1, Ordering::Relaxed);
        Ok(Self { id, cell, post, from, handed_out })
    }

    /// The revision from which on everything is seen.
    #[must_use]
    pub fn from(&self) -> Revision {
        self.from
    }

    /// The next revision that has events for this watcher; `waker` is called when there is one.
    ///
    /// # Errors
    /// [`ReadError::Compacted`] if what comes next was compacted before it could be read, or a
    /// closed store. The watch has ended.
    pub fn poll_next(&mut self, waker: &Waker) -> Poll<Result<WatchedRevision, ReadError>> {
        let mut state = self.cell.state.lock();
        let Some((revision, bytes)) = state.buffer.pop_front() else {
            if let Some(end) = &state.end {
                return Poll::Ready(Err(end.clone()));
            }
            if !state.waker.as_ref().is_some_and(|own| own.will_wake(waker)) {
                state.waker = Some(waker.clone());
            }
            return Poll::Pending;
        };
        state.bytes -= bytes;
        let (counters, options) = (&self.post.counters, &self.post.options);
        let before = counters.buffered_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let has_room = state.bytes <= options.watcher_bytes_max / 2
            && (state.buffer.is_empty() || before - bytes <= options.buffered_bytes_max);
        let resumes = state.is_parked && has_room;
        state.is_parked &= !has_room;
        if state.buffer.is_empty() {
            // A burst that was read leaves no memory behind.
            state.buffer.shrink_to(16);
        }
        drop(state);
        self.handed_out = revision.stamp.revision;
        if resumes {
            self.post.send(Message::Resume(self.id));
        }
        Poll::Ready(Ok(revision))
    }

    /// Everything that this watcher is to see up to this revision was handed out: it may begin again
    /// behind it and misses nothing. Moves on while nothing happens to the watched keys.
    #[must_use]
    pub fn progress(&self) -> Revision {
        // Read first: what the hub had given up to there is in the buffer by now.
        let position = self.post.position();
        let state = self.cell.state.lock();
        let seen = match (state.buffer.is_empty(), state.is_synced) {
            (true, true) => position.max(state.seen),
            (true, false) => state.seen,
            (false, _) => Revision::NONE,
        };
        seen.max(self.handed_out)
    }

    /// Whether it was given everything up to the present and has taken it.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        let state = self.cell.state.lock();
        state.is_synced && state.buffer.is_empty()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut state = self.cell.state.lock();
        state.is_left = true;
        self.post.counters.watchers.fetch_sub(1, Ordering::Relaxed);
        self.post.counters.buffered_bytes.fetch_sub(state.bytes, Ordering::Relaxed);
        state.bytes = 0;
        state.buffer.clear();
        drop(state);
        self.post.send(Message::Leave(self.id));
    }
}
