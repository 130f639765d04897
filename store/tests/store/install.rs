//! A store goes on with a copy of another's, under readers and watchers: they see the old state or the
//! new one, and nothing that is a mix or goes back.

use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use revfs_store::types::{Author, KeyRange, Op, Revision, Time};
use revfs_store::{
    BackupOptions, Body, Command, Health, InstallError, ReadError, Store, StoreError, WatchRequest,
    Watcher, adopt_backup,
};
use tempfile::TempDir;

use crate::concurrent::{KEYS, check_view, options, position, read};
use crate::scenario::command;
use crate::watch::{next, poll, wait_until};

/// At revision `n + 1` every key holds `n`, whichever of the two stores is asked.
fn put(main: u64) -> Command {
    let value = Bytes::from(main.to_string());
    let ops = (0..KEYS).map(|n| Op::put(format!("/k/{n}"), value.clone())).collect();
    command(ops, Time(1))
}

fn compact(main: u64) -> Command {
    let body = Body::Compact { revision: Revision(main) };
    Command { time: Time(1), author: Author::default(), note: Bytes::new(), body }
}

/// The log that both stores apply.
#[derive(Default)]
struct History {
    entries: Vec<Command>,
    revision: u64,
}

impl History {
    fn put(&mut self, count: u64) {
        for _ in 0..count {
            self.revision = self.revision.max(1) + 1;
            self.entries.push(put(self.revision));
        }
    }

    fn compact(&mut self, back: u64) {
        self.entries.push(compact(self.revision - back));
    }

    fn apply(&self, store: &Store) {
        let done = usize::try_from(store.applied().index).unwrap();
        for (at, command) in self.entries.iter().enumerate().skip(done) {
            let index = u64::try_from(at).unwrap() + 1;
            store.apply(position(index), command).unwrap().result.unwrap();
        }
    }
}

/// A leader's store, and a follower's in directories of its own.
struct Rig {
    dir: TempDir,
    history: History,
    leader: Store,
    follower: Store,
    number: u64,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let leader = Store::create(&dir.path().join("leader"), options()).unwrap();
        let follower = Store::create(&dir.path().join("store-1"), options()).unwrap();
        Self { dir, history: History::default(), leader, follower, number: 1 }
    }

    fn store_dir(&self, number: u64) -> PathBuf {
        self.dir.path().join(format!("store-{number}"))
    }

    /// A copy of the leader's store, ready to be installed.
    fn copy(&mut self) -> PathBuf {
        self.history.apply(&self.leader);
        self.number += 1;
        let dir = self.store_dir(self.number);
        adopt(&self.leader, &self.dir.path().join("received"), &dir);
        dir
    }

    fn install(&mut self) {
        let dir = self.copy();
        let position = self.follower.install(&dir, || Ok(())).unwrap();
        assert_eq!(position, self.leader.applied());
        assert_eq!(self.follower.applied(), position);
        assert_eq!(self.follower.committed(), position);
    }

    fn check_same(&self) {
        let hash = |store: &Store| store.hash_kv(Revision::NONE).unwrap();
        assert_eq!(hash(&self.leader), hash(&self.follower));
        let own = |store: &Store| store.own_hash().unwrap();
        assert_eq!(own(&self.leader), own(&self.follower));
    }

    fn watch(&self, from: u64) -> Watcher {
        let ranges = vec![KeyRange::prefix(b"/k/")];
        let request = WatchRequest { ranges, from: Revision(from), ..WatchRequest::default() };
        self.follower.watch(request).unwrap()
    }
}

fn adopt(from: &Store, received: &Path, dir: &Path) {
    let mut file = File::options();
    let mut file = file.read(true).write(true).create(true).truncate(true).open(received).unwrap();
    let quick = BackupOptions { pause: Duration::ZERO, ..BackupOptions::default() };
    let mut go_on = |_| ControlFlow::Continue(());
    let made = from.backup(&mut file, &quick, &mut go_on).unwrap();
    drop(file);
    assert_eq!(adopt_backup(received, dir, &mut go_on).unwrap(), made);
    assert!(!received.exists());
}

fn expect(watcher: &mut Watcher, revisions: impl Iterator<Item = u64>) {
    for main in revisions {
        let found = next(watcher).unwrap();
        assert_eq!(found.stamp.revision, Revision(main));
        assert_eq!(found.events.len(), KEYS, "at {main}");
    }
    assert!(poll(watcher).is_none());
}

#[test]
fn readers_beside_installs_see_the_old_state_or_the_new() {
    let mut rig = Rig::new();
    let done = AtomicBool::new(false);
    rig.history.put(20);
    rig.history.apply(&rig.follower);
    std::thread::scope(|scope| {
        // A store is behind no reference that they could lose: it is the same one all the time.
        let follower = &rig.follower;
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(|| read(follower, &done))).collect();
        for round in 0..30 {
            rig.history.put(40);
            if round % 3 == 0 {
                rig.history.compact(25);
            }
            // Some entries are applied, and of these some are in the overlay only.
            let skipped = rig.history.entries.split_off(rig.history.entries.len() - 10);
            rig.history.apply(follower);
            rig.history.entries.extend(skipped);
            rig.history.apply(&rig.leader);
            rig.number += 1;
            let dir = rig.dir.path().join(format!("store-{}", rig.number));
            adopt(&rig.leader, &rig.dir.path().join("received"), &dir);
            assert_eq!(follower.install(&dir, || Ok(())).unwrap(), rig.leader.applied());
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
    rig.check_same();
    // Apply goes on where the copy stands.
    rig.history.put(5);
    rig.history.apply(&rig.leader);
    rig.history.apply(&rig.follower);
    rig.check_same();
    rig.follower.read_view().unwrap().verify().unwrap();
    for number in 1..rig.number {
        wait_until("replaced stores are removed", || !rig.store_dir(number).exists());
    }
}

#[test]
fn a_view_reads_on_in_the_store_that_it_was_taken_from() {
    let mut rig = Rig::new();
    rig.history.put(30);
    rig.history.apply(&rig.follower);
    let mut view = rig.follower.read_view().unwrap();
    rig.history.put(30);
    rig.history.compact(0);
    rig.install();
    for _ in 0..2 {
        assert_eq!(view.current(), Revision(31));
        check_view(&view, Revision::NONE).unwrap();
        check_view(&view, Revision(12)).unwrap();
        view.renew().unwrap();
    }
    let fresh = rig.follower.read_view().unwrap();
    assert_eq!(fresh.current(), Revision(61));
    assert!(matches!(check_view(&fresh, Revision(12)), Err(ReadError::Compacted { .. })));
    assert!(rig.store_dir(1).exists());
    drop(view);
    wait_until("the directory goes with its last reader", || !rig.store_dir(1).exists());
    check_view(&fresh, Revision::NONE).unwrap();
}

#[test]
fn watchers_go_on_over_an_install() {
    let mut rig = Rig::new();
    rig.history.put(10);
    rig.history.apply(&rig.follower);
    let mut synced = rig.watch(0);
    let mut idle = rig.watch(0);
    let mut behind = rig.watch(3);
    expect(&mut behind, 3..=11);
    let mut in_the_future = rig.watch(25);
    rig.history.put(20);
    rig.install();
    expect(&mut synced, 12..=31);
    expect(&mut behind, 12..=31);
    expect(&mut in_the_future, 25..=31);
    let mut from_the_past = rig.watch(2);
    expect(&mut from_the_past, 2..=31);
    rig.history.put(2);
    rig.history.apply(&rig.follower);
    expect(&mut synced, 32..=33);
    // What it has not taken is in its buffer, and again no gap behind it.
    rig.history.put(2);
    rig.install();
    expect(&mut idle, 12..=35);
    wait_until("all are in the present", || rig.follower.watch_stats().synced == 5);
    assert!(synced.progress() >= Revision(33));
}

#[test]
fn a_watcher_ends_where_the_copy_has_compacted_what_it_lacks() {
    let mut rig = Rig::new();
    rig.history.put(10);
    rig.history.apply(&rig.follower);
    let mut watcher = rig.watch(0);
    rig.history.put(20);
    rig.history.compact(5);
    rig.install();
    let compacted = Revision(26);
    let error = next(&mut watcher).unwrap_err();
    assert_eq!(error, ReadError::Compacted { requested: Revision(12), compacted });
    expect(&mut rig.watch(26), 26..=31);
}

#[test]
fn a_crash_leaves_the_directory_that_is_named() {
    for is_switched in [false, true] {
        let mut rig = Rig::new();
        rig.history.put(10);
        rig.history.apply(&rig.follower);
        rig.follower.commit().unwrap();
        rig.history.put(10);
        let dir = rig.copy();
        let current = rig.dir.path().join("CURRENT");
        fs::write(&current, "store-1").unwrap();
        let switch = || {
            if is_switched {
                fs::write(&current, dir.file_name().unwrap().to_str().unwrap())?;
            }
            Err(io::Error::other("the machine stops here"))
        };
        let error = rig.follower.install(&dir, switch).unwrap_err();
        assert!(matches!(error, InstallError::Switch { .. }), "{error}");
        // Nobody knows which of the two is named: nothing is answered any more.
        assert!(matches!(rig.follower.health(), Health::Closed { .. }));
        assert!(matches!(rig.follower.read_view(), Err(StoreError::Closed { .. })));
        rig.follower.abandon();
        let named = rig.dir.path().join(fs::read_to_string(&current).unwrap());
        rig.follower = Store::open(&named, options()).unwrap();
        assert_eq!(rig.follower.applied().index, if is_switched { 20 } else { 10 });
        rig.history.apply(&rig.follower);
        rig.check_same();
    }
}

#[test]
fn a_copy_that_is_behind_is_refused_and_nothing_has_happened() {
    let mut rig = Rig::new();
    rig.history.put(10);
    let dir = rig.copy();
    rig.history.put(1);
    rig.history.apply(&rig.follower);
    let switch = || panic!("an older copy is never switched to");
    let error = rig.follower.install(&dir, switch).unwrap_err();
    let InstallError::Older { found: 10, applied: 11, .. } = error else { panic!("{error}") };
    rig.history.put(5);
    rig.history.apply(&rig.follower);
    rig.follower.commit().unwrap();
    rig.history.apply(&rig.leader);
    rig.check_same();
}

#[test]
fn a_damaged_copy_is_not_adopted() {
    let mut rig = Rig::new();
    rig.history.put(50);
    rig.history.apply(&rig.leader);
    let received = rig.dir.path().join("received");
    let mut file = File::options();
    let mut file = file.read(true).write(true).create(true).truncate(true).open(&received).unwrap();
    let mut go_on = |_| ControlFlow::Continue(());
    rig.leader.backup(&mut file, &BackupOptions::default(), &mut go_on).unwrap();
    let whole = fs::read(&received).unwrap();
    for (at, length) in [(20_000, whole.len()), (whole.len() - 40, whole.len()), (0, 9_000)] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        damaged.truncate(length);
        fs::write(&received, &damaged).unwrap();
        let error = adopt_backup(&received, &rig.store_dir(2), &mut go_on).unwrap_err();
        assert!(!rig.store_dir(2).exists(), "{error}");
    }
    fs::write(&received, &whole).unwrap();
    adopt_backup(&received, &rig.store_dir(2), &mut go_on).unwrap();
}
