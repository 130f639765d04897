//! What must not grow with the number of keys: opening, idle memory, compaction.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use revfs_store::types::{Op, Revision};
use revfs_store::{Body, Store, StoreOptions};

use crate::figures::{Bound, Figure, float, median, now, print_figure, timed};
use crate::load::{Loaded, Random, VALUE_BYTES, Values, command, key, txn};
use crate::{Outcome, Settings};

/// Runs this program as the process whose memory is measured.
pub(crate) const IDLE_FLAG: &str = "--idle";

const REVISIONS: usize = 10_000;

/// Keys and their shares, of the small and the large store.
struct Stores<'d> {
    dir: &'d Path,
    keys: usize,
}

pub(crate) fn run(settings: &Settings, dir: &Path) -> Outcome<Vec<Figure>> {
    let values = Values::new();
    let dir = settings.stores.as_deref().unwrap_or(dir);
    let keys = settings.size(10_000_000).max(20_000);
    let leased = settings.size(1_000_000).max(2_000);
    let start = now();
    for (name, count, leased) in
        [("tiny", 1_000, 100), ("small", 10_000, 1_000), ("large", keys, leased)]
    {
        if dir.join(name).try_exists()? {
            continue;
        }
        let mut loaded = Loaded::create(&dir.join(name), StoreOptions::default())?;
        loaded.fill_leased(0..leased, 100, &values)?;
        loaded.fill(leased..count, &values)?;
        loaded.close()?;
    }
    eprintln!("loaded {keys} keys in {:.1?}", start.elapsed());
    let stores = Stores { dir, keys };
    let mut figures = Vec::new();
    for measure in [Stores::open, Stores::memory, Stores::compact] {
        let figure = measure(&stores, settings)?;
        print_figure(&figure);
        figures.push(figure);
    }
    Ok(figures)
}

impl Stores<'_> {
    fn open(&self, settings: &Settings) -> Outcome<Figure> {
        let mut pairs = Vec::new();
        let mut random = Random(4);
        for _ in 0..settings.rounds * 3 {
            let large = open_cold(&self.dir.join("large"), random.below(self.keys))?;
            let tiny = open_cold(&self.dir.join("tiny"), random.below(1_000))?;
            pairs.push((large, tiny));
        }
        let what = format!("open {} keys, cold, until a get, against 1,000", self.keys);
        Ok(Figure::times(&what, &pairs, Bound::AtMost(3.0)))
    }

    fn memory(&self, settings: &Settings) -> Outcome<Figure> {
        let (mut large, mut small) = (Vec::new(), Vec::new());
        for _ in 0..settings.rounds {
            large.push(float(idle_memory(&self.dir.join("large"))?));
            small.push(float(idle_memory(&self.dir.join("small"))?));
        }
        let (large, small) = (median(large.into_iter()), median(small.into_iter()));
        Ok(Figure {
            what: format!("anonymous memory idle, {} keys, against 10,000", self.keys),
            ours: format!("{large} KiB"),
            peer: format!("{small} KiB"),
            ratio: large / small,
            bound: Bound::AtMost(1.5),
        })
    }

    fn compact(&self, settings: &Settings) -> Outcome<Figure> {
        let mut pairs = Vec::new();
        let mut random = Random(5);
        for name in ["large", "small"] {
            // What the load itself left to compact is no part of the figure.
            let eager = StoreOptions {
                compaction_batch: 50_000,
                compaction_pause: Duration::ZERO,
                ..StoreOptions::default()
            };
            let mut loaded = Loaded::open(&self.dir.join(name), eager)?;
            let (time, done) = timed(|| compact(&mut loaded));
            done?;
            eprintln!("compacted what loading {name} left in {time:.1?}");
            loaded.close()?;
        }
        let mut large = Loaded::open(&self.dir.join("large"), StoreOptions::default())?;
        let mut small = Loaded::open(&self.dir.join("small"), StoreOptions::default())?;
        for _ in 0..settings.rounds {
            let from = random.below(self.keys - REVISIONS);
            let large = overwrite_and_compact(&mut large, from)?;
            let small = overwrite_and_compact(&mut small, 0)?;
            pairs.push((large, small));
        }
        let what = format!("compact 10,000 revisions among {} keys, against 10,000", self.keys);
        Ok(Figure::times(&what, &pairs, Bound::AtMost(2.0)))
    }
}

fn open_cold(dir: &Path, number: usize) -> Outcome<Duration> {
    let file = File::open(dir.join("data.mdb"))?;
    file.sync_all()?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    let (time, opened) = timed(|| -> Outcome<_> {
        let store = Store::open(dir, StoreOptions::default())?;
        let found = store.read_view()?.get(Revision::NONE, &key(number), false)?;
        Ok((store, found))
    });
    let (store, found) = opened?;
    assert!(found.is_some_and(|kv| kv.value.len() == VALUE_BYTES), "the key is found");
    store.close()?;
    Ok(time)
}

/// KiB of anonymous memory of a process that has opened the store and answered.
fn idle_memory(dir: &Path) -> Outcome<u64> {
    let output = Command::new(std::env::current_exe()?).arg(IDLE_FLAG).arg(dir).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// The process of [`idle_memory`]: reads 10,000 keys, then says how much it holds.
pub(crate) fn idle(dir: &Path) -> Outcome<()> {
    let store = Store::open(dir, StoreOptions::default())?;
    for number in 0..10_000 {
        store.read_view()?.get(Revision::NONE, &key(number), false)?.ok_or("a key is missing")?;
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kibibytes = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    println!("{}", kibibytes.ok_or("no RssAnon in /proc/self/status")?);
    store.close()?;
    Ok(())
}

fn compact(loaded: &mut Loaded) -> Outcome<()> {
    let view = loaded.store.read_view()?;
    let (revision, compacted) = (view.current(), view.compacted());
    drop(view);
    if revision == compacted {
        // An earlier run has done it.
        return Ok(());
    }
    loaded.apply(&command(Body::Compact { revision }))?;
    let minute = Duration::from_secs(60);
    while !loaded.store.wait_compacted(revision, minute)? {}
    Ok(())
}

/// Time to compact 10,000 revisions that overwrote a key each.
fn overwrite_and_compact(loaded: &mut Loaded, from: usize) -> Outcome<Duration> {
    let values = Values::new();
    for number in from..from + REVISIONS {
        loaded.apply(&txn(vec![Op::put(key(number), values.get(number, VALUE_BYTES))]))?;
    }
    loaded.store.commit()?;
    let (time, done) = timed(|| compact(loaded));
    done?;
    Ok(time)
}
