//! Which names live directly in which directory, at every revision.
//!
//! A name appears in its directory when its key does, or when the first name appears in the directory
//! that it stands for; so one new key may make names appear all the way up. Names that only change
//! places within a revision (the last name goes, another comes) neither vanish nor appear above.

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
    /// Ascending.
    states: Vec<DirectoryAnswer>,
}

impl Directory {
    fn at(&self, at: Revision) -> DirectoryAnswer {
        let known = self.states.partition_point(|state| state.changed <= at);
        // Of a directory that is gone nothing is told.
        self.states[..known].last().filter(|state| state.names > 0).copied().unwrap_or_default()
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
    /// Enters what one revision changed: keys that came to life or were deleted.
    pub(super) fn commit(&mut self, flips: &[Turn], revision: Revision, time: Time) {
        let mut pending = Pending::default();
        for (key, lives) in flips {
            pending.enter(split_key(key), *lives);
        }
        while let Some((prefix, names)) = pending.pop() {
            let directory = self.0.entry(prefix.clone()).or_default();
            let before = directory.at(revision).names;
            let mut after = before;
            for (name, lives) in names {
                after = if lives { after + 1 } else { after - 1 };
                directory.names.entry(name).or_default().push((revision, lives));
            }
            directory.states.push(DirectoryAnswer { names: after, changed: revision, time });
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
