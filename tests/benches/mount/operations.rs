//! The operations that are measured, the same on every subject.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use revfs_tests::synced;

use crate::Subject;
use crate::figures::{CREATE, EMPTY_CREATE, FDATASYNC, Figures};

/// Samples of a quick operation in one round.
const SAMPLES: usize = 200;

/// Samples of a very quick one: the clock must not be what is measured.
const CACHED_SAMPLES: usize = 2_000;

const LISTED_NAMES: usize = 10_000;

const CONTENT: [u8; 100] = [b'x'; 100];

fn timed<T>(operation: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    black_box(operation());
    start.elapsed()
}

pub(crate) fn measure(subject: &Subject, round: usize, original: &Path, figures: &mut Figures) {
    let dir = subject.dir.join(round.to_string());
    fs::create_dir(&dir).expect("a directory for the round");
    let mut add = |operation: &str, sample| figures.add(operation, &subject.name, sample);
    for number in 0..SAMPLES {
        let path = dir.join(number.to_string());
        add(CREATE, timed(|| create(&path)));
    }
    let listed = subject.dir.join("listed");
    if round == 0 {
        fs::create_dir(&listed).expect("a directory to list");
        for number in 0..LISTED_NAMES {
            File::create(listed.join(number.to_string())).expect("an empty file");
        }
    }
    add("readdir of 10,000", timed(|| list(&listed)));
    add("cp -a of a real tree", timed(|| copy(original, &dir.join("tree"))));
}

/// What the kernel answers from what it holds. Each sample of one subject has those of the others beside
/// it: the difference is less than what a processor's pace changes by in a second.
pub(crate) fn measure_cached(subjects: &[Subject], round: usize, figures: &mut Figures) {
    let path = |subject: &Subject| subject.dir.join(round.to_string()).join("7");
    let paths: Vec<_> = subjects.iter().map(|subject| (&subject.name, path(subject))).collect();
    let mut buffer = Vec::with_capacity(CONTENT.len());
    let mut alternate = |operation: &str, repeated: &mut dyn FnMut(&Path)| {
        for _ in 0..CACHED_SAMPLES {
            for (name, path) in &paths {
                // Once before, so that what the others left in the processor's caches costs nobody.
                repeated(path);
                figures.add(operation, name, timed(|| repeated(path)));
            }
        }
    };
    alternate("stat, cached", &mut |path| {
        black_box(fs::metadata(path).expect("stat"));
    });
    // Behind it: a close leaves work behind on the other processor.
    alternate("open + read + close, cached", &mut |path| read(path, &mut buffer));
}

fn create(path: &Path) {
    let mut file = File::create(path).expect("a new file");
    file.write_all(&CONTENT).expect("100 bytes");
}

fn read(path: &Path, buffer: &mut Vec<u8>) {
    buffer.clear();
    File::open(path).and_then(|mut file| file.read_to_end(buffer)).expect("a file of 100 bytes");
    assert_eq!(buffer.len(), CONTENT.len());
}

fn list(dir: &Path) {
    let count = fs::read_dir(dir).expect("a directory").filter_map(Result::ok).count();
    assert_eq!(count, LISTED_NAMES);
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp is there");
    assert!(status.success(), "cp -a {} {}: {status}", from.display(), to.display());
}

/// What the disk takes to keep a group of the log.
pub(crate) fn fdatasync(path: &Path, figures: &mut Figures) {
    for sample in synced::fdatasyncs(path, SAMPLES) {
        figures.add(FDATASYNC, "disk", sample);
    }
}

/// The same create on a file system that answers and does nothing.
pub(crate) fn empty_create(dir: &Path, round: usize, figures: &mut Figures) {
    for number in 0..SAMPLES {
        let path = dir.join(format!("{round}-{number}"));
        figures.add(EMPTY_CREATE, "fuse", timed(|| create(&path)));
    }
}
