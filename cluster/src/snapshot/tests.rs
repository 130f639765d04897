//! A copy is received in pieces, checked, and put into use; and what a crash leaves at each moment.

use std::fs;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use revfs_store::types::{Author, Op, Revision, Time, Txn};
use revfs_store::{BackupOptions, Body, Command, Position, Store, StoreOptions};
use tempfile::TempDir;

use super::{Incoming, Received, Snapshots, open_log};
use crate::config::NodeConfig;
use crate::data_dir::{DataDir, Identity};
use crate::log::{Entry, Log, LogId, LogOptions};

const TERM: u64 = 3;

fn options() -> StoreOptions {
    StoreOptions { map_bytes: 1 << 30, ..StoreOptions::default() }
}

fn log_options() -> LogOptions {
    LogOptions { segment_bytes: 64 << 10, ..LogOptions::default() }
}

fn fill(store: &Store, entries: u64) {
    for index in store.applied().index + 1..=entries {
        let success = vec![Op::put(format!("/k/{index}"), vec![b'v'; 1_000])];
        let body = Body::Txn(Txn { success, ..Txn::default() });
        let command = Command { time: Time(1), author: Author::default(), note: "".into(), body };
        let position = Position { index, term: TERM, raft: "raft".into() };
        store.apply(position, &command).unwrap();
    }
}

/// The bytes that a member would send.
fn copy_of(entries: u64) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(&dir.path().join("store"), options()).unwrap();
    fill(&store, entries);
    let path = dir.path().join("copy");
    let mut file = fs::File::options();
    let mut file = file.read(true).write(true).create_new(true).open(&path).unwrap();
    let quick = BackupOptions { pause: Duration::ZERO, ..BackupOptions::default() };
    store.backup(&mut file, &quick, &mut |_| ControlFlow::Continue(())).unwrap();
    fs::read(path).unwrap()
}

fn receive(data_dir: &DataDir, copy: &[u8]) -> Received {
    let mut incoming = Incoming::begin(data_dir).unwrap();
    for piece in copy.chunks(10_000) {
        incoming.add(piece).unwrap();
    }
    assert_eq!(incoming.bytes(), u64::try_from(copy.len()).unwrap());
    incoming.finish().unwrap()
}

fn id(index: u64) -> LogId {
    LogId { term: TERM, index }
}

/// A member with ten entries, all in its store.
struct Member {
    _directory: TempDir,
    snapshots: Snapshots,
}

impl Member {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = DataDir::hold(directory.path()).unwrap();
        let layout = data_dir.begin_creation(Identity::random().unwrap()).unwrap();
        drop(Store::create(&layout.store, options()).unwrap());
        Log::create(&layout.log, &log_options()).unwrap();
        data_dir.finish_creation(layout.identity).unwrap();
        let member = Self { snapshots: open(Arc::new(data_dir)), _directory: directory };
        let entries = (1..=10).map(|index| Entry { id: id(index), kind: 1, payload: "".into() });
        let (done, answer) = std::sync::mpsc::channel();
        let done = move |result| done.send(result).unwrap();
        member.snapshots.log.append(entries.collect(), Box::new(done));
        answer.recv().unwrap().unwrap();
        fill(&member.snapshots.store, 10);
        member.snapshots.store.commit().unwrap();
        member
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.snapshots.data_dir.path).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> =
            entries.map(|entry| name(entry).to_str().unwrap().to_owned()).collect();
        names.retain(|name| name.starts_with("store-") || name.starts_with("incoming-"));
        names.sort();
        names
    }

    /// Stops as a crash would, and starts again.
    fn crash(self) -> Self {
        let Self { _directory, snapshots } = self;
        let Snapshots { data_dir, store, log, copies, .. } = snapshots;
        // The store commits nothing as it is dropped: everything is.
        drop((store, log, copies));
        let held = Arc::into_inner(data_dir).unwrap();
        drop(held);
        let data_dir = DataDir::hold(_directory.path()).unwrap();
        Self { snapshots: open(Arc::new(data_dir)), _directory }
    }

    fn check(&self, entries: u64) {
        let Snapshots { data_dir, store, log, .. } = &self.snapshots;
        assert_eq!(store.applied().index, entries);
        assert_eq!(store.read_view().unwrap().current(), Revision(entries + 1));
        assert_eq!(log.state().last, Some(id(entries)));
        assert_eq!(data_dir.layout().unwrap().unwrap().installed, None);
        let next = Entry { id: id(entries + 1), kind: 1, payload: "".into() };
        let (done, answer) = std::sync::mpsc::channel();
        log.append(vec![next], Box::new(move |result| done.send(result).unwrap()));
        answer.recv().unwrap().unwrap();
    }
}

/// As a node does it.
fn open(data_dir: Arc<DataDir>) -> Snapshots {
    let layout = data_dir.layout().unwrap().unwrap();
    data_dir.remove_leftovers(&layout).unwrap();
    let store = Store::open(&layout.store, options()).unwrap();
    let committed = store.committed();
    let committed = (committed.index > 0).then_some(id(committed.index));
    let log = open_log(&data_dir, &layout, log_options(), committed).unwrap();
    let config = NodeConfig::new(&data_dir.path);
    Snapshots::new((data_dir, Arc::new(store), Arc::new(log)), &config)
}

#[test]
fn a_received_copy_becomes_the_store_and_the_log_follows() {
    let member = Member::new();
    let received = receive(&member.snapshots.data_dir, &copy_of(300));
    assert_eq!(received.summary.position.index, 300);
    member.snapshots.install(received, id(300)).unwrap();
    member.check(300);
    let member = member.crash();
    assert_eq!(member.snapshots.log.state().purged, Some(id(300)));
    assert_eq!(member.files(), ["store-2"]);
}

#[test]
fn a_crash_while_a_copy_comes_leaves_nothing_of_it() {
    let member = Member::new();
    let copy = copy_of(300);
    let mut incoming = Incoming::begin(&member.snapshots.data_dir).unwrap();
    incoming.add(&copy[..copy.len() / 2]).unwrap();
    let received = receive(&member.snapshots.data_dir, &copy);
    assert_eq!(member.files(), ["incoming-2", "store-1", "store-3"]);
    // A crash drops nothing.
    std::mem::forget((incoming, received));
    let member = member.crash();
    assert_eq!(member.files(), ["store-1"]);
    member.check(10);
}

#[test]
fn a_crash_after_the_switch_finds_the_copy_and_a_log_that_follows() {
    let member = Member::new();
    let received = receive(&member.snapshots.data_dir, &copy_of(300));
    let dir = member.snapshots.data_dir.path.join("store-2");
    member.snapshots.data_dir.use_store(&dir, Some(id(300))).unwrap();
    std::mem::forget(received);
    let member = member.crash();
    assert_eq!(member.files(), ["store-2"]);
    member.check(300);
    member.crash().snapshots.store.read_view().unwrap().verify().unwrap();
}

#[test]
fn what_is_given_up_is_removed() {
    let member = Member::new();
    let copy = copy_of(300);
    let mut half = Incoming::begin(&member.snapshots.data_dir).unwrap();
    half.add(&copy[..copy.len() / 2]).unwrap();
    drop(half);
    let mut damaged = copy.clone();
    damaged[copy.len() / 2] ^= 1;
    let mut incoming = Incoming::begin(&member.snapshots.data_dir).unwrap();
    incoming.add(&damaged).unwrap();
    incoming.finish().unwrap_err();
    drop(receive(&member.snapshots.data_dir, &copy));
    assert_eq!(member.files(), ["store-1"]);
    member.check(10);
}
