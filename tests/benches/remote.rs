//! What one mount learns of another, and locks between two, beside etcd on the same machine.
//!
//!     cargo bench -p revfs-tests --bench remote            a table, about two minutes
//!     cargo bench -p revfs-tests --bench remote -- --json  one JSON document
//!
//! One server of each kind, on data directories of the same disk, both running all the time; two mounts of
//! revfs, two clients of etcd. Samples are taken in turn; times are medians of all.

#[path = "remote/event.rs"]
mod event;
#[path = "remote/locking.rs"]
mod locking;
#[path = "remote/told.rs"]
mod told;

use revfs_tests::{Etcd, Mount, Server, bounds, wait};

/// Two mounts of one server, beside an etcd.
pub(crate) struct Sides {
    pub(crate) etcd: Etcd,
    pub(crate) server: Server,
    pub(crate) mounts: [Mount; 2],
}

fn main() {
    let json = std::env::args().any(|argument| argument == "--json");
    let (etcd, server) = (Etcd::start(), Server::start(&[]));
    let mounts = [(); 2].map(|()| Mount::of(server.url(), &[]));
    for mount in &mounts {
        wait::until_true("events", wait::LIMIT, || mount.status()["mount"]["events"] == "full");
    }
    let sides = Sides { etcd, server, mounts };
    let mut lines = Vec::from(event::measure(&sides));
    lines.extend(told::measure(&sides));
    lines.extend(locking::measure(&sides));
    if json {
        println!("{}", bounds::json(&lines));
    } else {
        print!("{}", bounds::table("beside it", &lines));
    }
}
