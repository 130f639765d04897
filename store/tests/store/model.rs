//! The store beside the reference: random commands, every answer compared, with restarts, crashes and
//! physical compaction in between.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use revfs_store::types::{ChangesQuery, KeyRange, ListQuery, RangeQuery, Revision, Time};
use revfs_store::{
    AuthRefusal, Body, Command, Need, Outcome, Permission, Position, ReadError, ReadView, Refusal,
    StopPoint, Store, StoreOptions,
};
use tempfile::TempDir;

use crate::random::{self, Random};
use crate::reference::{self, Accounts, Members, Reference};

/// Small enough that every run rotates, commits and compacts all the time.
fn options() -> StoreOptions {
    StoreOptions {
        map_bytes: 1 << 30,
        commit_interval: Duration::from_millis(5),
        commit_changes: 60,
        compaction_batch: 7,
        compaction_pause: Duration::from_millis(1),
        ..StoreOptions::default()
    }
}

const POINTS: [StopPoint; 5] = [
    StopPoint::MiddleOfEntry,
    StopPoint::BeforeCommit,
    StopPoint::MiddleOfCommit,
    StopPoint::MiddleOfCompaction,
    StopPoint::AfterCommit,
];

struct Bench {
    directory: TempDir,
    store: Option<Store>,
    reference: Reference,
    log: Vec<(Command, Outcome)>,
    random: Random,
    time: i64,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Some(Store::create(directory.path(), options()).unwrap());
        let reference = Reference::new();
        Self { directory, store, reference, log: Vec::new(), random: Random::new(seed), time: 0 }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn command(&mut self) -> Command {
        let (compacted, current) = (self.reference.compacted(), self.reference.current);
        self.time += 3;
        let command = random::command(&mut self.random, compacted, current, self.time);
        random::asked(&mut self.random, self.reference.accounts.revision(), command)
    }

    fn apply(&mut self) {
        let command = self.command();
        let encoded = command.encode().unwrap();
        assert_eq!(Command::decode(&encoded).unwrap(), command);
        let index = u64::try_from(self.log.len()).unwrap() + 1;
        let outcome = self.store().apply(position(index), &command).unwrap();
        assert_eq!(
            outcome,
            self.reference.apply(position(index).term, &command),
            "command {index}: {command:?}"
        );
        self.log.push((command, outcome));
    }

    fn restart(&mut self) {
        let store = self.store.take().unwrap();
        let own_hash = store.own_hash().unwrap();
        store.close().unwrap();
        drop(store);
        let store = Store::open(self.directory.path(), options()).unwrap();
        let last = u64::try_from(self.log.len()).unwrap();
        assert_eq!(store.applied().index, last);
        assert_eq!(store.committed(), store.applied());
        assert_eq!(store.own_hash().unwrap(), own_hash);
        self.store = Some(store);
    }

    /// Stops at `point`, wherever the store is; returns whether it came there.
    fn crash_at(&mut self, point: StopPoint) -> bool {
        self.store().stop_at(point);
        let stopped = match point {
            StopPoint::MiddleOfEntry => {
                // The entry is in the log: replay brings what the crash cut short.
                let command = self.command();
                let index = u64::try_from(self.log.len()).unwrap() + 1;
                let stopped = self.store().apply(position(index), &command).is_err();
                let outcome = self.reference.apply(position(index).term, &command);
                self.log.push((command, outcome));
                stopped
            }
            StopPoint::MiddleOfCompaction => {
                let compacted = Revision(self.reference.compacted());
                !self.store().wait_compacted(compacted, Duration::from_secs(60)).unwrap()
            }
            _ => self.store().commit().is_err(),
        };
        self.crash();
        stopped
    }

    fn crash(&mut self) {
        self.store.take().unwrap().abandon();
        let store = Store::open(self.directory.path(), options()).unwrap();
        let committed = store.committed();
        assert_eq!(committed, store.applied());
        let expected =
            if committed.index == 0 { Position::default() } else { position(committed.index) };
        assert_eq!(committed, expected);
        let from = usize::try_from(committed.index).unwrap();
        assert!(from <= self.log.len());
        for (at, (command, outcome)) in self.log.iter().enumerate().skip(from) {
            let index = u64::try_from(at).unwrap() + 1;
            assert_eq!(store.apply(position(index), command).unwrap(), *outcome, "replay {index}");
        }
        self.store = Some(store);
    }

    fn check(&mut self) {
        let view = self.store().read_view().unwrap();
        assert_eq!(view.current().0, self.reference.current);
        assert_eq!(view.compacted().0, self.reference.compacted());
        check_reads(&view, &self.reference, &mut self.random);
        check_past(&view, &self.reference, &mut self.random, self.time);
    }

    /// Once the physical pass is through, exactly the rows that anybody may ask for are there.
    fn check_rows(&mut self) {
        let compacted = Revision(self.reference.compacted());
        let store = self.store();
        assert!(store.wait_compacted(compacted, Duration::from_secs(60)).unwrap());
        let found = store.read_view().unwrap().verify().unwrap();
        for (tree, rows) in self.reference.rows() {
            assert!(found.contains(&(tree, rows)), "{tree:?}: {rows} expected in {found:?}");
        }
    }

    /// All of one revision, not a sample.
    fn check_whole(&mut self, at: Revision) {
        let hash = self.store().hash_kv(at).map(|found| found.hash);
        assert_eq!(hash, self.reference.hash_kv(at), "hash at {at}");
        let view = self.store().read_view().unwrap();
        let query = RangeQuery::new(KeyRange::From(Bytes::from_static(b"")));
        assert_eq!(view.range(at, &query), self.reference.range(at, &query));
        for directory in random::DIRECTORIES {
            let query = ListQuery {
                directory: Bytes::from_static(directory),
                after: Bytes::new(),
                limit: 0,
                with_values: true,
            };
            assert_eq!(view.list(at, &query), self.reference.list(at, &query));
        }
    }
}

fn position(index: u64) -> Position {
    // The commands of a clock say term 1 or 2 at random: some count before, some after the change.
    let term = if index <= 4_000 { 1 } else { 2 };
    Position { index, term, raft: Bytes::from(format!("raft {index}")) }
}

fn check_reads(view: &ReadView, reference: &Reference, r: &mut Random) {
    let (compacted, current) = (reference.compacted(), reference.current);
    let at = random::revision(r, compacted, current);
    let key = random::key(r);
    assert_eq!(view.get(at, &key, false), reference.get(at, &key), "get {key:?} at {at}");
    let mut query = random::query(r, current);
    if r.one_in(8) {
        query.at = random::revision(r, compacted, current);
    }
    assert_eq!(view.range(at, &query), reference.range(at, &query), "{query:?} at {at}");
    let directory = Bytes::from_static(r.pick(random::DIRECTORIES));
    let (found, expected) = (view.directory(at, &directory), reference.directory(at, &directory));
    assert_eq!(found, expected, "directory {directory:?} at {at}");
    let after = if r.one_in(2) { Bytes::new() } else { random::key(r) };
    let query = ListQuery { directory, after, limit: r.index(4), with_values: r.one_in(2) };
    assert_eq!(view.list(at, &query), reference.list(at, &query), "{query:?} at {at}");
    check_leases(view, reference, r);
    assert_eq!(Members::of(view), reference.members);
    check_auth(view, reference, r);
}

fn check_auth(view: &ReadView, reference: &Reference, r: &mut Random) {
    let accounts = &reference.accounts;
    assert_eq!(Accounts::of(view.auth()), *accounts);
    let (user, revision) = random::asker(r, accounts.revision());
    let allowed = accounts.permissions(&user, revision);
    let judged = |may: &dyn Fn(&[Permission]) -> Result<(), AuthRefusal>| match &allowed {
        Ok(None) => Ok(()),
        Ok(Some(own)) => may(own).map_err(|refusal| ReadError::Refused(refusal.into())),
        Err(refusal) => Err(ReadError::Refused(refusal.clone().into())),
    };
    let (range, lease) = (random::range(r), random::lease(r));
    let found = view.authorise(&user, revision, Need::Read(&range));
    assert_eq!(found, judged(&|own| reference::read(own, &range)), "{user} reads {range:?}");
    let found = view.authorise(&user, revision, Need::ReadLease(lease));
    assert_eq!(found, judged(&|own| reference.may_read_lease(own, lease)), "{user}, {lease:?}");
    let found = view.authorise(&user, revision, Need::UserOf("alice"));
    let expected = if user == "alice" { Ok(()) } else { Err(AuthRefusal::PermissionDenied) };
    assert_eq!(found, judged(&|_| expected.clone()));
}

fn check_leases(view: &ReadView, reference: &Reference, r: &mut Random) {
    let expected = reference.leases();
    assert_eq!(view.leases(None, usize::MAX).unwrap(), expected);
    let id = random::lease(r);
    let above = expected.iter().filter(|lease| lease.id > id).take(2).copied();
    assert_eq!(view.leases(Some(id), 2).unwrap(), above.collect::<Vec<_>>());
    let own = expected.iter().find(|lease| lease.id == id).copied();
    assert_eq!(view.lease(id).unwrap(), own);
    let uploads = view.uploads().unwrap().into_iter();
    let uploads: Vec<_> = uploads.map(|(id, state)| (id, u64::from(state.parts))).collect();
    assert_eq!(uploads, reference.uploads());
    if own.is_some() {
        assert_eq!(view.lease_keys(id).unwrap(), reference.lease_keys(id), "keys of {id:?}");
    }
}

fn check_past(view: &ReadView, reference: &Reference, r: &mut Random, time: i64) {
    let (compacted, current) = (reference.compacted(), reference.current);
    let at = random::revision(r, compacted, current);
    let (key, limit) = (random::key(r), r.index(4));
    let found = view.history(&key, at, limit, false).unwrap();
    assert_eq!(found, reference.history(&key, at, limit), "history of {key:?} at most {at}");
    assert_eq!(view.stamp(at), reference.stamp(at));
    let moment = Time(time - i64::try_from(r.below(300)).unwrap());
    assert_eq!(view.revision_at(moment), reference.revision_at(moment), "{moment:?}");
    let query = ChangesQuery {
        ranges: (0..=r.index(2)).map(|_| random::range(r)).collect(),
        from: at,
        to: if r.one_in(2) { Revision::NONE } else { random::revision(r, compacted, current) },
        newest_first: r.one_in(2),
        limit: r.index(5),
        scan_limit: if r.one_in(3) { 0 } else { r.index(40) },
        keys_only: r.one_in(2),
    };
    // A query from the beginning of time over everything is slow for nothing.
    if query.scan_limit != 0 || query.limit != 0 {
        assert_eq!(view.changes(&query), reference.changes(&query), "{query:?}");
    }
}

/// `REVFS_STEPS` makes a longer run.
fn steps() -> usize {
    std::env::var("REVFS_STEPS").map_or(20_000, |steps| steps.parse().unwrap())
}

#[test]
fn random_commands_are_answered_as_the_reference_answers_them() {
    let mut bench = Bench::new(random::seed());
    let mut stops = BTreeMap::new();
    for _ in 0..steps() {
        bench.apply();
        if bench.random.one_in(3) {
            bench.check();
        }
        match bench.random.below(800) {
            0 => bench.restart(),
            1 => bench.crash(),
            12..22 => {
                let point = bench.random.pick(&POINTS);
                *stops.entry(point).or_insert(0) += usize::from(bench.crash_at(point));
            }
            2 => drop(bench.store().commit().unwrap()),
            3 => bench.check_rows(),
            4..12 => {
                let (compacted, current) = (bench.reference.compacted(), bench.reference.current);
                let at = random::revision(&mut bench.random, compacted, current);
                bench.check_whole(at);
            }
            _ => {}
        }
    }
    // A generator that makes nothing but refusals would prove nothing.
    let refused = bench.log.iter().filter(|(_, outcome)| outcome.result.is_err()).count();
    println!(
        "{} commands: {refused} refused, {} revisions, compacted at {}",
        bench.log.len(),
        bench.reference.current,
        bench.reference.compacted()
    );
    println!("stopped at {stops:?}");
    let uploads = bench.log.iter().filter(|(command, outcome)| {
        matches!(command.body.inner(), Body::UploadCommit(_)) && outcome.result.is_ok()
    });
    let uploads = uploads.count();
    println!("{uploads} uploads committed");
    assert!(uploads > 0 || steps() < 20_000);
    let denied = Err(Refusal::Auth(AuthRefusal::PermissionDenied));
    let denied = bench.log.iter().filter(|(_, outcome)| outcome.result == denied).count();
    let allowed = bench.log.iter().filter(|(command, outcome)| {
        let is_alices = matches!(&command.body, Body::Request { user, .. } if user == "alice");
        is_alices && outcome.result.is_ok()
    });
    let allowed = allowed.count();
    println!("{denied} requests denied, {allowed} of alice done, {:?}", bench.reference.accounts);
    assert!((denied > 0 && allowed > 0) || steps() < 20_000);
    // A short run need not come everywhere.
    let was_everywhere = POINTS.iter().all(|point| stops.get(point).is_some_and(|&n| n > 0));
    assert!(was_everywhere || steps() < 20_000, "{stops:?}");
    assert!(refused < bench.log.len() / 2);
    assert!(bench.reference.current > u64::try_from(bench.log.len()).unwrap() / 4);
    bench.check_rows();
    bench.restart();
    bench.check_rows();
    for at in bench.reference.compacted().max(1)..=bench.reference.current {
        bench.check_whole(Revision(at));
    }
}
