//! Stamps, histories, compaction and watches.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use revfs_api::keyspace::{
    ChangeKind, ChangesRequest, Error, HistoryRequest, KeyRange, KeySpace, Op, Origin, Revision,
    Stamp, Time, Txn, Version,
};

use super::{all_keys, changes_from, do_all, done, get_at, now, put};
use crate::memory::{Memory, START};

fn history(memory: &Memory, key: &'static str) -> Vec<(ChangeKind, u64)> {
    let request =
        HistoryRequest { key: key.into(), at_most: Revision::NONE, limit: 0, keys_only: false };
    let versions = now(memory.history(request)).unwrap();
    versions.iter().map(|Version { event, .. }| (event.kind, event.kv.mod_revision.0)).collect()
}

#[test]
fn time_and_author_belong_to_the_revision() {
    let memory = Memory::new();
    let origin = Origin { claimed: String::from("ann@pc"), note: "note".into() };
    let txn = Txn { success: vec![Op::put("/a", "")], ..Txn::default() };
    now(memory.txn(txn, origin)).unwrap();
    memory.set_time(Time(0));
    put(&memory, "/a", "");
    memory.set_time(Time(START.0 + 10));
    put(&memory, "/a", "");

    let stamp = now(memory.stamp(Revision(2))).unwrap();
    assert_eq!((stamp.author.claimed.as_str(), stamp.note.as_ref()), ("ann@pc", &b"note"[..]));
    assert_eq!(now(memory.stamp(Revision(3))).unwrap().time, START, "time does not run back");
    for (time, revision) in [
        (i64::MIN, 1),
        (START.0 - 1, 1),
        (START.0, 3),
        (START.0 + 9, 3),
        (START.0 + 10, 4),
        (i64::MAX, 4),
    ] {
        assert_eq!(now(memory.revision_at(Time(time))).unwrap(), Revision(revision), "{time}");
    }
    let long = Origin { note: vec![0; 4 * 1024 + 1].into(), ..Origin::default() };
    let refused = now(memory.txn(Txn::default(), long));
    assert!(matches!(refused, Err(Error::TooBig { max: 4096, .. })));
}

#[test]
fn changes_are_cut_by_both_limits_and_go_on_where_they_were_cut() {
    let memory = Memory::new();
    for key in ["/a", "/b", "/a", "/b", "/a"] {
        put(&memory, key, "value");
    }
    let ask = |request: ChangesRequest| {
        let answer = now(memory.changes(request)).unwrap();
        let revisions: Vec<_> = answer.revisions.iter().map(|r| r.stamp.revision.0).collect();
        (revisions, answer.next.map(|next| next.0))
    };
    let of_a =
        |from| ChangesRequest { ranges: vec![KeyRange::Key("/a".into())], ..changes_from(from) };
    assert_eq!(ask(of_a(0)), (vec![2, 4, 6], None));
    assert_eq!(ask(ChangesRequest { limit: 2, ..of_a(2) }), (vec![2, 4], Some(5)));
    assert_eq!(ask(ChangesRequest { limit: 2, ..of_a(5) }), (vec![6], None));
    assert_eq!(ask(ChangesRequest { scan_limit: 2, ..of_a(3) }), (vec![4], Some(5)));
    assert_eq!(ask(ChangesRequest { to: Revision(5), ..of_a(3) }), (vec![4], None));
    assert_eq!(ask(ChangesRequest { to: Revision(99), ..of_a(7) }), (vec![], None));
    let newest_first = ChangesRequest { newest_first: true, ..of_a(2) };
    assert_eq!(ask(newest_first.clone()), (vec![6, 4, 2], None));
    assert_eq!(ask(ChangesRequest { limit: 1, ..newest_first.clone() }), (vec![6], Some(5)));
    assert_eq!(ask(ChangesRequest { scan_limit: 3, ..newest_first }), (vec![6, 4], Some(3)));
    let answer = now(memory.changes(ChangesRequest { keys_only: true, ..of_a(6) })).unwrap();
    let kv = &answer.revisions[0].events[0].kv;
    assert_eq!((kv.value.len(), kv.value_bytes), (0, 5));
}

#[test]
fn compaction_hides_what_lies_below_it() {
    let memory = Memory::new();
    let origin = Origin { claimed: String::from("ann@pc"), note: Bytes::new() };
    let txn = Txn { success: vec![Op::put("/old", "kept")], ..Txn::default() };
    now(memory.txn(txn, origin)).unwrap();
    put(&memory, "/a", "2");
    put(&memory, "/gone", "x");
    done(&memory, Op::delete("/gone"));
    put(&memory, "/at", "x");
    memory.advance(Duration::from_secs(1));
    done(&memory, Op::delete("/at"));
    put(&memory, "/a", "8");
    now(memory.compact(Revision(7), true)).unwrap();

    assert!(matches!(get_at(&memory, "/a", 6), Err(Error::Compacted { .. })));
    assert_eq!(get_at(&memory, "/a", 7).unwrap().unwrap().value, "2");
    let (put_kind, delete) = (ChangeKind::Put, ChangeKind::Delete);
    assert_eq!(history(&memory, "/a"), [(put_kind, 8), (put_kind, 3)]);
    assert_eq!(history(&memory, "/gone"), []);
    assert_eq!(history(&memory, "/at"), [(delete, 7)]);
    let request =
        HistoryRequest { key: "/old".into(), at_most: Revision::NONE, limit: 0, keys_only: false };
    let kept = now(memory.history(request)).unwrap().remove(0).stamp;
    assert_eq!(kept, Stamp { revision: Revision(2), time: START, ..Stamp::default() });

    assert!(matches!(now(memory.stamp(Revision(6))), Err(Error::Compacted { .. })));
    assert!(matches!(now(memory.changes(changes_from(6))), Err(Error::Compacted { .. })));
    assert_eq!(now(memory.changes(changes_from(7))).unwrap().revisions.len(), 2);
    assert!(matches!(now(memory.revision_at(START)), Err(Error::Compacted { .. })));
    assert_eq!(now(memory.revision_at(Time(i64::MAX))).unwrap(), Revision(8));
    assert!(matches!(
        now(memory.watch(vec![all_keys()], Revision(6))),
        Err(Error::Compacted { .. })
    ));
    let restore = vec![Op::Restore { range: all_keys(), revision: Revision(6) }];
    assert!(matches!(do_all(&memory, restore), Err(Error::Compacted { .. })));
    assert!(matches!(now(memory.compact(Revision(7), false)), Err(Error::Compacted { .. })));
    assert!(matches!(now(memory.compact(Revision(9), false)), Err(Error::Future { .. })));
}

#[tokio::test]
async fn a_watch_waits_sees_each_revision_once_and_skips_other_keys() {
    let memory = std::sync::Arc::new(Memory::new());
    put(&memory, "/a", "before");
    let mut from_now =
        memory.watch(vec![KeyRange::Key("/a".into())], Revision::NONE).await.unwrap();
    let mut from_first = memory.watch(vec![KeyRange::prefix(b"/")], Revision(2)).await.unwrap();
    assert!(from_now.next().now_or_never().is_none(), "nothing has happened yet");

    let waiting = tokio::spawn(async move {
        let events = from_now.next().await.unwrap();
        (events, from_now)
    });
    tokio::task::yield_now().await;
    put(&memory, "/b", "other");
    put(&memory, "/a", "after");
    let (events, mut from_now) = waiting.await.unwrap();
    assert_eq!((events.stamp.revision, events.events.len()), (Revision(4), 1));
    assert_eq!(events.events[0].kv.value, "after");
    assert!(from_now.next().now_or_never().is_none());

    for revision in 2..=4 {
        assert_eq!(now(from_first.next()).unwrap().stamp.revision, Revision(revision));
    }
    assert!(from_first.next().now_or_never().is_none());
}

#[tokio::test]
async fn a_watch_ends_when_it_is_ended_compacted_or_left_alone() {
    let memory = Memory::new();
    let ranges = || vec![all_keys()];
    let mut ended = memory.watch(ranges(), Revision::NONE).await.unwrap();
    memory.end_watches();
    assert!(matches!(now(ended.next()), Err(Error::Unavailable { .. })));
    assert!(matches!(now(ended.next()), Err(Error::Unavailable { .. })), "for good");

    put(&memory, "/a", "");
    put(&memory, "/a", "");
    let mut behind = memory.watch(ranges(), Revision(2)).await.unwrap();
    memory.compact(Revision(3), false).await.unwrap();
    assert!(matches!(now(behind.next()), Err(Error::Compacted { .. })));
    assert!(matches!(now(behind.next()), Err(Error::Unavailable { .. })));

    let mut after = memory.watch(ranges(), Revision::NONE).await.unwrap();
    assert!(after.next().now_or_never().is_none(), "a new watch is not concerned");
    drop(memory);
    assert!(matches!(now(after.next()), Err(Error::Unavailable { .. })));
}
