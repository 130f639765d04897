//! The clock of leases: who may ask, and what the leader decides by its time.
//!
//! The store knows what is granted; only the leader knows when it ends ([`deadlines`], in memory). A
//! member that begins to lead gives every lease the time that its row says and the election timeout
//! more, which it reads in the background: no request but one for a lease waits for it. When a lease's
//! time is over it is proposed for expiry, at most [`EXPIRIES_PER_SECOND`], and the command names the
//! term, so that it cannot take away what a later leader has renewed. Every five minutes what long
//! leases have left is written to their rows.
//!
//! Renewals and remaining times are answered only when a quorum has confirmed, after the request came,
//! that this member leads: then no other can have expired the lease meanwhile, and any later leader
//! begins with the lease's whole time.

mod book;
mod deadlines;
mod elsewhere;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use revfs_api::keyspace::{Error, Result};
use revfs_store::types::{Author, Lease, LeaseId};
use revfs_store::{Body, Done, Refusal, Store, StoreError};
use tokio::sync::watch;

pub(crate) use self::book::LeaseBook;
use self::deadlines::{NOTED_FROM, Renewal};
use crate::auth::Caller;
use crate::convert;
use crate::proposal::Proposer;

/// As etcd: some 285 years.
pub(crate) const TTL_SECONDS_MAX: i64 = 9_000_000_000;

/// Expiries proposed a second, in batches of [`EXPIRY_BATCH`].
const EXPIRIES_PER_SECOND: u32 = 1_000;
const EXPIRY_BATCH: usize = 100;

/// An expiry that was not decided is proposed again after this.
const EXPIRY_RETRY: Duration = Duration::from_secs(3);

/// Leases in one checkpoint.
const CHECKPOINT_BATCH: usize = 1_000;

/// Rows that the background reading takes from one view.
const LOAD_BATCH: usize = 1_000;

/// Numbers tried for a lease whose client left the choice to the node.
const ID_ATTEMPTS_MAX: usize = 10;

/// As etcd: one and a half election timeouts, in whole seconds.
fn ttl_seconds_min(election_timeout: Duration) -> i64 {
    let milliseconds = election_timeout.as_millis().saturating_mul(3).div_ceil(2);
    i64::try_from(milliseconds.div_ceil(1_000)).unwrap_or(i64::MAX)
}

/// See the module.
pub(crate) struct LeaseClock {
    pub(crate) book: Arc<LeaseBook>,
    pub(crate) proposer: Arc<Proposer>,
    /// Held while rows are told what is left of leases, so that "all" does not overtake "less".
    noting: tokio::sync::Mutex<()>,
    election_timeout: Duration,
}

impl LeaseClock {
    pub(crate) fn new(
        book: Arc<LeaseBook>,
        proposer: Arc<Proposer>,
        election_timeout: Duration,
    ) -> Self {
        Self { book, proposer, noting: tokio::sync::Mutex::default(), election_timeout }
    }

    async fn propose(&self, author: Author, body: Body) -> Result<Result<Done, Refusal>> {
        Ok(self.proposer.propose(author, Bytes::new(), body).await?.result)
    }

    /// Grants a lease; with id 0 the node chooses a positive one. Returns what was granted.
    pub(crate) async fn grant(
        &self,
        caller: &Caller,
        id: LeaseId,
        ttl_seconds: i64,
    ) -> Result<(LeaseId, i64)> {
        if ttl_seconds > TTL_SECONDS_MAX {
            return Err(Error::Invalid("too large lease TTL".to_owned()));
        }
        let ttl_seconds = ttl_seconds.max(ttl_seconds_min(self.election_timeout));
        for _ in 0..ID_ATTEMPTS_MAX {
            let chosen = if id == LeaseId::NONE { random_id()? } else { id };
            let body = caller.ask(Body::LeaseGrant { id: chosen, ttl_seconds });
            match self.propose(Author::default(), body).await? {
                Ok(Done::LeaseGranted { id, ttl_seconds }) => return Ok((id, ttl_seconds)),
                Err(Refusal::LeaseExists) if id == LeaseId::NONE => {}
                Err(refusal) => return Err(convert::refusal(refusal)),
                Ok(other) => return Err(convert::unexpected(&other)),
            }
        }
        Err(Error::Busy { reason: "no free number for a lease was found".to_owned() })
    }

    pub(crate) async fn revoke(&self, caller: &Caller, id: LeaseId) -> Result<()> {
        let body = caller.ask(Body::LeaseRevoke { id });
        match self.propose(caller.author(String::new()), body).await? {
            Ok(Done::LeaseRevoked { .. }) => Ok(()),
            Err(refusal) => Err(convert::refusal(refusal)),
            Ok(other) => Err(convert::unexpected(&other)),
        }
    }

    /// Renews a lease by this member's clock; its whole time, or `None` if there is no such lease (any more).
    pub(crate) async fn keep_alive_here(&self, id: LeaseId) -> Result<Option<i64>> {
        let deadline = Instant::now() + self.proposer.timeout;
        let mut turns = self.book.turns.subscribe();
        loop {
            turns.borrow_and_update();
            let (term, found) = match self.book.renew(id) {
                Some((term, Renewal::Renewed { ttl_seconds, was_noted })) => {
                    if was_noted {
                        self.note_whole(term, id).await?;
                    }
                    (term, Some(ttl_seconds))
                }
                Some((term, Renewal::Unknown)) => (term, None),
                Some((_, Renewal::Expiring)) => {
                    self.wait(&mut turns, deadline, "its revocation").await?;
                    continue;
                }
                Some((_, Renewal::Loading)) | None => {
                    self.wait(&mut turns, deadline, "a leader that has its leases").await?;
                    continue;
                }
            };
            if self.confirms(term).await? {
                let is_there = self.book.with(|deadlines| deadlines.contains(id));
                return Ok(found.filter(|_| is_there == Some(true)));
            }
        }
    }

    /// What a lease was granted and what is left of it, in seconds, by this member's clock; `None` if there
    /// is no such lease.
    pub(crate) async fn left_here(&self, id: LeaseId) -> Result<Option<(i64, i64)>> {
        self.confirmed().await?;
        Ok(self.book.with(|deadlines| deadlines.left(id, Instant::now())).flatten())
    }

    /// How many live, if this member leads.
    pub(crate) fn count(&self) -> Option<u64> {
        let count = self.book.with(|deadlines| deadlines.count())?;
        u64::try_from(count).ok()
    }

    /// All leases, those that end first before the others.
    pub(crate) async fn all_here(&self) -> Result<Vec<LeaseId>> {
        self.confirmed().await?;
        Ok(self.book.with(|deadlines| deadlines.all()).unwrap_or_default())
    }

    /// Waits until this member knows all leases and a quorum has confirmed that it leads.
    async fn confirmed(&self) -> Result<()> {
        let term = self.loaded().await?;
        if self.confirms(term).await? {
            return Ok(());
        }
        Err(self.no_leader("this member does not lead any more"))
    }

    /// Waits until this member leads and knows all leases; the term.
    async fn loaded(&self) -> Result<u64> {
        let deadline = Instant::now() + self.proposer.timeout;
        let mut turns = self.book.turns.subscribe();
        loop {
            turns.borrow_and_update();
            let loaded = self.book.with(|own| own.is_loaded().then_some(own.term)).flatten();
            if let Some(term) = loaded {
                return Ok(term);
            }
            self.wait(&mut turns, deadline, "a leader that has its leases").await?;
        }
    }

    async fn wait(
        &self,
        turns: &mut watch::Receiver<u64>,
        deadline: Instant,
        what: &str,
    ) -> Result<()> {
        if !self.proposer.leads() {
            return Err(self.no_leader("this member does not lead"));
        }
        match tokio::time::timeout_at(deadline.into(), turns.changed()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                Err(self.no_leader(&format!("waited {:?} for {what}", self.proposer.timeout)))
            }
        }
    }

    fn no_leader(&self, reason: &str) -> Error {
        match self.proposer.failure() {
            Some(reason) => Error::Closed { reason },
            None => Error::NoQuorum { reason: reason.to_owned() },
        }
    }

    /// Whether this member has led since `term` began until now, confirmed by a quorum.
    async fn confirms(&self, term: u64) -> Result<bool> {
        let confirmed = self.proposer.raft.confirm_leadership();
        let deadline = Instant::now() + self.proposer.timeout;
        match tokio::time::timeout_at(deadline.into(), confirmed).await {
            Ok(Ok(())) => Ok(self.book.leads_in(term)),
            Ok(Err(error)) => Err(self.no_leader(&error.to_string())),
            Err(_) => Err(self.no_leader("no quorum confirmed the leader in time")),
        }
    }

    /// Tells the row of a lease that has been renewed that it has its whole time again.
    async fn note_whole(&self, term: u64, id: LeaseId) -> Result<()> {
        let noting = self.noting.lock().await;
        let body = Body::LeaseCheckpoint { term, remaining: vec![(id, 0)] };
        let noted = self.propose(Author::default(), body).await;
        drop(noting);
        let noted = match noted {
            // In another term it is for the leader of that one, and the caller finds out.
            Ok(Ok(_) | Err(Refusal::OtherTerm { .. })) => Ok(()),
            Ok(Err(refusal)) => Err(convert::refusal(refusal)),
            Err(error) => Err(error),
        };
        noted.inspect_err(|_| {
            self.book.with(|deadlines| deadlines.still_noted(id));
        })
    }

    /// Runs until `stop` is set or its sender is gone.
    pub(crate) async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut leading = None;
        let mut checkpoints = tokio::time::interval(NOTED_FROM);
        checkpoints.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        checkpoints.reset();
        // Ready when the batch before is old enough.
        let mut not_before = Instant::now();
        loop {
            let next = self.book.with(|deadlines| deadlines.next_due()).flatten();
            let due = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next.max(not_before).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = stop.changed() => return self.book.begin(None),
                term = self.proposer.raft.leads_other_than(leading) => {
                    leading = term;
                    self.book.begin(term);
                    if let Some(term) = term {
                        tokio::spawn(Arc::clone(&self).load(term, stop.clone()));
                    }
                }
                () = due => {
                    not_before = Instant::now() + batch_pause();
                    if let Some(term) = leading {
                        self.expire(term).await;
                    }
                }
                () = self.book.earlier.notified() => {}
                _ = checkpoints.tick() => if let Some(term) = leading {
                    self.checkpoint(term).await;
                }
            }
        }
    }

    /// Reads the leases from before `term`, when all of the log that this member holds is applied: an
    /// entry that a leader of the same term left in it (this member, before a restart) may revoke some.
    async fn load(self: Arc<Self>, term: u64, mut stop: watch::Receiver<bool>) {
        loop {
            let store = Arc::clone(&self.proposer.store);
            let read = async {
                self.proposer.raft.catch_up().await.map_err(|error| error.to_string())?;
                let read = tokio::task::spawn_blocking(move || rows(&store)).await;
                let read = read.map_err(|error| error.to_string())?;
                read.map_err(|error| error.to_string())
            };
            let error = tokio::select! {
                _ = stop.changed() => return,
                read = read => match read {
                    Ok(leases) => return self.book.load(term, leases, self.election_timeout),
                    Err(error) => error,
                },
            };
            if !self.book.leads_in(term) {
                return;
            }
            tracing::warn!(error, "the leases were not read; none of them expires until they are");
            tokio::select! {
                _ = stop.changed() => return,
                () = tokio::time::sleep(EXPIRY_RETRY) => {}
            }
        }
    }

    async fn expire(&self, term: u64) {
        let due = self.book.with(|deadlines| deadlines.due(Instant::now(), EXPIRY_BATCH));
        let expiries = due.unwrap_or_default().into_iter().map(|id| self.expire_one(term, id));
        futures_util::future::join_all(expiries).await;
    }

    async fn expire_one(&self, term: u64, id: LeaseId) {
        let author = Author { principal: format!("lease {:x}", id.0), claimed: String::new() };
        match self.propose(author, Body::LeaseExpire { id, term }).await {
            // Apply has told the book already.
            Ok(Ok(_) | Err(Refusal::OtherTerm { .. })) => {}
            Ok(Err(Refusal::LeaseNotFound)) => self.book.forget(id),
            // It lives on in the store: an alarm forbids it, say.
            Ok(Err(refusal)) => self.expire_later(id, &convert::refusal(refusal)),
            Err(error) => self.expire_later(id, &error),
        }
    }

    fn expire_later(&self, id: LeaseId, error: &Error) {
        tracing::warn!(lease = id.0, %error, "a lease is over, but was not revoked yet");
        let again = Instant::now() + EXPIRY_RETRY;
        self.book.with(|deadlines| deadlines.retry(id, again));
    }

    async fn checkpoint(&self, term: u64) {
        let noting = self.noting.lock().await;
        let left = self.book.with(|deadlines| deadlines.note(Instant::now())).unwrap_or_default();
        for batch in left.chunks(CHECKPOINT_BATCH) {
            let body = Body::LeaseCheckpoint { term, remaining: batch.to_vec() };
            if let Err(error) = self.propose(Author::default(), body).await {
                tracing::debug!(%error, "what leases have left was not noted");
            }
        }
        drop(noting);
    }
}

fn batch_pause() -> Duration {
    Duration::from_secs(1) * u32::try_from(EXPIRY_BATCH).unwrap_or(u32::MAX) / EXPIRIES_PER_SECOND
}

fn rows(store: &Store) -> Result<Vec<Lease>, StoreError> {
    let mut all: Vec<Lease> = Vec::new();
    loop {
        let after = all.last().map(|lease| lease.id);
        let batch = store.read_view()?.leases(after, LOAD_BATCH)?;
        let is_last = batch.len() < LOAD_BATCH;
        all.extend(batch);
        if is_last {
            return Ok(all);
        }
    }
}

fn random_id() -> Result<LeaseId> {
    let random = getrandom::u64().map_err(|error| Error::Unavailable { reason: error.to_string() });
    let positive = i64::try_from(random? >> 1).expect("63 bits are a positive number");
    Ok(LeaseId(positive.max(1)))
}

#[cfg(test)]
mod tests;
