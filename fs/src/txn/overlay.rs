//! [`Overlay`]: a key space as of one revision, with changes on top that nobody else sees.
//!
//! - What it shows is the base at revision [`Overlay::at`], merged with its own [`changes`].
//! - A transaction on it is run by the same code as the key space in memory, on what was [`loaded`] of
//!   the keys that it touches. Its revisions count on from the base's; outside they mean nothing.
//! - Whatever of the base decides an answer is entered into the [`reads`]: a transaction on the overlay
//!   has read what its compares compare and what its ranges show.
//! - Names that mounts reserve and locks of files are not of the base: they are among the programs that use
//!   this overlay.

mod changes;
mod loaded;
mod reads;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use revfs_api::keyspace::{
    Answer, Capabilities, ChangesAnswer, ChangesRequest, DirectoryAnswer, Error, HistoryRequest,
    KeyRange, KeySpace, ListRead, Origin, RangeRead, Read, ReadAnswer, Result, Revision, Stamp,
    Status, Time, Txn, TxnAnswer, Version, Watch,
};
use revfs_api::reservations::Reservations;

pub(super) use self::changes::Change;
use self::changes::Changes;
use self::loaded::{Loaded, Wanted, wanted_by_compares, wanted_by_ops};
use self::reads::Reads;
use crate::budget::Budget;
use crate::commit::now;
use crate::memory::{Transaction, range_answer};
use crate::path::{DirectoryKey, LOCK_PREFIX, is_reservation_key};

/// Keys that one overlay may change: what a revision of the store holds.
pub(super) const CHANGED_KEYS_MAX: usize = 100_000;

const WATCH: &str = "a watch in a transaction of the mount";

/// See the module.
pub(crate) struct Overlay {
    pub(super) base: Arc<dyn KeySpace>,
    /// The revision of the base that is seen.
    pub(super) at: Revision,
    pub(super) state: Mutex<State>,
    /// One transaction at a time, and none while all are being committed.
    pub(super) writing: tokio::sync::Mutex<()>,
    reservations: Arc<Reservations>,
}

/// What an overlay has beside its base.
pub(super) struct State {
    pub(super) changes: Changes,
    pub(super) reads: Reads,
    /// Nothing is changed any more.
    pub(super) is_sealed: bool,
    /// A key that the commit changes, as soon as there is one.
    witness: Option<Bytes>,
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Overlay {
    /// The base at the revision `at`. `root` is the directory that is there whatever lies in it; what the
    /// changes hold counts in `budget`.
    pub(crate) fn new(
        base: Arc<dyn KeySpace>,
        at: Revision,
        root: DirectoryKey,
        budget: &Arc<Budget>,
    ) -> Self {
        let state = State {
            changes: Changes::new(at, now(), &root, budget),
            reads: Reads::new(root),
            is_sealed: false,
            witness: None,
        };
        Self {
            base,
            at,
            state: Mutex::new(state),
            writing: tokio::sync::Mutex::default(),
            reservations: Arc::default(),
        }
    }

    pub(super) fn base(&self) -> Arc<dyn KeySpace> {
        Arc::clone(&self.base)
    }

    /// Takes note of a key that the commit changes.
    pub(super) fn note_witness(&self, key: Option<Bytes>) {
        self.state.lock().witness = key;
    }

    pub(super) fn witness(&self) -> Option<Bytes> {
        self.state.lock().witness.clone()
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.state.lock().is_sealed
    }

    /// How many keys differ from the base's.
    pub(super) fn changed(&self) -> usize {
        self.state.lock().changes.keys.values().filter(|change| change.is_net()).count()
    }

    /// Answers as [`KeySpace::read`]; with `notes`, what decided becomes part of what was read.
    pub(super) async fn look(
        &self,
        revision: Revision,
        reads: &[Read],
        notes: bool,
    ) -> Result<ReadAnswer> {
        if revision != Revision::NONE && revision <= self.at {
            // What this tree was when it began, of a file that is held open.
            return self.base.read(revision, reads.to_vec()).await;
        }
        let questions: Vec<Option<Read>> = {
            let state = self.state.lock();
            let current = state.changes.current;
            if revision > current {
                return Err(Error::Future { requested: revision, current });
            }
            reads.iter().map(|read| state.question(read, revision)).collect::<Result<_>>()?
        };
        let asked: Vec<Read> = questions.iter().flatten().cloned().collect();
        let mut answers = self.ask_base(asked).await?.into_iter();
        let mut state = self.state.lock();
        let answers = reads.iter().zip(questions).map(|(read, question)| {
            let answer = question.and_then(|_| answers.next());
            if notes && let Some(answer) = &answer {
                state.reads.enter(read, answer);
            }
            state.merge(read, revision, answer)
        });
        let answers = answers.collect::<Result<_>>()?;
        let current = state.changes.current;
        let revision = if revision == Revision::NONE { current } else { revision };
        Ok(ReadAnswer { revision, current, answers })
    }

    /// Asks the base, as of the revision that is seen.
    pub(super) async fn ask_base(&self, reads: Vec<Read>) -> Result<Vec<Answer>> {
        if reads.is_empty() {
            return Ok(Vec::new());
        }
        let count = reads.len();
        let answers = self.base.read(self.at, reads).await?.answers;
        if answers.len() == count {
            Ok(answers)
        } else {
            Err(Error::Unavailable { reason: "an answer to each question was expected".to_owned() })
        }
    }

    async fn load(&self, loaded: &mut Loaded, wanted: Vec<Wanted>) -> Result<()> {
        let reads = {
            let state = self.state.lock();
            wanted.iter().filter_map(|wanted| wanted.question(&state.changes)).collect::<Vec<_>>()
        };
        let answers = self.ask_base(reads.iter().map(|(_, read)| read.clone()).collect()).await?;
        let mut state = self.state.lock();
        for ((range, read), answer) in reads.iter().zip(&answers) {
            state.reads.enter(read, answer);
            loaded.enter(range, answer);
        }
        loaded.merge(&wanted, &state.changes);
        Ok(())
    }

    /// What the base has of keys that were written without a look at them.
    async fn load_before(&self, loaded: &mut Loaded, written: &[Bytes]) -> Result<()> {
        let missing: Vec<Bytes> = {
            let state = self.state.lock();
            let is_missing = |key: &&Bytes| {
                !state.changes.keys.contains_key(*key) && !loaded.base.contains_key(*key)
            };
            written.iter().filter(is_missing).cloned().collect()
        };
        let wanted = missing.into_iter().map(|key| Wanted::key(key, false)).collect();
        self.load(loaded, wanted).await
    }

    /// The directories of the base that keys lie in that came or went, and those above.
    async fn load_directories(
        &self,
        keys: impl Iterator<Item = Bytes>,
    ) -> Result<Vec<(Bytes, DirectoryAnswer)>> {
        let unknown = self.state.lock().changes.unknown_directories(keys);
        let reads: Vec<Read> = unknown.iter().cloned().map(Read::Directory).collect();
        let answers = self.ask_base(reads.clone()).await?;
        let mut state = self.state.lock();
        for (read, answer) in reads.iter().zip(&answers) {
            state.reads.enter(read, answer);
        }
        let known = unknown.into_iter().zip(answers).filter_map(|(prefix, answer)| match answer {
            Answer::Directory(directory) => Some((prefix, directory)),
            Answer::Range(_) | Answer::List(_) => None,
        });
        Ok(known.collect())
    }

    async fn run(&self, txn: Txn) -> Result<TxnAnswer> {
        let _writing = self.writing.lock().await;
        let mut loaded = {
            let state = self.state.lock();
            if state.is_sealed {
                return Err(Error::Invalid("the transaction is decided".to_owned()));
            }
            Loaded::new(&state.changes)
        };
        let mut wanted = wanted_by_compares(&txn.compares);
        wanted_by_ops(&txn.success, &mut wanted)?;
        self.load(&mut loaded, wanted).await?;
        let attempt = Txn { failure: Vec::new(), ..txn.clone() };
        let clock = now();
        let (mut answer, mut made) = Transaction::run(&loaded, &attempt, clock, CHANGED_KEYS_MAX)?;
        if !answer.succeeded && !txn.failure.is_empty() {
            let mut wanted = Vec::new();
            wanted_by_ops(&txn.failure, &mut wanted)?;
            self.load(&mut loaded, wanted).await?;
            (answer, made) = Transaction::run(&loaded, &txn, clock, CHANGED_KEYS_MAX)?;
        }
        if !answer.changed {
            return Ok(answer);
        }
        let written: Vec<Bytes> = made.keys.iter().map(|(key, _)| key.clone()).collect();
        self.load_before(&mut loaded, &written).await?;
        let flips = self.state.lock().changes.flips(&made, &loaded.base);
        let directories = self.load_directories(flips.iter().map(|(key, _)| key.clone())).await?;
        self.state.lock().changes.apply(made, &loaded.base, flips, directories)?;
        Ok(answer)
    }
}

/// What programs of one overlay have among themselves (and the empty key, which is none).
fn is_private(key: &[u8]) -> bool {
    key.is_empty() || is_reservation_key(key) || key.starts_with(LOCK_PREFIX)
}

impl State {
    /// What the base has to be asked to answer `read`.
    fn question(&self, read: &Read, revision: Revision) -> Result<Option<Read>> {
        Ok(match read {
            Read::Range(range) if !range.is_plain() => {
                return Err(Error::Unsupported(
                    "a range in a transaction of the mount with a revision, an order or bounds",
                ));
            }
            Read::Range(RangeRead { range: KeyRange::Key(key), .. }) => {
                let is_known = is_private(key) || self.changes.kv(key, revision).is_some();
                (!is_known).then(|| read.clone())
            }
            // What was deleted here must not take the place of what is left.
            Read::Range(range) => Some(Read::Range(RangeRead { limit: 0, ..range.clone() })),
            Read::List(list) => {
                Some(Read::List(ListRead { after: Bytes::new(), limit: 0, ..list.clone() }))
            }
            Read::Directory(prefix) => {
                (!self.changes.directories.contains_key(prefix)).then(|| read.clone())
            }
        })
    }

    /// The answer to `read`, given what the base says.
    fn merge(&self, read: &Read, revision: Revision, base: Option<Answer>) -> Result<Answer> {
        let broken = || Error::Unavailable { reason: "an answer of another kind".to_owned() };
        Ok(match (read, base) {
            (Read::Range(read), base) => {
                let of_base = match base {
                    Some(Answer::Range(answer)) => answer.kvs,
                    Some(_) => return Err(broken()),
                    None => Vec::new(),
                };
                let kvs = self.changes.merged(&read.range, of_base, revision);
                Answer::Range(range_answer(kvs.iter(), read)?)
            }
            (Read::List(read), Some(Answer::List(answer))) => {
                Answer::List(self.changes.merged_list(read, answer))
            }
            (Read::Directory(prefix), base) => match (self.changes.directories.get(prefix), base) {
                (Some(own), _) => Answer::Directory(Changes::shown(*own)),
                (None, Some(Answer::Directory(answer))) => Answer::Directory(answer),
                (None, _) => return Err(broken()),
            },
            (Read::List(_), _) => return Err(broken()),
        })
    }
}

#[async_trait]
impl KeySpace for Overlay {
    fn capabilities(&self) -> Capabilities {
        self.base.capabilities()
    }

    fn reservations(&self) -> Option<Arc<Reservations>> {
        Some(Arc::clone(&self.reservations))
    }

    async fn read(&self, revision: Revision, reads: Vec<Read>) -> Result<ReadAnswer> {
        self.look(revision, &reads, true).await
    }

    async fn history(&self, request: HistoryRequest) -> Result<Vec<Version>> {
        self.base.history(HistoryRequest { at_most: self.at, ..request }).await
    }

    async fn changes(&self, request: ChangesRequest) -> Result<ChangesAnswer> {
        self.base.changes(ChangesRequest { to: self.at, ..request }).await
    }

    async fn revision_at(&self, time: Time) -> Result<Revision> {
        Ok(self.base.revision_at(time).await?.min(self.at))
    }

    async fn stamp(&self, revision: Revision) -> Result<Stamp> {
        if revision > self.at {
            let time = self.state.lock().changes.time;
            return Ok(Stamp { revision, time, ..Stamp::default() });
        }
        self.base.stamp(revision).await
    }

    async fn txn(&self, txn: Txn, _: Origin) -> Result<TxnAnswer> {
        self.run(txn).await
    }

    async fn watch(&self, _: Vec<KeyRange>, _: Revision) -> Result<Box<dyn Watch>> {
        Err(Error::Unsupported(WATCH))
    }

    async fn compact(&self, _: Revision, _: bool) -> Result<()> {
        Err(Error::Unsupported("a compaction in a transaction of the mount"))
    }

    async fn status(&self) -> Result<Status> {
        self.base.status().await
    }
}
