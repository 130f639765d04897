//! What was asked of a mount: how often each kind of operation, how often in vain, and how long it took.
//!
//! Times are kept as a histogram whose bounds lie at 1, 1.5, 2, 3, 4, 6, … microseconds: a percentile is
//! right within a half. Everything only grows, so that two looks tell what was between them. Recording is a few
//! additions and never waits.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Kinds of operation, as far as they are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    Lookup,
    Stat,
    /// Reads of extended attributes: `ls -l` makes some for each name.
    Xattr,
    Open,
    Read,
    List,
    Create,
    Write,
    /// The end of a descriptor, which may commit.
    Close,
    Sync,
    /// Changes of attributes, extended ones too.
    Attributes,
    Remove,
    Rename,
    Lock,
    /// A read of `@watch` that had to wait.
    Watch,
    /// A transaction that this mount proposed.
    Commit,
}

impl OperationKind {
    pub const ALL: [Self; 16] = [
        Self::Lookup,
        Self::Stat,
        Self::Xattr,
        Self::Open,
        Self::Read,
        Self::List,
        Self::Create,
        Self::Write,
        Self::Close,
        Self::Sync,
        Self::Attributes,
        Self::Remove,
        Self::Rename,
        Self::Lock,
        Self::Watch,
        Self::Commit,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Stat => "stat",
            Self::Xattr => "xattr",
            Self::Open => "open",
            Self::Read => "read",
            Self::List => "list",
            Self::Create => "create",
            Self::Write => "write",
            Self::Close => "close",
            Self::Sync => "sync",
            Self::Attributes => "attributes",
            Self::Remove => "remove",
            Self::Rename => "rename",
            Self::Lock => "lock",
            Self::Watch => "watch",
            Self::Commit => "commit",
        }
    }
}

/// Up to half a minute, which no operation takes but those that wait until they are interrupted.
const BUCKETS: usize = 50;

/// The first bucket whose bound is not below the time.
fn bucket(took: Duration) -> usize {
    let microseconds = took.as_nanos().div_ceil(1_000).max(1);
    // Which power of two, and in which half above it.
    let above = microseconds - 1;
    let bucket = match above.checked_ilog2() {
        None => 0,
        Some(power) => {
            let half = power.checked_sub(1).map_or(1, |below| (above >> below) & 1);
            2 * power as usize + 1 + usize::from(half == 1)
        }
    };
    bucket.min(BUCKETS)
}

/// The bound of a bucket in microseconds; none of the last, of whatever took longer.
#[must_use]
pub fn bound(bucket: usize) -> Option<u64> {
    if bucket >= BUCKETS {
        return None;
    }
    let power = 1_u64 << (bucket / 2);
    Some(if bucket.is_multiple_of(2) { power } else { power + power / 2 })
}

#[derive(Debug)]
struct Kind {
    errors: AtomicU64,
    nanoseconds: AtomicU64,
    buckets: [AtomicU64; BUCKETS + 1],
}

impl Default for Kind {
    fn default() -> Self {
        let buckets = std::array::from_fn(|_| AtomicU64::new(0));
        Self { errors: AtomicU64::default(), nanoseconds: AtomicU64::default(), buckets }
    }
}

/// What is known of one kind of operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    pub operation: OperationKind,
    pub count: u64,
    /// Of these, those answered with an error.
    pub errors: u64,
    /// All together.
    pub took: Duration,
    /// Bounds in microseconds (none: longer) and how many took so long, where any did.
    pub histogram: Vec<(Option<u64>, u64)>,
}

/// See the module.
#[derive(Debug)]
pub struct Operations {
    began: Instant,
    kinds: [Kind; OperationKind::ALL.len()],
}

impl Default for Operations {
    fn default() -> Self {
        Self { began: Instant::now(), kinds: Default::default() }
    }
}

impl Operations {
    pub fn record(&self, operation: OperationKind, took: Duration, is_error: bool) {
        let kind = &self.kinds[operation as usize];
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        kind.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        kind.errors.fetch_add(u64::from(is_error), Ordering::Relaxed);
        kind.buckets[bucket(took)].fetch_add(1, Ordering::Relaxed);
    }

    /// For how long it has been counted.
    #[must_use]
    pub fn since(&self) -> Duration {
        self.began.elapsed()
    }

    /// Of each kind that there was.
    #[must_use]
    pub fn figures(&self) -> Vec<Figures> {
        let of = |operation: OperationKind| {
            let kind = &self.kinds[operation as usize];
            let counts = kind.buckets.iter().map(|count| count.load(Ordering::Relaxed));
            let histogram: Vec<_> = counts
                .enumerate()
                .filter(|(_, count)| *count > 0)
                .map(|(at, count)| (bound(at), count))
                .collect();
            Figures {
                operation,
                count: histogram.iter().map(|(_, count)| count).sum(),
                errors: kind.errors.load(Ordering::Relaxed),
                took: Duration::from_nanos(kind.nanoseconds.load(Ordering::Relaxed)),
                histogram,
            }
        };
        OperationKind::ALL.map(of).into_iter().filter(|figures| figures.count > 0).collect()
    }
}

/// The bound below which so many hundredths of a histogram lie; none if they took longer than all bounds, or
/// there are none. (Buckets in their order.)
#[must_use]
pub fn percentile(histogram: &[(Option<u64>, u64)], hundredths: u64) -> Option<u64> {
    let count: u64 = histogram.iter().map(|(_, count)| count).sum();
    let wanted = (count * hundredths).div_ceil(100);
    let mut seen = 0;
    for (bound, count) in histogram {
        seen += count;
        if seen >= wanted && seen > 0 {
            return *bound;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_lies_in_the_first_bucket_whose_bound_is_not_below_it() {
        for microseconds in (1..5_000).chain([1 << 20, (1 << 24) + 1, 3 << 23]) {
            let at = bucket(Duration::from_micros(microseconds));
            assert!(bound(at).is_some_and(|bound| bound >= microseconds), "{microseconds}: {at}");
            if at > 0 {
                let before =
                    (0..at).rev().filter_map(bound).find(|below| Some(*below) != bound(at));
                assert!(before.is_none_or(|below| below < microseconds), "{microseconds}: {at}");
            }
        }
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bound(bucket(Duration::from_secs(3_600))), None);
    }

    #[test]
    fn what_was_recorded_is_told_by_kind() {
        let operations = Operations::default();
        assert_eq!(operations.figures(), []);
        for microseconds in 1..=100 {
            operations.record(OperationKind::Read, Duration::from_micros(microseconds), false);
        }
        operations.record(OperationKind::Commit, Duration::from_secs(3_600), true);
        let figures = operations.figures();
        assert_eq!(figures.len(), 2);
        assert_eq!(
            (figures[0].operation, figures[0].count, figures[0].errors),
            (OperationKind::Read, 100, 0)
        );
        assert_eq!(figures[0].took, Duration::from_micros(5_050));
        let at = |hundredths| percentile(&figures[0].histogram, hundredths);
        assert_eq!((at(50), at(90), at(99), at(1)), (Some(64), Some(96), Some(128), Some(1)));
        assert_eq!((figures[1].errors, percentile(&figures[1].histogram, 50)), (1, None));
        assert_eq!(percentile(&[], 50), None);
    }
}
