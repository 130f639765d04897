//! Full disks pass; anything else closes the log.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Append, BOTH_WAYS, append, entry, new_directory, open, small};
use crate::log::{DiskOperation, Faults, Log, LogError, LogOptions, OnNoSpace};

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come true");
        std::thread::yield_now();
    }
}

/// Fails what `fails` picks, with `error`, while the switch is on.
fn failing(
    switch: &Arc<AtomicBool>,
    error: i32,
    fails: impl Fn(DiskOperation, &Path) -> bool + Send + Sync + 'static,
) -> Faults {
    let switch = Arc::clone(switch);
    Faults::new(move |operation, path| {
        if switch.load(Ordering::Relaxed) && fails(operation, path) {
            return Err(io::Error::from_raw_os_error(error));
        }
        Ok(())
    })
}

#[test]
fn a_failed_flush_closes_the_log_until_it_is_opened_again() {
    let broken = Arc::new(AtomicBool::new(false));
    let faults = failing(&broken, libc::EIO, |operation, _| operation == DiskOperation::Sync);
    let options = LogOptions { faults, ..small() };
    let directory = new_directory(&options);
    let log = open(directory.path(), &options);
    append(&log, vec![entry(1, 0, 10)]).unwrap();
    broken.store(true, Ordering::Relaxed);
    assert!(append(&log, vec![entry(1, 1, 10)]).is_err());
    broken.store(false, Ordering::Relaxed);
    let error = append(&log, vec![entry(1, 2, 10)]).unwrap_err();
    assert!(matches!(error, LogError::Failed { .. }), "{error}");
    assert!(log.close().is_err());
    drop(log);

    let log = open(directory.path(), &options);
    assert!(log.state().last.unwrap().index <= 1);
    assert!(log.failure().is_none());
}

#[test]
fn a_full_disk_shows_before_the_segment_is_used_up_and_passes() {
    for way in BOTH_WAYS {
        full_then_not(way);
    }
}

fn full_then_not(append_one: Append) {
    let full = Arc::new(AtomicBool::new(false));
    let faults = failing(&full, libc::ENOSPC, |operation, _| operation == DiskOperation::Create);
    let options = LogOptions { faults, spares_max: 0, ..small() };
    let directory = new_directory(&options);
    let log = open(directory.path(), &options);
    wait_for("a spare segment", || !log.shared.inner.lock().spares.is_empty());
    full.store(true, Ordering::Relaxed);
    assert!(!log.is_disk_full());
    // One segment is half used, a spare is ready: room for a third of what follows.
    let mut index = 0;
    while !log.is_disk_full() {
        append(&log, vec![entry(1, index, 3_000)]).unwrap();
        index += 1;
        assert!(index < 100, "the disk is full, but nobody noticed");
    }
    // What is queued beyond the last segment waits, and goes on when there is space.
    let waiting: Vec<_> = (index..index + 10).map(|index| entry(1, index, 3_000)).collect();
    let (done, answer) = std::sync::mpsc::channel();
    append_one(&log, waiting, Box::new(move |result| done.send(result).unwrap()));
    assert!(answer.recv_timeout(Duration::from_millis(50)).is_err());
    assert!(log.failure().is_none());
    full.store(false, Ordering::Relaxed);
    answer.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
    wait_for("space", || !log.is_disk_full());
    drop(log);
    assert_eq!(super::all(&open(directory.path(), &options)).len() as u64, index + 10);
}

#[test]
fn the_reserve_is_given_up_for_what_was_admitted() {
    let full = Arc::new(AtomicBool::new(true));
    let released = Arc::new(AtomicUsize::new(0));
    let faults = failing(&full, libc::ENOSPC, |operation, path| {
        operation == DiskOperation::Write && path.to_string_lossy().contains("spare")
    });
    let (switch, count) = (Arc::clone(&full), Arc::clone(&released));
    let on_no_space = OnNoSpace::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        switch.store(false, Ordering::Relaxed);
    });
    let usual = small();
    let directory = new_directory(&usual);
    let options = LogOptions { faults, on_no_space, ..usual };
    let log = open(directory.path(), &options);
    for index in 0..20 {
        append(&log, vec![entry(1, index, 2_000)]).unwrap();
    }
    assert!(released.load(Ordering::Relaxed) >= 1);
    assert!(!full.load(Ordering::Relaxed));
}

#[test]
fn closing_on_a_full_disk_ends_and_loses_nothing_acknowledged() {
    for way in BOTH_WAYS {
        closed_while_full(way);
    }
}

fn closed_while_full(append_one: Append) {
    let full = Arc::new(AtomicBool::new(false));
    let faults = failing(&full, libc::ENOSPC, |operation, _| {
        matches!(operation, DiskOperation::Create | DiskOperation::Write)
    });
    let options = LogOptions { faults, ..small() };
    let directory = new_directory(&options);
    let log = open(directory.path(), &options);
    append(&log, vec![entry(1, 0, 10)]).unwrap();
    full.store(true, Ordering::Relaxed);
    let (done, answer) = std::sync::mpsc::channel();
    append_one(&log, vec![entry(1, 1, 10)], Box::new(move |result| done.send(result).unwrap()));
    assert!(log.close().is_err());
    assert!(answer.recv().unwrap().is_err());
    full.store(false, Ordering::Relaxed);
    let log = Log::open(directory.path(), options, None).unwrap();
    assert_eq!(log.state().last.unwrap().index, 0);
}

#[test]
fn a_mark_that_cannot_be_taken_away_keeps_the_log_closed() {
    let options = small();
    let directory = new_directory(&options);
    for failing in [DiskOperation::Remove, DiskOperation::SyncDirectory] {
        let log = open(directory.path(), &options);
        let next = log.state().last.map_or(0, |last| last.index + 1);
        append(&log, vec![entry(1, next, 10)]).unwrap();
        log.close().unwrap();
        drop(log);
        let always = Arc::new(AtomicBool::new(true));
        let faults = self::failing(&always, libc::EIO, move |operation, _| operation == failing);
        let refused = LogOptions { faults, ..options.clone() };
        assert!(Log::open(directory.path(), refused, None).is_err(), "{failing:?}");
    }
    assert_eq!(open(directory.path(), &options).state().last.unwrap().index, 1);
}
