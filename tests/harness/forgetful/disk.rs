//! What a forgetful disk holds: files and directories as programs see them, and what of it would survive.
//!
//! A write counts as stored when its file was synced after it (or was written with O_DSYNC), a name when its
//! directory was; nothing else makes them so, not even the other. A cut decides for each page that was written
//! since: as before, as it is now, as it was in between, or a mix of sectors of all these. The size of a file is
//! the old or the new one. Of the changes of names in a directory the first few survive, in order.
//!
//! Renames across directories, modes and owners are stored at once: the store relies on none of them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use fuser::{Errno, FileType};

use crate::dice::Dice;

const PAGE_BYTES: usize = 4_096;

/// A disk writes a sector whole.
const SECTOR_BYTES: usize = 512;

/// Of what a page held between two syncs so many states are remembered.
const VERSIONS_MAX: usize = 8;

const ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

pub(super) const ROOT: u64 = 1;

type Page = Arc<[u8; PAGE_BYTES]>;

#[derive(Default)]
struct File {
    size: u64,
    /// Those that are missing hold zeros.
    pages: BTreeMap<u64, Page>,
    stored_size: u64,
    /// What was in the pages that were written since the last sync, the stored content first.
    before: BTreeMap<u64, Vec<Page>>,
}

/// A change of the names in a directory.
enum Change {
    Name(OsString, u64),
    Forget(OsString),
    Rename(OsString, OsString),
}

#[derive(Default)]
struct Directory {
    names: BTreeMap<OsString, u64>,
    stored: BTreeMap<OsString, u64>,
    /// From what is stored to what is seen.
    changes: Vec<Change>,
}

enum Content {
    File(File),
    Directory(Directory),
    Socket,
}

struct Node {
    mode: u16,
    content: Content,
}

/// What is told of a node.
pub(super) struct Told {
    pub(super) kind: FileType,
    pub(super) size: u64,
    pub(super) mode: u16,
}

/// What became of the pages that were not stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) pages: u64,
    pub(super) names: u64,
}

pub(super) struct Disk {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    /// The planted fault: it says that it has stored, and has not.
    lies: bool,
    /// The power goes at one of the next syncs: after so many others.
    armed: Option<(u64, Dice)>,
    /// There is no power.
    cut: Option<Cut>,
}

impl Disk {
    pub(super) fn new(lies: bool) -> Self {
        let root = Node { mode: 0o755, content: Content::Directory(Directory::default()) };
        Self { nodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1, lies, armed: None, cut: None }
    }

    fn node(&mut self, number: u64) -> Result<&mut Node, Errno> {
        if self.cut.is_some() {
            return Err(Errno::EIO);
        }
        self.nodes.get_mut(&number).ok_or(Errno::ENOENT)
    }

    fn file(&mut self, number: u64) -> Result<&mut File, Errno> {
        match &mut self.node(number)?.content {
            Content::File(file) => Ok(file),
            Content::Directory(_) | Content::Socket => Err(Errno::EINVAL),
        }
    }

    fn directory(&mut self, number: u64) -> Result<&mut Directory, Errno> {
        match &mut self.node(number)?.content {
            Content::Directory(directory) => Ok(directory),
            Content::File(_) | Content::Socket => Err(Errno::ENOTDIR),
        }
    }

    pub(super) fn told(&mut self, number: u64) -> Result<Told, Errno> {
        let node = self.node(number)?;
        let (kind, size) = match &node.content {
            Content::File(file) => (FileType::RegularFile, file.size),
            Content::Directory(_) => (FileType::Directory, 0),
            Content::Socket => (FileType::Socket, 0),
        };
        Ok(Told { kind, size, mode: node.mode })
    }

    pub(super) fn set_mode(&mut self, number: u64, mode: u16) -> Result<(), Errno> {
        self.node(number)?.mode = mode;
        Ok(())
    }

    pub(super) fn lookup(&mut self, parent: u64, name: &OsStr) -> Result<u64, Errno> {
        self.directory(parent)?.names.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub(super) fn list(&mut self, number: u64) -> Result<Vec<(OsString, u64)>, Errno> {
        let names = &self.directory(number)?.names;
        Ok(names.iter().map(|(name, &number)| (name.clone(), number)).collect())
    }

    pub(super) fn make(
        &mut self,
        parent: u64,
        name: &OsStr,
        kind: FileType,
        mode: u16,
    ) -> Result<u64, Errno> {
        let content = match kind {
            FileType::RegularFile => Content::File(File::default()),
            FileType::Directory => Content::Directory(Directory::default()),
            FileType::Socket => Content::Socket,
            _ => return Err(Errno::EPERM),
        };
        let number = self.next;
        let directory = self.directory(parent)?;
        if directory.names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        directory.change(Change::Name(name.to_owned(), number));
        self.nodes.insert(number, Node { mode, content });
        self.next += 1;
        Ok(number)
    }

    /// What has no name any more lives on until the next cut: somebody may hold it.
    pub(super) fn remove(&mut self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        let number = self.lookup(parent, name)?;
        if self.directory(number).is_ok_and(|directory| !directory.names.is_empty()) {
            return Err(Errno::ENOTEMPTY);
        }
        self.directory(parent)?.change(Change::Forget(name.to_owned()));
        Ok(())
    }

    pub(super) fn rename(
        &mut self,
        (from, name): (u64, &OsStr),
        (to, new): (u64, &OsStr),
    ) -> Result<(), Errno> {
        let number = self.lookup(from, name)?;
        if from == to {
            self.directory(from)?.change(Change::Rename(name.to_owned(), new.to_owned()));
            return Ok(());
        }
        self.directory(to)?.change(Change::Name(new.to_owned(), number));
        self.directory(to)?.store();
        self.directory(from)?.change(Change::Forget(name.to_owned()));
        self.directory(from)?.store();
        Ok(())
    }

    pub(super) fn read(&mut self, number: u64, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        Ok(self.file(number)?.read(offset, u64::from(size)))
    }

    /// `is_synced`: the file was opened with O_DSYNC.
    pub(super) fn write(
        &mut self,
        number: u64,
        offset: u64,
        data: &[u8],
        is_synced: bool,
    ) -> Result<(), Errno> {
        let fires = is_synced && self.fires();
        let stores = is_synced && !fires && !self.lies;
        self.file(number)?.write(offset, data, stores);
        self.go_if(fires)
    }

    pub(super) fn resize(&mut self, number: u64, size: u64) -> Result<(), Errno> {
        self.file(number)?.resize(size);
        Ok(())
    }

    pub(super) fn sync(&mut self, number: u64) -> Result<(), Errno> {
        let fires = self.fires();
        self.go_if(fires)?;
        let lies = self.lies;
        match &mut self.node(number)?.content {
            _ if lies => {}
            Content::File(file) => file.store(),
            Content::Directory(directory) => directory.store(),
            Content::Socket => {}
        }
        Ok(())
    }

    /// The power is to go at the worst moment: when something is to be stored, after `others` more that were.
    pub(super) fn arm(&mut self, others: u64, dice: Dice) {
        self.armed = Some((others, dice));
    }

    /// What was lost, if the power is gone.
    pub(super) fn lost(&self) -> Option<Cut> {
        self.cut
    }

    /// Something is to be stored: whether the power goes before it is.
    fn fires(&mut self) -> bool {
        match &mut self.armed {
            None => false,
            Some((0, _)) => true,
            Some((others, _)) => {
                *others -= 1;
                false
            }
        }
    }

    fn go_if(&mut self, fires: bool) -> Result<(), Errno> {
        match self.armed.take_if(|_| fires) {
            None => Ok(()),
            Some((_, mut dice)) => {
                self.cut(&mut dice);
                Err(Errno::EIO)
            }
        }
    }

    /// The power goes. From here on everything is an error, until it is back.
    pub(super) fn cut(&mut self, dice: &mut Dice) -> Cut {
        self.armed = None;
        let mut cut = Cut::default();
        for node in self.nodes.values_mut() {
            match &mut node.content {
                Content::File(file) => cut.pages += file.cut(dice),
                Content::Directory(directory) => cut.names += directory.cut(dice),
                Content::Socket => {}
            }
        }
        self.cut = Some(cut);
        cut
    }

    /// The power is back: what has a name is there.
    pub(super) fn revive(&mut self) {
        self.cut = None;
        let (mut named, mut look_at) = (BTreeMap::new(), vec![ROOT]);
        while let Some(number) = look_at.pop() {
            let Some(node) = self.nodes.remove(&number) else { continue };
            if let Content::Directory(directory) = &node.content {
                look_at.extend(directory.names.values());
            }
            named.insert(number, node);
        }
        self.nodes = named;
    }
}

impl Directory {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    fn store(&mut self) {
        self.changes.clear();
        self.stored = self.names.clone();
    }

    /// How many changes are lost.
    fn cut(&mut self, dice: &mut Dice) -> u64 {
        let changes = std::mem::take(&mut self.changes);
        let count = u64::try_from(changes.len()).expect("they are in memory");
        let survive = dice.below(count + 1);
        let survive_count = usize::try_from(survive).expect("at most as many as there are");
        for change in changes.iter().take(survive_count) {
            change.apply(&mut self.stored);
        }
        self.names = self.stored.clone();
        count - survive
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<OsString, u64>) {
        match self {
            Self::Name(name, number) => {
                names.insert(name.clone(), *number);
            }
            Self::Forget(name) => {
                names.remove(name);
            }
            Self::Rename(name, new) => {
                if let Some(number) = names.remove(name) {
                    names.insert(new.clone(), number);
                }
            }
        }
    }
}

fn page_of(offset: u64) -> (u64, usize) {
    let page_bytes = u64::try_from(PAGE_BYTES).expect("a page is small");
    (offset / page_bytes, usize::try_from(offset % page_bytes).expect("below a page"))
}

impl File {
    fn page(&self, number: u64) -> Page {
        self.pages.get(&number).cloned().unwrap_or_else(|| Arc::new(ZEROS))
    }

    fn put(&mut self, number: u64, page: Page) {
        match *page == ZEROS {
            true => self.pages.remove(&number),
            false => self.pages.insert(number, page),
        };
    }

    fn read(&self, offset: u64, size: u64) -> Vec<u8> {
        let end = (offset + size).min(self.size);
        let mut at = offset;
        let mut read = Vec::new();
        while at < end {
            let (number, from) = page_of(at);
            let rest = usize::try_from(end - at).map_or(PAGE_BYTES, |rest| rest.min(PAGE_BYTES));
            let to = (from + rest).min(PAGE_BYTES);
            read.extend_from_slice(&self.page(number)[from..to]);
            at += u64::try_from(to - from).expect("at most a page");
        }
        read
    }

    fn write(&mut self, offset: u64, data: &[u8], stores: bool) {
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let (number, from) = page_of(at);
            let (piece, others) = rest.split_at(rest.len().min(PAGE_BYTES - from));
            let old = self.page(number);
            if old[from..from + piece.len()] != *piece {
                let mut new = old.clone();
                Arc::make_mut(&mut new)[from..from + piece.len()].copy_from_slice(piece);
                let versions = self.before.entry(number).or_default();
                if versions.len() < VERSIONS_MAX {
                    versions.push(old);
                }
                self.put(number, new);
            }
            if stores {
                self.before.remove(&number);
            }
            at += u64::try_from(piece.len()).expect("at most a page");
            rest = others;
        }
        self.size = self.size.max(at);
        if stores {
            self.stored_size = self.stored_size.max(self.size);
        }
    }

    fn resize(&mut self, size: u64) {
        if size < self.size {
            let (first, from) = page_of(size);
            let numbers: Vec<u64> = self.pages.range(first..).map(|(&number, _)| number).collect();
            for number in numbers {
                let old = self.page(number);
                let mut new = ZEROS;
                if number == first {
                    new[..from].copy_from_slice(&old[..from]);
                }
                let versions = self.before.entry(number).or_default();
                if versions.len() < VERSIONS_MAX {
                    versions.push(old);
                }
                self.put(number, Arc::new(new));
            }
        }
        self.size = size;
    }

    fn store(&mut self) {
        self.before.clear();
        self.stored_size = self.size;
    }

    /// How many pages were not stored.
    fn cut(&mut self, dice: &mut Dice) -> u64 {
        let before = std::mem::take(&mut self.before);
        let count = u64::try_from(before.len()).expect("they are in memory");
        for (number, mut versions) in before {
            versions.push(self.page(number));
            let last = versions.len() - 1;
            let how = dice.below(4);
            let mut any = || {
                let count = u64::try_from(versions.len()).expect("few");
                usize::try_from(dice.below(count)).expect("few")
            };
            let survives = match how {
                0 => Arc::clone(&versions[0]),
                1 => Arc::clone(&versions[last]),
                2 => Arc::clone(&versions[any()]),
                _ => {
                    let mut mixed = ZEROS;
                    for (at, sector) in mixed.chunks_mut(SECTOR_BYTES).enumerate() {
                        let from = at * SECTOR_BYTES;
                        sector.copy_from_slice(&versions[any()][from..from + SECTOR_BYTES]);
                    }
                    Arc::new(mixed)
                }
            };
            self.put(number, survives);
        }
        if dice.below(2) == 0 {
            self.resize(self.stored_size);
        }
        self.store();
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file `f` in the root, its name stored.
    fn disk(lies: bool) -> (Disk, u64) {
        let mut disk = Disk::new(lies);
        let number = disk.make(ROOT, OsStr::new("f"), FileType::RegularFile, 0o600).unwrap();
        disk.sync(ROOT).unwrap();
        (disk, number)
    }

    fn after_cut(disk: &mut Disk, seed: u64) {
        disk.cut(&mut Dice::from_seed(seed));
        assert!(disk.lookup(ROOT, OsStr::new("f")).is_err(), "there is no power");
        disk.revive();
    }

    #[test]
    fn what_was_synced_survives_every_cut_and_what_was_not_only_some() {
        let (mut old, mut new, mut torn) = (0, 0, 0);
        for seed in 0..200 {
            let (mut disk, file) = disk(false);
            disk.write(file, 0, &[1; 10_000], false).unwrap();
            disk.sync(file).unwrap();
            disk.write(file, 4_096, &[2; 4_096], false).unwrap();
            after_cut(&mut disk, seed);
            let read = disk.read(file, 0, 20_000).unwrap();
            assert_eq!(read.len(), 10_000);
            assert_eq!((&read[..4_096], &read[8_192..]), (&[1; 4_096][..], &[1; 1_808][..]));
            match &read[4_096..8_192] {
                page if *page == [1; 4_096] => old += 1,
                page if *page == [2; 4_096] => new += 1,
                _ => torn += 1,
            }
        }
        assert!(old > 20 && new > 20 && torn > 10, "{old} {new} {torn}");
    }

    #[test]
    fn the_power_may_go_when_something_is_to_be_stored() {
        let kept = |seed| {
            let (mut disk, file) = disk(false);
            disk.arm(1, Dice::from_seed(seed));
            disk.write(file, 0, b"first", true).unwrap();
            disk.write(file, 5_000, b"second", false).unwrap();
            assert!(disk.sync(file).is_err() && disk.lost().is_some());
            disk.revive();
            assert_eq!(disk.read(file, 0, 5).unwrap(), b"first");
            disk.read(file, 5_000, 6).unwrap() == b"second"
        };
        let count = (0..100).filter(|&seed| kept(seed)).count();
        assert!((10..90).contains(&count), "{count}");
    }

    #[test]
    fn a_write_that_is_synced_by_itself_survives() {
        for seed in 0..50 {
            let (mut disk, file) = disk(false);
            disk.write(file, 100, b"kept", true).unwrap();
            after_cut(&mut disk, seed);
            assert_eq!(disk.read(file, 100, 4).unwrap(), b"kept");
        }
    }

    #[test]
    fn a_name_survives_with_its_directory_and_otherwise_in_order() {
        let names = |disk: &mut Disk| -> Vec<String> {
            let listed = disk.list(ROOT).unwrap();
            listed.into_iter().map(|(name, _)| name.into_string().unwrap()).collect()
        };
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let (mut disk, _) = disk(false);
            disk.make(ROOT, OsStr::new("new"), FileType::RegularFile, 0o600).unwrap();
            disk.rename((ROOT, OsStr::new("new")), (ROOT, OsStr::new("f"))).unwrap();
            after_cut(&mut disk, seed);
            seen.insert(names(&mut disk));
        }
        // The last two differ in what `f` is.
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), [vec!["f"], vec!["f", "new"]]);
    }

    #[test]
    fn a_disk_that_lies_forgets_what_was_synced() {
        let lost = (0..50).any(|seed| {
            let mut disk = Disk::new(true);
            let made = disk.make(ROOT, OsStr::new("f"), FileType::RegularFile, 0o600).unwrap();
            disk.sync(made).unwrap();
            disk.sync(ROOT).unwrap();
            after_cut(&mut disk, seed);
            disk.list(ROOT).unwrap().is_empty()
        });
        assert!(lost);
    }
}
