//! Directories: which names a prefix holds, at any revision, without reading the keys below.
//!
//! A directory is a prefix that is empty or ends in `/`; its names are what follows in the keys below
//! it, up to and including the next `/`. So `/app/color` is the name `color` of `/app/`, which is the
//! name `app/` of `/`, which is the name `/` of the empty prefix. The key `/app/` itself is the empty
//! name of `/app/`: its marker.
//!
//! *names* has a row for each appearance and vanishing of a name, *directories* one for each revision
//! at which the set of names of a directory changed, or became another's that was moved here (see
//! `moved.rs`). Creating or deleting a key writes its own name and climbs only while a directory gets
//! its first or loses its last name.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::{ReadError, StoreError};
use crate::moved::{Moved, Source};
use crate::schema::{
    Tree, Want, after_prefix, decode_directory, decode_name, encode_directory, encode_name,
    key_prefix, key_row, name_of_prefix, name_prefix, name_row, split_descending,
};
use crate::types::{DirectoryState, KeyValue, ListEntry, ListQuery, ListResult, Revision, Time};
use crate::view::{Newest, ReadView};

/// Splits a key, or a directory, into the directory that holds it and its name there.
pub(crate) fn split_name(key: &[u8]) -> (&[u8], &[u8]) {
    let slash = key.iter().rposition(|&byte| byte == b'/');
    key.split_at(slash.map_or(0, |at| at + 1))
}

/// The same for a directory, whose own last `/` belongs to its name; `None` for the empty prefix.
pub(crate) fn split_directory(directory: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, inner) = directory.split_last()?;
    let slash = inner.iter().rposition(|&byte| byte == b'/');
    Some(directory.split_at(slash.map_or(0, |at| at + 1)))
}

/// Names that appear (true) or vanish, by directory, the longest prefix first.
type Work = BTreeMap<(Reverse<usize>, Vec<u8>), Vec<(Vec<u8>, bool)>>;

/// A row to be added to a tree.
pub(crate) type NewRow = (Tree, Bytes, Option<Bytes>);

/// The rows of *names* and *directories* for keys that appear (true) or vanish at `main`, and for the
/// directories that were moved.
pub(crate) fn name_rows<'k>(
    view: &ReadView,
    main: Revision,
    time: Time,
    keys: impl Iterator<Item = (&'k [u8], bool)>,
    moved: &Moved,
    rows: &mut Vec<NewRow>,
) -> Result<(), StoreError> {
    // Deepest directories first: what they do to the directories above is known before those are
    // visited, because a parent's prefix is shorter.
    let mut work = Work::new();
    let slot = |directory: &[u8]| (Reverse(directory.len()), directory.to_vec());
    for (key, appears) in keys {
        let (directory, name) = split_name(key);
        work.entry(slot(directory)).or_default().push((name.to_vec(), appears));
    }
    for target in moved.targets() {
        work.entry(slot(target)).or_default();
    }
    while let Some(((_, directory), names)) = work.pop_first() {
        let before = view.directory_at(view.current(), &directory)?;
        let has_changed = !names.is_empty();
        let mut now = before.names;
        for (name, appears) in names {
            if appears {
                now += 1;
            } else {
                now = now.checked_sub(1).ok_or_else(|| {
                    let directory = directory.escape_ascii();
                    view.fault()
                        .close(&format!("directory \"{directory}\" lost more names than it had"))
                })?;
            }
            let row = name_row(&directory, &name, main);
            let value = encode_name(&row, appears);
            rows.push((Tree::Names, row.into(), Some(value.into())));
        }
        let taken = match moved.source(&directory) {
            Some(source) => taken_along(view, source, now)?,
            None => None,
        };
        let state = match taken {
            Some(state) => state,
            None if has_changed => DirectoryState { names: now, changed: main, time },
            None => before,
        };
        if has_changed || state != before {
            let row = key_row(&directory, main);
            let value = encode_directory(&row, &state);
            rows.push((Tree::Directories, row.into(), Some(value.into())));
        }
        if (before.names == 0) != (now == 0)
            && let Some((parent, name)) = split_directory(&directory)
        {
            work.entry(slot(parent)).or_default().push((name.to_vec(), now > 0));
        }
    }
    Ok(())
}

/// What the source of a directory was, if the directory has all of its names now and no others.
fn taken_along(
    view: &ReadView,
    source: &Source,
    names: u64,
) -> Result<Option<DirectoryState>, StoreError> {
    if source.names != names {
        return Ok(None);
    }
    let state = view.directory_at(view.current(), &source.directory)?;
    Ok((state.names == names).then_some(state))
}

impl ReadView {
    /// A directory at `at`; all zero if nothing lives in it.
    ///
    /// # Errors
    /// A compacted or future revision, or a closed store.
    pub fn directory(&self, at: Revision, directory: &[u8]) -> Result<DirectoryState, ReadError> {
        let at = self.resolve(at)?;
        Ok(self.directory_at(at, directory)?)
    }

    fn directory_at(&self, at: Revision, directory: &[u8]) -> Result<DirectoryState, StoreError> {
        let found = self.newest(Tree::Directories, &key_prefix(directory), at)?;
        let Some(row) = found else { return Ok(DirectoryState::default()) };
        let state = decode_directory(row.key(), row.value()).map_err(|e| self.row(&e))?;
        // The row of a directory that is gone may be compacted away: it says nothing more.
        Ok(if state.names == 0 { DirectoryState::default() } else { state })
    }

    /// The names directly in a directory at `at`, in byte order.
    ///
    /// # Errors
    /// A compacted or future revision, or a closed store.
    pub fn list(&self, at: Revision, query: &ListQuery) -> Result<ListResult, ReadError> {
        let at = self.resolve(at)?;
        let want = if query.with_values { Want::Value } else { Want::Header };
        let limit = if query.limit == 0 { usize::MAX } else { query.limit };
        let prefix = key_prefix(&query.directory);
        let from = if query.after.is_empty() {
            prefix.clone()
        } else {
            after_prefix(&name_prefix(&query.directory, &query.after))
        };
        let mut result = ListResult::default();
        let mut counted = 0;
        let end = Some(after_prefix(&prefix));
        let mut walk = Newest::new(self, Tree::Names, &from, end, at)?;
        while let Some(row) = walk.next()? {
            let appears = decode_name(row.key(), row.value()).map_err(|e| self.row(&e))?;
            if !appears {
                continue;
            }
            if counted == limit {
                result.more = true;
                break;
            }
            let (own, _) = split_descending(Tree::Names, row.key()).map_err(|e| self.row(&e))?;
            let name = name_of_prefix(own, prefix.len()).map_err(|e| self.row(&e))?;
            counted += usize::from(!name.is_empty());
            result.entries.push(self.entry(at, &query.directory, name, want)?);
        }
        Ok(result)
    }

    fn entry(
        &self,
        at: Revision,
        directory: &[u8],
        name: Bytes,
        want: Want,
    ) -> Result<ListEntry, StoreError> {
        let mut key = directory.to_vec();
        key.extend_from_slice(&name);
        let kv: Option<KeyValue> =
            self.version_at(&key, at, want)?.filter(|v| !v.tombstone).map(|v| v.kv);
        let directory =
            if name.ends_with(b"/") { Some(self.directory_at(at, &key)?) } else { None };
        Ok(ListEntry { name, kv, directory })
    }
}

#[cfg(test)]
mod tests {
    use super::{split_directory, split_name};

    #[test]
    fn keys_and_directories_split_at_their_last_slash() {
        let name = |key: &'static str| {
            let (directory, name) = split_name(key.as_bytes());
            (std::str::from_utf8(directory).unwrap(), std::str::from_utf8(name).unwrap())
        };
        assert_eq!(name("/app/color"), ("/app/", "color"));
        assert_eq!(name("/app/"), ("/app/", ""));
        assert_eq!(name("color"), ("", "color"));
        assert_eq!(name("a//b"), ("a//", "b"));
        let directory = |key: &'static str| {
            split_directory(key.as_bytes()).map(|(directory, name)| {
                (std::str::from_utf8(directory).unwrap(), std::str::from_utf8(name).unwrap())
            })
        };
        assert_eq!(directory("/app/"), Some(("/", "app/")));
        assert_eq!(directory("/"), Some(("", "/")));
        assert_eq!(directory("a//"), Some(("a/", "/")));
        assert_eq!(directory(""), None);
    }
}
