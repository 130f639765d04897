//! What of its base an overlay has shown or relied on, and the compares that say that it is still so.
//!
//! | shown | what must be as it was |
//! | --- | --- |
//! | a key, or that there is none | its `mod_revision` |
//! | a range of keys | these keys, and that none has come since |
//! | that a directory is there | that something of it is: its marker, or else its first key |
//! | that there is none | that no key has come below it |
//! | a listing | each name in it, and that no key has come between the directories in it |
//!
//! Nothing is said of what lies deeper than a listing, of the time of a directory, or of the side records
//! of names that were only listed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use revfs_api::keyspace::{
    Answer, Compare, CompareResult, CompareTarget, KeyRange, KeyValue, Read, Revision,
};

use crate::attributes::RECORD_PREFIX;
use crate::path::DirectoryKey;

/// See the module.
#[derive(Debug)]
pub(in crate::txn) struct Reads {
    /// There whatever lies in it, as are those above it.
    root: DirectoryKey,
    /// `mod_revision` of each key; none of one that there is not.
    keys: BTreeMap<Bytes, Revision>,
    /// No key has come in these.
    quiet: BTreeSet<Span>,
    /// Directories that are there.
    there: BTreeSet<Bytes>,
    /// Keys that are there, whatever is in them.
    present: BTreeSet<Bytes>,
}

/// A range of keys: its start, and its end if it has one.
type Span = (Bytes, Option<Bytes>);

impl Reads {
    pub(super) fn new(root: DirectoryKey) -> Self {
        let (keys, present) = (BTreeMap::new(), BTreeSet::new());
        Self { root, keys, quiet: BTreeSet::new(), there: BTreeSet::new(), present }
    }

    pub(in crate::txn) fn count(&self) -> usize {
        self.keys.len() + self.quiet.len() + self.there.len() + self.present.len()
    }

    /// Enters what the base has answered.
    pub(super) fn enter(&mut self, read: &Read, answer: &Answer) {
        match (read, answer) {
            (Read::Range(read), Answer::Range(answer)) => {
                for kv in &answer.kvs {
                    self.keys.insert(kv.key.clone(), kv.mod_revision);
                }
                match &read.range {
                    KeyRange::Key(key) => {
                        self.keys.entry(key.clone()).or_default();
                    }
                    range if answer.kvs.len() < read.limit || read.limit == 0 => {
                        self.quiet.insert(span(range));
                    }
                    _ => {}
                }
            }
            (Read::Directory(prefix), Answer::Directory(answer)) => {
                if self.is_above_root(prefix) || prefix.starts_with(RECORD_PREFIX) {
                    return;
                }
                if answer.names > 0 {
                    self.there.insert(prefix.clone());
                } else {
                    self.quiet.insert(span(&KeyRange::prefix(prefix)));
                }
            }
            (Read::List(read), Answer::List(answer))
                if !read.directory.starts_with(RECORD_PREFIX) =>
            {
                let names = answer.entries.iter().map(|entry| (&entry.name, entry.kv.as_ref()));
                self.enter_listing(&read.directory, names);
            }
            _ => {}
        }
    }

    fn enter_listing<'a>(
        &mut self,
        directory: &Bytes,
        names: impl Iterator<Item = (&'a Bytes, Option<&'a KeyValue>)>,
    ) {
        let mut start = directory.clone();
        for (name, kv) in names {
            let key = Bytes::from([directory.as_ref(), name.as_ref()].concat());
            if name.ends_with(b"/") {
                self.quiet.insert((start, Some(key.clone())));
                start = match KeyRange::prefix(&key) {
                    KeyRange::Span { end, .. } => end,
                    KeyRange::Key(end) | KeyRange::From(end) => end,
                };
                if kv.is_none() {
                    self.there.insert(key.clone());
                }
            }
            if kv.is_some() {
                self.present.insert(key);
            }
        }
        let end = span(&KeyRange::prefix(directory)).1;
        self.quiet.insert((start, end));
    }

    fn is_above_root(&self, prefix: &Bytes) -> bool {
        self.root.as_bytes().starts_with(prefix)
    }

    /// Directories that are there, but have no marker that would say so.
    pub(in crate::txn) fn without_witness(&self) -> impl Iterator<Item = &Bytes> {
        self.there.iter().filter(|prefix| {
            let marker = self.keys.get(*prefix).copied().unwrap_or_default();
            marker == Revision::NONE && !self.present.contains(*prefix)
        })
    }

    /// The compares that hold as long as everything is as it was at the revision `at`, given a key of each
    /// of [`Self::without_witness`].
    pub(in crate::txn) fn compares(&self, at: Revision, witnesses: &[Bytes]) -> Vec<Compare> {
        let keys = self.keys.iter().filter(|(key, revision)| self.matters(key, **revision));
        let keys = keys.map(|(key, revision)| Compare::mod_revision(key.clone(), *revision));
        let is_known = |key: &&Bytes| self.keys.get(*key).is_some_and(|own| *own != Revision::NONE);
        let present = self.present.iter().filter(|key| !is_known(key)).chain(witnesses);
        let present = present.map(|key| Compare::present(key.clone()));
        let quiet = self.quiet.iter().filter(|(start, end)| {
            // A wider one says it too.
            end.as_ref() != Some(start) && !self.is_quiet_above(start, end.as_ref())
        });
        let quiet = quiet.map(|(start, end)| Compare {
            range: match end.clone() {
                Some(end) => KeyRange::Span { start: start.clone(), end },
                None => KeyRange::From(start.clone()),
            },
            target: CompareTarget::CreateRevision(at.next()),
            result: CompareResult::Less,
        });
        keys.chain(present).chain(quiet).collect()
    }

    /// Whether a key has to be compared by itself. Without its file a side record means nothing, and that
    /// there is no key may be said by a range.
    fn matters(&self, key: &Bytes, revision: Revision) -> bool {
        if revision != Revision::NONE {
            return true;
        }
        if let Some(subject) = key.strip_prefix(RECORD_PREFIX) {
            let subject = Bytes::copy_from_slice(subject);
            return if subject.ends_with(b"/") {
                self.is_there(&subject)
            } else {
                self.keys.get(&subject) != Some(&Revision::NONE)
            };
        }
        // A marker comes and goes with what is done in its directory; its record is another matter.
        !key.ends_with(b"/") && !self.is_quiet_above(key, None)
    }

    fn is_there(&self, prefix: &Bytes) -> bool {
        self.there.contains(prefix) || self.present.contains(prefix) || self.is_above_root(prefix)
    }

    /// Whether the range of a directory above is quiet as a whole.
    fn is_quiet_above(&self, start: &Bytes, end: Option<&Bytes>) -> bool {
        let slashes = start.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        slashes.map(|(slash, _)| start.slice(..=slash)).any(|prefix| {
            let whole = span(&KeyRange::prefix(&prefix));
            (start, end) != (&whole.0, whole.1.as_ref()) && self.quiet.contains(&whole)
        })
    }
}

fn span(range: &KeyRange) -> Span {
    match range {
        KeyRange::Key(key) => (key.clone(), Some([key.as_ref(), b"\0"].concat().into())),
        KeyRange::Span { start, end } => (start.clone(), Some(end.clone())),
        KeyRange::From(start) => (start.clone(), None),
    }
}
