//! What is done to a cluster while clients use it: one fault after the other, each mended before the next.

use std::time::Duration;

use nix::fcntl::posix_fallocate;
use nix::sys::signal::Signal;
use nix::sys::statvfs::statvfs;
use revfs_tests::dice::Dice;
use revfs_tests::{Cluster, wait};

use super::MEMBERS;

/// How far a clock steps at most, in seconds.
const STEP_MAX: u64 = 7_200;

/// Nothing is waited for but the time.
pub(super) fn rest(time: Duration) {
    assert!(wait::ask(time, || None::<()>).is_none());
}

/// Harms one member, waits, and mends it; what was done.
pub(super) fn harm(cluster: &mut Cluster, dice: &mut Dice) -> &'static str {
    let member = u8::try_from(dice.below(u64::from(MEMBERS))).expect("few members");
    // Often the one that matters most.
    let member = if dice.below(2) == 0 { cluster.wait_for_leader() } else { member };
    let next = (member + 1) % MEMBERS;
    let pause = Duration::from_millis(500 + dice.below(2_500));
    let done = match dice.below(12) {
        0 | 1 => {
            cluster.kill(member);
            rest(pause);
            cluster.start_member(member);
            "kill"
        }
        2 => {
            cluster.signal(member, Signal::SIGSTOP);
            rest(pause);
            cluster.signal(member, Signal::SIGCONT);
            "stop"
        }
        3 | 4 => {
            step_clock(cluster, member, dice);
            "step of the clock"
        }
        5 => {
            cluster.wipe_and_rejoin(next, member, dice.below(2) == 0);
            "wiped disk"
        }
        6 => {
            fill_disk(cluster, pause);
            "full disk"
        }
        network => {
            harm_network(cluster, network, member);
            rest(pause);
            cluster.network.heal();
            "network"
        }
    };
    rest(Duration::from_millis(dice.below(1_000)));
    done
}

fn harm_network(cluster: &Cluster, kind: u64, member: u8) {
    let (network, next) = (&cluster.network, (member + 1) % MEMBERS);
    match kind {
        7 => network.isolate(member),
        8 => network.block(member, next),
        // What goes round goes round in one direction only.
        9 => (0..MEMBERS).for_each(|one| network.block(one, (one + 1) % MEMBERS)),
        10 => network.slow(member),
        _ => network.deafen(member),
    }
}

/// The clock stays off: the next step may take it back.
fn step_clock(cluster: &Cluster, member: u8, dice: &mut Dice) {
    let seconds = i64::try_from(dice.below(2 * STEP_MAX)).expect("hours");
    cluster.clocks().step(member, seconds - i64::try_from(STEP_MAX).expect("hours"));
}

/// Fills the small disk of the last member, and frees it again.
fn fill_disk(cluster: &Cluster, pause: Duration) {
    let disk = cluster.data_dir(MEMBERS - 1);
    let filler = disk.join("filler");
    let file = std::fs::File::create(&filler).expect("a file");
    let free = statvfs(&disk).expect("it is mounted");
    let bytes = free.blocks_free().saturating_mul(free.fragment_size());
    // An error says that somebody else took the last of it.
    posix_fallocate(&file, 0, i64::try_from(bytes).expect("it is small")).ok();
    rest(pause);
    std::fs::remove_file(&filler).expect("it is ours");
}
