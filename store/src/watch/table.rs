//! The hub's watchers, where each of them stands, and the distribution of events to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::event::{Form, Forms, Source};
use super::index::Index;
use super::post::{Post, WatcherId};
use super::watcher::Cell;
use super::{Slot, WatchRequest, WatchedEvent, WatchedRevision};
use crate::error::{ReadError, StoreError};
use crate::types::{ChangeKind, Revision, Stamp};
use crate::view::ReadView;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Synced,
    Behind,
    /// Its buffer is full: in no index.
    Parked,
}

/// One watcher, as the hub knows it.
pub(super) struct Entry {
    id: WatcherId,
    cell: Arc<Cell>,
    request: WatchRequest,
    place: Place,
    /// The first revision that it is still to be given; may lie in the future.
    pub(super) next: Revision,
    /// Of those behind: whether the present batch is for it too.
    is_met: bool,
    /// The last event that matched it, so that two ranges see one event once.
    last_event: u64,
    /// Events of the revision in distribution.
    matched: Vec<Arc<WatchedEvent>>,
}

impl Entry {
    fn sees(&self, revision: Revision, kind: ChangeKind) -> bool {
        let is_filtered = match kind {
            ChangeKind::Put => self.request.without_puts,
            ChangeKind::Delete => self.request.without_deletes,
        };
        let is_due = self.place == Place::Synced || self.is_met;
        is_due && self.next <= revision && !is_filtered
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Table {
    entries: Vec<Option<Entry>>,
    free: Vec<Slot>,
    slots: BTreeMap<WatcherId, Slot>,
    synced: Index,
    behind: Index,
    synced_count: usize,
    /// Those in the `behind` index.
    catching_up: BTreeSet<Slot>,
    /// Events distributed so far.
    event_count: u64,
    /// Watchers with events of the revision in distribution.
    touched: Vec<Slot>,
    found: Vec<Slot>,
}

impl Table {
    pub(super) fn synced_count(&self) -> usize {
        self.synced_count
    }

    pub(super) fn is_anyone_behind(&self) -> bool {
        !self.catching_up.is_empty()
    }

    pub(super) fn add(
        &mut self,
        (id, request, cell): (WatcherId, WatchRequest, Arc<Cell>),
        position: Revision,
    ) {
        let entry = Entry {
            id,
            cell,
            next: request.from,
            request,
            place: Place::Parked,
            is_met: false,
            last_event: 0,
            matched: Vec::new(),
        };
        let slot = self.free.pop().unwrap_or(self.entries.len());
        if slot == self.entries.len() {
            self.entries.push(Some(entry));
        } else {
            self.entries[slot] = Some(entry);
        }
        self.slots.insert(id, slot);
        self.settle(slot, position);
    }

    /// Serves a parked watcher again.
    pub(super) fn resume(&mut self, id: WatcherId, position: Revision) {
        if let Some(&slot) = self.slots.get(&id)
            && self.entry(slot).place == Place::Parked
        {
            self.settle(slot, position);
        }
    }

    pub(super) fn remove(&mut self, id: WatcherId) {
        let Some(slot) = self.slots.remove(&id) else { return };
        self.lift(slot);
        self.entries[slot] = None;
        self.free.push(slot);
    }

    fn entry(&mut self, slot: Slot) -> &mut Entry {
        self.entries[slot].as_mut().expect("a slot in an index or table has its watcher")
    }

    /// Puts a watcher that is in no index where its `next` belongs.
    fn settle(&mut self, slot: Slot, position: Revision) {
        let entry = self.entries[slot].as_mut().expect("the caller has the slot of a watcher");
        if entry.next > position {
            entry.place = Place::Synced;
            entry.cell.set_synced();
            self.synced.insert(&entry.request.ranges, slot);
            self.synced_count += 1;
        } else {
            entry.place = Place::Behind;
            entry.is_met = false;
            self.behind.insert(&entry.request.ranges, slot);
            self.catching_up.insert(slot);
        }
    }

    /// Takes a watcher out of its index.
    fn lift(&mut self, slot: Slot) {
        let entry = self.entries[slot].as_mut().expect("the caller has the slot of a watcher");
        match std::mem::replace(&mut entry.place, Place::Parked) {
            Place::Parked => {}
            Place::Synced => {
                self.synced.remove(&entry.request.ranges, slot);
                self.synced_count -= 1;
            }
            Place::Behind => {
                self.behind.remove(&entry.request.ranges, slot);
                self.catching_up.remove(&slot);
            }
        }
    }

    /// Ends each watcher of `place` that is to be given a revision below `compacted`, up to `last`.
    pub(super) fn end_compacted(&mut self, place: Place, compacted: Revision, last: Revision) {
        let lost =
            |entry: &&Entry| entry.place == place && entry.next < compacted && entry.next <= last;
        let lost: Vec<_> = self.entries.iter().flatten().filter(lost).map(|e| e.id).collect();
        for id in lost {
            let slot = self.slots[&id];
            let entry = self.entry(slot);
            let requested = entry.next;
            entry.cell.end(ReadError::Compacted { requested, compacted });
            self.remove(id);
        }
    }

    /// The lowest `next` of those behind that is not below `bound`.
    pub(super) fn lowest_behind(&mut self, bound: Revision) -> Option<Revision> {
        let entries = &self.entries;
        let nexts = self.catching_up.iter().filter_map(|&slot| entries[slot].as_ref());
        nexts.map(|entry| entry.next).filter(|&next| next >= bound).min()
    }

    /// Begins a batch at `start` for those behind.
    pub(super) fn meet(&mut self, start: Revision) {
        for &slot in &self.catching_up {
            if let Some(entry) = &mut self.entries[slot] {
                entry.is_met = entry.next >= start;
            }
        }
    }

    /// Ends a batch that was read up to `last`: who has arrived at `position` is synced.
    pub(super) fn advance(&mut self, last: Revision, position: Revision) {
        let mut arrived = Vec::new();
        for &slot in &self.catching_up {
            let Some(entry) = &mut self.entries[slot] else { continue };
            if entry.is_met && entry.next <= last {
                entry.next = last.next();
            }
            if entry.next > position {
                arrived.push(slot);
            }
        }
        for slot in arrived {
            self.lift(slot);
            self.settle(slot, position);
        }
    }

    /// Finds the watchers of one event in the group of `place`; returns the bytes that were read or
    /// copied for them.
    pub(super) fn offer<'v>(
        &mut self,
        post: &Post,
        place: Place,
        source: Source<'_>,
        mut view: impl FnMut() -> Result<&'v ReadView, StoreError>,
    ) -> Result<usize, StoreError> {
        let revision = source.revision();
        let index = if place == Place::Synced { &self.synced } else { &self.behind };
        self.event_count += 1;
        self.found.clear();
        let steps = index.find(source.key(), &mut self.found);
        let mut forms = Forms::new(source);
        for &slot in &self.found {
            let entry = self.entries[slot].as_mut().expect("an index holds slots of watchers");
            if entry.last_event == self.event_count || !entry.sees(revision, source.kind()) {
                continue;
            }
            entry.last_event = self.event_count;
            if entry.matched.is_empty() {
                self.touched.push(slot);
            }
            entry.matched.push(forms.get(Form::of(&entry.request), &mut view)?);
        }
        let counters = &post.counters;
        let visited = u64::try_from(self.found.len()).unwrap_or(u64::MAX);
        counters.visited.fetch_add(visited, Ordering::Relaxed);
        counters.index_steps.fetch_add(steps, Ordering::Relaxed);
        counters.versions_read.fetch_add(forms.versions_read, Ordering::Relaxed);
        Ok(forms.bytes)
    }

    /// Whether the revision in distribution has events for anybody.
    pub(super) fn has_matches(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Gives the revision in distribution to those who have events in it. Whose buffer is full is
    /// parked in front of it.
    pub(super) fn complete(&mut self, post: &Post, stamp: &Arc<Stamp>) {
        let mut touched = std::mem::take(&mut self.touched);
        for slot in touched.drain(..) {
            let entry = self.entry(slot);
            let events = std::mem::take(&mut entry.matched);
            let revision = WatchedRevision { stamp: Arc::clone(stamp), events };
            if !entry.cell.deliver(post, revision) {
                entry.next = stamp.revision;
                self.lift(slot);
            }
        }
        self.touched = touched;
    }

    /// Ends all watches.
    pub(super) fn end(&mut self, error: &StoreError) {
        for entry in self.entries.drain(..).flatten() {
            entry.cell.end(ReadError::Store(error.clone()));
        }
    }
}
