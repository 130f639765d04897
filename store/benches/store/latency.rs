//! How long an entry waits from its time to its answer while 1,000,000 revisions are compacted.
//!
//! Entries come at half the peak rate whether or not the store keeps up (open loop): the wait counts
//! from the time at which an entry should have begun.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use revfs_store::types::{Op, Revision};
use revfs_store::{BackupOptions, Body, StoreOptions};

use crate::figures::{Bound, Figure, now};
use crate::load::{Loaded, Random, VALUE_BYTES, Values, command, key, txn};
use crate::{Outcome, Settings};

const KEYS: usize = 10_000;

/// So little that the overlay is full now and then.
const OVERLAY_BYTES: usize = 4 << 20;

pub(crate) fn run(settings: &Settings, dir: &Path) -> Outcome<Vec<Figure>> {
    let values = Values::new();
    let revisions = settings.size(1_000_000).max(10_000);
    let options = StoreOptions { overlay_bytes_max: OVERLAY_BYTES, ..StoreOptions::default() };
    let mut loaded = Loaded::create(&dir.join("store"), options)?;
    loaded.fill(0..KEYS, &values)?;
    let start = now();
    let mut load = Load { random: Random(6), values, revision: Revision::NONE };
    for _ in 0..revisions {
        load.put(&mut loaded)?;
    }
    let rate = f64::from(u32::try_from(revisions)?) / start.elapsed().as_secs_f64();
    let interval = Duration::from_secs_f64(2.0 / rate);
    eprintln!("peak: {rate:.0} entries a second, each of one put; one comes every {interval:.1?}");
    let waits = loaded.store.overlay_waits();
    eprintln!("the overlay was full {waits} times until here");
    loaded.store.commit()?;
    let quiet_time = Duration::from_secs_f64(20.0 / f64::from(u32::try_from(settings.divide)?));
    let quiet = load.open_loop(&mut loaded, interval, |_, elapsed| Ok(elapsed >= quiet_time))?;
    let quiet = percentile(quiet);
    let backup = {
        let store = Arc::clone(&loaded.store);
        let mut file =
            File::options().read(true).write(true).create_new(true).open(dir.join("backup"))?;
        std::thread::spawn(move || {
            let options = BackupOptions::default();
            store.backup(&mut file, &options, &mut |_| ControlFlow::Continue(()))
        })
    };
    let during_backup = load.open_loop(&mut loaded, interval, |_, _| Ok(backup.is_finished()))?;
    backup.join().map_err(|_| "the backup panicked")??;
    let target = load.revision;
    loaded.apply(&command(Body::Compact { revision: target }))?;
    let during_compaction = load.open_loop(&mut loaded, interval, |loaded, _| {
        Ok(loaded.store.wait_compacted(target, Duration::ZERO)?)
    })?;
    eprintln!("and {} times after that", loaded.store.overlay_waits() - waits);
    let figure = |what: &str, waits| {
        let what = format!("p99.9 of an entry's wait while {what}, against quiet");
        Figure::times(&what, &[(percentile(waits), quiet)], Bound::AtMost(5.0))
    };
    Ok(vec![
        figure(&format!("{revisions} revisions are compacted"), during_compaction),
        figure("a backup is taken", during_backup),
    ])
}

struct Load {
    random: Random,
    values: Values,
    revision: Revision,
}

impl Load {
    fn put(&mut self, loaded: &mut Loaded) -> Outcome<()> {
        let number = self.random.below(KEYS);
        let value = self.values.get(number, VALUE_BYTES);
        self.revision = loaded.apply(&txn(vec![Op::put(key(number), value)]))?;
        Ok(())
    }

    /// Puts at a fixed rate until `is_over`, which is asked ten times a second.
    fn open_loop(
        &mut self,
        loaded: &mut Loaded,
        interval: Duration,
        mut is_over: impl FnMut(&Loaded, Duration) -> Outcome<bool>,
    ) -> Outcome<Vec<Duration>> {
        let start = now();
        let mut waits = Vec::new();
        let (mut due, mut question) = (Duration::ZERO, Duration::ZERO);
        loop {
            let elapsed = start.elapsed();
            if elapsed < due {
                std::thread::park_timeout(due - elapsed);
                continue;
            }
            self.put(loaded)?;
            let elapsed = start.elapsed();
            waits.push(elapsed - due);
            due += interval;
            if elapsed >= question {
                question = elapsed + Duration::from_millis(100);
                if is_over(loaded, elapsed)? {
                    return Ok(waits);
                }
            }
        }
    }
}

/// The 99.9th.
fn percentile(mut waits: Vec<Duration>) -> Duration {
    waits.sort_unstable();
    waits[(waits.len() - 1) * 999 / 1000]
}
