//! Random requests over a few keys.

use bytes::Bytes;
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::compare::TargetUnion;
use revfs_api::wire::etcdserverpb::request_op;

/// A small generator whose whole state is its seed (splitmix64).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: i64) -> i64 {
        let bound = u64::try_from(bound.max(1)).expect("positive");
        i64::try_from(self.next() % bound).expect("below a bound that fits")
    }

    fn one_in(&mut self, n: i64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let length = i64::try_from(from.len()).expect("a short list");
        from[usize::try_from(self.below(length)).expect("an index")]
    }
}

#[derive(Clone, Debug)]
pub(super) enum Request {
    Put(pb::PutRequest),
    Delete(pb::DeleteRangeRequest),
    Range(pb::RangeRequest),
    Txn(pb::TxnRequest),
    Compact(i64),
    Grant(i64),
    Revoke(i64),
    LeaseKeys(i64),
    Leases,
    Hash(i64),
}

/// The seed of this run, printed.
pub(super) fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let seed = match std::env::var("REVFS_SEED") {
        Ok(seed) => seed.parse().expect("REVFS_SEED is a number"),
        Err(_) => RandomState::new().build_hasher().finish(),
    };
    println!("REVFS_SEED={seed}");
    seed
}

pub(super) fn steps() -> usize {
    std::env::var("REVFS_STEPS").map_or(400, |steps| steps.parse().expect("a number of steps"))
}

/// A number below `bound`.
pub(super) fn below(r: &mut Random, bound: i64) -> i64 {
    r.below(bound)
}

const KEYS: [&[u8]; 14] = [
    b"a",
    b"b",
    b"ab",
    b"foo",
    b"foo/",
    b"foo/a",
    b"foo/b",
    b"\x00",
    b"\x00\x01",
    b"\x01",
    b"\xff",
    b"\xff\xff",
    b"foo/\x00",
    b"foo0",
];
const VALUES: [&[u8]; 5] = [b"", b"1", b"2", b"\x00\xff", b"a longer value than the others"];

/// Leases that are granted and revoked; none expires while a test runs.
pub(super) const LEASES: [i64; 4] = [1, 2, -5, 77];
pub(super) const LEASE_SECONDS: i64 = 1_000_000;

fn key(r: &mut Random) -> Bytes {
    Bytes::from_static(r.pick(&KEYS))
}

fn value(r: &mut Random) -> Bytes {
    Bytes::from_static(r.pick(&VALUES))
}

/// A key, an interval, a prefix, the end of the keys; sometimes an interval that is empty.
fn interval(r: &mut Random) -> (Bytes, Bytes) {
    match r.below(6) {
        0..3 => (key(r), Bytes::new()),
        3 => (key(r), key(r)),
        4 => (Bytes::from_static(b"foo/"), Bytes::from_static(b"foo0")),
        _ => (key(r), Bytes::from_static(b"\0")),
    }
}

/// The four changes of etcd's known hashes.
pub(super) fn first() -> [Request; 4] {
    let put = |key: &'static str, value: &'static str| pb::PutRequest {
        key: key.into(),
        value: value.into(),
        ..Default::default()
    };
    let success =
        [put("a", "1"), put("b", "2")].map(|put| of(request_op::Request::RequestPut(put)));
    [
        Request::Put(put("foo", "bar")),
        Request::Put(put("foo", "bar2")),
        Request::Delete(pb::DeleteRangeRequest { key: "foo".into(), ..Default::default() }),
        Request::Txn(pb::TxnRequest { success: success.into(), ..Default::default() }),
    ]
}

fn of(request: request_op::Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// Mostly one that is stored, sometimes 0, below 0, compacted, or in the future.
pub(super) fn revision(r: &mut Random, compacted: i64, current: i64) -> i64 {
    let oldest = compacted.max(1);
    match r.below(12) {
        0 => 0,
        1 => compacted,
        2 => r.below(current + 3),
        _ => oldest + r.below(current - oldest + 1),
    }
}

pub(super) fn range(r: &mut Random, compacted: i64, current: i64) -> pb::RangeRequest {
    let (key, range_end) = interval(r);
    let bound = |r: &mut Random| match r.below(12) {
        0 => r.below(current + 2),
        1 => current - r.below(20),
        2 if r.one_in(6) => -1,
        _ => 0,
    };
    let bounds = [bound(r), bound(r), bound(r), bound(r)];
    let sorts = r.one_in(2);
    pb::RangeRequest {
        key,
        range_end,
        limit: if r.one_in(2) { 0 } else { r.below(7) - 1 },
        revision: if r.one_in(2) { 0 } else { revision(r, compacted, current) },
        sort_order: if sorts { r.pick(&[0, 1, 2]) } else { 0 },
        sort_target: if sorts { r.pick(&[0, 1, 2, 3, 4]) } else { 0 },
        serializable: r.one_in(4),
        keys_only: r.one_in(4),
        count_only: r.one_in(8),
        min_mod_revision: bounds[0],
        max_mod_revision: bounds[1],
        min_create_revision: bounds[2],
        max_create_revision: bounds[3],
    }
}

fn put(r: &mut Random) -> pb::PutRequest {
    let (ignore_value, ignore_lease) = (r.one_in(15), r.one_in(15));
    let says_twice = r.one_in(20);
    pb::PutRequest {
        key: if r.one_in(150) { Bytes::new() } else { key(r) },
        value: if ignore_value && !says_twice { Bytes::new() } else { value(r) },
        // A lease that does not exist. With a key that does not exist either, etcd names one or the
        // other, depending on whether the put is in a transaction.
        lease: if !ignore_value && r.one_in(4) { r.pick(&LEASES) } else { 0 },
        prev_kv: r.one_in(3),
        ignore_value,
        ignore_lease,
    }
}

fn delete(r: &mut Random, in_txn: bool) -> pb::DeleteRangeRequest {
    let (key, mut range_end) = interval(r);
    if in_txn && range_end == Bytes::from_static(b"\0") {
        range_end = Bytes::new();
    }
    pb::DeleteRangeRequest { key, range_end, prev_kv: r.one_in(2) }
}

fn compare(r: &mut Random, current: i64) -> pb::Compare {
    let (key, range_end) = interval(r);
    let number = match r.below(5) {
        0 => 0,
        1 => r.below(5),
        2 if r.one_in(4) => -1,
        _ => current - r.below(12),
    };
    let target = r.pick(&[0, 1, 2, 3, 4]);
    // Sometimes the number of another target: it counts as 0.
    let union = if r.one_in(15) { r.pick(&[0, 1, 2, 3, 4]) } else { target };
    let union = match union {
        0 => TargetUnion::Version(if r.one_in(3) { number } else { r.below(4) }),
        1 => TargetUnion::CreateRevision(number),
        2 => TargetUnion::ModRevision(number),
        3 => TargetUnion::Value(value(r)),
        _ => TargetUnion::Lease(if r.one_in(2) { r.pick(&LEASES) } else { 0 }),
    };
    let target_union = if r.one_in(20) { None } else { Some(union) };
    pb::Compare { result: r.pick(&[0, 1, 2, 3]), target, key, range_end, target_union }
}

fn operation(r: &mut Random, compacted: i64, current: i64, depth: i64) -> pb::RequestOp {
    if r.one_in(120) {
        return pb::RequestOp { request: None };
    }
    of(match r.below(10) {
        0..4 => request_op::Request::RequestPut(put(r)),
        4..6 => request_op::Request::RequestDeleteRange(delete(r, true)),
        6..8 => {
            let mut range = range(r, compacted, current);
            if r.one_in(2) {
                range.revision = 0;
            }
            // etcd refuses numbers below 0 in a transaction once it was compacted: a slip.
            range.revision = range.revision.max(0);
            request_op::Request::RequestRange(range)
        }
        _ if depth < 3 => request_op::Request::RequestTxn(txn(r, compacted, current, depth + 1)),
        _ => request_op::Request::RequestPut(put(r)),
    })
}

fn txn(r: &mut Random, compacted: i64, current: i64, depth: i64) -> pb::TxnRequest {
    let operations = |r: &mut Random, most: i64| {
        (0..r.below(most)).map(|_| operation(r, compacted, current, depth)).collect()
    };
    let (success, failure) = (operations(r, 5), operations(r, 4));
    let compare = (0..r.below(3)).map(|_| compare(r, current)).collect();
    pb::TxnRequest { compare, success, failure }
}

pub(super) fn change(r: &mut Random, compacted: i64, current: i64) -> Request {
    match r.below(40) {
        0 => Request::Compact(revision(r, compacted, current)),
        1..4 => Request::Grant(r.pick(&LEASES)),
        4 => Request::Revoke(r.pick(&LEASES)),
        5..16 => Request::Put(put(r)),
        16..21 => Request::Delete(delete(r, false)),
        _ => loop {
            let txn = txn(r, compacted, current, 1);
            if !is_overlooked(&txn) {
                return Request::Txn(txn);
            }
        },
    }
}

/// Whether a nested transaction deletes what an earlier one beside it puts: etcd looks for puts in
/// earlier deletions, and for puts of one key, but overlooks this. A node refuses it as the others.
fn is_overlooked(txn: &pb::TxnRequest) -> bool {
    [&txn.success, &txn.failure].into_iter().any(|operations| writes(operations).is_none())
}

type Writes = (Vec<Bytes>, Vec<(Bytes, Bytes)>);

/// The keys put and the intervals deleted, at any depth; `None` if there is something overlooked.
fn writes(operations: &[pb::RequestOp]) -> Option<Writes> {
    let mut deletes = Vec::new();
    let (mut puts, mut nested_puts) = (Vec::new(), Vec::<Bytes>::new());
    for operation in operations {
        match &operation.request {
            Some(request_op::Request::RequestPut(put)) => puts.push(put.key.clone()),
            Some(request_op::Request::RequestDeleteRange(delete)) => {
                deletes.push((delete.key.clone(), delete.range_end.clone()));
            }
            Some(request_op::Request::RequestTxn(txn)) => {
                let (success, failure) = (writes(&txn.success)?, writes(&txn.failure)?);
                let both = [success.1, failure.1].concat();
                let holds = |(start, end): &(Bytes, Bytes), key: &Bytes| {
                    if end.is_empty() { key == start } else { start <= key && key < end }
                };
                if nested_puts.iter().any(|key| both.iter().any(|delete| holds(delete, key))) {
                    return None;
                }
                deletes.extend(both);
                nested_puts.extend([success.0, failure.0].concat());
            }
            _ => {}
        }
    }
    puts.extend(nested_puts);
    Some((puts, deletes))
}
