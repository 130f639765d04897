//! Figures of the watches, in one run, on one machine.
//!
//!     cargo bench -p revfs-store --bench watch
//!     cargo bench -p revfs-store --bench watch -- --divide 100     sizes divided by 100
//!
//! The watchers of a figure are read by one thread, as their hub is one thread. A figure is the median
//! over the rounds, whose variants take turns. Absolute times are those of one machine: compare the
//! ratios.

use std::error::Error;
use std::sync::Arc;
use std::task::{Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use revfs_store::types::{Author, KeyRange, Op, Revision, Time, Txn};
use revfs_store::{
    Body, Command, Position, Store, StoreOptions, WatchRequest, WatchStats, Watcher,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

const ROUNDS: usize = 3;
const CATCH_UP_WATCHERS: usize = 1_000;
const CATCH_UP_REVISIONS: usize = 1_000_000;
const PUTS: usize = 20_000;
/// A put that each of 10,000 watchers sees is measured less often.
const SEEN_PUTS: usize = 500;
const VALUE: &[u8] = &[b'v'; 256];

fn main() -> Outcome<()> {
    let mut divide = 1;
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--divide" => divide = arguments.next().ok_or("--divide needs a number")?.parse()?,
            other => return Err(format!("unknown argument {other}: --divide N").into()),
        }
    }
    println!("| what | time | ratio |");
    println!("| --- | --- | --- |");
    catch_up((CATCH_UP_REVISIONS / divide).max(CATCH_UP_WATCHERS))?;
    puts((PUTS / divide).max(10), (SEEN_PUTS / divide).max(2))
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures; nothing of it is applied")]
fn now() -> Instant {
    Instant::now()
}

struct Rig {
    store: Store,
    index: u64,
    // Dropped after the store.
    _directory: tempfile::TempDir,
}

impl Rig {
    fn new() -> Outcome<Self> {
        let directory = tempfile::tempdir()?;
        let store = Store::create(directory.path(), StoreOptions::default())?;
        Ok(Self { store, index: 0, _directory: directory })
    }

    fn put(&mut self, key: Bytes) -> Outcome<Revision> {
        let body = Body::Txn(Txn { success: vec![Op::put(key, VALUE)], ..Txn::default() });
        let author = Author { principal: String::new(), claimed: "user@host".to_owned() };
        let command = Command { time: Time(1), author, note: Bytes::new(), body };
        self.index += 1;
        let position = Position { index: self.index, term: 1, raft: Bytes::new() };
        let outcome = self.store.apply(position, &command)?;
        outcome.result?;
        Ok(outcome.revision)
    }

    fn watch(&self, range: KeyRange, from: Revision) -> Outcome<Watcher> {
        let request = WatchRequest { ranges: vec![range], from, ..WatchRequest::default() };
        Ok(self.store.watch(request)?)
    }

    fn wait_synced(&self) {
        loop {
            let WatchStats { watchers, synced, .. } = self.store.watch_stats();
            if watchers == synced {
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// Unparks the thread that reads.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Reads until `expected` revisions came to all watchers together.
fn read_all(watchers: &mut [Watcher], expected: usize) -> Outcome<()> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut seen = 0;
    while seen < expected {
        let before = seen;
        for watcher in &mut *watchers {
            while let Poll::Ready(revision) = watcher.poll_next(&waker) {
                seen += 1;
                drop(revision?);
            }
        }
        if seen == before {
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
    Ok(())
}

fn group(number: usize) -> Vec<u8> {
    format!("/{:04}/", number % CATCH_UP_WATCHERS).into_bytes()
}

fn catch_up(revisions: usize) -> Outcome<()> {
    let mut rig = Rig::new()?;
    for number in 0..revisions {
        let mut key = group(number);
        key.extend_from_slice(format!("{:010}", number / CATCH_UP_WATCHERS).as_bytes());
        rig.put(key.into())?;
    }
    rig.store.commit()?;
    let first = Revision::FIRST.next();
    let (mut ones, mut manys) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let begun = now();
        let mut one = [rig.watch(KeyRange::prefix(b"/"), first)?];
        read_all(&mut one, revisions)?;
        ones.push(begun.elapsed());
        drop(one);
        let begun = now();
        let many = |number| rig.watch(KeyRange::prefix(&group(number)), first);
        let mut many: Vec<_> = (0..CATCH_UP_WATCHERS).map(many).collect::<Result<_, _>>()?;
        read_all(&mut many, revisions)?;
        manys.push(begun.elapsed());
    }
    let (one, many) = (median(&mut ones), median(&mut manys));
    line(&format!("catch-up over {revisions} revisions: 1 watcher on all"), one, one);
    let what = format!("… {CATCH_UP_WATCHERS} watchers, each on its own thousandth (at most 3)");
    line(&what, many, one);
    Ok(())
}

/// Who watches while puts are measured.
#[derive(Clone, Copy)]
enum Watched {
    Other(usize),
    Same(usize),
}

fn puts(puts: usize, seen_puts: usize) -> Outcome<()> {
    let cases = [
        (Watched::Other(0), puts),
        (Watched::Other(1_000), puts),
        (Watched::Other(10_000), puts),
        (Watched::Same(1), puts),
        (Watched::Same(1_000), seen_puts),
        (Watched::Same(10_000), seen_puts),
    ];
    let mut times = vec![(Vec::new(), Vec::new()); cases.len()];
    for _ in 0..ROUNDS {
        for ((applied, delivered), &(watched, count)) in times.iter_mut().zip(&cases) {
            let (one_applied, one_delivered) = put_watched(watched, count)?;
            applied.push(one_applied);
            delivered.push(one_delivered);
        }
    }
    let base = median(&mut times[0].0.clone());
    for ((mut applied, mut delivered), (watched, _)) in times.into_iter().zip(cases) {
        let (what, is_seen) = match watched {
            Watched::Other(0) => ("put, nobody watches".to_owned(), false),
            Watched::Other(count) => (format!("put, {count} watchers on other keys"), false),
            Watched::Same(count) => (format!("put, {count} watchers on its key"), true),
        };
        line(&what, median(&mut applied), base);
        if is_seen {
            line("… until all of them have read it", median(&mut delivered), base);
        }
    }
    Ok(())
}

/// The time of one put, and of one put until it was read by all who watch it.
fn put_watched(watched: Watched, count: usize) -> Outcome<(Duration, Duration)> {
    let mut rig = Rig::new()?;
    let key = |number: usize| Bytes::from(format!("/watched/{number:06}"));
    let (watchers, readers) = match watched {
        Watched::Other(watchers) => (watchers, 0),
        Watched::Same(watchers) => (watchers, watchers),
    };
    let range = |number| match watched {
        Watched::Other(_) => KeyRange::Key(key(1 + number)),
        Watched::Same(_) => KeyRange::Key(key(0)),
    };
    let watch = |number| rig.watch(range(number), Revision::NONE);
    let mut watchers: Vec<_> = (0..watchers).map(watch).collect::<Result<_, _>>()?;
    rig.wait_synced();
    let mut applied = Duration::ZERO;
    let begun = now();
    for _ in 0..count {
        let put = now();
        rig.put(key(0))?;
        applied += put.elapsed();
        read_all(&mut watchers[..readers], readers)?;
    }
    let count = u32::try_from(count)?;
    Ok((applied / count, begun.elapsed() / count))
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn line(what: &str, time: Duration, base: Duration) {
    println!("| {what} | {time:.2?} | {:.2} |", time.as_secs_f64() / base.as_secs_f64());
}
