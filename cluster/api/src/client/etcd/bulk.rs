//! Operations that etcd does not have, worked out beforehand: read, and put into plain operations with the
//! compares under which they are right.
//!
//! All is read at one revision R. Of a single key the guard is its last change; of a prefix, that no key
//! in it changed after R and that each that was there still is. So a transaction that runs does what the
//! operation would have done.
//!
//! A key that is moved begins anew: etcd's creation and version count from the move, or go on where the
//! target was there before.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Etcd;
use super::plain::{range_request, revision};
use super::txn::{OPERATIONS_MAX, is_bulk};
use crate::keyspace::{
    Compare, CompareResult, CompareTarget, Error, KeyRange, KeyValue, Op, OpAnswer, RangeRead,
    Result, Revision, Txn,
};

/// Plain operations in the place of one.
pub(super) struct Bulk {
    plain: Vec<Op>,
    answer: OpAnswer,
}

impl Bulk {
    pub(super) fn into_parts(self) -> (Vec<Op>, OpAnswer) {
        (self.plain, self.answer)
    }
}

/// All such operations of a transaction, in its order, and what must still hold.
pub(super) struct Worked {
    pub(super) guards: Vec<Compare>,
    pub(super) bulks: Vec<Bulk>,
}

/// What the work has read and found so far.
struct Work<'a> {
    etcd: &'a Etcd,
    /// That of the first read; all others are of it too.
    view: Revision,
    guards: Vec<Compare>,
    bulks: Vec<Bulk>,
}

impl Etcd {
    pub(super) async fn work_out(&self, txn: &Txn) -> Result<Worked> {
        let mut found = Vec::new();
        collect(txn, &mut found)?;
        let mut work = Work { etcd: self, view: Revision::NONE, guards: vec![], bulks: vec![] };
        for op in found {
            let bulk = work.one(op).await?;
            if bulk.plain.len() > OPERATIONS_MAX || work.guards.len() > OPERATIONS_MAX {
                let count = bulk.plain.len().max(work.guards.len());
                return Err(Error::TooBig { unit: "operations", count, max: OPERATIONS_MAX });
            }
            work.bulks.push(bulk);
        }
        Ok(Worked { guards: work.guards, bulks: work.bulks })
    }
}

/// What an operation writes.
fn written(op: &Op) -> Vec<KeyRange> {
    match op {
        Op::Put { key, .. } | Op::Append { key, .. } => vec![KeyRange::Key(key.clone())],
        Op::Delete { range, .. } | Op::Restore { range, .. } => vec![range.clone()],
        Op::Range(_) => Vec::new(),
        Op::Txn(txn) => txn.success.iter().chain(&txn.failure).flat_map(written).collect(),
        Op::MoveKey { from: a, to: b } => {
            vec![KeyRange::Key(a.clone()), KeyRange::Key(b.clone())]
        }
        Op::Move { from: a, to: b } => vec![KeyRange::prefix(a), KeyRange::prefix(b)],
        Op::Exchange { a, b } => vec![side(a), side(b)],
    }
}

/// One side of an exchange: a key, or all below a prefix.
fn side(name: &Bytes) -> KeyRange {
    if name.ends_with(b"/") { KeyRange::prefix(name) } else { KeyRange::Key(name.clone()) }
}

fn overlap(one: &KeyRange, other: &KeyRange) -> bool {
    one.contains(other.start()) || other.contains(one.start())
}

/// The operations to be worked out, in order. What an earlier operation of the same transaction writes
/// they would not see.
fn collect<'a>(txn: &'a Txn, found: &mut Vec<&'a Op>) -> Result<()> {
    for branch in [&txn.success, &txn.failure] {
        let mut before: Vec<KeyRange> = Vec::new();
        for op in branch {
            let own = written(op);
            match op {
                Op::Txn(inner) => collect(inner, found)?,
                op if is_bulk(op) => {
                    if own.iter().any(|own| before.iter().any(|before| overlap(own, before))) {
                        return Err(Error::Unsupported(
                            "a move, append, exchange or restore of what the same transaction wrote, on etcd",
                        ));
                    }
                    found.push(op);
                }
                _ => {}
            }
            before.extend(own);
        }
    }
    Ok(())
}

impl Work<'_> {
    async fn one(&mut self, op: &Op) -> Result<Bulk> {
        match op {
            Op::Append { key, value } => self.append(key, value).await,
            Op::MoveKey { from, to } => self.move_key(from, to).await,
            Op::Move { from, to } => self.move_prefix(from, to).await,
            Op::Exchange { a, b } => self.exchange(a, b).await,
            Op::Restore { range, revision } => self.restore(range, *revision).await,
            Op::Put { .. } | Op::Delete { .. } | Op::Range(_) | Op::Txn(_) => {
                unreachable!("etcd has it")
            }
        }
    }

    async fn range(&mut self, range: &KeyRange, at: Revision) -> Result<Vec<KeyValue>> {
        let at = if at == Revision::NONE { self.view } else { at };
        // More than can be changed need not be known.
        let limit = OPERATIONS_MAX + 1;
        let read = RangeRead { limit, ..RangeRead::new(range.clone()) };
        let response = self.etcd.range(range_request(&read, at)).await?;
        if response.more {
            let count = usize::try_from(response.count).unwrap_or(usize::MAX);
            return Err(Error::TooBig { unit: "operations", count, max: OPERATIONS_MAX });
        }
        if self.view == Revision::NONE {
            let now = response.header.as_ref().map_or(0, |header| header.revision);
            self.view = revision(now);
        }
        Ok(super::plain::range_answer(response, false).kvs)
    }

    /// A key as it is now, which it must still be.
    async fn guarded_key(&mut self, key: &Bytes) -> Result<Option<KeyValue>> {
        let kv = self.range(&KeyRange::Key(key.clone()), Revision::NONE).await?.pop();
        let modified = kv.as_ref().map_or(Revision::NONE, |kv| kv.mod_revision);
        self.guards.push(Compare::mod_revision(key.clone(), modified));
        Ok(kv)
    }

    /// The keys of a range as they are now, which they must still be, and no others.
    async fn guarded_range(&mut self, range: &KeyRange) -> Result<Vec<KeyValue>> {
        if let KeyRange::Key(key) = range {
            return Ok(self.guarded_key(key).await?.into_iter().collect());
        }
        let kvs = self.range(range, Revision::NONE).await?;
        self.guards.push(Compare {
            range: range.clone(),
            target: CompareTarget::ModRevision(self.view.next()),
            result: CompareResult::Less,
        });
        for kv in &kvs {
            self.guards.push(Compare::mod_revision(kv.key.clone(), kv.mod_revision));
        }
        Ok(kvs)
    }

    async fn append(&mut self, key: &Bytes, value: &Bytes) -> Result<Bulk> {
        let kv = self.guarded_key(key).await?;
        let before = kv.as_ref().map_or(&[][..], |kv| &kv.value[..]);
        let whole = Bytes::from([before, value].concat());
        let value_bytes = u64::try_from(whole.len()).unwrap_or(u64::MAX);
        let lease = kv.map(|kv| kv.lease).unwrap_or_default();
        let plain = vec![Op::put_on(lease, key.clone(), whole)];
        Ok(Bulk { plain, answer: OpAnswer::Append { value_bytes } })
    }

    async fn move_key(&mut self, from: &Bytes, to: &Bytes) -> Result<Bulk> {
        let kv = self.guarded_key(from).await?;
        let moved = u64::from(kv.is_some());
        let mut plain = Vec::new();
        if let Some(kv) = kv.filter(|_| from != to) {
            plain.push(Op::put_on(kv.lease, to.clone(), kv.value));
            plain.push(Op::delete(from.clone()));
        }
        Ok(Bulk { plain, answer: OpAnswer::Move { moved } })
    }

    async fn move_prefix(&mut self, from: &Bytes, to: &Bytes) -> Result<Bulk> {
        if overlap(&KeyRange::prefix(from), &KeyRange::prefix(to)) {
            return Err(Error::Unsupported("a move of a prefix into itself, on etcd"));
        }
        let kvs = self.guarded_range(&KeyRange::prefix(from)).await?;
        let moved = u64::try_from(kvs.len()).unwrap_or(u64::MAX);
        let mut plain = Vec::new();
        if !kvs.is_empty() {
            plain.push(Op::Delete { range: KeyRange::prefix(from), prev_kv: false });
        }
        plain.extend(kvs.into_iter().map(|kv| rebased(kv, from, to)));
        Ok(Bulk { plain, answer: OpAnswer::Move { moved } })
    }

    async fn exchange(&mut self, a: &Bytes, b: &Bytes) -> Result<Bulk> {
        let (one, other) = (side(a), side(b));
        if a == b {
            return Ok(Bulk { plain: Vec::new(), answer: OpAnswer::Move { moved: 0 } });
        }
        if overlap(&one, &other) {
            return Err(Error::Unsupported("an exchange of a prefix with a part of it, on etcd"));
        }
        let (kvs_a, kvs_b) = (self.guarded_range(&one).await?, self.guarded_range(&other).await?);
        let moved = u64::try_from(kvs_a.len() + kvs_b.len()).unwrap_or(u64::MAX);
        let mut left: BTreeMap<Bytes, ()> =
            kvs_a.iter().chain(&kvs_b).map(|kv| (kv.key.clone(), ())).collect();
        let mut plain: Vec<Op> = kvs_a.into_iter().map(|kv| rebased(kv, a, b)).collect();
        plain.extend(kvs_b.into_iter().map(|kv| rebased(kv, b, a)));
        for op in &plain {
            if let Op::Put { key, .. } = op {
                left.remove(key);
            }
        }
        // What nothing came in the place of.
        plain.extend(left.into_keys().map(Op::delete));
        Ok(Bulk { plain, answer: OpAnswer::Move { moved } })
    }

    async fn restore(&mut self, range: &KeyRange, at: Revision) -> Result<Bulk> {
        let now = self.guarded_range(range).await?;
        let then = self.range(range, at).await?;
        let mut gone: BTreeMap<Bytes, KeyValue> =
            now.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
        let mut plain = Vec::new();
        let mut restored = 0;
        for kv in then {
            let is_same = gone.remove(&kv.key).is_some_and(|now| {
                // Also where it was put back before.
                now.value == kv.value && now.lease == kv.lease
            });
            if !is_same {
                restored += 1;
                plain.push(Op::put_on(kv.lease, kv.key, kv.value));
            }
        }
        let deleted = u64::try_from(gone.len()).unwrap_or(u64::MAX);
        plain.extend(gone.into_keys().map(Op::delete));
        Ok(Bulk { plain, answer: OpAnswer::Restore { put: restored, deleted } })
    }
}

/// The put of a key below `to` that was below `from`.
fn rebased(kv: KeyValue, from: &Bytes, to: &Bytes) -> Op {
    let rest = kv.key.get(from.len()..).unwrap_or_default();
    Op::put_on(kv.lease, [to.as_ref(), rest].concat(), kv.value)
}
