//! Users and roles beyond the scenarios: what survives, what a view shows, what each need asks for.

use std::ops::ControlFlow;

use bytes::Bytes;
use revfs_store::types::{KeyRange, LeaseId, Op, Time, Txn};
use revfs_store::{
    Access, Alarm, AlarmKind, AuthChange, AuthRefusal, BackupOptions, Body, Bump, Command, Done,
    NAME_BYTES_MAX, Need, PasswordHash, Permission, Position, ReadError, ReadView, Refusal, Store,
    StoreOptions, TokenSecret, restore_backup,
};

use crate::scenario::command;

fn options() -> StoreOptions {
    StoreOptions { map_bytes: 1 << 28, ..StoreOptions::default() }
}

fn apply(store: &Store, body: Body) -> Result<Done, Refusal> {
    let index = store.applied().index + 1;
    let command = Command { body, ..command(Vec::new(), Time(1)) };
    store.apply(Position { index, term: 1, raft: Bytes::new() }, &command).unwrap().result
}

fn change(store: &Store, change: AuthChange) {
    apply(store, Body::Auth(change)).unwrap();
}

fn put(key: &'static str) -> Body {
    Body::Txn(Txn { success: vec![Op::put(key, "x")], ..Txn::default() })
}

fn ask(store: &Store, user: &str, body: Body) -> Result<Done, Refusal> {
    let auth_revision = store.read_view().unwrap().auth().revision();
    let (user, body) = (user.to_owned(), Box::new(body));
    apply(store, Body::Request { user, auth_revision, body })
}

fn may(view: &ReadView, user: &str, need: Need<'_>) -> bool {
    match view.authorise(user, view.auth().revision(), need) {
        Ok(()) => true,
        Err(ReadError::Refused(Refusal::Auth(AuthRefusal::PermissionDenied))) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Root, and alice, who may read and write below `/a/`; enabled.
fn set_up(store: &Store) {
    let (root, alice, app) = ("root".to_owned(), "alice".to_owned(), "app".to_owned());
    let password = || Some(PasswordHash(Bytes::from_static(b"hash")));
    change(store, AuthChange::UserAdd { name: root.clone(), password: password() });
    change(store, AuthChange::UserGrantRole { name: root.clone(), role: root });
    change(store, AuthChange::UserAdd { name: alice.clone(), password: password() });
    change(store, AuthChange::RoleAdd { name: app.clone() });
    let permission =
        Permission { key: "/a/".into(), range_end: "/a0".into(), access: Access::ReadWrite };
    change(store, AuthChange::RoleGrantPermission { name: app.clone(), permission });
    change(store, AuthChange::UserGrantRole { name: alice, role: app });
    change(store, AuthChange::Enable { token_secret: TokenSecret([5; 32]) });
}

const DENIED: Result<Done, Refusal> = Err(Refusal::Auth(AuthRefusal::PermissionDenied));

#[test]
fn users_and_roles_survive_a_restart_and_a_backup_and_count_in_the_hash() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), options()).unwrap();
    let empty = store.own_hash().unwrap().hash;
    set_up(&store);
    let hash = store.own_hash().unwrap().hash;
    assert_ne!(hash, empty);
    let backup = dir.path().join("backup");
    let mut file = std::fs::File::options();
    let mut file = file.read(true).write(true).create(true).truncate(true).open(&backup).unwrap();
    let mut go_on = |_| ControlFlow::Continue(());
    store.backup(&mut file, &BackupOptions::default(), &mut go_on).unwrap();
    change(&store, AuthChange::RoleDelete { name: "app".to_owned() });
    assert_ne!(store.own_hash().unwrap().hash, hash);
    store.close().unwrap();
    drop(store);
    let store = Store::open(dir.path(), options()).unwrap();
    assert_eq!(ask(&store, "alice", put("/a/x")), DENIED);
    drop(store);
    let restored = dir.path().join("restored");
    let position = |position: &Position| Ok(position.raft.clone());
    restore_backup(&backup, &restored, &options(), Bump::default(), position, &mut go_on).unwrap();
    let store = Store::open(&restored, options()).unwrap();
    assert_eq!(store.own_hash().unwrap().hash, hash);
    ask(&store, "alice", put("/a/x")).unwrap();
    assert_eq!(ask(&store, "alice", put("/b")), DENIED);
}

#[test]
fn a_read_is_authorised_by_the_users_and_roles_of_the_view_that_answers_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), options()).unwrap();
    set_up(&store);
    let before = store.read_view().unwrap();
    let range = KeyRange::prefix(b"/a/");
    change(&store, AuthChange::RoleDelete { name: "app".to_owned() });
    ask(&store, "root", put("/a/secret")).unwrap();
    assert!(may(&before, "alice", Need::Read(&range)));
    assert_eq!(before.get(before.current(), b"/a/secret", false).unwrap(), None);
    let mut after = store.read_view().unwrap();
    assert!(!may(&after, "alice", Need::Read(&range)));
    let stale = after.authorise("alice", before.auth().revision(), Need::Read(&range));
    assert_eq!(stale, Err(ReadError::Refused(Refusal::Auth(AuthRefusal::OldRevision))));
    drop(before);
    change(&store, AuthChange::Disable);
    assert!(!may(&after, "alice", Need::Root));
    after.renew().unwrap();
    assert!(may(&after, "alice", Need::Root));
}

#[test]
fn each_need_asks_for_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), options()).unwrap();
    set_up(&store);
    apply(&store, Body::LeaseGrant { id: LeaseId(1), ttl_seconds: 60 }).unwrap();
    apply(&store, Body::LeaseGrant { id: LeaseId(2), ttl_seconds: 60 }).unwrap();
    for (key, lease) in [("/a/1", 1), ("/b/1", 2)] {
        let put = Op::Put {
            key: key.into(),
            value: Bytes::new(),
            lease: LeaseId(lease),
            prev_kv: false,
            ignore_value: false,
            ignore_lease: false,
        };
        apply(&store, Body::Txn(Txn { success: vec![put], ..Txn::default() })).unwrap();
    }
    let view = store.read_view().unwrap();
    let (own, other) = (KeyRange::prefix(b"/a/"), KeyRange::prefix(b"/"));
    for (need, expected) in [
        (Need::User, true),
        (Need::Read(&own), true),
        (Need::Read(&other), false),
        (Need::Write(&own), true),
        (Need::Write(&other), false),
        (Need::ReadLease(LeaseId(1)), true),
        (Need::ReadLease(LeaseId(2)), false),
        (Need::ReadLease(LeaseId(3)), true),
        (Need::WriteLease(LeaseId(1)), true),
        (Need::WriteLease(LeaseId(2)), false),
        (Need::UserOf("alice"), true),
        (Need::UserOf("root"), false),
        (Need::RoleOf("app"), true),
        (Need::RoleOf("root"), false),
        (Need::Root, false),
    ] {
        assert_eq!(may(&view, "alice", need), expected, "{need:?}");
        assert!(may(&view, "root", need), "{need:?}");
        assert!(!may(&view, "nobody", need), "{need:?}");
    }
}

#[test]
fn users_may_be_changed_under_an_alarm_and_an_alarm_only_by_root() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), options()).unwrap();
    set_up(&store);
    for kind in [AlarmKind::NoSpace, AlarmKind::Corrupt] {
        let alarm = |is_raised| Body::Alarm { alarm: Alarm { member: 7, kind }, is_raised };
        assert_eq!(ask(&store, "alice", alarm(true)), DENIED);
        ask(&store, "root", alarm(true)).unwrap();
        let full = match kind {
            AlarmKind::NoSpace => Refusal::NoSpace,
            AlarmKind::Corrupt => Refusal::Corrupt,
        };
        assert_eq!(ask(&store, "root", put("/a/x")), Err(full.clone()));
        assert_eq!(ask(&store, "alice", put("/a/x")), Err(full));
        // What is not allowed is not told of the alarm.
        assert_eq!(ask(&store, "alice", put("/b")), DENIED);
        let name = "alice".to_owned();
        let password = PasswordHash(Bytes::from_static(b"other"));
        change(&store, AuthChange::UserChangePassword { name, password });
        ask(&store, "root", alarm(false)).unwrap();
    }
}

#[test]
fn a_name_is_as_long_as_a_row_can_hold_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), options()).unwrap();
    let longest = "n".repeat(NAME_BYTES_MAX);
    change(&store, AuthChange::UserAdd { name: longest.clone(), password: None });
    change(&store, AuthChange::RoleAdd { name: longest.clone() });
    let name = longest + "n";
    let (bytes, max) = (NAME_BYTES_MAX + 1, NAME_BYTES_MAX);
    let refused = Err(Refusal::Auth(AuthRefusal::NameTooLong { bytes, max }));
    let user = AuthChange::UserAdd { name: name.clone(), password: None };
    assert_eq!(apply(&store, Body::Auth(user)), refused);
    assert_eq!(apply(&store, Body::Auth(AuthChange::RoleAdd { name })), refused);
    store.close().unwrap();
}

#[test]
fn a_password_hash_is_not_printed() {
    let password = Some(PasswordHash(Bytes::from_static(b"secret")));
    let change = Body::Auth(AuthChange::UserAdd { name: "alice".to_owned(), password });
    assert!(!format!("{change:?}").contains("secret"));
}
