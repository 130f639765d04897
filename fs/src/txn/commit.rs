//! What an overlay has become, as one transaction of its base: all that differs, if all that was read and
//! written is as it was.
//!
//! - A file that was only moved is moved, so that it keeps its times and its history.
//! - Everything written gets one revision, so a side record that an overlay has outlived would hold again:
//!   records are written as they are in force.
//! - Who lost is told which names are to blame: the compares are looked at one by one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use revfs_api::keyspace::{
    Answer, Compare, DirectoryAnswer, Error, KeyRange, KeyValue, Op, Origin, RangeRead, Read,
    Result, Revision, Txn,
};

use super::overlay::{Change, Overlay};
use super::unknown;
use crate::attributes::{
    Attributes, Defaults, Kind, RECORD_PREFIX, Record, in_force_of_directory, in_force_of_file,
    record_key,
};
use crate::locks::Locks;
use crate::memory::{holds, holds_for};

/// Names of a conflict that are told.
pub(super) const CONFLICTS_MAX: usize = 100;

/// Questions of one read of the base, which may have a bound.
const QUESTIONS: usize = 100;

/// What a commit came to. It is the last that happens to an overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Committed(Revision),
    /// Nothing happened; keys and directories that are not as they were.
    Conflict(Vec<Bytes>),
    /// It may have happened.
    Unknown(String),
}

/// How a commit writes attributes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style<'a> {
    pub defaults: &'a Defaults,
    /// Side records may be written.
    pub writes_attributes: bool,
}

/// What is in force of a side record: its new value, or that there is to be none.
type Records = BTreeMap<Bytes, Option<Bytes>>;

impl Overlay {
    /// Makes one revision of all that was changed, if the mount's `locks` are still its own.
    ///
    /// # Errors
    /// Nothing happened, and it may be tried again.
    pub(super) async fn commit(
        &self,
        origin: Origin,
        style: Style<'_>,
        locks: &Locks,
    ) -> Result<Outcome> {
        let _writing = self.writing.lock().await;
        let compares = self.compares().await?;
        let success = self.operations(style).await?;
        self.note_witness(unknown::witness(&success));
        let txn = Txn { compares: compares.clone(), success, failure: Vec::new() };
        // What was done under a lock that another has by now must not happen.
        let fence = locks.fence()?;
        let outcome = match self.base.txn(fence.guard(txn), origin).await {
            Ok(answer) if answer.succeeded => Outcome::Committed(answer.revision),
            Ok(mut answer) => {
                locks.check(&fence, &mut answer)?;
                Outcome::Conflict(self.conflicts(&compares).await)
            }
            Err(Error::OutcomeUnknown { reason }) => Outcome::Unknown(reason),
            Err(error) => return Err(error),
        };
        self.state.lock().is_sealed = true;
        Ok(outcome)
    }

    async fn compares(&self) -> Result<Vec<Compare>> {
        let unwitnessed: Vec<Bytes> = self.state.lock().reads.without_witness().cloned().collect();
        let mut witnesses = Vec::new();
        for directories in unwitnessed.chunks(QUESTIONS) {
            let first = |prefix: &Bytes| {
                let range = KeyRange::prefix(prefix);
                Read::Range(RangeRead { limit: 1, keys_only: true, ..RangeRead::new(range) })
            };
            let answers = self.ask_base(directories.iter().map(first).collect()).await?;
            witnesses.extend(answers.into_iter().flat_map(kvs_of).map(|kv| kv.key));
        }
        Ok(self.state.lock().reads.compares(self.at, &witnesses))
    }

    async fn operations(&self, style: Style<'_>) -> Result<Vec<Op>> {
        let records = self.records(style).await?;
        let state = self.state.lock();
        let keys = &state.changes.keys;
        let moves = moves(keys);
        let mut success = Vec::new();
        for (key, change) in keys.iter().filter(|(key, _)| !key.starts_with(RECORD_PREFIX)) {
            match change.now() {
                _ if !change.is_net() => {}
                None if moves.sources.contains(key) => {}
                None => success.push(Op::delete(key.clone())),
                Some(kv) => match moves.targets.get(key) {
                    Some(from) => {
                        success.push(Op::MoveKey { from: from.clone(), to: key.clone() });
                    }
                    None => success.push(put(key, kv, change)),
                },
            }
        }
        for (key, value) in records {
            match value {
                Some(value) => success.push(Op::put(key, value)),
                None => success.push(Op::delete(key)),
            }
        }
        Ok(success)
    }

    /// The side records that are to be written: those that were changed, and those of files that are put
    /// though they were moved, for their times.
    async fn records(&self, style: Style<'_>) -> Result<Records> {
        let subjects: Vec<(Bytes, bool)> = {
            let state = self.state.lock();
            let keys = &state.changes.keys;
            let moves = moves(keys);
            let changed = keys.keys().filter(|key| key.starts_with(RECORD_PREFIX));
            let mut subjects: BTreeMap<Bytes, bool> =
                changed.map(|record| (record.slice(RECORD_PREFIX.len()..), false)).collect();
            let timed = keys.iter().filter(|(key, change)| {
                style.writes_attributes
                    && change.origin.is_some()
                    && change.is_net()
                    && change.now().is_some()
                    && !moves.targets.contains_key(*key)
                    && !key.starts_with(RECORD_PREFIX)
                    && !key.ends_with(b"/")
            });
            subjects.extend(timed.map(|(key, _)| (key.clone(), true)));
            subjects.into_iter().collect()
        };
        let mut records = Records::new();
        for part in subjects.chunks(QUESTIONS / 3) {
            let questions: Vec<Read> = part.iter().flat_map(|(key, _)| about(key)).collect();
            let answers = self.look(Revision::NONE, &questions, false).await?.answers;
            for ((subject, keeps_time), answers) in part.iter().zip(answers.chunks(3)) {
                let key = record_key(subject);
                let in_force = in_force(subject, answers, *keeps_time, style.defaults);
                let value = in_force
                    .filter(|own| !own.is_default(style.defaults) || needs_kind(subject, own))
                    .map(|own| own.encode());
                // What was not there and is not to be there needs no operation.
                let state = self.state.lock();
                let goes = state.changes.keys.get(&key).is_some_and(|own| own.before.is_some());
                if value.is_some() || goes {
                    records.insert(key, value);
                }
            }
        }
        Ok(records)
    }

    /// What is not as it was, as far as can be found out now.
    async fn conflicts(&self, compares: &[Compare]) -> Vec<Bytes> {
        let mut keys = BTreeSet::new();
        for compares in compares.chunks(QUESTIONS) {
            let question = |compare: &Compare| {
                let range = compare.range.clone();
                Read::Range(RangeRead { keys_only: true, ..RangeRead::new(range) })
            };
            let read = self.base.read(Revision::NONE, compares.iter().map(question).collect());
            let Ok(answer) = read.await else { break };
            for (compare, answer) in compares.iter().zip(answer.answers) {
                let kvs = kvs_of(answer);
                if holds(kvs.iter(), compare) {
                    continue;
                }
                let guilty = kvs.iter().filter(|kv| !holds_for(kv, compare));
                keys.extend(guilty.map(|kv| kv.key.clone()));
                if kvs.is_empty() {
                    keys.insert(compare.range.start().clone());
                }
            }
            if keys.len() >= CONFLICTS_MAX {
                break;
            }
        }
        let subject = |key: Bytes| match key.strip_prefix(RECORD_PREFIX) {
            Some(subject) => Bytes::copy_from_slice(subject),
            None => key,
        };
        let subjects: BTreeSet<Bytes> = keys.into_iter().map(subject).collect();
        subjects.into_iter().take(CONFLICTS_MAX).collect()
    }
}

/// Files that arrive with the content that another key of the base has, which goes.
#[derive(Default)]
struct Moves {
    /// By the key that they have now.
    targets: BTreeMap<Bytes, Bytes>,
    sources: BTreeSet<Bytes>,
}

fn moves(keys: &BTreeMap<Bytes, Change>) -> Moves {
    let mut moves = Moves::default();
    for (key, change) in keys {
        let Some(origin) = change.origin.as_ref().filter(|_| change.now().is_some()) else {
            continue;
        };
        let goes = keys.get(origin).is_some_and(|source| source.now().is_none());
        if goes && !key.starts_with(RECORD_PREFIX) && moves.sources.insert(origin.clone()) {
            moves.targets.insert(key.clone(), origin.clone());
        }
    }
    moves
}

fn put(key: &Bytes, kv: &KeyValue, change: &Change) -> Op {
    let put = Op::put_on(kv.lease, key.clone(), kv.value.clone());
    let is_new_marker = key.ends_with(b"/") && kv.value.is_empty() && change.before.is_none();
    if !is_new_marker {
        return put;
    }
    // Others may have put it meanwhile, which is as good.
    Op::Txn(Txn {
        compares: vec![Compare::absent(KeyRange::Key(key.clone()))],
        success: vec![put],
        failure: Vec::new(),
    })
}

/// An empty file at a directory's prefix would be its marker.
fn needs_kind(subject: &Bytes, own: &Attributes) -> bool {
    subject.ends_with(b"/") && own.kind == Kind::File
}

/// Record, file and directory of a subject.
fn about(subject: &Bytes) -> [Read; 3] {
    let mut directory = subject.to_vec();
    if !directory.ends_with(b"/") {
        directory.push(b'/');
    }
    let key_only = RangeRead { keys_only: true, ..RangeRead::new(KeyRange::Key(subject.clone())) };
    let directory = Read::Directory(directory.into());
    [Read::key(record_key(subject)), Read::Range(key_only), directory]
}

/// The attributes of a subject that hold, if it has some of its own.
fn in_force(
    subject: &Bytes,
    answers: &[Answer],
    keeps_time: bool,
    defaults: &Defaults,
) -> Option<Attributes> {
    let record = key_value(answers.first()?).map(Record::read).and_then(std::result::Result::ok);
    let kv = key_value(answers.get(1)?);
    let file = |kv: &KeyValue| in_force_of_file(kv, record.as_ref(), defaults);
    if keeps_time {
        let kv = kv?;
        let own = file(kv);
        let time = Some(kv.content_time).filter(|time| time.is_known());
        return Some(Attributes { mtime: own.mtime.or(time), ..own });
    }
    let (record, kv) = (record.as_ref()?, kv?);
    if record.is_of_file(kv) {
        return Some(file(kv));
    }
    let directory = match answers.get(2)? {
        Answer::Directory(directory) => *directory,
        Answer::Range(_) | Answer::List(_) => DirectoryAnswer::default(),
    };
    let is_directory = subject.ends_with(b"/") && record.is_of_directory(kv);
    is_directory.then(|| in_force_of_directory(&directory, Some(kv), Some(record), defaults))
}

fn key_value(answer: &Answer) -> Option<&KeyValue> {
    match answer {
        Answer::Range(range) => range.kvs.first(),
        Answer::List(_) | Answer::Directory(_) => None,
    }
}

fn kvs_of(answer: Answer) -> Vec<KeyValue> {
    match answer {
        Answer::Range(range) => range.kvs,
        Answer::List(_) | Answer::Directory(_) => Vec::new(),
    }
}
