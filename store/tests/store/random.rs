//! Random commands and questions over a small key space full of awkward bytes.

use bytes::Bytes;
use revfs_store::types::{
    Author, Compare, CompareResult, CompareTarget, KeyRange, LeaseId, Op, RangeQuery, Revision,
    RevisionBounds, SortOrder, SortTarget, Time, Txn,
};
use revfs_store::{Body, Command, UploadCommit};

mod auth;
mod members;

pub(crate) use auth::{asked, asker};

/// A small generator whose whole state is its seed (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(u64::try_from(length).unwrap())).unwrap()
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }
}

/// The seed of this run, printed; `REVFS_SEED` replays one.
pub(crate) fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let seed = match std::env::var("REVFS_SEED") {
        Ok(seed) => seed.parse().expect("REVFS_SEED is a number"),
        Err(_) => RandomState::new().build_hasher().finish(),
    };
    println!("REVFS_SEED={seed}");
    seed
}

const KEYS: &[&[u8]] = &[
    b"a",
    b"b",
    b"ab",
    b"a/",
    b"/",
    b"/a",
    b"/a/",
    b"/a/b",
    b"/a/b/",
    b"/a/b/c",
    b"/a//b",
    b"//",
    b"/a/\x00",
    b"/a/\x00\x00",
    b"/a/\x01",
    b"/a/\x01/x",
    b"/a/\x02",
    b"/d/x",
    b"/d/x/y/z",
    b"/d/x/y/w",
    b"/d/\xff",
    b"/d/\xff\xff",
    b"\x00",
    b"\x00\x00",
    b"\x00\x01",
    b"\x01",
    b"\x01\x00",
    b"\x02",
    b"\xff",
    b"\xff\xff",
    b"\xff\xff/x",
    b"/e/1",
    b"/e/2",
    b"/e/3",
    b"/e/f/1",
    b"\x00r/a/a",
    b"\x00revfs/a/a/b",
    b"\x00revfs/a/d/x",
    b"\x00revfs/l/d/x",
    b"\x00revfs/r/d/x",
    b"\x00revfs/r",
    b"/zz/@rev",
    b"/zz/ ",
    b"/zz/\n",
    b"/dd",
];

pub(crate) const DIRECTORIES: &[&[u8]] = &[
    b"",
    b"/",
    b"/a/",
    b"/a//",
    b"/a/b/",
    b"/d/",
    b"/d/x/",
    b"/d/x/y/",
    b"/e/",
    b"/e/f/",
    b"/q/",
    b"/zz/",
    b"a/",
    b"//",
    b"/a/\x01/",
    b"\xff\xff/",
    b"/none/",
];

const PREFIXES: &[&[u8]] = &[
    b"/a/",
    b"/d/",
    b"/d/x/",
    b"/e/",
    b"/e/f/",
    b"/q/",
    b"/q/r/",
    b"/zz/",
    b"\x00",
    b"\xff",
    b"/",
    b"/d",
    b"\x00r/a/",
    b"a",
];

const VALUES: &[&[u8]] = &[b"", b"x", b"yy", b"x\x00", b"a longer value, beside the short ones"];

pub(crate) fn key(r: &mut Random) -> Bytes {
    Bytes::from_static(r.pick(KEYS))
}

pub(crate) fn prefix(r: &mut Random) -> Bytes {
    Bytes::from_static(r.pick(PREFIXES))
}

fn value(r: &mut Random) -> Bytes {
    Bytes::from_static(r.pick(VALUES))
}

pub(crate) fn lease(r: &mut Random) -> LeaseId {
    LeaseId(r.pick(&[0, 0, 0, 1, 2, -3, 9]))
}

pub(crate) fn range(r: &mut Random) -> KeyRange {
    match r.below(8) {
        0..3 => KeyRange::Key(key(r)),
        3..5 => KeyRange::Span { start: key(r), end: key(r) },
        5..7 => KeyRange::prefix(&prefix(r)),
        _ => KeyRange::From(key(r)),
    }
}

fn bounds(r: &mut Random, current: u64) -> RevisionBounds {
    let bound = |r: &mut Random| match r.below(3) {
        0 => Revision::NONE,
        1 => Revision(r.below(current + 2)),
        _ => Revision(current - r.below(current.min(30))),
    };
    if r.one_in(6) {
        RevisionBounds { min: bound(r), max: bound(r) }
    } else {
        RevisionBounds::default()
    }
}

/// A range with everything that may be asked of one, but for a revision of its own.
pub(crate) fn query(r: &mut Random, current: u64) -> RangeQuery {
    let targets = [
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::CreateRevision,
        SortTarget::ModRevision,
        SortTarget::Value,
    ];
    let orders = [SortOrder::Unspecified, SortOrder::Ascend, SortOrder::Descend];
    let sorts = r.one_in(3);
    RangeQuery {
        range: range(r),
        at: Revision::NONE,
        limit: r.index(5),
        keys_only: r.one_in(4),
        count_only: r.one_in(6),
        sort_target: if sorts { r.pick(&targets) } else { SortTarget::Key },
        sort_order: if sorts { r.pick(&orders) } else { SortOrder::Unspecified },
        mod_revisions: bounds(r, current),
        create_revisions: bounds(r, current),
    }
}

/// A range in a transaction, sometimes at a revision of its own.
fn query_in_txn(r: &mut Random, compacted: u64, current: u64) -> RangeQuery {
    let mut query = query(r, current);
    if r.one_in(4) {
        query.at = revision(r, compacted, current);
    }
    query
}

/// A revision near what is stored: mostly valid, sometimes compacted or in the future.
pub(crate) fn revision(r: &mut Random, compacted: u64, current: u64) -> Revision {
    match r.below(12) {
        0 => Revision(r.below(current + 3)),
        1 => Revision::NONE,
        2 => Revision(compacted),
        _ => Revision(compacted + r.below(current - compacted + 1)),
    }
}

fn compare(r: &mut Random, current: u64) -> Compare {
    let number = match r.below(4) {
        0 => 0,
        1 => r.below(4),
        _ => current - r.below(current.min(20)),
    };
    let target = match r.below(6) {
        0 => CompareTarget::Version(r.below(4)),
        1 => CompareTarget::CreateRevision(Revision(number)),
        2 => CompareTarget::ModRevision(Revision(number)),
        3 => CompareTarget::Value(value(r)),
        4 => CompareTarget::Lease(lease(r)),
        _ => CompareTarget::CreateRevision(Revision::NONE),
    };
    let results = [
        CompareResult::Equal,
        CompareResult::NotEqual,
        CompareResult::Less,
        CompareResult::Greater,
    ];
    Compare { range: range(r), target, result: r.pick(&results) }
}

fn op(r: &mut Random, compacted: u64, current: u64, depth: u64) -> Op {
    match r.below(21) {
        0..9 => Op::Put {
            key: if r.one_in(300) { Bytes::new() } else { key(r) },
            value: value(r),
            lease: lease(r),
            prev_kv: r.one_in(3),
            ignore_value: r.one_in(12),
            ignore_lease: r.one_in(12),
        },
        9..12 => Op::Delete {
            range: if r.one_in(3) { range(r) } else { KeyRange::Key(key(r)) },
            prev_kv: r.one_in(2),
        },
        12..14 => Op::Range(query_in_txn(r, compacted, current)),
        14 => Op::Append { key: key(r), value: value(r) },
        15 => Op::Move { from: prefix(r), to: prefix(r) },
        16 => Op::MoveKey { from: key(r), to: key(r) },
        20 if r.one_in(2) => Op::Exchange { a: key(r), b: key(r) },
        20 => Op::Exchange { a: prefix(r), b: prefix(r) },
        17 => Op::Restore { range: range(r), revision: revision(r, compacted, current) },
        _ if depth < 3 => Op::Txn(txn(r, compacted, current, depth + 1)),
        _ => Op::put(key(r), value(r)),
    }
}

fn txn(r: &mut Random, compacted: u64, current: u64, depth: u64) -> Txn {
    let compares = (0..r.index(3)).map(|_| compare(r, current)).collect();
    let success = (0..r.index(4)).map(|_| op(r, compacted, current, depth)).collect();
    let failure = (0..r.index(3)).map(|_| op(r, compacted, current, depth)).collect();
    Txn { compares, success, failure }
}

fn ops(r: &mut Random, compacted: u64, current: u64) -> Vec<Op> {
    (0..r.index(3)).map(|_| op(r, compacted, current, 2)).collect()
}

pub(crate) fn command(r: &mut Random, compacted: u64, current: u64, time: i64) -> Command {
    let body = match r.below(200) {
        0 => Body::Compact { revision: revision(r, compacted, current) },
        1..8 => Body::LeaseGrant { id: lease(r), ttl_seconds: i64::try_from(r.below(9)).unwrap() },
        8..11 => Body::LeaseRevoke { id: lease(r) },
        11..14 => Body::LeaseExpire { id: lease(r), term: 1 + r.below(2) },
        14..16 => Body::LeaseCheckpoint {
            term: 1 + r.below(2),
            remaining: (0..r.below(3)).map(|seconds| (lease(r), seconds.cast_signed())).collect(),
        },
        16..26 => Body::UploadPart {
            upload: lease(r),
            part: u32::try_from(r.below(3)).unwrap(),
            ops: ops(r, compacted, current),
        },
        26..34 => {
            let Txn { compares, failure, .. } = txn(r, compacted, current, 1);
            let parts = u32::try_from(r.below(4)).unwrap();
            Body::UploadCommit(UploadCommit { upload: lease(r), parts, compares, failure })
        }
        34..90 => Body::Txn(Txn { success: vec![op(r, compacted, current, 3)], ..Txn::default() }),
        _ => Body::Txn(txn(r, compacted, current, 1)),
    };
    let principal = if r.one_in(2) { "alice" } else { "" };
    Command {
        time: Time(time + i64::try_from(r.below(10)).unwrap() - 4),
        author: Author { principal: principal.to_owned(), claimed: "bob@host".to_owned() },
        note: if r.one_in(2) { Bytes::from_static(b"note\x00") } else { Bytes::new() },
        body,
    }
}
