//! Numbers of keys, which a store remembers by parts, beside keys that appear and vanish.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use revfs_store::types::{Author, KeyRange, Op, RangeQuery, Revision, Time};
use revfs_store::{Body, Command, ReadError, ReadView, Store};

use crate::concurrent::{options, position};
use crate::random::{Random, seed};
use crate::scenario::command;

/// Several of the store's sections.
const KEYS: u64 = 3_000;

fn key(number: u64) -> Bytes {
    format!("/counts/{number:06}").into()
}

/// Keys side by side, which are put, or deleted at once.
fn change(random: &mut Random) -> Vec<Op> {
    let from = random.below(KEYS);
    let until = from + 1 + random.below(40);
    if random.one_in(3) {
        let range = KeyRange::Span { start: key(from), end: key(until) };
        return vec![Op::Delete { range, prev_kv: false }];
    }
    (from..until).map(|number| Op::put(key(number), Bytes::new())).collect()
}

fn range(random: &mut Random) -> KeyRange {
    if random.one_in(4) {
        return KeyRange::prefix(b"/counts/");
    }
    let from = random.below(KEYS);
    KeyRange::Span { start: key(from), end: key(from + random.below(KEYS)) }
}

/// What is counted is what is listed.
fn check(view: &ReadView, at: Revision, random: &mut Random) -> Result<u64, ReadError> {
    let query = RangeQuery { keys_only: true, ..RangeQuery::new(range(random)) };
    let listed = view.range(at, &query)?;
    let listed = u64::try_from(listed.kvs.len()).unwrap();
    let counted = view.range(at, &RangeQuery { count_only: true, ..query.clone() })?;
    assert_eq!(counted.count, listed, "{:?} at {at}, current {}", query.range, view.current());
    let limited = view.range(at, &RangeQuery { limit: 7, ..query.clone() })?;
    assert_eq!(limited.count, listed, "{:?} at {at}, with a limit", query.range);
    Ok(listed)
}

fn read(store: &Store, done: &AtomicBool, mut random: Random) -> u64 {
    let mut found = 0;
    while !done.load(Ordering::Relaxed) {
        let view = store.read_view().unwrap();
        let back = if random.one_in(2) { 0 } else { random.below(100) };
        let at = Revision(view.current().0.saturating_sub(back).max(1));
        match check(&view, at, &mut random) {
            Ok(count) => found += count,
            Err(ReadError::Compacted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    found
}

#[test]
fn what_is_counted_is_what_is_listed_while_keys_appear_and_vanish() {
    let mut random = Random::new(seed());
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::create(dir.path(), options()).unwrap());
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (store, done) = (Arc::clone(&store), Arc::clone(&done));
            let random = Random::new(random.next());
            std::thread::spawn(move || read(&store, &done, random))
        })
        .collect();
    let mut index = 0;
    for turn in 1..=600 {
        index += 1;
        store.apply(position(index), &command(change(&mut random), Time(1))).unwrap();
        if turn % 100 == 0 {
            index += 1;
            let revision = Revision(store.read_view().unwrap().current().0 - 20);
            let (author, note, body) =
                (Author::default(), Bytes::new(), Body::Compact { revision });
            store.apply(position(index), &Command { time: Time(1), author, note, body }).unwrap();
        }
    }
    done.store(true, Ordering::Relaxed);
    let found: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
    assert!(found > 0, "nobody counted anything");
    // What is known does not outlive the store.
    let current = store.read_view().unwrap().current();
    store.close().unwrap();
    drop(Arc::into_inner(store).unwrap());
    let store = Store::open(dir.path(), options()).unwrap();
    for at in [current, Revision(current.0 - 10), current] {
        check(&store.read_view().unwrap(), at, &mut random).unwrap();
    }
}
