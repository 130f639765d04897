//! A range: which keys, at which revision, in which order, and how many of them.
//!
//! In this order, as in etcd: the keys of the interval are counted, then those outside the bounds on
//! revisions are dropped, what is left is sorted and cut to the limit, and last the values are left out.

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

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRead {
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

impl RangeRead {
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

    /// Whether it asks for nothing but a limit, keys and counts.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        let plain = Self {
            limit: self.limit,
            keys_only: self.keys_only,
            count_only: self.count_only,
            ..Self::new(self.range.clone())
        };
        *self == plain
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeAnswer {
    /// In the order asked for.
    pub kvs: Vec<KeyValue>,
    /// Keys of the whole interval, whatever the limit and the bounds on revisions.
    pub count: u64,
    /// Whether the limit left keys out.
    pub more: bool,
}
