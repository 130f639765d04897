//! A store over a log whose flush is held, and logs that begin behind another member's store.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use revfs_store::{LogBarrier, Position, Store, StoreOptions};

use super::{all, append, entry, new_directory, open, save_vote, small};
use crate::log::{DiskOperation, Faults, Log, LogError, LogId, LogOptions, Vote};

/// Holds every flush of the log while it is closed.
#[derive(Default)]
struct Gate {
    is_closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn set_closed(&self, is_closed: bool) {
        *self.is_closed.lock() = is_closed;
        self.opened.notify_all();
    }

    fn faults(self: &Arc<Self>) -> Faults {
        let gate = Arc::clone(self);
        Faults::new(move |operation, _| {
            if operation == DiskOperation::Sync {
                let mut is_closed = gate.is_closed.lock();
                gate.opened.wait_while(&mut is_closed, |is_closed| *is_closed);
            }
            Ok(())
        })
    }
}

fn id(term: u64, index: u64) -> LogId {
    LogId { term, index }
}

fn begin_behind(log: &Log, id: LogId) -> Result<(), LogError> {
    let (done, answer) = mpsc::channel();
    log.begin_behind(id, Box::new(move |result| done.send(result).unwrap()));
    answer.recv().unwrap()
}

#[test]
fn a_store_ahead_of_its_log_commits_when_the_log_is_flushed() {
    let gate = Arc::new(Gate::default());
    let options = LogOptions { faults: gate.faults(), ..small() };
    let directory = new_directory(&options);
    let log = Arc::new(open(directory.path(), &options));
    append(&log, vec![entry(1, 0, 10)]).unwrap();
    let stores = tempfile::tempdir().unwrap();
    let store_options = StoreOptions {
        map_bytes: 1 << 30,
        commit_interval: Duration::from_millis(1),
        log_wait_max: Duration::from_millis(50),
        ..StoreOptions::default()
    };
    let store = Store::create(stores.path(), store_options).unwrap();
    store.set_log_barrier(Arc::clone(&log) as Arc<dyn LogBarrier>);
    let advance = |index| store.advance(Position { index, term: 1, raft: "raft".into() }).unwrap();
    advance(0);
    assert_eq!(store.commit().unwrap().index, 0);
    // The others have acknowledged the next entries, and a leader says that they are committed.
    gate.set_closed(true);
    let (done, answer) = mpsc::channel();
    log.append(
        (1..4).map(|index| entry(1, index, 10)).collect(),
        Box::new(move |result| done.send(result).unwrap()),
    );
    (1..4).for_each(advance);
    assert_eq!(store.applied().index, 3);
    store.commit().unwrap_err();
    assert_eq!(store.committed().index, 0);
    gate.set_closed(false);
    answer.recv().unwrap().unwrap();
    assert_eq!(store.commit().unwrap().index, 3);
}

#[test]
fn durable_is_an_entry_of_the_term_that_is_asked_for() {
    let directory = new_directory(&small());
    let log = open(directory.path(), &small());
    let is_durable = |id| log.wait_durable(id, Duration::ZERO).unwrap();
    append(&log, vec![entry(1, 0, 10), entry(1, 1, 10)]).unwrap();
    assert!(is_durable(id(1, 1)) && !is_durable(id(1, 2)) && !is_durable(id(2, 1)));
    log.truncate_after(Some(id(1, 0)));
    append(&log, vec![entry(2, 1, 10)]).unwrap();
    assert!(is_durable(id(2, 1)) && !is_durable(id(1, 1)));
    log.purge(id(2, 1));
    assert!(is_durable(id(2, 1)) && is_durable(id(1, 0)) && !is_durable(id(2, 2)));
}

#[test]
fn a_log_begins_behind_a_store_that_was_not_made_from_it() {
    let vote = Vote { term: 7, node: 1, committed: false };
    // The log is empty, too short, long enough with other entries, or goes through the entry.
    for (entries, expected_begin) in [
        (vec![], 51),
        ((0..40).map(|index| entry(3, index, 10)).collect(), 51),
        ((0..60).map(|index| entry(3, index, 10)).collect(), 51),
        ((0..60).map(|index| entry(5, index, 10)).collect::<Vec<_>>(), 0),
    ] {
        let directory = new_directory(&small());
        let log = open(directory.path(), &small());
        save_vote(&log, vote).unwrap();
        let length = u64::try_from(entries.len()).unwrap();
        append(&log, entries).unwrap();
        begin_behind(&log, id(5, 50)).unwrap();
        let next = if expected_begin == 0 { length } else { 51 };
        append(&log, vec![entry(7, next, 10)]).unwrap();
        drop(log);
        let log = Log::open(directory.path(), small(), Some(id(5, 50))).unwrap();
        let state = log.state();
        assert_eq!((state.vote, state.last), (Some(vote), Some(id(7, next))));
        assert_eq!(all(&log).first().unwrap().id.index, expected_begin);
        assert_eq!(all(&log).last().unwrap(), &entry(7, next, 10));
    }
}
