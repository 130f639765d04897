//! What a store holds as one number, to compare members with each other and with etcd.
//!
//! [`Store::hash_kv`] is etcd's HashKV: the CRC32C of `key`, and then of every stored version up to a
//! revision as etcd stores it, in order of (main, sub). Of what lies at or below the compacted revision
//! C only that counts which etcd keeps: the newest version of a key that is not above the revision
//! asked for, if it is no deletion. Where no key lives at that revision etcd drops nothing of what it
//! still stores at or below C: the keys that lived at C.
//!
//! *revisions* holds no rows below C once the physical pass is through, so that the old part comes from
//! the *keys* that live, sorted, in as many rounds as bounded memory asks for. Both revisions are fixed
//! at the start; the view is renewed all the time, and no physical compaction goes on meanwhile: what
//! was superseded after C is still there.
//!
//! [`Store::own_hash`] covers what etcd does not know. [`Frozen`] keeps a state for both.

mod frozen;

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{ReadError, StoreError};
use crate::schema::{KeyRow, Tree, Want, decode_change, decode_revision_row, revision_row};
use crate::store::{Position, Shared, Store};
use crate::types::{KeyRange, KeyValue, Revision};
use crate::view::ReadView;

pub use frozen::{Frozen, PointHash};

/// The view is renewed after so many rows.
const ROWS_PER_VIEW: usize = 4_096;

/// So many bytes of a value count as one row.
const VALUE_BYTES_PER_ROW: usize = 1_024;

/// Memory for the versions at or below the compacted revision that one round sorts.
const ROUND_BYTES_MAX: usize = 64 << 20;

/// etcd's name of the bucket that it hashes.
const BUCKET: &[u8] = b"key";

/// etcd's HashKV.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvHash {
    pub hash: u32,
    /// The revision whose state was hashed.
    pub revision: Revision,
    /// `None` before the first compaction.
    pub compacted: Option<Revision>,
    pub current: Revision,
}

/// The hash of what etcd does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnHash {
    pub hash: u32,
    /// The log entry after which the state was hashed: only hashes at the same one compare.
    pub position: Position,
}

/// While one exists no physical compaction goes on.
struct Hold {
    shared: Arc<Shared>,
}

impl Hold {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.state.lock().holds += 1;
        Self { shared: Arc::clone(shared) }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.state.lock().holds -= 1;
        self.shared.work.notify_one();
    }
}

impl Store {
    /// Hashes the history up to `at` ([`Revision::NONE`] = the current revision) as etcd does.
    ///
    /// # Errors
    /// A compacted or future revision, or a closed store.
    pub fn hash_kv(&self, at: Revision) -> Result<KvHash, ReadError> {
        let hold = Hold::new(self.shared());
        let view = self.read_view()?;
        let (current, compacted) = (view.current(), view.compacted_or_none());
        let revision = view.resolve(at)?;
        let base = compacted.unwrap_or_default();
        let mut go_on = || true;
        let mut hashing = Hashing::new(view, revision, base, &mut go_on);
        hashing.history()?;
        drop(hold);
        Ok(KvHash { hash: hashing.hash, revision, compacted, current })
    }

    /// Hashes leases, attachments, users, roles, alarms, members, counters and uploads as they are now;
    /// time, author and note of each revision from the compacted one on; the directories; and what a
    /// version carries that etcd's do not.
    ///
    /// # Errors
    /// A closed store.
    pub fn own_hash(&self) -> Result<OwnHash, StoreError> {
        let hash = self.freeze()?.hash(|| true)?;
        Ok(OwnHash { hash: hash.own, position: hash.position })
    }
}

/// A version at or below the compacted revision, in etcd's order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Old {
    main: Revision,
    sub: u32,
    key: Bytes,
}

impl Old {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.key.len()
    }
}

struct Hashing<'h> {
    view: ReadView,
    /// Rows read since the view was renewed.
    rows: usize,
    revision: Revision,
    /// The compacted revision.
    base: Revision,
    /// As etcd computes it.
    hash: u32,
    /// What etcd does not know.
    own: u32,
    /// Asked where a view is renewed: it may wait, and says whether the hash is still wanted.
    go_on: &'h mut dyn FnMut() -> bool,
}

impl<'h> Hashing<'h> {
    fn new(
        view: ReadView,
        revision: Revision,
        base: Revision,
        go_on: &'h mut dyn FnMut() -> bool,
    ) -> Self {
        Self { view, rows: 0, revision, base, hash: crc32c::crc32c(BUCKET), own: 0, go_on }
    }

    /// All versions that etcd hashes, in its order.
    fn history(&mut self) -> Result<(), StoreError> {
        if !self.base.is_none() {
            self.old_part(ROUND_BYTES_MAX)?;
        }
        self.new_part()
    }

    fn renew_when_due(&mut self, version: &KeyRow) -> Result<(), StoreError> {
        self.rows += 1 + version.kv.value.len() / VALUE_BYTES_PER_ROW;
        if self.rows >= ROWS_PER_VIEW {
            self.rows = 0;
            self.renew()?;
        }
        Ok(())
    }

    fn renew(&mut self) -> Result<(), StoreError> {
        if !(self.go_on)() {
            return Err(StoreError::Closed {
                reason: Arc::from("the hash is not wanted any more"),
            });
        }
        self.view.renew()
    }

    /// Versions at or below the compacted revision.
    fn old_part(&mut self, bytes_max: usize) -> Result<(), StoreError> {
        let at = if self.lives_any(self.revision)? { self.revision } else { self.base };
        let mut after = None;
        loop {
            let (round, is_last) = self.round(at, after, bytes_max)?;
            for old in &round {
                let version = self.view.version_at(&old.key, old.main, Want::Value)?;
                let version = version.ok_or_else(|| self.missing(&old.key))?;
                self.add(old.main, old.sub, &version);
                self.renew_when_due(&version)?;
            }
            after = round.last().map(|old| (old.main, old.sub));
            if is_last {
                return Ok(());
            }
        }
    }

    fn lives_any(&self, at: Revision) -> Result<bool, StoreError> {
        let mut lives = false;
        self.view.scan(&KeyRange::From(Bytes::new()), at, Want::Header, |_| {
            lives = true;
            ControlFlow::Break(())
        })?;
        Ok(lives)
    }

    /// The first versions behind `after` that fit, sorted, and whether nothing is left behind them.
    fn round(
        &mut self,
        at: Revision,
        after: Option<(Revision, u32)>,
        bytes_max: usize,
    ) -> Result<(Vec<Old>, bool), StoreError> {
        let (mut round, mut bytes, mut is_last) = (Vec::<Old>::new(), 0, true);
        let mut from = Some(Bytes::new());
        while let Some(start) = from.take() {
            let mut rows = 0;
            let base = self.base;
            self.view.scan(&KeyRange::From(start), at, Want::Header, |version| {
                let KeyRow { sub, kv, .. } = version;
                rows += 1;
                if rows == ROWS_PER_VIEW {
                    // The least key above this one.
                    from = Some([&kv.key[..], b"\0"].concat().into());
                }
                if kv.mod_revision <= base && after.is_none_or(|last| last < (kv.mod_revision, sub))
                {
                    let old = Old { main: kv.mod_revision, sub, key: kv.key };
                    bytes += old.bytes();
                    round.push(old);
                }
                if from.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            if bytes > bytes_max.saturating_mul(2) {
                is_last &= !keep_first(&mut round, &mut bytes, bytes_max);
            }
            if from.is_some() {
                self.renew()?;
            }
        }
        is_last &= !keep_first(&mut round, &mut bytes, bytes_max);
        Ok((round, is_last))
    }

    /// Versions above the compacted revision.
    fn new_part(&mut self) -> Result<(), StoreError> {
        let end = revision_row(self.revision.next(), 0).to_vec();
        let mut from = revision_row(self.base.next(), 0);
        loop {
            let mut changes = Vec::new();
            let mut cursor = self.view.cursor(Tree::Revisions, &from, Some(end.clone()))?;
            while changes.len() < ROWS_PER_VIEW {
                let Some(row) = cursor.next().map_err(|e| self.view.lmdb(&e))? else { break };
                let place = decode_revision_row(row.key()).map_err(|e| self.view.row(&e))?;
                let (is_delete, key) =
                    decode_change(row.key(), row.value()).map_err(|e| self.view.row(&e))?;
                changes.push((place, is_delete, Bytes::copy_from_slice(key)));
            }
            drop(cursor);
            let Some(&((main, sub), ..)) = changes.last() else { return Ok(()) };
            from = revision_row(main, sub + 1);
            for ((main, sub), is_delete, key) in changes {
                let version = if is_delete {
                    let kv = KeyValue { key, ..KeyValue::default() };
                    KeyRow { sub, tombstone: true, kv }
                } else {
                    let version = self.view.version_at(&key, main, Want::Value)?;
                    version.ok_or_else(|| self.missing(&key))?
                };
                self.add(main, sub, &version);
                self.renew_when_due(&version)?;
            }
        }
    }

    fn add(&mut self, main: Revision, sub: u32, version: &KeyRow) {
        let mut row = Vec::with_capacity(128 + version.kv.value.len());
        row.extend_from_slice(&main.0.to_be_bytes());
        row.push(b'_');
        row.extend_from_slice(&u64::from(sub).to_be_bytes());
        if version.tombstone {
            row.push(b't');
        }
        etcd_value(version, &mut row);
        self.hash = crc32c::crc32c_append(self.hash, &row);
        if !version.tombstone {
            let kv = &version.kv;
            self.own_number(main.0);
            self.own_number(u64::from(sub));
            self.own_number(kv.time.0.cast_unsigned());
            self.own_number(kv.content_revision.0);
            self.own_number(kv.content_time.0.cast_unsigned());
            self.own_number(kv.birth_revision.0);
        }
    }

    fn own_number(&mut self, number: u64) {
        self.own_bytes(&number.to_be_bytes());
    }

    fn own_bytes(&mut self, bytes: &[u8]) {
        self.own = crc32c::crc32c_append(self.own, bytes);
    }

    fn missing(&self, key: &[u8]) -> StoreError {
        let key = key.escape_ascii();
        self.view.fault().close(&format!("a version of key \"{key}\" is missing in tree keys"))
    }
}

/// Sorts, and drops the last ones until the rest fits; returns whether any was dropped.
fn keep_first(round: &mut Vec<Old>, bytes: &mut usize, bytes_max: usize) -> bool {
    round.sort_unstable();
    let before = round.len();
    while *bytes > bytes_max && round.len() > 1 {
        *bytes -= round.pop().map_or(0, |old| old.bytes());
    }
    round.len() < before
}

/// The version as etcd stores it: a protobuf message of the fields that are not 0.
fn etcd_value(version: &KeyRow, out: &mut Vec<u8>) {
    let KeyRow { tombstone, kv, .. } = version;
    field_bytes(out, 1, &kv.key);
    if *tombstone {
        return;
    }
    field_number(out, 2, kv.create_revision.0);
    field_number(out, 3, kv.mod_revision.0);
    field_number(out, 4, kv.version);
    field_bytes(out, 5, &kv.value);
    field_number(out, 6, kv.lease.0.cast_unsigned());
}

fn field_number(out: &mut Vec<u8>, field: u8, number: u64) {
    if number != 0 {
        out.push(field << 3);
        varint(out, number);
    }
}

fn field_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    const LENGTH_DELIMITED: u8 = 2;
    if !bytes.is_empty() {
        out.push((field << 3) | LENGTH_DELIMITED);
        varint(out, u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        out.extend_from_slice(bytes);
    }
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = u8::try_from(number & 0x7F).expect("seven bits");
        number >>= 7;
        if number == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::{Old, keep_first};
    use crate::types::Revision;

    fn old(main: u64, sub: u32) -> Old {
        Old { main: Revision(main), sub, key: bytes::Bytes::from_static(b"key") }
    }

    #[test]
    fn a_round_keeps_the_first_versions_that_fit_and_at_least_one() {
        let mut round = vec![old(3, 0), old(1, 1), old(2, 0), old(1, 0)];
        let one = round[0].bytes();
        let mut bytes = 4 * one;
        assert!(!keep_first(&mut round, &mut bytes, 4 * one));
        assert!(keep_first(&mut round, &mut bytes, 2 * one));
        assert!(round == [old(1, 0), old(1, 1)] && bytes == 2 * one);
        assert!(keep_first(&mut round, &mut bytes, 0));
        assert!(round == [old(1, 0)] && bytes == one);
    }
}
