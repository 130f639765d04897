//! What a watch promises beyond what the random runs of `watch_model.rs` compare: that work is shared,
//! that memory is bounded, and that nobody waits for anybody.

use std::sync::{Arc, Condvar, Mutex};
use std::task::{Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use revfs_store::types::{Author, ChangeKind, KeyRange, Op, Revision, Time};
use revfs_store::{
    Body, Command, Position, ReadError, Store, StoreError, StoreOptions, WatchOptions,
    WatchRequest, WatchedRevision, Watcher,
};
use tempfile::TempDir;

use crate::scenario::command;

/// Unparks the thread that waits.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

const DEADLINE: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_methods, reason = "the deadline of a test is not applied")]
fn now() -> Instant {
    Instant::now()
}

pub(crate) fn next(watcher: &mut Watcher) -> Result<WatchedRevision, ReadError> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let deadline = now() + DEADLINE;
    loop {
        match watcher.poll_next(&waker) {
            Poll::Ready(next) => return next,
            Poll::Pending => {
                let left = deadline.checked_duration_since(now());
                std::thread::park_timeout(left.expect("no revision within the deadline"));
            }
        }
    }
}

/// What is in the buffer now.
pub(crate) fn poll(watcher: &mut Watcher) -> Option<Result<WatchedRevision, ReadError>> {
    match watcher.poll_next(Waker::noop()) {
        Poll::Ready(next) => Some(next),
        Poll::Pending => None,
    }
}

pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = now() + DEADLINE;
    while !is_so() {
        assert!(now() < deadline, "waited for: {what}");
        std::thread::yield_now();
    }
}

struct Rig {
    store: Store,
    index: u64,
    // Dropped after the store.
    _directory: TempDir,
}

impl Rig {
    fn new(watch: WatchOptions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = StoreOptions { map_bytes: 1 << 30, watch, ..StoreOptions::default() };
        let store = Store::create(directory.path(), options).unwrap();
        Self { store, index: 0, _directory: directory }
    }

    fn run(&mut self, command: &Command) -> Revision {
        self.index += 1;
        let position = Position { index: self.index, term: 1, raft: Bytes::new() };
        let outcome = self.store.apply(position, command).unwrap();
        outcome.result.unwrap();
        outcome.revision
    }

    fn apply(&mut self, ops: Vec<Op>) -> Revision {
        self.run(&command(ops, Time(1)))
    }

    fn put(&mut self, key: &str, value: &str) -> Revision {
        self.apply(vec![Op::put(key.to_owned(), value.to_owned())])
    }

    fn compact(&mut self, revision: Revision) {
        let body = Body::Compact { revision };
        let author = Author::default();
        self.run(&Command { time: Time(1), author, note: Bytes::new(), body });
    }

    fn watch(&self, range: KeyRange, from: u64) -> Watcher {
        let from = Revision(from);
        let request = WatchRequest { ranges: vec![range], from, ..WatchRequest::default() };
        self.store.watch(request).unwrap()
    }

    /// All watchers have been given everything.
    fn wait_synced(&self) {
        wait_until("all watchers synced", || {
            let stats = self.store.watch_stats();
            stats.watchers > 0 && stats.synced == stats.watchers
        });
    }
}

#[test]
fn a_watch_begins_where_it_is_told() {
    let mut rig = Rig::new(WatchOptions::default());
    let first = rig.put("/a", "1");
    rig.put("/a", "2");
    let mut past = rig.watch(KeyRange::prefix(b"/"), first.0);
    let mut present = rig.watch(KeyRange::Key("/a".into()), 0);
    let mut future = rig.watch(KeyRange::From("/".into()), 6);
    assert_eq!((past.from(), present.from(), future.from()), (first, Revision(4), Revision(6)));
    for value in ["3", "4", "5"] {
        rig.put("/a", value);
    }
    let values = |watcher: &mut Watcher, count: usize| -> Vec<_> {
        let mut one = || next(watcher).unwrap().events[0].event.kv.value.clone();
        (0..count).map(|_| one()).collect()
    };
    assert_eq!(values(&mut past, 5), ["1", "2", "3", "4", "5"]);
    assert_eq!(values(&mut present, 3), ["3", "4", "5"]);
    assert_eq!(values(&mut future, 1), ["5"]);

    rig.compact(Revision(3));
    let request = WatchRequest { from: Revision(2), ..WatchRequest::default() };
    let refused = rig.store.watch(request).err();
    let (requested, compacted) = (Revision(2), Revision(3));
    assert_eq!(refused, Some(ReadError::Compacted { requested, compacted }));
    let mut at_compacted = rig.watch(KeyRange::prefix(b"/"), 3);
    assert_eq!(values(&mut at_compacted, 3), ["2", "3", "4"]);
}

#[test]
fn events_come_as_they_were_asked_for() {
    let mut rig = Rig::new(WatchOptions::default());
    rig.put("/a", "one");
    let request = |from| WatchRequest {
        ranges: vec![KeyRange::prefix(b"/"), KeyRange::Key("/a".into())],
        from: Revision(from),
        prev_kv: true,
        without_puts: false,
        without_deletes: false,
        keys_only: false,
    };
    // The one reads the store, the others get what apply hands over.
    let run = |from: u64, rig: &Rig| {
        let with = |change: fn(&mut WatchRequest)| {
            let mut request = request(from);
            change(&mut request);
            rig.store.watch(request).unwrap()
        };
        [
            with(|_| {}),
            with(|request| request.without_puts = true),
            with(|request| request.without_deletes = true),
            with(|request| request.keys_only = true),
        ]
    };
    let mut synced = run(3, &rig);
    rig.wait_synced();
    rig.put("/a", "two");
    rig.apply(vec![Op::delete("/a"), Op::put("/b", "b")]);
    let mut unsynced = run(3, &rig);
    for watchers in [&mut synced, &mut unsynced] {
        let [all, deletes, puts, keys] = watchers.each_mut();
        let first = next(all).unwrap();
        assert_eq!((first.stamp.revision, first.events.len()), (Revision(3), 1));
        assert_eq!(first.events[0].prev_kv.as_ref().unwrap().value, "one");
        let second = next(all).unwrap();
        assert_eq!(second.events.len(), 2, "a key in two ranges is one event");
        assert_eq!(second.events[0].event.kind, ChangeKind::Delete);
        assert_eq!(second.events[0].prev_kv.as_ref().unwrap().value, "two");
        assert_eq!(second.events[1].prev_kv, None, "a create has no version before it");
        let deleted = next(deletes).unwrap();
        assert_eq!(deleted.stamp.revision, Revision(4), "revisions without events are not sent");
        assert_eq!(deleted.events, second.events[..1]);
        assert_eq!(next(puts).unwrap(), first);
        assert_eq!(next(puts).unwrap().events, second.events[1..]);
        let bare = next(keys).unwrap();
        let kv = &bare.events[0].event.kv;
        assert_eq!((kv.value.as_ref(), kv.value_bytes), (&b""[..], 3));
        assert_eq!(bare.events[0].prev_kv.as_ref().unwrap().value, "");
    }
}

#[test]
fn each_event_finds_its_watchers_among_ten_thousand_without_asking_the_others() {
    const WATCHERS: usize = 10_000;
    let mut rig = Rig::new(WatchOptions::default());
    let mut watchers: Vec<_> = (0..WATCHERS)
        .map(|n| match n % 2 {
            0 => rig.watch(KeyRange::Key(format!("/k/{n:05}").into()), 0),
            _ => rig.watch(KeyRange::prefix(format!("/d/{n:05}/").as_bytes()), 0),
        })
        .collect();
    let mut everything = rig.watch(KeyRange::From(Bytes::new()), 0);
    rig.wait_synced();
    let before = rig.store.watch_stats();
    assert_eq!(before.watchers, WATCHERS + 1);
    const WRITES: usize = 500;
    let mut expected = vec![Vec::new(); WATCHERS];
    for write in 0..WRITES {
        let (own, foreign) = ((write * 7_919) % WATCHERS, (write * 31) % WATCHERS);
        let key = |n: usize| match n % 2 {
            0 => format!("/k/{n:05}"),
            _ => format!("/d/{n:05}/x"),
        };
        let ops = vec![Op::put(key(own), "x"), Op::put(format!("/none/{foreign}"), "y")];
        let revision = rig.apply(ops);
        expected[own].push(revision);
    }
    for _ in 0..WRITES {
        assert_eq!(next(&mut everything).unwrap().events.len(), 2);
    }
    wait_until("progress", || everything.progress() == Revision(1 + WRITES as u64));
    for (watcher, expected) in watchers.iter_mut().zip(&expected) {
        for revision in expected {
            let found = next(watcher).unwrap();
            assert_eq!((found.stamp.revision, found.events.len()), (*revision, 1));
        }
        assert!(poll(watcher).is_none());
        assert_eq!(watcher.progress(), everything.progress(), "idle ones learn progress too");
    }
    let after = rig.store.watch_stats();
    // Its watcher and the one of everything for the one key, the latter alone for the other.
    assert_eq!(after.visited - before.visited, 3 * WRITES as u64);
    let steps = (after.index_steps - before.index_steps) / (2 * WRITES as u64);
    assert!(steps < 120, "{steps} places looked at for an event");
    assert_eq!(after.revisions_read, before.revisions_read, "synced watchers need no tree");
}

#[test]
fn those_behind_share_one_reading_of_the_revisions() {
    const REVISIONS: u64 = 4_000;
    const WATCHERS: u64 = 400;
    let mut rig = Rig::new(WatchOptions::default());
    for n in 0..REVISIONS {
        rig.put(&format!("/{:03}/{n}", n % WATCHERS), "value");
    }
    let watchers = (0..WATCHERS).map(|n| {
        // At different revisions: the pass meets them where they stand.
        rig.watch(KeyRange::prefix(format!("/{n:03}/").as_bytes()), 2 + n)
    });
    let mut watchers: Vec<_> = watchers.collect();
    for (n, watcher) in watchers.iter_mut().enumerate() {
        for round in 0..REVISIONS / WATCHERS {
            let expected = Revision(2 + round * WATCHERS + n as u64);
            assert_eq!(next(watcher).unwrap().stamp.revision, expected);
        }
    }
    rig.wait_synced();
    let stats = rig.store.watch_stats();
    // A second sweep, and a third, for those who joined while the first was on its way.
    assert!(stats.revisions_read <= 3 * REVISIONS, "{stats:?}");
    assert_eq!(stats.versions_read, REVISIONS, "each event is looked up once");
}

#[test]
fn a_watcher_that_does_not_read_costs_bounded_memory_and_disturbs_no_other() {
    let watch = WatchOptions { watcher_bytes_max: 64 << 10, ..WatchOptions::default() };
    let mut rig = Rig::new(watch.clone());
    let mut sleeper = rig.watch(KeyRange::prefix(b"/"), 0);
    let mut reader = rig.watch(KeyRange::prefix(b"/"), 0);
    rig.wait_synced();
    let value = "v".repeat(1_000);
    const REVISIONS: u64 = 1_000;
    for n in 0..REVISIONS {
        let revision = rig.put(&format!("/{n}"), &value);
        assert_eq!(next(&mut reader).unwrap().stamp.revision, revision);
    }
    let stats = rig.store.watch_stats();
    assert!(stats.buffered_bytes <= watch.watcher_bytes_max, "{stats:?}");
    assert_eq!(stats.synced, 1, "the sleeper waits for nobody, and nobody for it");
    assert_eq!(stats.revisions_read, 0, "nothing is read for one who does not read");
    for n in 0..REVISIONS {
        assert_eq!(next(&mut sleeper).unwrap().stamp.revision, Revision(2 + n));
    }
    rig.wait_synced();
    assert_eq!(rig.store.watch_stats().buffered_bytes, 0);
    let revision = rig.put("/after", "x");
    assert_eq!(next(&mut sleeper).unwrap().stamp.revision, revision);
    drop(sleeper);
    wait_until("one watcher left", || rig.store.watch_stats().watchers == 1);
}

#[test]
fn a_sleeper_below_the_compacted_revision_is_told() {
    let watch = WatchOptions { watcher_bytes_max: 2_000, ..WatchOptions::default() };
    let mut rig = Rig::new(watch);
    let mut sleeper = rig.watch(KeyRange::prefix(b"/"), 0);
    let mut idle = rig.watch(KeyRange::prefix(b"/idle/"), 0);
    rig.wait_synced();
    for n in 0..100 {
        rig.put("/k", &n.to_string());
    }
    wait_until("it was parked", || rig.store.watch_stats().synced == 1);
    rig.compact(Revision(90));
    let mut last = Revision(1);
    let error = loop {
        match next(&mut sleeper) {
            Ok(found) => {
                assert_eq!(found.stamp.revision, last.next());
                last = found.stamp.revision;
            }
            Err(error) => break error,
        }
    };
    let compacted = Revision(90);
    assert_eq!(error, ReadError::Compacted { requested: last.next(), compacted });
    assert_eq!(next(&mut sleeper).err(), Some(error), "a watch ends for good");
    // Who has missed nothing knows it, and begins again behind the compaction.
    assert!(poll(&mut idle).is_none());
    assert_eq!(idle.progress(), Revision(101));
}

/// Holds the thread that wakes until it is released.
#[derive(Default)]
struct Hold {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Wake for Hold {
    fn wake(self: Arc<Self>) {
        let mut state = self.state.lock().unwrap();
        state.0 = true;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |(_, released)| !*released).unwrap());
    }
}

#[test]
fn apply_does_not_wait_for_the_hub_and_a_full_queue_loses_nothing() {
    let watch = WatchOptions { queue_bytes_max: 10_000, ..WatchOptions::default() };
    let mut rig = Rig::new(watch);
    let mut watcher = rig.watch(KeyRange::prefix(b"/"), 0);
    rig.wait_synced();
    let hold = Arc::new(Hold::default());
    assert!(watcher.poll_next(&Waker::from(Arc::clone(&hold))).is_pending());
    rig.put("/k", "0");
    let state = hold.state.lock().unwrap();
    drop(hold.changed.wait_while(state, |(held, _)| !*held).unwrap());
    // The hub is held: what follows overflows its queue.
    let mut late = rig.watch(KeyRange::prefix(b"/"), 0);
    const WRITES: u64 = 500;
    for n in 0..WRITES {
        rig.put("/k", &n.to_string());
    }
    assert_eq!(rig.store.watch_stats().revisions_read, 0);
    hold.state.lock().unwrap().1 = true;
    hold.changed.notify_all();
    for n in 0..=WRITES {
        assert_eq!(next(&mut watcher).unwrap().stamp.revision, Revision(2 + n));
    }
    for n in 1..=WRITES {
        assert_eq!(next(&mut late).unwrap().stamp.revision, Revision(2 + n));
    }
    assert!(rig.store.watch_stats().revisions_read > 0);
    let revision = rig.put("/k", "after");
    assert_eq!(next(&mut watcher).unwrap().stamp.revision, revision);
    assert_eq!(next(&mut late).unwrap().stamp.revision, revision);
}

#[test]
fn a_revision_larger_than_every_bound_comes_whole() {
    let watch = WatchOptions {
        queue_bytes_max: 1,
        watcher_bytes_max: 1,
        buffered_bytes_max: 1,
        batch_revisions: 1,
        batch_rows: 1,
        batch_bytes: 1,
    };
    let mut rig = Rig::new(watch);
    let mut live = rig.watch(KeyRange::prefix(b"/"), 0);
    for _ in 0..3 {
        rig.apply((0..200).map(|n| Op::put(format!("/{n:03}"), "value")).collect());
    }
    let mut late = rig.watch(KeyRange::prefix(b"/"), 2);
    for watcher in [&mut live, &mut late] {
        for main in 2..5 {
            let found = next(watcher).unwrap();
            assert_eq!((found.stamp.revision, found.events.len()), (Revision(main), 200));
        }
    }
}

#[test]
fn closing_the_store_ends_its_watches_after_what_they_hold() {
    let mut rig = Rig::new(WatchOptions::default());
    let mut watcher = rig.watch(KeyRange::prefix(b"/"), 0);
    rig.wait_synced();
    let revision = rig.put("/k", "1");
    wait_until("delivered", || rig.store.watch_stats().delivered == 1);
    rig.store.close().unwrap();
    assert_eq!(next(&mut watcher).unwrap().stamp.revision, revision);
    let ended = next(&mut watcher);
    assert!(matches!(ended, Err(ReadError::Store(StoreError::Closed { .. }))), "{ended:?}");
    let refused = rig.store.watch(WatchRequest::default()).err();
    assert!(matches!(refused, Some(ReadError::Store(StoreError::Closed { .. }))), "{refused:?}");
}
