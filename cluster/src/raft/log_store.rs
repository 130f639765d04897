//! Our log behind openraft's storage trait. No decisions: both speak of the same things.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{Stream, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::oneshot;

use super::payload::{from_log_entry, from_log_id, to_log_entry, to_log_id};
use super::type_config::{Membership, RaftEntry, RaftLogId, RaftVote, TypeConfig};
use crate::log::{Log, Vote};

/// Payload that is read from the log at once, to be applied or sent.
const CHUNK_BYTES: usize = 8 << 20;

#[derive(Clone)]
pub(super) struct LogStore {
    log: Arc<Log>,
    member: u64,
    /// This member alone decides, as the newest membership that it knows has it: nobody else waits for what
    /// it appends, so that replication may wait for the disk itself.
    is_alone: Arc<AtomicBool>,
}

impl LogStore {
    pub(super) fn new(log: Arc<Log>, member: u64) -> Self {
        Self { log, member, is_alone: Arc::default() }
    }

    /// Takes note of a membership.
    pub(super) fn learn(&self, membership: &Membership) {
        let mut voters = membership.voter_ids();
        let is_alone = voters.next() == Some(self.member) && voters.next().is_none();
        self.is_alone.store(is_alone, Ordering::Release);
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<RaftEntry>> {
        self.log.read(range, bytes_max)?.into_iter().map(from_log_entry).collect()
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last + 1,
        Bound::Excluded(&end) => end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        self.read(bounds(&range), usize::MAX)
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<RaftEntry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let begin = (self.clone(), bounds(&range), VecDeque::new());
        Box::pin(stream::unfold(begin, |(store, mut range, mut read)| async move {
            if read.is_empty() && !range.is_empty() {
                match store.read(range.clone(), CHUNK_BYTES) {
                    Ok(entries) => read = entries.into(),
                    Err(error) => return Some((Err(error), (store, 0..0, read))),
                }
            }
            let entry: RaftEntry = read.pop_front()?;
            range.start = entry.log_id.index + 1;
            Some((Ok(entry), (store, range, read)))
        }))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<RaftEntry>, io::Error> {
        self.read(start..end, CHUNK_BYTES)
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        Ok(self.log.state().vote.map(|vote| {
            if vote.committed {
                RaftVote::new_committed(vote.term, vote.node)
            } else {
                RaftVote::new(vote.term, vote.node)
            }
        }))
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.log.state();
        Ok(LogState {
            last_purged_log_id: state.purged.map(from_log_id),
            last_log_id: state.last.map(from_log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        let (done, answer) = oneshot::channel();
        let vote = Vote {
            term: vote.leader_id.term,
            node: vote.leader_id.voted_for,
            committed: vote.committed,
        };
        // Whoever waits may have been cancelled; the vote is saved all the same.
        self.log.save_vote(vote, Box::new(move |result| drop(done.send(result))));
        answer.await.map_err(io::Error::other)??;
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            self.log.hint_committed(to_log_id(committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<RaftLogId>, io::Error> {
        Ok(self.log.state().committed.map(from_log_id))
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
        let entries = entries.into_iter().map(|entry| {
            if let EntryPayload::Membership(membership) = &entry.payload {
                self.learn(membership);
            }
            to_log_entry(entry)
        });
        let entries = entries.collect();
        let done = move |result: Result<(), crate::log::LogError>| {
            callback.io_completed(result.map_err(io::Error::from));
        };
        if self.is_alone.load(Ordering::Acquire) {
            self.log.append_here(entries, Box::new(done));
        } else {
            self.log.append(entries, Box::new(done));
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        self.log.truncate_after(last.map(to_log_id));
        Ok(())
    }

    async fn purge(&mut self, id: RaftLogId) -> Result<(), io::Error> {
        self.log.purge(to_log_id(id));
        Ok(())
    }
}
