//! A cluster in one thread, whose every run follows from a seed.
//!
//! ```text
//! clients ─► Raft ─► openraft ─► LogStore ─► Log (no threads)   ─► a disk as late as the dice say
//!                       │ ▲
//!                       │ └──── answers ◄── network ◄── the other members
//!                       └─► StateMachine ─► Store ─► LMDB, when the dice say
//! ```
//!
//! What is simulated is time, chance, the order of tasks ([`executor`], [`runtime`]), the network ([`network`]) and
//! when the disk has written ([`member`]). All the rest is what a node runs: log, store, state machine, the messages
//! and their encoding, copies of the store, and openraft with its real settings.

mod checks;
mod clients;
mod executor;
mod faults;
#[expect(dead_code, unreachable_pub, reason = "it is the suite's, which asks more of it")]
#[path = "../../../tests/harness/history.rs"]
mod history;
mod log;
mod member;
mod network;
mod runtime;
mod trace;
mod watch;
mod world;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use openraft::type_config::TypeConfigExt;
use tempfile::TempDir;

use self::clients::Client;
use self::executor::WORLD;
pub(super) use self::executor::is_entered;
use self::network::below;
pub(crate) use self::runtime::Runtime;
use self::trace::Trace;
use self::world::World;
use super::type_config::TypeConfig;

const SEED_VARIABLE: &str = "REVFS_SEED";

/// Runs without `REVFS_SIMULATIONS`.
const SIMULATIONS: u64 = 10;

/// So many seeds find whatever is planted.
const PLANTED_SEEDS_MAX: u64 = 60;

/// A fault in the program itself, which the simulation must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Planted {
    /// A leader that was killed leads on in its term.
    LeaderRestored,
    /// The log says that entries are flushed when they are only queued.
    FlushedBeforeItIs,
    /// A vote for a candidate is forgotten at a crash.
    VoteNotSaved,
}

/// What came of a seed.
#[derive(Debug)]
struct Ran {
    trace: String,
    violation: Option<String>,
    /// Committed ones, that anybody knew to be.
    entries: usize,
    /// Those with a leader.
    terms: usize,
    /// Of the store, for members behind the log.
    copies: u64,
}

/// In memory, if the machine has a place for that: nothing here is about the real disk.
fn directory() -> TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Runs the world of a seed to its end.
fn simulate(seed: u64, planted: Option<Planted>) -> Ran {
    let directory = directory();
    let trace = Arc::new(Trace::default());
    let told = Arc::clone(&trace);
    let path = directory.path().to_owned();
    let ran = std::panic::catch_unwind(AssertUnwindSafe(|| {
        executor::run(seed, async move { live(Arc::new(World::new(&path, told, planted))).await })
    }));
    let mut ran = ran.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
        let violation = Some(format!("panicked: {}", said.unwrap_or_default()));
        Ran { trace: String::new(), violation, entries: 0, terms: 0, copies: 0 }
    });
    ran.trace = trace.text();
    ran
}

async fn live(world: Arc<World>) -> Ran {
    for place in 0..world.members.len() {
        world.start(place).await;
    }
    let until = Duration::from_secs(4 + below(8));
    let executor = executor::here();
    for number in 0..4 {
        executor.spawn_in(WORLD, Client::new(number, Arc::clone(&world)).run(until));
    }
    executor.spawn_in(WORLD, faults::run(Arc::clone(&world), until));
    if below(2) == 0 {
        executor.spawn_in(WORLD, faults::strike_voters(Arc::clone(&world), until));
    }
    while executor.now() < until + Duration::from_secs(5) && world.checks.violation().is_none() {
        TypeConfig::sleep(Duration::from_millis(10)).await;
    }
    if world.checks.violation().is_none() {
        world.heal().await;
    }
    if world.checks.violation().is_none() {
        world.compare().await;
    }
    let mut copies = 0;
    for place in 0..world.members.len() {
        let mut member = world.members[place].lock().await;
        copies += member.copies_made();
        member.kill();
    }
    let (entries, terms) = (world.checks.entries(), world.checks.terms());
    let violation = world.checks.violation();
    Ran { trace: String::new(), violation, entries, terms, copies }
}

/// A number from the environment.
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}; give a number")))
}

/// The seeds of a run: the one that is asked for, or so many others.
fn seeds(count: u64) -> Vec<u64> {
    if let Some(seed) = number(SEED_VARIABLE) {
        return vec![seed];
    }
    let count = number("REVFS_SIMULATIONS").unwrap_or(count);
    // Numbers that people can copy.
    (0..count).map(|_| getrandom::u64().expect("the system has random numbers") >> 24).collect()
}

/// One of some seeds shows what was planted. They begin near one that does as this is written, for the sake of
/// time: a change of what seeds mean moves it.
fn is_found(planted: Planted, first: u64) {
    for seed in first..first + PLANTED_SEEDS_MAX {
        if let Some(violation) = simulate(seed, Some(planted)).violation {
            return println!("{planted:?} is found by seed {seed}: {violation}");
        }
    }
    panic!("{planted:?} is not found by {PLANTED_SEEDS_MAX} seeds");
}

#[test]
fn what_members_hold_and_clients_see_is_right_whatever_befalls_them() {
    let (mut entries, mut terms, mut copies) = (0, 0, 0);
    let seeds = seeds(SIMULATIONS);
    for &seed in &seeds {
        println!("{SEED_VARIABLE}={seed}");
        let ran = simulate(seed, None);
        if let Some(violation) = ran.violation {
            panic!("{}{SEED_VARIABLE}={seed}: {violation}", ran.trace);
        }
        entries += ran.entries;
        terms += ran.terms;
        copies += ran.copies;
    }
    let runs = seeds.len();
    println!("{runs} runs: {entries} entries, {terms} terms, {copies} copies of stores");
}

#[test]
fn a_killed_leader_that_leads_on_in_its_term_is_found() {
    is_found(Planted::LeaderRestored, 16);
}

#[test]
fn a_log_that_says_flushed_before_it_is_is_found() {
    is_found(Planted::FlushedBeforeItIs, 5);
}

#[test]
fn a_vote_that_is_not_saved_is_found() {
    is_found(Planted::VoteNotSaved, 20);
}

/// Where another process of the test below leaves its trace.
const TRACE_VARIABLE: &str = "REVFS_SIMULATION_TRACE";

#[test]
fn a_seed_gives_the_same_trace_again_in_this_process_and_in_another() {
    let own = "raft::simulation::a_seed_gives_the_same_trace_again_in_this_process_and_in_another";
    let seeds = [3, 5];
    let traces = || seeds.map(|seed| simulate(seed, None).trace).concat();
    let first = traces();
    if let Some(path) = std::env::var_os(TRACE_VARIABLE) {
        return std::fs::write(path, first).unwrap();
    }
    assert!(first.lines().count() > 100, "nothing happened: {first}");
    assert!(first == traces(), "the same seed did something else in the same process");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trace");
    let mut other = std::process::Command::new(std::env::current_exe().unwrap());
    let other = other.args(["--exact", own]).env(TRACE_VARIABLE, &path).output().unwrap();
    assert!(other.status.success(), "{other:?}");
    let other = std::fs::read_to_string(path).unwrap();
    assert!(first == other, "the same seed did something else in another process");
}
