//! What requests that wait do to the others of a mount: `cargo bench -p revfs-tests --bench blocked`.
//!
//! The same looks at names that the kernel does not know yet, so that each is a request, alone and beside 64 requests
//! that are blocked: half of them read `@watch` while nothing changes, half wait for a lock. In turn, round
//! by round; printed are the medians, the 99th percentiles over all rounds, and their ratios.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use revfs_tests::bounds::Wanted;
use revfs_tests::shell::Running;
use revfs_tests::{Mount, wait};

const ROUNDS: usize = 5;
const LOOKS: usize = 4_000;
/// Of each of both kinds.
const WAITING: usize = 32;
/// Of the 99th percentile.
const RATIO_MAX: f64 = 2.0;

fn main() {
    let mount = Mount::up();
    mount.ok("mkdir empty watched && : > locked");
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        looks(&mount, &format!("{round}-alone"), &mut alone);
        let blocked = block(&mount);
        looks(&mount, &format!("{round}-beside"), &mut beside);
        assert_eq!(waiting(&mount), 2 * WAITING, "they wait still");
        drop(blocked);
        wait::until_true("all are gone", wait::LIMIT, || waiting(&mount) == 0);
    }
    println!(
        "| a look at an unknown name | median | 99 % | wanted | met |\n| --- | --- | --- | --- | --- |"
    );
    let (alone, beside) = (show("alone", &mut alone), show("beside 64 blocked", &mut beside));
    let ratio = |of: usize| beside[of].as_secs_f64() / alone[of].as_secs_f64();
    let wanted = Wanted::AtMost(RATIO_MAX).cells(ratio(1));
    println!("| ratio, beside 64 blocked : alone | {:.2} | {:.2} | {wanted} |", ratio(0), ratio(1));
}

/// Looks at names that are not there.
fn looks(mount: &Mount, names: &str, samples: &mut Vec<Duration>) {
    for number in 0..LOOKS {
        let path = mount.path(&format!("empty/{names}-{number}"));
        let start = Instant::now();
        let found = fs::symlink_metadata(&path);
        samples.push(start.elapsed());
        assert!(found.is_err(), "{} is not there", path.display());
    }
}

/// Programs that wait, until they are dropped.
fn block(mount: &Mount) -> Vec<Running> {
    let holder = mount.shell().start("flock locked -c 'echo held; exec sleep 1000'");
    wait::until_true("the lock", wait::LIMIT, || holder.stdout().contains("held"));
    let lines = ["exec cat watched/@watch", "exec flock locked true"];
    let blocked = lines.iter().cycle().take(2 * WAITING).map(|line| mount.shell().start(line));
    // They go before the one that they wait for.
    let blocked: Vec<Running> = blocked.chain([holder]).collect();
    wait::until_true("64 requests that wait", wait::LIMIT, || waiting(mount) == 2 * WAITING);
    blocked
}

/// Requests that the kernel has sent to the mount and has no answer to.
fn waiting(mount: &Mount) -> usize {
    let device = fs::metadata(mount.path("")).expect("the mount").dev();
    let path = format!("/sys/fs/fuse/connections/{}/waiting", libc::minor(device));
    let count = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    count.trim().parse().expect("a number")
}

fn show(name: &str, samples: &mut [Duration]) -> [Duration; 2] {
    samples.sort_unstable();
    let at = |hundredths: usize| samples[samples.len() * hundredths / 100];
    let figures = [at(50), at(99)];
    println!("| {name} | {:.1?} | {:.1?} |  |  |", figures[0], figures[1]);
    figures
}
