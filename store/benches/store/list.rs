//! Lists of 100 names: their cost must not follow the keys below, beside or before them.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use revfs_store::types::{KeyRange, ListQuery, Op, Revision};
use revfs_store::{Store, StoreOptions};

use crate::figures::{Bound, Figure, timed};
use crate::load::{Loaded, Values, txn};
use crate::{Outcome, Settings};

const NAMES: usize = 100;
const VALUE: usize = 64;

pub(crate) fn run(settings: &Settings, dir: &Path) -> Outcome<Vec<Figure>> {
    let values = Values::new();
    let many = settings.size(1_000_000).max(10_000);
    let mut loaded = Loaded::create(&dir.join("store"), StoreOptions::default())?;
    tree(&mut loaded, "few", 1_000, &values)?;
    let before = tree(&mut loaded, "beside", 1_000, &values)?;
    tree(&mut loaded, "many", many, &values)?;
    let sibling = |n: usize| format!("/beside/gone/{n:09}");
    for from in (0..many).step_by(1_000) {
        let put = |n| Op::put(sibling(n), values.get(n, VALUE));
        loaded.apply(&txn((from..from + 1_000).map(put).collect()))?;
    }
    for from in (0..many).step_by(50_000) {
        let start = Bytes::from(sibling(from));
        let end = Bytes::from(sibling(from + 50_000));
        let range = KeyRange::Span { start, end };
        loaded.apply(&txn(vec![Op::Delete { range, prev_kv: false }]))?;
    }
    loaded.store.commit()?;
    let now = Revision::NONE;
    let mut cases: [Vec<(Duration, Duration)>; 3] = Default::default();
    for _ in 0..settings.rounds * 100 {
        let few = timed_list(&loaded.store, "/few/", now)?;
        cases[0].push((timed_list(&loaded.store, "/many/", now)?, few));
        cases[1].push((timed_list(&loaded.store, "/beside/", now)?, few));
        cases[2].push((timed_list(&loaded.store, "/beside/", before)?, few));
    }
    let [above, beside, before] = cases;
    let name = |what: &str| format!("list of 100 names {what}, against above 1,000 keys");
    Ok(vec![
        Figure::times(&name(&format!("above {many} keys")), &above, Bound::AtMost(2.0)),
        Figure::times(
            &name(&format!("beside a sibling whose {many} keys were deleted")),
            &beside,
            Bound::AtMost(3.0),
        ),
        Figure::times(&name("at a revision before those were made"), &before, Bound::AtMost(3.0)),
    ])
}

/// 100 names with `keys` below them, all in all.
fn tree(loaded: &mut Loaded, top: &str, keys: usize, values: &Values) -> Outcome<Revision> {
    let mut revision = Revision::NONE;
    let key = |n: usize| format!("/{top}/{:03}/{:09}", n % NAMES, n / NAMES);
    for from in (0..keys).step_by(1_000) {
        let put = |n| Op::put(key(n), values.get(n, VALUE));
        revision = loaded.apply(&txn((from..from + 1_000).map(put).collect()))?;
    }
    Ok(revision)
}

fn timed_list(store: &Store, directory: &'static str, at: Revision) -> Outcome<Duration> {
    let query = ListQuery {
        directory: Bytes::from_static(directory.as_bytes()),
        after: Bytes::new(),
        limit: NAMES,
        with_values: false,
    };
    let (time, listed) = timed(|| -> Outcome<_> { Ok(store.read_view()?.list(at, &query)?) });
    assert_eq!(std::hint::black_box(listed?).entries.len(), NAMES, "every name is listed");
    Ok(time)
}
