//! The log as it is in memory: its state, where each entry lies, and the newest payloads.
//!
//! Entries follow each other without gaps from `purged + 1` to `last`. An entry gets its [`Place`]
//! when the writer has put it into a group; until then its payload stays in memory whatever the
//! bound of the cache. A serial number tells an entry from one that replaced it at the same index
//! while the first was still on its way to the disk.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;

use super::{Entry, LogError, LogId, State};

/// Where an entry's record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u32,
    /// Whole record.
    pub(super) length: u32,
    /// The group's seed for the record's checksum.
    pub(super) seed: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) id: LogId,
    pub(super) kind: u8,
    pub(super) serial: u64,
    pub(super) payload: Option<Bytes>,
    pub(super) place: Option<Place>,
}

#[derive(Debug)]
pub(super) struct Index {
    state: State,
    slots: VecDeque<Slot>,
    /// Log index of `slots[0]`.
    first: u64,
    serial: u64,
    cached_bytes: usize,
    cached_bytes_max: usize,
    /// Entries below this index have no payload in memory.
    cached_from: u64,
}

impl Index {
    pub(super) fn new(cached_bytes_max: usize, state: State) -> Self {
        let first = state.last.map_or(0, |last| last.index + 1);
        Self {
            state,
            slots: VecDeque::new(),
            first,
            serial: 0,
            cached_bytes: 0,
            cached_bytes_max,
            cached_from: first,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// Adds an entry behind the last one; returns its serial number.
    pub(super) fn append(&mut self, entry: Entry, place: Option<Place>) -> Result<u64, LogError> {
        let Entry { id, kind, payload } = entry;
        match self.state.last {
            Some(last) if id.index != last.index + 1 || id.term < last.term => {
                return Err(LogError::Gap { last: Some(last), found: id });
            }
            Some(_) => {}
            None => {
                self.first = id.index;
                self.cached_from = id.index;
            }
        }
        self.state.last = Some(id);
        self.serial += 1;
        self.cached_bytes += payload.len();
        self.slots.push_back(Slot { id, kind, serial: self.serial, payload: Some(payload), place });
        self.evict();
        Ok(self.serial)
    }

    /// Notes where the writer has put an entry, unless that was truncated or purged meanwhile.
    pub(super) fn set_place(&mut self, index: u64, serial: u64, place: Place) {
        if let Some(slot) = self.slot_mut(index)
            && slot.serial == serial
        {
            slot.place = Some(place);
        }
    }

    /// Whether the entry `id` is on disk, or was given up because the store holds it.
    pub(super) fn is_durable(&self, id: LogId) -> bool {
        if self.state.purged.is_some_and(|purged| purged.index >= id.index) {
            return true;
        }
        let slot = self.range(&(id.index..id.index + 1)).next();
        slot.is_some_and(|slot| slot.id == id && slot.place.is_some())
    }

    /// Whether the log has the entry `id`, or has given it up.
    pub(super) fn holds(&self, id: LogId) -> bool {
        if self.state.purged.is_some_and(|purged| purged.index >= id.index) {
            return true;
        }
        self.range(&(id.index..id.index + 1)).next().is_some_and(|slot| slot.id == id)
    }

    fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(at)
    }

    /// Drops the oldest payloads beyond the bound that can be read from disk.
    pub(super) fn evict(&mut self) {
        while self.cached_bytes > self.cached_bytes_max {
            let oldest = self.cached_from;
            let Some(slot) = self.slot_mut(oldest) else { return };
            if slot.place.is_none() {
                return;
            }
            let dropped = slot.payload.take().map_or(0, |payload| payload.len());
            self.cached_bytes -= dropped;
            self.cached_from += 1;
        }
    }

    /// Forgets the entries behind `id`.
    pub(super) fn truncate_after(&mut self, id: Option<LogId>) {
        let id = id.max(self.state.purged);
        let next = id.map_or(0, |id| id.index + 1);
        while let Some(slot) = self.slots.pop_back_if(|slot| slot.id.index >= next) {
            self.cached_bytes -= slot.payload.map_or(0, |payload| payload.len());
        }
        match self.slots.back() {
            Some(slot) => self.state.last = Some(slot.id),
            None => {
                self.state.last = self.state.last.min(id);
                self.first = self.next_index();
            }
        }
        self.cached_from = self.cached_from.min(self.next_index()).max(self.first);
    }

    /// Forgets the entries up to and including `id`.
    pub(super) fn purge(&mut self, id: LogId) {
        self.state.purged = self.state.purged.max(Some(id));
        while let Some(slot) = self.slots.pop_front_if(|slot| slot.id.index <= id.index) {
            self.cached_bytes -= slot.payload.map_or(0, |payload| payload.len());
            self.first = slot.id.index + 1;
        }
        if self.slots.is_empty() {
            self.state.last = self.state.last.max(self.state.purged);
            self.first = self.next_index();
        }
        self.cached_from = self.cached_from.clamp(self.first, self.next_index().max(self.first));
    }

    fn next_index(&self) -> u64 {
        self.state.last.map_or(0, |last| last.index + 1)
    }

    /// The first entry of those at the end whose payloads take at most `bytes`.
    pub(super) fn first_index_within(&self, bytes: u64) -> u64 {
        let mut taken = 0_u64;
        let mut first = self.next_index();
        for slot in self.slots.iter().rev() {
            let length = match (&slot.payload, slot.place) {
                (Some(payload), _) => u64::try_from(payload.len()).unwrap_or(u64::MAX),
                (None, place) => place.map_or(0, |place| u64::from(place.length)),
            };
            taken = taken.saturating_add(length);
            if taken > bytes {
                break;
            }
            first = slot.id.index;
        }
        first
    }

    pub(super) fn first_index(&self) -> u64 {
        self.first
    }

    /// The entries with an index in `range`, in order.
    pub(super) fn range(&self, range: &Range<u64>) -> impl Iterator<Item = &Slot> {
        let begin = range.start.max(self.first);
        let skip = usize::try_from(begin - self.first).unwrap_or(usize::MAX);
        let count = usize::try_from(range.end.saturating_sub(begin)).unwrap_or(usize::MAX);
        self.slots.iter().skip(skip).take(count)
    }
}

#[cfg(test)]
mod tests {
    use super::{Index, Place};
    use crate::log::{Entry, LogId, State};

    fn place(offset: u32) -> Place {
        Place { segment: 1, offset, length: 9, seed: 0 }
    }

    fn entry(term: u64, index: u64, bytes: usize) -> Entry {
        Entry { id: LogId { term, index }, kind: 1, payload: vec![1; bytes].into() }
    }

    #[test]
    fn an_entry_without_a_place_stays_in_memory() {
        let mut index = Index::new(4, State::default());
        let first = index.append(entry(1, 0, 8), None).unwrap();
        index.append(entry(1, 1, 8), None).unwrap();
        assert!(index.range(&(0..2)).all(|slot| slot.payload.is_some()));

        index.set_place(0, first, place(16));
        index.evict();
        let kept: Vec<bool> = index.range(&(0..2)).map(|slot| slot.payload.is_some()).collect();
        assert_eq!(kept, [false, true]);
    }

    #[test]
    fn a_place_of_a_replaced_entry_is_not_taken() {
        let mut index = Index::new(1 << 20, State::default());
        let old = index.append(entry(1, 0, 1), None).unwrap();
        index.truncate_after(None);
        let new = index.append(entry(2, 0, 1), None).unwrap();
        index.set_place(0, old, place(16));
        assert_eq!(index.range(&(0..1)).next().unwrap().place, None);
        index.set_place(0, new, place(32));
        assert_eq!(index.range(&(0..1)).next().unwrap().place, Some(place(32)));
    }

    #[test]
    fn a_gap_is_refused() {
        let mut index = Index::new(1 << 20, State::default());
        index.append(entry(1, 0, 1), None).unwrap();
        assert!(index.append(entry(1, 2, 1), None).is_err());
        assert!(index.append(entry(0, 1, 1), None).is_err());
        assert_eq!(index.state().last, Some(LogId { term: 1, index: 0 }));
    }
}
