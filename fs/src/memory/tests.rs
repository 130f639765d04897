//! One behaviour at a time; [`model`] compares whole histories with what listing all keys says.

mod model;
mod past;

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use revfs_api::keyspace::{
    Answer, ChangeKind, ChangesRequest, Compare, CompareResult, CompareTarget, DirectoryAnswer,
    Error, KEY_BYTES_MAX, KeyRange, KeySpace, KeyValue, LeaseId, ListRead, Op, OpAnswer, Origin,
    RangeRead, Read, Result, Revision, Time, Txn, TxnAnswer, VALUE_BYTES_MAX,
};

use super::{FailureMoment, Memory, START};

/// A read of this key space, and a write too, is ready at the first poll.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("ready at the first poll")
}

fn do_all(memory: &Memory, success: Vec<Op>) -> Result<TxnAnswer> {
    now(memory.txn(Txn { success, ..Txn::default() }, Origin::default()))
}

#[track_caller]
fn done(memory: &Memory, op: Op) -> OpAnswer {
    let mut answer = do_all(memory, vec![op]).unwrap();
    answer.answers.pop().unwrap()
}

fn put(memory: &Memory, key: &'static str, value: &'static str) -> Revision {
    do_all(memory, vec![Op::put(key, value)]).unwrap().revision
}

fn get_at(memory: &Memory, key: &str, revision: u64) -> Result<Option<KeyValue>> {
    let read = Read::key(Bytes::copy_from_slice(key.as_bytes()));
    let mut answer = now(memory.read(Revision(revision), vec![read]))?;
    let Some(Answer::Range(mut range)) = answer.answers.pop() else { panic!("a range") };
    Ok(range.kvs.pop())
}

fn get(memory: &Memory, key: &str) -> Option<KeyValue> {
    get_at(memory, key, 0).unwrap()
}

fn all_keys() -> KeyRange {
    KeyRange::From(Bytes::new())
}

fn changes_from(from: u64) -> ChangesRequest {
    ChangesRequest {
        ranges: vec![all_keys()],
        from: Revision(from),
        to: Revision::NONE,
        newest_first: false,
        limit: 0,
        scan_limit: 0,
        keys_only: false,
    }
}

#[test]
fn a_put_counts_its_key_up_and_names_its_content() {
    let memory = Memory::new();
    assert_eq!(memory.current(), Revision(1));
    assert_eq!(put(&memory, "/a", "one"), Revision(2));
    memory.advance(Duration::from_secs(1));
    put(&memory, "/a", "second");
    let later = Time(START.0 + 1_000_000_000);
    let expected = KeyValue {
        key: "/a".into(),
        value: "second".into(),
        value_bytes: 6,
        create_revision: Revision(2),
        mod_revision: Revision(3),
        version: 2,
        lease: LeaseId::default(),
        time: later,
        content_revision: Revision(3),
        content_time: later,
        birth_revision: Revision(2),
    };
    assert_eq!(get(&memory, "/a"), Some(expected));
    assert_eq!(get_at(&memory, "/a", 2).unwrap().unwrap().value, "one");
    assert_eq!(get_at(&memory, "/a", 1).unwrap(), None);
    assert!(matches!(get_at(&memory, "/a", 4), Err(Error::Future { .. })));

    done(&memory, Op::delete("/a"));
    put(&memory, "/a", "third");
    let reborn = get(&memory, "/a").unwrap();
    assert_eq!((reborn.create_revision.0, reborn.version, reborn.birth_revision.0), (5, 1, 5));
}

#[test]
fn one_transaction_is_one_revision_and_one_without_changes_is_none() {
    let memory = Memory::new();
    let answer = do_all(&memory, vec![Op::put("/b", "x"), Op::put("/a", "y")]).unwrap();
    assert_eq!((answer.revision, answer.changed), (Revision(2), true));
    let events = now(memory.changes(changes_from(2))).unwrap().revisions.remove(0).events;
    let keys: Vec<_> = events.iter().map(|event| event.kv.key.clone()).collect();
    assert_eq!(keys, ["/b", "/a"], "in the order of the operations");
    for op in [
        Op::delete("/none"),
        Op::Range(RangeRead::new(all_keys())),
        Op::Move { from: "/none/".into(), to: "/other/".into() },
        Op::MoveKey { from: "/a".into(), to: "/a".into() },
        Op::Restore { range: all_keys(), revision: Revision(2) },
        Op::Txn(Txn::default()),
    ] {
        let answer = do_all(&memory, vec![op]).unwrap();
        assert_eq!((answer.revision, answer.changed), (Revision(2), false));
    }
    assert_eq!(memory.current(), Revision(2));
}

#[test]
fn compares_choose_the_branch_and_see_the_state_before() {
    let memory = Memory::new();
    put(&memory, "/a", "one");
    put(&memory, "/b", "two");
    let holds = |target, result, range| {
        let txn = Txn { compares: vec![Compare { range, target, result }], ..Txn::default() };
        now(memory.txn(txn, Origin::default())).unwrap().succeeded
    };
    let key = |key: &'static str| KeyRange::Key(key.into());
    let (equal, not_equal) = (CompareResult::Equal, CompareResult::NotEqual);
    let (less, greater) = (CompareResult::Less, CompareResult::Greater);
    for (target, result, range, expected) in [
        (CompareTarget::Value("one".into()), equal, key("/a"), true),
        (CompareTarget::Value("one".into()), equal, KeyRange::prefix(b"/"), false),
        (CompareTarget::Value("zzz".into()), less, KeyRange::prefix(b"/"), true),
        (CompareTarget::Value("x".into()), not_equal, key("/none"), false),
        (CompareTarget::ModRevision(Revision(2)), greater, key("/b"), true),
        (CompareTarget::ModRevision(Revision(2)), greater, KeyRange::prefix(b"/"), false),
        (CompareTarget::CreateRevision(Revision(0)), equal, key("/none"), true),
        (CompareTarget::Version(0), greater, KeyRange::prefix(b"/none"), false),
        (CompareTarget::Lease(LeaseId(0)), equal, key("/a"), true),
    ] {
        let printed = format!("{target:?} {result:?} {range:?}");
        assert_eq!(holds(target, result, range), expected, "{printed}");
    }

    let inner = Txn {
        compares: vec![Compare::absent(KeyRange::Key("/new".into()))],
        success: vec![Op::put("/was_absent", "")],
        failure: vec![Op::put("/was_present", "")],
    };
    do_all(&memory, vec![Op::put("/new", ""), Op::Txn(inner)]).unwrap();
    assert!(get(&memory, "/was_absent").is_some() && get(&memory, "/was_present").is_none());
}

#[test]
fn a_failed_compare_runs_the_other_branch() {
    let memory = Memory::new();
    let txn = Txn {
        compares: vec![Compare::present("/a")],
        success: vec![Op::put("/then", "")],
        failure: vec![Op::put("/else", "")],
    };
    let answer = now(memory.txn(txn, Origin::default())).unwrap();
    assert!(!answer.succeeded && answer.changed);
    assert!(get(&memory, "/then").is_none() && get(&memory, "/else").is_some());
}

#[test]
fn later_operations_see_earlier_ones() {
    let memory = Memory::new();
    put(&memory, "/a", "old");
    let ops = vec![
        Op::Delete { range: KeyRange::Key("/a".into()), prev_kv: true },
        Op::put("/b", "new"),
        Op::Delete { range: KeyRange::Key("/a".into()), prev_kv: true },
        Op::Range(RangeRead::new(all_keys())),
    ];
    let answers = do_all(&memory, ops).unwrap().answers;
    let OpAnswer::Delete { deleted: 1, prev_kvs } = &answers[0] else { panic!("{answers:?}") };
    assert_eq!(prev_kvs[0].value, "old");
    assert_eq!(answers[2], OpAnswer::Delete { deleted: 0, prev_kvs: Vec::new() });
    let OpAnswer::Range(range) = &answers[3] else { panic!("{answers:?}") };
    assert_eq!((range.count, range.kvs[0].mod_revision), (1, Revision(3)));
}

#[test]
fn a_key_is_written_once_in_a_transaction() {
    let memory = Memory::new();
    let move_key =
        |from: &'static str, to: &'static str| Op::MoveKey { from: from.into(), to: to.into() };
    let nested = |success, failure| Op::Txn(Txn { compares: Vec::new(), success, failure });
    let below = |prefix: &[u8]| Op::Delete { range: KeyRange::prefix(prefix), prev_kv: false };
    for ops in [
        vec![Op::put("/a", ""), Op::put("/a", "")],
        vec![Op::put("/a", ""), Op::Append { key: "/a".into(), value: "x".into() }],
        vec![Op::delete("/a"), Op::put("/a", "")],
        vec![Op::put("/a/b", ""), below(b"/a/")],
        vec![move_key("/x", "/a"), Op::put("/a", "")],
        vec![Op::Move { from: "/x/".into(), to: "/a/".into() }, Op::put("/a/b", "")],
        vec![Op::Restore { range: KeyRange::prefix(b"/"), revision: Revision(1) }, below(b"/a")],
        vec![nested(vec![Op::put("/a", "")], vec![]), nested(vec![], vec![Op::put("/a", "")])],
    ] {
        let refused = do_all(&memory, ops.clone());
        assert!(matches!(refused, Err(Error::Invalid(_))), "{ops:?}: {refused:?}");
    }
    for ops in [
        vec![below(b"/a"), Op::delete("/a/b"), Op::put("/b", "")],
        vec![nested(vec![Op::put("/a", "")], vec![Op::put("/a", "")])],
        vec![move_key("/x", "/a"), Op::delete("/x")],
    ] {
        assert!(do_all(&memory, ops.clone()).is_ok(), "{ops:?}");
    }
}

#[test]
fn a_refused_transaction_leaves_nothing_behind() {
    let memory = Memory::new();
    let missing = Op::Put {
        key: "/missing".into(),
        value: Bytes::new(),
        lease: LeaseId(0),
        prev_kv: false,
        ignore_value: true,
        ignore_lease: false,
    };
    let huge = || Bytes::from(vec![0; VALUE_BYTES_MAX]);
    let long = Bytes::from(vec![b'k'; KEY_BYTES_MAX + 1]);
    put(&memory, "/m/x", "");
    for bad in [
        missing,
        Op::put("", ""),
        Op::put(long.clone(), ""),
        Op::Move { from: "/m/".into(), to: long },
        Op::put("/b", Bytes::from(vec![0; VALUE_BYTES_MAX + 1])),
        Op::Move { from: "/m".into(), to: "/m/n".into() },
        Op::Restore { range: all_keys(), revision: Revision(9) },
    ] {
        // A key of its own, so that the bad operation is what is refused.
        assert!(do_all(&memory, vec![Op::put("\x02", ""), bad.clone()]).is_err(), "{bad:?}");
    }
    do_all(&memory, vec![Op::put("/huge", huge())]).unwrap();
    let more = Op::Append { key: "/huge".into(), value: "x".into() };
    assert!(matches!(do_all(&memory, vec![more]), Err(Error::ValueTooLarge { .. })));
    assert_eq!((memory.current(), get(&memory, "\x02")), (Revision(3), None));

    memory.limit_txn_keys(1);
    let two = vec![Op::put("/a", ""), Op::put("/b", "")];
    assert!(matches!(do_all(&memory, two), Err(Error::TooBig { count: 2, max: 1, .. })));
    assert_eq!(memory.current(), Revision(3));
}

#[test]
fn append_adds_to_what_is_there_and_keeps_the_lease() {
    let memory = Memory::new();
    now(memory.lease_grant(LeaseId(7), 60)).unwrap();
    let append = |value: &'static str| Op::Append { key: "/log".into(), value: value.into() };
    assert_eq!(done(&memory, append("one\n")), OpAnswer::Append { value_bytes: 4 });
    let lease = Op::Put {
        key: "/log".into(),
        value: Bytes::new(),
        lease: LeaseId(7),
        prev_kv: true,
        ignore_value: true,
        ignore_lease: false,
    };
    let OpAnswer::Put { prev_kv: Some(before) } = done(&memory, lease) else { panic!("a put") };
    assert_eq!((before.value, before.lease), ("one\n".into(), LeaseId(0)));
    assert_eq!(done(&memory, append("two\n")), OpAnswer::Append { value_bytes: 8 });
    let log = get(&memory, "/log").unwrap();
    assert_eq!((log.value, log.lease, log.version), ("one\ntwo\n".into(), LeaseId(7), 3));
    assert_eq!((log.content_revision, log.birth_revision), (Revision(4), Revision(2)));
}

#[test]
fn a_move_takes_content_birth_and_lease_along() {
    let memory = Memory::new();
    put(&memory, "/d/a", "old");
    put(&memory, "/d/a", "new");
    put(&memory, "/d/", "");
    put(&memory, "/da", "stays");
    memory.advance(Duration::from_secs(5));
    let moved = done(&memory, Op::Move { from: "/d/".into(), to: "/e/".into() });
    assert_eq!(moved, OpAnswer::Move { moved: 2 });
    assert!(get(&memory, "/d/a").is_none() && get(&memory, "/da").is_some());
    let expected = KeyValue {
        key: "/e/a".into(),
        value: "new".into(),
        value_bytes: 3,
        create_revision: Revision(6),
        mod_revision: Revision(6),
        version: 1,
        lease: LeaseId(0),
        time: Time(START.0 + 5_000_000_000),
        content_revision: Revision(3),
        content_time: START,
        birth_revision: Revision(2),
    };
    assert_eq!(get(&memory, "/e/a"), Some(expected));
    let events = now(memory.changes(changes_from(6))).unwrap().revisions.remove(0).events;
    let events: Vec<_> = events.iter().map(|event| (event.kind, event.kv.key.clone())).collect();
    let (put, delete) = (ChangeKind::Put, ChangeKind::Delete);
    let expected = [(put, "/e/"), (delete, "/d/"), (put, "/e/a"), (delete, "/d/a")];
    assert_eq!(events, expected.map(|(kind, key)| (kind, Bytes::from(key))));

    let written = done(&memory, Op::Append { key: "/e/a".into(), value: "er".into() });
    assert_eq!(written, OpAnswer::Append { value_bytes: 5 });
    let file = get(&memory, "/e/a").unwrap();
    assert_eq!((file.content_revision, file.birth_revision), (Revision(7), Revision(2)));
}

#[test]
fn a_moved_key_overwrites_and_an_absent_one_does_nothing() {
    let memory = Memory::new();
    put(&memory, "/a", "a");
    put(&memory, "/b", "b");
    let move_key = || Op::MoveKey { from: "/a".into(), to: "/b".into() };
    assert_eq!(done(&memory, move_key()), OpAnswer::Move { moved: 1 });
    let target = get(&memory, "/b").unwrap();
    assert_eq!((target.value.as_ref(), target.version), (&b"a"[..], 1));
    assert_eq!((target.create_revision, target.birth_revision), (Revision(4), Revision(2)));
    assert_eq!(done(&memory, move_key()), OpAnswer::Move { moved: 0 });
    assert_eq!(memory.current(), Revision(4));
}

#[test]
fn directories_keep_their_times_when_they_are_moved_whole() {
    let memory = Memory::new();
    put(&memory, "/a/s/x", "");
    put(&memory, "/a/y", "");
    put(&memory, "/b/s/x", "");
    let directory = |path: &'static str| {
        let read = memory.read(Revision::NONE, vec![Read::Directory(path.into())]);
        let Answer::Directory(own) = now(read).unwrap().answers.remove(0) else { panic!() };
        (own.names, own.changed.0)
    };
    let (a, b, c) = (|| "/a/".into(), || "/b/".into(), || "/c/".into());
    assert_eq!(done(&memory, Op::Exchange { a: a(), b: b() }), OpAnswer::Move { moved: 3 });
    assert_eq!([directory("/a/"), directory("/a/s/")], [(1, 4), (1, 4)]);
    assert_eq!([directory("/b/"), directory("/b/s/")], [(2, 3), (1, 2)]);
    done(&memory, Op::Move { from: b(), to: c() });
    assert_eq!([directory("/c/"), directory("/c/s/"), directory("/b/")], [(2, 3), (1, 2), (0, 0)]);
    done(&memory, Op::Move { from: a(), to: c() });
    assert_eq!([directory("/c/"), directory("/c/s/")], [(2, 3), (1, 4)], "s/ has the same names");
    put(&memory, "/a/z", "");
    done(&memory, Op::Move { from: a(), to: c() });
    assert_eq!([directory("/c/"), directory("/c/s/")], [(3, 9), (1, 4)]);
}

#[test]
fn a_restore_brings_back_content_and_birth() {
    let memory = Memory::new();
    put(&memory, "/d/same", "same");
    put(&memory, "/d/changed", "then");
    put(&memory, "/d/deleted", "then");
    let then = memory.current();
    put(&memory, "/d/changed", "now");
    done(&memory, Op::delete("/d/deleted"));
    put(&memory, "/d/created", "now");
    put(&memory, "/other", "now");
    let answer = done(&memory, Op::Restore { range: KeyRange::prefix(b"/d/"), revision: then });
    assert_eq!(answer, OpAnswer::Restore { put: 2, deleted: 1 });

    let numbers = |key: &str| {
        let kv = get(&memory, key).unwrap();
        let revisions =
            [kv.create_revision, kv.mod_revision, kv.content_revision, kv.birth_revision];
        (kv.value, kv.version, revisions.map(|revision| revision.0))
    };
    assert_eq!(numbers("/d/same"), ("same".into(), 1, [2, 2, 2, 2]));
    assert_eq!(numbers("/d/changed"), ("then".into(), 3, [3, 9, 3, 3]));
    assert_eq!(numbers("/d/deleted"), ("then".into(), 1, [9, 9, 4, 4]));
    assert_eq!(get(&memory, "/d/created"), None);
    assert!(get(&memory, "/other").is_some());
}

#[test]
fn a_listing_shows_one_level_with_markers_and_directories() {
    let memory = Memory::new();
    for key in ["/app/color", "/app/", "/app/sub/x", "/app/sub", "/app//", "/b"] {
        put(&memory, key, "value");
    }
    let list = |directory: &'static str, after: &'static str, limit| {
        let (directory, after) = (directory.into(), after.into());
        let read = Read::List(ListRead { directory, after, limit, with_values: false });
        let mut answer = now(memory.read(Revision::NONE, vec![read])).unwrap();
        let Some(Answer::List(list)) = answer.answers.pop() else { panic!("a list") };
        let names: Vec<_> = list.entries.iter().map(|entry| entry.name.clone()).collect();
        (names, list)
    };
    let (names, app) = list("/app/", "", 0);
    assert_eq!(names, ["", "/", "color", "sub", "sub/"]);
    assert!(app.entries[0].directory.is_none() && app.entries[0].kv.is_some());
    let nameless = &app.entries[1];
    assert_eq!(nameless.kv.as_ref().unwrap().key, "/app//");
    let color = app.entries[2].kv.as_ref().unwrap();
    assert_eq!((color.value.len(), color.value_bytes), (0, 5));
    let sub = DirectoryAnswer { names: 1, changed: Revision(4), time: START };
    assert_eq!((app.entries[4].directory, &app.entries[4].kv), (Some(sub), &None));

    let (names, first) = list("/app/", "", 2);
    assert!(first.more && names == ["", "/", "color"]);
    let (names, rest) = list("/app/", "/", 3);
    assert!(!rest.more && names == ["color", "sub", "sub/"]);
    assert_eq!(list("/none/", "", 0).0, Vec::<Bytes>::new());
    assert_eq!(list("", "", 0).0, ["/"]);
}

#[test]
fn a_test_can_make_calls_fail_before_and_after_they_took_effect() {
    let memory = Memory::new();
    let error = || Error::OutcomeUnknown { reason: String::from("lost") };
    memory.fail_next_txn(FailureMoment::Before, error());
    memory.fail_next_txn(FailureMoment::After, error());
    memory.fail_next_read(error());
    for revision in [1, 2] {
        let failed = do_all(&memory, vec![Op::put("/a", "")]);
        assert!(matches!(failed, Err(Error::OutcomeUnknown { .. })));
        assert_eq!(memory.current(), Revision(revision));
    }
    assert!(matches!(get_at(&memory, "/a", 0), Err(Error::OutcomeUnknown { .. })));
    assert!(get(&memory, "/a").is_some());
    assert_eq!(put(&memory, "/a", ""), Revision(3));
}

#[test]
fn a_range_is_cut_and_counted() {
    let memory = Memory::new();
    for key in ["/a", "/b", "/c"] {
        put(&memory, key, "value");
    }
    let ask = |range, limit, keys_only, count_only| {
        let read = RangeRead { limit, keys_only, count_only, ..RangeRead::new(range) };
        let read = Read::Range(read);
        let mut answer = now(memory.read(Revision::NONE, vec![read])).unwrap();
        let Some(Answer::Range(range)) = answer.answers.pop() else { panic!("a range") };
        (range.kvs.len(), range.count, range.more)
    };
    let span = |start: &'static str, end: &'static str| KeyRange::Span {
        start: start.into(),
        end: end.into(),
    };
    assert_eq!(ask(all_keys(), 0, false, false), (3, 3, false));
    assert_eq!(ask(all_keys(), 2, true, false), (2, 3, true));
    assert_eq!(ask(all_keys(), 3, true, false), (3, 3, false));
    assert_eq!(ask(all_keys(), 1, false, true), (0, 3, false));
    assert_eq!(ask(span("/a", "/c"), 0, false, false), (2, 2, false));
    assert_eq!(ask(span("/c", "/a"), 0, false, false), (0, 0, false));
    assert_eq!(ask(span("/c", "/c"), 0, false, false), (0, 0, false));
}

#[test]
fn a_lease_takes_its_keys_with_it_when_it_is_revoked() {
    let memory = Memory::new();
    let on_lease = |key: &'static str| Op::Put {
        key: key.into(),
        value: Bytes::new(),
        lease: LeaseId(5),
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    };
    let refused = do_all(&memory, vec![on_lease("/a")]).unwrap_err();
    assert_eq!(refused.to_string(), "requested lease not found");
    now(memory.lease_grant(LeaseId(5), 60)).unwrap();
    assert!(now(memory.lease_grant(LeaseId(5), 60)).is_err());
    done(&memory, on_lease("/b"));
    done(&memory, on_lease("/a"));
    put(&memory, "/c", "");
    let found = now(memory.lease_time_to_live(LeaseId(5), true)).unwrap().unwrap();
    assert_eq!(found.keys, ["/a", "/b"]);
    let before = memory.current();
    now(memory.lease_revoke(LeaseId(5))).unwrap();
    assert_eq!(memory.current(), before.next());
    assert!(get(&memory, "/a").is_none() && get(&memory, "/c").is_some());
    assert_eq!(now(memory.lease_keep_alive(LeaseId(5))).unwrap(), None);
    assert!(now(memory.lease_revoke(LeaseId(5))).is_err());
}
