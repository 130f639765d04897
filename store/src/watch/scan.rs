//! The revisions tree, read in order for the hub: a batch of whole revisions.

use crate::error::StoreError;
use crate::schema::{Tree, decode_change, decode_revision_row, revision_row};
use crate::types::{ChangeKind, Revision};
use crate::view::ReadView;

use super::WatchOptions;
use super::event::Source;

/// What is done with the rows of a batch.
pub(super) trait Sink {
    /// One change; returns the bytes that were read for it.
    fn change(&mut self, view: &ReadView, source: Source<'_>) -> Result<usize, StoreError>;

    /// All changes of a revision were seen.
    fn complete(&mut self, view: &ReadView, revision: Revision) -> Result<(), StoreError>;
}

/// Reads from `from` on, not beyond `to`; returns the last revision that was read whole, which is
/// `to` if the batch was large enough.
pub(super) fn read_batch(
    view: &ReadView,
    options: &WatchOptions,
    (from, to): (Revision, Revision),
    sink: &mut impl Sink,
) -> Result<Revision, StoreError> {
    let end = revision_row(to.next(), 0).to_vec();
    let mut cursor = view.cursor(Tree::Revisions, &revision_row(from, 0), Some(end))?;
    let (mut main, mut revisions, mut rows, mut bytes) = (Revision::NONE, 0, 0, 0);
    while let Some(row) = cursor.next().map_err(|e| view.lmdb(&e))? {
        let (revision, _) = decode_revision_row(row.key()).map_err(|e| view.row(&e))?;
        if revision != main {
            if !main.is_none() {
                sink.complete(view, main)?;
                let is_full = revisions >= options.batch_revisions
                    || rows >= options.batch_rows
                    || bytes >= options.batch_bytes;
                if is_full {
                    return Ok(main);
                }
            }
            main = revision;
            revisions += 1;
        }
        let (is_delete, key) = decode_change(row.key(), row.value()).map_err(|e| view.row(&e))?;
        let kind = if is_delete { ChangeKind::Delete } else { ChangeKind::Put };
        rows += 1;
        bytes += sink.change(view, Source::Stored { revision, kind, key })?;
    }
    if !main.is_none() {
        sink.complete(view, main)?;
    }
    Ok(to)
}
