//! A range in the order of its keys, of which nothing is copied: for who puts it into a form of his own.

use std::borrow::Cow;
use std::ops::ControlFlow;

use crate::error::ReadError;
use crate::escape::{TERMINATOR, is_plain};
use crate::part::from_key;
use crate::schema::{RowError, Tree, VersionRef, Want, key_of_prefix};
use crate::types::{RangeQuery, Revision};
use crate::view::ReadView;

/// How an answer ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeEnd {
    /// Keys of the whole interval, whatever the limit.
    pub count: u64,
    /// Whether the limit left keys out.
    pub more: bool,
}

impl ReadView {
    /// As [`ReadView::range`], for a query that `is_plain`: calls `each` with the name of each key of the
    /// answer and its version.
    ///
    /// # Errors
    /// As [`ReadView::range`].
    pub fn range_in_place(
        &self,
        at: Revision,
        query: &RangeQuery,
        mut each: impl FnMut(&[u8], &VersionRef<'_>),
    ) -> Result<RangeEnd, ReadError> {
        debug_assert!(query.is_plain(), "what is sorted has to be kept");
        let at = self.resolve(if query.at.is_none() { at } else { query.at })?;
        let limit =
            if query.limit == 0 { u64::MAX } else { query.limit.try_into().unwrap_or(u64::MAX) };
        let want = if query.keys_only { Want::Header } else { Want::Value };
        let (mut count, mut rest_from) = (0, None);
        self.scan_in_place(&query.range, at, want, |prefix, version| {
            let key = name(prefix)?;
            if count == limit {
                rest_from = Some(key.into_owned().into());
                return Ok(ControlFlow::Break(()));
            }
            each(&key, &version);
            count += 1;
            Ok(ControlFlow::Continue(()))
        })?;
        let Some(from) = rest_from else { return Ok(RangeEnd { count, more: false }) };
        count += self.count(&from_key(&query.range, from), at)?;
        Ok(RangeEnd { count, more: true })
    }
}

/// The key of a prefix, where it stands if nothing in it is escaped.
fn name(prefix: &[u8]) -> Result<Cow<'_, [u8]>, RowError> {
    match prefix.split_last() {
        Some((&TERMINATOR, key)) if is_plain(key) => Ok(Cow::Borrowed(key)),
        _ => Ok(Cow::Owned(key_of_prefix(Tree::Keys, prefix)?.into())),
    }
}
