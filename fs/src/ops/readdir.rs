//! OPENDIR, READDIR, READDIRPLUS, RELEASEDIR.
//!
//! A listing is taken in one view: the names of the directory, and the side records of all of them. The
//! entries of a READDIRPLUS then cost no further question; they become nodes as they are handed out.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fuser::{Errno, FileAttr, FileType};
use revfs_api::keyspace::{
    KeyRange, KeyValue, ListEntry, ListRead, RangeRead, Read, Revision, Time,
};

use crate::attributes::{Kind, record_key};
use crate::filesystem::{Answer, Filesystem, Found};
use crate::found::file_attr;
use crate::keys_tree::PAGE_KEYS;
use crate::listing::{DOTS, DirectoryHandle, Entry, Listing, What};
use crate::node::{Hidden, Node, Place, Tree};
use crate::path::{DirectoryKey, Listed, encode_component};
use crate::resolve::{Answers, Standing, standing_directory, standing_file};

/// One name as READDIR and READDIRPLUS tell it.
#[derive(Debug)]
pub struct DirectoryEntry {
    pub name: Bytes,
    pub ino: u64,
    pub kind: FileType,
    /// For READDIRPLUS, of all but `.` and `..`: whoever hands it out counts a lookup.
    pub found: Option<Found>,
}

impl Filesystem {
    /// # Errors
    /// ENOTDIR; ESTALE for a node that is not known.
    pub fn opendir(&self, ino: u64) -> Answer<u64> {
        let node = self.nodes.get(ino).ok_or(Errno::ESTALE)?;
        match node.place() {
            Place::Directory { .. }
            | Place::Hidden(
                Hidden::Revisions(_)
                | Hidden::Revision { .. }
                | Hidden::OlderRevisions { .. }
                | Hidden::Times(_)
                | Hidden::History(_)
                | Hidden::HistoryOf(_)
                | Hidden::Keys
                | Hidden::Transactions,
            ) => Ok(self.handles.directories.insert(DirectoryHandle::new(node))),
            Place::File { .. }
            | Place::PastFile { .. }
            | Place::Detached { .. }
            | Place::Hidden(
                Hidden::TimeLink { .. }
                | Hidden::Version { .. }
                | Hidden::Refused { .. }
                | Hidden::Watch { .. }
                | Hidden::Commit
                | Hidden::Status,
            ) => Err(Errno::ENOTDIR),
        }
    }

    pub fn releasedir(&self, handle: u64) {
        self.handles.directories.remove(handle);
    }

    /// The listing, or the page of it, in which `position` lies. Position 0 takes a new one.
    ///
    /// # Errors
    /// EBADF; what the key space answers.
    pub async fn listing_at(
        &self,
        handle: u64,
        position: u64,
    ) -> Answer<(Arc<DirectoryHandle>, Arc<Listing>)> {
        let handle = self.handles.directories.get(handle).ok_or(Errno::EBADF)?;
        let index = usize::try_from(position).unwrap_or(usize::MAX).saturating_sub(DOTS);
        let current = match position {
            0 => None,
            _ => handle.state.lock().listing.clone(),
        };
        let listing = match current {
            None => {
                let listing = Arc::new(self.list(&handle.node).await?);
                handle.state.lock().pages = vec![(0, Bytes::new())];
                listing
            }
            Some(listing) => self.page_at(&handle, listing, index).await?,
        };
        handle.state.lock().listing = Some(Arc::clone(&listing));
        Ok((handle, listing))
    }

    /// Of a directory that is listed in pages: the page in which entry `index` lies.
    async fn page_at(
        &self,
        handle: &DirectoryHandle,
        listing: Arc<Listing>,
        index: usize,
    ) -> Answer<Arc<Listing>> {
        let end = listing.first + listing.entries.len();
        let page = match &listing.next {
            Some(next) if index >= end => {
                handle.state.lock().pages.push((end, next.clone()));
                (end, next.clone())
            }
            _ if index < listing.first => {
                let state = handle.state.lock();
                let before = state.pages.iter().rev().find(|(first, _)| *first <= index);
                before.cloned().unwrap_or_default()
            }
            _ => return Ok(listing),
        };
        debug_assert_eq!(page.0 % PAGE_KEYS, 0, "only @keys has pages, and only the last is short");
        self.list_keys(listing.revision, page.1, page.0).await.map(Arc::new)
    }

    async fn list(&self, node: &Node) -> Answer<Listing> {
        match node.place() {
            Place::Directory { tree, directory } => self.list_directory(tree, &directory).await,
            Place::Hidden(Hidden::Revision { directory, revision }) => {
                self.list_directory(Tree::Past(revision), &directory).await
            }
            Place::Hidden(Hidden::Revisions(directory)) => {
                self.list_revisions(&directory, None).await
            }
            Place::Hidden(Hidden::OlderRevisions { directory, below }) => {
                self.list_revisions(&directory, Some(below)).await
            }
            // Every time is a name; none is better than another.
            Place::Hidden(Hidden::Times(_)) => Ok(Listing::default()),
            Place::Hidden(Hidden::History(directory)) => self.list_history(&directory).await,
            Place::Hidden(Hidden::HistoryOf(key)) => self.list_versions(&key).await,
            Place::Hidden(Hidden::Keys) => self.list_keys(Revision::NONE, Bytes::new(), 0).await,
            Place::Hidden(Hidden::Transactions) => self.list_transactions().await,
            Place::File { .. }
            | Place::PastFile { .. }
            | Place::Detached { .. }
            | Place::Hidden(
                Hidden::TimeLink { .. }
                | Hidden::Version { .. }
                | Hidden::Refused { .. }
                | Hidden::Watch { .. }
                | Hidden::Commit
                | Hidden::Status,
            ) => Err(Errno::ENOTDIR),
        }
    }

    async fn list_directory(&self, tree: Tree, directory: &DirectoryKey) -> Answer<Listing> {
        let (revision, mut names) = self.names_at(tree.revision(), directory).await?;
        if tree != Tree::Live && !self.options.history_as_is {
            let (_, present) = self.names_at(Revision::NONE, directory).await?;
            for (name, standing) in &mut names {
                let effective = standing.effective_mut();
                let present = present.get(name).map(Standing::effective);
                *effective = effective.clone().as_past(present);
            }
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(names.len());
        if tree == Tree::Live {
            for (component, node) in self.unborn_in(directory) {
                let name = Bytes::from(encode_component(&component).into_owned());
                if self.options.local.has(&component) {
                    names.remove(&name);
                }
                if !names.contains_key(&name) {
                    entries.push(Entry { name, what: What::Unborn(node) });
                }
            }
        }
        entries.extend(names.into_iter().map(|(name, standing)| Entry {
            name,
            what: What::Standing { tree, standing: Box::new(standing) },
        }));
        Ok(Listing { revision, entries, ..Listing::default() })
    }

    /// What stands in a directory, by file name.
    async fn names_at(
        &self,
        revision: Revision,
        directory: &DirectoryKey,
    ) -> Answer<(Revision, BTreeMap<Bytes, Standing>)> {
        let list = |directory: Bytes, after: Bytes, with_values| {
            Read::List(ListRead { directory, after, limit: 0, with_values })
        };
        // Records lie in the order of their keys, below a prefix that need not end in a slash.
        let (records, stem) = DirectoryKey::of_key(&record_key(directory.as_bytes()));
        let mut reads = vec![
            list(directory.as_bytes().clone(), Bytes::new(), false),
            list(records.as_bytes().clone(), stem.clone(), true),
        ];
        let value_key = directory.value_key().filter(|_| *directory != self.options.root);
        if let Some(key) = &value_key {
            let key_only =
                RangeRead { keys_only: true, ..RangeRead::new(KeyRange::Key(key.clone())) };
            reads.extend([Read::Range(key_only), Read::key(record_key(key))]);
        }
        if stem.is_empty() {
            // The record of the directory itself: not above the (empty) name to begin after.
            reads.push(Read::key(record_key(directory.as_bytes())));
        }
        let answer = self.ask(revision, reads).await?;
        let revision = answer.revision;
        let mut answers = Answers::new(answer);
        let (listed, records) = (answers.list()?.entries, answers.list()?.entries);
        let mut records: HashMap<Bytes, KeyValue> = records
            .into_iter()
            .filter_map(|entry| {
                Some((entry.name.strip_prefix(stem.as_ref())?.to_vec().into(), entry.kv?))
            })
            .collect();
        let defaults = self.options.defaults();
        let mut names = BTreeMap::new();
        if value_key.is_some() {
            let (value, record) = (answers.key()?, answers.key()?);
            let file = value.map(|kv| standing_file(kv, record.as_ref(), &defaults));
            if let Some(file) = file.filter(|file| !file.is_marker) {
                names.insert(Bytes::from_static(b"@value"), Standing::File(file));
            }
        }
        if stem.is_empty()
            && let Some(record) = answers.key()?
        {
            records.insert(Bytes::new(), record);
        }
        self.name_entries(directory, listed, &records, &mut names);
        Ok((revision, names))
    }

    fn name_entries(
        &self,
        directory: &DirectoryKey,
        listed: Vec<ListEntry>,
        records: &HashMap<Bytes, KeyValue>,
        names: &mut BTreeMap<Bytes, Standing>,
    ) {
        let defaults = self.options.defaults();
        let directories: HashSet<Bytes> = listed
            .iter()
            .filter_map(|entry| match Listed::new(&entry.name) {
                Listed::Directory(component) => Some(entry.name.slice(..component.len())),
                Listed::Marker | Listed::Key(_) => None,
            })
            .collect();
        for entry in listed {
            let record = records.get(&entry.name);
            let component = entry.name.slice(..Listed::new(&entry.name).component().len());
            let standing = match (Listed::new(&entry.name), entry.kv, entry.directory) {
                (Listed::Directory(_), marker, Some(answer)) => {
                    let child = directory.child_directory(&component);
                    Standing::Directory(standing_directory(
                        child, answer, marker, record, &defaults,
                    ))
                }
                // Keys below it make it a directory; its value is listed there.
                (Listed::Key(_) | Listed::Marker, Some(kv), _)
                    if !directories.contains(&component) =>
                {
                    let file = standing_file(kv, record, &defaults);
                    if file.is_marker {
                        continue;
                    }
                    Standing::File(file)
                }
                _ => continue,
            };
            names.insert(Bytes::from(encode_component(&component).into_owned()), standing);
        }
    }

    /// What entry number `position` of a listing is; `None` after the last.
    pub fn entry_at(
        &self,
        handle: &DirectoryHandle,
        listing: &Listing,
        position: u64,
        plus: bool,
    ) -> Option<DirectoryEntry> {
        let position = usize::try_from(position).ok()?;
        let Some(index) = position.checked_sub(DOTS) else {
            return Some(self.dots(&handle.node, position));
        };
        let entry = listing.entries.get(index.checked_sub(listing.first)?)?;
        let found = match &entry.what {
            What::Standing { tree, standing } if !plus => {
                let (place, kind) = place_of(*tree, standing);
                let ino = self.number_of(&place);
                return Some(DirectoryEntry { name: entry.name.clone(), ino, kind, found: None });
            }
            What::Standing { tree, standing } => {
                let mut found = self.found(*tree, standing, listing.revision);
                let is_fresh = !listing.is_unwatched && self.is_fresh(listing.revision, standing);
                if *tree == Tree::Live && !is_fresh {
                    (found.entry_ttl, found.attr_ttl) = (Duration::ZERO, Duration::ZERO);
                }
                found
            }
            What::Unborn(node) => match self.found_unborn(Arc::clone(node)) {
                Ok(found) => found,
                // Committed or removed since: whoever wants to know looks it up.
                Err(_) => self.found_of_unknown(Arc::clone(node)),
            },
            What::Hidden { hidden, shown } => {
                self.found_of_hidden(hidden.clone(), *shown, shown.ttl)
            }
            What::Transaction(found) => Found::clone(found),
        };
        let (ino, kind) = (found.node.ino, found.attr.kind);
        Some(DirectoryEntry { name: entry.name.clone(), ino, kind, found: Some(found) })
    }

    /// A regular file of which nothing is known; the kernel must not keep that.
    fn found_of_unknown(&self, node: Arc<Node>) -> Found {
        let effective = self.made_up(Kind::File, 0o600, Time(0));
        let attr = file_attr(node.ino, 0, &effective);
        Found { attr, entry_ttl: Duration::ZERO, attr_ttl: Duration::ZERO, node }
    }

    /// Attributes of `.` and `..`, at which the kernel does not look.
    #[must_use]
    pub(crate) fn attr_of_dots(&self, entry: &DirectoryEntry) -> FileAttr {
        file_attr(entry.ino, 0, &self.made_up(Kind::Directory, 0o555, Time(0)))
    }

    fn dots(&self, node: &Node, position: usize) -> DirectoryEntry {
        let parent = match node.place() {
            Place::Directory { tree, directory } if directory != self.options.root => {
                directory.parent().map(|directory| Place::Directory { tree, directory })
            }
            _ => None,
        };
        let parent = parent.and_then(|place| self.nodes.find(&place));
        let (name, ino) = match position {
            0 => (&b"."[..], node.ino),
            _ => (&b".."[..], parent.map_or(node.ino, |parent| parent.ino)),
        };
        let name = Bytes::from_static(name);
        DirectoryEntry { name, ino, kind: FileType::Directory, found: None }
    }

    /// Whether what a listing of `revision` says of an entry is still so as far as this mount knows.
    fn is_fresh(&self, revision: Revision, standing: &Standing) -> bool {
        let key = match standing {
            Standing::File(file) => &file.kv.key,
            Standing::Directory(directory) => directory.directory.as_bytes(),
        };
        self.coherence.is_unchanged_since(revision, self.floor(), key)
    }
}

fn place_of(tree: Tree, standing: &Standing) -> (Place, FileType) {
    let kind = file_attr(0, 0, standing.effective()).kind;
    let place = match (tree, standing) {
        (tree, Standing::Directory(directory)) => {
            Place::Directory { tree, directory: directory.directory.clone() }
        }
        (Tree::Live, Standing::File(file)) => Place::File { key: file.kv.key.clone() },
        (Tree::Past(_), Standing::File(file)) => Place::PastFile {
            key: file.kv.key.clone(),
            value: file.kv.mod_revision,
            record: file.record,
        },
    };
    (place, kind)
}
