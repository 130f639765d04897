//! The shortest way through the store: put, read, close, open, read.

use bytes::Bytes;
use revfs_store::types::{Author, Op, Revision, Time, Txn};
use revfs_store::{Body, Command, Position, Store, StoreOptions};

fn put(key: &'static str, value: &'static str, time: i64) -> Command {
    Command {
        time: Time(time),
        author: Author::default(),
        note: Bytes::new(),
        body: Body::Txn(Txn { success: vec![Op::put(key, value)], ..Txn::default() }),
    }
}

#[test]
fn what_was_put_is_read_before_and_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), StoreOptions::default()).unwrap();
    for index in 1..=3 {
        let position = Position { index, term: 1, raft: Bytes::from_static(b"raft") };
        let outcome = store.apply(position, &put("/a", "x", 7)).unwrap();
        assert_eq!(outcome.revision, Revision(index + 1));
    }
    let check = |store: &Store| {
        let view = store.read_view().unwrap();
        let kv = view.get(Revision::NONE, b"/a", false).unwrap().unwrap();
        assert_eq!((kv.version, kv.mod_revision, &kv.value[..]), (3, Revision(4), &b"x"[..]));
        assert_eq!(view.get(Revision(2), b"/a", false).unwrap().unwrap().version, 1);
        assert_eq!(view.get(Revision(1), b"/a", false).unwrap(), None);
        assert_eq!(view.directory(Revision::NONE, b"/").unwrap().names, 1);
        assert_eq!(store.applied().index, 3);
    };
    check(&store);
    store.close().unwrap();
    drop(store);
    let store = Store::open(dir.path(), StoreOptions::default()).unwrap();
    check(&store);
    assert_eq!(store.committed().raft, Bytes::from_static(b"raft"));
}
