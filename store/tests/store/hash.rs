//! One number for a history: etcd's, and our own for what etcd does not know.

use std::time::Duration;

use bytes::Bytes;
use revfs_store::types::{Author, Compare, KeyRange, LeaseId, Op, Revision, Time, Txn};
use revfs_store::{Body, Command, Position, ReadError, Store, StoreOptions};

struct Bench {
    directory: tempfile::TempDir,
    store: Store,
    index: u64,
}

impl Bench {
    fn new(options: StoreOptions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(directory.path(), options).unwrap();
        Self { directory, store, index: 0 }
    }

    fn apply(&mut self, body: Body, claimed: &str) {
        self.index += 1;
        let time = Time(i64::try_from(self.index).unwrap());
        let author = Author { principal: String::new(), claimed: claimed.to_owned() };
        let position = Position { index: self.index, ..Position::default() };
        let command = Command { time, author, note: Bytes::new(), body };
        self.store.apply(position, &command).unwrap().result.unwrap();
    }

    fn change(&mut self, ops: Vec<Op>) {
        let compares = Vec::<Compare>::new();
        self.apply(Body::Txn(Txn { compares, success: ops, failure: Vec::new() }), "somebody");
    }

    fn hash(&self) -> u32 {
        self.store.hash_kv(Revision::NONE).unwrap().hash
    }
}

fn options() -> StoreOptions {
    StoreOptions { map_bytes: 1 << 28, ..StoreOptions::default() }
}

#[test]
fn the_hash_of_a_history_is_etcds() {
    let mut bench = Bench::new(options());
    assert_eq!(bench.hash(), 1_084_519_789);
    bench.change(vec![Op::put("foo", "bar")]);
    assert_eq!(bench.hash(), 3_305_255_506);
    bench.change(vec![Op::put("foo", "bar2")]);
    assert_eq!(bench.hash(), 3_581_052_765);
    bench.change(vec![Op::delete("foo")]);
    assert_eq!(bench.hash(), 846_839_875);
    bench.change(vec![Op::put("a", "1"), Op::put("b", "2")]);
    assert_eq!(bench.hash(), 2_168_418_123);
    let then = bench.store.hash_kv(Revision(3)).unwrap();
    assert_eq!((then.hash, then.compacted, then.current), (3_581_052_765, None, Revision(5)));
    let error = bench.store.hash_kv(Revision(6)).unwrap_err();
    assert!(matches!(error, ReadError::Future { .. }), "{error}");
}

#[test]
fn the_hash_does_not_depend_on_how_far_physical_compaction_has_come() {
    // One member removes what is compacted at once, the other not before the end of the test.
    let fast = StoreOptions { compaction_pause: Duration::ZERO, ..options() };
    let slow = StoreOptions { compaction_pause: Duration::from_secs(3_600), ..options() };
    let slow = StoreOptions { commit_interval: Duration::from_secs(3_600), ..slow };
    let (mut fast, mut slow) = (Bench::new(fast), Bench::new(slow));
    for bench in [&mut fast, &mut slow] {
        for n in 0..40 {
            bench.change(vec![Op::put(format!("k{}", n % 7), "v"), Op::put(format!("x{n}"), "")]);
            bench.change(vec![Op::delete(format!("x{}", n / 2))]);
        }
        bench.apply(Body::Compact { revision: Revision(50) }, "");
    }
    assert!(fast.store.wait_compacted(Revision(50), Duration::from_secs(60)).unwrap());
    let rows = |bench: &Bench| bench.store.read_view().unwrap().verify().unwrap();
    assert_ne!(rows(&fast), rows(&slow));
    for at in 50..=61 {
        let at = Revision(at);
        assert_eq!(fast.store.hash_kv(at).unwrap(), slow.store.hash_kv(at).unwrap(), "at {at}");
    }
    let error = fast.store.hash_kv(Revision(49)).unwrap_err();
    assert!(matches!(error, ReadError::Compacted { .. }), "{error}");
    assert_eq!(fast.store.own_hash().unwrap(), slow.store.own_hash().unwrap());
}

/// What two members do alike, one of them with a commit after each entry, the other with none; the second
/// goes on before it hashes what it kept.
#[test]
fn a_frozen_state_is_that_of_its_entry_whatever_was_committed_or_comes_after() {
    let late = StoreOptions { commit_interval: Duration::from_secs(3_600), ..options() };
    let (mut prompt, mut late) = (Bench::new(options()), Bench::new(late));
    let lease = |id| Body::LeaseGrant { id: LeaseId(id), ttl_seconds: 60 };
    let grow = |bench: &mut Bench, commits: bool| {
        for n in 1..=20 {
            bench.apply(lease(n), "");
            let mut put = Op::put(format!("/d{}/k{n}", n % 3), "v");
            if let Op::Put { lease, .. } = &mut put {
                *lease = LeaseId(n);
            }
            bench.change(vec![put]);
            if commits {
                bench.store.commit().unwrap();
            }
        }
        bench.apply(Body::LeaseRevoke { id: LeaseId(7) }, "");
        bench.apply(Body::Compact { revision: Revision(9) }, "");
        bench.apply(Body::Check, "");
        bench.store.freeze().unwrap()
    };
    let (one, other) = (grow(&mut prompt, true), grow(&mut late, false));
    assert_eq!(one.position().index, prompt.index);
    let one = one.hash(|| true).unwrap();
    late.apply(Body::LeaseRevoke { id: LeaseId(8) }, "");
    late.apply(lease(99), "");
    late.change(vec![Op::put("/d1/k1", "later")]);
    late.apply(Body::Compact { revision: Revision(15) }, "");
    late.store.commit().unwrap();
    assert_eq!(other.hash(|| true).unwrap(), one);
    assert_eq!(one.kv, prompt.store.hash_kv(Revision::NONE).unwrap());
    assert_eq!(one.own, prompt.store.own_hash().unwrap().hash);
    assert!(late.store.wait_compacted(Revision(15), Duration::from_secs(60)).unwrap());
    let error = prompt.store.freeze().unwrap().hash(|| false).unwrap_err();
    assert!(error.to_string().contains("not wanted"), "{error}");
}

#[test]
fn our_own_hash_covers_what_etcds_does_not() {
    let mut bench = Bench::new(options());
    let mut seen = vec![bench.store.own_hash().unwrap()];
    let mut next = |bench: &Bench| {
        let hash = bench.store.own_hash().unwrap();
        assert_eq!(hash.position.index, bench.index);
        assert!(seen.iter().all(|old| old.hash != hash.hash), "{hash:?} was seen before");
        seen.push(hash);
    };
    let delete_all =
        || Op::Delete { range: KeyRange::From(Bytes::from_static(b"")), prev_kv: false };
    bench.change(vec![Op::put("k", "v")]);
    next(&bench);
    bench.change(vec![Op::put("k", "v")]);
    next(&bench);
    bench.change(vec![delete_all()]);
    next(&bench);
    // The same history by another author has the same HashKV.
    let mut other = Bench::new(options());
    for op in [Op::put("k", "v"), Op::put("k", "v"), delete_all()] {
        other.apply(Body::Txn(Txn { success: vec![op], ..Txn::default() }), "somebody else");
    }
    assert_eq!(other.hash(), bench.hash());
    next(&other);
    let Bench { directory, store, .. } = other;
    let before = store.own_hash().unwrap();
    store.close().unwrap();
    drop(store);
    let store = Store::open(directory.path(), options()).unwrap();
    assert_eq!(store.own_hash().unwrap(), before);
}
