//! The next living key of a directory, read from *names* instead of from the rows of keys.
//!
//! A range over keys with many versions would seek twice for each key: beyond the versions of the
//! last one to learn the next key, then to that key's version. *names* has one row for each name,
//! side by side, and says which live: so the second seek is the only one.
//!
//! What is said is right for this reason: two names that follow each other in a directory have no
//! living key between them, because every key below the directory begins with one of its names. A
//! name that ends in `/` holds keys of its own; there, and at the directory's end, nothing is said.

use crate::error::StoreError;
use crate::escape::TERMINATOR;
use crate::schema::{Tree, decode_name, replace_terminator, split_descending};
use crate::types::Revision;
use crate::view::{Newest, ReadView};

/// After a question that had no answer so many go unasked: a tree of small directories has few.
const QUESTIONS_SKIPPED: u32 = 16;

/// See the module.
pub(crate) struct Successor<'v> {
    view: &'v ReadView,
    at: Revision,
    walk: Option<Newest<'v>>,
    /// The escaped directory that the walk is in.
    directory: Vec<u8>,
    /// The prefix that was answered last: the walk stands there.
    last: Vec<u8>,
    skip: u32,
}

impl<'v> Successor<'v> {
    pub(crate) fn new(view: &'v ReadView, at: Revision) -> Self {
        let (directory, last) = (Vec::new(), Vec::new());
        Self { view, at, walk: None, directory, last, skip: 0 }
    }

    /// Makes `next` the prefix of the first key after that of `prefix` that lives; returns whether it
    /// is known.
    pub(crate) fn after(&mut self, prefix: &[u8], next: &mut Vec<u8>) -> Result<bool, StoreError> {
        if self.skip > 0 {
            self.skip -= 1;
            return Ok(false);
        }
        let mut walk = match self.walk.take() {
            Some(walk) if self.last == prefix => walk,
            _ => self.walk_after(prefix)?,
        };
        while let Some(row) = walk.next()? {
            if !decode_name(row.key(), row.value()).map_err(|e| self.view.row(&e))? {
                continue;
            }
            let (own, _) =
                split_descending(Tree::Names, row.key()).map_err(|e| self.view.row(&e))?;
            // The directory, its terminator, the name, its terminator.
            let name = own.get(self.directory.len() + 1..).unwrap_or_default();
            if name.ends_with(&[b'/', TERMINATOR]) {
                break;
            }
            next.clear();
            next.extend_from_slice(&self.directory);
            next.extend_from_slice(name);
            self.last.clone_from(next);
            self.walk = Some(walk);
            return Ok(true);
        }
        self.skip = QUESTIONS_SKIPPED;
        Ok(false)
    }

    /// A walk over the names that follow that of the key `prefix` in its directory.
    fn walk_after(&mut self, prefix: &[u8]) -> Result<Newest<'v>, StoreError> {
        // The escape leaves `/` as it is and makes no other.
        let slash = prefix.iter().rposition(|&byte| byte == b'/');
        let (directory, name) = prefix.split_at(slash.map_or(0, |at| at + 1));
        self.directory.clear();
        self.directory.extend_from_slice(directory);
        let mut end = [directory, &[TERMINATOR]].concat();
        let mut from = [&end, name].concat();
        replace_terminator(&mut from);
        replace_terminator(&mut end);
        Newest::new(self.view, Tree::Names, &from, Some(end), self.at)
    }
}
