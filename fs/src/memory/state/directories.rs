//! Which names live directly in which directory, at every revision.
//!
//! A name appears in its directory when its key does, or when the first name appears in the directory
//! that it stands for; so one new key may make names appear all the way up. Names that only change
//! places within a revision (the last name goes, another comes) neither vanish nor appear above.
//!
//! A directory that is moved whole goes on with its times ([`Arrivals`]).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use revfs_api::keyspace::{DirectoryAnswer, Revision, Time};

/// By prefix.
#[derive(Default)]
pub(super) struct Directories(BTreeMap<Bytes, Directory>);

#[derive(Default)]
struct Directory {
    /// Of each name: when it appeared and vanished, by turns, ascending.
    names: BTreeMap<Bytes, Vec<(Revision, bool)>>,
    /// With the revision from which on each holds, ascending.
    states: Vec<(Revision, DirectoryAnswer)>,
}

impl Directory {
    fn at(&self, at: Revision) -> DirectoryAnswer {
        let known = self.states.partition_point(|(since, _)| *since <= at);
        let state = self.states[..known].last().map(|(_, state)| *state);
        // Of a directory that is gone nothing is told.
        state.filter(|state| state.names > 0).unwrap_or_default()
    }
}

/// Directories that names are moved into: the one that they were in, and how many they are.
#[derive(Default)]
pub(in crate::memory) struct Arrivals(BTreeMap<Bytes, (Bytes, u64)>);

impl Arrivals {
    /// Enters that `key`, which begins with `from`, goes below `to`.
    pub(in crate::memory) fn enter(&mut self, key: &Bytes, from: &[u8], to: &[u8]) {
        let (mut directory, _) = split_key(key);
        while let Some(rest) = directory.strip_prefix(from) {
            let target = Bytes::from([to, rest].concat());
            if !target.ends_with(b"/") {
                return;
            }
            let (_, names) = self.0.entry(target).or_insert_with(|| (directory.clone(), 0));
            *names += 1;
            // With its first name it is a name itself, of the directory above it.
            let Some((above, _)) = split_directory(&directory).filter(|_| *names == 1) else {
                return;
            };
            directory = above;
        }
    }
}

/// Names that appear or vanish, by directory: the longest prefix first, so that all below a directory
/// is done before it is.
#[derive(Default)]
struct Pending(BTreeMap<(Reverse<usize>, Bytes), Vec<Turn>>);

/// A name, and whether it lives from now on.
type Turn = (Bytes, bool);

impl Pending {
    fn enter(&mut self, (directory, name): (Bytes, Bytes), lives: bool) {
        self.0.entry((Reverse(directory.len()), directory)).or_default().push((name, lives));
    }

    fn pop(&mut self) -> Option<(Bytes, Vec<Turn>)> {
        self.0.pop_first().map(|((_, directory), names)| (directory, names))
    }
}

impl Directories {
    /// Enters what one revision changed: keys that came to life or were deleted, and what was moved.
    pub(super) fn commit(
        &mut self,
        flips: &[Turn],
        arrivals: &Arrivals,
        revision: Revision,
        time: Time,
    ) {
        let mut pending = Pending::default();
        for (key, lives) in flips {
            pending.enter(split_key(key), *lives);
        }
        for directory in arrivals.0.keys() {
            pending.0.entry((Reverse(directory.len()), directory.clone())).or_default();
        }
        while let Some((prefix, names)) = pending.pop() {
            let arrival = arrivals
                .0
                .get(&prefix)
                .map(|(source, names)| (*names, self.at(source, Revision(revision.0 - 1))));
            let directory = self.0.entry(prefix.clone()).or_default();
            let before = directory.at(revision).names;
            let mut after = before;
            let has_changed = !names.is_empty();
            for (name, lives) in names {
                after = if lives { after + 1 } else { after - 1 };
                directory.names.entry(name).or_default().push((revision, lives));
            }
            // What came lies in both; if they have no other names, they are one directory.
            let whole = arrival.filter(|(came, source)| *came == after && source.names == after);
            if let Some((_, source)) = whole {
                directory.states.push((revision, source));
            } else if has_changed {
                let state = DirectoryAnswer { names: after, changed: revision, time };
                directory.states.push((revision, state));
            }
            if (before == 0) != (after == 0)
                && let Some(place) = split_directory(&prefix)
            {
                pending.enter(place, after > 0);
            }
        }
    }

    pub(super) fn at(&self, prefix: &[u8], at: Revision) -> DirectoryAnswer {
        self.0.get(prefix).map_or_else(DirectoryAnswer::default, |directory| directory.at(at))
    }

    /// The names that live at a revision above `after` (all, if that is empty), in order.
    pub(super) fn names(
        &self,
        prefix: &[u8],
        after: &Bytes,
        at: Revision,
    ) -> impl Iterator<Item = &Bytes> {
        let above =
            if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after.clone()) };
        let names = self.0.get(prefix).map(|directory| &directory.names);
        names
            .into_iter()
            .flat_map(move |names| names.range((above.clone(), Bound::Unbounded)))
            .filter_map(move |(name, turns)| {
                let known = turns.partition_point(|(revision, _)| *revision <= at);
                turns[..known].last().is_some_and(|(_, lives)| *lives).then_some(name)
            })
    }
}

/// The directory of a key and its name there: `/a/b` is `b` in `/a/`, and `/a/` the empty name.
fn split_key(key: &Bytes) -> (Bytes, Bytes) {
    let prefix_bytes = key.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    (key.slice(..prefix_bytes), key.slice(prefix_bytes..))
}

/// The directory above another, and the name of this one there: `/a/` is `a/` in `/`. `None` for the
/// empty prefix.
fn split_directory(prefix: &Bytes) -> Option<(Bytes, Bytes)> {
    let inner = prefix.strip_suffix(b"/")?;
    let above_bytes = inner.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    Some((prefix.slice(..above_bytes), prefix.slice(above_bytes..)))
}
