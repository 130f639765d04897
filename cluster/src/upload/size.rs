//! How large a transaction is in the log, and how it is cut. Sizes are upper bounds of the encoding.

use revfs_api::keyspace::{Error, Result};
use revfs_store::types::{Compare, CompareTarget, KeyRange, Op, Txn};
use revfs_store::{UPLOAD_BYTES_MAX, UPLOAD_PART_BYTES_MAX};

/// Whatever an operation or a comparison takes besides its keys and its value.
const OVERHEAD_BYTES: usize = 80;

/// A part is full from here on: other changes find their way into the log between two of them.
const PART_BYTES: usize = 4 << 20;

/// Whether a transaction is too large for one entry: for a value of the largest size, its key,
/// compares and side record there is always room.
pub(crate) fn is_large(txn: &Txn) -> bool {
    txn_bytes(txn) > UPLOAD_PART_BYTES_MAX
}

fn txn_bytes(txn: &Txn) -> usize {
    compares_bytes(&txn.compares) + ops_bytes(&txn.success) + ops_bytes(&txn.failure)
}

fn compares_bytes(compares: &[Compare]) -> usize {
    let bytes = |compare: &Compare| {
        let value = match &compare.target {
            CompareTarget::Value(value) => value.len(),
            CompareTarget::Version(_)
            | CompareTarget::CreateRevision(_)
            | CompareTarget::ModRevision(_)
            | CompareTarget::Lease(_) => 0,
        };
        OVERHEAD_BYTES + range_bytes(&compare.range) + value
    };
    compares.iter().map(bytes).sum()
}

fn ops_bytes(ops: &[Op]) -> usize {
    ops.iter().map(op_bytes).sum()
}

fn op_bytes(op: &Op) -> usize {
    let own = match op {
        Op::Put { key, value, .. } | Op::Append { key, value } => key.len() + value.len(),
        Op::Delete { range, .. } | Op::Restore { range, .. } => range_bytes(range),
        Op::Range(query) => range_bytes(&query.range),
        Op::Txn(txn) => txn_bytes(txn),
        Op::Move { from: a, to: b } | Op::MoveKey { from: a, to: b } | Op::Exchange { a, b } => {
            a.len() + b.len()
        }
    };
    OVERHEAD_BYTES + own
}

fn range_bytes(range: &KeyRange) -> usize {
    match range {
        KeyRange::Key(key) | KeyRange::From(key) => key.len(),
        KeyRange::Span { start, end } => start.len() + end.len(),
    }
}

/// Refuses what would not fit in the command that commits.
pub(super) fn check_commit(compares: &[Compare], failure: &[Op]) -> Result<()> {
    let (count, max) = (compares_bytes(compares) + ops_bytes(failure), UPLOAD_PART_BYTES_MAX);
    if count > max {
        return Err(Error::TooBig { unit: "bytes of compares and failure branch", count, max });
    }
    Ok(())
}

/// Cuts a branch into parts, in order.
pub(super) fn parts(ops: Vec<Op>) -> Result<Vec<Vec<Op>>> {
    let (mut parts, mut part, mut part_bytes, mut count) = (Vec::new(), Vec::new(), 0, 0);
    for op in ops {
        let bytes = op_bytes(&op);
        if bytes > UPLOAD_PART_BYTES_MAX {
            // Only a nested transaction: a value is smaller.
            let (unit, max) = ("bytes of one operation", UPLOAD_PART_BYTES_MAX);
            return Err(Error::TooBig { unit, count: bytes, max });
        }
        if !part.is_empty() && part_bytes + bytes > PART_BYTES {
            parts.push(std::mem::take(&mut part));
            part_bytes = 0;
        }
        part.push(op);
        part_bytes += bytes;
        count += bytes;
    }
    parts.push(part);
    let max = usize::try_from(UPLOAD_BYTES_MAX).unwrap_or(usize::MAX);
    if count > max {
        return Err(Error::TooBig { unit: "bytes of operations", count, max });
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use revfs_api::keyspace::Error;
    use revfs_store::types::{Author, KEY_BYTES_MAX, Op, Time, Txn, VALUE_BYTES_MAX};
    use revfs_store::{Body, Command, UPLOAD_PART_BYTES_MAX};

    use super::{PART_BYTES, check_commit, is_large, op_bytes, parts};

    fn put(bytes: usize) -> Op {
        Op::put(vec![b'k'; KEY_BYTES_MAX], Bytes::from(vec![0; bytes]))
    }

    #[test]
    fn the_largest_value_needs_no_upload_and_two_do() {
        let one = Txn { success: vec![put(VALUE_BYTES_MAX)], ..Txn::default() };
        assert!(!is_large(&one));
        let two = Txn { failure: vec![Op::Txn(one), put(1 << 20)], ..Txn::default() };
        assert!(is_large(&two));
    }

    #[test]
    fn what_is_encoded_is_no_larger_than_was_reckoned() {
        let query = revfs_store::types::RangeQuery {
            at: revfs_store::types::Revision(1),
            sort_target: revfs_store::types::SortTarget::Value,
            mod_revisions: revfs_store::types::RevisionBounds {
                min: revfs_store::types::Revision(1),
                max: revfs_store::types::Revision(2),
            },
            create_revisions: revfs_store::types::RevisionBounds {
                min: revfs_store::types::Revision(1),
                max: revfs_store::types::Revision(2),
            },
            ..revfs_store::types::RangeQuery::new(revfs_store::types::KeyRange::prefix(b"/a"))
        };
        let nested = Txn { success: vec![put(3), Op::delete("d")], ..Txn::default() };
        for op in [put(9), Op::Range(query), Op::Txn(nested)] {
            let encoded = |ops| {
                let body = Body::Txn(Txn { success: ops, ..Txn::default() });
                let (author, note) = (Author::default(), Bytes::new());
                Command { time: Time(0), author, note, body }.encode().unwrap().len()
            };
            let bytes = encoded(vec![op.clone()]) - encoded(Vec::new());
            assert!(bytes <= op_bytes(&op), "{op:?}: {bytes}");
        }
    }

    #[test]
    fn parts_keep_the_order_and_their_size() {
        let sizes = [1 << 20, 2 << 20, 5 << 20, 0, VALUE_BYTES_MAX, 1, 2, 3 << 20, (1 << 20) + 1];
        let ops: Vec<Op> = sizes.into_iter().map(put).collect();
        let cut = parts(ops.clone()).unwrap();
        assert_eq!(cut.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1, 1, 3, 1]);
        let bytes = |part: &Vec<Op>| part.iter().map(op_bytes).sum::<usize>();
        assert!(cut.iter().all(|part| part.len() == 1 || bytes(part) <= PART_BYTES));
        assert_eq!(cut.concat(), ops);
    }

    #[test]
    fn what_cannot_be_cut_is_refused() {
        let nested = Txn { success: vec![put(VALUE_BYTES_MAX), put(1 << 20)], ..Txn::default() };
        let error = parts(vec![Op::Txn(nested.clone())]).unwrap_err();
        assert!(matches!(error, Error::TooBig { unit: "bytes of one operation", max, .. }
                if max == UPLOAD_PART_BYTES_MAX));
        assert!(matches!(
            check_commit(&[], &nested.success).unwrap_err(),
            Error::TooBig { unit: "bytes of compares and failure branch", .. }
        ));
        // 30,000 nested transactions of large keys alone are more than the store takes.
        let keys =
            Txn { success: vec![Op::delete(vec![b'k'; KEY_BYTES_MAX]); 9], ..Txn::default() };
        let error = parts(vec![Op::Txn(keys); 33_000]).unwrap_err();
        assert!(matches!(error, Error::TooBig { unit: "bytes of operations", .. }));
    }
}
