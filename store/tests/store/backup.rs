//! A backup holds what was acknowledged before it began, whole log entries only, and nothing else is
//! taken for one.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use revfs_store::types::{KeyRange, Op, RangeQuery, Revision, Time};
use revfs_store::{
    BackupError, BackupOptions, BackupSummary, Position, Progress, RestoreError, Store, StoreError,
    StoreOptions, VerifyError, backup_summary, restore_backup, verify_backup,
};
use tempfile::TempDir;

use crate::random::{Random, seed};
use crate::scenario::command;

fn options() -> StoreOptions {
    StoreOptions { map_bytes: 1 << 30, ..StoreOptions::default() }
}

fn quick() -> BackupOptions {
    BackupOptions { pause: Duration::ZERO, ..BackupOptions::default() }
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn raft(index: u64) -> Bytes {
    format!("raft of {index}").into()
}

fn put(store: &Store, index: u64, bytes: usize) {
    // Two keys an entry: a copy with one of them would be half an entry.
    let value = vec![b'v'; bytes];
    let ops = ["/a/", "/b/"].map(|dir| Op::put(format!("{dir}{index:06}"), value.clone()));
    let position = Position { index, term: 1, raft: raft(index) };
    let time = Time(i64::try_from(index).unwrap());
    store.apply(position, &command(ops.into(), time)).unwrap().result.unwrap();
}

fn read_write(path: &Path) -> File {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true).open(path).unwrap()
}

fn back_up(store: &Store, path: &Path) -> BackupSummary {
    store.backup(&mut read_write(path), &quick(), &mut go_on).unwrap()
}

fn count(store: &Store, prefix: &str) -> u64 {
    let mut query = RangeQuery::new(KeyRange::prefix(prefix.as_bytes()));
    query.count_only = true;
    store.read_view().unwrap().range(Revision::NONE, &query).unwrap().count
}

struct Sample {
    dir: TempDir,
    summary: BackupSummary,
}

impl Sample {
    fn new(entries: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(&dir.path().join("store"), options()).unwrap();
        for index in 1..=entries {
            put(&store, index, 100);
        }
        let summary = back_up(&store, &dir.path().join("backup"));
        Self { dir, summary }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("backup")
    }
}

#[test]
fn a_backup_under_writes_holds_whole_entries_and_all_that_came_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(&dir.path().join("store"), options()).unwrap();
    let (written, is_done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for index in 1..10_000 {
                if is_done.load(Ordering::Acquire) {
                    break;
                }
                put(&store, index, 300);
                written.store(index, Ordering::Release);
            }
        });
        for number in 0..4 {
            while written.load(Ordering::Acquire) < 200 * (number + 1) {
                std::thread::yield_now();
            }
            let before = written.load(Ordering::Acquire);
            let path = dir.path().join(format!("backup-{number}"));
            let summary = back_up(&store, &path);
            assert!(summary.position.index >= before, "{summary:?}, {before} were written");
            assert_eq!(summary.position.raft, raft(summary.position.index));
            assert_eq!(summary.revision, Revision(summary.position.index + 1));
            assert_eq!(verify_backup(&path, &mut go_on).unwrap(), summary);
            let copy = Store::open_read_only(&path, options()).unwrap();
            assert_eq!(copy.applied(), summary.position);
            for prefix in ["/a/", "/b/"] {
                assert_eq!(count(&copy, prefix), summary.position.index);
            }
            copy.read_view().unwrap().verify().unwrap();
        }
        is_done.store(true, Ordering::Release);
    });
}

#[test]
fn a_store_open_for_reading_takes_no_changes_and_leaves_no_trace() {
    let sample = Sample::new(10);
    let before = std::fs::read(sample.path()).unwrap();
    let store = Store::open_read_only(&sample.path(), options()).unwrap();
    let position = Position { index: 11, term: 1, raft: raft(11) };
    let error = store.apply(position, &command(vec![Op::put("/x", "y")], Time(0))).unwrap_err();
    assert!(matches!(error, StoreError::Closed { .. }));
    assert!(error.to_string().contains("reading only"), "{error}");
    assert_eq!(count(&store, "/a/"), 10);
    let at = store.read_view().unwrap().get(Revision(3), b"/a/000003", false).unwrap();
    assert!(at.is_none());
    store.close().unwrap();
    drop(store);
    assert_eq!(std::fs::read(sample.path()).unwrap(), before);
    assert_eq!(std::fs::read_dir(sample.dir.path()).unwrap().count(), 2);
}

#[test]
fn a_restored_store_goes_on_at_the_position_that_it_is_given() {
    let sample = Sample::new(50);
    let dir = sample.dir.path().join("restored");
    let own = Bytes::from_static(b"of another cluster");
    let position = |found: &Position| {
        assert_eq!(*found, sample.summary.position);
        Ok(own.clone())
    };
    let summary = restore_backup(&sample.path(), &dir, &options(), position, &mut go_on).unwrap();
    assert_eq!(summary, sample.summary);
    let store = Store::open(&dir, options()).unwrap();
    assert_eq!(store.applied(), Position { index: 50, term: 1, raft: own });
    assert_eq!(count(&store, "/a/"), 50);
    put(&store, 51, 10);
    store.close().unwrap();
    drop(store);
    let store = Store::open(&dir, options()).unwrap();
    assert_eq!(count(&store, "/b/"), 51);
    store.read_view().unwrap().verify().unwrap();
    drop(store);
    let position = |_: &Position| Ok(Bytes::new());
    let again = restore_backup(&sample.path(), &dir, &options(), position, &mut go_on).unwrap_err();
    assert!(again.to_string().contains("exists already"), "{again}");
}

fn refusal(path: &Path) -> VerifyError {
    verify_backup(path, &mut go_on).expect_err("damage was not noticed")
}

#[test]
fn a_flipped_bit_anywhere_is_refused_and_placed() {
    let sample = Sample::new(200);
    let whole = std::fs::read(sample.path()).unwrap();
    let path = sample.dir.path().join("damaged");
    let content = whole.len() - 400;
    let mut random = Random::new(seed());
    let mut places: Vec<usize> = (0..200).map(|_| random.index(content)).collect();
    places.extend(content..whole.len());
    for at in places {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << random.below(8);
        std::fs::write(&path, &damaged).unwrap();
        let error = refusal(&path);
        let text = error.to_string();
        assert!(text.contains("damaged") && text.contains("byte "), "{at}: {text}");
        let place = u64::try_from(at).unwrap();
        match error {
            VerifyError::Damaged { from, to, .. } => {
                assert!(from <= place && place < to, "byte {at} is not in {from}..{to}");
            }
            VerifyError::Incomplete { offset, .. } => assert!(offset <= place, "{at}: {text}"),
            other => panic!("byte {at}: {other}"),
        }
    }
    let restored = sample.dir.path().join("restored");
    let mut damaged = whole.clone();
    damaged[9_000] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let position = |_: &Position| Ok(Bytes::new());
    let error = restore_backup(&path, &restored, &options(), position, &mut go_on).unwrap_err();
    assert!(matches!(error, RestoreError::Backup(VerifyError::Damaged { from: 0, .. })), "{error}");
    assert!(!restored.join("data.mdb").exists());
}

#[test]
fn a_cut_tail_is_refused_wherever_it_is_cut() {
    let sample = Sample::new(20);
    let whole = std::fs::read(sample.path()).unwrap();
    let path = sample.dir.path().join("cut");
    let mut random = Random::new(seed());
    let mut cuts: Vec<usize> = (0..100).map(|_| random.index(whole.len())).collect();
    cuts.extend(whole.len() - 300..whole.len());
    cuts.push(0);
    for cut in cuts {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let error = refusal(&path);
        assert!(matches!(error, VerifyError::Incomplete { .. }), "{cut}: {error}");
        assert!(error.to_string().contains("cut"), "{error}");
        backup_summary(&path).unwrap_err();
    }
}

#[test]
fn a_backup_that_is_given_up_or_has_no_room_says_so_and_the_store_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(&dir.path().join("store"), options()).unwrap();
    for index in 1..=60 {
        put(&store, index, 40_000);
    }
    let path = dir.path().join("backup");
    let mut file = read_write(&path);
    let error = store.backup(&mut file, &quick(), &mut |_| ControlFlow::Break(())).unwrap_err();
    assert!(matches!(error, BackupError::GivenUp));
    assert!(matches!(refusal(&path), VerifyError::Incomplete { .. }));
    let mut full = File::options().read(true).write(true).open("/dev/full").unwrap();
    store.backup(&mut full, &quick(), &mut go_on).unwrap_err();
    put(&store, 61, 10);
    assert_eq!(back_up(&store, &path).position.index, 61);
}
