//! The past of a real etcd.
//!
//! A version of a key names the revision at which it was put, so the one before it is what was there a
//! revision earlier: a life of a key is walked back, one read for each version. What lies before its
//! creation (a deletion, earlier lives), and what changed between two revisions, only a watch from the past
//! tells. It has come to an end when it has shown that revision; releases that do not say so truly are
//! watched as a whole, where every revision shows.

use std::time::Duration;

use tokio::time::Instant;

use super::Etcd;
use super::plain::{key_value, number, time_of};
use super::watch::{OpenWatch, Watched};
use crate::client::resuming::{Source, Step, Stream};
use crate::keyspace::{
    ChangeKind, ChangesAnswer, ChangesRequest, Error, Event, HistoryRequest, KeyRange, Result,
    Revision, RevisionEvents, Stamp, Version,
};
use crate::wire::etcdserverpb as pb;

/// Revisions that are watched at a time while changes are sought from the newest back; then four times as
/// many.
const WINDOW_FIRST: u64 = 512;
const WINDOW_MAX: u64 = 65_536;

/// How often a watch is asked how far it has come.
const ASK_EVERY: Duration = Duration::from_millis(20);

impl Etcd {
    /// The changes of `ranges` from `from` to `to`, both included and in the past.
    async fn scan(
        &self,
        ranges: &[KeyRange],
        from: Revision,
        to: Revision,
    ) -> Result<Vec<RevisionEvents>> {
        if from > to {
            return Ok(Vec::new());
        }
        let watched = match self.has_exact_progress {
            true => ranges.to_vec(),
            false => vec![KeyRange::From(bytes::Bytes::new())],
        };
        let timeout = self.client.settings().call_timeout;
        let deadline = Instant::now() + timeout;
        let (mut watch, _) =
            Watched { client: self.client.clone(), ranges: watched }.open(from).await?;
        let mut found = Vec::new();
        loop {
            let step = tokio::time::timeout_at(deadline, self.step(&mut watch)).await;
            let at = match step.map_err(|_| Error::Timeout(timeout))?? {
                Step::Progress(progress) => progress,
                Step::Revision(mut whole) => {
                    let at = whole.stamp.revision;
                    whole
                        .events
                        .retain(|event| ranges.iter().any(|range| range.contains(&event.kv.key)));
                    if at <= to && !whole.events.is_empty() {
                        found.push(whole);
                    }
                    at
                }
            };
            if at >= to {
                return Ok(found);
            }
        }
    }

    async fn step(&self, watch: &mut OpenWatch) -> Result<Step> {
        if !self.has_exact_progress {
            return watch.receive().await;
        }
        loop {
            watch.ask_progress();
            if let Ok(step) = tokio::time::timeout(ASK_EVERY, watch.receive()).await {
                return step;
            }
        }
    }

    pub(super) async fn changes_between(&self, request: ChangesRequest) -> Result<ChangesAnswer> {
        let (current, compacted) = (self.current().await?, self.compacted().await?);
        if request.from < compacted {
            return Err(Error::Compacted { requested: request.from, compacted });
        }
        if request.from > current.next() {
            return Err(Error::Future { requested: request.from, current });
        }
        let first = request.from.0.max(2);
        let last = if request.to == Revision::NONE { current } else { request.to.min(current) }.0;
        let limit = if request.limit == 0 { usize::MAX } else { request.limit };
        let scan = match request.scan_limit {
            0 => u64::MAX,
            limit => u64::try_from(limit).unwrap_or(u64::MAX),
        };
        let mut answer = ChangesAnswer { current, ..ChangesAnswer::default() };
        if first > last {
            return Ok(answer);
        }
        // What may be looked at: the newest part of it, or the oldest.
        let (low, high) = match request.newest_first {
            true => (first.max(last.saturating_sub(scan - 1)), last),
            false => (first, last.min(first.saturating_add(scan - 1))),
        };
        answer.next = match request.newest_first {
            true => (low > first).then(|| Revision(low - 1)),
            false => (high < last).then(|| Revision(high + 1)),
        };
        let mut window = WINDOW_FIRST;
        let (mut low_left, mut high_left) = (low, high);
        while low_left <= high_left && answer.revisions.len() < limit {
            let part = match request.newest_first {
                true => (low_left.max(high_left.saturating_sub(window - 1)), high_left),
                false => (low_left, high_left),
            };
            let mut found = self.scan(&request.ranges, Revision(part.0), Revision(part.1)).await?;
            if request.newest_first {
                found.reverse();
                high_left = part.0 - 1;
            } else {
                low_left = part.1 + 1;
            }
            answer.revisions.extend(found);
            window = (window * 4).min(WINDOW_MAX);
        }
        if answer.revisions.len() > limit {
            answer.next = answer.revisions.get(limit).map(|cut| cut.stamp.revision);
            answer.revisions.truncate(limit);
        } else if low_left <= high_left && request.newest_first {
            answer.next = Some(Revision(high_left));
        }
        if request.keys_only {
            let events = answer.revisions.iter_mut().flat_map(|revision| &mut revision.events);
            events.for_each(without_value);
        }
        Ok(answer)
    }

    pub(super) async fn walk_back(&self, request: HistoryRequest) -> Result<Vec<Version>> {
        let (current, compacted) = (self.current().await?, self.compacted().await?);
        let limit = if request.limit == 0 { usize::MAX } else { request.limit };
        let newest = match request.at_most {
            Revision::NONE => current,
            at_most => at_most.min(current),
        };
        let mut versions = Vec::new();
        let mut top = newest;
        while versions.len() < limit && top >= compacted && top > Revision(1) {
            let ask = pb::RangeRequest {
                key: request.key.clone(),
                revision: number(top),
                ..pb::RangeRequest::default()
            };
            let found = match self.range(ask).await {
                Ok(found) => found.kvs.into_iter().next(),
                // It was compacted meanwhile.
                Err(Error::Compacted { .. }) => break,
                Err(error) => return Err(error),
            };
            let Some(kv) = found else {
                // Deleted, or not there yet: only a watch knows.
                let from = compacted.next().max(Revision(2));
                let ranges = [KeyRange::Key(request.key.clone())];
                let scanned = self.scan(&ranges, from, top).await?;
                let events = scanned.into_iter().rev();
                versions.extend(events.flat_map(|revision| revision.events).map(version));
                break;
            };
            let kv = key_value(kv, false);
            top = Revision(kv.mod_revision.0.saturating_sub(1));
            versions.push(version(Event { kind: ChangeKind::Put, kv }));
        }
        versions.truncate(limit);
        if request.keys_only {
            versions.iter_mut().for_each(|version| without_value(&mut version.event));
        }
        Ok(versions)
    }
}

fn version(event: Event) -> Version {
    let revision = event.kv.mod_revision;
    let stamp = Stamp { revision, time: time_of(revision), ..Stamp::default() };
    Version { event, stamp }
}

fn without_value(event: &mut Event) {
    event.kv.value = bytes::Bytes::new();
}
