//! [`Hub`]: the thread that gives each watcher what it is to see.
//!
//! What holds between two steps:
//! - a synced watcher was given all it is to see up to `position`, and nothing beyond;
//! - one that is behind, or parked because its buffer is full, was given all before its `next`, which
//!   is not above `position`;
//! - the queue of the post goes on behind `position` or, where that was not accepted, behind `gap_to`.
//!
//! Those behind are served in sweeps, from the lowest `next` up to where the sweep began: each batch
//! is for all whose `next` it meets or has met. Who falls behind below the sweep waits for the next
//! one. So a sweep reads a revision once for all, and nobody waits for more than a sweep.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::event::{Published, Source};
use super::post::{Message, Post, Standing};
use super::scan::{Sink, read_batch};
use super::table::{Place, Table};
use crate::error::{ReadError, StoreError};
use crate::store::Shared;
use crate::types::Revision;
use crate::view::ReadView;

/// Between two attempts to get a slot for a read view.
const SLOT_PAUSE: Duration = Duration::from_millis(20);

/// See the module.
pub(super) struct Hub {
    shared: Arc<Shared>,
    post: Arc<Post>,
    table: Table,
    position: Revision,
    /// Up to here the queue lacks what follows `position`.
    gap_to: Revision,
    /// Where the sweep of those behind goes on.
    hand: Revision,
    /// Where the sweep ends.
    sweep_end: Revision,
    /// Why the watches end, if the hub ends otherwise than by a panic.
    reason: Option<StoreError>,
}

impl Hub {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let post = Arc::clone(&shared.post);
        let position = post.position();
        Self {
            shared,
            post,
            table: Table::default(),
            position,
            gap_to: position,
            hand: Revision::NONE,
            sweep_end: Revision::NONE,
            reason: None,
        }
    }

    pub(super) fn run(mut self) {
        let reason = self.serve().map_or_else(|error| error, |()| closed());
        self.reason = Some(reason);
    }

    fn serve(&mut self) -> Result<(), StoreError> {
        loop {
            if self.table.synced_count() == 0 {
                // Nobody misses the gap: those behind read all of it anyway.
                self.move_to(self.position.max(self.gap_to));
            }
            let (is_behind, has_gap) = (self.table.is_anyone_behind(), self.has_gap());
            let needs_queue = is_behind || self.table.synced_count() > 0;
            let standing = Standing { is_busy: is_behind || has_gap, needs_queue, has_gap };
            let Some(taken) = self.post.take(standing) else { return Ok(()) };
            if let Some(gap_to) = taken.gap_to
                && taken.queue.is_empty()
                && self.table.synced_count() == 0
            {
                // Whoever joins now joins at the present.
                self.move_to(gap_to);
            }
            for message in taken.messages {
                self.receive(message);
            }
            self.distribute(taken.queue)?;
            self.gap_to = self.gap_to.max(taken.gap_to.unwrap_or_default());
            if self.has_gap() && self.table.synced_count() > 0 {
                self.fill_gap()?;
            }
            if self.table.is_anyone_behind() {
                self.catch_up()?;
            }
            let counters = &self.post.counters;
            counters.synced.store(self.table.synced_count(), Ordering::Relaxed);
        }
    }

    fn has_gap(&self) -> bool {
        self.gap_to > self.position
    }

    fn move_to(&mut self, position: Revision) {
        self.position = position;
        self.post.set_position(position);
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Join { id, request, cell } => {
                self.table.add((id, request, cell), self.position);
            }
            Message::Resume(id) => self.table.resume(id, self.position),
            Message::Leave(id) => self.table.remove(id),
        }
    }

    /// Gives what apply handed over to the synced watchers.
    fn distribute(&mut self, queue: impl IntoIterator<Item = Published>) -> Result<(), StoreError> {
        // Taken only if somebody asked for a previous version.
        let view = OnceCell::new();
        let Self { shared, post, table, .. } = self;
        let taken = || match view.get() {
            Some(view) => Ok(view),
            None => take_view(shared, post).map(|fresh| view.get_or_init(|| fresh)),
        };
        for published in queue {
            for event in &published.events {
                let source = Source::Applied(event);
                table.offer(post, Place::Synced, source, taken)?;
            }
            table.complete(post, &published.stamp);
            self.position = published.stamp.revision;
            post.set_position(self.position);
        }
        Ok(())
    }

    /// Reads a batch of what the queue lacks, for the synced watchers.
    fn fill_gap(&mut self) -> Result<(), StoreError> {
        let view = take_view(&self.shared, &self.post)?;
        let mut from = self.position.next();
        if from < view.compacted() {
            self.table.end_compacted(Place::Synced, view.compacted(), self.gap_to);
            from = view.compacted();
            self.move_to(self.gap_to.min(Revision(from.0 - 1)));
        }
        if self.has_gap() {
            let last = self.read(&view, Place::Synced, (from, self.gap_to))?;
            self.move_to(last);
        }
        Ok(())
    }

    /// Reads a batch for those behind.
    fn catch_up(&mut self) -> Result<(), StoreError> {
        let view = take_view(&self.shared, &self.post)?;
        self.table.end_compacted(Place::Behind, view.compacted(), self.position);
        let ahead = self.table.lowest_behind(self.hand).filter(|&next| next <= self.sweep_end);
        let start = ahead.or_else(|| {
            self.sweep_end = self.position;
            self.table.lowest_behind(Revision::NONE)
        });
        let Some(start) = start else { return Ok(()) };
        self.table.meet(start);
        let last = self.read(&view, Place::Behind, (start, self.position))?;
        self.table.advance(last, self.position);
        self.hand = last.next();
        Ok(())
    }

    fn read(
        &mut self,
        view: &ReadView,
        place: Place,
        bounds: (Revision, Revision),
    ) -> Result<Revision, StoreError> {
        let mut sink = Distribution { table: &mut self.table, post: &self.post, place };
        read_batch(view, &self.post.options, bounds, &mut sink)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let reason = self.reason.take().unwrap_or_else(|| StoreError::Closed {
            reason: Arc::from("the thread of the watches panicked"),
        });
        for message in self.post.end(&reason) {
            if let Message::Join { cell, .. } = message {
                cell.end(ReadError::Store(reason.clone()));
            }
        }
        self.table.end(&reason);
    }
}

/// A view of all that was applied, and published, so far.
fn take_view(shared: &Arc<Shared>, post: &Post) -> Result<ReadView, StoreError> {
    loop {
        match ReadView::take(Arc::clone(shared)) {
            Err(StoreError::ReadersFull { .. }) => {
                if post.pause(SLOT_PAUSE) {
                    return Err(closed());
                }
            }
            taken => return taken,
        }
    }
}

fn closed() -> StoreError {
    StoreError::Closed { reason: Arc::from("close was called") }
}

/// Gives what is read from the revisions tree to the watchers of one place.
struct Distribution<'h> {
    table: &'h mut Table,
    post: &'h Post,
    place: Place,
}

impl Sink for Distribution<'_> {
    fn change(&mut self, view: &ReadView, source: Source<'_>) -> Result<usize, StoreError> {
        self.table.offer(self.post, self.place, source, || Ok(view))
    }

    fn complete(&mut self, view: &ReadView, revision: Revision) -> Result<(), StoreError> {
        self.post.counters.revisions_read.fetch_add(1, Ordering::Relaxed);
        if self.table.has_matches() {
            let stamp = Arc::new(view.stamp_of(revision)?);
            self.table.complete(self.post, &stamp);
        }
        Ok(())
    }
}
