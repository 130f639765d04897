//! Gets and ranges, against raw LMDB with a read transaction of its own and a copy of what is read.

use std::ops::Bound as RangeBound;
use std::path::Path;
use std::time::Duration;

use revfs_store::schema::{Tree, key_row};
use revfs_store::types::{KeyRange, Op, RangeQuery, Revision};
use revfs_store::{Store, StoreOptions};

use crate::figures::{Bound, Figure, timed};
use crate::load::{Loaded, Random, VALUE_BYTES, Values, key, txn};
use crate::peer::{Peer, PeerRow};
use crate::{Outcome, Settings};

const RANGE_KEYS: usize = 1_000;
const GETS: usize = 1_000;

type Pairs = Vec<(Duration, Duration)>;

/// Many short rounds: the median then forgets those that another process disturbed.
fn rounds(settings: &Settings) -> usize {
    settings.rounds * 40
}

fn range(from: usize) -> RangeQuery {
    RangeQuery::new(KeyRange::Span { start: key(from), end: key(from + RANGE_KEYS) })
}

/// One get and a range of 1,000 of 1,000,000 keys with one version each.
pub(crate) fn one_version(settings: &Settings, dir: &Path) -> Outcome<Vec<Figure>> {
    let values = Values::new();
    let count = settings.size(1_000_000).max(2 * RANGE_KEYS);
    let mut loaded = Loaded::create(&dir.join("store"), StoreOptions::default())?;
    loaded.fill(0..count, &values)?;
    loaded.store.commit()?;
    let peer = Peer::create(&dir.join("peer"))?;
    let rows = |numbers: std::ops::Range<usize>| -> Vec<PeerRow> {
        numbers
            .map(|n| (Tree::Keys, key(n).to_vec(), values.get(n, VALUE_BYTES).to_vec()))
            .collect()
    };
    for from in (0..count).step_by(100_000) {
        peer.put_all(&rows(from..count.min(from + 100_000)))?;
    }
    let mut random = Random(2);
    let (mut gets, mut ranges) = (Pairs::new(), Pairs::new());
    for _ in 0..rounds(settings) {
        let keys: Vec<_> = (0..GETS).map(|_| key(random.below(count))).collect();
        let (ours, done) = timed(|| get_ours(&loaded.store, &keys));
        let (raw, peers) = timed(|| get_raw(&peer, &keys));
        assert_eq!(done?, peers?, "both find every key");
        gets.push((ours, raw));
        let from = random.below(count - RANGE_KEYS);
        let (ours, done) = timed(|| range_ours(&loaded.store, Revision::NONE, from));
        let (raw, peers) = timed(|| range_raw(&peer, from));
        assert_eq!(done?, peers?, "both find every key");
        ranges.push((ours, raw));
    }
    Ok(vec![
        Figure::speed(&format!("{GETS} gets, each with its own view"), &gets, Bound::AtLeast(0.4)),
        Figure::speed("range of 1,000 at the current revision", &ranges, Bound::AtLeast(0.5)),
    ])
}

fn get_ours(store: &Store, keys: &[bytes::Bytes]) -> Outcome<usize> {
    let mut bytes = 0;
    for key in keys {
        let found = store.read_view()?.get(Revision::NONE, key, false)?;
        bytes += std::hint::black_box(found).map_or(0, |kv| kv.key.len() + kv.value.len());
    }
    Ok(bytes)
}

fn get_raw(peer: &Peer, keys: &[bytes::Bytes]) -> Outcome<usize> {
    let mut bytes = 0;
    for key in keys {
        let rtxn = peer.env.read_txn()?;
        let found = peer.rows(Tree::Keys).get(&rtxn, key)?.map(<[u8]>::to_vec);
        bytes += std::hint::black_box(found).map_or(0, |value| key.len() + value.len());
    }
    Ok(bytes)
}

fn range_ours(store: &Store, at: Revision, from: usize) -> Outcome<usize> {
    let found = store.read_view()?.range(at, &range(from))?;
    Ok(std::hint::black_box(found).kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum())
}

fn range_raw(peer: &Peer, from: usize) -> Outcome<usize> {
    let rtxn = peer.env.read_txn()?;
    let (start, end) = (key(from), key(from + RANGE_KEYS));
    let bounds = (RangeBound::Included(&start[..]), RangeBound::Excluded(&end[..]));
    let mut copies = Vec::new();
    for row in peer.rows(Tree::Keys).range(&rtxn, &bounds)? {
        let (key, value) = row?;
        copies.push((key.to_vec(), value.to_vec()));
    }
    Ok(std::hint::black_box(copies).iter().map(|(key, value)| key.len() + value.len()).sum())
}

/// A range of 1,000 keys that have 1,000 versions each.
pub(crate) fn many_versions(settings: &Settings, dir: &Path) -> Outcome<Vec<Figure>> {
    let values = Values::new();
    let versions = settings.size(1_000).max(20);
    let mut loaded = Loaded::create(&dir.join("store"), StoreOptions::default())?;
    let peer = Peer::create(&dir.join("peer"))?;
    for version in 0..versions {
        let put = |n| Op::put(key(n), values.get(n + version, VALUE_BYTES));
        let main = loaded.apply(&txn((0..RANGE_KEYS).map(put).collect()))?;
        let rows: Vec<PeerRow> = (0..RANGE_KEYS)
            .map(|n| {
                let value = values.get(n + version, VALUE_BYTES).to_vec();
                (Tree::Keys, key_row(&key(n), main), value)
            })
            .collect();
        peer.put_all(&rows)?;
    }
    loaded.store.commit()?;
    let current = loaded.store.read_view()?.current();
    let old = Revision(current.0 / 2);
    let mut figures = Vec::new();
    for (name, at) in [("current", current), ("old", old)] {
        let mut pairs = Pairs::new();
        let sought: Vec<_> = (0..RANGE_KEYS).map(|n| (key(n), key_row(&key(n), at))).collect();
        for _ in 0..rounds(settings) {
            let (ours, done) = timed(|| range_ours(&loaded.store, at, 0));
            let (raw, peers) = timed(|| seek_raw(&peer, &sought));
            assert_eq!(done?, peers?, "both find every key");
            pairs.push((ours, raw));
        }
        let what = format!("range of 1,000 keys with {versions} versions each, {name} revision");
        figures.push(Figure::speed(&what, &pairs, Bound::AtLeast(0.5)));
    }
    Ok(figures)
}

/// Seeks each row and copies the key and the value.
fn seek_raw(peer: &Peer, sought: &[(bytes::Bytes, Vec<u8>)]) -> Outcome<usize> {
    let rtxn = peer.env.read_txn()?;
    let rows = peer.rows(Tree::Keys);
    let mut copies = Vec::new();
    for (key, row) in sought {
        let found = rows.get_greater_than_or_equal_to(&rtxn, row)?;
        let (_, value) = found.ok_or("a key is missing")?;
        copies.push((key.to_vec(), value.to_vec()));
    }
    Ok(std::hint::black_box(copies).iter().map(|(key, value)| key.len() + value.len()).sum())
}
