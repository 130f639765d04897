//! A full disk keeps every change, says so, and goes on when space returns.

use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::Duration;

use bytes::Bytes;
use revfs_store::types::{Op, Revision, Time};
use revfs_store::{Health, Position, Store, StoreError, StoreOptions};

use crate::scenario::command;

/// A file system of a few MiB in memory, or `None` where this process may not mount.
struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    fn mount(path: &Path) -> Self {
        let mut mount = Process::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=6m", "small-disk"]).arg(path);
        let is_mounted = mount.output().is_ok_and(|output| output.status.success());
        assert!(is_mounted, "{mount:?} failed: run this test as root, who may mount a tmpfs");
        Self { path: path.to_path_buf() }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Process::new("umount").arg(&self.path).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays", self.path.display());
    }
}

fn put(store: &Store, index: u64, bytes: usize) {
    let position = Position { index, term: 1, raft: Bytes::new() };
    let op = Op::put(format!("/file{index}"), vec![b'x'; bytes]);
    store.apply(position, &command(vec![op], Time(1))).unwrap().result.unwrap();
}

fn check(store: &Store, count: u64, bytes: usize) {
    let view = store.read_view().unwrap();
    for index in 1..=count {
        let key = format!("/file{index}");
        let kv = view.get(Revision::NONE, key.as_bytes(), false).unwrap().unwrap();
        assert_eq!(kv.value.len(), bytes);
    }
}

fn options() -> StoreOptions {
    StoreOptions {
        map_bytes: 1 << 30,
        retry_interval: Duration::from_millis(20),
        ..StoreOptions::default()
    }
}

fn fill_and_free(dir: &Path, fill: impl Fn(), free: impl Fn()) {
    const VALUE_BYTES: usize = 100_000;
    let store = Store::create(&dir.join("store-1"), options()).unwrap();
    for index in 1..=10 {
        put(&store, index, VALUE_BYTES);
    }
    let committed = store.commit().unwrap();
    fill();
    for index in 11..=30 {
        put(&store, index, VALUE_BYTES);
    }
    let error = store.commit().unwrap_err();
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
    assert!(matches!(store.health(), Health::NoSpace { .. }));
    assert_eq!(store.committed(), committed);
    // Reads and apply go on from the overlay.
    put(&store, 31, VALUE_BYTES);
    check(&store, 31, VALUE_BYTES);
    free();
    let mut last = store.commit();
    while matches!(last, Err(StoreError::NoSpace { .. })) {
        last = store.commit();
    }
    assert_eq!(last.unwrap().index, 31);
    assert_eq!(store.health(), Health::Good);
    store.close().unwrap();
    drop(store);
    let store = Store::open(&dir.join("store-1"), options()).unwrap();
    check(&store, 31, VALUE_BYTES);
    store.read_view().unwrap().verify().unwrap();
}

#[test]
fn a_full_disk_refuses_the_commit_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let _disk = SmallDisk::mount(dir.path());
    let ballast = dir.path().join("ballast");
    let fill = || {
        let written = std::fs::write(&ballast, vec![0; 16 << 20]);
        assert!(written.is_err(), "the disk is smaller than that");
    };
    fill_and_free(dir.path(), fill, || std::fs::remove_file(&ballast).unwrap());
}

/// The map's end is a full disk of LMDB's own, and needs no mount.
#[test]
fn a_full_map_refuses_the_commit_and_the_overlay_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let small = StoreOptions { map_bytes: 1 << 20, ..options() };
    let store = Store::create(dir.path(), small).unwrap();
    put(&store, 1, 10_000);
    let committed = store.commit().unwrap();
    for index in 2..=150 {
        put(&store, index, 10_000);
    }
    assert!(matches!(store.commit(), Err(StoreError::NoSpace { .. })));
    check(&store, 150, 10_000);
    assert_eq!(store.committed(), committed);
    // Closing keeps what was committed; the rest is in the log.
    assert!(store.close().is_err());
    drop(store);
    let store = Store::open(dir.path(), options()).unwrap();
    assert_eq!(store.applied(), committed);
    check(&store, 1, 10_000);
}
