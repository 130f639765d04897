//! What a transaction on an overlay has to know before it runs: the keys that it reads and writes, as they
//! are in the base and, merged with the changes, in the overlay.

use std::collections::BTreeMap;

use bytes::Bytes;
use revfs_api::keyspace::{
    Answer, Compare, CompareResult, CompareTarget, Error, KeyRange, KeyValue, LeaseId, Op,
    RangeRead, Read, Result, Revision, Time,
};

use super::changes::Changes;
use super::is_private;
use crate::memory::{self, Before};

/// See the module.
#[derive(Debug)]
pub(super) struct Loaded {
    current: Revision,
    time: Time,
    /// Those that live.
    kvs: BTreeMap<Bytes, KeyValue>,
    /// Keys of the base that were looked at.
    pub(super) base: BTreeMap<Bytes, Option<KeyValue>>,
}

/// Keys that have to be loaded.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    range: KeyRange,
    /// So many of the first, if any; 0 = all.
    limit: usize,
    values: bool,
}

impl Wanted {
    pub(super) fn key(key: Bytes, values: bool) -> Self {
        Self::all(KeyRange::Key(key), values)
    }

    fn all(range: KeyRange, values: bool) -> Self {
        Self { range, limit: 0, values }
    }

    /// What the base has to be asked.
    pub(super) fn question(&self, changes: &Changes) -> Option<(KeyRange, Read)> {
        if let KeyRange::Key(key) = &self.range
            && (is_private(key) || changes.kv(key, Revision::NONE).is_some())
        {
            return None;
        }
        // Those that were changed may be among the first of the base, and gone.
        let changed = if self.limit == 0 { 0 } else { changes.in_range(&self.range).count() };
        let limit = if self.limit == 0 { 0 } else { self.limit + changed };
        let range = self.range.clone();
        let read = RangeRead { limit, keys_only: !self.values, ..RangeRead::new(range.clone()) };
        Some((range, Read::Range(read)))
    }
}

impl Loaded {
    pub(super) fn new(changes: &Changes) -> Self {
        let (kvs, base) = (BTreeMap::new(), BTreeMap::new());
        Self { current: changes.current, time: changes.time, kvs, base }
    }

    /// Takes an answer of the base.
    pub(super) fn enter(&mut self, range: &KeyRange, answer: &Answer) {
        let Answer::Range(answer) = answer else { return };
        if let KeyRange::Key(key) = range {
            self.base.entry(key.clone()).or_insert(None);
        }
        for kv in &answer.kvs {
            let known = self.base.entry(kv.key.clone()).or_insert(None);
            // What came with its value keeps it.
            if known.as_ref().is_none_or(|known| known.value.len() < kv.value.len()) {
                *known = Some(kv.clone());
            }
        }
    }

    /// Makes of what is known of the base what is there now.
    pub(super) fn merge(&mut self, wanted: &[Wanted], changes: &Changes) {
        for (key, kv) in &self.base {
            if changes.kv(key, Revision::NONE).is_none()
                && let Some(kv) = kv
            {
                self.kvs.insert(key.clone(), kv.clone());
            }
        }
        for wanted in wanted {
            for (key, change) in changes.in_range(&wanted.range) {
                match change.now() {
                    Some(kv) => drop(self.kvs.insert(key.clone(), kv.clone())),
                    None => drop(self.kvs.remove(key)),
                }
            }
        }
    }
}

impl Before for Loaded {
    fn current(&self) -> Revision {
        self.current
    }

    fn next_time(&self, clock: Time) -> Time {
        clock.max(self.time)
    }

    /// Whether it still is there, the commit finds out.
    fn has_lease(&self, _: LeaseId) -> bool {
        true
    }

    fn get(&self, key: &[u8]) -> Option<&KeyValue> {
        self.kvs.get(key)
    }

    fn range<'a>(&'a self, range: &'a KeyRange) -> Box<dyn Iterator<Item = &'a KeyValue> + 'a> {
        Box::new(self.kvs.range(memory::bounds(range)).map(|(_, kv)| kv))
    }

    fn then(&self, _: &KeyRange, _: Revision) -> Result<Vec<KeyValue>> {
        Err(Error::Unsupported("a restore in a transaction of the mount"))
    }
}

/// The keys that compares look at.
pub(super) fn wanted_by_compares(compares: &[Compare]) -> Vec<Wanted> {
    let wanted = compares.iter().map(|compare| {
        let is_absent = compare.target == CompareTarget::CreateRevision(Revision::NONE)
            && compare.result == CompareResult::Equal;
        let values = matches!(compare.target, CompareTarget::Value(_));
        // The first that is there is enough to say that something is.
        Wanted { range: compare.range.clone(), limit: usize::from(is_absent), values }
    });
    wanted.collect()
}

/// The keys that operations read and write.
pub(super) fn wanted_by_ops(ops: &[Op], wanted: &mut Vec<Wanted>) -> Result<()> {
    for op in ops {
        match op {
            Op::Put { key, prev_kv, ignore_value, .. } => {
                wanted.push(Wanted::key(key.clone(), *prev_kv || *ignore_value));
            }
            Op::Append { key, .. } => wanted.push(Wanted::key(key.clone(), true)),
            Op::Delete { range, prev_kv } => wanted.push(Wanted::all(range.clone(), *prev_kv)),
            Op::Range(read) => {
                let range = read.range.clone();
                wanted.push(Wanted { range, limit: read.limit, values: !read.keys_only });
            }
            Op::Txn(inner) => {
                wanted.extend(wanted_by_compares(&inner.compares));
                wanted_by_ops(&inner.success, wanted)?;
                wanted_by_ops(&inner.failure, wanted)?;
            }
            // That nothing is where it goes, but perhaps the marker of an empty directory, a compare says.
            Op::Move { from, .. } => wanted.push(Wanted::all(KeyRange::prefix(from), true)),
            Op::MoveKey { from, to } => {
                wanted.push(Wanted::key(from.clone(), true));
                wanted.push(Wanted::key(to.clone(), false));
            }
            Op::Exchange { a, b } => {
                for side in [a, b] {
                    let is_prefix = side.ends_with(b"/");
                    let range = if is_prefix {
                        KeyRange::prefix(side)
                    } else {
                        KeyRange::Key(side.clone())
                    };
                    wanted.push(Wanted::all(range, true));
                }
            }
            Op::Restore { .. } => {
                return Err(Error::Unsupported("a restore in a transaction of the mount"));
            }
        }
    }
    Ok(())
}
