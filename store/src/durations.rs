//! How long something took, each time, counted in classes: what a disk does to a store and to a log. Nothing
//! of it reaches what is stored. Adding takes no lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::store::Store;

/// Classes with a bound; what takes longer is in one more.
pub const BOUNDED_CLASSES: usize = 14;

/// The bound of the first class; each further one is twice the one before. etcd's classes of disks.
const FIRST_BOUND: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Debug, Default)]
pub struct Durations {
    counts: [AtomicU64; BOUNDED_CLASSES + 1],
    nanoseconds: AtomicU64,
}

/// What was counted so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// The last one has no bound.
    pub counts: [u64; BOUNDED_CLASSES + 1],
    /// Of all together.
    pub total: Duration,
}

impl Durations {
    /// The bounds of the classes, inclusive.
    pub fn bounds() -> impl Iterator<Item = Duration> {
        std::iter::successors(Some(FIRST_BOUND), |bound| Some(*bound * 2)).take(BOUNDED_CLASSES)
    }

    pub fn add(&self, took: Duration) {
        let class = Self::bounds().position(|bound| took <= bound).unwrap_or(BOUNDED_CLASSES);
        self.counts[class].fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Does something and adds how long it took.
    pub fn time<T>(&self, act: impl FnOnce() -> T) -> T {
        #[expect(
            clippy::disallowed_methods,
            reason = "it is counted, and nothing is decided by it"
        )]
        let begun = Instant::now();
        let result = act();
        self.add(begun.elapsed());
        result
    }

    #[must_use]
    pub fn measured(&self) -> Measured {
        Measured {
            counts: std::array::from_fn(|class| self.counts[class].load(Ordering::Relaxed)),
            total: Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)),
        }
    }
}

impl Store {
    /// How long the commits of this process took.
    #[must_use]
    pub fn commit_durations(&self) -> Measured {
        self.shared().options.commits.measured()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_falls_into_the_least_class_that_holds_it() {
        let durations = Durations::default();
        let milliseconds = [0, 1, 2, 3, 4, 8_192, 8_193].map(Duration::from_millis);
        milliseconds.into_iter().for_each(|took| durations.add(took));
        let Measured { counts, total } = durations.measured();
        assert_eq!(counts, [2, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(total, milliseconds.iter().sum());
        assert_eq!(Durations::bounds().last(), Some(Duration::from_millis(8_192)));
    }
}
