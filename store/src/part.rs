//! A range in parts of bounded bytes: what lives in it at one revision, in the order of keys.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::error::ReadError;
use crate::schema::Want;
use crate::types::{KeyRange, KeyValue, Revision};
use crate::view::ReadView;

/// The first keys of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangePart {
    pub kvs: Vec<KeyValue>,
    /// Where the next part begins; `None` if nothing is left.
    pub rest: Option<KeyRange>,
}

impl ReadView {
    /// The first `limit` keys that live in `range` at `at`, fewer if they hold more than `bytes_max`, but one at
    /// least.
    ///
    /// # Errors
    /// A compacted or future revision, or a closed store.
    pub fn range_part(
        &self,
        at: Revision,
        range: &KeyRange,
        keys_only: bool,
        (limit, bytes_max): (usize, usize),
    ) -> Result<RangePart, ReadError> {
        let at = self.resolve(at)?;
        let want = if keys_only { Want::Header } else { Want::Value };
        let (mut part, mut bytes, mut rest_from) = (RangePart::default(), 0, None);
        self.scan(range, at, want, |version| {
            let kv = version.kv;
            let own = kv.key.len() + kv.value.len();
            let is_full = part.kvs.len() >= limit || bytes + own > bytes_max;
            if is_full && !part.kvs.is_empty() {
                rest_from = Some(kv.key);
                return ControlFlow::Break(());
            }
            bytes += own;
            part.kvs.push(kv);
            ControlFlow::Continue(())
        })?;
        part.rest = rest_from.map(|key| from_key(range, key));
        Ok(part)
    }
}

/// The part of `range` at or above `key`.
pub(crate) fn from_key(range: &KeyRange, key: Bytes) -> KeyRange {
    match range {
        KeyRange::Key(_) => KeyRange::Key(key),
        KeyRange::Span { end, .. } => KeyRange::Span { start: key, end: end.clone() },
        KeyRange::From(_) => KeyRange::From(key),
    }
}
