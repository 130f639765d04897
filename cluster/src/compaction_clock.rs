//! Retention: forgets history older than it is to be kept, and more if the store outgrows its quota.
//!
//! The decision is a function of the store and the clock; the command that follows from it is
//! replicated like any other.

use std::time::Duration;

use bytes::Bytes;
use revfs_store::types::{Author, Revision, Time};
use revfs_store::{Body, ReadError, Store};
use tokio::sync::watch;

use crate::proposal::{self, Proposer};

/// Retention is by days: an hour more is nobody's loss.
const PERIOD: Duration = Duration::from_secs(3_600);

/// How long to keep what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    pub(crate) keep: Option<Duration>,
    pub(crate) quota_bytes: Option<u64>,
}

impl Retention {
    /// The revision that history may begin at, if that is later than it does.
    fn target(&self, store: &Store, now: Time) -> Result<Option<Revision>, ReadError> {
        let view = store.read_view()?;
        let begins = view.compacted().max(Revision::FIRST);
        let mut target = begins;
        if let Some(keep) = self.keep {
            let keep = i64::try_from(keep.as_nanos()).unwrap_or(i64::MAX);
            match view.revision_at(Time(now.0.saturating_sub(keep))) {
                Ok(revision) => target = target.max(revision),
                // Everything kept is younger.
                Err(ReadError::Compacted { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let size = store.size()?;
        if self.quota_bytes.is_some_and(|quota| size.in_use_bytes > quota / 2) {
            // Half of the revisions: what that frees shows when it is done, an hour later.
            target = target.max(Revision(begins.0 + (view.current().0 - begins.0) / 2));
        }
        Ok((target > begins).then_some(target))
    }
}

/// The first tick comes when the node has run for a period: a node that was started with the wrong
/// retention, or before its clock was set, has forgotten nothing by the time it is stopped again.
fn ticks() -> tokio::time::Interval {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + PERIOD, PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}

/// Compacts once an hour until `stop` is set or its sender is gone.
pub(crate) async fn run(
    retention: Retention,
    proposer: std::sync::Arc<Proposer>,
    mut stop: watch::Receiver<bool>,
) {
    let mut ticks = ticks();
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            _ = ticks.tick() => {}
        }
        let revision = match retention.target(&proposer.store, proposal::now()) {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use revfs_store::types::{Author, Op, Revision, Time, Txn};
    use revfs_store::{Body, Command, Position, Store, StoreOptions};

    use super::Retention;

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

    #[test]
    fn history_begins_at_what_was_current_when_the_kept_time_began() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path(), 10);
        let keep = |hours: u64| Retention {
            keep: Some(Duration::from_secs(hours * 3_600)),
            quota_bytes: None,
        };
        let now = Time(10 * HOUR + 5);
        assert_eq!(keep(3).target(&store, now).unwrap(), Some(Revision(8)));
        assert_eq!(keep(100).target(&store, now).unwrap(), None);
        let never = Retention { keep: None, quota_bytes: None };
        assert_eq!(never.target(&store, now).unwrap(), None);
    }

    #[tokio::test]
    async fn nothing_is_forgotten_before_the_node_has_run_for_a_period() {
        let before = tokio::time::Instant::now();
        let mut ticks = super::ticks();
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
        let quota = |bytes| Retention { keep: None, quota_bytes: Some(bytes) };
        let now = Time(12 * HOUR);
        assert_eq!(quota(1).target(&store, now).unwrap(), Some(Revision(6)));
        assert_eq!(quota(1 << 40).target(&store, now).unwrap(), None);
    }
}
