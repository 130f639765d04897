//! Whether there is a leader, for those who ask for one: etcd's clients say `hasleader` and are refused
//! while there is none; their streams end once that has lasted three election timeouts.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::proposal::Proposer;

/// As etcd: an election takes its time, and streams outlast it.
const ELECTIONS_UNTIL_LOST: u32 = 3;

/// Looks in an election timeout.
const LOOKS: u32 = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Here,
    /// There is none at the moment.
    Missing,
    /// There has been none for three election timeouts.
    Lost,
}

/// See the module.
pub(crate) struct LeaderWatch {
    proposer: Arc<Proposer>,
    election_timeout: Duration,
    presence: watch::Sender<Presence>,
}

impl LeaderWatch {
    /// Looks for the first time.
    pub(crate) async fn new(proposer: Arc<Proposer>, election_timeout: Duration) -> Self {
        let is_here = proposer.raft.has_leader(election_timeout).await;
        let first = if is_here { Presence::Here } else { Presence::Missing };
        Self { proposer, election_timeout, presence: watch::Sender::new(first) }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Presence> {
        self.presence.subscribe()
    }

    /// Runs until `stop` is set or its sender is gone.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(self.election_timeout / LOOKS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut seen, mut known) = (Instant::now(), None);
        loop {
            tokio::select! {
                _ = stop.changed() => return,
                _ = ticks.tick() => {}
            }
            let leader = self.proposer.raft.status().leader;
            if leader.is_some() && leader != known {
                self.proposer.meters.leader_changes.inc();
                known = leader;
            }
            let is_here = self.proposer.raft.has_leader(self.election_timeout).await;
            if is_here {
                seen = Instant::now();
            }
            let now = presence(is_here, seen.elapsed(), self.election_timeout);
            self.presence.send_if_modified(|presence| std::mem::replace(presence, now) != now);
        }
    }
}

fn presence(is_here: bool, unseen: Duration, election_timeout: Duration) -> Presence {
    match is_here {
        true => Presence::Here,
        false if unseen < election_timeout * ELECTIONS_UNTIL_LOST => Presence::Missing,
        false => Presence::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_lost_three_elections_after_it_was_seen() {
        let election = Duration::from_secs(1);
        let after = |is_here, seconds| presence(is_here, Duration::from_secs(seconds), election);
        assert_eq!(after(true, 0), Presence::Here);
        assert_eq!(after(false, 0), Presence::Missing);
        assert_eq!(after(false, 2), Presence::Missing);
        assert_eq!(after(false, 3), Presence::Lost);
        assert_eq!(after(true, 3), Presence::Here, "it is back");
    }
}
