//! A range as a transaction sees it: the state before, and its own changes so far.

use std::collections::btree_map;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;

use super::{Change, Changes, Stop};
use crate::error::StoreError;
use crate::range::{Living, answer};
use crate::schema::Want;
use crate::types::{KeyRange, KeyValue, RangeQuery, RangeResult};

impl Changes<'_> {
    pub(super) fn range(&self, query: &RangeQuery) -> Result<RangeResult, Stop> {
        // At a revision of its own a range does not see this transaction.
        if !query.at.is_none() || self.own(&query.range).next().is_none() {
            return Ok(self.view.range(self.view.current(), query)?);
        }
        Ok(answer(self, query)?)
    }

    /// The changes to keys of `range`.
    fn own(&self, range: &KeyRange) -> btree_map::Range<'_, Bytes, Change> {
        let bounds = match range {
            // A map refuses bounds that cross: this is how it is asked for nothing.
            KeyRange::Span { start, end } if end <= start => {
                (Bound::Excluded(start), Bound::Included(start))
            }
            KeyRange::Span { start, end } => (Bound::Included(start), Bound::Excluded(end)),
            KeyRange::Key(key) => (Bound::Included(key), Bound::Included(key)),
            KeyRange::From(start) => (Bound::Included(start), Bound::Unbounded),
        };
        self.changes.range::<Bytes, _>(bounds)
    }
}

impl Living for Changes<'_> {
    fn walk(
        &self,
        range: &KeyRange,
        want: Want,
        each: &mut dyn FnMut(KeyValue) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut own = self.own(range).peekable();
        let mut flow = ControlFlow::Continue(());
        self.view.scan(range, self.view.current(), want, |version| {
            while let Some((key, change)) = own.next_if(|(key, _)| **key <= version.kv.key) {
                if !change.version.tombstone {
                    flow = each(change.version.kv.clone());
                }
                if flow.is_break() || *key == version.kv.key {
                    return flow;
                }
            }
            flow = each(version.kv);
            flow
        })?;
        for (_, change) in own {
            if flow.is_break() {
                break;
            }
            if !change.version.tombstone {
                flow = each(change.version.kv.clone());
            }
        }
        Ok(())
    }

    fn fill(&self, kv: &mut KeyValue) -> Result<(), StoreError> {
        if self.changes.contains_key(&kv.key) {
            return Ok(());
        }
        let version = self.view.version_at(&kv.key, self.view.current(), Want::Value)?;
        kv.value = version.map(|version| version.kv.value).unwrap_or_default();
        Ok(())
    }

    fn count(&self, range: &KeyRange) -> Result<u64, StoreError> {
        let before = self.view.count(range, self.view.current())?;
        Ok(self.own(range).fold(before, |count, (_, change)| {
            let lives = !change.version.tombstone;
            count + u64::from(lives) - u64::from(change.was_alive)
        }))
    }
}
