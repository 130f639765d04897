//! What an overlay has changed: of each key the lives that it began or ended, and of each directory in which
//! a name came or went its present state.
//!
//! What is read at a revision of the overlay is a file that is held open without a name, so the last
//! content of each life is enough: a later version of the same life takes the place of the one before.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use revfs_api::keyspace::{
    DirectoryAnswer, Error, KeyRange, KeyValue, ListAnswer, ListEntry, ListRead, Result, Revision,
    Time,
};

use super::CHANGED_KEYS_MAX;
use crate::attributes::record_key;
use crate::budget::{Budget, Charge, OverBudget};
use crate::memory;
use crate::path::DirectoryKey;

/// A key that was changed.
#[derive(Debug)]
pub(in crate::txn) struct Change {
    /// What the base has; its value left out.
    pub(in crate::txn) before: Option<KeyValue>,
    /// Ascending; the last one is what is there now.
    rows: Vec<Row>,
    /// The key of the base that has the content that this one has now.
    pub(in crate::txn) origin: Option<Bytes>,
}

/// A life of a key, or its end.
#[derive(Debug)]
struct Row {
    since: Revision,
    kv: Option<KeyValue>,
}

impl Change {
    pub(in crate::txn) fn now(&self) -> Option<&KeyValue> {
        self.rows.last().and_then(|row| row.kv.as_ref())
    }

    fn at(&self, revision: Revision) -> Option<Option<&KeyValue>> {
        let known = self.rows.partition_point(|row| row.since <= revision);
        self.rows[..known].last().map(|row| row.kv.as_ref())
    }

    /// Whether anything is left of the change: what came and went again is none, nor is what was moved
    /// away and back.
    pub(in crate::txn) fn is_net(&self) -> bool {
        match (&self.before, self.now()) {
            (None, None) => false,
            (Some(before), Some(now)) => {
                self.origin.as_ref() != Some(&before.key) || before.lease != now.lease
            }
            _ => true,
        }
    }

    fn push(&mut self, revision: Revision, kv: Option<KeyValue>) {
        if let (Some(Row { kv: Some(last), .. }), Some(kv)) = (self.rows.last_mut(), &kv)
            && last.create_revision == kv.create_revision
        {
            *last = kv.clone();
            return;
        }
        self.rows.push(Row { since: revision, kv });
    }

    fn value_bytes(&self) -> usize {
        self.rows.iter().filter_map(|row| row.kv.as_ref()).map(|kv| kv.value.len()).sum()
    }
}

/// See the module.
#[derive(Debug)]
pub(in crate::txn) struct Changes {
    /// The tree and its side records: above them nobody may ask, nor needs to.
    roots: [Bytes; 2],
    pub(in crate::txn) current: Revision,
    pub(in crate::txn) time: Time,
    pub(in crate::txn) keys: BTreeMap<Bytes, Change>,
    /// Those in which names came or went, with those above them.
    pub(in crate::txn) directories: BTreeMap<Bytes, DirectoryAnswer>,
    /// Of the values held.
    charge: Charge,
}

/// Names that appear or vanish, by directory: the longest prefix first, so that all below a directory is
/// done before it is.
type Pending = BTreeMap<(Reverse<usize>, Bytes), Vec<bool>>;

impl Changes {
    pub(super) fn new(at: Revision, time: Time, root: &DirectoryKey, budget: &Arc<Budget>) -> Self {
        let roots = [root.as_bytes().clone(), record_key(root.as_bytes())];
        let charge = Charge::new(budget, 0).expect("nothing fits in every budget");
        let (keys, directories) = (BTreeMap::new(), BTreeMap::new());
        Self { roots, current: at, time, keys, directories, charge }
    }

    /// A changed key at a revision ([`Revision::NONE`] = now); `None` if the base has it as it was then.
    pub(super) fn kv(&self, key: &[u8], revision: Revision) -> Option<Option<&KeyValue>> {
        let change = self.keys.get(key)?;
        if revision == Revision::NONE { Some(change.now()) } else { change.at(revision) }
    }

    /// Changed keys of a range.
    pub(super) fn in_range(&self, range: &KeyRange) -> impl Iterator<Item = (&Bytes, &Change)> {
        self.keys.range(memory::bounds(range))
    }

    /// The keys of a range, given those of the base.
    pub(super) fn merged(
        &self,
        range: &KeyRange,
        base: Vec<KeyValue>,
        revision: Revision,
    ) -> Vec<KeyValue> {
        let mut kvs: BTreeMap<Bytes, KeyValue> =
            base.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
        for (key, _) in self.in_range(range) {
            match self.kv(key, revision) {
                Some(Some(kv)) => drop(kvs.insert(key.clone(), kv.clone())),
                Some(None) => drop(kvs.remove(key)),
                None => {}
            }
        }
        kvs.into_values().collect()
    }

    /// A directory as it is told: of one that is gone, nothing.
    pub(super) fn shown(directory: DirectoryAnswer) -> DirectoryAnswer {
        if directory.names == 0 { DirectoryAnswer::default() } else { directory }
    }

    /// The page of a listing that was asked for, given the whole listing of the base.
    pub(super) fn merged_list(&self, read: &ListRead, base: ListAnswer) -> ListAnswer {
        let prefix = &read.directory;
        let mut entries: BTreeMap<Bytes, ListEntry> =
            base.entries.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
        self.merge_directories(prefix, &mut entries);
        for (key, change) in self.in_range(&KeyRange::prefix(prefix)) {
            let name = key.slice(prefix.len()..);
            let is_marker = match name.iter().position(|&byte| byte == b'/') {
                None => false,
                Some(slash) if slash + 1 == name.len() => true,
                Some(_) => continue,
            };
            let kv = change.now().map(|kv| KeyValue {
                value: if read.with_values { kv.value.clone() } else { Bytes::new() },
                ..kv.clone()
            });
            match (entries.get_mut(&name), kv) {
                (Some(entry), kv) if is_marker => entry.kv = kv,
                // What lies below it says whether there is such a directory.
                (None, _) if is_marker => {}
                (_, Some(kv)) => {
                    let entry = ListEntry { name: name.clone(), kv: Some(kv), directory: None };
                    entries.insert(name, entry);
                }
                (_, None) => drop(entries.remove(&name)),
            }
        }
        let after = match read.after.as_ref() {
            b"" => Bound::Unbounded,
            _ => Bound::Excluded(read.after.clone()),
        };
        let limit = if read.limit == 0 { usize::MAX } else { read.limit };
        let mut rest = entries.range((after, Bound::Unbounded)).map(|(_, entry)| entry).peekable();
        // The empty name comes first and does not count.
        let marker = rest.next_if(|entry| entry.name.is_empty());
        let entries = marker.into_iter().chain(rest.by_ref().take(limit)).cloned().collect();
        ListAnswer { entries, more: rest.next().is_some() }
    }

    fn merge_directories(&self, prefix: &Bytes, entries: &mut BTreeMap<Bytes, ListEntry>) {
        let below = self.directories.range(memory::bounds(&KeyRange::prefix(prefix)));
        for (directory, answer) in below {
            let name = directory.slice(prefix.len()..);
            let is_child = name
                .iter()
                .position(|&byte| byte == b'/')
                .is_some_and(|slash| slash + 1 == name.len());
            if !is_child {
                continue;
            }
            if answer.names == 0 {
                entries.remove(&name);
                continue;
            }
            let entry = ListEntry { name: name.clone(), kv: None, directory: None };
            entries.entry(name).or_insert(entry).directory = Some(*answer);
        }
    }

    /// Keys that come or go by what a transaction made, and which of them come. Whatever it has looked
    /// at itself: a directory is moved over the marker of another without a look at that.
    pub(super) fn flips(
        &self,
        made: &memory::Changes,
        base: &BTreeMap<Bytes, Option<KeyValue>>,
    ) -> Vec<(Bytes, bool)> {
        let lived = |key: &Bytes| match self.keys.get(key) {
            Some(change) => change.now().is_some(),
            None => base.get(key).is_some_and(Option::is_some),
        };
        let turned = made.keys.iter().filter(|(key, kv)| lived(key) != kv.is_some());
        turned.map(|(key, kv)| (key.clone(), kv.is_some())).collect()
    }

    /// The directories of these keys, and those above, of which nothing is known yet.
    pub(super) fn unknown_directories(&self, keys: impl Iterator<Item = Bytes>) -> Vec<Bytes> {
        let mut unknown = std::collections::BTreeSet::new();
        for key in keys {
            let mut directory = Some(DirectoryKey::of_key(&key).0);
            while let Some(own) = directory.filter(|own| is_inside(&self.roots, own.as_bytes())) {
                let prefix = own.as_bytes();
                if self.directories.contains_key(prefix) || !unknown.insert(prefix.clone()) {
                    // Those above it were entered with it.
                    break;
                }
                directory = own.parent();
            }
        }
        unknown.into_iter().collect()
    }

    /// Enters what a transaction made: its keys, which of them came (or went), and the base's state of what
    /// was not known before.
    ///
    /// # Errors
    /// Nothing is entered if it would be too much.
    pub(super) fn apply(
        &mut self,
        made: memory::Changes,
        base: &BTreeMap<Bytes, Option<KeyValue>>,
        flips: Vec<(Bytes, bool)>,
        directories: Vec<(Bytes, DirectoryAnswer)>,
    ) -> Result<()> {
        let held = self.make_room(&made)?;
        let (revision, time) = (self.current.next(), self.next_time(&made));
        let origins: BTreeMap<Bytes, Bytes> = made
            .moves
            .iter()
            .filter_map(|(to, from)| Some((to.clone(), self.origin_of(from)?)))
            .collect();
        let (mut gone, mut came) = (0, 0);
        for (key, kv) in made.keys {
            let change = self.keys.entry(key.clone()).or_insert_with(|| Change {
                before: base.get(&key).cloned().flatten().map(without_value),
                rows: Vec::new(),
                origin: None,
            });
            let origin = origins.get(&key).filter(|_| kv.is_some());
            change.origin = origin.cloned();
            gone += change.value_bytes();
            change.push(revision, kv);
            came += change.value_bytes();
        }
        (self.current, self.time) = (revision, time);
        for (prefix, answer) in directories {
            self.directories.entry(prefix).or_insert(answer);
        }
        self.turn_names(flips);
        self.charge.force(held + came - gone);
        Ok(())
    }

    /// The key of the base whose content a key has now.
    fn origin_of(&self, key: &Bytes) -> Option<Bytes> {
        match self.keys.get(key) {
            Some(change) => change.origin.clone(),
            None => Some(key.clone()),
        }
    }

    fn next_time(&self, made: &memory::Changes) -> Time {
        let own = made.keys.iter().filter_map(|(_, kv)| kv.as_ref()).map(|kv| kv.time).max();
        own.map_or(self.time, |own| own.max(self.time))
    }

    /// Room for everything that was made beside what is held; returns how much that is.
    fn make_room(&mut self, made: &memory::Changes) -> Result<usize> {
        let new = made.keys.iter().filter(|(key, _)| !self.keys.contains_key(key)).count();
        let count = self.keys.len() + new;
        if count > CHANGED_KEYS_MAX {
            return Err(Error::TooBig { unit: "keys", count, max: CHANGED_KEYS_MAX });
        }
        let more: usize =
            made.keys.iter().filter_map(|(_, kv)| kv.as_ref()).map(|kv| kv.value.len()).sum();
        let held = self.charge.bytes();
        self.charge.resize(held + more).map_err(|OverBudget| Error::NoSpace {
            reason: format!(
                "the transactions of a mount hold {} bytes at most, files that are open included: \
                 commit or drop one",
                self.charge.max()
            ),
        })?;
        Ok(held)
    }

    /// Counts names in their directories, and these in those above where they come or go with them.
    fn turn_names(&mut self, flips: Vec<(Bytes, bool)>) {
        let mut pending = Pending::new();
        let roots = self.roots.clone();
        let enter = |pending: &mut Pending, directory: DirectoryKey, lives| {
            let prefix = directory.as_bytes();
            if !is_inside(&roots, prefix) {
                return;
            }
            pending.entry((Reverse(prefix.len()), prefix.clone())).or_default().push(lives);
        };
        for (key, lives) in flips {
            enter(&mut pending, DirectoryKey::of_key(&key).0, lives);
        }
        while let Some(((_, prefix), turns)) = pending.pop_first() {
            let directory = self.directories.entry(prefix.clone()).or_default();
            let before = directory.names;
            for lives in turns {
                // What goes was counted: it was there.
                directory.names =
                    if lives { directory.names + 1 } else { directory.names.saturating_sub(1) };
            }
            (directory.changed, directory.time) = (self.current, self.time);
            let exists = directory.names > 0;
            let above = DirectoryKey::new(prefix).ok().and_then(|own| own.parent());
            if (before > 0) != exists
                && let Some(above) = above
            {
                enter(&mut pending, above, exists);
            }
        }
    }
}

fn is_inside(roots: &[Bytes], prefix: &Bytes) -> bool {
    roots.iter().any(|root| prefix.starts_with(root))
}

fn without_value(kv: KeyValue) -> KeyValue {
    KeyValue { value: Bytes::new(), ..kv }
}
