//! A range: which keys, at which revision, in which order, and how many of them.
//!
//! In this order, as in etcd: the keys of the interval are counted, then those outside the bounds on
//! revisions are dropped, what is left is sorted and cut to the limit, and last the values are left out.

use std::cmp::Ordering;

use super::{KeyRange, KeyValue, Revision};

/// What the keys of an answer are ordered by. Keys that are equal in it stay in the order of keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortTarget {
    #[default]
    Key,
    Version,
    CreateRevision,
    ModRevision,
    Value,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortOrder {
    /// Ascending; but of another target than the key, with a limit and without bounds on revisions,
    /// only the first `limit` + 1 keys are looked at. That is etcd's rule.
    #[default]
    Unspecified,
    Ascend,
    Descend,
}

/// Inclusive bounds on a revision of a key; [`Revision::NONE`] = no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RevisionBounds {
    pub min: Revision,
    pub max: Revision,
}

impl RevisionBounds {
    #[must_use]
    pub fn are_open(self) -> bool {
        self.min.is_none() && self.max.is_none()
    }

    #[must_use]
    pub fn hold(self, revision: Revision) -> bool {
        revision >= self.min && (self.max.is_none() || revision <= self.max)
    }
}

/// Keys and values of an interval, at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeQuery {
    pub range: KeyRange,
    /// A revision of its own. [`Revision::NONE`] = that of the read around it; in a transaction the
    /// state as the operations before it made it.
    pub at: Revision,
    /// 0 = all.
    pub limit: usize,
    pub keys_only: bool,
    pub count_only: bool,
    pub sort_target: SortTarget,
    pub sort_order: SortOrder,
    pub mod_revisions: RevisionBounds,
    pub create_revisions: RevisionBounds,
}

impl RangeQuery {
    #[must_use]
    pub fn new(range: KeyRange) -> Self {
        Self {
            range,
            at: Revision::NONE,
            limit: 0,
            keys_only: false,
            count_only: false,
            sort_target: SortTarget::default(),
            sort_order: SortOrder::default(),
            mod_revisions: RevisionBounds::default(),
            create_revisions: RevisionBounds::default(),
        }
    }

    #[must_use]
    pub fn has_bounds(&self) -> bool {
        !self.mod_revisions.are_open() || !self.create_revisions.are_open()
    }

    /// Whether the bounds on revisions let a key pass.
    #[must_use]
    pub fn admits(&self, kv: &KeyValue) -> bool {
        self.mod_revisions.hold(kv.mod_revision) && self.create_revisions.hold(kv.create_revision)
    }

    /// Whether the answer is in the order of keys.
    #[must_use]
    pub fn is_in_key_order(&self) -> bool {
        self.sort_target == SortTarget::Key && self.sort_order != SortOrder::Descend
    }

    /// Whether the keys of the answer follow each other as they are read, and nothing but the limit leaves
    /// any out.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.is_in_key_order() && !self.has_bounds() && !self.count_only
    }

    /// The order of two keys in the answer.
    #[must_use]
    pub fn order(&self, one: &KeyValue, other: &KeyValue) -> Ordering {
        let order = match self.sort_target {
            SortTarget::Key => one.key.cmp(&other.key),
            SortTarget::Version => one.version.cmp(&other.version),
            SortTarget::CreateRevision => one.create_revision.cmp(&other.create_revision),
            SortTarget::ModRevision => one.mod_revision.cmp(&other.mod_revision),
            SortTarget::Value => one.value.cmp(&other.value),
        };
        if self.sort_order == SortOrder::Descend { order.reverse() } else { order }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResult {
    /// In the order asked for.
    pub kvs: Vec<KeyValue>,
    /// Keys of the whole interval, whatever the limit and the bounds on revisions.
    pub count: u64,
    /// Whether the limit left keys out.
    pub more: bool,
}
