//! What the scenario of uploads cannot say: bounds of size, the hash, and the way through a backup.

use std::fs::File;
use std::ops::ControlFlow;

use bytes::Bytes;
use revfs_store::types::{LeaseId, Op, Revision, TXN_ROWS_MAX, Time, VALUE_BYTES_MAX};
use revfs_store::{
    BackupOptions, Body, Bump, Command, Done, Position, Refusal, Store, StoreOptions,
    UPLOAD_PART_BYTES_MAX, UploadCommit, restore_backup,
};

use crate::scenario::command;

const UPLOAD: LeaseId = LeaseId(7);

fn options() -> StoreOptions {
    StoreOptions { map_bytes: 1 << 30, ..StoreOptions::default() }
}

fn apply(store: &Store, body: Body) -> Result<Done, Refusal> {
    let index = store.applied().index + 1;
    let command = Command { body, ..command(Vec::new(), Time(1)) };
    store.apply(Position { index, term: 1, raft: Bytes::new() }, &command).unwrap().result
}

fn send(store: &Store, part: u32, ops: Vec<Op>) -> Result<Done, Refusal> {
    apply(store, Body::UploadPart { upload: UPLOAD, part, ops })
}

fn begin(directory: &std::path::Path) -> Store {
    let store = Store::create(directory, options()).unwrap();
    apply(&store, Body::LeaseGrant { id: UPLOAD, ttl_seconds: 60 }).unwrap();
    store
}

#[test]
fn what_is_too_much_is_refused_with_the_part_that_brings_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = begin(directory.path());
    let value = Bytes::from(vec![0; VALUE_BYTES_MAX]);
    let ops = |bytes: usize| vec![Op::put("/a", value.clone()), Op::put("/b", vec![0; bytes])];
    assert_eq!(send(&store, 0, ops(1 << 19)), Ok(Done::UploadKept { parts: 1 }));
    let refused = send(&store, 1, ops(1 << 20)).unwrap_err();
    let max = UPLOAD_PART_BYTES_MAX;
    assert!(matches!(refused, Refusal::UploadPartTooLarge { max: found, .. } if found == max));
    let deletes = |count: usize| vec![Op::delete("/x"); count];
    assert_eq!(send(&store, 1, deletes(60_000)), Ok(Done::UploadKept { parts: 2 }));
    let too_many = Err(Refusal::TooManyRows { max: TXN_ROWS_MAX });
    assert_eq!(send(&store, 2, deletes(39_999)), too_many);
    assert_eq!(send(&store, 2, deletes(39_998)), Ok(Done::UploadKept { parts: 3 }));
    assert_eq!(send(&store, 3, deletes(1)), too_many);
    let uploads = store.read_view().unwrap().uploads().unwrap();
    assert_eq!((uploads[0].1.parts, uploads[0].1.operations), (3, 100_000));
}

#[test]
fn parts_are_in_our_own_hash_alone_and_a_backup_carries_them() {
    let directory = tempfile::tempdir().unwrap();
    let store = begin(&directory.path().join("store"));
    let (own, kv) = (store.own_hash().unwrap().hash, store.hash_kv(Revision::NONE).unwrap());
    send(&store, 0, vec![Op::put("/a", "1")]).unwrap();
    assert_ne!(store.own_hash().unwrap().hash, own);
    assert_eq!(store.hash_kv(Revision::NONE).unwrap(), kv);
    let path = directory.path().join("backup");
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    let mut go_on = |_| ControlFlow::Continue(());
    store.backup(&mut file, &BackupOptions::default(), &mut go_on).unwrap();
    store.close().unwrap();

    let restored = directory.path().join("restored");
    let position = |_: &Position| Ok(Bytes::new());
    restore_backup(&path, &restored, &options(), Bump::default(), position, &mut go_on).unwrap();
    let store = Store::open(&restored, options()).unwrap();
    assert_eq!(store.read_view().unwrap().uploads().unwrap().len(), 1);
    let commit =
        UploadCommit { upload: UPLOAD, parts: 1, compares: Vec::new(), failure: Vec::new() };
    assert!(
        matches!(apply(&store, Body::UploadCommit(commit)), Ok(Done::Txn(answer)) if answer.changed)
    );
    let view = store.read_view().unwrap();
    assert_eq!(view.uploads().unwrap(), []);
    let found = view.get(Revision::NONE, b"/a", false).unwrap().unwrap();
    assert_eq!((found.value, found.mod_revision), (Bytes::from_static(b"1"), Revision(2)));
}
