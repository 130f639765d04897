//! Answers a range from the keys that live in it, wherever they come from.
//!
//! The source hands out the living keys in order, with as much of each as is wanted, as often as it is
//! asked. What an answer does not hold is read without its value (unless it is sorted by values), and
//! beyond the limit keys are only counted. An answer in another order than that of the keys keeps at
//! most twice its limit in memory.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::error::StoreError;
use crate::part::from_key;
use crate::schema::Want;
use crate::types::{KeyRange, KeyValue, RangeQuery, RangeResult, SortOrder, SortTarget};

/// Living keys in order.
pub(crate) trait Living {
    /// Calls `each` for every living key of `range`.
    fn walk(
        &self,
        range: &KeyRange,
        want: Want,
        each: &mut dyn FnMut(KeyValue) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// Reads the value that `walk` left out.
    fn fill(&self, kv: &mut KeyValue) -> Result<(), StoreError>;

    /// How many keys live in `range`.
    fn count(&self, range: &KeyRange) -> Result<u64, StoreError>;
}

pub(crate) fn answer(keys: &impl Living, query: &RangeQuery) -> Result<RangeResult, StoreError> {
    if query.count_only {
        let count = keys.count(&query.range)?;
        return Ok(RangeResult { kvs: Vec::new(), count, more: false });
    }
    let first_only = query.limit > 0
        && query.sort_order == SortOrder::Unspecified
        && query.sort_target != SortTarget::Key
        && !query.has_bounds();
    let mut result = if query.is_in_key_order() {
        first(keys, query, query.limit)?
    } else if first_only {
        first_sorted(keys, query)?
    } else {
        sorted(keys, query)?
    };
    if query.keys_only {
        result.kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    } else if fills_later(query) {
        for kv in &mut result.kvs {
            keys.fill(kv)?;
        }
    }
    Ok(result)
}

fn sorts_by_value(query: &RangeQuery) -> bool {
    query.sort_target == SortTarget::Value && !query.is_in_key_order()
}

/// Whether keys are read without values, because not all of them will be in the answer.
fn fills_later(query: &RangeQuery) -> bool {
    let drops_some = query.has_bounds() || (query.limit > 0 && !query.is_in_key_order());
    drops_some && !query.keys_only && !sorts_by_value(query)
}

fn want(query: &RangeQuery) -> Want {
    let leaves_out = fills_later(query) || (query.keys_only && !sorts_by_value(query));
    if leaves_out { Want::Header } else { Want::Value }
}

/// The first `limit` keys that the bounds admit, in order.
fn first(keys: &impl Living, query: &RangeQuery, limit: usize) -> Result<RangeResult, StoreError> {
    let limit = if limit == 0 { usize::MAX } else { limit };
    let mut result = RangeResult::default();
    let mut rest_from = None;
    keys.walk(&query.range, want(query), &mut |kv| {
        if query.admits(&kv) {
            if result.kvs.len() == limit {
                rest_from = Some(kv.key);
                return ControlFlow::Break(());
            }
            result.kvs.push(kv);
        }
        result.count += 1;
        ControlFlow::Continue(())
    })?;
    if let Some(from) = rest_from {
        result.more = true;
        result.count += keys.count(&from_key(&query.range, from))?;
    }
    Ok(result)
}

/// etcd's answer to a sort without a direction: the first keys, one more than the limit, sorted.
fn first_sorted(keys: &impl Living, query: &RangeQuery) -> Result<RangeResult, StoreError> {
    let mut result = first(keys, query, query.limit.saturating_add(1))?;
    result.more = result.kvs.len() > query.limit;
    result.kvs.sort_by(|one, other| query.order(one, other));
    result.kvs.truncate(query.limit);
    Ok(result)
}

/// All keys that the bounds admit, sorted, then cut.
fn sorted(keys: &impl Living, query: &RangeQuery) -> Result<RangeResult, StoreError> {
    let limit = if query.limit == 0 { usize::MAX } else { query.limit };
    let kept_max = limit.saturating_mul(2);
    let mut result = RangeResult::default();
    let cut = |kvs: &mut Vec<KeyValue>| {
        // Stable, and what comes later stands behind what was kept: equal ones stay in key order.
        kvs.sort_by(|one, other| query.order(one, other));
        let cuts = kvs.len() > limit;
        kvs.truncate(limit);
        cuts
    };
    keys.walk(&query.range, want(query), &mut |kv| {
        result.count += 1;
        if query.admits(&kv) {
            result.kvs.push(kv);
            if result.kvs.len() > kept_max {
                result.more |= cut(&mut result.kvs);
            }
        }
        ControlFlow::Continue(())
    })?;
    result.more |= cut(&mut result.kvs);
    Ok(result)
}
