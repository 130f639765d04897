//! When a mount is gone from the table of mounts: a clone of it (of which the table says nothing) would
//! keep its file system, and so its session, alive.

use std::fs::File;
use std::io;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::table::mounts;

/// Returns when no mount of the device `minor` is left in this process's table of mounts.
pub(super) async fn gone(minor: u32) -> io::Result<()> {
    // The table is ready, with priority, each time it has changed since it was last asked.
    let file = File::open("/proc/self/mountinfo")?;
    #[expect(deprecated, reason = "a file keeps its descriptor for as long as it is owned")]
    let table = AsyncFd::with_interest(file, Interest::PRIORITY)?;
    loop {
        if mounts()?.iter().all(|mount| mount.device_minor != minor || !mount.is_fuse()) {
            return Ok(());
        }
        table.ready(Interest::PRIORITY).await?.clear_ready();
    }
}
