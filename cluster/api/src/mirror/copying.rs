//! Copying: both sides are walked in the order of keys, side by side, and only what differs is changed. With
//! each change the record says how far it has come.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::places::Place;
use super::{Mirror, MirrorError, OnStep, Places, Record, Step, Verified};
use crate::KeySpace;
use crate::keyspace::{Answer, KeyRange, KeyValue, Op, RangeRead, Read, Revision};

/// Keys of one page: of the first one, and at most.
const PAGE_FIRST: usize = 16;
const PAGE: usize = 500;

/// Bytes of values in one page, about.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Changes of one transaction: a real etcd takes 128, and the record is one.
pub(super) const BATCH_OPS: usize = 100;

/// Bytes of values in one transaction: a real etcd takes 1.5 MiB.
const BATCH_BYTES: usize = 512 * 1024;

/// One side, at one revision, page by page.
pub(super) struct Side {
    keys: Arc<dyn KeySpace>,
    places: Places,
    is_source: bool,
    keys_only: bool,
    at: Revision,
    /// Whether all pages are of the revision of the first.
    is_one_view: bool,
    /// What is left to read; of the last one only files count, of the others only what lies beside them.
    ranges: VecDeque<KeyRange>,
    page: VecDeque<(Place, KeyValue)>,
    page_keys: usize,
}

impl Side {
    pub(super) fn source(keys: Arc<dyn KeySpace>, places: Places, at: Revision) -> Self {
        let ranges = places.source_ranges().into();
        Self::new(keys, places, at, ranges, true)
    }

    fn destination(keys: Arc<dyn KeySpace>, places: Places, at: Revision) -> Self {
        let ranges = places.destination_ranges().into();
        Self::new(keys, places, at, ranges, false)
    }

    fn new(
        keys: Arc<dyn KeySpace>,
        places: Places,
        at: Revision,
        ranges: VecDeque<KeyRange>,
        is_source: bool,
    ) -> Self {
        let page = VecDeque::new();
        let (keys_only, is_one_view, page_keys) = (false, true, PAGE_FIRST);
        Self { keys, places, is_source, keys_only, at, is_one_view, ranges, page, page_keys }
    }

    /// Each page as it is when it is read. Who alone changes a side, in the order of its keys, needs no view
    /// of it, which could be forgotten under a long copy.
    fn without_view(self) -> Self {
        Self { at: Revision::NONE, is_one_view: false, ..self }
    }

    pub(super) fn without_values(self) -> Self {
        Self { keys_only: true, page_keys: PAGE, ..self }
    }

    /// Leaves out all up to a place, itself too.
    fn behind(mut self, place: &Place) -> Self {
        let key = match self.is_source {
            true => self.places.key_of_source(place),
            false => Some(place.key.clone()),
        };
        let Some(key) = key else { return self };
        let passed = if place.is_file { self.ranges.len().saturating_sub(1) } else { 0 };
        self.ranges.drain(..passed);
        if let Some(range) = self.ranges.pop_front() {
            self.ranges.push_front(behind(&range, &key));
        }
        self
    }

    /// The next key, under the name that it has at the destination.
    pub(super) async fn next(&mut self) -> Result<Option<(Place, KeyValue)>, MirrorError> {
        loop {
            if let Some(next) = self.page.pop_front() {
                return Ok(Some(next));
            }
            let is_files = self.ranges.len() == 1;
            let Some(range) = self.ranges.pop_front() else { return Ok(None) };
            let (limit, keys_only) = (self.page_keys, self.keys_only);
            let read = RangeRead { limit, keys_only, ..RangeRead::new(range.clone()) };
            let answer = self.keys.read(self.at, vec![Read::Range(read)]).await?;
            if self.is_one_view {
                self.at = answer.revision;
            }
            let Some(Answer::Range(found)) = answer.answers.into_iter().next() else { continue };
            if let Some(last) = found.kvs.last().filter(|_| found.more) {
                self.ranges.push_front(behind(&range, &last.key));
            }
            self.page_keys = next_page_keys(limit, &found.kvs);
            let place = |kv: KeyValue| {
                let place = match self.is_source {
                    true => self.places.place_of(&kv.key),
                    false => self.places.place_at_destination(&kv.key),
                };
                place.filter(|place| place.is_file == is_files).map(|place| (place, kv))
            };
            self.page = found.kvs.into_iter().filter_map(place).collect();
        }
    }
}

/// So many keys that they are about [`PAGE_BYTES`], if the next values are like these.
fn next_page_keys(limit: usize, page: &[KeyValue]) -> usize {
    if page.is_empty() {
        return limit;
    }
    let bytes: usize = page.iter().map(|kv| kv.value.len()).sum();
    let fitting = page.len().saturating_mul(PAGE_BYTES) / bytes.max(1);
    fitting.clamp(1, limit.saturating_mul(4).min(PAGE))
}

/// The rest of a range behind a key.
fn behind(range: &KeyRange, key: &[u8]) -> KeyRange {
    let start: Bytes = [key, b"\0"].concat().into();
    match range {
        KeyRange::Span { end, .. } => KeyRange::Span { start, end: end.clone() },
        KeyRange::Key(_) | KeyRange::From(_) => KeyRange::From(start),
    }
}

/// What to do about one key of the destination.
enum Difference {
    Put(Bytes, Bytes),
    Delete(Bytes),
}

impl Difference {
    fn key(&self) -> &Bytes {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }
}

/// Both sides, side by side.
struct Differences {
    source: Side,
    destination: Side,
    wanted: Option<(Place, KeyValue)>,
    found: Option<(Place, KeyValue)>,
    /// Keys that were compared.
    keys: u64,
}

impl Differences {
    async fn begin(mut source: Side, mut destination: Side) -> Result<Self, MirrorError> {
        let (wanted, found) = (source.next().await?, destination.next().await?);
        Ok(Self { source, destination, wanted, found, keys: 0 })
    }

    async fn next(&mut self) -> Result<Option<Difference>, MirrorError> {
        loop {
            let order = match (&self.wanted, &self.found) {
                (None, None) => return Ok(None),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((wanted, _)), Some((found, _))) => wanted.cmp(found),
            };
            self.keys += 1;
            let wanted = if order.is_le() { self.wanted.take() } else { None };
            let found = if order.is_ge() { self.found.take() } else { None };
            if wanted.is_some() {
                self.wanted = self.source.next().await?;
            }
            if found.is_some() {
                self.found = self.destination.next().await?;
            }
            match (wanted, found) {
                (Some((_, wanted)), Some((_, found))) if wanted.value == found.value => {}
                (Some((place, wanted)), _) => {
                    return Ok(Some(Difference::Put(place.key, wanted.value)));
                }
                (None, Some((place, _))) => return Ok(Some(Difference::Delete(place.key))),
                (None, None) => {}
            }
        }
    }
}

/// Makes the destination what the source was at one revision: at that of a copy that was interrupted, or
/// else at `now`.
pub(super) async fn copy(
    mirror: &mut Mirror,
    now: Revision,
    on_step: OnStep<'_>,
) -> Result<(), MirrorError> {
    let is_begun = mirror.record.is_copying && mirror.record.revision <= now;
    let copied = mirror.record.copied.clone().filter(|_| is_begun);
    let behind = copied.and_then(|key| mirror.places.place_at_destination(&key));
    if behind.is_none() {
        mirror.record.revision = now;
        mirror.record.copied = None;
    }
    mirror.record.is_copying = true;
    let revision = mirror.record.revision;
    on_step(Step::Copying { revision, behind: behind.as_ref().map(|place| place.key.clone()) });
    let (mut source, destination) = sides(mirror, revision);
    let mut destination = destination.without_view();
    if let Some(place) = &behind {
        (source, destination) = (source.behind(place), destination.behind(place));
    }
    let mut differences = Differences::begin(source, destination).await?;
    let (mut ops, mut bytes, mut changed) = (Vec::new(), 0, 0);
    let mut last = None;
    while let Some(difference) = differences.next().await? {
        let size = match &difference {
            Difference::Put(_, value) => value.len(),
            Difference::Delete(_) => 0,
        };
        if ops.len() >= BATCH_OPS || (!ops.is_empty() && bytes + size > BATCH_BYTES) {
            let next = Record { copied: last.take(), ..mirror.record.clone() };
            mirror.put(std::mem::take(&mut ops), next).await?;
            on_step(Step::Compared { keys: differences.keys, changed });
            bytes = 0;
        }
        bytes += size;
        changed += 1;
        last = Some(difference.key().clone());
        ops.push(match difference {
            Difference::Put(key, value) => Op::put(key, value),
            Difference::Delete(key) => Op::delete(key),
        });
    }
    // With the last of them it is equal.
    let next = Record { is_copying: false, copied: None, ..mirror.record.clone() };
    mirror.put(ops, next).await?;
    on_step(Step::Copied { revision, changed });
    Ok(())
}

/// The source at `revision`, and the present of the destination.
fn sides(mirror: &Mirror, revision: Revision) -> (Side, Side) {
    let source = Side::source(Arc::clone(&mirror.source), mirror.places.clone(), revision);
    let keys = Arc::clone(&mirror.destination);
    (source, Side::destination(keys, mirror.places.clone(), Revision::NONE))
}

/// The first key of the present destination that is not what the source was at `revision`.
pub(super) async fn first_difference(
    mirror: &Mirror,
    revision: Revision,
) -> Result<Verified, MirrorError> {
    let (source, destination) = sides(mirror, revision);
    let mut differences = Differences::begin(source, destination).await?;
    let differs = differences.next().await?.map(|difference| difference.key().clone());
    Ok(Verified { keys: differences.keys, differs })
}

/// Refuses a destination that holds something.
pub(super) async fn check_empty(
    destination: &Arc<dyn KeySpace>,
    places: &Places,
) -> Result<(), MirrorError> {
    let mut side = Side::destination(Arc::clone(destination), places.clone(), Revision::NONE);
    match side.next().await? {
        None => Ok(()),
        Some(_) => Err(MirrorError::NotEmpty { keys: 1 + side.page.len() }),
    }
}
