//! From what stands in the store to what the kernel is told: the node, its attributes as this mount
//! shows them, and how long the kernel may keep them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fuser::{Errno, FileAttr, FileType, INodeNo};
use revfs_api::keyspace::{Revision, Time};

use crate::attributes::{Effective, Kind};
use crate::filesystem::{Answer, Filesystem, Found};
use crate::inode_number::{Identity, Numbering, inode_number};
use crate::node::{Hidden, Node, Place, Tree};
use crate::path::DirectoryKey;
use crate::resolve::{Standing, StandingDirectory, StandingFile};
use crate::staged::{Life, Staged};

/// What never changes: the kernel may keep it for as long as it likes.
pub(crate) const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Attributes of hidden nodes: they follow those of ordinary nodes, or the newest revision, but are
/// not watched.
pub(crate) const HIDDEN_TTL: Duration = Duration::from_secs(1);

const BLOCK_BYTES: u32 = 4096;

/// Attributes of a node and how long they hold.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    pub attr: FileAttr,
    pub ttl: Duration,
}

pub(crate) fn system_time(time: Time) -> SystemTime {
    let nanoseconds = Duration::from_nanos(time.0.unsigned_abs());
    if time.0 < 0 { UNIX_EPOCH - nanoseconds } else { UNIX_EPOCH + nanoseconds }
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice { .. } => FileType::CharDevice,
        Kind::BlockDevice { .. } => FileType::BlockDevice,
    }
}

/// What `stat` shows of something with these attributes.
pub(crate) fn file_attr(ino: u64, size: u64, effective: &Effective) -> FileAttr {
    let mtime = system_time(effective.mtime);
    let rdev = match effective.kind {
        Kind::CharDevice { rdev } | Kind::BlockDevice { rdev } => rdev,
        Kind::File | Kind::Directory | Kind::Symlink | Kind::Fifo | Kind::Socket => 0,
    };
    let is_directory = effective.kind == Kind::Directory;
    FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: if is_directory { 0 } else { size.div_ceil(512) },
        atime: mtime,
        mtime,
        ctime: system_time(effective.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(effective.kind),
        perm: effective.mode,
        nlink: 1,
        uid: effective.uid,
        gid: effective.gid,
        rdev,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

/// All numbers that a place may have, in order of preference.
fn numbers(numbering: Numbering, place: &Place) -> impl Iterator<Item = u64> {
    let place = place.clone();
    (0..=u32::MAX).map(move |k| numbering.number(hash(&place, k)))
}

fn hash(place: &Place, k: u32) -> u64 {
    match place {
        Place::Directory { tree: Tree::Live, directory } => {
            inode_number(&Identity::LiveDirectory { prefix: directory.as_bytes() }, k)
        }
        Place::Directory { tree: Tree::Past(revision), directory } => {
            let revision = *revision;
            inode_number(&Identity::PastDirectory { prefix: directory.as_bytes(), revision }, k)
        }
        Place::File { key } | Place::Detached { key } => {
            inode_number(&Identity::LiveFile { key }, k)
        }
        Place::PastFile { key, value, record } => {
            let identity =
                Identity::PastFile { key, mod_revision: *value, record_revision: *record };
            inode_number(&identity, k)
        }
        Place::Hidden(hidden) => {
            let (prefix, path) = hidden.identity();
            let identity =
                Identity::Hidden { prefix: &prefix, revision: Revision::NONE, path: &path };
            inode_number(&identity, k)
        }
    }
}

impl Hidden {
    /// The directory that a hidden node lies in and its path from the hidden name on.
    fn identity(&self) -> (Bytes, Vec<u8>) {
        let of =
            |directory: &DirectoryKey, path: String| (directory.as_bytes().clone(), path.into());
        match self {
            Self::Revisions(directory) => of(directory, "@rev".to_owned()),
            Self::Revision { directory, revision } => of(directory, format!("@rev/{revision}")),
            Self::OlderRevisions { directory, below } => {
                of(directory, format!("@rev/older-than-{below}"))
            }
            Self::Times(directory) => of(directory, "@time".to_owned()),
            Self::TimeLink { directory, name } => {
                (directory.as_bytes().clone(), [b"@time/", name.as_ref()].concat())
            }
            Self::History(directory) => of(directory, "@history".to_owned()),
            Self::HistoryOf(key) => (key.clone(), b"@history/".to_vec()),
            Self::Version { key, revision, deleted } => {
                (key.clone(), format!("@history/{revision}/{deleted}").into())
            }
            Self::Refused { key, time } => (key.clone(), format!("@history/refused-{time}").into()),
            Self::Watch { directory, from: None } => of(directory, "@watch".to_owned()),
            Self::Watch { directory, from: Some(from) } => of(directory, format!("@watch.{from}")),
            Self::Status => (Bytes::new(), b"@status".to_vec()),
            Self::Keys => (Bytes::new(), b"@keys".to_vec()),
            Self::Transactions => (Bytes::new(), b"@txn".to_vec()),
            Self::Commit => (Bytes::new(), b"@commit".to_vec()),
        }
    }
}

impl Filesystem {
    /// The node of a place that is what it is for ever (everything but a live file).
    pub(crate) fn node_of(&self, place: &Place) -> Arc<Node> {
        self.nodes.intern(place, numbers(self.nodes.numbering(), place))
    }

    /// The number that the node of a place has or would get.
    pub(crate) fn number_of(&self, place: &Place) -> u64 {
        match self.nodes.find(place) {
            Some(node) => node.ino,
            None => numbers(self.nodes.numbering(), place)
                .next()
                .expect("the sequence of numbers of a place has no end"),
        }
    }

    /// The node of the live file `key` in this life and of this kind. The node of another life or kind
    /// lives on without its name.
    pub(crate) fn node_of_file(&self, key: &Bytes, life: Life, kind: FileType) -> Arc<Node> {
        let place = Place::File { key: key.clone() };
        loop {
            let node = self.node_of(&place);
            if node.is_or_begins(life) && node.is_or_becomes(kind) {
                return node;
            }
            self.nodes.detach_node(&node, key);
        }
    }

    /// A node for a file that the store does not have yet.
    pub(crate) fn node_of_unborn(&self, key: &Bytes, kind: FileType) -> Arc<Node> {
        self.nodes.detach(key);
        self.node_of_file(key, Life::default(), kind)
    }

    /// How long the kernel may keep what it will be told of changes of.
    pub(crate) fn live_ttl(&self) -> Duration {
        if self.coherence.is_connected() && !self.is_linear() {
            self.options.cache
        } else {
            Duration::ZERO
        }
    }

    /// What the kernel is told of what stands in `tree`; `revision` is that of the view.
    pub(crate) fn found(&self, tree: Tree, standing: &Standing, revision: Revision) -> Found {
        match standing {
            Standing::File(file) => self.found_file(tree, file, revision),
            Standing::Directory(directory) => self.found_directory(tree, directory),
        }
    }

    fn found_file(&self, tree: Tree, file: &StandingFile, revision: Revision) -> Found {
        let key = &file.kv.key;
        match tree {
            Tree::Live => {
                let kind = file_type(file.effective.kind);
                let node = self.node_of_file(key, Life::of(&file.kv), kind);
                node.see(revision);
                let shown = self.shown_file(&node, file);
                self.note_program(&node, file, revision);
                Found { attr: shown.attr, entry_ttl: shown.ttl, attr_ttl: shown.ttl, node }
            }
            Tree::Past(_) => {
                let value = file.kv.mod_revision;
                let place = Place::PastFile { key: key.clone(), value, record: file.record };
                let node = self.node_of(&place);
                node.see(revision);
                let attr = file_attr(node.ino, file.kv.value_bytes, &file.effective);
                Found { attr, entry_ttl: FOREVER, attr_ttl: self.past_ttl(), node }
            }
        }
    }

    fn found_directory(&self, tree: Tree, directory: &StandingDirectory) -> Found {
        let node = self.node_of(&Place::Directory { tree, directory: directory.directory.clone() });
        let shown = self.shown_directory(tree, &node, directory);
        let entry_ttl = match tree {
            Tree::Live => self.live_ttl(),
            Tree::Past(_) => FOREVER,
        };
        Found { attr: shown.attr, entry_ttl, attr_ttl: shown.ttl, node }
    }

    /// Attributes of the past depend on those of the present, unless shown as they were.
    pub(crate) fn past_ttl(&self) -> Duration {
        if self.options.history_as_is { FOREVER } else { self.live_ttl() }
    }

    /// A live file as this mount shows it: what is staged comes before what is stored.
    pub(crate) fn shown_file(&self, node: &Node, file: &StandingFile) -> Shown {
        if let Some(shown) = self.shown_staged(node) {
            return shown;
        }
        let attr = file_attr(node.ino, file.kv.value_bytes, &file.effective);
        let is_watched = self.options.root.contains(&file.kv.key);
        Shown { attr, ttl: if is_watched { self.live_ttl() } else { Duration::ZERO } }
    }

    /// Notes what the file was at `revision`, unless a later change has been told of.
    pub(crate) fn note_program(&self, node: &Node, file: &StandingFile, revision: Revision) {
        let is_file = file.effective.kind == Kind::File;
        node.note_program(is_file.then_some(file.effective.mode & 0o111 != 0));
        if self.coherence.is_beyond(revision) {
            node.note_program(None);
        }
    }

    /// What is staged in a node, as `stat` shows it.
    pub(crate) fn shown_staged(&self, node: &Node) -> Option<Shown> {
        let file = node.file.lock();
        let staged = file.staged.as_ref()?;
        let size = u64::try_from(staged.bytes.len()).expect("bounded by the largest value");
        let attr = file_attr(node.ino, size, &effective_staged(staged, &self.options.defaults()));
        Some(Shown { attr, ttl: Duration::ZERO })
    }

    /// A directory as this mount shows it: a file that is still to be born has changed it already.
    pub(crate) fn shown_directory(
        &self,
        tree: Tree,
        node: &Node,
        directory: &StandingDirectory,
    ) -> Shown {
        let mut attr = file_attr(node.ino, directory.answer.names, &directory.effective);
        if tree != Tree::Live {
            return Shown { attr, ttl: self.past_ttl() };
        }
        if let Some(private) = &self.private
            && directory.directory == self.options.root
        {
            (attr.perm, attr.uid, attr.gid) = (0o700, private.maker.uid, private.maker.gid);
        }
        // Files that stay here change nothing that others see.
        let mut unborn = self.unborn_in(&directory.directory);
        unborn.retain(|(component, _)| !self.options.local.has(component));
        if !unborn.is_empty() {
            let born = unborn.iter().filter_map(|(_, node)| {
                node.file.lock().staged.as_ref().map(|staged| system_time(staged.modified))
            });
            attr.mtime = born.fold(attr.mtime, Ord::max);
            attr.ctime = attr.ctime.max(attr.mtime);
            return Shown { attr, ttl: Duration::ZERO };
        }
        if !self.is_there(directory) {
            attr.nlink = 0;
            return Shown { attr, ttl: Duration::ZERO };
        }
        Shown { attr, ttl: self.live_ttl() }
    }

    /// The files of a directory that the store does not have yet, by component.
    pub(crate) fn unborn_in(&self, directory: &DirectoryKey) -> Vec<(Bytes, Arc<Node>)> {
        let unborn = self.unborn.lock();
        if unborn.is_empty() {
            return Vec::new();
        }
        unborn
            .range((directory.clone(), Bytes::new())..)
            .take_while(|((own, _), _)| own == directory)
            .map(|((_, component), node)| (component.clone(), Arc::clone(node)))
            .collect()
    }

    pub(crate) fn found_unborn(&self, node: Arc<Node>) -> Answer<Found> {
        let shown = self.shown_staged(&node).ok_or(Errno::ENOENT)?;
        Ok(Found { attr: shown.attr, entry_ttl: Duration::ZERO, attr_ttl: Duration::ZERO, node })
    }
}

fn effective_staged(staged: &Staged, defaults: &crate::attributes::Defaults) -> Effective {
    let attributes = &staged.attributes;
    Effective {
        kind: attributes.kind,
        mode: if attributes.kind == Kind::Symlink { 0o777 } else { attributes.mode },
        uid: attributes.uid.unwrap_or(defaults.uid),
        gid: attributes.gid.unwrap_or(defaults.gid),
        mtime: attributes.mtime.unwrap_or(staged.modified),
        ctime: staged.modified,
        xattrs: attributes.xattrs.clone(),
    }
}
