//! What a node does about its disk, once a second: holds the ballast, keeps the log short.

use std::sync::Arc;
use std::time::Duration;

use revfs_store::Health;
use tokio::sync::watch;

use crate::ballast::Ballast;
use crate::proposal::Proposer;
use crate::space_alarm;

const PERIOD: Duration = Duration::from_secs(1);

pub(crate) struct Housekeeping {
    pub(crate) proposer: Arc<Proposer>,
    pub(crate) ballast: Arc<Ballast>,
    pub(crate) log_bytes_max: u64,
    pub(crate) member: u64,
    pub(crate) quota_bytes: Option<u64>,
}

impl Housekeeping {
    /// Runs until `stop` is set or its sender is gone.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = stop.changed() => return,
                _ = ticks.tick() => {}
            }
            self.tend_ballast().await;
            self.shorten_log().await;
            space_alarm::tend(&self.proposer, self.member, self.quota_bytes).await;
        }
    }

    async fn tend_ballast(&self) {
        let ballast = Arc::clone(&self.ballast);
        let beside = self.proposer.disk_free_min_bytes;
        let store_is_full = matches!(self.proposer.store.health(), Health::NoSpace { .. });
        let tend = move || if store_is_full { ballast.release() } else { ballast.take(beside) };
        if let Err(error) = tokio::task::spawn_blocking(tend).await {
            tracing::error!(%error, "the ballast was not tended");
        }
    }

    /// Entries are kept by their number for members that lag; large ones would fill the disk.
    async fn shorten_log(&self) {
        let log = &self.proposer.log;
        if log.disk_bytes() <= self.log_bytes_max {
            return;
        }
        let kept_from = log.first_index_within(self.log_bytes_max / 2);
        let purged = log.state().purged.map_or(0, |purged| purged.index + 1);
        if kept_from > purged
            && let Err(error) = self.proposer.raft.purge(kept_from - 1).await
        {
            tracing::debug!(%error, "the log was not shortened");
        }
    }
}
