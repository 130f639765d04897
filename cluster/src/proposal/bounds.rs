//! The bounds of one change, checked by the node that receives it and never in apply: another member
//! may be of another release.

use revfs_api::keyspace::{Error, Result};
use revfs_store::types::{
    Author, Compare, CompareTarget, KEY_BYTES_MAX, KeyRange, Op, TXN_ROWS_MAX, TXN_VALUE_BYTES_MAX,
    Txn, VALUE_BYTES_MAX,
};
use revfs_store::{Body, escaped_bytes};

/// A mount's note of its operations, at most 4 KiB.
pub const NOTE_BYTES_MAX: usize = 4 << 10;

/// `user@host`, at most 1 KiB: a host name has at most 253 bytes. As much again is the name of a user.
const AUTHOR_BYTES_MAX: usize = 2 << 10;

pub(super) fn check(author: &Author, note: &[u8], body: &Body) -> Result<()> {
    check_origin(author, note)?;
    match body {
        Body::Txn(txn) => check_txn(txn),
        // Parts of a transaction that was checked whole.
        Body::UploadPart { .. }
        | Body::UploadCommit(_)
        | Body::Compact { .. }
        | Body::LeaseGrant { .. }
        | Body::LeaseRevoke { .. }
        | Body::LeaseExpire { .. }
        | Body::LeaseCheckpoint { .. }
        | Body::Alarm { .. }
        | Body::Auth(_)
        | Body::Member(_)
        | Body::Check => Ok(()),
        Body::Request { body, .. } => check(author, note, body),
    }
}

pub(crate) fn check_origin(author: &Author, note: &[u8]) -> Result<()> {
    at_most("bytes of note", note.len(), NOTE_BYTES_MAX)?;
    at_most("bytes of author", author.principal.len() + author.claimed.len(), AUTHOR_BYTES_MAX)
}

pub(crate) fn check_txn(txn: &Txn) -> Result<()> {
    Size::default().txn(txn)
}

fn at_most(unit: &'static str, count: usize, max: usize) -> Result<()> {
    if count > max { Err(Error::TooBig { unit, count, max }) } else { Ok(()) }
}

/// What a transaction holds so far.
#[derive(Default)]
struct Size {
    operations: usize,
    value_bytes: usize,
}

impl Size {
    fn txn(&mut self, txn: &Txn) -> Result<()> {
        for compare in &txn.compares {
            self.compare(compare)?;
        }
        txn.success.iter().chain(&txn.failure).try_for_each(|op| self.op(op))
    }

    fn compare(&mut self, compare: &Compare) -> Result<()> {
        range(&compare.range)?;
        match &compare.target {
            CompareTarget::Value(value) => self.value(value),
            CompareTarget::Version(_)
            | CompareTarget::CreateRevision(_)
            | CompareTarget::ModRevision(_)
            | CompareTarget::Lease(_) => Ok(()),
        }
    }

    fn op(&mut self, op: &Op) -> Result<()> {
        self.operations += 1;
        at_most("operations", self.operations, TXN_ROWS_MAX)?;
        match op {
            Op::Put { key: name, value, .. } | Op::Append { key: name, value } => {
                key(name)?;
                self.value(value)
            }
            Op::Delete { range: keys, .. } | Op::Restore { range: keys, .. } => range(keys),
            Op::Range(read) => range(&read.range),
            Op::Txn(txn) => self.txn(txn),
            Op::Move { from, to } | Op::MoveKey { from, to } | Op::Exchange { a: from, b: to } => {
                key(from)?;
                key(to)
            }
        }
    }

    fn value(&mut self, value: &[u8]) -> Result<()> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(Error::ValueTooLarge { bytes: value.len(), max: VALUE_BYTES_MAX });
        }
        self.value_bytes += value.len();
        at_most("bytes of values", self.value_bytes, TXN_VALUE_BYTES_MAX)
    }
}

fn key(name: &[u8]) -> Result<()> {
    let bytes = escaped_bytes(name);
    if bytes > KEY_BYTES_MAX { Err(Error::KeyTooLong { bytes }) } else { Ok(()) }
}

/// The ends of a range name no key, but no key above the bound can lie in between.
pub(crate) fn range(keys: &KeyRange) -> Result<()> {
    match keys {
        KeyRange::Key(name) => key(name),
        KeyRange::Span { start, end } => {
            key(start)?;
            // The end of a prefix may be one byte above a key of full length.
            let bytes = escaped_bytes(end);
            if bytes > KEY_BYTES_MAX + 1 { Err(Error::KeyTooLong { bytes }) } else { Ok(()) }
        }
        KeyRange::From(start) => key(start),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use revfs_api::keyspace::Error;
    use revfs_store::Body;
    use revfs_store::types::{Author, KEY_BYTES_MAX, Op, TXN_ROWS_MAX, Txn, VALUE_BYTES_MAX};

    use super::{NOTE_BYTES_MAX, check};

    fn txn(success: Vec<Op>) -> Body {
        Body::Txn(Txn { success, ..Txn::default() })
    }

    fn check_ops(ops: Vec<Op>) -> Result<(), Error> {
        check(&Author::default(), b"", &txn(ops))
    }

    #[test]
    fn a_value_of_the_bound_passes_and_one_more_byte_does_not() {
        check_ops(vec![Op::put("k", vec![0; VALUE_BYTES_MAX])]).unwrap();
        let error = check_ops(vec![Op::put("k", vec![0; VALUE_BYTES_MAX + 1])]).unwrap_err();
        assert!(
            matches!(error, Error::ValueTooLarge { bytes, .. } if bytes == VALUE_BYTES_MAX + 1)
        );
    }

    #[test]
    fn a_key_is_measured_escaped() {
        check_ops(vec![Op::put(vec![b'k'; KEY_BYTES_MAX], "")]).unwrap();
        let error = check_ops(vec![Op::put(vec![0; KEY_BYTES_MAX / 2 + 1], "")]).unwrap_err();
        assert!(matches!(error, Error::KeyTooLong { bytes } if bytes == KEY_BYTES_MAX + 2));
        let nested =
            Op::Txn(Txn { failure: vec![Op::delete(vec![b'k'; 2_000])], ..Txn::default() });
        assert!(matches!(check_ops(vec![nested]).unwrap_err(), Error::KeyTooLong { bytes: 2_000 }));
    }

    #[test]
    fn a_transaction_is_bounded_in_operations_bytes_and_note() {
        let ops = vec![Op::put("k", ""); TXN_ROWS_MAX + 1];
        assert!(matches!(check_ops(ops).unwrap_err(), Error::TooBig { unit: "operations", .. }));
        let value = Bytes::from(vec![0; VALUE_BYTES_MAX]);
        let ops = (0..17).map(|_| Op::put("k", value.clone())).collect();
        assert!(matches!(
            check_ops(ops).unwrap_err(),
            Error::TooBig { unit: "bytes of values", .. }
        ));
        let note = vec![0; NOTE_BYTES_MAX + 1];
        let error = check(&Author::default(), &note, &txn(Vec::new())).unwrap_err();
        assert!(matches!(error, Error::TooBig { unit: "bytes of note", .. }));
    }
}
