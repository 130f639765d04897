//! What is wrong with a transaction whatever the state.

use bytes::Bytes;
use revfs_store::types::{KEY_BYTES_MAX, KeyRange, Op};
use revfs_store::{Refusal, escaped_bytes};

/// One write of an operation, with the way to it: (operation, branch) at each depth.
struct Write {
    path: Vec<(usize, bool)>,
    is_put: bool,
    start: Vec<u8>,
    end: Option<Vec<u8>>,
}

fn writes(ops: &[Op], path: &[(usize, bool)], branch: bool, out: &mut Vec<Write>) {
    for (at, op) in ops.iter().enumerate() {
        let mut path = path.to_vec();
        path.push((at, branch));
        let mut add = |is_put: bool, range: &KeyRange| {
            let (start, end) = match range {
                KeyRange::Key(key) => (key.to_vec(), Some([&key[..], b"\0"].concat())),
                KeyRange::Span { start, end } => (start.to_vec(), Some(end.to_vec())),
                KeyRange::From(start) => (start.to_vec(), None),
            };
            if end.as_ref().is_none_or(|end| *end > start) {
                out.push(Write { path: path.clone(), is_put, start, end });
            }
        };
        match op {
            Op::Put { key, .. } | Op::Append { key, .. } => add(true, &KeyRange::Key(key.clone())),
            Op::Delete { range, .. } => add(false, range),
            Op::Range(_) => {}
            Op::Move { from, to } => {
                add(true, &KeyRange::prefix(to));
                add(false, &KeyRange::prefix(from));
            }
            Op::MoveKey { from, to } => {
                if from != to {
                    add(true, &KeyRange::Key(to.clone()));
                    add(false, &KeyRange::Key(from.clone()));
                }
            }
            Op::Exchange { a, b } => {
                let sides = if a == b { vec![] } else { vec![a, b] };
                for side in sides {
                    let is_prefix = side.ends_with(b"/");
                    add(
                        true,
                        &if is_prefix {
                            KeyRange::prefix(side)
                        } else {
                            KeyRange::Key(side.clone())
                        },
                    );
                }
            }
            Op::Restore { range, .. } => add(true, range),
            Op::Txn(txn) => {
                writes(&txn.success, &path, true, out);
                writes(&txn.failure, &path, false, out);
            }
        }
    }
}

/// Whether two writes can happen in one run of the transaction, by two operations.
fn meet(a: &Write, b: &Write) -> bool {
    for (x, y) in a.path.iter().zip(&b.path) {
        if x.1 != y.1 {
            return false;
        }
        if x.0 != y.0 {
            return true;
        }
    }
    false
}

fn overlap(a: &Write, b: &Write) -> bool {
    a.end.as_ref().is_none_or(|end| b.start < *end)
        && b.end.as_ref().is_none_or(|end| a.start < *end)
}

pub(super) fn has_duplicates(ops: &[Op]) -> bool {
    let mut all = Vec::new();
    writes(ops, &[], true, &mut all);
    all.iter().enumerate().any(|(at, a)| {
        all[at + 1..].iter().any(|b| (a.is_put || b.is_put) && meet(a, b) && overlap(a, b))
    })
}

pub(super) fn form(op: &Op) -> Result<(), Refusal> {
    let key = |key: &Bytes| match escaped_bytes(key) {
        0 => Err(Refusal::KeyEmpty),
        bytes if bytes > KEY_BYTES_MAX => Err(Refusal::KeyTooLong { bytes, max: KEY_BYTES_MAX }),
        _ => Ok(()),
    };
    match op {
        Op::Put { key: own, .. } | Op::Append { key: own, .. } => key(own),
        Op::MoveKey { from, to } => key(from).and_then(|()| key(to)),
        Op::Move { from, to } if from.starts_with(to) || to.starts_with(from) => {
            Err(Refusal::MoveOverlaps)
        }
        Op::Exchange { a, b } if a.ends_with(b"/") != b.ends_with(b"/") => {
            Err(Refusal::ExchangeMixed)
        }
        Op::Exchange { a, b } if !a.ends_with(b"/") => key(a).and_then(|()| key(b)),
        Op::Exchange { a, b } if a.starts_with(b) || b.starts_with(a) => Err(Refusal::MoveOverlaps),
        Op::Txn(txn) => txn.success.iter().chain(&txn.failure).try_for_each(form),
        _ => Ok(()),
    }
}
