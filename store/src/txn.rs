//! Runs a transaction against the state before it, keeping its changes apart until it is complete.
//!
//! In this order: form (`validate.rs`), compares (`compare.rs`), what the chosen operations need
//! (leases, keys for `ignore_…`, revisions to restore or to show), then the operations. A refusal at any point
//! drops the [`Changes`] and nothing was written. Because no key is written twice, every operation
//! but a second deletion reads the state before the transaction; a range sees what came before it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::command::Refusal;
use crate::compare::choose;
use crate::error::{ReadError, StoreError};
use crate::moved::Moved;
use crate::schema::{KeyRow, Want};
use crate::types::{
    KeyRange, KeyValue, LeaseId, Op, OpAnswer, RangeQuery, Revision, TXN_ROWS_MAX,
    TXN_VALUE_BYTES_MAX, Time, Txn, TxnAnswer,
};
use crate::validate::{check_form, check_value};
use crate::view::ReadView;

mod moves;
mod range;

/// Why an operation did not complete: a refusal is an answer, a failure closes the store.
#[derive(Debug)]
pub(crate) enum Stop {
    Refused(Refusal),
    Failed(StoreError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Compacted { requested, compacted } => {
                Self::Refused(Refusal::Compacted { requested, compacted })
            }
            ReadError::Future { requested, current } => {
                Self::Refused(Refusal::Future { requested, current })
            }
            ReadError::Refused(refusal) => Self::Refused(refusal),
            ReadError::Store(error) => Self::Failed(error),
        }
    }
}

/// One key's change in a revision.
#[derive(Debug)]
pub(crate) struct Change {
    /// The new version; its `sub` is its place among the changes.
    pub(crate) version: KeyRow,
    /// Whether the key lived before.
    pub(crate) was_alive: bool,
    /// Its lease before.
    pub(crate) old_lease: LeaseId,
}

/// The changes of one revision in the making.
pub(crate) struct Changes<'v> {
    view: &'v ReadView,
    main: Revision,
    time: Time,
    changes: BTreeMap<Bytes, Change>,
    moved: Moved,
    value_bytes: usize,
}

/// What a put takes over from the version that it copies.
struct Carried {
    content_revision: Revision,
    content_time: Time,
    birth_revision: Revision,
}

impl<'v> Changes<'v> {
    /// Changes on top of the view's current state, at revision `main`.
    pub(crate) fn new(view: &'v ReadView, time: Time) -> Self {
        let main = view.current().next();
        let (changes, moved) = (BTreeMap::new(), Moved::default());
        Self { view, main, time, changes, moved, value_bytes: 0 }
    }

    /// What changed, and which directories were moved.
    pub(crate) fn into_parts(self) -> (BTreeMap<Bytes, Change>, Moved) {
        (self.changes, self.moved)
    }

    /// Runs `txn`.
    pub(crate) fn run(&mut self, txn: &Txn) -> Result<TxnAnswer, Stop> {
        check_form(txn)?;
        let mut chosen = Vec::new();
        choose(self.view, txn, &mut chosen)?;
        self.check_puts(txn, &mut chosen.iter().copied())?;
        self.check_revisions(txn, &mut chosen.iter().copied())?;
        self.run_branch(txn, &mut chosen.iter().copied())
    }

    /// Refuses what the chosen puts cannot have, before any of them runs.
    fn check_puts(&self, txn: &Txn, chosen: &mut impl Iterator<Item = bool>) -> Result<(), Stop> {
        let (_, branch) = next_branch(txn, chosen);
        for op in branch {
            match op {
                Op::Put { key, lease, ignore_value, ignore_lease, .. } => {
                    if *ignore_value || *ignore_lease {
                        self.alive(key, Want::Header)?.ok_or(Refusal::KeyNotFound)?;
                    }
                    if *lease != LeaseId::NONE && !ignore_lease && !self.lease_exists(*lease)? {
                        return Err(Refusal::LeaseNotFound.into());
                    }
                }
                Op::Txn(nested) => self.check_puts(nested, chosen)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Refuses revisions that the chosen operations cannot look at; after the puts, as etcd does.
    fn check_revisions(
        &self,
        txn: &Txn,
        chosen: &mut impl Iterator<Item = bool>,
    ) -> Result<(), Stop> {
        let (_, branch) = next_branch(txn, chosen);
        for op in branch {
            match op {
                Op::Range(RangeQuery { at: revision, .. }) | Op::Restore { revision, .. } => {
                    self.view.resolve(*revision)?;
                }
                Op::Txn(nested) => self.check_revisions(nested, chosen)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn run_branch(
        &mut self,
        txn: &Txn,
        chosen: &mut impl Iterator<Item = bool>,
    ) -> Result<TxnAnswer, Stop> {
        let (succeeded, branch) = next_branch(txn, chosen);
        let before = self.changes.len();
        let mut answers = Vec::with_capacity(branch.len());
        for op in branch {
            answers.push(match op {
                Op::Txn(nested) => OpAnswer::Txn(self.run_branch(nested, chosen)?),
                other => self.run_op(other)?,
            });
        }
        let changed = self.changes.len() > before;
        let revision = if self.changes.is_empty() { self.view.current() } else { self.main };
        Ok(TxnAnswer { succeeded, revision, changed, answers })
    }

    fn run_op(&mut self, op: &Op) -> Result<OpAnswer, Stop> {
        match op {
            Op::Put { key, value, lease, prev_kv, ignore_value, ignore_lease } => {
                let want = if *prev_kv || *ignore_value { Want::Value } else { Want::Header };
                let old = self.alive(key, want)?;
                let kept = old.as_ref();
                let value = if *ignore_value { kept.map(|kv| &kv.value) } else { Some(value) };
                let lease = if *ignore_lease { kept.map(|kv| kv.lease) } else { Some(*lease) };
                let (value, lease) =
                    (value.cloned().unwrap_or_default(), lease.unwrap_or_default());
                self.put(key.clone(), value, lease, old.as_ref(), None)?;
                Ok(OpAnswer::Put { prev_kv: old.filter(|_| *prev_kv) })
            }
            Op::Append { key, value } => {
                let old = self.alive(key, Want::Value)?;
                let mut whole = old.as_ref().map(|kv| kv.value.to_vec()).unwrap_or_default();
                check_value(whole.len() + value.len())?;
                whole.extend_from_slice(value);
                let value_bytes = u64::try_from(whole.len()).unwrap_or(u64::MAX);
                let lease = old.as_ref().map(|kv| kv.lease).unwrap_or_default();
                self.put(key.clone(), whole.into(), lease, old.as_ref(), None)?;
                Ok(OpAnswer::Append { value_bytes })
            }
            Op::Delete { range, prev_kv } => self.delete_range(range, *prev_kv),
            Op::Range(query) => Ok(OpAnswer::Range(self.range(query)?)),
            Op::Move { from, to } => self.move_prefix(from, to),
            Op::MoveKey { from, to } => self.move_key(from, to),
            Op::Exchange { a, b } => self.exchange(a, b),
            Op::Restore { range, revision } => self.restore(range, *revision),
            Op::Txn(_) => unreachable!("run_branch takes nested transactions"),
        }
    }

    /// The living version of `key`, the transaction's own deletions respected.
    fn alive(&self, key: &[u8], want: Want) -> Result<Option<KeyValue>, StoreError> {
        if let Some(change) = self.changes.get(key) {
            let version = &change.version;
            return Ok((!version.tombstone).then(|| version.kv.clone()));
        }
        let found = self.view.version_at(key, self.view.current(), want)?;
        Ok(found.filter(|version| !version.tombstone).map(|version| version.kv))
    }

    fn lease_exists(&self, id: LeaseId) -> Result<bool, StoreError> {
        Ok(self.view.lease(id)?.is_some())
    }

    /// The living versions of a range before the transaction, without what it deleted already.
    fn living(&self, range: &KeyRange, want: Want) -> Result<Vec<KeyValue>, Stop> {
        let mut found = Vec::new();
        let mut bytes = self.value_bytes;
        self.view.scan(range, self.view.current(), want, |version| {
            if !self.changes.contains_key(&version.kv.key) {
                bytes += version.kv.value.len();
                found.push(version.kv);
            }
            let is_over = found.len() > TXN_ROWS_MAX || bytes > TXN_VALUE_BYTES_MAX;
            if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        check_size(found.len(), bytes)?;
        Ok(found)
    }

    fn put(
        &mut self,
        key: Bytes,
        value: Bytes,
        lease: LeaseId,
        old: Option<&KeyValue>,
        carried: Option<Carried>,
    ) -> Result<(), Refusal> {
        let create_revision = old.map_or(self.main, |kv| kv.create_revision);
        let carried = carried.unwrap_or(Carried {
            content_revision: self.main,
            content_time: self.time,
            birth_revision: old.map_or(self.main, |kv| kv.birth_revision),
        });
        let kv = KeyValue {
            key,
            value_bytes: u64::try_from(value.len()).unwrap_or(u64::MAX),
            value,
            create_revision,
            mod_revision: self.main,
            version: old.map_or(0, |kv| kv.version) + 1,
            lease,
            time: self.time,
            content_revision: carried.content_revision,
            content_time: carried.content_time,
            birth_revision: carried.birth_revision,
        };
        self.value_bytes += kv.value.len();
        check_size(self.changes.len() + 1, self.value_bytes)?;
        self.add(kv, false, old);
        Ok(())
    }

    /// Deletes the living version `old`.
    fn delete(&mut self, old: &KeyValue) -> Result<(), Refusal> {
        check_size(self.changes.len() + 1, self.value_bytes)?;
        self.delete_unbounded(old);
        Ok(())
    }

    /// Deletes a key of a revoked lease: a lease has no bound on its keys, and must be revocable.
    pub(crate) fn delete_unbounded(&mut self, old: &KeyValue) {
        let kv = KeyValue {
            key: old.key.clone(),
            mod_revision: self.main,
            time: self.time,
            ..KeyValue::default()
        };
        self.add(kv, true, Some(old));
    }

    fn add(&mut self, kv: KeyValue, tombstone: bool, old: Option<&KeyValue>) {
        let sub = u32::try_from(self.changes.len()).expect("keys of a change are far below 2^32");
        let key = kv.key.clone();
        let change = Change {
            version: KeyRow { sub, tombstone, kv },
            was_alive: old.is_some(),
            old_lease: old.map(|kv| kv.lease).unwrap_or_default(),
        };
        let twice = self.changes.insert(key, change);
        assert!(twice.is_none(), "a key is written once: check_duplicates refused the rest");
    }

    fn delete_range(&mut self, range: &KeyRange, prev_kv: bool) -> Result<OpAnswer, Stop> {
        let want = if prev_kv { Want::Value } else { Want::Header };
        let found = self.living(range, want)?;
        for kv in &found {
            self.delete(kv)?;
        }
        let deleted = u64::try_from(found.len()).unwrap_or(u64::MAX);
        Ok(OpAnswer::Delete { deleted, prev_kvs: if prev_kv { found } else { Vec::new() } })
    }

    fn restore(&mut self, range: &KeyRange, revision: Revision) -> Result<OpAnswer, Stop> {
        let at = self.view.resolve(revision)?;
        let now = self.living(range, Want::Header)?;
        let mut then = Vec::new();
        self.view.scan(range, at, Want::Header, |version| {
            then.push(version.kv);
            if then.len() > TXN_ROWS_MAX {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        check_size(then.len(), self.value_bytes)?;
        let mut now: BTreeMap<Bytes, KeyValue> =
            now.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
        let (mut put, mut deleted) = (0, 0);
        for wanted in then {
            let old = now.remove(&wanted.key);
            if old.as_ref().is_some_and(|kv| kv.mod_revision == wanted.mod_revision) {
                continue;
            }
            let value = self.value_at(&wanted.key, at)?;
            let keeps_lease = wanted.lease != LeaseId::NONE && self.lease_exists(wanted.lease)?;
            let lease = if keeps_lease { wanted.lease } else { LeaseId::NONE };
            if let Some(old) = &old
                && is_same_file(old, &wanted, lease)
                && self.value_at(&old.key, self.view.current())? == value
            {
                continue;
            }
            let carried = carried_by(&wanted);
            self.put(wanted.key, value, lease, old.as_ref(), Some(carried))?;
            put += 1;
        }
        for kv in now.values() {
            self.delete(kv)?;
            deleted += 1;
        }
        Ok(OpAnswer::Restore { put, deleted })
    }

    fn value_at(&self, key: &[u8], at: Revision) -> Result<Bytes, StoreError> {
        let version = self.view.version_at(key, at, Want::Value)?;
        Ok(version.map(|version| version.kv.value).unwrap_or_default())
    }
}

/// Whether what is there is the content that is wanted, and not only equal bytes put at another time.
/// (Keys of one transaction share these numbers, so the bytes have to be compared as well.)
fn is_same_file(own: &KeyValue, wanted: &KeyValue, lease: LeaseId) -> bool {
    own.birth_revision == wanted.birth_revision
        && own.content_revision == wanted.content_revision
        && own.value_bytes == wanted.value_bytes
        && own.lease == lease
}

fn carried_by(kv: &KeyValue) -> Carried {
    Carried {
        content_revision: kv.content_revision,
        content_time: kv.content_time,
        birth_revision: kv.birth_revision,
    }
}

fn next_branch<'t>(txn: &'t Txn, chosen: &mut impl Iterator<Item = bool>) -> (bool, &'t [Op]) {
    let succeeded = chosen.next().expect("choose made one choice for each transaction that runs");
    (succeeded, if succeeded { &txn.success } else { &txn.failure })
}

fn check_size(rows: usize, value_bytes: usize) -> Result<(), Refusal> {
    if rows > TXN_ROWS_MAX {
        return Err(Refusal::TooManyRows { max: TXN_ROWS_MAX });
    }
    if value_bytes > TXN_VALUE_BYTES_MAX {
        return Err(Refusal::TooManyBytes { max: TXN_VALUE_BYTES_MAX });
    }
    Ok(())
}
