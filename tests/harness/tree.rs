//! A real tree of this machine, and listings that compare.
//!
//! The tree is /etc with its links, modes and owners, and as much of /usr/share/doc as makes
//! [`ENTRIES_MIN`] entries. What a key-value store of files does not hold (sockets, fifos, devices,
//! files over the limit of a value) is left out by type and size, and counted.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::{Shell, tools};

pub const ENTRIES_MIN: usize = 3_000;

/// What a real tree was made of.
#[derive(Debug)]
pub struct RealTree {
    pub entries: usize,
    pub left_out: usize,
}

/// Copies the real tree to `target/etc` and `target/doc`.
///
/// # Panics
/// If this machine has no such tree.
#[must_use]
pub fn copy_real_tree(target: &Path) -> RealTree {
    tools::need(&["cp", "tar", "find"]);
    fs::create_dir_all(target).expect("a directory for the real tree");
    let mut chosen = Chosen::default();
    chosen.add("etc", Path::new("/etc"), usize::MAX);
    let doc = Path::new("/usr/share/doc");
    for package in sorted_entries(doc) {
        let room = (ENTRIES_MIN + 100).saturating_sub(chosen.names.len());
        if room == 0 {
            break;
        }
        let name = Path::new("usr/share/doc").join(package.file_name().expect("an entry's name"));
        chosen.add(&name.to_string_lossy(), &package, room);
    }
    assert!(chosen.names.len() >= ENTRIES_MIN, "only {} entries here", chosen.names.len());
    let list = target.with_extension("list");
    let mut text = Vec::new();
    for name in &chosen.names {
        text.extend_from_slice(name.as_os_str().as_bytes());
        text.push(0);
    }
    fs::write(&list, text).expect("the list of the real tree");
    let line = format!(
        "tar -C / --no-recursion --null -T {} -cf - | tar -C {} -xpf -",
        list.display(),
        target.display()
    );
    Shell::new(Path::new("/")).run(&line).ok();
    fs::remove_file(&list).expect("our own list");
    RealTree { entries: chosen.names.len(), left_out: chosen.left_out }
}

/// Names relative to /, parents before children.
#[derive(Default)]
struct Chosen {
    names: Vec<PathBuf>,
    left_out: usize,
}

impl Chosen {
    fn add(&mut self, name: &str, path: &Path, room: usize) {
        let end = self.names.len().saturating_add(room);
        self.walk(PathBuf::from(name), path, end);
    }

    fn walk(&mut self, name: PathBuf, path: &Path, end: usize) {
        /// The largest value of a key.
        const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
        if self.names.len() >= end {
            return;
        }
        let Ok(metadata) = path.symlink_metadata() else {
            self.left_out += 1;
            return;
        };
        let kind = metadata.file_type();
        let odd = kind.is_socket() || kind.is_fifo() || kind.is_block_device();
        if odd || kind.is_char_device() || (kind.is_file() && metadata.len() > FILE_BYTES_MAX) {
            self.left_out += 1;
            return;
        }
        self.names.push(name.clone());
        if kind.is_dir() {
            for child in sorted_entries(path) {
                let child_name = name.join(child.file_name().expect("an entry's name"));
                self.walk(child_name, &child, end);
            }
        }
    }
}

fn sorted_entries(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.expect("an entry of a directory").path())
        .collect();
    paths.sort();
    paths
}

/// What two listings compare of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub kind: char,
    pub mode: u32,
    pub owner: (u32, u32),
    /// Of files: size; of links: their target.
    pub content: OsString,
    /// Seconds and nanoseconds.
    pub mtime: (i64, i64),
}

pub type Listing = BTreeMap<PathBuf, Entry>;

/// Everything below `root`: type, mode, owner, mtime, size or link target.
///
/// # Panics
/// If something cannot be looked at.
#[must_use]
pub fn list(root: &Path) -> Listing {
    let mut listing = Listing::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        for path in sorted_entries(&root.join(&dir)) {
            let name = dir.join(path.file_name().expect("an entry's name"));
            let entry = look_at(&path);
            if entry.kind == 'd' {
                todo.push(name.clone());
            }
            listing.insert(name, entry);
        }
    }
    listing
}

fn look_at(path: &Path) -> Entry {
    let metadata =
        path.symlink_metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let kind = metadata.file_type();
    let (letter, content) = if kind.is_symlink() {
        ('l', fs::read_link(path).expect("a link has a target").into_os_string())
    } else if kind.is_dir() {
        ('d', OsString::new())
    } else {
        ('f', OsString::from_vec(metadata.len().to_string().into_bytes()))
    };
    Entry {
        kind: letter,
        mode: metadata.mode() & 0o7777,
        owner: (metadata.uid(), metadata.gid()),
        content,
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
    }
}

/// What the past shows of a listing at most, and at least: the owner's bits. What group and others may
/// depends on today's modes, and on whether the path still exists.
#[must_use]
pub fn as_past(mut listing: Listing) -> Listing {
    for entry in listing.values_mut().filter(|entry| entry.kind != 'l') {
        entry.mode &= 0o700;
    }
    listing
}

/// Fails if anything in `found` allows more than in `expected`.
///
/// # Panics
/// If something does.
pub fn assert_allows_no_more(what: &str, expected: &Listing, found: &Listing) {
    for (name, entry) in found {
        let then = expected.get(name).map_or(0, |then| then.mode);
        let more = entry.mode & !then;
        assert!(more == 0, "{what}: {} allows {more:o} more than {then:o}", name.display());
    }
}

/// Fails with the first differences, in words, unless both are equal.
///
/// # Panics
/// If they differ.
pub fn assert_equal(what: &str, expected: &Listing, found: &Listing) {
    const SHOWN_MAX: usize = 20;
    let mut differences = Vec::new();
    for (name, entry) in expected {
        match found.get(name) {
            None => differences.push(format!("{} is missing", name.display())),
            Some(other) if other != entry => {
                differences.push(format!("{}: {entry:?} became {other:?}", name.display()));
            }
            Some(_) => {}
        }
    }
    let extra = found.keys().filter(|name| !expected.contains_key(*name));
    differences.extend(extra.map(|name| format!("{} is new", name.display())));
    let count = differences.len();
    differences.truncate(SHOWN_MAX);
    assert!(count == 0, "{what}: {count} differences:\n{}", differences.join("\n"));
}
