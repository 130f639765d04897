//! Locks between two machines: flock through two mounts, and etcd's lock service through two clients.

use std::fs::File;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use revfs_api::wire::etcdserverpb::LeaseGrantRequest;
use revfs_api::wire::etcdserverpb::lease_client::LeaseClient;
use revfs_api::wire::v3lockpb::lock_client::LockClient;
use revfs_api::wire::v3lockpb::{LockRequest, UnlockRequest};
use revfs_tests::bounds::{Bounded, Wanted, median};
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use crate::Sides;
use crate::event::{channel_to, runtime};

const SAMPLES: usize = 300;

/// Of each of two that want the lock all the time.
const CONTENDED: u32 = 300;

/// Takes and gives back one lock, again and again.
trait Locker: Send {
    fn once(&mut self);
}

struct ByFlock(Option<File>);

impl ByFlock {
    fn new(path: &Path) -> Self {
        Self(Some(File::options().create(true).append(true).open(path).expect("a file to lock")))
    }
}

impl Locker for ByFlock {
    fn once(&mut self) {
        let file = self.0.take().expect("it is put back");
        let locked = Flock::lock(file, FlockArg::LockExclusive);
        let locked = locked.map_err(|(_, errno)| errno).expect("a lock");
        self.0 = Some(locked.unlock().map_err(|(_, errno)| errno).expect("it was held"));
    }
}

struct ByClient {
    runtime: Runtime,
    client: LockClient<Channel>,
    lease: i64,
}

impl ByClient {
    fn new(url: &str) -> Self {
        let runtime = runtime();
        let (client, lease) = runtime.block_on(async {
            let channel = channel_to(url).await;
            let mut leases = LeaseClient::new(channel.clone());
            let grant = LeaseGrantRequest { ttl: 3_600, ..Default::default() };
            let lease = leases.lease_grant(grant).await.expect("a lease").into_inner().id;
            (LockClient::new(channel), lease)
        });
        Self { runtime, client, lease }
    }
}

impl Locker for ByClient {
    fn once(&mut self) {
        let Self { runtime, client, lease } = self;
        runtime.block_on(async {
            let lock = LockRequest { name: "lock".into(), lease: *lease };
            let key = client.lock(lock).await.expect("a lock").into_inner().key;
            client.unlock(UnlockRequest { key }).await.expect("it was held");
        });
    }
}

/// The samples of two that take turns.
fn in_turn(lockers: &mut [Box<dyn Locker>; 2], samples: &mut Vec<Duration>) {
    for locker in lockers {
        let start = Instant::now();
        locker.once();
        samples.push(start.elapsed());
    }
}

/// How long each takes where both want it all the time.
fn contended(lockers: &mut [Box<dyn Locker>; 2]) -> Duration {
    let ready = Barrier::new(lockers.len() + 1);
    std::thread::scope(|threads| {
        let running = lockers.each_mut().map(|locker| {
            threads.spawn(|| {
                ready.wait();
                (0..CONTENDED).for_each(|_| locker.once());
            })
        });
        ready.wait();
        let start = Instant::now();
        for thread in running {
            thread.join().expect("it locks");
        }
        start.elapsed() / (2 * CONTENDED)
    })
}

pub(crate) fn measure(sides: &Sides) -> Vec<Bounded> {
    let of_client = |url: &str| [(); 2].map(|()| Box::new(ByClient::new(url)) as Box<dyn Locker>);
    let of_mount = sides
        .mounts
        .each_ref()
        .map(|mount| Box::new(ByFlock::new(&mount.path("locked"))) as Box<dyn Locker>);
    let mut lockers = [of_mount, of_client(&sides.etcd.endpoint()), of_client(sides.server.url())];
    let mut samples = [(); 3].map(|()| Vec::new());
    for _ in 0..SAMPLES {
        for (lockers, samples) in lockers.iter_mut().zip(&mut samples) {
            in_turn(lockers, samples);
        }
    }
    let [flock, etcd, own] = samples.map(median);
    let mut rounds = [(); 3].map(|()| Vec::new());
    for _ in 0..3 {
        for (lockers, rounds) in lockers.iter_mut().zip(&mut rounds) {
            rounds.push(contended(lockers));
        }
    }
    let [flock_contended, etcd_contended, own_contended] = rounds.map(median);
    vec![
        Bounded::times(
            "flock + unlock, two mounts in turn : lock RPC, etcd",
            flock,
            etcd,
            Wanted::Anything,
        ),
        Bounded::times("lock RPC, two clients in turn, revfs : etcd", own, etcd, Wanted::Anything),
        Bounded::times(
            "flock + unlock, two mounts at once : lock RPC, etcd",
            flock_contended,
            etcd_contended,
            Wanted::Anything,
        ),
        Bounded::times(
            "lock RPC, two clients at once, revfs : etcd",
            own_contended,
            etcd_contended,
            Wanted::Anything,
        ),
    ]
}
