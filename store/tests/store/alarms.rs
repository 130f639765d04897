//! What an alarm forbids, and that it survives restarts but not a restore.

use bytes::Bytes;
use revfs_store::types::{KeyRange, LeaseId, Op, RangeQuery, Revision, Time, Txn};
use revfs_store::{
    Alarm, AlarmKind, Body, Command, Done, MemberChange, MemberRole, Position, Refusal, Store,
    StoreOptions,
};

use crate::scenario::command;

const NOSPACE: Alarm = Alarm { member: 7, kind: AlarmKind::NoSpace };

fn options() -> StoreOptions {
    StoreOptions { map_bytes: 1 << 30, ..StoreOptions::default() }
}

fn apply(store: &Store, body: Body) -> Result<Done, Refusal> {
    let index = store.applied().index + 1;
    let command = Command { body, ..command(Vec::new(), Time(1)) };
    let decoded = Command::decode(&command.encode().unwrap()).unwrap();
    assert_eq!(decoded, command);
    store.apply(Position { index, term: 1, raft: Bytes::new() }, &command).unwrap().result
}

fn txn(store: &Store, ops: Vec<Op>) -> Result<Done, Refusal> {
    apply(store, Body::Txn(Txn { success: ops, ..Txn::default() }))
}

fn set(store: &Store, alarm: Alarm, is_raised: bool) -> bool {
    match apply(store, Body::Alarm { alarm, is_raised }).unwrap() {
        Done::AlarmSet { changed } => changed,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nospace_refuses_what_stores_values_and_lets_space_be_made() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), options()).unwrap();
    txn(&store, vec![Op::put("/a", "1"), Op::put("/b", "2"), Op::put("/c", "3")]).unwrap();
    apply(&store, Body::LeaseGrant { id: LeaseId(1), ttl_seconds: 60 }).unwrap();
    let before = store.read_view().unwrap().current();
    assert!(set(&store, NOSPACE, true) && !set(&store, NOSPACE, true));
    assert_eq!(store.read_view().unwrap().current(), before, "an alarm makes no revision");
    let nested = Txn { failure: vec![Op::put("/x", "y")], ..Txn::default() };
    for ops in [
        vec![Op::put("/x", "y")],
        vec![Op::Append { key: "/a".into(), value: "y".into() }],
        vec![Op::MoveKey { from: "/a".into(), to: "/x".into() }],
        vec![Op::Restore { range: KeyRange::prefix(b"/"), revision: Revision(2) }],
        vec![Op::delete("/a"), Op::Txn(nested)],
        vec![Op::put("/x", "")],
    ] {
        assert_eq!(txn(&store, ops), Err(Refusal::NoSpace));
    }
    let grant = Body::LeaseGrant { id: LeaseId(2), ttl_seconds: 60 };
    assert_eq!(apply(&store, grant.clone()), Err(Refusal::NoSpace));
    let part = Body::UploadPart { upload: LeaseId(1), part: 0, ops: vec![Op::delete("/a")] };
    assert_eq!(apply(&store, part), Err(Refusal::NoSpace));
    txn(&store, vec![Op::Range(RangeQuery::new(KeyRange::prefix(b"/"))), Op::delete("/a")])
        .unwrap();
    // The last file of a directory goes, the directory stays.
    let marker = Txn { success: vec![Op::put("/d/", "")], ..Txn::default() };
    txn(&store, vec![Op::delete("/b"), Op::Txn(marker)]).unwrap();
    assert!(store.read_view().unwrap().get(Revision::NONE, b"/d/", false).unwrap().is_some());
    apply(&store, Body::LeaseRevoke { id: LeaseId(1) }).unwrap();
    apply(&store, Body::Compact { revision: Revision(3) }).unwrap();
    store.close().unwrap();
    drop(store);
    let store = Store::open(dir.path(), options()).unwrap();
    assert_eq!(store.read_view().unwrap().alarms().unwrap(), [NOSPACE]);
    // Another member's alarm counts alike, and each lifts its own.
    let other = Alarm { member: 9, ..NOSPACE };
    assert!(set(&store, other, true) && set(&store, NOSPACE, false));
    assert_eq!(txn(&store, vec![Op::put("/x", "y")]), Err(Refusal::NoSpace));
    assert!(set(&store, other, false) && !set(&store, other, false));
    txn(&store, vec![Op::put("/x", "y")]).unwrap();
    apply(&store, grant).unwrap();
}

#[test]
fn corrupt_refuses_keys_and_leases_altogether() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), options()).unwrap();
    txn(&store, vec![Op::put("/a", "1")]).unwrap();
    let alarm = Alarm { member: 7, kind: AlarmKind::Corrupt };
    assert!(set(&store, alarm, true));
    assert_eq!(txn(&store, vec![Op::delete("/a")]), Err(Refusal::Corrupt));
    assert_eq!(apply(&store, Body::Compact { revision: Revision(2) }), Err(Refusal::Corrupt));
    assert_eq!(apply(&store, Body::LeaseRevoke { id: LeaseId(1) }), Err(Refusal::Corrupt));
    assert!(set(&store, alarm, false));
    txn(&store, vec![Op::delete("/a")]).unwrap();
}

#[test]
fn a_corrupt_minority_stops_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), options()).unwrap();
    let adopt = |id, role| {
        let adopt = MemberChange::Adopt { id, role, peer_urls: Vec::new() };
        apply(&store, Body::Member(adopt)).unwrap();
    };
    for id in 1..=3 {
        adopt(id, MemberRole::Voter);
    }
    adopt(4, MemberRole::Learner);
    let corrupt = |member| Alarm { member, kind: AlarmKind::Corrupt };
    let put = || txn(&store, vec![Op::put("/a", "1")]);
    let stops_all = || store.read_view().unwrap().corrupt_stops_all().unwrap();
    for member in [1, 4] {
        assert!(set(&store, corrupt(member), true));
        assert!(!stops_all());
        put().unwrap();
    }
    // Two of three voters.
    assert!(set(&store, corrupt(2), true) && stops_all());
    assert_eq!(put(), Err(Refusal::Corrupt));
    assert_eq!(apply(&store, Body::Check), Ok(Done::Checked));
    // One that was removed takes its alarm along; of the two voters left one is corrupt.
    apply(&store, Body::Member(MemberChange::Remove { id: 1 })).unwrap();
    assert_eq!(put(), Err(Refusal::Corrupt));
    assert!(set(&store, corrupt(2), false) && !stops_all());
    put().unwrap();
    // Nobody knows who it is.
    assert!(set(&store, corrupt(0), true) && stops_all());
    assert_eq!(put(), Err(Refusal::Corrupt));
}

#[test]
fn an_alarm_goes_with_its_member_and_does_not_keep_anybody_from_removing_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), options()).unwrap();
    for id in [7, 8] {
        let adopt = MemberChange::Adopt { id, role: MemberRole::Voter, peer_urls: Vec::new() };
        apply(&store, Body::Member(adopt)).unwrap();
    }
    let corrupt = Alarm { member: 7, kind: AlarmKind::Corrupt };
    let others = Alarm { member: 8, ..NOSPACE };
    assert!(set(&store, NOSPACE, true) && set(&store, corrupt, true) && set(&store, others, true));
    let removed = apply(&store, Body::Member(MemberChange::Remove { id: 7 }));
    assert_eq!(removed, Ok(Done::MemberSet { changed: true }));
    assert_eq!(store.read_view().unwrap().alarms().unwrap(), [others]);
}
