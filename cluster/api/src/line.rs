//! A line of those who want something, as etcd's locks and elections stand in it: each has a key of its
//! own under `NAME/`, and whose key was created first has the turn.

use bytes::Bytes;

use crate::KeySpace;
use crate::keyspace::{
    ChangeKind, KeyRange, RangeRead, Result, Revision, RevisionBounds, SortOrder, SortTarget,
};

/// All that stand in line for `name`.
#[must_use]
pub fn of(name: &[u8]) -> KeyRange {
    KeyRange::prefix(&[name, b"/"].concat())
}

/// Whose turn it is.
#[must_use]
pub fn first(line: KeyRange) -> RangeRead {
    RangeRead {
        limit: 1,
        sort_target: SortTarget::CreateRevision,
        sort_order: SortOrder::Ascend,
        ..RangeRead::new(line)
    }
}

/// Who stands just before the key that was created at `revision`.
#[must_use]
pub fn before(line: KeyRange, revision: Revision) -> RangeRead {
    let max = Revision(revision.0.saturating_sub(1));
    RangeRead {
        limit: 1,
        keys_only: true,
        sort_target: SortTarget::CreateRevision,
        sort_order: SortOrder::Descend,
        create_revisions: RevisionBounds { min: Revision::NONE, max },
        ..RangeRead::new(line)
    }
}

/// Waits until a key that lived at `view` is deleted.
///
/// # Errors
/// What the watch meets.
pub async fn left(keys: &dyn KeySpace, key: Bytes, view: Revision) -> Result<()> {
    let mut watch = keys.watch(vec![KeyRange::Key(key)], view.next()).await?;
    loop {
        let revision = watch.next().await?;
        if revision.events.iter().any(|event| event.kind == ChangeKind::Delete) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::of;
    use crate::keyspace::KeyRange;

    #[test]
    fn a_name_has_the_keys_below_its_slash() {
        let (start, end) = (Bytes::from_static(b"name/"), Bytes::from_static(b"name0"));
        assert_eq!(of(b"name"), KeyRange::Span { start, end });
    }
}
