//! What is wrong with a transaction whatever the state: refused before anything is read.

use crate::command::Refusal;
use crate::escape::escaped_bytes;
use crate::interval::check_duplicates;
use crate::types::{KEY_BYTES_MAX, Op, Txn, VALUE_BYTES_MAX};

/// Refuses a transaction for its form; both branches and all nested transactions are looked at.
pub(crate) fn check_form(txn: &Txn) -> Result<(), Refusal> {
    for branch in [&txn.success, &txn.failure] {
        for op in branch {
            check_op(op)?;
        }
        check_duplicates(branch)?;
    }
    Ok(())
}

/// Refuses an operation for its form; nested ones too, but for keys written twice.
pub(crate) fn check_op(op: &Op) -> Result<(), Refusal> {
    match op {
        Op::Put { key, value, .. } | Op::Append { key, value } => {
            check_key(key)?;
            check_value(value.len())
        }
        Op::Txn(txn) => {
            txn.success.iter().chain(&txn.failure).try_for_each(check_op)
            // Duplicates are compared by the outermost call, which sees all depths.
        }
        Op::MoveKey { from, to } => {
            check_key(from)?;
            check_key(to)
        }
        Op::Move { from, to } if from.starts_with(to) || to.starts_with(from) => {
            Err(Refusal::MoveOverlaps)
        }
        Op::Exchange { a, b } => check_exchange(a, b),
        Op::Move { .. } | Op::Delete { .. } | Op::Range(_) | Op::Restore { .. } => Ok(()),
    }
}

fn check_exchange(a: &[u8], b: &[u8]) -> Result<(), Refusal> {
    match (a.ends_with(b"/"), b.ends_with(b"/")) {
        (true, true) if a.starts_with(b) || b.starts_with(a) => Err(Refusal::MoveOverlaps),
        (true, true) => Ok(()),
        (false, false) => check_key(a).and_then(|()| check_key(b)),
        _ => Err(Refusal::ExchangeMixed),
    }
}

/// Refuses a key that no row can hold.
pub(crate) fn check_key(key: &[u8]) -> Result<(), Refusal> {
    if key.is_empty() {
        return Err(Refusal::KeyEmpty);
    }
    let bytes = escaped_bytes(key);
    if bytes > KEY_BYTES_MAX {
        return Err(Refusal::KeyTooLong { bytes, max: KEY_BYTES_MAX });
    }
    Ok(())
}

pub(crate) fn check_value(bytes: usize) -> Result<(), Refusal> {
    if bytes > VALUE_BYTES_MAX {
        return Err(Refusal::ValueTooLarge { bytes, max: VALUE_BYTES_MAX });
    }
    Ok(())
}
