//! Bringing the pages of a command's keys into memory before it is applied.
//!
//! Apply is one thread; whoever proposes a command has time to wait for the disk, so it reads the
//! keys first. What is read is thrown away, and an error is left for apply to meet. Where the pages turn
//! out to be in memory again and again, only some commands go on being looked at.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::command::{Body, Command};
use crate::store::Store;
use crate::types::{Op, Revision, Txn};
use crate::view::ReadView;

/// More keys than this are not looked up: the proposer's own time counts too.
const KEYS_MAX: usize = 1_000;

/// A key that takes longer had to be read from the disk.
const WARM_KEY_MAX: Duration = Duration::from_micros(50);

/// So many commands in a row must be warm before any is passed over.
const WARM_RUN: u32 = 256;

/// From then on one in so many is looked at.
const SAMPLE: u32 = 16;

/// How many commands in a row found their pages in memory.
#[derive(Debug, Default)]
pub(crate) struct Warmth(AtomicU32);

impl Warmth {
    /// Whether the pages of the next command are worth a look.
    fn wants_a_look(&self) -> bool {
        let run = self.0.load(Ordering::Relaxed);
        if run < WARM_RUN {
            return true;
        }
        // Only counts commands; another thread's count that is lost makes no difference.
        self.0.store(WARM_RUN + (run + 1 - WARM_RUN) % SAMPLE, Ordering::Relaxed);
        run == WARM_RUN
    }

    fn learn(&self, keys: usize, took: Duration) {
        let warm = WARM_KEY_MAX.saturating_mul(u32::try_from(keys).unwrap_or(u32::MAX));
        let run = self.0.load(Ordering::Relaxed);
        if took > warm {
            self.0.store(0, Ordering::Relaxed);
        } else if run < WARM_RUN {
            self.0.store(run + 1, Ordering::Relaxed);
        }
    }
}

impl Store {
    /// Reads the keys that `command` names, for the pages' sake.
    #[expect(
        clippy::disallowed_methods,
        reason = "who proposes may read the clock; apply does not"
    )]
    pub fn touch(&self, command: &Command) {
        let Body::Txn(txn) = command.body.inner() else { return };
        if !self.warmth.wants_a_look() {
            return;
        }
        let begun = Instant::now();
        let Ok(view) = self.read_view() else { return };
        let mut left = KEYS_MAX;
        touch_txn(&view, txn, &mut left);
        if left < KEYS_MAX {
            self.warmth.learn(KEYS_MAX - left, begun.elapsed());
        }
    }
}

fn touch_txn(view: &ReadView, txn: &Txn, left: &mut usize) {
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            Op::Put { key, .. } | Op::Append { key, .. } => touch_key(view, key, left),
            Op::Exchange { a: from, b: to } if from.ends_with(b"/") || to.ends_with(b"/") => {}
            Op::MoveKey { from, to } | Op::Exchange { a: from, b: to } => {
                touch_key(view, from, left);
                touch_key(view, to, left);
            }
            Op::Txn(nested) => touch_txn(view, nested, left),
            Op::Delete { .. } | Op::Range(_) | Op::Move { .. } | Op::Restore { .. } => {}
        }
    }
}

fn touch_key(view: &ReadView, key: &[u8], left: &mut usize) {
    if *left > 0 {
        *left -= 1;
        // Only the pages matter.
        view.get(Revision::NONE, key, true).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_run_of_warm_commands_is_sampled_and_a_cold_one_ends_it() {
        let warmth = Warmth::default();
        let looks = |commands: u32, took: Duration| {
            let looked = (0..commands).filter(|_| {
                let looks = warmth.wants_a_look();
                if looks {
                    warmth.learn(2, took);
                }
                looks
            });
            looked.count()
        };
        assert_eq!(looks(WARM_RUN, WARM_KEY_MAX * 2), 256, "all, until it is known to be warm");
        assert_eq!(looks(SAMPLE * 10, Duration::ZERO), 10);
        assert_eq!(looks(SAMPLE * 2, WARM_KEY_MAX * 3), 32, "all from the cold one on");
    }
}
