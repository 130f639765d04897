//! fsx on a mount: writes, reads, maps, truncates and copies parts of one file at random, and compares each byte
//! that it reads with what it should be.
//!
//! Runs of a fixed number of operations follow each other, each with the next seed and the next of the profiles,
//! until the time is over. After each the file is read as the store has it, and after a crash at the end it is still
//! so. `REVFS_FSX_SEED=N` begins with that seed, and so with its profile; `REVFS_FSX_SECONDS=N` goes on for longer.
//! Of fsx's operations nothing is left out but those of block devices.

use std::time::{Duration, Instant};

use revfs_tests::dice::Dice;
use revfs_tests::{Mount, tools};

/// How long runs are begun, if nothing else is asked for.
const SECONDS: u64 = 45;

/// A run takes a few seconds on a quiet machine.
const LIMIT: Duration = Duration::from_secs(300);

/// A file and what is done with it.
struct Profile {
    /// The longest that the file becomes.
    file_bytes_max: u32,
    /// The longest part that an operation is about.
    part_bytes_max: u32,
    /// How often it is closed and opened, and synced, each in a hundred operations.
    commits: u32,
    operations: u32,
}

const PROFILES: [Profile; 3] = [
    // Many commits of little.
    Profile { file_bytes_max: 20_000, part_bytes_max: 5_000, commits: 10, operations: 2_000 },
    // Pages, and what lies across their ends.
    Profile { file_bytes_max: 256 * 1024, part_bytes_max: 65_536, commits: 2, operations: 4_000 },
    // Requests of the largest size, and more of them than one for a part.
    Profile { file_bytes_max: 5_000_000, part_bytes_max: 2_500_000, commits: 1, operations: 400 },
];

impl Profile {
    /// Of the seed, so that a seed says all.
    fn of(seed: u64) -> &'static Self {
        let index = seed % PROFILES.len() as u64;
        &PROFILES[usize::try_from(index).expect("there are few")]
    }

    /// No part is empty: fsx takes it for an error that room for nothing is EINVAL.
    fn configuration(&self) -> String {
        let Self { file_bytes_max, part_bytes_max, commits, .. } = self;
        format!(
            "flen = {file_bytes_max}\n[opsize]\nmin = 1\nmax = {part_bytes_max}\n\
             [weights]\nclose_open = {commits}\nfsync = {commits}\nfdatasync = {commits}\n\
             read = 15\nwrite = 15\nmapread = 10\nmapwrite = 10\ninvalidate = 3\ntruncate = 8\n\
             posix_fallocate = 5\npunch_hole = 8\nsendfile = 5\nposix_fadvise = 3\ncopy_file_range = 8\n"
        )
    }
}

fn number_in(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}; give a number")))
}

#[test]
fn every_byte_that_is_read_is_the_one_that_was_written() {
    let program = tools::installed("fsx");
    let first = number_in("REVFS_FSX_SEED").unwrap_or_else(|| Dice::new("fsx").below(1 << 32));
    let seconds = number_in("REVFS_FSX_SECONDS").unwrap_or(SECONDS);
    println!("fsx: REVFS_FSX_SEED={first} REVFS_FSX_SECONDS={seconds}");
    let mut mount = Mount::up();
    let begin = Instant::now();
    let mut seed = first;
    let mut names = Vec::new();
    while seed < first + PROFILES.len() as u64 || begin.elapsed().as_secs() < seconds {
        let name = format!("fsx-{seed}");
        let profile = Profile::of(seed);
        let file = mount.beside("fsx.toml");
        std::fs::write(&file, profile.configuration()).expect("its configuration");
        println!("fsx: REVFS_FSX_SEED={seed}, {} operations", profile.operations);
        let line = format!(
            "{} -N {} -S {seed} -P \"$SCRATCH\" -f {} {name} 2>&1",
            program.display(),
            profile.operations,
            file.display()
        );
        mount.shell().limit(LIMIT).run(&line).ok();
        mount.ok(&format!("revfs get --raw {name} | cmp - {name}"));
        // What a store of a few files and of their last history takes is enough: an hour would fill a disk.
        names.push(name);
        if names.len() > PROFILES.len() {
            mount.ok(&format!("rm {}; revfs compact @-1s", names.remove(0)));
        }
        seed += 1;
    }
    println!("fsx: {} runs in {:?}", seed - first, begin.elapsed());
    let sums = "sha256sum fsx-*";
    let before = mount.ok(sums);
    mount.crash();
    assert_eq!(mount.ok(sums), before, "after a crash");
}
