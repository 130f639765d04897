//! Retention: forgets history older than it is to be kept, and more if the store outgrows its quota.
//!
//! The decision is a function of the store and the clock; the command that follows from it is
//! replicated like any other. A clock that jumped ahead while the node was down (a dead battery, a
//! typing error) would forget everything at once and for good, so one that is ahead of the newest
//! revision by more than history is kept is believed only when the node has run for so long itself.

use std::time::Duration;

use bytes::Bytes;
use revfs_store::types::{Author, Revision, Time};
use revfs_store::{Body, ReadError, Store};
use tokio::sync::watch;

use crate::config::{AutoCompaction, NodeConfig};
use crate::proposal::{self, Proposer};

/// Retention is by days: an hour more is nobody's loss.
const PERIOD: Duration = Duration::from_secs(3_600);

/// Retention by revisions, as etcd.
const REVISIONS_PERIOD: Duration = Duration::from_secs(300);

/// How long to keep what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    pub(crate) keep: Option<Duration>,
    /// The newest so many revisions, whatever their age.
    pub(crate) keep_revisions: Option<u64>,
    pub(crate) quota_bytes: Option<u64>,
    /// How often it is looked at.
    pub(crate) period: Duration,
}

/// What is known of the present beside the clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running {
    /// The time of the newest revision when the node started.
    newest_at_start: Time,
    /// How long the node has run since.
    ran: Duration,
}

impl Running {
    /// The time by which what is older than `keep` may go, if the clock says `now`.
    fn trusted(self, now: Time, keep: i64) -> Time {
        let ran = i64::try_from(self.ran.as_nanos()).unwrap_or(i64::MAX);
        if now.0.saturating_sub(self.newest_at_start.0) <= keep || ran >= keep {
            return now;
        }
        // It is not earlier than this, whatever the clock says.
        Time(self.newest_at_start.0.saturating_add(ran))
    }
}

impl Retention {
    pub(crate) const NONE: Self =
        Self { keep: None, keep_revisions: None, quota_bytes: None, period: PERIOD };

    /// What the settings of a node ask for, each with a clock of its own.
    pub(crate) fn all_of(config: &NodeConfig) -> Vec<Self> {
        let mut all = Vec::new();
        let quota_bytes = config.quota_bytes.filter(|_| config.forget_above_half_quota);
        if config.keep.is_some() || quota_bytes.is_some() {
            all.push(Self { keep: config.keep, quota_bytes, ..Self::NONE });
        }
        match config.auto_compaction {
            AutoCompaction::Off => {}
            AutoCompaction::Periodic(keep) => {
                all.push(Self { keep: Some(keep), period: keep.min(PERIOD), ..Self::NONE });
            }
            AutoCompaction::Revisions(count) => all.push(Self {
                keep_revisions: Some(count),
                period: REVISIONS_PERIOD,
                ..Self::NONE
            }),
        }
        all
    }

    /// The revision that history may begin at, if that is later than it does.
    fn target(
        &self,
        store: &Store,
        now: Time,
        running: Running,
    ) -> Result<Option<Revision>, ReadError> {
        let view = store.read_view()?;
        let begins = view.compacted().max(Revision::FIRST);
        let mut target = begins;
        if let Some(keep) = self.keep {
            let keep = i64::try_from(keep.as_nanos()).unwrap_or(i64::MAX);
            let now = running.trusted(now, keep);
            match view.revision_at(Time(now.0.saturating_sub(keep))) {
                Ok(revision) => target = target.max(revision),
                // Everything kept is younger.
                Err(ReadError::Compacted { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(count) = self.keep_revisions {
            target = target.max(Revision(view.current().0.saturating_sub(count)));
        }
        let size = store.size()?;
        if self.quota_bytes.is_some_and(|quota| size.in_use_bytes > quota / 2) {
            // Half of the revisions: what that frees shows when it is done, an hour later.
            let half = Revision(begins.0 + (view.current().0 - begins.0) / 2);
            target = target.max(view.made_at_or_after(half));
        }
        let target = view.made_at_or_before(target);
        Ok((target > begins).then_some(target))
    }
}

/// The first tick comes when the node has run for a period: a node that was started with the wrong
/// retention, or before its clock was set, has forgotten nothing by the time it is stopped again.
fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}

/// Compacts once in a period until `stop` is set or its sender is gone.
pub(crate) async fn run(
    retention: Retention,
    proposer: std::sync::Arc<Proposer>,
    mut stop: watch::Receiver<bool>,
) {
    let mut ticks = ticks(retention.period);
    let started = std::time::Instant::now();
    let newest_at_start = match newest(&proposer.store) {
        Ok(time) => time,
        Err(error) => {
            tracing::error!(%error, "history will not be compacted");
            return;
        }
    };
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            _ = ticks.tick() => {}
        }
        let running = Running { newest_at_start, ran: started.elapsed() };
        let revision = match retention.target(&proposer.store, proposal::now(), running) {
            Ok(Some(revision)) => revision,
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(%error, "history was not compacted");
                continue;
            }
        };
        let body = Body::Compact { revision };
        match proposer.propose(Author::default(), Bytes::new(), body).await {
            Ok(_) => tracing::info!(%revision, "history before it is forgotten"),
            Err(error) => tracing::warn!(%error, %revision, "history was not compacted"),
        }
    }
}

/// The time of the newest revision; the beginning of time on an empty store.
fn newest(store: &Store) -> Result<Time, ReadError> {
    let view = store.read_view()?;
    if view.current() <= Revision::FIRST {
        return Ok(Time(0));
    }
    view.stamp(view.current()).map(|stamp| stamp.time)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use revfs_store::types::{Author, Op, Revision, Time, Txn};
    use revfs_store::{Body, Command, Position, Store, StoreOptions};

    use super::{Retention, Running};
    use crate::config::{AutoCompaction, NodeConfig};

    const HOUR: i64 = 3_600_000_000_000;

    /// Revision `n + 1` is stamped with hour `n`.
    fn store(directory: &std::path::Path, hours: u64) -> Store {
        let store = Store::create(&directory.join("store"), StoreOptions::default()).unwrap();
        for hour in 1..=hours {
            let position = Position { index: hour, term: 1, raft: Bytes::from_static(b"x") };
            let put = Op::put("key", hour.to_string());
            let command = Command {
                time: Time(i64::try_from(hour).unwrap() * HOUR),
                author: Author::default(),
                note: Bytes::new(),
                body: Body::Txn(Txn { success: vec![put], ..Txn::default() }),
            };
            store.apply(position, &command).unwrap();
        }
        store
    }

    /// A node that has run for ever.
    const LONG: Running = Running { newest_at_start: Time(0), ran: Duration::MAX };

    #[test]
    fn a_clock_that_jumped_ahead_forgets_nothing_before_the_node_has_run_so_long() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path(), 10);
        let retention = Retention { keep: Some(Duration::from_secs(3 * 3_600)), ..Retention::NONE };
        let newest_at_start = super::newest(&store).unwrap();
        assert_eq!(newest_at_start, Time(10 * HOUR));
        let target = |now: i64, hours: u64| {
            let running = Running { newest_at_start, ran: Duration::from_secs(hours * 3_600) };
            retention.target(&store, Time(now * HOUR), running).unwrap()
        };
        assert_eq!(target(13, 0), Some(Revision(11)), "as far ahead as history is kept");
        assert_eq!(target(1_000, 1), Some(Revision(9)), "it is eleven at least");
        assert_eq!(target(1_000, 2), Some(Revision(10)));
        assert_eq!(target(1_000, 3), Some(Revision(11)), "it has run for so long");
    }

    #[test]
    fn history_begins_at_what_was_current_when_the_kept_time_began() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path(), 10);
        let keep = |hours: u64| Retention {
            keep: Some(Duration::from_secs(hours * 3_600)),
            ..Retention::NONE
        };
        let now = Time(10 * HOUR + 5);
        assert_eq!(keep(3).target(&store, now, LONG).unwrap(), Some(Revision(8)));
        assert_eq!(keep(100).target(&store, now, LONG).unwrap(), None);
        assert_eq!(Retention::NONE.target(&store, now, LONG).unwrap(), None);
    }

    #[tokio::test]
    async fn nothing_is_forgotten_before_the_node_has_run_for_a_period() {
        let before = tokio::time::Instant::now();
        let mut ticks = super::ticks(super::PERIOD);
        let at_once = tokio::time::timeout(Duration::ZERO, ticks.tick()).await;
        assert!(at_once.is_err(), "the first tick is not immediate");
        ticks.reset_immediately();
        assert!(ticks.tick().await >= before, "it ticks at all");
        assert_eq!(ticks.period(), super::PERIOD);
    }

    #[test]
    fn a_store_above_half_its_quota_forgets_half_of_its_history() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path(), 11);
        store.commit().unwrap();
        let quota = |bytes| Retention { quota_bytes: Some(bytes), ..Retention::NONE };
        let now = Time(12 * HOUR);
        assert_eq!(quota(1).target(&store, now, LONG).unwrap(), Some(Revision(6)));
        assert_eq!(quota(1 << 40).target(&store, now, LONG).unwrap(), None);
    }

    #[test]
    fn the_newest_revisions_are_kept_by_their_number() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path(), 10);
        let newest = |count| Retention { keep_revisions: Some(count), ..Retention::NONE };
        let now = Time(10 * HOUR);
        assert_eq!(newest(4).target(&store, now, LONG).unwrap(), Some(Revision(7)));
        assert_eq!(newest(10).target(&store, now, LONG).unwrap(), None);
    }

    #[test]
    fn each_setting_has_a_clock_of_its_own() {
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        let of = |auto_compaction| {
            let config = NodeConfig { auto_compaction, ..NodeConfig::new("/nowhere") };
            let all = Retention::all_of(&config);
            all.iter().map(|one| (one.keep, one.keep_revisions, one.period)).collect::<Vec<_>>()
        };
        assert_eq!(of(AutoCompaction::Off), []);
        assert_eq!(of(AutoCompaction::Periodic(hours(5))), [(Some(hours(5)), None, hours(1))]);
        let minute = Duration::from_secs(60);
        assert_eq!(of(AutoCompaction::Periodic(minute)), [(Some(minute), None, minute)]);
        assert_eq!(of(AutoCompaction::Revisions(7)), [(None, Some(7), Duration::from_secs(300))]);
        let kept = NodeConfig { keep: Some(hours(9)), ..NodeConfig::new("/nowhere") };
        let both = NodeConfig { auto_compaction: AutoCompaction::Revisions(7), ..kept };
        assert_eq!(Retention::all_of(&both).len(), 2);
        let quota = NodeConfig { quota_bytes: Some(1), ..NodeConfig::new("/nowhere") };
        assert_eq!(Retention::all_of(&quota).len(), 1);
        let etcds = NodeConfig { forget_above_half_quota: false, ..quota };
        assert_eq!(Retention::all_of(&etcds).len(), 0);
    }
}
