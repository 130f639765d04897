//! Figures of a mount beside the disk's file system and tmpfs, in one run on one machine.
//!
//!     cargo bench -p revfs-tests --bench mount            a table
//!     cargo bench -p revfs-tests --bench mount -- --json  one JSON document
//!     … -- --bounded                                      only the lines with a bound
//!     … -- --bounded --quick                              … that take seconds
//!
//! Each round measures every subject once, in turn, so that a slow minute of the machine hits all of
//! them; a figure is the median of its samples over all rounds. What a create must cost at least is
//! measured beside it: one fdatasync of a file allocated in advance (the log's), and five round trips
//! to a FUSE file system that does nothing.

#[path = "mount/bounded.rs"]
mod bounded;
#[path = "mount/empty_handler.rs"]
mod empty_handler;
#[path = "mount/figures.rs"]
mod figures;
#[path = "mount/operations.rs"]
mod operations;
#[path = "mount/readers.rs"]
mod readers;

use std::path::{Path, PathBuf};
use std::process::Command;

use revfs_tests::{Mount, bounds, tree};
use tempfile::TempDir;

use figures::Figures;

/// Rounds over all subjects.
const ROUNDS: usize = 5;

/// One directory that is measured.
struct Subject {
    name: String,
    dir: PathBuf,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, dir] = arguments.as_slice()
        && flag == empty_handler::FLAG
    {
        return empty_handler::run(Path::new(dir));
    }
    if let [flag, kind, dir] = arguments.as_slice()
        && flag == readers::FLAG
    {
        return readers::run(kind, Path::new(dir));
    }
    let says = |flag: &str| arguments.iter().any(|argument| argument == flag);
    bench(says("--json"), says("--bounded"), says("--quick"));
}

fn bench(json: bool, only_bounded: bool, quick: bool) {
    let disk = TempDir::with_prefix_in("revfs-bench-", disk_dir()).expect("a place on the disk");
    let memory = TempDir::with_prefix_in("revfs-bench-", "/dev/shm").expect("a place on tmpfs");
    let mut mount = Mount::up_with(|place| place.data = disk.path().join("data"));
    let empty = empty_handler::start(&memory.path().join("empty"));
    let subject = |name: &str, dir: PathBuf| {
        std::fs::create_dir_all(&dir).expect("a directory to measure in");
        Subject { name: name.to_owned(), dir }
    };
    let dir = mount.path("bench");
    let beside = |root: &Path| as_deep_as(&dir, root);
    let subjects = [
        subject("revfs", dir.clone()),
        subject(&file_system(disk.path()), beside(disk.path())),
        subject("tmpfs", beside(memory.path())),
    ];
    let original = disk.path().join("original");
    let real = tree::copy_real_tree(&original);
    let mut figures = Figures::default();
    let rounds = if quick { 1 } else { ROUNDS };
    for round in 0..rounds {
        eprintln!("round {} of {rounds}", round + 1);
        if !only_bounded {
            for subject in &subjects {
                operations::measure(subject, round, &original, &mut figures);
            }
            operations::measure_cached(&subjects, round, &mut figures);
        }
        operations::fdatasync(&disk.path().join("synced"), &mut figures);
        operations::empty_create(empty.dir(), round, &mut figures);
    }
    let header = format!(
        "disk: {} ({}); tree: {} entries; {rounds} rounds; {} processors",
        disk.path().display(),
        file_system(disk.path()),
        real.entries,
        std::thread::available_parallelism().map_or(0, usize::from),
    );
    eprintln!("figures with a bound");
    let memory = &subjects[2].dir;
    let beside = bounded::Beside { ours: &dir, memory, empty: empty.dir() };
    let lines = bounded::measure(&mut mount, &beside, &figures, quick);
    if json {
        let mut document = figures.json(&header);
        document["bounded"] = bounds::json(&lines);
        println!("{document}");
    } else {
        println!("{}", figures.table(&header, &subjects.map(|subject| subject.name)));
        print!("{}", bounds::table("beside it", &lines));
    }
}

/// A directory of the disk: TMPDIR if it is set, else /var/tmp.
fn disk_dir() -> PathBuf {
    std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}

/// A directory in `root` with as many above it as `other` has: each costs a look at every operation.
fn as_deep_as(other: &Path, root: &Path) -> PathBuf {
    let missing = other.components().count().saturating_sub(root.components().count());
    root.join(["d"].repeat(missing.max(1)).join("/"))
}

/// The type of the file system that holds `dir`, as the kernel's table names it.
fn file_system(dir: &Path) -> String {
    let output = Command::new("findmnt")
        .args(["-n", "-o", "FSTYPE", "--target"])
        .arg(dir)
        .output()
        .expect("findmnt is there: apt-get install -y util-linux");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
