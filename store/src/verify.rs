//! Reads every row of a view: whether each says what it should, and how many there are.

use crate::error::StoreError;
use crate::schema::{
    RowError, Tree, VERSION_ROW, Want, decode_alarm, decode_attachment, decode_auth, decode_change,
    decode_directory, decode_key_row, decode_lease, decode_member, decode_name,
    decode_revision_row, decode_role, decode_stamp, decode_upload, decode_upload_ops, decode_user,
    decode_version, key_of_prefix, split_descending, split_upload_row,
};
use crate::view::ReadView;

impl ReadView {
    /// Reads every row of every tree with its checksum, up to the view's LMDB snapshot and overlay;
    /// returns the number of rows of each tree.
    ///
    /// # Errors
    /// A damaged row, which closes the store.
    pub fn verify(&self) -> Result<Vec<(Tree, u64)>, StoreError> {
        let mut counts = Vec::new();
        for tree in Tree::ALL.into_iter().filter(|tree| *tree != Tree::Meta) {
            let mut count = 0;
            // Every row is longer than nothing: LMDB has no empty keys.
            let mut cursor = self.cursor(tree, &[0], None)?;
            while let Some(row) = cursor.next().map_err(|e| self.lmdb(&e))? {
                verify_row(tree, row.key(), row.value()).map_err(|e| self.row(&e))?;
                count += 1;
            }
            counts.push((tree, count));
        }
        Ok(counts)
    }
}

/// Decodes one row.
pub(crate) fn verify_row(tree: Tree, row: &[u8], value: &[u8]) -> Result<(), RowError> {
    match tree {
        Tree::Keys => {
            let (prefix, revision) = split_descending(tree, row)?;
            let key = key_of_prefix(tree, prefix)?;
            decode_key_row(row, key, revision, value, Want::Value).map(drop)
        }
        Tree::Revisions => {
            decode_revision_row(row)?;
            decode_change(row, value).map(drop)
        }
        Tree::Names => decode_name(row, value).map(drop),
        Tree::Directories => decode_directory(row, value).map(drop),
        Tree::Times => decode_stamp(row, value).map(drop),
        Tree::Leases => decode_lease(row, value).map(drop),
        Tree::Attachments => decode_attachment(row, value).map(drop),
        Tree::Alarms => decode_alarm(row, value).map(drop),
        Tree::Uploads => match split_upload_row(row)? {
            (_, None) => decode_upload(row, value).map(drop),
            (_, Some(_)) => decode_upload_ops(row, value).map(drop),
        },
        Tree::Users => decode_user(row, value).map(drop),
        Tree::Roles => decode_role(row, value).map(drop),
        Tree::Members => decode_member(row, value).map(drop),
        Tree::Counters if row == VERSION_ROW => decode_version(row, value).map(drop),
        Tree::Counters => decode_auth(row, value).map(drop),
        // It is read at open.
        Tree::Meta => Ok(()),
    }
}
