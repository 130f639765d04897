//! Keeps the kernel's caches true: changes made elsewhere become notices to it.
//!
//! A task watches the changes of the mount's keys and of their side records. For each revision it
//! - raises the floor, so that no answer given from now on is older;
//! - drops what this mount itself holds of the changed files;
//! - and queues the notices ([`crate::notices`]), which the kernel acts on after answers under way.
//!
//! What this mount committed itself the kernel knows; such revisions carry the mount's id in their
//! note. What is staged here hides changes made elsewhere until it is committed or dropped.
//!
//! Names: a directory that still exists is never invalidated by name (the kernel would unmount what is
//! mounted in it, and processes would lose their working directory), only its attributes are.
//!
//! Where programs can be shown events, a revision's are raised after its notices ([`crate::events`]).

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use revfs_api::keyspace::{
    Answer as KeyAnswer, ChangeKind, Error, KeyRange, Read, Revision, RevisionEvents, Watch,
};
use tokio::sync::watch;

use crate::attributes::{RECORD_PREFIX, record_key};
use crate::events::poke::Spot;
use crate::filesystem::Filesystem;
use crate::node::{Node, Place, Tree};
pub use crate::notices::{Notice, Notices};
use crate::path::{DirectoryKey, LOCK_PREFIX, encode_component, parse_lock_key};

/// Changed keys that are remembered, for listings that are handed out for longer.
const RECENT_MAX: usize = 16_384;

/// How often the watch is asked how far it has come without a change.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// Between two attempts to watch again.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(2);

/// How far the kernel has been told of changes made elsewhere.
#[derive(Debug, Default)]
pub struct Coherence {
    /// Whether changes are being watched: only then may the kernel keep anything for long.
    connected: AtomicBool,
    /// The newest revision that was begun to be told of.
    begun: AtomicU64,
    /// The newest revision of which everything has been queued.
    position: AtomicU64,
    /// Something of the above has changed.
    moved: watch::Sender<()>,
    recent: Mutex<Recent>,
}

/// The keys and directories that changed lately, and when.
#[derive(Debug, Default)]
struct Recent {
    /// Every change after this one is remembered.
    complete_since: Revision,
    changed: HashMap<Bytes, Revision>,
    order: VecDeque<(Revision, Bytes)>,
}

impl Coherence {
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    #[must_use]
    pub fn position(&self) -> Revision {
        Revision(self.position.load(Ordering::Acquire))
    }

    /// Waits until everything up to `revision` has been queued, or nothing is cached.
    pub(crate) async fn reaches(&self, revision: Revision) {
        let mut moved = self.moved.subscribe();
        while self.is_connected() && self.position() < revision && moved.changed().await.is_ok() {}
    }

    /// Whether a change after `revision` may have been told of already.
    pub(crate) fn is_beyond(&self, revision: Revision) -> bool {
        self.begun.load(Ordering::SeqCst) > revision.0
    }

    /// Whether `key` (a directory: its prefix) is known to be as it was at `revision`. `floor` is the
    /// newest revision that this mount has seen by whatever way.
    pub(crate) fn is_unchanged_since(
        &self,
        revision: Revision,
        floor: Revision,
        key: &Bytes,
    ) -> bool {
        if floor > self.position().max(revision) {
            return false;
        }
        let recent = self.recent.lock();
        revision >= recent.complete_since
            && recent.changed.get(key).is_none_or(|changed| *changed <= revision)
    }

    fn begin(&self, position: Revision) {
        let mut recent = self.recent.lock();
        *recent = Recent { complete_since: position, ..Recent::default() };
        self.position.store(position.0, Ordering::Release);
        self.connected.store(true, Ordering::Release);
    }

    /// All changes up to `revision` were told of.
    fn advance(&self, revision: Revision) {
        self.position.fetch_max(revision.0, Ordering::AcqRel);
        self.moved.send_modify(|()| ());
    }

    fn remember(&self, revision: Revision, key: &Bytes) {
        let mut recent = self.recent.lock();
        recent.changed.insert(key.clone(), revision);
        recent.order.push_back((revision, key.clone()));
        while recent.order.len() > RECENT_MAX {
            let Some((oldest, key)) = recent.order.pop_front() else { break };
            recent.complete_since = oldest;
            if recent.changed.get(&key) == Some(&oldest) {
                recent.changed.remove(&key);
            }
        }
    }
}

impl Filesystem {
    /// Watches until the task that runs it is aborted.
    pub async fn watch_changes(self: Arc<Self>) {
        let mut pause = RETRY_FIRST;
        loop {
            match self.watch_from_here().await {
                Ok(watch) => {
                    pause = RETRY_FIRST;
                    let error = self.follow(watch).await;
                    tracing::warn!(%error, "the stream of changes ended; caching stops until it is back");
                    if matches!(error, Error::Compacted { .. }) {
                        // What was missed cannot be told any more.
                        self.coherence.position.store(0, Ordering::Release);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "changes cannot be watched: nothing is cached");
                    if matches!(error, Error::Compacted { .. }) {
                        self.coherence.position.store(0, Ordering::Release);
                    }
                }
            }
            if self.coherence.connected.swap(false, Ordering::AcqRel) {
                self.drop_all_content();
                self.notices.send(Notice::Everything);
                self.coherence.moved.send_modify(|()| ());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_LAST);
        }
    }

    /// The ranges whose changes show in this mount.
    fn watched_ranges(&self) -> Vec<KeyRange> {
        let root = &self.options.root;
        let locks = [LOCK_PREFIX, root.as_bytes()].concat();
        vec![root.range(), KeyRange::prefix(&record_key(root.as_bytes())), KeyRange::prefix(&locks)]
    }

    /// Begins to watch right after what the kernel has been told of, or after the present.
    pub(crate) async fn watch_from_here(&self) -> Result<Box<dyn Watch>, Error> {
        let mut position = self.coherence.position();
        let is_first = position == Revision::NONE;
        if is_first {
            position = self.keys.read(Revision::NONE, Vec::new()).await?.current;
        }
        let watch = self.keys.watch(self.watched_ranges(), position.next()).await?;
        self.coherence.begin(position);
        self.watchers.ring_all(position);
        if is_first {
            // What was read before is told of by nobody.
            self.drop_all_content();
        }
        Ok(watch)
    }

    pub(crate) async fn follow(&self, mut watch: Box<dyn Watch>) -> Error {
        let mut marks = tokio::time::interval(PROGRESS_INTERVAL);
        loop {
            let next = tokio::select! {
                next = watch.next() => Some(next),
                _ = marks.tick() => None,
            };
            match next {
                // A revision that could not be told of is no progress.
                Some(Ok(events)) => match self.tell(&events).await {
                    Ok(()) => {}
                    Err(error) => return error,
                },
                // Also while nothing happens here: what others write may be compacted.
                None => self.coherence.advance(watch.progress()),
                Some(Err(error)) => {
                    self.coherence.advance(watch.progress());
                    return error;
                }
            }
        }
    }

    /// Has the kernel told of one revision.
    async fn tell(&self, events: &RevisionEvents) -> Result<(), Error> {
        let revision = events.stamp.revision;
        let is_own = events.stamp.note.get(..8) == Some(&self.mount_id.to_be_bytes()[..]);
        self.raise_floor(revision);
        self.coherence.begun.fetch_max(revision.0, Ordering::SeqCst);
        let pokes = if is_own { Vec::new() } else { self.pokes_of(events).await };
        let mut batch = Batch::default();
        for event in &events.events {
            if event.kv.key.starts_with(LOCK_PREFIX) {
                if let Some((file, _)) = parse_lock_key(&event.kv.key) {
                    self.locks.wake(&file);
                }
                continue;
            }
            let record = event.kv.key.strip_prefix(RECORD_PREFIX).map(Bytes::copy_from_slice);
            let subject = record.clone().unwrap_or_else(|| event.kv.key.clone());
            self.coherence.remember(revision, &subject);
            for node in self.nodes.past_of(&subject) {
                // Whether what was may be looked at depends on what is.
                batch.add(Notice::Attributes(node.ino));
            }
            let is_name = record.is_none()
                && (event.kind == ChangeKind::Delete
                    || event.kv.create_revision == event.kv.mod_revision);
            if is_name {
                batch.directories_of(&self.options.root, &subject);
            }
            if (record.is_some() || is_name)
                && let Some(node) = self.nodes.find(&Place::File { key: subject.clone() })
            {
                node.note_program(None);
            }
            if is_own {
                continue;
            }
            self.content_changed(&subject, &mut batch);
            if record.is_some() {
                self.attributes_changed(&subject, &mut batch);
            } else if is_name {
                self.name_changed(&subject, event.kind, &mut batch).await?;
            }
        }
        for directory in &batch.directories {
            self.coherence.remember(revision, directory.as_bytes());
        }
        for poke in &pokes {
            // A directory that was moved is where it is; only the kernel does not know it there.
            batch.notices.extend(poke.to().and_then(|to| self.entry_of(to)));
        }
        for notice in batch.notices {
            self.notices.send(notice);
        }
        if !pokes.is_empty() {
            self.notices.send(Notice::Events(self.events.queue(pokes)));
        }
        self.coherence.advance(revision);
        self.watchers.ring(events);
        Ok(())
    }

    /// Pages and attributes of a file are old.
    fn content_changed(&self, key: &Bytes, batch: &mut Batch) {
        let Some(node) = self.nodes.find(&Place::File { key: key.clone() }) else { return };
        {
            let mut file = node.file.lock();
            file.content_changes += 1;
            if file.staged.is_some() {
                return;
            }
            file.content = None;
        }
        if let Some(parent) = self.directory_node(&DirectoryKey::of_key(key).0) {
            batch.add(Notice::Barrier { parent: parent.ino });
        }
        batch.add(Notice::Inode(node.ino));
    }

    /// A side record changed: of a directory, or of a file, perhaps with its kind.
    fn attributes_changed(&self, subject: &Bytes, batch: &mut Batch) {
        if let Ok(directory) = DirectoryKey::new(subject.clone())
            && let Some(node) = self.directory_node(&directory)
        {
            batch.add(Notice::Attributes(node.ino));
        }
        let (directory, component) = DirectoryKey::of_key(subject);
        if let Some(parent) = self.directory_node(&directory)
            && self.directory_node(&directory.child_directory(&component)).is_none()
        {
            batch.add(entry(&parent, &component));
        }
    }

    /// A key appeared or vanished, and with it perhaps the directories above it.
    async fn name_changed(
        &self,
        key: &Bytes,
        kind: ChangeKind,
        batch: &mut Batch,
    ) -> Result<(), Error> {
        let (mut directory, mut component) = DirectoryKey::of_key(key);
        let mut child = directory.child_directory(&component);
        if let Some(node) = self.directory_node(&child) {
            // The key is the value of a directory.
            let name = Bytes::from_static(b"@value");
            batch.add(Notice::Entry { parent: node.ino, name });
        }
        loop {
            if !self.options.root.contains(directory.as_bytes()) {
                return Ok(());
            }
            let parent = self.directory_node(&directory);
            if let Some(parent) = &parent {
                batch.add(Notice::Attributes(parent.ino));
            }
            if let Some(node) = self.directory_node(&child) {
                let came_or_went = match kind {
                    ChangeKind::Put => node.take_denial(),
                    ChangeKind::Delete => match batch.exists.get(&child) {
                        Some(exists) => !exists,
                        None => {
                            let exists = self.has_names(&child).await?;
                            batch.exists.insert(child.clone(), exists);
                            !exists
                        }
                    },
                };
                if !came_or_went {
                    // It was there and is there; so are those above it.
                    return Ok(());
                }
            }
            if let Some(parent) = &parent {
                batch.add(entry(parent, &component));
            }
            let Some((above, name)) = directory.split() else { return Ok(()) };
            child = directory;
            (directory, component) = (above, name);
        }
    }

    async fn has_names(&self, directory: &DirectoryKey) -> Result<bool, Error> {
        let question = vec![Read::Directory(directory.as_bytes().clone())];
        let answer = self.keys.read(Revision::NONE, question).await?;
        Ok(matches!(
            answer.answers.first(),
            Some(KeyAnswer::Directory(directory)) if directory.names > 0
        ))
    }

    fn entry_of(&self, spot: &Spot) -> Option<Notice> {
        let parent = self.directory_node(&spot.directory)?;
        Some(Notice::Entry { parent: parent.ino, name: spot.name.clone() })
    }

    fn directory_node(&self, directory: &DirectoryKey) -> Option<Arc<Node>> {
        let place = Place::Directory { tree: Tree::Live, directory: directory.clone() };
        self.nodes.find(&place)
    }

    pub(crate) fn drop_all_content(&self) {
        for node in self.nodes.all() {
            node.note_program(None);
            let mut file = node.file.lock();
            file.content_changes += 1;
            if file.staged.is_none() {
                file.content = None;
            }
        }
    }
}

fn entry(parent: &Node, component: &[u8]) -> Notice {
    Notice::Entry { parent: parent.ino, name: encode_component(component).into_owned().into() }
}

/// What one revision changes, each thing once.
#[derive(Default)]
struct Batch {
    notices: Vec<Notice>,
    queued: HashSet<Notice>,
    directories: HashSet<DirectoryKey>,
    /// Directories in which something was deleted: whether they are still there.
    exists: HashMap<DirectoryKey, bool>,
}

impl Batch {
    fn add(&mut self, notice: Notice) {
        if self.queued.insert(notice.clone()) {
            self.notices.push(notice);
        }
    }

    /// Attributes of the directories above a key may have changed with it.
    fn directories_of(&mut self, root: &DirectoryKey, key: &Bytes) {
        let mut directory = Some(DirectoryKey::of_key(key).0);
        while let Some(own) = directory.filter(|own| root.contains(own.as_bytes())) {
            directory = own.parent();
            if !self.directories.insert(own) {
                return;
            }
        }
    }
}
