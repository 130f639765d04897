//! The same random operations on a mount and on tmpfs, by the same process: each must have the same outcome, and after
//! each step both must show the same tree, the same bytes, and the same of what is open.
//!
//! Left out is what differs by design: hard links, access times, the link counts and sizes of directories, times that
//! nobody has set, and O_TRUNC without writing. `REVFS_SEED=N` repeats a run, `REVFS_STEPS=N` makes it longer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, FallocateFlags, RenameFlags, fallocate, renameat2};
use revfs_tests::Mount;
use revfs_tests::dice::Dice;
use tempfile::TempDir;

/// Half a minute on a quiet machine.
const STEPS: u64 = 3_000;

/// Files that are open at once.
const OPEN_MAX: u64 = 5;

/// No part of a file lies further out.
const SIZE_MAX: u64 = 9_000;

/// What an operation said: what it read, or its errno.
type Outcome = Result<Vec<u8>, i32>;

#[derive(Clone, Debug)]
enum Step {
    Open { path: String, flags: i32 },
    Close(usize),
    Sync(usize),
    Write { file: usize, offset: u64, bytes: Vec<u8> },
    Read { file: usize, offset: u64, length: usize },
    Resize { file: usize, size: u64 },
    Allocate { file: usize, flags: FallocateFlags, offset: u64, length: u64 },
    Truncate { path: String, size: u64 },
    Chmod { path: String, mode: u32 },
    Unlink(String),
    MakeDirectory(String),
    RemoveDirectory(String),
    Link { path: String, target: String },
    Rename { from: String, to: String, flags: RenameFlags },
}

/// One of the two file systems.
struct Side {
    root: PathBuf,
    open: Vec<File>,
}

fn outcome<T>(result: io::Result<T>) -> Outcome {
    result.map(|_| Vec::new()).map_err(|error| error.raw_os_error().unwrap_or(-1))
}

impl Side {
    fn apply(&mut self, step: &Step) -> Outcome {
        let at = |path: &str| self.root.join(path);
        match step {
            Step::Open { path, flags } => {
                let access = flags & libc::O_ACCMODE;
                let mut options = OpenOptions::new();
                options.read(access != libc::O_WRONLY).write(access != libc::O_RDONLY);
                let opened =
                    options.custom_flags(flags & !libc::O_ACCMODE).mode(0o640).open(at(path));
                match opened {
                    Ok(file) if file.metadata().is_ok_and(|metadata| metadata.is_file()) => {
                        self.open.push(file);
                        Ok(Vec::new())
                    }
                    Ok(_) => Ok(b"a directory".to_vec()),
                    Err(error) => outcome::<()>(Err(error)),
                }
            }
            Step::Close(file) => {
                drop(self.open.remove(*file));
                Ok(Vec::new())
            }
            Step::Sync(file) => outcome(self.open[*file].sync_all()),
            Step::Write { file, offset, bytes } => {
                outcome(self.open[*file].write_all_at(bytes, *offset))
            }
            Step::Read { file, offset, length } => {
                let mut bytes = vec![0; *length];
                let count = self.open[*file].read_at(&mut bytes, *offset);
                count
                    .map(|count| bytes[..count].to_vec())
                    .map_err(|error| error.raw_os_error().unwrap_or(-1))
            }
            Step::Resize { file, size } => outcome(self.open[*file].set_len(*size)),
            Step::Allocate { file, flags, offset, length } => {
                let (offset, length) = (offset.cast_signed(), length.cast_signed());
                let done = fallocate(self.open[*file].as_fd(), *flags, offset, length);
                done.map(|()| Vec::new()).map_err(|errno| errno as i32)
            }
            Step::Truncate { path, size } => {
                let done = nix::unistd::truncate(&at(path), size.cast_signed());
                done.map(|()| Vec::new()).map_err(|errno| errno as i32)
            }
            Step::Chmod { path, mode } => {
                outcome(fs::set_permissions(at(path), fs::Permissions::from_mode(*mode)))
            }
            Step::Unlink(path) => outcome(fs::remove_file(at(path))),
            Step::MakeDirectory(path) => outcome(fs::create_dir(at(path))),
            Step::RemoveDirectory(path) => outcome(fs::remove_dir(at(path))),
            Step::Link { path, target } => outcome(std::os::unix::fs::symlink(target, at(path))),
            Step::Rename { from, to, flags } => {
                let done = renameat2(AT_FDCWD, &at(from), AT_FDCWD, &at(to), *flags);
                done.map(|()| Vec::new()).map_err(|errno| errno as i32)
            }
        }
    }

    /// Every name with what it is, and each open file.
    fn shown(&self) -> BTreeMap<String, String> {
        let mut shown = BTreeMap::new();
        list(&self.root, Path::new(""), &mut shown);
        for (index, file) in self.open.iter().enumerate() {
            let metadata = file.metadata().expect("an open file has attributes");
            let (size, links, mode) = (metadata.len(), metadata.nlink(), metadata.mode());
            shown.insert(format!("open {index}"), format!("{size} bytes, {links} links, {mode:o}"));
        }
        shown
    }
}

fn list(root: &Path, inner: &Path, shown: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(root.join(inner)).expect("a directory is listed") {
        let name = inner.join(entry.expect("an entry").file_name());
        let path = root.join(&name);
        let metadata = path.symlink_metadata().expect("what is listed is there");
        let mode = metadata.mode();
        let what = if metadata.is_symlink() {
            format!("link to {}", fs::read_link(&path).expect("its target").display())
        } else if metadata.is_dir() {
            format!("directory {mode:o}")
        } else {
            let bytes = fs::read(&path).expect("read");
            format!("file {mode:o}, {} bytes: {}", metadata.len(), bytes.escape_ascii())
        };
        shown.insert(name.display().to_string(), what);
        if metadata.is_dir() {
            list(root, &name, shown);
        }
    }
}

fn one_of<T: Clone>(dice: &mut Dice, all: &[T]) -> T {
    let index = dice.below(all.len() as u64);
    all[usize::try_from(index).expect("there are few")].clone()
}

fn path(dice: &mut Dice) -> String {
    let depth = 1 + dice.below(3);
    (0..depth).map(|_| one_of(dice, &["a", "b", "c.d"])).collect::<Vec<_>>().join("/")
}

/// A step; `open` files are there to be used.
fn step(dice: &mut Dice, open: usize) -> Step {
    let with_file = open > 0 && dice.below(2) == 0;
    if !with_file {
        return step_of_names(dice, open);
    }
    let file = usize::try_from(dice.below(open as u64)).expect("few are open");
    let (offset, length) = (dice.below(SIZE_MAX / 2), 1 + dice.below(SIZE_MAX / 2));
    match dice.below(8) {
        0 => Step::Close(file),
        1 => Step::Sync(file),
        2 | 3 => {
            let letter = b'a' + u8::try_from(dice.below(26)).expect("a letter");
            let length = usize::try_from(1 + dice.below(length)).expect("it is short");
            Step::Write { file, offset, bytes: vec![letter; length] }
        }
        4 | 5 => Step::Read { file, offset, length: usize::try_from(length).expect("it is short") },
        6 => Step::Resize { file, size: dice.below(SIZE_MAX) },
        _ => {
            let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | keep;
            let flags = one_of(dice, &[hole, hole, FallocateFlags::empty()]);
            Step::Allocate { file, flags, offset, length }
        }
    }
}

fn step_of_names(dice: &mut Dice, open: usize) -> Step {
    let path = path(dice);
    match dice.below(16) {
        0..5 if (open as u64) < OPEN_MAX => {
            let flags = [
                libc::O_RDONLY,
                libc::O_RDWR,
                libc::O_RDWR | libc::O_CREAT,
                libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC,
                libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
                libc::O_WRONLY | libc::O_APPEND | libc::O_CREAT,
            ];
            Step::Open { path, flags: one_of(dice, &flags) }
        }
        0..6 => Step::Unlink(path),
        6 => Step::RemoveDirectory(path),
        7 | 8 => Step::MakeDirectory(path),
        9 => {
            Step::Link { path, target: one_of(dice, &["a", "b", "../a", "a/b", "none"]).to_owned() }
        }
        10 => Step::Truncate { path, size: dice.below(SIZE_MAX) },
        11 => Step::Chmod { path, mode: one_of(dice, &[0o600, 0o644, 0o755, 0o4711, 0o700]) },
        _ => {
            let flags = [
                RenameFlags::empty(),
                RenameFlags::empty(),
                RenameFlags::RENAME_NOREPLACE,
                RenameFlags::RENAME_EXCHANGE,
            ];
            Step::Rename { from: path, to: self::path(dice), flags: one_of(dice, &flags) }
        }
    }
}

#[test]
fn a_mount_does_what_tmpfs_does() {
    let mut dice = Dice::new("beside_tmpfs");
    let steps = std::env::var("REVFS_STEPS").map_or(STEPS, |text| text.parse().expect("a number"));
    let mount = Mount::up();
    let memory = TempDir::with_prefix_in("revfs-test-", "/dev/shm").expect("a place on tmpfs");
    // Deep enough for links that lead upwards.
    let mut sides = [mount.dir(), memory.path()].map(|top| {
        let root = top.join("deep/deeper");
        fs::create_dir_all(&root).expect("directories");
        Side { root, open: Vec::new() }
    });
    let mut recent = Vec::new();
    let mut succeeded = 0;
    for number in 0..steps {
        let step = step(&mut dice, sides[0].open.len());
        recent.push(format!("{number}: {step:?}").chars().take(200).collect::<String>());
        let before = recent.len().saturating_sub(12);
        let last = || recent[before..].join("\n");
        let done = sides.each_mut().map(|side| side.apply(&step));
        assert_eq!(done[0], done[1], "the mount, then tmpfs, after\n{}", last());
        succeeded += u64::from(done[0].is_ok());
        let differences = differences(&sides);
        assert!(differences.is_empty(), "{differences:?}\nafter\n{}", last());
    }
    assert!(succeeded > steps / 4, "only {succeeded} of {steps} steps did anything");
}

/// What the two show otherwise than each other.
fn differences(sides: &[Side; 2]) -> Vec<String> {
    let [mount, memory] = sides.each_ref().map(Side::shown);
    let names: BTreeSet<&String> = mount.keys().chain(memory.keys()).collect();
    let other = names.into_iter().filter(|name| mount.get(*name) != memory.get(*name));
    other
        .map(|name| format!("{name}: {:?}, tmpfs {:?}", mount.get(name), memory.get(name)))
        .collect()
}

#[test]
fn a_difference_would_be_found() {
    let tops = [(); 2].map(|()| TempDir::new().expect("a temporary directory"));
    let mut sides =
        tops.each_ref().map(|top| Side { root: top.path().to_owned(), open: Vec::new() });
    let flags = libc::O_RDWR | libc::O_CREAT;
    let both = [
        Step::Open { path: "a".to_owned(), flags },
        Step::Write { file: 0, offset: 2, bytes: b"xy".to_vec() },
    ];
    for step in &both {
        let done = sides.each_mut().map(|side| side.apply(step));
        assert_eq!(done, [Ok(Vec::new()), Ok(Vec::new())]);
    }
    assert_eq!(differences(&sides), Vec::<String>::new());
    for (step, found) in [
        (Step::Write { file: 0, offset: 3, bytes: b"z".to_vec() }, 1),
        (Step::Chmod { path: "a".to_owned(), mode: 0o600 }, 2),
        (Step::MakeDirectory("b".to_owned()), 3),
    ] {
        assert_eq!(sides[0].apply(&step), Ok(Vec::new()));
        assert_eq!(differences(&sides).len(), found, "{step:?}");
    }
    let none = Step::RemoveDirectory("b".to_owned());
    assert_eq!(sides[1].apply(&none), Err(libc::ENOENT));
}
