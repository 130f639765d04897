//! What is read through a mount, listed and copied into it, beside what it must cost at least.

use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use revfs_tests::bounds::{Bounded, Wanted, median};
use revfs_tests::{Mount, mount::Asked};

use crate::empty_handler::{self, FILE_BYTES};
use crate::figures::{EMPTY_CREATE, EMPTY_ROUND_TRIPS, FDATASYNC, Figures};
use crate::readers;

/// Samples of what takes less than the clock shows, and how often each repeats it.
const SAMPLES: usize = 400;
const PREADS: u32 = 1_000;
const OPENS: u32 = 25;

const LISTED_NAMES: usize = 10_000;
const LISTINGS: usize = 5;
/// Of a first `ls -l`: a page of the listing holds the attributes of a hundred names and more.
const LISTING_REQUESTS_MAX: u64 = 100;

const COPIED_FILES: usize = 5_000;
const COMMITS_MAX: f64 = 4.0;

/// Directories of the same depth.
pub(crate) struct Beside<'a> {
    pub(crate) ours: &'a Path,
    pub(crate) memory: &'a Path,
    pub(crate) empty: &'a Path,
}

/// All of them, or those that take seconds.
pub(crate) fn measure(
    mount: &mut Mount,
    beside: &Beside<'_>,
    figures: &Figures,
    quick: bool,
) -> Vec<Bounded> {
    let mut lines = vec![preads(beside), opens(beside)];
    lines.push(readers::first_reads(mount, beside.ours, figures));
    lines.extend(readers::measure(beside.ours));
    if !quick {
        lines.extend(listings(mount, beside));
        lines.extend(copies(mount, beside, figures));
    }
    lines
}

/// The time of one, where so many take `total`.
fn repeated(times: u32, mut operation: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..times {
        operation();
    }
    start.elapsed() / times
}

/// Samples of both in turn; their medians.
fn in_turn(times: u32, mut one: impl FnMut(), mut other: impl FnMut()) -> (Duration, Duration) {
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        ones.push(repeated(times, &mut one));
        others.push(repeated(times, &mut other));
    }
    (median(ones), median(others))
}

fn preads(beside: &Beside<'_>) -> Bounded {
    let open = |dir: &Path| {
        let path = dir.join("pread");
        fs::write(&path, [b'x'; FILE_BYTES]).expect("a small file");
        File::open(path).expect("it is there")
    };
    let read = |file: &File| {
        let mut buffer = [0; FILE_BYTES];
        file.read_exact_at(&mut buffer, 0).expect("it is whole");
        black_box(buffer);
    };
    let (ours, theirs) = (open(beside.ours), open(beside.memory));
    let (ours, theirs) = in_turn(PREADS, || read(&ours), || read(&theirs));
    Bounded::times("pread of 256 B of an open file : tmpfs", ours, theirs, Wanted::AtMost(1.3))
}

fn opens(beside: &Beside<'_>) -> Bounded {
    let read = |path: &Path| {
        let mut buffer = [0; FILE_BYTES];
        let file = File::open(path).expect("it is there");
        file.read_exact_at(&mut buffer, 0).expect("it is whole");
        black_box(buffer);
    };
    let (ours, theirs) = (beside.ours.join("pread"), beside.empty.join(empty_handler::FILE));
    let (ours, theirs) = in_turn(OPENS, || read(&ours), || read(&theirs));
    let what = "open + read 256 B + close, cached : empty handler";
    Bounded::times(what, ours, theirs, Wanted::AtMost(1.15))
}

fn run(command: &mut Command) -> Duration {
    let start = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let took = start.elapsed();
    assert!(status.is_ok_and(|status| status.success()), "{command:?}");
    took
}

/// The mount is begun anew before each, so that the kernel knows no name.
fn listings(mount: &mut Mount, beside: &Beside<'_>) -> [Bounded; 3] {
    for dir in [beside.ours, beside.memory] {
        let dir = dir.join("long");
        fs::create_dir(&dir).expect("a directory to list");
        for number in 0..LISTED_NAMES {
            File::create(dir.join(number.to_string())).expect("an empty file");
        }
    }
    let list = |dir: &Path| run(Command::new("ls").arg("-l").arg(dir.join("long")));
    let (mut ours, mut theirs, mut asked) = (Vec::new(), Vec::new(), Asked::default());
    for _ in 0..LISTINGS {
        mount.stop();
        mount.start();
        let before = mount.asked();
        ours.push(list(beside.ours));
        asked = mount.asked().since(&before);
        theirs.push(list(beside.memory));
    }
    let (xattrs, all) = (asked.of("xattr"), asked.requests());
    let (names, files) = ("first ls -l of 10,000 files", "10,000");
    [
        Bounded::times(
            &format!("{names} : tmpfs"),
            median(ours),
            median(theirs),
            Wanted::AtMost(8.0),
        ),
        Bounded::counts(
            &format!("{names}: requests besides GETXATTR, of {LISTING_REQUESTS_MAX}"),
            all - xattrs,
            LISTING_REQUESTS_MAX,
            1.0,
        ),
        Bounded::counts(&format!("… GETXATTR, of {files} files"), xattrs, 10_000, 2.0),
    ]
}

fn copies(mount: &Mount, beside: &Beside<'_>, figures: &Figures) -> [Bounded; 2] {
    let source = beside.memory.join("original");
    fs::create_dir(&source).expect("a directory to copy");
    for number in 0..COPIED_FILES {
        let content = vec![b'x'; 100 + number % 900];
        fs::write(source.join(number.to_string()), content).expect("a small file");
    }
    let before = mount.asked();
    let mut rsync = Command::new("rsync");
    let took = run(rsync.arg("-a").arg(&source).arg(beside.ours));
    let asked = mount.asked().since(&before);
    let (commits, requests) = (asked.of("commit"), asked.requests());
    let fdatasync = figures.median(FDATASYNC, "disk").expect("it was measured");
    let request = figures.median(EMPTY_CREATE, "fuse").expect("so was it") / EMPTY_ROUND_TRIPS;
    let times = |count: u64, each: Duration| each * u32::try_from(count).expect("not so many");
    let least = times(commits, fdatasync) + times(requests, request);
    [
        Bounded::counts("rsync -a of 5,000 files: commits of each", commits, 5_001, COMMITS_MAX),
        Bounded::times(
            &format!("… : {commits} fdatasync + {requests} empty requests"),
            took,
            least,
            Wanted::AtMost(1.5),
        ),
    ]
}
