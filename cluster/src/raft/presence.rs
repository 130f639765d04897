//! Whether there is a leader, as far as this member can tell.
//!
//! Nothing that openraft names decides it: who was cut off goes on naming the leader that it knew. What
//! counts is time. A leader is there if a quorum has answered it lately; a leader elsewhere is there if this
//! member has heard of it lately.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{Instant as _, ServerState};

use super::core::Raft;

impl Raft {
    /// Whether there was a leader within so long.
    pub(crate) async fn has_leader(&self, within: Duration) -> bool {
        let (is_leader, is_alone, leader, acknowledged) = {
            let metrics = self.inner.metrics();
            let metrics = metrics.borrow_watched();
            let is_leader = metrics.state == ServerState::Leader;
            let is_alone = metrics.membership_config.voter_ids().eq([metrics.id]);
            (is_leader, is_alone, metrics.current_leader, metrics.last_quorum_acked)
        };
        if is_leader {
            return is_alone || acknowledged.is_some_and(|at| at.into_inner().elapsed() < within);
        }
        if leader.is_none() {
            return false;
        }
        // Each message of a leader confirms its vote.
        let heard = self.inner.with_raft_state(|state| state.vote_last_modified()).await;
        heard.ok().flatten().is_some_and(|at| at.elapsed() < within)
    }
}
