//! A transaction's operations, one after the other on a copy of the state.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use revfs_store::Refusal;
use revfs_store::types::{
    ChangeKind, Event, KeyRange, KeyValue, LeaseId, Op, OpAnswer, Revision, Time, Txn, TxnAnswer,
};

use super::form::form;
use super::{Choice, Names, Reference, count, names_of, range_of};

/// A transaction under way.
pub(super) struct Run<'r> {
    pub(super) reference: &'r Reference,
    pub(super) keys: BTreeMap<Bytes, KeyValue>,
    pub(super) events: Vec<Event>,
    /// Directories that came whole: their names, and when those had changed.
    pub(super) arrived: Names,
    pub(super) main: u64,
    pub(super) time: i64,
}

impl Run<'_> {
    pub(super) fn branch(&mut self, txn: &Txn, choice: &Choice) -> Result<TxnAnswer, Refusal> {
        let before = self.events.len();
        let mut answers = Vec::new();
        for (at, op) in
            if choice.succeeded { &txn.success } else { &txn.failure }.iter().enumerate()
        {
            answers.push(match op {
                Op::Txn(nested) => OpAnswer::Txn(self.branch(nested, &choice.nested[&at])?),
                op => self.op(op)?,
            });
        }
        let revision = if self.events.is_empty() { self.main - 1 } else { self.main };
        Ok(TxnAnswer {
            succeeded: choice.succeeded,
            revision: Revision(revision),
            changed: self.events.len() > before,
            answers,
        })
    }

    fn put(&mut self, key: &Bytes, value: Bytes, lease: LeaseId, source: Option<&KeyValue>) {
        let old = self.keys.get(key);
        let main = Revision(self.main);
        let mut kv = KeyValue {
            key: key.clone(),
            value_bytes: count(value.len()),
            value,
            create_revision: old.map_or(main, |old| old.create_revision),
            mod_revision: main,
            version: old.map_or(0, |old| old.version) + 1,
            lease,
            time: Time(self.time),
            content_revision: main,
            content_time: Time(self.time),
            birth_revision: old.map_or(main, |old| old.birth_revision),
        };
        if let Some(source) = source {
            kv.content_revision = source.content_revision;
            kv.content_time = source.content_time;
            kv.birth_revision = source.birth_revision;
        }
        self.keys.insert(key.clone(), kv.clone());
        self.events.push(Event { kind: ChangeKind::Put, kv });
    }

    pub(super) fn delete(&mut self, key: &Bytes) -> Option<KeyValue> {
        let old = self.keys.remove(key)?;
        let (mod_revision, time) = (Revision(self.main), Time(self.time));
        let kv = KeyValue { key: key.clone(), mod_revision, time, ..KeyValue::default() };
        self.events.push(Event { kind: ChangeKind::Delete, kv });
        Some(old)
    }

    fn within(&self, range: &KeyRange) -> Vec<Bytes> {
        self.keys.keys().filter(|key| range.contains(key)).cloned().collect()
    }

    fn rename(&mut self, from: &Bytes, to: &Bytes) -> Result<(), Refusal> {
        form(&Op::put(to.clone(), ""))?;
        let source = self.keys[from].clone();
        if let Some(replaced) = self.keys.get_mut(to) {
            replaced.version = 0;
            replaced.create_revision = Revision(self.main);
        }
        self.put(to, source.value.clone(), source.lease, Some(&source));
        self.delete(from);
        Ok(())
    }

    /// What is below `from` goes below `to`: the directories that have lost nothing so far come whole.
    fn directories_go(&mut self, from: &Bytes, to: &Bytes) {
        let before = &self.reference.now().directories;
        for (directory, names) in names_of(&self.keys) {
            let Some(rest) = directory.strip_prefix(&from[..]) else { continue };
            let target = Bytes::from([&to[..], rest].concat());
            let is_whole = before.get(&directory).is_some_and(|(old, ..)| *old == names);
            if is_whole && target.ends_with(b"/") {
                self.arrived.insert(target, before[&directory].clone());
            }
        }
    }

    fn exchange(&mut self, a: &Bytes, b: &Bytes) -> Result<OpAnswer, Refusal> {
        let place = |side: &Bytes| match side.ends_with(b"/") {
            true => KeyRange::prefix(side),
            false => KeyRange::Key(side.clone()),
        };
        let (of_a, of_b) = (self.within(&place(a)), self.within(&place(b)));
        if a == b {
            return Ok(OpAnswer::Move { moved: 0 });
        }
        if a.ends_with(b"/") {
            self.directories_go(a, b);
            self.directories_go(b, a);
        }
        let before = self.keys.clone();
        for (from, to, keys) in [(a, b, &of_a), (b, a, &of_b)] {
            let others: BTreeSet<&[u8]> =
                if from == a { &of_b } else { &of_a }.iter().map(|key| &key[to.len()..]).collect();
            for key in keys {
                let target = Bytes::from([&to[..], &key[from.len()..]].concat());
                form(&Op::put(target.clone(), ""))?;
                let source = &before[key];
                if let Some(replaced) = self.keys.get_mut(&target) {
                    replaced.version = 0;
                    replaced.create_revision = Revision(self.main);
                }
                self.put(&target, source.value.clone(), source.lease, Some(source));
                if !others.contains(&key[from.len()..]) {
                    self.delete(key);
                }
            }
        }
        Ok(OpAnswer::Move { moved: count(of_a.len() + of_b.len()) })
    }

    fn op(&mut self, op: &Op) -> Result<OpAnswer, Refusal> {
        Ok(match op {
            Op::Put { key, value, lease, prev_kv, ignore_value, ignore_lease } => {
                let old = self.keys.get(key).cloned();
                let value = if *ignore_value { old.clone().unwrap().value } else { value.clone() };
                let lease = if *ignore_lease { old.clone().unwrap().lease } else { *lease };
                self.put(key, value, lease, None);
                OpAnswer::Put { prev_kv: old.filter(|_| *prev_kv) }
            }
            Op::Append { key, value } => {
                let old = self.keys.get(key).cloned().unwrap_or_default();
                let whole = Bytes::from([&old.value[..], &value[..]].concat());
                let value_bytes = count(whole.len());
                self.put(key, whole, old.lease, None);
                OpAnswer::Append { value_bytes }
            }
            Op::Delete { range, prev_kv } => {
                let old: Vec<KeyValue> =
                    self.within(range).iter().map(|key| self.delete(key).unwrap()).collect();
                OpAnswer::Delete {
                    deleted: count(old.len()),
                    prev_kvs: if *prev_kv { old } else { Vec::new() },
                }
            }
            Op::Range(query) if query.at.0 != 0 => {
                OpAnswer::Range(self.reference.range(query.at, query).unwrap())
            }
            Op::Range(query) => OpAnswer::Range(range_of(&self.keys, query)),
            Op::Move { from, to } => {
                let moved = self.within(&KeyRange::prefix(from));
                self.directories_go(from, to);
                for key in &moved {
                    let target = Bytes::from([&to[..], &key[from.len()..]].concat());
                    self.rename(key, &target)?;
                }
                OpAnswer::Move { moved: count(moved.len()) }
            }
            Op::MoveKey { from, to } => {
                let moves = from != to && self.keys.contains_key(from);
                if moves {
                    self.rename(from, to)?;
                }
                OpAnswer::Move { moved: u64::from(moves) }
            }
            Op::Exchange { a, b } => self.exchange(a, b)?,
            Op::Restore { range, revision } => self.restore(range, *revision),
            Op::Txn(_) => unreachable!("branch takes nested transactions"),
        })
    }

    fn restore(&mut self, range: &KeyRange, revision: Revision) -> OpAnswer {
        let then = self.reference.moment(revision).unwrap();
        let (mut put, mut deleted) = (0, 0);
        for (key, kv) in then.keys.iter().filter(|(key, _)| range.contains(key)) {
            let known = self.reference.leases.contains_key(&kv.lease.0);
            let lease = if known { kv.lease } else { LeaseId(0) };
            if self.keys.get(key).is_some_and(|own| {
                own.mod_revision == kv.mod_revision
                    || (&own.value, own.lease, own.birth_revision, own.content_revision)
                        == (&kv.value, lease, kv.birth_revision, kv.content_revision)
            }) {
                continue;
            }
            self.put(key, kv.value.clone(), lease, Some(kv));
            put += 1;
        }
        for key in self.within(range) {
            if !then.keys.contains_key(&key) {
                self.delete(&key);
                deleted += 1;
            }
        }
        OpAnswer::Restore { put, deleted }
    }
}
