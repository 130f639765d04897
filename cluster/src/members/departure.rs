//! How a member learns that it was removed, for ever: by its own rows, or, where it missed them, by
//! the word of another member.
//!
//! A number that was removed never comes back, so that one word is enough. Who has learned it notes it in
//! its data directory, which is not opened any more.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use revfs_store::MemberRow;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::data_dir::{DataDir, Identity};
use crate::peer::Peers;
use crate::raft::Raft;

/// Between two questions to the others while there is no leader.
const PAUSE: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Departure {
    data_dir: Arc<DataDir>,
    /// A leader that was not heard of for so long is none.
    silence_max: Duration,
    asked: Mutex<Option<Instant>>,
    has_left: watch::Sender<bool>,
}

impl Departure {
    pub(super) fn new(data_dir: Arc<DataDir>, silence_max: Duration) -> Self {
        let (asked, has_left) = (Mutex::default(), watch::Sender::new(false));
        Self { data_dir, silence_max, asked, has_left }
    }

    pub(super) fn has_left(&self) -> watch::Receiver<bool> {
        self.has_left.subscribe()
    }

    /// Whether this member was removed and is not needed any more; notes it when it finds out.
    pub(super) async fn check(
        &self,
        own: &Identity,
        raft: &Raft,
        peers: &Arc<Peers>,
        rows: &[(u64, MemberRow)],
    ) -> bool {
        if *self.has_left.borrow() {
            return true;
        }
        let has_left = is_let_go(own, raft, rows) || self.is_told(own, raft, peers).await;
        if has_left {
            let data_dir = Arc::clone(&self.data_dir);
            let noted = tokio::task::spawn_blocking(move || data_dir.mark_removed()).await;
            // Without the mark the next start learns it anew.
            if let Ok(Err(error)) = noted {
                tracing::warn!(%error, "the removal of this member could not be noted");
            }
            self.has_left.send_replace(true);
        }
        has_left
    }

    /// Whether one of the others says so, asked now and then while no leader is heard of.
    async fn is_told(&self, own: &Identity, raft: &Raft, peers: &Arc<Peers>) -> bool {
        let leads = raft.status().leader == Some(own.member);
        if leads || raft.has_leader(self.silence_max).await {
            return false;
        }
        {
            let mut asked = self.asked.lock();
            if asked.is_some_and(|asked| asked.elapsed() < PAUSE) {
                return false;
            }
            *asked = Some(Instant::now());
        }
        let others = raft.replication().addresses.into_iter().filter(|(id, _)| *id != own.member);
        let urls = others.flat_map(|(_, address)| {
            address.split(',').filter(|url| !url.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        });
        let asked = urls.map(async |url| match peers.who_is_at(&url, &[]).await {
            Ok(answer) => answer.cluster == own.cluster && answer.is_removed,
            Err(_) => false,
        });
        futures_util::future::join_all(asked).await.contains(&true)
    }
}

/// Whether this member knows that it was removed, and that no vote of it is waited for any more.
fn is_let_go(own: &Identity, raft: &Raft, rows: &[(u64, MemberRow)]) -> bool {
    let row = rows.iter().find(|(id, _)| *id == own.member);
    let is_removed = row.is_some_and(|(_, row)| row.live().is_none());
    is_removed && {
        let replication = raft.replication();
        replication.is_committed && !replication.voters.contains(&own.member)
    }
}
