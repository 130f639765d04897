//! Keys that get another name: moves and exchanges.
//!
//! What arrives begins a life (create_revision, version) with the value, lease, content and birth that it
//! had elsewhere. What was there ends, as the file that another is renamed over.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Changes, Stop, carried_by, check_size};
use crate::schema::Want;
use crate::types::{KeyRange, KeyValue, OpAnswer};
use crate::validate::check_key;

impl Changes<'_> {
    pub(super) fn move_prefix(&mut self, from: &Bytes, to: &Bytes) -> Result<OpAnswer, Stop> {
        let found = self.living(&KeyRange::prefix(from), Want::Value)?;
        let moved = u64::try_from(found.len()).unwrap_or(u64::MAX);
        for kv in found {
            self.moved.enter(&kv.key, from, to);
            let key = renamed(&kv.key, from, to);
            let old = self.alive(&key, Want::Header)?;
            self.arrive(&kv, key, old.as_ref())?;
            self.delete(&kv)?;
        }
        Ok(OpAnswer::Move { moved })
    }

    pub(super) fn move_key(&mut self, from: &Bytes, to: &Bytes) -> Result<OpAnswer, Stop> {
        let source = if from == to { None } else { self.alive(from, Want::Value)? };
        if let Some(kv) = &source {
            let old = self.alive(to, Want::Header)?;
            self.arrive(kv, to.clone(), old.as_ref())?;
            self.delete(kv)?;
        }
        Ok(OpAnswer::Move { moved: u64::from(source.is_some()) })
    }

    /// First what goes from `a` to `b`, then what goes from `b` to `a`; each in the order of its keys.
    pub(super) fn exchange(&mut self, a: &Bytes, b: &Bytes) -> Result<OpAnswer, Stop> {
        if a == b {
            return Ok(OpAnswer::Move { moved: 0 });
        }
        let below_a = self.living_at(a)?;
        let below_b = self.living_at(b)?;
        let rows = below_a.len() + below_b.len();
        let bytes =
            below_a.values().chain(below_b.values()).map(|kv| kv.value.len()).sum::<usize>();
        check_size(self.changes.len() + rows, self.value_bytes + bytes)?;
        self.cross(&below_a, &below_b, (a, b))?;
        self.cross(&below_b, &below_a, (b, a))?;
        Ok(OpAnswer::Move { moved: u64::try_from(rows).unwrap_or(u64::MAX) })
    }

    /// The living key `place`, or those below it if it is a prefix; by what follows it in their names.
    fn living_at(&self, place: &Bytes) -> Result<BTreeMap<Bytes, KeyValue>, Stop> {
        let range = if place.ends_with(b"/") {
            KeyRange::prefix(place)
        } else {
            KeyRange::Key(place.clone())
        };
        let found = self.living(&range, Want::Value)?;
        Ok(found.into_iter().map(|kv| (kv.key.slice(place.len()..), kv)).collect())
    }

    /// Half of an exchange: `source`, the keys at `from`, take the places of `target`, those at `to`.
    fn cross(
        &mut self,
        source: &BTreeMap<Bytes, KeyValue>,
        target: &BTreeMap<Bytes, KeyValue>,
        (from, to): (&Bytes, &Bytes),
    ) -> Result<(), Stop> {
        for (rest, kv) in source {
            if from.ends_with(b"/") {
                self.moved.enter(&kv.key, from, to);
            }
            let other = target.get(rest);
            self.arrive(kv, renamed(&kv.key, from, to), other)?;
            if other.is_none() {
                self.delete(kv)?;
            }
        }
        Ok(())
    }

    /// Puts `kv` at `key`, where `old` lives.
    fn arrive(&mut self, kv: &KeyValue, key: Bytes, old: Option<&KeyValue>) -> Result<(), Stop> {
        check_key(&key)?;
        let ended =
            old.map(|old| KeyValue { create_revision: self.main, version: 0, ..old.clone() });
        self.put(key, kv.value.clone(), kv.lease, ended.as_ref(), Some(carried_by(kv)))?;
        Ok(())
    }
}

fn renamed(key: &Bytes, from: &Bytes, to: &Bytes) -> Bytes {
    [to.as_ref(), &key[from.len()..]].concat().into()
}
