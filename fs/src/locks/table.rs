//! The locks of one file at one moment, and what may be added to them.
//!
//! A lock covers bytes of a file, is shared or exclusive, and belongs to an *owner* of a mount: what the
//! kernel says whom it belongs to (the process for fcntl, the open file for flock). An owner has at most
//! one kind of lock on a byte; what it asks for anew replaces what it had there. It never waits for itself.
//!
//! Entries that wait stand in the order of their coming. Who asks and may wait stands behind those that
//! wait already, unless they wait for it; who asks only to try looks at locks that are held, as the
//! kernel does.
//!
//! A file is one life of a key: entries of another life say nothing.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// The last byte that a lock can cover: the kernel's largest offset.
pub(crate) const LAST_BYTE: u64 = i64::MAX as u64;

/// Entries of one mount on one file; who locks byte by byte is refused beyond it.
pub(crate) const ENTRIES_MAX: usize = 1_024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Shared,
    Exclusive,
}

/// One lock, or the wish for one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub owner: u64,
    /// Process that asked, on its machine; 0 if it is not known there.
    pub pid: u32,
    /// The life of the file.
    pub birth: u64,
    pub start: u64,
    /// Inclusive.
    pub end: u64,
    pub kind: Kind,
    /// The place in the line, if it is only waited for: a revision before it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<u64>,
}

impl Entry {
    fn meets(&self, other: &Self) -> bool {
        self.birth == other.birth && self.start <= other.end && other.start <= self.end
    }

    fn excludes(&self, other: &Self) -> bool {
        self.meets(other) && (self.kind == Kind::Exclusive || other.kind == Kind::Exclusive)
    }
}

/// The entry of some mount's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Of {
    pub session: u64,
    pub entry: Entry,
}

impl Of {
    fn holder(&self) -> (u64, u64) {
        (self.session, self.entry.owner)
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// The session whose entries may be changed.
    pub own: u64,
    pub entries: Vec<Of>,
}

impl Table {
    pub(crate) fn own_entries(&self) -> Vec<Entry> {
        let own = self.entries.iter().filter(|of| of.session == self.own);
        own.map(|of| of.entry.clone()).collect()
    }

    /// The locks that are held against `wanted`.
    pub(crate) fn held_against(&self, wanted: &Entry) -> Vec<&Of> {
        let holder = (self.own, wanted.owner);
        let held = self.entries.iter().filter(|of| of.entry.waits.is_none());
        held.filter(|of| of.holder() != holder && of.entry.excludes(wanted)).collect()
    }

    /// All that stands before `wanted`, which has this place in the line, or comes now.
    pub(crate) fn before(&self, wanted: &Entry, place: Option<u64>) -> Vec<&Of> {
        self.before_holder((self.own, wanted.owner), wanted, place)
    }

    fn before_holder(&self, holder: (u64, u64), wanted: &Entry, place: Option<u64>) -> Vec<&Of> {
        let is_ahead = |of: &&Of| match (of.entry.waits, place) {
            (None, _) | (Some(_), None) => true,
            (Some(other), Some(own)) => (other, of.session) < (own, holder.0),
        };
        let others = self.entries.iter().filter(is_ahead);
        let others = others.filter(|of| of.holder() != holder && of.entry.excludes(wanted));
        others.filter(|of| of.entry.waits.is_none() || !self.waits_for(of, holder)).collect()
    }

    /// Whether an entry that waits does so because of what `holder` holds.
    fn waits_for(&self, waiting: &Of, holder: (u64, u64)) -> bool {
        self.entries.iter().any(|of| {
            of.holder() == holder && of.entry.waits.is_none() && of.entry.excludes(&waiting.entry)
        })
    }

    /// Whether to wait for `wanted` is to wait for ever: those before it wait for its owner, or belong
    /// to its own process, which would be the one to let go.
    pub(crate) fn is_deadlock(&self, wanted: &Entry) -> bool {
        let own = (self.own, wanted.owner);
        let before = self.before(wanted, None);
        let is_same = |of: &&Of| of.session == self.own && of.entry.pid == wanted.pid;
        if wanted.pid != 0 && !before.is_empty() && before.iter().all(is_same) {
            return true;
        }
        let mut asked: Vec<_> = before.into_iter().map(Of::holder).collect();
        let mut known = BTreeSet::new();
        while let Some(holder) = asked.pop() {
            if holder == own {
                return true;
            }
            if !known.insert(holder) {
                continue;
            }
            let waiting = self.entries.iter();
            let waiting = waiting.filter(|of| of.holder() == holder && of.entry.waits.is_some());
            for of in waiting {
                let before = self.before_holder(holder, &of.entry, of.entry.waits);
                asked.extend(before.into_iter().map(Of::holder));
            }
        }
        false
    }

    /// Gives `wanted` to its owner in place of what it held of those bytes.
    pub(crate) fn hold(&mut self, wanted: &Entry) {
        self.release(wanted.owner, wanted.birth, wanted.start, wanted.end);
        let mut held = Entry { waits: None, ..wanted.clone() };
        // What touches is one lock, so that their number stays small.
        let own = self.own;
        self.entries.retain(|of| {
            let other = &of.entry;
            let touches = of.session == own
                && other.waits.is_none()
                && (other.owner, other.birth, other.kind) == (held.owner, held.birth, held.kind)
                && (other.end.checked_add(1) == Some(held.start)
                    || held.end.checked_add(1) == Some(other.start));
            if touches {
                held.start = held.start.min(other.start);
                held.end = held.end.max(other.end);
            }
            !touches
        });
        self.entries.push(Of { session: own, entry: held });
    }

    /// Takes these bytes from what an owner holds.
    pub(crate) fn release(&mut self, owner: u64, birth: u64, start: u64, end: u64) {
        let mut left = Vec::with_capacity(self.entries.len());
        for of in self.entries.drain(..) {
            let entry = &of.entry;
            let is_hit = of.session == self.own
                && entry.waits.is_none()
                && (entry.owner, entry.birth) == (owner, birth)
                && entry.start <= end
                && start <= entry.end;
            if !is_hit {
                left.push(of);
                continue;
            }
            if entry.start < start {
                let entry = Entry { end: start - 1, ..entry.clone() };
                left.push(Of { session: of.session, entry });
            }
            if entry.end > end {
                let entry = Entry { start: end + 1, ..entry.clone() };
                left.push(Of { session: of.session, entry });
            }
        }
        self.entries = left;
    }

    /// Puts `wanted` into the line.
    pub(crate) fn wait(&mut self, wanted: &Entry, place: u64) {
        let entry = Entry { waits: Some(place), ..wanted.clone() };
        self.entries.push(Of { session: self.own, entry });
    }

    /// Takes an entry out of the line; false if it is not in it.
    pub(crate) fn withdraw(&mut self, owner: u64, place: u64) -> bool {
        let before = self.entries.len();
        let own = self.own;
        self.entries.retain(|of| {
            of.session != own || of.entry.owner != owner || of.entry.waits != Some(place)
        });
        self.entries.len() < before
    }

    /// Whether an owner of this mount holds anything of the file.
    pub(crate) fn holds_any(&self, owner: u64, birth: u64) -> bool {
        self.entries.iter().any(|of| {
            of.session == self.own
                && of.entry.waits.is_none()
                && (of.entry.owner, of.entry.birth) == (owner, birth)
        })
    }
}

#[cfg(test)]
mod tests {
    //! Mount 1 asks; mount 2 is another machine.

    use super::{Entry, Kind, LAST_BYTE, Of, Table};

    fn entry(owner: u64, start: u64, end: u64, kind: Kind) -> Entry {
        let pid = u32::try_from(owner).unwrap();
        Entry { owner, pid, birth: 5, start, end, kind, waits: None }
    }

    fn whole(owner: u64, kind: Kind) -> Entry {
        entry(owner, 0, LAST_BYTE, kind)
    }

    fn with(others: Vec<Entry>) -> Table {
        let entries = others.into_iter().map(|entry| Of { session: 2, entry }).collect();
        Table { own: 1, entries }
    }

    fn ranges(table: &Table) -> Vec<(u64, u64, u64, Kind)> {
        let mut all: Vec<_> = table
            .own_entries()
            .iter()
            .map(|entry| (entry.owner, entry.start, entry.end, entry.kind))
            .collect();
        all.sort_by_key(|&(owner, start, ..)| (owner, start));
        all
    }

    #[test]
    fn shared_locks_go_together_and_an_exclusive_one_with_none() {
        for (held, wanted, fits) in [
            (Kind::Shared, Kind::Shared, true),
            (Kind::Shared, Kind::Exclusive, false),
            (Kind::Exclusive, Kind::Shared, false),
            (Kind::Exclusive, Kind::Exclusive, false),
        ] {
            let table = with(vec![whole(7, held)]);
            let against = table.held_against(&whole(8, wanted));
            assert_eq!(against.is_empty(), fits, "{held:?} {wanted:?}");
        }
        let apart = with(vec![entry(7, 0, 9, Kind::Exclusive)]);
        assert!(apart.held_against(&entry(8, 10, 19, Kind::Exclusive)).is_empty());
        let other_life = with(vec![Entry { birth: 4, ..whole(7, Kind::Exclusive) }]);
        assert!(other_life.held_against(&whole(8, Kind::Exclusive)).is_empty());
        // The same number is another owner on another machine, and no obstacle to itself here.
        assert_eq!(
            with(vec![whole(8, Kind::Shared)]).held_against(&whole(8, Kind::Exclusive)).len(),
            1
        );
        let mut own = Table { own: 1, entries: Vec::new() };
        own.hold(&whole(8, Kind::Shared));
        assert!(own.held_against(&whole(8, Kind::Exclusive)).is_empty());
    }

    #[test]
    fn what_is_asked_for_anew_replaces_and_a_release_cuts_a_hole() {
        let mut table = Table { own: 1, entries: Vec::new() };
        table.hold(&entry(7, 0, 9, Kind::Exclusive));
        table.hold(&entry(7, 10, 19, Kind::Exclusive));
        assert_eq!(ranges(&table), [(7, 0, 19, Kind::Exclusive)]);
        table.hold(&entry(7, 5, 9, Kind::Shared));
        assert_eq!(
            ranges(&table),
            [(7, 0, 4, Kind::Exclusive), (7, 5, 9, Kind::Shared), (7, 10, 19, Kind::Exclusive)]
        );
        table.release(7, 5, 3, 12);
        assert_eq!(ranges(&table), [(7, 0, 2, Kind::Exclusive), (7, 13, 19, Kind::Exclusive)]);
        assert!(table.holds_any(7, 5) && !table.holds_any(8, 5));
        table.release(7, 5, 0, LAST_BYTE);
        assert!(!table.holds_any(7, 5));
        table.hold(&whole(7, Kind::Shared));
        table.hold(&whole(7, Kind::Exclusive));
        assert_eq!(ranges(&table), [(7, 0, LAST_BYTE, Kind::Exclusive)]);
    }

    #[test]
    fn who_waits_is_before_who_comes_later_but_not_before_whom_it_waits_for() {
        let mut table = with(vec![whole(7, Kind::Shared)]);
        table.hold(&whole(8, Kind::Shared));
        let writer = whole(9, Kind::Exclusive);
        assert_eq!(table.before(&writer, None).len(), 2);
        table.wait(&writer, 100);
        let late = whole(10, Kind::Shared);
        assert_eq!(table.before(&late, None).len(), 1, "the writer came first");
        assert!(table.held_against(&late).is_empty(), "but who only tries looks at what is held");
        assert!(table.before(&entry(8, 5, 6, Kind::Shared), None).is_empty(), "it has these");
        table.wait(&late, 101);
        table.release(8, 5, 0, LAST_BYTE);
        assert_eq!(table.before(&writer, Some(100)).len(), 1);
        table.entries.retain(|of| of.session == 1);
        assert!(table.before(&writer, Some(100)).is_empty());
        assert_eq!(table.before(&late, Some(101)).len(), 1);
        assert!(table.withdraw(9, 100) && !table.withdraw(9, 100));
        assert!(table.before(&late, Some(101)).is_empty());
    }

    #[test]
    fn a_circle_of_those_who_wait_is_seen_and_so_is_a_process_that_waits_for_itself() {
        let mut table = with(vec![whole(7, Kind::Shared)]);
        table.hold(&whole(8, Kind::Shared));
        let upgrade = whole(8, Kind::Exclusive);
        assert!(!table.is_deadlock(&upgrade));
        let theirs = Entry { waits: Some(50), ..whole(7, Kind::Exclusive) };
        table.entries.push(Of { session: 2, entry: theirs });
        assert!(table.is_deadlock(&upgrade));
        let mut table = Table { own: 1, entries: Vec::new() };
        table.hold(&whole(8, Kind::Exclusive));
        assert!(table.is_deadlock(&Entry { pid: 8, ..whole(9, Kind::Exclusive) }));
        assert!(!table.is_deadlock(&whole(9, Kind::Exclusive)));
    }
}
