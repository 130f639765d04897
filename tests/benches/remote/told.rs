//! What it costs a mount that others change what its kernel knows: while nobody watches, and while somebody watches
//! all of it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::kv_client::KvClient;
use revfs_tests::bounds::{Bounded, Wanted};
use revfs_tests::program::processor_time;
use revfs_tests::{Mount, wait};
use std::os::fd::AsFd;

use crate::Sides;
use crate::event::channel_to;

const NAMES: usize = 1_000;
const SECONDS: usize = 10;
/// Changes of each beat of the clock.
const AT_ONCE: usize = 10;
const BEAT: Duration = Duration::from_millis(10);
const BEATS: usize = SECONDS * 100;

/// Puts all names, a thousand a second, in the order of their numbers.
async fn change(url: &str) {
    let kv = KvClient::new(channel_to(url).await);
    let mut clock = tokio::time::interval(BEAT);
    for beat in 0..BEATS {
        clock.tick().await;
        let mut puts = tokio::task::JoinSet::new();
        for number in (0..AT_ONCE).map(|nth| (beat * AT_ONCE + nth) % NAMES) {
            let mut kv = kv.clone();
            let (key, value) = (format!("/told/{number}").into(), format!("{beat}").into());
            let put = pb::PutRequest { key, value, ..Default::default() };
            puts.spawn(async move { kv.put(put).await.map(drop) });
        }
        for put in puts.join_all().await {
            put.expect("a put is answered");
        }
    }
}

/// What the mount used of the processors while a thousand changes a second came, all of which it was told of.
fn cost(mount: &Mount, url: &str) -> Duration {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let process = u32::try_from(mount.process().as_raw()).expect("a process id");
    // The kernel knows each name.
    for entry in std::fs::read_dir(mount.path("told")).expect("a directory") {
        entry.and_then(|entry| entry.metadata()).expect("a file");
    }
    let before = processor_time(process);
    runtime.block_on(change(url));
    let cost = processor_time(process) - before;
    let status = || mount.status()["mount"].clone();
    wait::until_true("all that was to be told", wait::LIMIT, || {
        let status = status();
        status["told"] == status["floor"]
    });
    cost
}

/// Reads what a watch of the directory shows, until it is told to stop.
fn watch(dir: &Path, stop: &AtomicBool, seen: &AtomicU64) {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK).expect("inotify");
    inotify.add_watch(dir, AddWatchFlags::IN_ALL_EVENTS).expect("a watch");
    while !stop.load(Ordering::Relaxed) {
        let mut ready = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::from(100_u8)).expect("poll") == 1 {
            let modified = inotify.read_events().expect("events");
            let count =
                modified.iter().filter(|event| event.mask.contains(AddWatchFlags::IN_MODIFY));
            seen.fetch_add(count.count() as u64, Ordering::Relaxed);
        }
    }
}

pub(crate) fn measure(sides: &Sides) -> [Bounded; 3] {
    let (mount, url) = (&sides.mounts[1], sides.server.url());
    sides.mounts[0]
        .ok(&format!("mkdir told && cd told && for n in $(seq 0 {}); do : > $n; done", NAMES - 1));
    wait::until_true("all names", wait::LIMIT, || {
        std::fs::read_dir(mount.path("told")).is_ok_and(|names| names.count() == NAMES)
    });
    let raised = || mount.status()["mount"]["events_raised"].as_u64().expect("a number");
    let before = raised();
    let nobody = cost(mount, url);
    let repeated = raised() - before;
    let (stop, seen) = (AtomicBool::new(false), AtomicU64::new(0));
    let everything = std::thread::scope(|threads| {
        threads.spawn(|| watch(&mount.path("told"), &stop, &seen));
        let cost = cost(mount, url);
        stop.store(true, Ordering::Relaxed);
        cost
    });
    let seen = seen.load(Ordering::Relaxed);
    let changes = (SECONDS * 1_000) as u64;
    let what =
        "processor of a mount, 1,000 remote changes/s for 10 s: nobody watching : all watched";
    [
        Bounded::times(what, nobody, everything, Wanted::AtMost(0.2)),
        Bounded::counts("… of the changes, repeated for nobody", repeated, changes, 0.25),
        Bounded::counts("… modifications seen by who watches all", seen, changes, 1.0),
    ]
}
