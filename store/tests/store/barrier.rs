//! No commit passes the log: what LMDB holds, the log holds durably.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use revfs_store::types::{Op, Revision, Time};
use revfs_store::{Health, LogBarrier, Position, Reached, Store, StoreError, StoreOptions};

use crate::scenario::command;
use crate::watch::wait_until;

/// A log whose flush the test holds.
struct HeldLog {
    durable: Mutex<Result<u64, Arc<str>>>,
    changed: Condvar,
    asked: Mutex<u64>,
}

impl HeldLog {
    fn begin(store: &Store) -> Arc<Self> {
        let log = Arc::new(Self {
            durable: Mutex::new(Ok(0)),
            changed: Condvar::new(),
            asked: Mutex::new(0),
        });
        store.set_log_barrier(Arc::clone(&log) as Arc<dyn LogBarrier>);
        log
    }

    fn flush_to(&self, index: u64) {
        *self.durable.lock() = Ok(index);
        self.changed.notify_all();
    }

    fn fail(&self) {
        *self.durable.lock() = Err(Arc::from("the disk is gone"));
        self.changed.notify_all();
    }
}

impl LogBarrier for HeldLog {
    fn wait(&self, position: &Position, timeout: Duration) -> Reached {
        *self.asked.lock() = position.index;
        let mut durable = self.durable.lock();
        let is_late =
            |durable: &mut Result<u64, _>| durable.as_ref().is_ok_and(|&end| end < position.index);
        self.changed.wait_while_for(&mut durable, is_late, timeout);
        match &*durable {
            Ok(end) if *end >= position.index => Reached::Durable,
            Ok(_) => Reached::NotYet,
            Err(reason) => Reached::Never { reason: Arc::clone(reason) },
        }
    }
}

fn options() -> StoreOptions {
    StoreOptions {
        map_bytes: 1 << 30,
        commit_interval: Duration::from_millis(1),
        log_wait_max: Duration::from_millis(100),
        ..StoreOptions::default()
    }
}

fn put(store: &Store, index: u64) {
    let position = Position { index, term: 1, raft: Bytes::new() };
    store.apply(position, &command(vec![Op::put("/k", "v")], Time(0))).unwrap();
}

#[test]
fn a_commit_waits_until_the_log_is_durable() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(directory.path(), options()).unwrap();
    let log = HeldLog::begin(&store);
    for index in 1..=10 {
        put(&store, index);
    }
    wait_until("the committer asks for the first entries", || *log.asked.lock() > 0);
    let held = *log.asked.lock();
    let error = store.commit().unwrap_err();
    assert!(matches!(error, StoreError::LogLate { .. }), "{error}");
    assert_eq!(store.committed().index, 0);
    // Late is not lost: it is read, and it is committed once the log is durable.
    assert_eq!(store.read_view().unwrap().current(), Revision(11));
    assert_eq!(store.health(), Health::Good);
    log.flush_to(held);
    wait_until("what the log holds is committed", || store.committed().index == held);
    log.flush_to(10);
    assert_eq!(store.commit().unwrap().index, 10);
}

#[test]
fn a_crash_leaves_no_store_ahead_of_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(directory.path(), options()).unwrap();
    let log = HeldLog::begin(&store);
    put(&store, 1);
    wait_until("the committer asks", || *log.asked.lock() == 1);
    log.flush_to(1);
    wait_until("the entry is committed", || store.committed().index == 1);
    for index in 2..=20 {
        put(&store, index);
    }
    wait_until("the committer asks", || *log.asked.lock() > 1);
    store.abandon();
    let store = Store::open(directory.path(), options()).unwrap();
    assert_eq!(store.applied().index, 1);
}

#[test]
fn a_store_is_closed_in_time_although_its_log_stands_still() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(directory.path(), options()).unwrap();
    let _log = HeldLog::begin(&store);
    put(&store, 1);
    assert!(matches!(store.close(), Err(StoreError::LogLate { .. })));
    drop(store);
    assert_eq!(Store::open(directory.path(), options()).unwrap().applied().index, 0);
}

#[test]
fn a_log_that_fails_closes_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::create(directory.path(), options()).unwrap();
    let log = HeldLog::begin(&store);
    put(&store, 1);
    log.fail();
    wait_until("the store is closed", || matches!(store.health(), Health::Closed { .. }));
    let Health::Closed { reason } = store.health() else { unreachable!("it was closed") };
    assert!(reason.contains("the disk is gone"), "{reason}");
    assert_eq!(store.committed().index, 0);
}
