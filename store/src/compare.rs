//! Compares: whether a transaction's conditions hold on the state before it.
//!
//! All conditions, those of nested transactions too, are evaluated before anything is written. A
//! missing key (or a range without keys) compares as version, revisions and lease 0; it has no value,
//! so that a comparison of its value is false, even "not equal".

use std::cmp::Ordering;
use std::ops::ControlFlow;

use crate::error::StoreError;
use crate::schema::Want;
use crate::types::{Compare, CompareResult, CompareTarget, KeyValue, Op, Txn};
use crate::view::ReadView;

/// Appends which branch runs, for `txn` and then for each nested transaction of that branch, in the
/// order of the operations.
pub(crate) fn choose(view: &ReadView, txn: &Txn, chosen: &mut Vec<bool>) -> Result<(), StoreError> {
    let mut succeeds = true;
    for compare in &txn.compares {
        if !holds(view, compare)? {
            succeeds = false;
            break;
        }
    }
    chosen.push(succeeds);
    for op in if succeeds { &txn.success } else { &txn.failure } {
        if let Op::Txn(nested) = op {
            choose(view, nested, chosen)?;
        }
    }
    Ok(())
}

fn holds(view: &ReadView, compare: &Compare) -> Result<bool, StoreError> {
    let want =
        if matches!(compare.target, CompareTarget::Value(_)) { Want::Value } else { Want::Header };
    let (mut is_empty, mut holds) = (true, true);
    view.scan(&compare.range, view.current(), want, |version| {
        is_empty = false;
        holds = holds_for(Some(&version.kv), compare);
        if holds { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(if is_empty { holds_for(None, compare) } else { holds })
}

fn holds_for(kv: Option<&KeyValue>, compare: &Compare) -> bool {
    let order = match &compare.target {
        CompareTarget::Version(version) => kv.map_or(0, |kv| kv.version).cmp(version),
        CompareTarget::CreateRevision(revision) => {
            kv.map(|kv| kv.create_revision).unwrap_or_default().cmp(revision)
        }
        CompareTarget::ModRevision(revision) => {
            kv.map(|kv| kv.mod_revision).unwrap_or_default().cmp(revision)
        }
        CompareTarget::Lease(lease) => kv.map(|kv| kv.lease).unwrap_or_default().cmp(lease),
        CompareTarget::Value(value) => match kv {
            Some(kv) => kv.value.cmp(value),
            None => return false,
        },
    };
    match compare.result {
        CompareResult::Equal => order == Ordering::Equal,
        CompareResult::NotEqual => order != Ordering::Equal,
        CompareResult::Less => order == Ordering::Less,
        CompareResult::Greater => order == Ordering::Greater,
    }
}
