//! Which keys a transaction may write twice: none.
//!
//! A key is written at most once in a transaction, at any depth, however it is written (put, append,
//! the target of a move, a restored range), and is not both written and deleted; two deletions may
//! overlap. The two branches of one nested transaction exclude each other and are compared only with
//! what stands beside it. The check is by ranges and needs no state, so that a transaction is refused
//! for its form, whichever branch would have run.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::command::Refusal;
use crate::types::{KeyRange, Op};

/// A set of keys, as disjoint intervals; no end is infinity.
#[derive(Clone, Debug, Default)]
struct KeySet {
    intervals: BTreeMap<Bytes, Option<Bytes>>,
}

/// `[start, end)`, not empty; no end is infinity.
type Interval = (Bytes, Option<Bytes>);

fn interval(range: &KeyRange) -> Option<Interval> {
    match range {
        KeyRange::Key(key) => {
            let mut end = Vec::with_capacity(key.len() + 1);
            end.extend_from_slice(key);
            end.push(0);
            Some((key.clone(), Some(end.into())))
        }
        KeyRange::Span { start, end } if end <= start => None,
        KeyRange::Span { start, end } => Some((start.clone(), Some(end.clone()))),
        KeyRange::From(start) => Some((start.clone(), None)),
    }
}

fn ends_after(end: Option<&Bytes>, key: &Bytes) -> bool {
    end.is_none_or(|end| end > key)
}

impl KeySet {
    fn overlaps(&self, (start, end): &Interval) -> bool {
        let before = self.intervals.range::<Bytes, _>(..=start).next_back();
        if before.is_some_and(|(_, own_end)| ends_after(own_end.as_ref(), start)) {
            return true;
        }
        let after = self.intervals.range::<Bytes, _>(start..).next();
        after.is_some_and(|(own_start, _)| ends_after(end.as_ref(), own_start))
    }

    fn insert(&mut self, (mut start, mut end): Interval) {
        while let Some((own_start, own_end)) = self.touching(&start, end.as_ref()) {
            self.intervals.remove(&own_start);
            start = start.min(own_start);
            end = match (end, own_end) {
                (Some(end), Some(own_end)) => Some(end.max(own_end)),
                _ => None,
            };
        }
        self.intervals.insert(start, end);
    }

    /// An interval that overlaps `[start, end)`.
    fn touching(&self, start: &Bytes, end: Option<&Bytes>) -> Option<Interval> {
        let own = |(start, end): (&Bytes, &Option<Bytes>)| (start.clone(), end.clone());
        let before = self.intervals.range::<Bytes, _>(..=start).next_back();
        if let Some(found) = before.filter(|(_, own_end)| ends_after(own_end.as_ref(), start)) {
            return Some(own(found));
        }
        let after = self.intervals.range::<Bytes, _>(start..).next();
        after.filter(|(own_start, _)| ends_after(end, own_start)).map(own)
    }
}

/// What a list of operations may write.
#[derive(Default)]
struct Writes {
    puts: Vec<Interval>,
    deletes: Vec<Interval>,
}

/// Refuses a branch that writes a key twice.
pub(crate) fn check_duplicates(ops: &[Op]) -> Result<(), Refusal> {
    match single_keys(ops) {
        Some(keys) => check_distinct(keys),
        None => branch_writes(ops).map(drop),
    }
}

/// The keys of a branch that puts single keys and nothing else, as most do: those need no intervals.
fn single_keys(ops: &[Op]) -> Option<Vec<&[u8]>> {
    let key = |op| match op {
        &Op::Put { ref key, .. } | &Op::Append { ref key, .. } => Some(key.as_ref()),
        _ => None,
    };
    ops.iter().map(key).collect()
}

fn check_distinct(mut keys: Vec<&[u8]>) -> Result<(), Refusal> {
    if !keys.is_sorted_by(|a, b| a < b) {
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Refusal::DuplicateKey);
        }
    }
    Ok(())
}

fn branch_writes(ops: &[Op]) -> Result<Writes, Refusal> {
    let mut all = Writes::default();
    let (mut puts, mut deletes) = (KeySet::default(), KeySet::default());
    for op in ops {
        let own = op_writes(op)?;
        let put_twice = own.puts.iter().any(|put| puts.overlaps(put) || deletes.overlaps(put));
        if put_twice || own.deletes.iter().any(|delete| puts.overlaps(delete)) {
            return Err(Refusal::DuplicateKey);
        }
        for put in own.puts {
            puts.insert(put.clone());
            all.puts.push(put);
        }
        for delete in own.deletes {
            deletes.insert(delete.clone());
            all.deletes.push(delete);
        }
    }
    Ok(all)
}

fn op_writes(op: &Op) -> Result<Writes, Refusal> {
    let one = |range: &KeyRange| interval(range).into_iter().collect::<Vec<_>>();
    Ok(match op {
        Op::Put { key, .. } | Op::Append { key, .. } => {
            Writes { puts: one(&KeyRange::Key(key.clone())), deletes: Vec::new() }
        }
        Op::Delete { range, .. } => Writes { puts: Vec::new(), deletes: one(range) },
        Op::Range(_) => Writes::default(),
        Op::Txn(txn) => {
            let mut then = branch_writes(&txn.success)?;
            let otherwise = branch_writes(&txn.failure)?;
            then.puts.extend(otherwise.puts);
            then.deletes.extend(otherwise.deletes);
            then
        }
        Op::Move { from, to } => {
            Writes { puts: one(&KeyRange::prefix(to)), deletes: one(&KeyRange::prefix(from)) }
        }
        Op::MoveKey { from, to } if from == to => Writes::default(),
        Op::MoveKey { from, to } => Writes {
            puts: one(&KeyRange::Key(to.clone())),
            deletes: one(&KeyRange::Key(from.clone())),
        },
        Op::Exchange { a, b } if a == b => Writes::default(),
        Op::Exchange { a, b } => {
            let side = |side: &Bytes| {
                if side.ends_with(b"/") {
                    KeyRange::prefix(side)
                } else {
                    KeyRange::Key(side.clone())
                }
            };
            Writes { puts: [one(&side(a)), one(&side(b))].concat(), deletes: Vec::new() }
        }
        Op::Restore { range, .. } => Writes { puts: one(range), deletes: Vec::new() },
    })
}

#[cfg(test)]
mod tests {
    use super::{KeySet, check_duplicates, interval};
    use crate::command::Refusal;
    use crate::types::{KeyRange, Op, Txn};
    use bytes::Bytes;
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};
    use proptest::prop_oneof;

    fn range() -> impl Strategy<Value = KeyRange> {
        let key = || proptest::collection::vec(0u8..4, 1..3).prop_map(Bytes::from);
        prop_oneof![
            key().prop_map(KeyRange::Key),
            (key(), key()).prop_map(|(start, end)| KeyRange::Span { start, end }),
            key().prop_map(KeyRange::From),
        ]
    }

    /// Every key of one or two small bytes: enough to tell the ranges above apart.
    fn keys() -> Vec<Vec<u8>> {
        let one = (0u8..5).map(|a| vec![a]);
        one.chain((0u8..5).flat_map(|a| (0u8..5).map(move |b| vec![a, b])))
            .chain((0u8..5).flat_map(|a| (0u8..5).map(move |b| vec![a, b, 0])))
            .collect()
    }

    proptest! {
        #[test]
        fn set_of_intervals_is_a_set_of_keys(
            ranges in proptest::collection::vec(range(), 0..8), probe in range(), _x in any::<u8>(),
        ) {
            let mut set = KeySet::default();
            for range in &ranges {
                if let Some(interval) = interval(range) {
                    set.insert(interval);
                }
            }
            let expected = keys()
                .iter()
                .any(|key| probe.contains(key) && ranges.iter().any(|range| range.contains(key)));
            let found = interval(&probe).is_some_and(|probe| set.overlaps(&probe));
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn writes_of_one_key_are_refused_at_any_depth_unless_they_exclude_each_other() {
        let nested = |success: Vec<Op>, failure: Vec<Op>| {
            Op::Txn(Txn { compares: Vec::new(), success, failure })
        };
        let put = || Op::put("foo", "x");
        let append = || Op::Append { key: "foo".into(), value: "x".into() };
        let delete = || Op::delete("foo");
        let delete_range = || Op::Delete {
            range: KeyRange::Span { start: "f".into(), end: "g".into() },
            prev_kv: false,
        };
        let beside = || Op::Delete {
            range: KeyRange::Span { start: "fop".into(), end: "g".into() },
            prev_kv: false,
        };
        let restore =
            || Op::Restore { range: KeyRange::prefix(b"fo"), revision: Default::default() };
        let move_to = || Op::Move { from: "a/".into(), to: "fo".into() };
        let move_from = || Op::MoveKey { from: "foo".into(), to: "a".into() };
        let exchange = |a: &'static str, b: &'static str| Op::Exchange { a: a.into(), b: b.into() };
        let refused: [Vec<Op>; 16] = [
            vec![put(), put()],
            vec![put(), Op::put("bar", "x"), append()],
            vec![put(), append()],
            vec![put(), delete()],
            vec![delete_range(), put()],
            vec![put(), nested(vec![delete_range()], vec![])],
            vec![nested(vec![put()], vec![]), nested(vec![], vec![put()])],
            vec![nested(vec![nested(vec![put()], vec![])], vec![]), delete_range()],
            vec![restore(), put()],
            vec![restore(), delete()],
            vec![move_to(), put()],
            vec![move_from(), append()],
            vec![nested(vec![put(), put()], vec![])],
            vec![exchange("foo", "bar"), put()],
            vec![exchange("fo/", "bar/"), Op::delete("bar/x")],
            vec![exchange("fo/", "bar/"), Op::put("fo/x", "")],
        ];
        for ops in refused {
            assert_eq!(check_duplicates(&ops), Err(Refusal::DuplicateKey), "{ops:?}");
        }
        let allowed: [Vec<Op>; 9] = [
            vec![put(), Op::put("bar", "x"), Op::put("foo/", "x")],
            vec![delete(), delete_range(), delete()],
            vec![put(), beside()],
            vec![nested(vec![put()], vec![put()])],
            vec![nested(vec![put()], vec![delete_range()])],
            vec![move_from(), delete()],
            vec![Op::MoveKey { from: "foo".into(), to: "foo".into() }, put()],
            vec![exchange("foo", "foo"), put()],
            vec![exchange("foo", "bar"), Op::put("foo/", ""), Op::delete("bar0")],
        ];
        for ops in allowed {
            assert_eq!(check_duplicates(&ops), Ok(()), "{ops:?}");
        }
    }
}
