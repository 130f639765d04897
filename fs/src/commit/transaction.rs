//! A draft as one guarded transaction, and what its failure means.
//!
//! The guards keep POSIX where the key space knows only flat keys: a file is not created where a
//! directory is, nor below a file, nor in a directory that was removed; and a commit goes to the file
//! that was opened, not to whatever has its name now. The failure branch reads, in the same view, what
//! is needed to say which of them did not hold.

use bytes::Bytes;
use fuser::Errno;
use revfs_api::keyspace::{
    Compare, CompareResult, CompareTarget, KeyRange, KeyValue, LeaseId, Op, OpAnswer, RangeRead,
    Revision, Txn,
};

use crate::attributes::{Attributes, Defaults, record_key};
use crate::path::{DirectoryKey, reservation_key};
use crate::reservation::{is_not_reserved, is_reserved_by};
use crate::staged::{Basis, Creation, Draft, Life};

/// What a transaction needs to know of the place where it creates or finds a key.
pub(crate) struct Site<'a> {
    pub key: &'a Bytes,
    /// The root of the mount: always there.
    pub root: &'a DirectoryKey,
    pub defaults: &'a Defaults,
}

impl Site<'_> {
    fn parent(&self) -> DirectoryKey {
        DirectoryKey::of_key(self.key).0
    }

    /// That nothing stands in the way of creating the key.
    pub(crate) fn creation_compares(&self, creation: Creation) -> Vec<Compare> {
        let (parent, component) = DirectoryKey::of_key(self.key);
        let mut compares = vec![
            Compare::absent(KeyRange::Key(self.key.clone())),
            Compare::absent(parent.child_directory(&component).range()),
        ];
        compares.extend(self.parent_compares(creation));
        if creation.is_exclusive {
            // Its own, or nobody's.
            compares.push(match creation.reserved {
                LeaseId(0) => is_not_reserved(self.key),
                lease => is_reserved_by(self.key, lease),
            });
        }
        compares
    }

    /// That the parent is a directory, as far as a compare can say.
    pub(crate) fn parent_compares(&self, creation: Creation) -> Vec<Compare> {
        let parent = self.parent();
        let mut compares = Vec::new();
        if parent == *self.root {
            return compares;
        }
        if !creation.parent_value
            && let Some(value) = parent.value_key()
        {
            compares.push(Compare::absent(KeyRange::Key(value)));
        }
        if creation.parent_marker
            && let Some(marker) = parent.marker()
        {
            compares.push(Compare::present(marker));
        }
        compares
    }

    /// Reads the state of the key and its surroundings; [`Surroundings::new`] takes the answers.
    pub(crate) fn surroundings(&self) -> Vec<Op> {
        let (parent, component) = DirectoryKey::of_key(self.key);
        let first_key =
            |range| Op::Range(RangeRead { limit: 1, keys_only: true, ..RangeRead::new(range) });
        vec![
            first_key(KeyRange::Key(self.key.clone())),
            first_key(parent.child_directory(&component).range()),
            first_key(KeyRange::Key(parent.value_key().unwrap_or_default())),
            first_key(parent.range()),
            first_key(KeyRange::Key(parent.as_bytes().clone())),
            first_key(KeyRange::Key(reservation_key(self.key))),
        ]
    }

    /// Puts the record, or takes it away where a plain key looks the same.
    pub(crate) fn record_op(&self, attributes: &Attributes, value_bytes: usize) -> Op {
        let record = record_key(self.key);
        // Without a record, an empty value at a prefix is the directory's marker.
        let looks_like_marker = self.key.ends_with(b"/") && value_bytes == 0;
        if attributes.is_default(self.defaults) && !looks_like_marker {
            Op::delete(record)
        } else {
            Op::put(record, attributes.encode())
        }
    }

    /// The commit of `draft`. Its success branch begins and ends with a range of the key: what it was
    /// before, for [`Draft::lacks`], and what it has become.
    pub(crate) fn transaction(&self, draft: &Draft) -> Txn {
        let mut compares = Vec::new();
        let mut success = vec![key_without_value(self.key)];
        if draft.life.is_unborn() {
            compares.extend(self.creation_compares(draft.creation));
            success.push(Op::put(self.key.clone(), draft.value()));
            if draft.creation.reserved != LeaseId::default() {
                success.push(Op::delete(reservation_key(self.key)));
            }
        } else {
            compares.extend(self.life_compares(draft));
            success.push(self.content_op(draft));
        }
        if self.needs_record_op(draft) {
            success.push(self.record_op(&draft.attributes, draft.bytes.len()));
        }
        success.push(key_without_value(self.key));
        Txn { compares, success, failure: self.surroundings() }
    }

    /// That the key is still the file that was opened, with the content that was changed.
    pub(crate) fn life_compares(&self, draft: &Draft) -> Vec<Compare> {
        let mut compares = vec![Compare::create_revision(self.key.clone(), draft.life.create)];
        if let Basis::Change { modified, .. } = draft.basis {
            compares.push(Compare::mod_revision(self.key.clone(), modified));
        }
        compares
    }

    fn content_op(&self, draft: &Draft) -> Op {
        match draft.basis {
            Basis::Append { .. } => Op::Append { key: self.key.clone(), value: draft.value() },
            Basis::Rewrite | Basis::Change { .. } => Op::Put {
                key: self.key.clone(),
                value: draft.value(),
                lease: LeaseId::default(),
                prev_kv: false,
                ignore_value: false,
                // A file that lives on a lease goes on doing so when it is written.
                ignore_lease: true,
            },
        }
    }

    fn needs_record_op(&self, draft: &Draft) -> bool {
        let plain = Attributes::plain_file(self.defaults);
        let stored = draft.stored.as_ref().unwrap_or(&plain);
        // The new content ends the validity of a time that was set by hand, so an equal one must be
        // stored again. A name that was a directory's before may have left it a record.
        draft.attributes != *stored
            || draft.attributes.mtime.is_some()
            || (self.key.ends_with(b"/") && draft.bytes.is_empty())
    }
}

pub(crate) fn key_without_value(key: &Bytes) -> Op {
    let range = KeyRange::Key(key.clone());
    Op::Range(RangeRead { limit: 1, keys_only: true, ..RangeRead::new(range) })
}

/// That a key was last changed by the transaction that `kv` shows, or is absent.
pub(crate) fn unchanged(key: &Bytes, kv: Option<&KeyValue>) -> Compare {
    Compare {
        range: KeyRange::Key(key.clone()),
        target: CompareTarget::ModRevision(kv.map_or(Revision::NONE, |kv| kv.mod_revision)),
        result: CompareResult::Equal,
    }
}

/// The answer to the range that begins a success branch.
pub(crate) fn first_key(answers: &[OpAnswer]) -> Option<&KeyValue> {
    match answers.first() {
        Some(OpAnswer::Range(answer)) => answer.kvs.first(),
        _ => None,
    }
}

/// The answer to the range that ends a success branch.
pub(crate) fn last_key(answers: &[OpAnswer]) -> Option<KeyValue> {
    match answers.last() {
        Some(OpAnswer::Range(answer)) => answer.kvs.first().cloned(),
        _ => None,
    }
}

/// What a refused transaction found.
#[derive(Debug, Default)]
pub(crate) struct Surroundings {
    pub kv: Option<KeyValue>,
    pub has_children: bool,
    pub parent_value: bool,
    pub parent_exists: bool,
    pub parent_marker: bool,
    /// The lease of the name's reservation, if it has one.
    pub reserved: Option<LeaseId>,
}

/// What to do after a compare did not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The belief was wrong, the intention is still possible: try again with this.
    Again {
        life: Life,
        creation: Creation,
        basis: Basis,
    },
    Refused(Errno),
}

impl Surroundings {
    /// Takes the answers to [`Site::surroundings`].
    pub(crate) fn new(site: &Site<'_>, answers: &[OpAnswer]) -> Self {
        let first = |index: usize| match answers.get(index) {
            Some(OpAnswer::Range(answer)) => answer.kvs.first().cloned(),
            _ => None,
        };
        Self {
            kv: first(0),
            has_children: first(1).is_some(),
            parent_value: first(2).is_some(),
            parent_exists: site.parent() == *site.root || first(3).is_some(),
            parent_marker: first(4).is_some(),
            reserved: first(5).map(|kv| kv.lease),
        }
    }

    /// Why nothing can be created here; `None` if the place is free.
    pub(crate) fn creation_errno(&self) -> Option<Errno> {
        if self.kv.is_some() || self.has_children || self.reserved.is_some() {
            return Some(Errno::EEXIST);
        }
        self.parent_errno()
    }

    pub(crate) fn parent_errno(&self) -> Option<Errno> {
        match (self.parent_exists, self.parent_value) {
            (true, _) => None,
            (false, true) => Some(Errno::ENOTDIR),
            (false, false) => Some(Errno::ENOENT),
        }
    }

    /// What is now known of the place, for the next attempt.
    pub(crate) fn creation(&self, before: Creation) -> Creation {
        Creation {
            parent_marker: self.parent_marker,
            parent_value: self.parent_value,
            reserved: self.reserved.filter(|&lease| lease == before.reserved).unwrap_or_default(),
            ..before
        }
    }

    /// Another has reserved the name that this creation must be the first to have.
    fn is_reserved_by_another(&self, creation: Creation) -> bool {
        creation.is_exclusive && self.reserved.is_some_and(|lease| lease != creation.reserved)
    }

    pub(crate) fn judge(&self, draft: &Draft) -> Verdict {
        if draft.life.is_unborn() { self.judge_creation(draft) } else { self.judge_life(draft) }
    }

    fn judge_creation(&self, draft: &Draft) -> Verdict {
        let creation = self.creation(draft.creation);
        match (&self.kv, draft.basis) {
            // Whoever asked for a new file was told that it is new.
            (Some(_), _) if draft.creation.is_exclusive => Verdict::Refused(Errno::ESTALE),
            _ if self.is_reserved_by_another(draft.creation) => Verdict::Refused(Errno::ESTALE),
            (Some(_), Basis::Change { .. }) => Verdict::Refused(Errno::ESTALE),
            (Some(kv), basis) => Verdict::Again { life: Life::of(kv), creation, basis },
            (None, _) if self.has_children => Verdict::Refused(Errno::EISDIR),
            (None, basis) => match self.parent_errno() {
                Some(errno) => Verdict::Refused(errno),
                None => Verdict::Again { life: draft.life, creation, basis },
            },
        }
    }

    fn judge_life(&self, draft: &Draft) -> Verdict {
        let creation = self.creation(draft.creation);
        let Some(kv) = &self.kv else {
            let may_repeat = draft.creation.may_repeat
                && draft.basis == Basis::Rewrite
                && !self.has_children
                && self.parent_exists;
            return if may_repeat {
                Verdict::Again { life: Life::default(), creation, basis: draft.basis }
            } else {
                Verdict::Refused(Errno::ESTALE)
            };
        };
        // The same file under another life: its directory was moved away and back, say.
        if kv.birth_revision != draft.life.birth {
            return Verdict::Refused(Errno::ESTALE);
        }
        let basis = match draft.basis {
            Basis::Change { content, .. } if content == kv.content_revision => {
                Basis::Change { modified: kv.mod_revision, content }
            }
            Basis::Change { .. } => return Verdict::Refused(Errno::ESTALE),
            other => other,
        };
        Verdict::Again { life: Life::of(kv), creation, basis }
    }
}

#[cfg(test)]
mod tests;
