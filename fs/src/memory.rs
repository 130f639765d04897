//! [`Memory`]: a [`KeySpace`] in memory, for tests, and the short form of what a backend has to do.
//!
//! It keeps every version of every key ([`state`]), applies a transaction to a copy of what it
//! touches ([`transaction`]), and lets a watch re-read the history from its own position ([`watch`]).
//! A compaction hides what lies below it and frees nothing. A lease ends when it is revoked, never by
//! time.
//!
//! Time stands still until a test moves it. A test may also make the next calls fail, before or after
//! they took effect, hold answers back, end all watches, and have mounts reserve names in the store.

mod leases;
mod state;
mod transaction;
mod watch;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use revfs_api::keyspace::{
    Capabilities, ChangesAnswer, ChangesRequest, Error, HistoryRequest, KeyRange, KeySpace,
    LeaseId, LeaseState, Origin, Read, ReadAnswer, Result, Revision, Stamp, Status, Time, Txn,
    TxnAnswer, VALUE_BYTES_MAX, Version, Watch,
};
use revfs_api::reservations::Reservations;
use tokio::sync::oneshot;
use tokio::sync::watch::Sender;

use state::State;
pub(crate) use state::{Changes, bounds, range_answer};
pub(crate) use transaction::{Before, Transaction, holds, holds_for};
use watch::MemoryWatch;

/// 2026-01-01T00:00:00Z, when the clock of each new [`Memory`] stands.
const START: Time = Time(1_767_225_600_000_000_000);

/// Keys that one transaction may change.
const TXN_KEYS_MAX: usize = 100_000;

/// The largest note of an origin.
const NOTE_BYTES_MAX: usize = 4 * 1024;

pub struct Memory {
    state: Arc<Mutex<State>>,
    /// Told after each change of the state. Counts how often the watches were ended.
    ended: Sender<u64>,
    seams: Mutex<Seams>,
    reservations: Arc<Reservations>,
}

/// What a test sets.
struct Seams {
    clock: Time,
    shares_reservations: bool,
    txn_keys_max: usize,
    txn_failures: VecDeque<(FailureMoment, Error)>,
    read_failures: VecDeque<Error>,
    changes_failures: VecDeque<Error>,
    held_answers: VecDeque<oneshot::Receiver<()>>,
    held_reads: VecDeque<oneshot::Receiver<()>>,
}

/// When a transaction fails that a test makes fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureMoment {
    /// Nothing happens.
    Before,
    /// It takes effect and only the answer is lost.
    After,
}

impl Default for Memory {
    fn default() -> Self {
        let seams = Seams {
            clock: START,
            shares_reservations: true,
            txn_keys_max: TXN_KEYS_MAX,
            txn_failures: VecDeque::new(),
            read_failures: VecDeque::new(),
            changes_failures: VecDeque::new(),
            held_answers: VecDeque::new(),
            held_reads: VecDeque::new(),
        };
        Self {
            state: Arc::default(),
            ended: Sender::new(0),
            seams: Mutex::new(seams),
            reservations: Arc::default(),
        }
    }
}

impl Memory {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the clock that stamps later revisions. Time still never runs back along revisions.
    pub fn set_time(&self, time: Time) {
        self.seams.lock().clock = time;
    }

    /// # Panics
    /// If the time leaves the range of an `i64` of nanoseconds.
    pub fn advance(&self, duration: Duration) {
        let nanoseconds = i64::try_from(duration.as_nanos()).expect("less than 292 years");
        let clock = &mut self.seams.lock().clock;
        clock.0 = clock.0.checked_add(nanoseconds).expect("a time before 2262");
    }

    /// The revision of the newest change.
    #[must_use]
    pub fn current(&self) -> Revision {
        self.state.lock().current()
    }

    /// Makes the next transaction answer `error`; called again, the one after it.
    pub fn fail_next_txn(&self, moment: FailureMoment, error: Error) {
        self.seams.lock().txn_failures.push_back((moment, error));
    }

    /// The next transaction takes effect, but is answered only when what this returns is dropped;
    /// called again, the one after it.
    #[must_use]
    pub fn hold_next_answer(&self) -> oneshot::Sender<()> {
        let (release, held) = oneshot::channel();
        self.seams.lock().held_answers.push_back(held);
        release
    }

    /// Refuses from now on what changes more than `max` keys at once.
    pub fn limit_txn_keys(&self, max: usize) {
        self.seams.lock().txn_keys_max = max;
    }

    /// Makes the next [`KeySpace::read`] answer `error`; called again, the one after it.
    pub fn fail_next_read(&self, error: Error) {
        self.seams.lock().read_failures.push_back(error);
    }

    /// Makes the next [`KeySpace::changes`] answer `error`; called again, the one after it.
    pub fn fail_next_changes(&self, error: Error) {
        self.seams.lock().changes_failures.push_back(error);
    }

    /// The next [`KeySpace::read`] looks at the state, but is answered only when what this returns is
    /// dropped; called again, the one after it.
    #[must_use]
    pub fn hold_next_read(&self) -> oneshot::Sender<()> {
        let (release, held) = oneshot::channel();
        self.seams.lock().held_reads.push_back(held);
        release
    }

    /// From now on offers no table of reservations, like a backend with mounts of other processes.
    pub fn share_no_reservations(&self) {
        self.seams.lock().shares_reservations = false;
    }

    /// Ends every open watch with [`Error::Unavailable`], as a lost stream does.
    pub fn end_watches(&self) {
        self.ended.send_modify(|times| *times += 1);
    }
}

#[async_trait]
impl KeySpace for Memory {
    fn capabilities(&self) -> Capabilities {
        Capabilities { stamps: true, bulk: true, value_bytes_max: VALUE_BYTES_MAX }
    }

    fn reservations(&self) -> Option<Arc<Reservations>> {
        self.seams.lock().shares_reservations.then(|| Arc::clone(&self.reservations))
    }

    async fn lease_grant(&self, id: LeaseId, ttl_seconds: i64) -> Result<(LeaseId, i64)> {
        Ok((self.state.lock().grant(id, ttl_seconds)?, ttl_seconds))
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Option<i64>> {
        Ok(self.state.lock().lease(id))
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<()> {
        let clock = self.seams.lock().clock;
        self.state.lock().revoke(id, clock)?;
        self.ended.send_modify(|_| {});
        Ok(())
    }

    async fn lease_time_to_live(&self, id: LeaseId, with_keys: bool) -> Result<Option<LeaseState>> {
        let state = self.state.lock();
        let keys = if with_keys { state.lease_keys(id) } else { Vec::new() };
        Ok(state.lease(id).map(|ttl| LeaseState {
            id,
            granted_seconds: ttl,
            remaining_seconds: ttl,
            keys,
        }))
    }

    async fn leases(&self) -> Result<Vec<LeaseId>> {
        Ok(self.state.lock().leases())
    }

    async fn read(&self, revision: Revision, reads: Vec<Read>) -> Result<ReadAnswer> {
        if let Some(error) = self.seams.lock().read_failures.pop_front() {
            return Err(error);
        }
        let held = self.seams.lock().held_reads.pop_front();
        let answer = {
            let state = self.state.lock();
            let revision = state.check_revision(revision)?;
            let answers = reads.iter().map(|read| state.answer(read, revision));
            let answers = answers.collect::<Result<_>>()?;
            ReadAnswer { revision, current: state.current(), answers }
        };
        if let Some(held) = held {
            // Being dropped is what it waits for.
            held.await.ok();
        }
        Ok(answer)
    }

    async fn history(&self, request: HistoryRequest) -> Result<Vec<Version>> {
        Ok(self.state.lock().history(&request))
    }

    async fn changes(&self, request: ChangesRequest) -> Result<ChangesAnswer> {
        if let Some(error) = self.seams.lock().changes_failures.pop_front() {
            return Err(error);
        }
        self.state.lock().changes(&request)
    }

    async fn revision_at(&self, time: Time) -> Result<Revision> {
        self.state.lock().revision_at(time)
    }

    async fn stamp(&self, revision: Revision) -> Result<Stamp> {
        let state = self.state.lock();
        Ok(state.stamp(state.check_revision(revision)?))
    }

    async fn txn(&self, txn: Txn, origin: Origin) -> Result<TxnAnswer> {
        if origin.note.len() > NOTE_BYTES_MAX {
            let count = origin.note.len();
            return Err(Error::TooBig { unit: "bytes of note", count, max: NOTE_BYTES_MAX });
        }
        let (clock, keys_max, failure, held) = {
            let mut seams = self.seams.lock();
            let (failure, held) = (seams.txn_failures.pop_front(), seams.held_answers.pop_front());
            (seams.clock, seams.txn_keys_max, failure, held)
        };
        if let Some((FailureMoment::Before, error)) = failure {
            return Err(error);
        }
        let answer = {
            let mut state = self.state.lock();
            let (answer, changes) = Transaction::run(&*state, &txn, clock, keys_max)?;
            if answer.changed {
                state.commit(changes, clock, origin);
            }
            answer
        };
        if answer.changed {
            self.ended.send_modify(|_| {});
        }
        if let Some(held) = held {
            // Being dropped is what it waits for.
            held.await.ok();
        }
        match failure {
            Some((_, error)) => Err(error),
            None => Ok(answer),
        }
    }

    async fn watch(&self, ranges: Vec<KeyRange>, from: Revision) -> Result<Box<dyn Watch>> {
        Ok(Box::new(MemoryWatch::open(
            Arc::clone(&self.state),
            self.ended.subscribe(),
            ranges,
            from,
        )?))
    }

    async fn compact(&self, revision: Revision, _physical: bool) -> Result<()> {
        self.state.lock().compact(revision)?;
        // A watch that has fallen behind must hear of it.
        self.ended.send_modify(|_| {});
        Ok(())
    }

    async fn status(&self) -> Result<Status> {
        let state = self.state.lock();
        Ok(Status {
            backend: String::from("memory"),
            version: String::from(env!("CARGO_PKG_VERSION")),
            process_id: std::process::id(),
            revision: state.current().0,
            compacted_revision: state.compacted().0,
            ..Status::default()
        })
    }
}

#[cfg(test)]
mod tests;
