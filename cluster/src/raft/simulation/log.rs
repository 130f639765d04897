//! The real log of a member, watched: everything that openraft tells it passes here, and so do the lies that a
//! planted fault has it tell.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;

use futures_util::Stream;
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tokio::sync::Notify;

use super::super::log_store::LogStore;
use super::super::payload::to_log_id;
use super::super::type_config::{RaftEntry, RaftLogId, RaftVote, TypeConfig};
use super::Planted;
use super::checks::Checks;
use crate::log::Log;

/// See the module.
#[derive(Clone)]
pub(super) struct WatchedLog {
    pub(super) store: LogStore,
    pub(super) log: Arc<Log>,
    pub(super) member: u64,
    pub(super) checks: Arc<Checks>,
    pub(super) planted: Option<Planted>,
    /// Told when something is queued for the disk.
    pub(super) queued: Arc<Notify>,
}

impl RaftLogReader<TypeConfig> for WatchedLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        self.store.try_get_log_entries(range).await
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<RaftEntry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.store.entries_stream(range).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        self.store.limited_get_log_entries(start, end).await
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        self.store.read_vote().await
    }
}

impl RaftLogStorage<TypeConfig> for WatchedLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        self.store.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        let (term, of) = (vote.leader_id.term, vote.leader_id.voted_for);
        self.checks.voted(self.member, term, of, vote.committed);
        if self.planted == Some(Planted::VoteNotSaved) && !vote.committed {
            return Ok(());
        }
        self.queued.notify_one();
        self.store.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            self.checks.committed(self.member, &self.log, to_log_id(committed));
        }
        self.store.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        self.store.read_committed().await
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.queued.notify_one();
        if self.planted == Some(Planted::FlushedBeforeItIs) {
            self.store.append(entries, IOFlushed::noop()).await?;
            callback.io_completed(Ok(()));
            return Ok(());
        }
        self.store.append(entries, callback).await
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        self.checks.truncated(self.member, last.map(to_log_id));
        self.queued.notify_one();
        self.store.truncate_after(last).await
    }

    async fn purge(&mut self, id: RaftLogId) -> Result<(), io::Error> {
        self.checks.purged(self.member, to_log_id(id));
        self.queued.notify_one();
        self.store.purge(id).await
    }
}
