//! Readers beside apply, commits and compaction: whole revisions only, and none that goes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use revfs_store::types::{
    Author, ChangesQuery, KeyRange, LeaseId, ListQuery, Op, RangeQuery, Revision, TXN_DEPTH_MAX,
    TXN_ROWS_MAX, Time, Txn,
};
use revfs_store::{
    Body, Command, Done, Position, ReadError, ReadView, Refusal, Store, StoreError, StoreOptions,
};

use crate::scenario::command;

pub(crate) const KEYS: usize = 5;

pub(crate) fn options() -> StoreOptions {
    StoreOptions {
        map_bytes: 1 << 30,
        commit_interval: Duration::from_millis(1),
        commit_changes: 40,
        compaction_batch: 5,
        compaction_pause: Duration::from_millis(1),
        // A few entries: apply waits for the committer all the time.
        overlay_bytes_max: 8 << 10,
        ..StoreOptions::default()
    }
}

pub(crate) fn position(index: u64) -> Position {
    Position { index, term: 1, raft: Bytes::new() }
}

/// At revision `n + 1` every key holds `n`.
pub(crate) fn check_view(view: &ReadView, at: Revision) -> Result<(), ReadError> {
    let found = view.range(at, &RangeQuery::new(KeyRange::prefix(b"/k/")))?;
    let shown = if at.is_none() { view.current() } else { at };
    if shown == Revision::FIRST {
        assert_eq!(found.count, 0);
        return Ok(());
    }
    assert_eq!(found.kvs.len(), KEYS, "at {shown}");
    for kv in &found.kvs {
        assert_eq!((kv.mod_revision, kv.value.as_ref()), (shown, shown.0.to_string().as_bytes()));
    }
    let query =
        ListQuery { directory: "/k/".into(), after: Bytes::new(), limit: 0, with_values: false };
    assert_eq!(view.list(at, &query)?.entries.len(), KEYS);
    assert_eq!(view.directory(at, b"/k/")?.changed, Revision(2));
    Ok(())
}

pub(crate) fn read(store: &Store, done: &AtomicBool) -> u64 {
    let (mut rounds, mut newest, mut next_change) = (0, Revision::NONE, Revision(2));
    while !done.load(Ordering::Relaxed) {
        let mut view = store.read_view().unwrap();
        assert!(view.current() >= newest, "{} after {newest}", view.current());
        newest = view.current();
        check_view(&view, Revision::NONE).unwrap();
        let older = Revision(newest.0.saturating_sub(rounds % 50).max(1));
        match check_view(&view, older) {
            Ok(()) | Err(ReadError::Compacted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        // A watcher: every revision once, in order, whole.
        let query = ChangesQuery {
            ranges: vec![KeyRange::prefix(b"/k/")],
            from: next_change,
            to: Revision::NONE,
            newest_first: false,
            limit: 0,
            scan_limit: 0,
            keys_only: true,
        };
        match view.changes(&query) {
            Ok(changes) => {
                for revision in changes.revisions {
                    assert_eq!(revision.stamp.revision, next_change);
                    assert_eq!(revision.events.len(), KEYS);
                    next_change = next_change.next();
                }
                assert_eq!(next_change, view.current().next());
            }
            Err(ReadError::Compacted { compacted, .. }) => next_change = compacted,
            Err(ReadError::Future { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        view.renew().unwrap();
        assert_eq!(view.current(), newest);
        rounds += 1;
    }
    rounds
}

#[test]
fn readers_see_whole_revisions_while_apply_commits_and_compacts() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::create(dir.path(), options()).unwrap());
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (store, done) = (Arc::clone(&store), Arc::clone(&done));
            std::thread::spawn(move || read(&store, &done))
        })
        .collect();
    let mut index = 0;
    for main in 2..1_500u64 {
        index += 1;
        let value = Bytes::from(main.to_string());
        let ops = (0..KEYS).map(|n| Op::put(format!("/k/{n}"), value.clone())).collect();
        let outcome = store.apply(position(index), &command(ops, Time(1))).unwrap();
        assert_eq!(outcome.revision, Revision(main));
        if main % 100 == 0 {
            index += 1;
            let body = Body::Compact { revision: Revision(main - 30) };
            let author = Author::default();
            let compact = Command { time: Time(1), author, note: Bytes::new(), body };
            let outcome = store.apply(position(index), &compact).unwrap();
            assert_eq!(outcome.result, Ok(Done::Compacted));
        }
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().unwrap() > 0);
    }
    assert!(store.wait_compacted(Revision(1_370), Duration::from_secs(60)).unwrap());
    store.close().unwrap();
}

#[test]
fn entries_are_applied_in_order_and_refused_after_close() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), options()).unwrap();
    let put = command(vec![Op::put("/a", "1")], Time(1));
    // Raft's first entry has the index 0 or 1.
    store.advance(position(0)).unwrap();
    store.apply(position(1), &put).unwrap();
    let error = store.apply(position(3), &put).unwrap_err();
    assert_eq!(error, StoreError::OutOfOrder { expected: 2, found: 3 });
    let error = store.advance(position(1)).unwrap_err();
    assert_eq!(error, StoreError::OutOfOrder { expected: 2, found: 1 });
    store.advance(position(2)).unwrap();
    assert_eq!(store.commit().unwrap(), position(2));
    assert!(store.size().unwrap().in_use_bytes > 0);
    store.touch(&put);
    let view = store.read_view().unwrap();
    store.close().unwrap();
    assert!(matches!(store.apply(position(3), &put), Err(StoreError::Closed { .. })));
    // A view outlives the store that it was taken from.
    drop(store);
    assert!(view.get(Revision::NONE, b"/a", false).unwrap().is_some());
}

#[test]
fn a_transaction_over_the_bound_of_rows_is_an_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { map_bytes: 1 << 30, ..StoreOptions::default() };
    let store = Store::create(dir.path(), options).unwrap();
    let half = TXN_ROWS_MAX / 2 + 1;
    for (index, part) in (1..).zip(["a", "b"]) {
        let ops = (0..half).map(|n| Op::put(format!("/{part}/{n}"), "")).collect();
        store.apply(position(index), &command(ops, Time(1))).unwrap().result.unwrap();
    }
    let all = KeyRange::prefix(b"/");
    let delete = Op::Delete { range: all.clone(), prev_kv: false };
    let outcome = store.apply(position(3), &command(vec![delete], Time(1))).unwrap();
    assert_eq!(outcome.result, Err(Refusal::TooManyRows { max: TXN_ROWS_MAX }));
    assert_eq!(outcome.revision, Revision(3));
    // A move writes two rows for each key.
    let whole = Op::Move { from: "/a/".into(), to: "/c/".into() };
    let outcome = store.apply(position(4), &command(vec![whole], Time(1))).unwrap();
    assert_eq!(outcome.result, Err(Refusal::TooManyRows { max: TXN_ROWS_MAX }));
    // An exchange writes both sides; with one that is empty it is a move.
    for (index, b) in [(5, "/b/"), (6, "/c/")] {
        let exchange = Op::Exchange { a: "/a/".into(), b: b.into() };
        let outcome = store.apply(position(index), &command(vec![exchange], Time(1))).unwrap();
        assert_eq!(outcome.result, Err(Refusal::TooManyRows { max: TXN_ROWS_MAX }), "{b}");
    }
    let query = RangeQuery { count_only: true, ..RangeQuery::new(all) };
    let view = store.read_view().unwrap();
    assert_eq!(view.range(Revision::NONE, &query).unwrap().count, u64::try_from(2 * half).unwrap());
}

#[test]
fn a_panic_in_an_entry_closes_the_store_and_nobody_waits_for_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::create(dir.path(), options()).unwrap());
    let apply = |body| {
        let index = store.applied().index + 1;
        store.apply(position(index), &Command { body, ..command(Vec::new(), Time(1)) })
    };
    apply(Body::LeaseGrant { id: LeaseId(1), ttl_seconds: 60 }).unwrap();
    // Deeper than a command can be encoded: such an entry never comes out of a log.
    let nest = |op, _| Op::Txn(Txn { success: vec![op], ..Txn::default() });
    let ops = vec![(0..=TXN_DEPTH_MAX).fold(Op::delete("k"), nest)];
    let part = Body::UploadPart { upload: LeaseId(1), part: 0, ops };
    let panicked = std::thread::scope(|scope| scope.spawn(|| apply(part)).join());
    assert!(panicked.is_err());
    let (done, is_done) = std::sync::mpsc::channel();
    let closing = Arc::clone(&store);
    std::thread::spawn(move || done.send(closing.close()));
    let closed = is_done.recv_timeout(Duration::from_secs(20)).expect("close returns");
    assert!(matches!(closed, Err(StoreError::Closed { .. })), "{closed:?}");
    assert!(matches!(store.advance(position(2)), Err(StoreError::Closed { .. })));
    assert!(matches!(store.read_view(), Err(StoreError::Closed { .. })));
}

#[test]
fn a_lease_that_is_written_again_is_never_missed() {
    let dir = tempfile::tempdir().unwrap();
    // Nothing reaches LMDB: what a reader misses in the overlay it misses altogether.
    let options = StoreOptions { commit_interval: Duration::from_secs(600), ..self::options() };
    let options = StoreOptions { commit_changes: 1 << 20, overlay_bytes_max: 1 << 30, ..options };
    let store = Arc::new(Store::create(dir.path(), options).unwrap());
    let id = LeaseId(7);
    let mut index = 0;
    let mut apply = |body| {
        index += 1;
        let command = Command { body, ..command(Vec::new(), Time(1)) };
        store.apply(position(index), &command).unwrap().result.unwrap();
    };
    apply(Body::LeaseGrant { id, ttl_seconds: 1 << 20 });
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                let view = store.read_view().unwrap();
                assert!(view.lease(id).unwrap().is_some());
                assert_eq!(view.leases(None, 10).unwrap().len(), 1);
            }
        })
    };
    for remaining in 1..100_000 {
        apply(Body::LeaseCheckpoint { term: 1, remaining: vec![(id, remaining)] });
    }
    done.store(true, Ordering::Relaxed);
    reader.join().unwrap();
}
