//! A mirror: the keys of one prefix, kept up to date in another cluster, or under another prefix.
//!
//! ```text
//! record ─► differs? ─► copying: in batches, until equal to the source at R ─► following: R+1, R+2, …
//!              ▲                                                                    │
//!              └──── compacted, or the source went back in time ◄───────────────────┘
//! ```
//!
//! A cluster that does not answer is asked again, within bounds ([`Patience`]).
//!
//! The *record* is a key at the destination. It says whose mirror the prefix is and which revision of the
//! source it shows; each transaction puts it along with what it changes, on condition that it is as the
//! mirror last saw it. So the place is exact after a crash of anybody, a change that was sent twice happens
//! once, and of two mirrors of one destination one stops. A revision of the source is one transaction; only
//! while it copies the destination shows a mixture, and the record says so, and up to which key it is equal:
//! one that was killed goes on behind that key.
//!
//! The record also lists *origins*: the clusters that the data comes from, over however many mirrors. A
//! destination that is among the origins of its source would be fed its own changes: that is refused.

mod copying;
mod leases;
mod patience;
mod places;
mod record;
mod survey;

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::KeySpace;
use crate::keyspace::{
    ChangeKind, ChangesRequest, Compare, Error, Event, KEY_BYTES_MAX, LeaseId, Op, Origin, Read,
    Revision, RevisionEvents, Txn, escaped_bytes,
};

pub use leases::Leases;
pub use patience::Patience;
pub use places::Places;
pub use record::{RECORD_PREFIX as MIRROR_PREFIX, Record};
pub use survey::{LongKey, Survey, survey};

use patience::{CALM, Trouble};

/// Copies in a row that end because history was forgotten under them.
const COPIES_IN_VAIN_MAX: u32 = 10;

/// Revisions that are asked for at once.
const CHANGES_PAGE: usize = 64;

/// Why a mirror does not go on. What it has done stands.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    #[error(transparent)]
    KeySpace(#[from] Error),
    #[error("source and destination are the same cluster, {cluster:016x}")]
    SameCluster { cluster: u64 },
    #[error(
        "the source is, directly or through others, a mirror of the destination ({cluster:016x}): \
         changes would go round for ever"
    )]
    Loop { cluster: u64 },
    #[error("the destination holds {keys} or more keys below the prefix that no mirror put there")]
    NotEmpty { keys: usize },
    #[error(
        "the destination is the mirror of another source: cluster {cluster:016x}, prefix \"{prefix}\""
    )]
    OtherSource { cluster: u64, prefix: String },
    #[error("another mirror writes to the same destination")]
    Rival,
    #[error("the destination has a lease {:016x} of its own, with other keys", .lease.0)]
    LeaseTaken { lease: LeaseId },
    #[error(
        "revision {revision} of the source changes {changes} keys, which are too many for one \
         transaction of the destination: {source}"
    )]
    TooBig { revision: Revision, changes: usize, source: Error },
    #[error(
        "revision {revision} of the source puts a key of {bytes} bytes (encoded), and {KEY_BYTES_MAX} are \
         the bound: {}", .key.escape_ascii()
    )]
    LongKey { revision: Revision, key: Bytes, bytes: usize },
    #[error("gave up after {retries} retries in {waited:.1?}")]
    GaveUp { retries: u32, waited: Duration, source: Error },
    #[error("history was forgotten while it was copied, {copies} times in a row")]
    Overtaken { copies: u32, source: Error },
    #[error("the record of the mirror at the destination cannot be read: {reason}")]
    Record { reason: String },
}

/// What a mirror does, as it does it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The destination is compared with the source at this revision, and changed where it differs: from
    /// the first key on, or behind one to which it was equal already.
    Copying { revision: Revision, behind: Option<Bytes> },
    /// So far.
    Compared { keys: u64, changed: u64 },
    /// So many keys were changed by copying.
    Copied { revision: Revision, changed: u64 },
    /// The destination shows this revision.
    Shows(Revision),
    /// A cluster does not answer, or not as it should; it is asked again.
    Waiting { reason: String },
}

/// What a comparison of both sides has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// So many were compared.
    pub keys: u64,
    /// The first key of the destination that is not what it is at the source.
    pub differs: Option<Bytes>,
}

/// One prefix of one cluster, kept equal to that of another.
pub struct Mirror {
    source: Arc<dyn KeySpace>,
    destination: Arc<dyn KeySpace>,
    places: Places,
    record: Record,
    /// Of the record's key; [`Revision::NONE`] if there is none yet.
    record_revision: Revision,
    origin: Origin,
    patience: Patience,
    /// Transactions that the destination has acknowledged.
    acknowledged: u64,
    /// Since when this session shows the present of the source.
    shows_since: Option<Instant>,
}

type OnStep<'a> = &'a mut (dyn FnMut(Step) + Send);

/// Whether the same may work later.
fn is_transient(error: &Error) -> bool {
    matches!(
        error,
        Error::Unavailable { .. }
            | Error::Timeout(_)
            | Error::NoQuorum { .. }
            | Error::OutcomeUnknown { .. }
            | Error::Busy { .. }
            | Error::NoSpace { .. }
    )
}

fn key_of(op: &Op) -> Option<&Bytes> {
    match op {
        Op::Put { key, .. } => Some(key),
        _ => None,
    }
}

impl Mirror {
    /// Looks at both sides and refuses what would lose data or go round. With `overwrite` what the
    /// destination holds, and whose mirror it was, does not matter.
    ///
    /// # Errors
    /// See [`MirrorError`]. Nothing was changed, except that a new mirror has its record.
    pub async fn begin(
        (source, destination): (Arc<dyn KeySpace>, Arc<dyn KeySpace>),
        places: Places,
        overwrite: bool,
        origin: Origin,
    ) -> Result<Self, MirrorError> {
        let from = source.status().await?.cluster_id;
        let to = destination.status().await?.cluster_id;
        if from == to {
            return Err(MirrorError::SameCluster { cluster: to });
        }
        let origins = Self::origins(&*source, &places, from, to).await?;
        let found = record::read(&*destination, &places).await?;
        let is_ours = |record: &Record| record.is_of(from, &places);
        let (record, record_revision) = match found {
            Some((record, revision)) if is_ours(&record) => (record, revision),
            Some((record, _)) if !overwrite => {
                let Record { source_cluster: cluster, source_prefix, .. } = record;
                let prefix = source_prefix.escape_ascii().to_string();
                return Err(MirrorError::OtherSource { cluster, prefix });
            }
            other => {
                if !overwrite {
                    copying::check_empty(&destination, &places).await?;
                }
                (Record::new(from, &places), other.map_or(Revision::NONE, |(_, revision)| revision))
            }
        };
        let is_new = record_revision == Revision::NONE;
        let keeper = RandomState::new().build_hasher().finish();
        let record = Record { keeper, origins, ..record };
        let mut mirror = Self {
            source,
            destination,
            places,
            record,
            record_revision,
            origin,
            patience: Patience::default(),
            acknowledged: 0,
            shows_since: None,
        };
        // First the record, then the look: of two that begin at once one sees the other.
        mirror.put(Vec::new(), mirror.record.clone()).await?;
        match Self::origins(&*mirror.source, &mirror.places, from, to).await {
            Ok(_) => Ok(mirror),
            Err(error) => {
                if is_new {
                    mirror.remove_record().await?;
                }
                Err(error)
            }
        }
    }

    /// Where the data comes from; not from the destination.
    async fn origins(
        source: &dyn KeySpace,
        places: &Places,
        from: u64,
        to: u64,
    ) -> Result<BTreeSet<u64>, MirrorError> {
        let mut origins = record::origins_of(source, places).await?;
        origins.insert(from);
        if origins.contains(&to) {
            return Err(MirrorError::Loop { cluster: to });
        }
        Ok(origins)
    }

    /// How long a cluster that does not answer is asked again.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// Ends it for good: the destination is nobody's mirror any more.
    ///
    /// # Errors
    /// A destination that does not answer; a rival.
    pub async fn finish(self) -> Result<(), MirrorError> {
        self.remove_record().await
    }

    async fn remove_record(&self) -> Result<(), MirrorError> {
        let key = record::key(&self.places);
        let guard = record::unchanged(key.clone(), self.record_revision);
        let txn = Txn { compares: vec![guard], success: vec![Op::delete(key)], ..Txn::default() };
        let answer = self.destination.txn(txn, self.origin.clone()).await?;
        if answer.succeeded { Ok(()) } else { Err(MirrorError::Rival) }
    }

    /// The revision of the source that the destination shows; none while it is being copied.
    #[must_use]
    pub fn position(&self) -> Revision {
        if self.record.is_copying { Revision::NONE } else { self.record.revision }
    }

    /// Brings the destination to the present of the source, and with `follow` keeps it there until the
    /// future is dropped. A cluster that does not answer is waited for, as long as [`Patience`] says.
    ///
    /// # Errors
    /// What does not go away by waiting, or has not.
    pub async fn run(&mut self, follow: bool, on_step: OnStep<'_>) -> Result<(), MirrorError> {
        let mut trouble = Trouble::new(self.patience);
        let mut copies_in_vain = 0;
        loop {
            let before = self.acknowledged;
            self.shows_since = None;
            let ended = self.session(follow, on_step).await;
            let followed = self.shows_since.map(|since| since.elapsed());
            if self.acknowledged > before || followed.is_some_and(|time| time > CALM) {
                trouble.is_over();
            }
            if followed.is_some() {
                copies_in_vain = 0;
            }
            let error = match ended {
                Ok(()) => return Ok(()),
                Err(MirrorError::KeySpace(error @ Error::Compacted { .. })) => {
                    copies_in_vain += 1;
                    if copies_in_vain > COPIES_IN_VAIN_MAX {
                        let copies = COPIES_IN_VAIN_MAX;
                        return Err(MirrorError::Overtaken { copies, source: error });
                    }
                    self.record.is_copying = true;
                    self.record.copied = None;
                    continue;
                }
                Err(MirrorError::KeySpace(error)) if is_transient(&error) => error,
                Err(error) => return Err(error),
            };
            let reason = error.to_string();
            let pause = trouble.pause(error)?;
            on_step(Step::Waiting { reason });
            tokio::time::sleep(pause).await;
        }
    }

    /// One run without an interruption.
    async fn session(&mut self, follow: bool, on_step: OnStep<'_>) -> Result<(), MirrorError> {
        self.look_again().await?;
        let now = self.source.read(Revision::NONE, Vec::<Read>::new()).await?.current;
        // A source that is behind what it once showed has lost something.
        if self.record.is_copying || self.record.revision > now {
            copying::copy(self, now, on_step).await?;
        }
        self.catch_up(now).await?;
        on_step(Step::Shows(self.record.revision));
        self.shows_since = Some(Instant::now());
        if !follow {
            return Ok(());
        }
        let watched = self.places.source_watched();
        let mut watch = self.source.watch(watched, self.record.revision.next()).await?;
        loop {
            let events = watch.next().await?;
            let revision = events.stamp.revision;
            self.apply(events).await?;
            on_step(Step::Shows(revision));
        }
    }

    /// Takes over what happened up to `now`, and says so.
    async fn catch_up(&mut self, now: Revision) -> Result<(), MirrorError> {
        while self.record.revision < now {
            let request = ChangesRequest {
                ranges: self.places.source_watched(),
                from: self.record.revision.next(),
                to: now,
                newest_first: false,
                limit: CHANGES_PAGE,
                scan_limit: 0,
                keys_only: false,
            };
            let answer = self.source.changes(request).await?;
            for events in answer.revisions {
                self.apply(events).await?;
            }
            let seen = answer.next.map_or(now, |next| Revision(next.0.saturating_sub(1)));
            if seen > self.record.revision {
                self.put(Vec::new(), Record { revision: seen, ..self.record.clone() }).await?;
            }
        }
        Ok(())
    }

    /// What the record says now: what was sent before may have happened after all.
    async fn look_again(&mut self) -> Result<(), MirrorError> {
        let found = record::read(&*self.destination, &self.places).await?;
        let Some((record, revision)) = found else { return Err(MirrorError::Rival) };
        if revision != self.record_revision {
            if record.keeper != self.record.keeper {
                return Err(MirrorError::Rival);
            }
            let origins = std::mem::take(&mut self.record.origins);
            self.record = Record { origins, ..record };
            self.record_revision = revision;
        }
        Ok(())
    }

    /// One revision of the source as one transaction.
    async fn apply(&mut self, events: RevisionEvents) -> Result<(), MirrorError> {
        let revision = events.stamp.revision;
        let ops: Vec<Op> = events.events.into_iter().filter_map(|event| self.op(event)).collect();
        if ops.is_empty() {
            return Ok(());
        }
        let changes = ops.len();
        let next = Record { revision, ..self.record.clone() };
        match self.put(ops, next).await {
            Err(MirrorError::KeySpace(source @ Error::TooBig { .. })) => {
                Err(MirrorError::TooBig { revision, changes, source })
            }
            put => put,
        }
    }

    fn op(&self, event: Event) -> Option<Op> {
        let key = self.places.to_destination(&event.kv.key)?;
        Some(match event.kind {
            ChangeKind::Put => Op::put(key, event.kv.value),
            ChangeKind::Delete => Op::delete(key),
        })
    }

    /// Changes the destination along with the record, if nobody else has. The record is `next` only once that
    /// is acknowledged: whoever drops this future finds out by the record at the destination.
    async fn put(&mut self, mut ops: Vec<Op>, next: Record) -> Result<(), MirrorError> {
        let key: Bytes = record::key(&self.places);
        let guard: Compare = record::unchanged(key.clone(), self.record_revision);
        let longest = ops.iter().filter_map(key_of).max_by_key(|key| escaped_bytes(key)).cloned();
        ops.push(Op::put(key, next.encode()));
        let txn = Txn { compares: vec![guard], success: ops, failure: Vec::new() };
        let answer = match (self.destination.txn(txn, self.origin.clone()).await, longest) {
            (Err(Error::KeyTooLong { bytes }), Some(key)) => {
                return Err(MirrorError::LongKey { revision: next.revision, key, bytes });
            }
            (answer, _) => answer?,
        };
        if !answer.succeeded {
            return self.failed_guard().await;
        }
        self.record = next;
        self.record_revision = answer.revision;
        self.acknowledged += 1;
        Ok(())
    }

    /// Somebody has changed the record: a rival, or what this one sent before and gave up.
    async fn failed_guard(&self) -> Result<(), MirrorError> {
        match record::read(&*self.destination, &self.places).await? {
            Some((record, _)) if record.keeper == self.record.keeper => {
                let reason = "what was sent before has happened late".to_owned();
                Err(Error::OutcomeUnknown { reason }.into())
            }
            _ => Err(MirrorError::Rival),
        }
    }

    /// Compares both sides, key by key, at one revision of each, until one differs. What differs was changed by
    /// somebody else, and no revision to come would change it back: so the next run compares all, and does.
    ///
    /// # Errors
    /// What a read meets; one that is compacted meanwhile; a difference that cannot be noted.
    pub async fn verify(&mut self) -> Result<Verified, MirrorError> {
        let verified = copying::first_difference(self, self.record.revision).await?;
        if verified.differs.is_some() {
            let anew = Record { is_copying: true, copied: None, ..self.record.clone() };
            self.put(Vec::new(), anew).await?;
        }
        Ok(verified)
    }
}
