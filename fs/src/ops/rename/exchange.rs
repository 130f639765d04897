//! RENAME_EXCHANGE: two names change places, whatever each leads to.
//!
//! Everything that a name stands for is exchanged with what the other stands for: the keys below it, the
//! key itself (a file, or a directory's `@value`) and the side records of all of them, each by one
//! operation that carries content, birth and times. One side may be empty, so that a file and a
//! directory are exchanged in the same way. What is staged in a file is committed first; what is staged
//! below a directory goes along.

use std::mem::take;

use bytes::Bytes;
use fuser::Errno;
use revfs_api::keyspace::{
    Compare, CompareResult, CompareTarget, Error, KeyRange, Op, Revision, Txn,
};

use super::file::lock_commits;
use crate::attributes::record_key;
use crate::commit::doubt::NameChange;
use crate::filesystem::{Answer, Caller, Filesystem};
use crate::node::Place;
use crate::note::Operation;
use crate::ops::remove::Existing;
use crate::path::DirectoryKey;

/// Two names that change places.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    /// The key of each name, in which a directory has its value.
    pub a: Bytes,
    pub b: Bytes,
    /// Whether what lies below the names goes along, because one is a directory at least.
    pub is_deep: bool,
}

/// What one name leads to.
struct End {
    key: Bytes,
    is_directory: bool,
    /// It is the value of a directory, which shares its key with the directory's name.
    is_value: bool,
}

impl End {
    /// `parent` is the directory that the name was looked up in.
    fn new(existing: Existing, parent: &DirectoryKey) -> Answer<Self> {
        let (key, is_directory) = match existing {
            Existing::Unborn { key } => (key, false),
            Existing::File(file) => (file.kv.key, false),
            Existing::Directory(own) => (own.directory.value_key().ok_or(Errno::EPERM)?, true),
        };
        if key.ends_with(b"/") {
            // Under the name `%` a marker has to stay where it is.
            return Err(Errno::EPERM);
        }
        let is_value = DirectoryKey::of_key(&key).0 != *parent;
        Ok(Self { key, is_directory, is_value })
    }

    fn name_in_note(&self) -> Bytes {
        if self.is_directory { below(&self.key).as_bytes().clone() } else { self.key.clone() }
    }
}

/// What would lie below the name whose key is `key`.
fn below(key: &Bytes) -> DirectoryKey {
    let (parent, component) = DirectoryKey::of_key(key);
    parent.child_directory(&component)
}

impl Exchange {
    /// Every change of it shows in one of these.
    pub(crate) fn ranges(&self) -> Vec<KeyRange> {
        vec![KeyRange::Key(self.a.clone()), below(&self.a).range()]
    }

    fn ops(&self) -> Vec<Op> {
        let of = |a: &Bytes, b: &Bytes| {
            let (record_a, record_b) = (record_key(a), record_key(b));
            [Op::Exchange { a: a.clone(), b: b.clone() }, Op::Exchange { a: record_a, b: record_b }]
        };
        let mut ops = Vec::from(of(&self.a, &self.b));
        if self.is_deep {
            ops.extend(of(below(&self.a).as_bytes(), below(&self.b).as_bytes()));
        }
        ops
    }
}

impl Filesystem {
    /// Exchanges what two names lead to. False if what was seen does not hold any more.
    pub(super) async fn exchange(
        &self,
        caller: Caller,
        (one, parent): (Existing, &DirectoryKey),
        (other, other_parent): (Existing, &DirectoryKey),
    ) -> Answer<bool> {
        let (one, other) = (End::new(one, parent)?, End::new(other, other_parent)?);
        let is_deep = one.is_directory || other.is_directory;
        if one.key == other.key && one.is_directory == other.is_directory {
            return Ok(true);
        }
        let contains = |own: &End, other: &End| {
            own.is_directory && below(&own.key).contains(below(&other.key).as_bytes())
        };
        let has_value = one.is_value || other.is_value;
        if contains(&one, &other) || contains(&other, &one) || (is_deep && has_value) {
            return Err(Errno::EINVAL);
        }
        let renames = self.hold_names_alone().await?;
        let nodes = [&one, &other].map(|end| {
            let place = Place::File { key: end.key.clone() };
            if end.is_directory { None } else { self.nodes.find(&place) }
        });
        let own = lock_commits(nodes[0].as_ref(), nodes[1].as_ref()).await;
        for node in nodes.iter().flatten() {
            self.commit_locked(node, caller.uid).await?;
        }
        let mut compares = Vec::new();
        for end in [&one, &other] {
            let Some(own) = self.end_compares(end, is_deep).await? else { return Ok(false) };
            compares.extend(own);
        }
        let note = Operation::Exchange { one: one.name_in_note(), other: other.name_in_note() };
        let exchange = Exchange { a: one.key, b: other.key, is_deep };
        let txn = Txn { compares, success: exchange.ops(), failure: Vec::new() };
        let (sequence, since) = (self.next_sequence(), self.floor());
        let answer = match self.propose_as(sequence, caller.uid, vec![note], txn).await {
            Ok(answer) => answer,
            Err(error) => {
                let errno = self.rename_failed(&error, &exchange.a, &exchange.b);
                if matches!(error, Error::OutcomeUnknown { .. }) {
                    self.doubt(sequence, since, NameChange::Exchange(exchange));
                }
                return Err(errno);
            }
        };
        if answer.succeeded {
            self.exchange_here(&exchange, answer.revision);
        }
        drop((own, renames));
        Ok(answer.succeeded)
    }

    /// That a name still leads to what it led to; `None` if it does not already.
    async fn end_compares(&self, end: &End, is_deep: bool) -> Answer<Option<Vec<Compare>>> {
        let range = below(&end.key).range();
        if end.is_directory {
            // The one of every key below is not 0, and there is one.
            let target = CompareTarget::CreateRevision(Revision::NONE);
            return Ok(Some(vec![Compare { range, target, result: CompareResult::NotEqual }]));
        }
        let Some(file) = self.stored_file(&end.key, Revision::NONE).await? else {
            return Ok(None);
        };
        let mut compares = vec![Compare::create_revision(end.key.clone(), file.kv.create_revision)];
        if is_deep {
            compares.push(Compare::absent(range));
        }
        Ok(Some(compares))
    }

    /// What this mount knows of the two names changes places too.
    pub(crate) fn exchange_here(&self, exchange: &Exchange, revision: Revision) {
        let Exchange { a, b, is_deep } = exchange;
        let (below_a, below_b) = (below(a), below(b));
        if *is_deep {
            self.exchange_unborn(&below_a, &below_b);
            self.nodes.exchange_directories(&below_a, &below_b);
            for node in [&below_a, &below_b].iter().flat_map(|own| self.nodes.below(own)) {
                node.see(revision);
            }
        }
        self.nodes.exchange_files(a, b);
        for key in [a, b] {
            let Some(node) = self.nodes.find(&Place::File { key: key.clone() }) else { continue };
            let mut state = node.file.lock();
            if !state.life.is_unborn() {
                state.life.create = revision;
            }
            if state.staged.is_none() {
                state.drop_content();
            }
            drop(state);
            node.see(revision);
        }
    }

    /// Files that the store does not have yet go with their directories; a directory's value with it.
    fn exchange_unborn(&self, a: &DirectoryKey, b: &DirectoryKey) {
        let (value_a, value_b) = (a.split(), b.split());
        let mut unborn = self.unborn.lock();
        for (place, node) in take(&mut *unborn) {
            let own = &place.0;
            let moved = if Some(&place) == value_a.as_ref() {
                value_b.clone()
            } else if Some(&place) == value_b.as_ref() {
                value_a.clone()
            } else {
                let directory = a.rebase_directory(own, b).or_else(|| b.rebase_directory(own, a));
                directory.map(|directory| (directory, place.1.clone()))
            };
            if moved.is_some() {
                node.file.lock().give_up_name();
            }
            unborn.insert(moved.unwrap_or(place), node);
        }
    }
}
