//! All versions of all keys, and every question about them.
//!
//! What holds after each commit:
//! - revision 1 is the empty store; revision n has the stamp `stamps[n - 1]` and changed the keys
//!   `changed[n - 1]`, each once, in that order;
//! - a key's rows ascend strictly in their revisions, and a deletion follows a value;
//! - [`Directories`] says at each revision what listing the keys would say.

mod directories;

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use revfs_api::keyspace::{
    Answer, Author, ChangeKind, ChangesAnswer, ChangesRequest, DirectoryAnswer, Error, Event,
    HistoryRequest, KeyRange, KeyValue, LeaseId, ListAnswer, ListEntry, ListRead, Origin,
    RangeAnswer, RangeRead, Read, Result, Revision, RevisionEvents, Stamp, Time, Version,
};

pub(super) use directories::Arrivals;
use directories::Directories;

/// One version of a key; `kv` is `None` for a deletion.
struct Row {
    revision: Revision,
    time: Time,
    kv: Option<KeyValue>,
}

/// What a transaction changed.
#[derive(Default)]
pub(crate) struct Changes {
    /// Each key once, in order, with its new state.
    pub keys: Vec<(Bytes, Option<KeyValue>)>,
    pub(super) arrivals: Arrivals,
    /// Each key that another was moved to, with that other.
    pub moves: BTreeMap<Bytes, Bytes>,
}

pub(super) struct State {
    keys: BTreeMap<Bytes, Vec<Row>>,
    directories: Directories,
    stamps: Vec<Stamp>,
    changed: Vec<Vec<Bytes>>,
    /// `None` before the first compaction: revision 0 may be compacted, once.
    compacted: Option<Revision>,
    /// The last number given to a lease.
    pub(super) last_lease: i64,
    /// Seconds granted.
    pub(super) leases: BTreeMap<LeaseId, i64>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            keys: BTreeMap::new(),
            directories: Directories::default(),
            stamps: vec![Stamp { revision: Revision(1), ..Stamp::default() }],
            changed: vec![Vec::new()],
            compacted: None,
            last_lease: 0,
            leases: BTreeMap::new(),
        }
    }
}

impl State {
    pub(super) fn current(&self) -> Revision {
        Revision(self.stamps.len() as u64)
    }

    /// [`Revision::NONE`] before the first compaction.
    pub(super) fn compacted(&self) -> Revision {
        self.compacted.unwrap_or_default()
    }

    /// The revision to read at, the current one for [`Revision::NONE`].
    pub(super) fn check_revision(&self, requested: Revision) -> Result<Revision> {
        let current = self.current();
        if requested == Revision::NONE {
            return Ok(current);
        }
        if requested > current {
            return Err(Error::Future { requested, current });
        }
        self.check_kept(requested).map(|()| requested)
    }

    /// The upper end of a question: what lies in the future is not there yet.
    fn up_to(&self, revision: Revision) -> Revision {
        if revision == Revision::NONE { self.current() } else { revision.min(self.current()) }
    }

    /// Refuses a revision below the compacted one, which itself can still be read.
    pub(super) fn check_kept(&self, requested: Revision) -> Result<()> {
        let compacted = self.compacted();
        if requested < compacted {
            return Err(Error::Compacted { requested, compacted });
        }
        Ok(())
    }

    pub(super) fn commit(&mut self, changes: Changes, clock: Time, origin: Origin) {
        let revision = self.current().next();
        let time = self.next_time(clock);
        let author = Author { principal: String::new(), claimed: origin.claimed };
        let mut flips = Vec::new();
        let mut changed = Vec::new();
        for (key, kv) in changes.keys {
            if self.get(&key, self.current()).is_some() != kv.is_some() {
                flips.push((key.clone(), kv.is_some()));
            }
            self.keys.entry(key.clone()).or_default().push(Row { revision, time, kv });
            changed.push(key);
        }
        self.directories.commit(&flips, &changes.arrivals, revision, time);
        self.stamps.push(Stamp { revision, time, author, note: origin.note });
        self.changed.push(changed);
    }

    /// Time of the next revision: never before that of the last.
    pub(super) fn next_time(&self, clock: Time) -> Time {
        clock.max(self.stamps.last().map_or(clock, |stamp| stamp.time))
    }

    pub(super) fn compact(&mut self, revision: Revision) -> Result<()> {
        let current = self.current();
        if revision > current {
            return Err(Error::Future { requested: revision, current });
        }
        if let Some(compacted) = self.compacted.filter(|compacted| revision <= *compacted) {
            return Err(Error::Compacted { requested: revision, compacted });
        }
        self.compacted = Some(revision);
        Ok(())
    }

    pub(super) fn get(&self, key: &[u8], at: Revision) -> Option<&KeyValue> {
        newest(self.keys.get(key)?, at)?.kv.as_ref()
    }

    /// The keys of `range` that live at a revision, in order.
    pub(super) fn range(&self, range: &KeyRange, at: Revision) -> impl Iterator<Item = &KeyValue> {
        self.keys.range(bounds(range)).filter_map(move |(_, rows)| newest(rows, at)?.kv.as_ref())
    }

    pub(super) fn answer(&self, read: &Read, at: Revision) -> Result<Answer> {
        Ok(match read {
            Read::Range(read) => Answer::Range(range_answer(self.range(&read.range, at), read)?),
            Read::List(read) => Answer::List(self.list(read, at)),
            Read::Directory(prefix) => Answer::Directory(self.directories.at(prefix, at)),
        })
    }

    fn list(&self, read: &ListRead, at: Revision) -> ListAnswer {
        let limit = if read.limit == 0 { usize::MAX } else { read.limit };
        let mut names = self.directories.names(&read.directory, &read.after, at).peekable();
        // The empty name comes first and does not count.
        let marker = names.next_if(|name| name.is_empty());
        let entries = marker.into_iter().chain(names.by_ref().take(limit)).map(|name| {
            let key = Bytes::from([read.directory.as_ref(), name.as_ref()].concat());
            let directory: Option<DirectoryAnswer> =
                name.ends_with(b"/").then(|| self.directories.at(&key, at));
            let kv = self.get(&key, at).map(|kv| shown(kv, !read.with_values));
            ListEntry { name: name.clone(), kv, directory }
        });
        let entries = entries.collect();
        ListAnswer { entries, more: names.next().is_some() }
    }

    /// What is known of a revision. Below the compacted one that is only its time.
    pub(super) fn stamp(&self, revision: Revision) -> Stamp {
        let stamp = &self.stamps[index_of(revision)];
        if revision < self.compacted() {
            return Stamp { revision, time: stamp.time, ..Stamp::default() };
        }
        stamp.clone()
    }

    pub(super) fn revision_at(&self, time: Time) -> Result<Revision> {
        // Revision 1 was before all time.
        let later = self.stamps.iter().skip(1).take_while(|stamp| stamp.time <= time);
        let revision = later.last().map_or(Revision(1), |stamp| stamp.revision);
        self.check_kept(revision)?;
        Ok(revision)
    }

    pub(super) fn history(&self, request: &HistoryRequest) -> Vec<Version> {
        let at_most = self.up_to(request.at_most);
        let limit = if request.limit == 0 { usize::MAX } else { request.limit };
        let rows = self.keys.get(&request.key).map_or(&[][..], Vec::as_slice);
        // Of what a compaction has passed, the version that it still reads is kept, and a deletion
        // only at the very revision.
        let compacted = self.compacted();
        let oldest = newest(rows, compacted)
            .filter(|row| row.kv.is_some() || row.revision == compacted)
            .map_or(compacted.next(), |row| row.revision);
        let kept = rows.iter().rev().filter(|row| (oldest..=at_most).contains(&row.revision));
        kept.take(limit)
            .map(|row| Version {
                event: event(&request.key, row, request.keys_only),
                stamp: self.stamp(row.revision),
            })
            .collect()
    }

    pub(super) fn changes(&self, request: &ChangesRequest) -> Result<ChangesAnswer> {
        self.check_kept(request.from)?;
        let to = self.up_to(request.to);
        let or_all = |limit: usize| if limit == 0 { usize::MAX } else { limit };
        let (limit, scan_limit) = (or_all(request.limit), or_all(request.scan_limit));
        let mut answer = ChangesAnswer { current: self.current(), ..ChangesAnswer::default() };
        // Revision 1 changed nothing.
        let span = request.from.0.max(2)..=to.0;
        let revisions: Box<dyn Iterator<Item = u64>> =
            if request.newest_first { Box::new(span.rev()) } else { Box::new(span) };
        for (index, revision) in revisions.map(Revision).enumerate() {
            if index == scan_limit || answer.revisions.len() == limit {
                answer.next = Some(revision);
                break;
            }
            let events = self.events(revision, request);
            if !events.is_empty() {
                let stamp = self.stamp(revision);
                answer.revisions.push(RevisionEvents { stamp, events });
            }
        }
        Ok(answer)
    }

    fn events(&self, revision: Revision, request: &ChangesRequest) -> Vec<Event> {
        self.changed[index_of(revision)]
            .iter()
            .filter(|key| request.ranges.iter().any(|range| range.contains(key)))
            .filter_map(|key| {
                Some(event(key, newest(self.keys.get(key)?, revision)?, request.keys_only))
            })
            .collect()
    }
}

fn index_of(revision: Revision) -> usize {
    usize::try_from(revision.0 - 1).expect("a revision that was checked is an index of the stamps")
}

/// The newest row not above `at`.
fn newest(rows: &[Row], at: Revision) -> Option<&Row> {
    rows[..rows.partition_point(|row| row.revision <= at)].last()
}

pub(crate) fn bounds(range: &KeyRange) -> (Bound<Bytes>, Bound<Bytes>) {
    let start = range.start().clone();
    let end = match range {
        KeyRange::Key(key) => Bound::Included(key.clone()),
        // `BTreeMap` refuses an end below the start; here it means "nothing".
        KeyRange::Span { start, end } => Bound::Excluded(end.max(start).clone()),
        KeyRange::From(_) => Bound::Unbounded,
    };
    (Bound::Included(start), end)
}

fn event(key: &Bytes, row: &Row, keys_only: bool) -> Event {
    match &row.kv {
        Some(kv) => Event { kind: ChangeKind::Put, kv: shown(kv, keys_only) },
        None => Event {
            kind: ChangeKind::Delete,
            kv: KeyValue {
                key: key.clone(),
                mod_revision: row.revision,
                time: row.time,
                ..KeyValue::default()
            },
        },
    }
}

fn shown(kv: &KeyValue, keys_only: bool) -> KeyValue {
    let mut kv = kv.clone();
    if keys_only {
        kv.value = Bytes::new();
    }
    kv
}

/// Cuts what a range holds to what was asked for.
///
/// # Errors
/// A question that no mount asks.
pub(crate) fn range_answer<'a>(
    kvs: impl Iterator<Item = &'a KeyValue>,
    read: &RangeRead,
) -> Result<RangeAnswer> {
    if !read.is_plain() {
        return Err(Error::Unsupported("a range in memory with a revision, an order or bounds"));
    }
    let mut answer = RangeAnswer::default();
    for kv in kvs {
        answer.count += 1;
        if read.count_only {
            continue;
        }
        if read.limit > 0 && answer.kvs.len() == read.limit {
            answer.more = true;
        } else {
            answer.kvs.push(shown(kv, read.keys_only));
        }
    }
    Ok(answer)
}
