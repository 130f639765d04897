//! Random watchers beside random commands: each is shown exactly what the reference says happened to
//! its keys, whole revisions, without gap or repeat, through compactions, restarts and crashes.

use std::time::Duration;

use bytes::Bytes;
use revfs_store::types::{
    ChangeKind, ChangesQuery, KeyRange, KeyValue, Revision, RevisionEvents, Stamp,
};
use revfs_store::{
    Command, Position, ReadError, Store, StoreError, StoreOptions, WatchOptions, WatchRequest,
    WatchedRevision, Watcher,
};
use tempfile::TempDir;

use crate::random::{self, Random};
use crate::reference::Reference;
use crate::watch::{next, poll, wait_until};

const WATCHERS: usize = 30;

/// Small enough that queues overflow, buffers fill and batches end all the time.
fn options(r: &mut Random) -> StoreOptions {
    let watch = WatchOptions {
        queue_bytes_max: r.pick(&[1, 2_000, 20_000]),
        watcher_bytes_max: r.pick(&[1, 1_500, 20_000]),
        buffered_bytes_max: r.pick(&[10_000, 100_000]),
        batch_revisions: r.pick(&[1, 5, 50]),
        batch_rows: r.pick(&[3, 100]),
        batch_bytes: r.pick(&[100, 10_000]),
    };
    StoreOptions {
        map_bytes: 1 << 30,
        commit_interval: Duration::from_millis(5),
        commit_changes: 60,
        compaction_batch: 7,
        compaction_pause: Duration::from_millis(1),
        watch,
        ..StoreOptions::default()
    }
}

/// All that happened, also what the store has forgotten.
#[derive(Default)]
struct Past {
    /// From revision 2 on.
    revisions: Vec<(RevisionEvents, Vec<Option<KeyValue>>)>,
}

impl Past {
    fn record(&mut self, reference: &Reference) {
        let main = Revision(reference.current);
        let query = ChangesQuery {
            ranges: vec![KeyRange::From(Bytes::new())],
            from: main,
            to: main,
            newest_first: false,
            limit: 0,
            scan_limit: 0,
            keys_only: false,
        };
        let [events] = reference.changes(&query).unwrap().revisions.try_into().unwrap();
        let before = Revision(main.0 - 1);
        let previous = |key: &Bytes| reference.get(before, key).ok().flatten();
        let prev_kvs = events.events.iter().map(|event| previous(&event.kv.key)).collect();
        self.revisions.push((events, prev_kvs));
    }

    /// What `request` shows of a revision: nothing, or each event with the key before.
    fn shown(&self, request: &WatchRequest, at: Revision) -> Option<Shown> {
        let (revision, prev_kvs) = &self.revisions[usize::try_from(at.0).unwrap() - 2];
        let mut events = Vec::new();
        for (event, prev_kv) in revision.events.iter().zip(prev_kvs) {
            let is_filtered = match event.kind {
                ChangeKind::Put => request.without_puts,
                ChangeKind::Delete => request.without_deletes,
            };
            if is_filtered || !request.ranges.iter().any(|range| range.contains(&event.kv.key)) {
                continue;
            }
            let (mut event, mut prev_kv) = (event.clone(), prev_kv.clone());
            if request.keys_only {
                event.kv.value = Bytes::new();
                prev_kv.iter_mut().for_each(|kv| kv.value = Bytes::new());
            }
            events.push((event, prev_kv.filter(|_| request.prev_kv)));
        }
        (!events.is_empty()).then(|| (revision.stamp.clone(), events))
    }
}

type Shown = (Stamp, Vec<(revfs_store::types::Event, Option<KeyValue>)>);

struct Watching {
    request: WatchRequest,
    watcher: Watcher,
    /// The first revision of which nothing was seen yet.
    next: Revision,
    /// It reads at one step of so many.
    pace: u64,
    seen: u64,
}

impl Watching {
    fn begin(store: &Store, reference: &Reference, r: &mut Random) -> Self {
        let (compacted, current) = (reference.compacted(), reference.current);
        let from = match r.below(6) {
            0 => Revision::NONE,
            1 => Revision(current + r.below(30)),
            2 => Revision(compacted),
            _ => Revision(compacted + r.below(current - compacted + 1)),
        };
        let request = WatchRequest {
            ranges: (0..=r.index(3)).map(|_| random::range(r)).collect(),
            from,
            without_puts: r.one_in(6),
            without_deletes: r.one_in(6),
            prev_kv: r.one_in(2),
            keys_only: r.one_in(4),
        };
        let watcher = store.watch(request.clone()).unwrap();
        let expected = if from.is_none() { Revision(current + 1) } else { from };
        assert_eq!(watcher.from(), expected);
        // The empty store's revision has no changes.
        let next = expected.max(Revision(2));
        Self { request, watcher, next, pace: r.pick(&[1, 1, 5, 50, 1_000]), seen: 0 }
    }

    /// Nothing that it is to see lies from `next` up to, not including, `end`.
    fn skip(&mut self, past: &Past, end: Revision) {
        while self.next < end {
            let missed = past.shown(&self.request, self.next);
            assert_eq!(missed, None, "{:?} was not shown", self.request);
            self.next = self.next.next();
        }
    }

    fn check(&mut self, past: &Past, compacted: u64, found: &WatchedRevision) {
        let at = found.stamp.revision;
        assert!(at >= self.next, "{at} again or too early: {:?} is at {}", self.request, self.next);
        self.skip(past, at);
        let (stamp, events) = past.shown(&self.request, at).expect("it has events");
        assert_eq!(*found.stamp, stamp);
        assert_eq!(found.events.len(), events.len(), "half a revision");
        for (found, (event, prev_kv)) in found.events.iter().zip(&events) {
            assert_eq!(found.event, *event);
            let may_lack = at.0 - 1 < compacted;
            if found.prev_kv.is_some() || !may_lack {
                assert_eq!(found.prev_kv, *prev_kv);
            }
        }
        self.next = at.next();
        self.seen += 1;
    }

    /// Reads all that is there; returns why it ended, if it did.
    fn read(&mut self, past: &Past, reference: &Reference) -> Option<ReadError> {
        loop {
            let progress = self.watcher.progress();
            match poll(&mut self.watcher) {
                Some(Ok(found)) => self.check(past, reference.compacted(), &found),
                Some(Err(error)) => return Some(error),
                None => {
                    let current = Revision(reference.current);
                    assert!(progress <= current.max(Revision(self.next.0 - 1)));
                    self.skip(past, progress.next().min(current.next()));
                    return None;
                }
            }
        }
    }

    /// Watches on in a store that was opened again, or behind a compaction.
    fn renew(&mut self, store: &Store) {
        let request = |from| WatchRequest { from, ..self.request.clone() };
        let watcher = store.watch(request(self.next)).or_else(|error| match error {
            ReadError::Compacted { compacted, .. } => {
                self.next = compacted.max(Revision(2));
                store.watch(request(self.next))
            }
            other => Err(other),
        });
        self.watcher = watcher.unwrap();
    }
}

struct Bench {
    directory: TempDir,
    store: Option<Store>,
    reference: Reference,
    past: Past,
    log: Vec<Command>,
    random: Random,
    watching: Vec<Watching>,
    compacted_ends: usize,
}

impl Bench {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(directory.path(), options(&mut random)).unwrap();
        Self {
            directory,
            store: Some(store),
            reference: Reference::new(),
            past: Past::default(),
            log: Vec::new(),
            random,
            watching: Vec::new(),
            compacted_ends: 0,
        }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn apply(&mut self) {
        let (compacted, current) = (self.reference.compacted(), self.reference.current);
        let time = i64::try_from(self.log.len()).unwrap() * 3;
        let command = random::command(&mut self.random, compacted, current, time);
        self.log.push(command);
        let command = self.log.last().unwrap();
        let outcome = self.store().apply(position(self.log.len()), command).unwrap();
        assert_eq!(outcome, self.reference.apply(1, command));
        if self.reference.current > current {
            self.past.record(&self.reference);
        }
    }

    fn read(&mut self) {
        let Self { watching, past, reference, store, random, compacted_ends, .. } = self;
        for watching in watching {
            if !random.one_in(watching.pace) {
                continue;
            }
            match watching.read(past, reference) {
                None => {}
                Some(ReadError::Compacted { requested, compacted }) => {
                    assert!(requested < compacted && compacted.0 <= reference.compacted());
                    watching.skip(past, requested);
                    watching.renew(store.as_ref().unwrap());
                    *compacted_ends += 1;
                }
                Some(error) => panic!("{error}"),
            }
        }
    }

    /// Waits until everybody has seen everything.
    fn settle(&mut self) {
        let current = Revision(self.reference.current);
        let mut watching = std::mem::take(&mut self.watching);
        for one in &mut watching {
            wait_until("progress", || {
                match one.read(&self.past, &self.reference) {
                    None => {}
                    Some(ReadError::Compacted { .. }) => one.renew(self.store()),
                    Some(error) => panic!("{error}"),
                }
                one.watcher.progress() >= current
            });
            one.skip(&self.past, current.next());
        }
        self.watching = watching;
    }

    fn change_watchers(&mut self) {
        if !self.watching.is_empty() && self.random.one_in(2) {
            let at = self.random.index(self.watching.len());
            self.watching.swap_remove(at);
        }
        if self.watching.len() < WATCHERS {
            let store = self.store.as_ref().unwrap();
            self.watching.push(Watching::begin(store, &self.reference, &mut self.random));
        }
    }

    /// Closes the store or lets it crash, opens it, and watches on while the log is replayed.
    fn reopen(&mut self) {
        let store = self.store.take().unwrap();
        if self.random.one_in(2) {
            store.close().unwrap();
            drop(store);
        } else {
            store.abandon();
        }
        for watching in &mut self.watching {
            let ended = loop {
                match next(&mut watching.watcher) {
                    Ok(found) => watching.check(&self.past, self.reference.compacted(), &found),
                    Err(error) => break error,
                }
            };
            match ended {
                ReadError::Store(StoreError::Closed { .. }) | ReadError::Compacted { .. } => {}
                other => panic!("{other}"),
            }
        }
        let store = Store::open(self.directory.path(), options(&mut self.random)).unwrap();
        for watching in &mut self.watching {
            watching.renew(&store);
        }
        let applied = usize::try_from(store.applied().index).unwrap();
        for at in applied..self.log.len() {
            store.apply(position(at + 1), &self.log[at]).unwrap();
        }
        self.store = Some(store);
    }
}

fn position(index: usize) -> Position {
    Position { index: u64::try_from(index).unwrap(), term: 1, raft: Bytes::new() }
}

/// `REVFS_STEPS` makes a longer run.
fn steps() -> usize {
    std::env::var("REVFS_STEPS").map_or(6_000, |steps| steps.parse().unwrap())
}

#[test]
fn random_watchers_are_shown_what_the_reference_says_happened() {
    let mut bench = Bench::new(random::seed());
    for _ in 0..steps() {
        bench.apply();
        bench.read();
        match bench.random.below(300) {
            0 => bench.reopen(),
            1 => bench.settle(),
            2..40 => bench.change_watchers(),
            _ => {}
        }
    }
    bench.settle();
    let seen: u64 = bench.watching.iter().map(|watching| watching.seen).sum();
    let stats = bench.store().watch_stats();
    println!(
        "{} revisions, {seen} seen by those that are left, {} fell behind a compaction; {stats:?}",
        bench.reference.current, bench.compacted_ends
    );
    assert!(seen > 0, "nobody watched anything");
}
