//! A backup holds what was acknowledged before it began, whole log entries only, and nothing else is
//! taken for one.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use revfs_store::types::{ChangesQuery, KeyRange, Op, RangeQuery, Revision, Time};
use revfs_store::{
    BackupError, BackupOptions, BackupSummary, Body, Bump, Inspector, Position, Progress,
    ReadError, RestoreError, Store, StoreError, StoreOptions, VerifyError, WatchRequest,
    backup_summary, restore_backup, verify_backup,
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
    let summary =
        restore_backup(&sample.path(), &dir, &options(), Bump::default(), position, &mut go_on)
            .unwrap();
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
    let again =
        restore_backup(&sample.path(), &dir, &options(), Bump::default(), position, &mut go_on)
            .unwrap_err();
    assert!(again.to_string().contains("exists already"), "{again}");
}

fn compact(store: &Store, index: u64, revision: Revision) {
    let position = Position { index, term: 1, raft: raft(index) };
    let mut command = command(Vec::new(), Time(0));
    command.body = Body::Compact { revision };
    store.apply(position, &command).unwrap().result.unwrap();
}

fn watch_all() -> WatchRequest {
    WatchRequest { ranges: vec![KeyRange::From(Bytes::new())], ..WatchRequest::default() }
}

fn bumped(sample: &Sample, name: &str, bump: Bump) -> PathBuf {
    let dir = sample.dir.path().join(name);
    let position = |_: &Position| Ok(Bytes::from_static(b"own"));
    restore_backup(&sample.path(), &dir, &options(), bump, position, &mut go_on).unwrap();
    dir
}

fn violations(dir: &Path) -> Vec<String> {
    let inspector = Inspector::open(&dir.join("data.mdb"), &options(), true).unwrap();
    let mut found = Vec::new();
    inspector.check(&mut go_on, &mut |violation| found.push(violation.to_string())).unwrap();
    found
}

fn compacted_at<T>(answer: Result<T, ReadError>) -> Revision {
    match answer {
        Err(ReadError::Compacted { compacted, .. }) => compacted,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was answered"),
    }
}

#[test]
fn a_store_restored_above_its_revision_keeps_its_past_and_knows_nothing_between() {
    let sample = Sample::new(50);
    let dir = bumped(&sample, "bumped", Bump { revisions: 1_000, mark_compacted: false });
    let (last, until) = (Revision(51), Revision(1_051));
    let store = Store::open(&dir, options()).unwrap();
    assert_eq!(store.current_revision().unwrap(), until);
    let watch = |from| store.watch(WatchRequest { from, ..watch_all() });
    let view = store.read_view().unwrap();
    for lost in [Revision(52), Revision(500), Revision(1_049)] {
        assert_eq!(compacted_at(view.get(lost, b"/a/000003", false)), until);
        assert_eq!(compacted_at(watch(lost.next()).map(drop)), until);
    }
    for there in [Revision(10), last, until] {
        view.get(there, b"/a/000003", false).unwrap();
        watch(there).map(drop).unwrap();
        watch(there.next()).map(drop).unwrap();
        let time = view.stamp(there).unwrap().time;
        assert!(view.stamp(view.revision_at(time).unwrap()).unwrap().time <= time);
    }
    let changes = |newest_first| {
        let ranges = vec![KeyRange::From(Bytes::new())];
        let (from, to) = (Revision(1), Revision::NONE);
        let (limit, scan_limit, keys_only) = (0, 0, true);
        let query = ChangesQuery { ranges, from, to, newest_first, limit, scan_limit, keys_only };
        view.changes(&query).unwrap().revisions.len()
    };
    assert_eq!((changes(false), changes(true)), (50, 50));
    drop(view);
    for index in 51..54 {
        put(&store, index, 3);
    }
    assert_eq!(store.current_revision().unwrap(), Revision(1_054));
    assert_eq!(count(&store, "/a/"), 53);
    // Forgotten at a revision that never was, and once more behind it.
    compact(&store, 54, Revision(700));
    assert_eq!(store.read_view().unwrap().compacted(), last);
    store.close().unwrap();
    drop(store);
    assert_eq!(violations(&dir), Vec::<String>::new());
    let store = Store::open(&dir, options()).unwrap();
    compact(&store, 55, Revision(1_052));
    assert!(store.wait_compacted(Revision(1_052), Duration::from_secs(60)).unwrap());
    store.read_view().unwrap().verify().unwrap();
    store.close().unwrap();
    drop(store);
    assert_eq!(violations(&dir), Vec::<String>::new());
}

#[test]
fn a_store_restored_as_compacted_shows_what_lived_and_nothing_before() {
    let sample = Sample::new(50);
    let dir = bumped(&sample, "bumped", Bump { revisions: 1_000, mark_compacted: true });
    let store = Store::open(&dir, options()).unwrap();
    let until = Revision(1_051);
    let view = store.read_view().unwrap();
    for gone in [Revision(10), Revision(51), Revision(1_050)] {
        assert_eq!(compacted_at(view.get(gone, b"/a/000003", false)), until);
        let watch = WatchRequest { from: gone, ..watch_all() };
        assert_eq!(compacted_at(store.watch(watch).map(drop)), until);
    }
    drop(view);
    assert!(store.wait_compacted(until, Duration::from_secs(60)).unwrap());
    assert_eq!(count(&store, "/a/"), 50);
    put(&store, 51, 3);
    store.close().unwrap();
    drop(store);
    assert_eq!(violations(&dir), Vec::<String>::new());
    let error = Bump { revisions: u64::MAX, mark_compacted: true }.above(until).unwrap_err();
    assert!(error.to_string().contains("cannot be raised"), "{error}");
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
    let error = restore_backup(&path, &restored, &options(), Bump::default(), position, &mut go_on)
        .unwrap_err();
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
