//! The reference: what a revisioned key space answers, on plain maps, as slow as it is plain.
//!
//! Written from the rules (etcd's data model; the doc comments of the operations), not from the
//! store: the whole state is copied for every revision.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use revfs_store::schema::Tree;
use revfs_store::types::{
    ChangeKind, ChangesQuery, ChangesResult, Compare, CompareResult, CompareTarget, DirectoryState,
    Event, KeyValue, Lease, LeaseId, ListEntry, ListQuery, ListResult, Op, RangeQuery, RangeResult,
    Revision, RevisionBounds, RevisionEvents, SortOrder, SortTarget, Stamp, Time, Txn, TxnAnswer,
};
use revfs_store::{Body, Command, Done, Outcome, ReadError, Refusal};

mod auth;
mod form;
mod hash;
mod members;
mod run;
mod upload;

pub(crate) use auth::{Accounts, read};
use form::{form, has_duplicates};
pub(crate) use members::Members;
use run::Run;

type Names = BTreeMap<Bytes, (BTreeSet<Bytes>, u64, i64)>;

/// The key space at one revision.
#[derive(Clone, Default)]
struct Moment {
    keys: BTreeMap<Bytes, KeyValue>,
    /// Per directory its names, and when they last changed.
    directories: Names,
}

pub(crate) struct Reference {
    pub(crate) current: u64,
    pub(crate) compacted: Option<u64>,
    time: i64,
    moments: BTreeMap<u64, Rc<Moment>>,
    stamps: BTreeMap<u64, Stamp>,
    /// Changes of each revision in order, with the new version.
    events: BTreeMap<(u64, usize), Event>,
    /// Granted and remaining seconds.
    leases: BTreeMap<i64, (i64, i64)>,
    /// The operations of each part.
    uploads: BTreeMap<i64, BTreeMap<u32, Vec<Op>>>,
    pub(crate) accounts: Accounts,
    pub(crate) members: Members,
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap()
}

fn without_value(mut kv: KeyValue, drop_value: bool) -> KeyValue {
    if drop_value {
        kv.value = Bytes::new();
    }
    kv
}

fn directory_of(key: &[u8]) -> (Bytes, Bytes) {
    let at = key.iter().rposition(|&b| b == b'/').map_or(0, |at| at + 1);
    (Bytes::copy_from_slice(&key[..at]), Bytes::copy_from_slice(&key[at..]))
}

/// Every directory with its names, from the keys alone.
fn names_of(keys: &BTreeMap<Bytes, KeyValue>) -> BTreeMap<Bytes, BTreeSet<Bytes>> {
    let mut all: BTreeMap<Bytes, BTreeSet<Bytes>> = BTreeMap::new();
    for key in keys.keys() {
        let (mut directory, name) = directory_of(key);
        all.entry(directory.clone()).or_default().insert(name);
        while !directory.is_empty() {
            let inner = &directory[..directory.len() - 1];
            let at = inner.iter().rposition(|&b| b == b'/').map_or(0, |at| at + 1);
            let parent = directory.slice(..at);
            all.entry(parent.clone()).or_default().insert(directory.slice(at..));
            directory = parent;
        }
    }
    all
}

/// Which branch runs, nested ones beside their operation.
struct Choice {
    succeeded: bool,
    nested: BTreeMap<usize, Choice>,
}

impl Reference {
    pub(crate) fn new() -> Self {
        Self {
            current: 1,
            compacted: None,
            time: 0,
            moments: [(1, Rc::default())].into(),
            stamps: [(1, Stamp { revision: Revision(1), ..Stamp::default() })].into(),
            events: BTreeMap::new(),
            leases: BTreeMap::new(),
            uploads: BTreeMap::new(),
            accounts: Accounts::default(),
            members: Members::default(),
        }
    }

    pub(crate) fn compacted(&self) -> u64 {
        self.compacted.unwrap_or(0)
    }

    fn now(&self) -> &Moment {
        &self.moments[&self.current]
    }

    pub(crate) fn apply(&mut self, term: u64, command: &Command) -> Outcome {
        let result = match &command.body {
            Body::Request { user, auth_revision, body } => self
                .admit(user, *auth_revision, body)
                .and_then(|()| self.run_body(term, body, command)),
            body => self.run_body(term, body, command),
        };
        Outcome { revision: Revision(self.current), result }
    }

    fn run_body(&mut self, term: u64, body: &Body, command: &Command) -> Result<Done, Refusal> {
        let time = command.time.0.max(self.time);
        match body {
            Body::Request { .. } => unreachable!("a request holds no request"),
            Body::Auth(change) => self.accounts.change(change).map_err(Refusal::Auth),
            Body::Member(change) => self.members.change(change).map_err(Refusal::Member),
            Body::Check => Ok(Done::Checked),
            Body::Txn(txn) => self.txn(txn, time, command).map(Done::Txn),
            Body::Compact { revision } => self.compact(*revision).map(|()| Done::Compacted),
            Body::Alarm { .. } => unreachable!("the model raises no alarms: see alarms.rs"),
            Body::LeaseGrant { id, ttl_seconds } => match id.0 {
                0 => Err(Refusal::LeaseIdZero),
                own if self.leases.contains_key(&own) => Err(Refusal::LeaseExists),
                own => {
                    self.leases.insert(own, (*ttl_seconds, 0));
                    Ok(Done::LeaseGranted { id: *id, ttl_seconds: *ttl_seconds })
                }
            },
            Body::LeaseRevoke { id } => self.revoke(*id, time, command),
            Body::LeaseExpire { term: decided, .. }
            | Body::LeaseCheckpoint { term: decided, .. }
                if *decided != term =>
            {
                Err(Refusal::OtherTerm { decided: *decided, entry: term })
            }
            Body::LeaseExpire { id, .. } => self.revoke(*id, time, command),
            Body::LeaseCheckpoint { remaining, .. } => {
                let mut leases = 0;
                for (id, seconds) in remaining {
                    if let Some((_, left)) = self.leases.get_mut(&id.0) {
                        *left = *seconds;
                        leases += 1;
                    }
                }
                Ok(Done::LeasesNoted { leases })
            }
            Body::UploadPart { upload, part, ops } => self.keep_part(*upload, *part, ops),
            Body::UploadCommit(own) => self.commit_upload(own, time, command),
        }
    }

    pub(crate) fn leases(&self) -> Vec<Lease> {
        let lease = |(&id, &(ttl_seconds, remaining_seconds)): (&i64, &(i64, i64))| Lease {
            id: LeaseId(id),
            ttl_seconds,
            remaining_seconds,
        };
        self.leases.iter().map(lease).collect()
    }

    pub(crate) fn lease_keys(&self, id: LeaseId) -> Vec<Bytes> {
        let kvs = self.now().keys.values().filter(|kv| kv.lease == id);
        kvs.map(|kv| kv.key.clone()).collect()
    }

    fn revoke(&mut self, id: LeaseId, time: i64, command: &Command) -> Result<Done, Refusal> {
        if self.leases.remove(&id.0).is_none() {
            return Err(Refusal::LeaseNotFound);
        }
        self.uploads.remove(&id.0);
        let mut run = self.run(time);
        let own: Vec<Bytes> =
            run.keys.values().filter(|kv| kv.lease == id).map(|kv| kv.key.clone()).collect();
        for key in &own {
            run.delete(key);
        }
        let (keys, events) = (run.keys, run.events);
        self.commit(keys, events, &Names::new(), time, command);
        Ok(Done::LeaseRevoked { deleted: count(own.len()) })
    }

    fn compact(&mut self, at: Revision) -> Result<(), Refusal> {
        if let Some(compacted) = self.compacted.filter(|&compacted| at.0 <= compacted) {
            return Err(Refusal::Compacted { requested: at, compacted: Revision(compacted) });
        }
        if at.0 > self.current {
            return Err(Refusal::Future { requested: at, current: Revision(self.current) });
        }
        self.compacted = Some(at.0);
        self.moments.retain(|&main, _| main >= at.0);
        self.stamps.retain(|&main, _| main == 1 || main >= at.0);
        let alive = &self.moments[&at.0.max(1)].keys;
        let is_alive = |event: &Event| {
            alive.get(&event.kv.key).is_some_and(|kv| kv.mod_revision == event.kv.mod_revision)
        };
        self.events.retain(|&(main, _), event| main >= at.0 || is_alive(event));
        Ok(())
    }

    fn run(&self, time: i64) -> Run<'_> {
        let keys = self.now().keys.clone();
        let (events, arrived) = (Vec::new(), Names::new());
        Run { reference: self, keys, events, arrived, main: self.current + 1, time }
    }

    fn txn(&mut self, txn: &Txn, time: i64, command: &Command) -> Result<TxnAnswer, Refusal> {
        for branch in [&txn.success, &txn.failure] {
            branch.iter().try_for_each(form)?;
            if has_duplicates(branch) {
                return Err(Refusal::DuplicateKey);
            }
        }
        let choice = self.choose(txn);
        self.needs(txn, &choice, true)?;
        self.needs(txn, &choice, false)?;
        let mut run = self.run(time);
        let answer = run.branch(txn, &choice)?;
        let (keys, events, arrived) = (run.keys, run.events, run.arrived);
        self.commit(keys, events, &arrived, time, command);
        Ok(answer)
    }

    fn commit(
        &mut self,
        keys: BTreeMap<Bytes, KeyValue>,
        events: Vec<Event>,
        arrived: &Names,
        time: i64,
        command: &Command,
    ) {
        if events.is_empty() {
            return;
        }
        let before = self.now().directories.clone();
        self.current += 1;
        let mut directories = Names::new();
        for (directory, names) in names_of(&keys) {
            let is_same = |(old, ..): &&(BTreeSet<Bytes>, u64, i64)| *old == names;
            let unchanged = arrived.get(&directory).filter(is_same);
            let unchanged = unchanged.or_else(|| before.get(&directory).filter(is_same));
            let (changed, at) = unchanged.map_or((self.current, time), |(_, c, t)| (*c, *t));
            directories.insert(directory, (names, changed, at));
        }
        self.time = time;
        self.moments.insert(self.current, Rc::new(Moment { keys, directories }));
        for (sub, event) in events.into_iter().enumerate() {
            self.events.insert((self.current, sub), event);
        }
        let stamp = Stamp {
            revision: Revision(self.current),
            time: Time(time),
            author: command.author.clone(),
            note: command.note.clone(),
        };
        self.stamps.insert(self.current, stamp);
    }

    fn choose(&self, txn: &Txn) -> Choice {
        let succeeded = txn.compares.iter().all(|compare| self.holds(compare));
        let branch = if succeeded { &txn.success } else { &txn.failure };
        let nested = branch.iter().enumerate().filter_map(|(at, op)| match op {
            Op::Txn(nested) => Some((at, self.choose(nested))),
            _ => None,
        });
        Choice { succeeded, nested: nested.collect() }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let found: Vec<&KeyValue> =
            self.now().keys.values().filter(|kv| compare.range.contains(&kv.key)).collect();
        if found.is_empty() {
            return !matches!(compare.target, CompareTarget::Value(_))
                && holds_for(&KeyValue::default(), compare);
        }
        found.into_iter().all(|kv| holds_for(kv, compare))
    }

    /// Puts first, then revisions, at every depth.
    fn needs(&self, txn: &Txn, choice: &Choice, of_puts: bool) -> Result<(), Refusal> {
        let branch = if choice.succeeded { &txn.success } else { &txn.failure };
        for (at, op) in branch.iter().enumerate() {
            match op {
                Op::Put { key, lease, ignore_value, ignore_lease, .. } if of_puts => {
                    if (*ignore_value || *ignore_lease) && !self.now().keys.contains_key(key) {
                        return Err(Refusal::KeyNotFound);
                    }
                    if !ignore_lease && lease.0 != 0 && !self.leases.contains_key(&lease.0) {
                        return Err(Refusal::LeaseNotFound);
                    }
                }
                Op::Restore { revision, .. } | Op::Range(RangeQuery { at: revision, .. })
                    if !of_puts =>
                {
                    self.refusal(*revision)?;
                }
                Op::Txn(nested) => self.needs(nested, &choice.nested[&at], of_puts)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn refusal(&self, at: Revision) -> Result<(), Refusal> {
        match self.resolve(at) {
            Err(ReadError::Compacted { requested, compacted }) => {
                Err(Refusal::Compacted { requested, compacted })
            }
            Err(ReadError::Future { requested, current }) => {
                Err(Refusal::Future { requested, current })
            }
            Err(ReadError::Store(_) | ReadError::Refused(_)) => {
                unreachable!("the reference has no disk")
            }
            Ok(_) => Ok(()),
        }
    }

    fn resolve(&self, at: Revision) -> Result<u64, ReadError> {
        let main = if at.0 == 0 { self.current } else { at.0 };
        if main > self.current {
            return Err(ReadError::Future { requested: at, current: Revision(self.current) });
        }
        match self.compacted {
            Some(compacted) if main < compacted => {
                Err(ReadError::Compacted { requested: at, compacted: Revision(compacted) })
            }
            _ => Ok(main),
        }
    }

    fn moment(&self, at: Revision) -> Result<&Moment, ReadError> {
        Ok(&self.moments[&self.resolve(at)?])
    }

    pub(crate) fn get(&self, at: Revision, key: &Bytes) -> Result<Option<KeyValue>, ReadError> {
        Ok(self.moment(at)?.keys.get(key).cloned())
    }

    pub(crate) fn range(&self, at: Revision, query: &RangeQuery) -> Result<RangeResult, ReadError> {
        let at = if query.at.0 == 0 { at } else { query.at };
        Ok(range_of(&self.moment(at)?.keys, query))
    }

    pub(crate) fn directory(&self, at: Revision, path: &[u8]) -> Result<DirectoryState, ReadError> {
        let found = self.moment(at)?.directories.get(path);
        Ok(found.map_or(DirectoryState::default(), |(names, changed, time)| DirectoryState {
            names: count(names.len()),
            changed: Revision(*changed),
            time: Time(*time),
        }))
    }

    pub(crate) fn list(&self, at: Revision, query: &ListQuery) -> Result<ListResult, ReadError> {
        let moment = self.moment(at)?;
        let empty = BTreeSet::new();
        let names = moment.directories.get(&query.directory).map_or(&empty, |(names, ..)| names);
        let limit = if query.limit == 0 { usize::MAX } else { query.limit };
        let mut result = ListResult::default();
        for name in names.iter().filter(|&name| query.after.is_empty() || *name > query.after) {
            if result.entries.iter().filter(|entry| !entry.name.is_empty()).count() == limit {
                result.more = true;
                break;
            }
            let key = Bytes::from([&query.directory[..], &name[..]].concat());
            let kv = moment.keys.get(&key).cloned();
            result.entries.push(ListEntry {
                name: name.clone(),
                kv: kv.map(|kv| without_value(kv, !query.with_values)),
                directory: name.ends_with(b"/").then(|| self.directory(at, &key)).transpose()?,
            });
        }
        Ok(result)
    }

    pub(crate) fn history(
        &self,
        key: &Bytes,
        at_most: Revision,
        limit: usize,
    ) -> Vec<(Event, Stamp)> {
        let limit = if limit == 0 { usize::MAX } else { limit };
        let at_most = if at_most.0 == 0 { self.current } else { at_most.0 };
        let compacted = self.compacted();
        let all = self.events.iter().rev().filter(|(_, event)| event.kv.key == *key);
        let mut found = Vec::new();
        let mut base_seen = false;
        for (&(main, _), event) in all {
            let is_base =
                main <= compacted && !std::mem::replace(&mut base_seen, main <= compacted);
            let is_kept = main > compacted
                || (is_base && (event.kind == ChangeKind::Put || main == compacted));
            if is_kept && main <= at_most && found.len() < limit {
                let stamp = if main < compacted {
                    Stamp { revision: Revision(main), time: event.kv.time, ..Stamp::default() }
                } else {
                    self.stamps[&main].clone()
                };
                found.push((event.clone(), stamp));
            }
        }
        found
    }

    pub(crate) fn stamp(&self, at: Revision) -> Result<Stamp, ReadError> {
        Ok(self.stamps[&self.resolve(at)?].clone())
    }

    pub(crate) fn revision_at(&self, time: Time) -> Result<Revision, ReadError> {
        let low = self.compacted().max(1);
        if low > 1 && self.stamps[&low].time > time {
            let (requested, compacted) = (Revision(low - 1), Revision(low));
            return Err(ReadError::Compacted { requested, compacted });
        }
        let last = self.stamps.range(low..).rfind(|(main, s)| **main == 1 || s.time <= time);
        Ok(Revision(*last.unwrap().0))
    }

    /// How many rows each tree holds when nothing is left to compact.
    pub(crate) fn rows(&self) -> Vec<(Tree, u64)> {
        let base = self.compacted();
        let empty = Rc::new(Moment::default());
        let alive = self.moments.get(&base).unwrap_or(&empty);
        let later = || count(self.events.range((base + 1, 0)..).count());
        let at_base = || self.events.range((base, 0)..(base + 1, 0)).map(|(_, event)| event);
        let tombstones = at_base().filter(|event| event.kind == ChangeKind::Delete).count();
        let keys = count(alive.keys.len()) + count(tombstones) + later();
        let revisions = count(at_base().count()) + later();
        let times = count(self.stamps.range(base.max(2)..).count());
        let mut names: u64 = alive.directories.values().map(|(names, ..)| count(names.len())).sum();
        let mut directories = count(alive.directories.len());
        let mut before = alive;
        for (_, after) in self.moments.range(base + 1..) {
            let all = before.directories.keys().chain(after.directories.keys());
            for directory in all.collect::<BTreeSet<_>>() {
                let none = BTreeSet::new();
                let of = |m: &Moment| m.directories.get(directory).map(|d| d.0.clone());
                let (old, new) = (of(before).unwrap_or(none.clone()), of(after).unwrap_or(none));
                let changed = count(old.symmetric_difference(&new).count());
                names += changed;
                directories += u64::from(
                    before.directories.get(directory) != after.directories.get(directory),
                );
            }
            before = after;
        }
        let attached = self.now().keys.values().filter(|kv| kv.lease.0 != 0).count();
        vec![
            (Tree::Keys, keys),
            (Tree::Revisions, revisions),
            (Tree::Times, times),
            (Tree::Names, names),
            (Tree::Directories, directories),
            (Tree::Leases, count(self.leases.len())),
            (Tree::Attachments, count(attached)),
            (Tree::Uploads, self.uploads().iter().map(|(_, parts)| 1 + parts).sum()),
            (Tree::Members, count(self.members.rows())),
        ]
    }

    pub(crate) fn changes(&self, query: &ChangesQuery) -> Result<ChangesResult, ReadError> {
        let compacted = self.compacted();
        if query.from.0 < compacted {
            let (requested, compacted) = (query.from, Revision(compacted));
            return Err(ReadError::Compacted { requested, compacted });
        }
        let to = if query.to.0 == 0 { self.current } else { query.to.0.min(self.current) };
        let mut mains: Vec<u64> = (query.from.0.max(2)..=to).collect();
        if query.newest_first {
            mains.reverse();
        }
        let mut result = ChangesResult::default();
        for (looked_at, main) in mains.into_iter().enumerate() {
            if (query.limit != 0 && result.revisions.len() == query.limit)
                || (query.scan_limit != 0 && looked_at == query.scan_limit)
            {
                result.next = Some(Revision(main));
                break;
            }
            let events: Vec<Event> = self
                .events
                .range((main, 0)..(main + 1, 0))
                .map(|(_, event)| event)
                .filter(|event| query.ranges.iter().any(|range| range.contains(&event.kv.key)))
                .map(|event| Event {
                    kind: event.kind,
                    kv: without_value(event.kv.clone(), query.keys_only),
                })
                .collect();
            if !events.is_empty() {
                result.revisions.push(RevisionEvents { stamp: self.stamps[&main].clone(), events });
            }
        }
        Ok(result)
    }
}

fn holds_for(kv: &KeyValue, compare: &Compare) -> bool {
    let order = match &compare.target {
        CompareTarget::Version(x) => kv.version.cmp(x),
        CompareTarget::CreateRevision(x) => kv.create_revision.cmp(x),
        CompareTarget::ModRevision(x) => kv.mod_revision.cmp(x),
        CompareTarget::Value(x) => kv.value.cmp(x),
        CompareTarget::Lease(x) => kv.lease.cmp(x),
    };
    match compare.result {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Less => order.is_lt(),
        CompareResult::Greater => order.is_gt(),
    }
}

fn range_of(keys: &BTreeMap<Bytes, KeyValue>, query: &RangeQuery) -> RangeResult {
    let mut found: Vec<KeyValue> =
        keys.values().filter(|kv| query.range.contains(&kv.key)).cloned().collect();
    let total = count(found.len());
    if query.count_only {
        return RangeResult { count: total, ..RangeResult::default() };
    }
    let limit = if query.limit == 0 { usize::MAX } else { query.limit };
    let has_bounds =
        [query.mod_revisions, query.create_revisions] != [RevisionBounds::default(); 2];
    if query.sort_order == SortOrder::Unspecified && !has_bounds {
        // etcd reads no more than it needs to know whether there is more.
        found.truncate(limit.saturating_add(1));
    }
    let outside = |bounds: RevisionBounds, revision: Revision| {
        (bounds.min.0 != 0 && revision < bounds.min) || (bounds.max.0 != 0 && revision > bounds.max)
    };
    found.retain(|kv| {
        !outside(query.mod_revisions, kv.mod_revision)
            && !outside(query.create_revisions, kv.create_revision)
    });
    let is_down = query.sort_order == SortOrder::Descend;
    found.sort_by(|a, b| {
        let order = match query.sort_target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::CreateRevision => a.create_revision.cmp(&b.create_revision),
            SortTarget::ModRevision => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        if is_down { order.reverse() } else { order }
    });
    let more = found.len() > limit;
    let kvs = found.into_iter().take(limit).map(|kv| without_value(kv, query.keys_only));
    RangeResult { kvs: kvs.collect(), count: total, more }
}
