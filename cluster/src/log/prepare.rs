//! The thread that has the next segment ready before it is needed.
//!
//! A segment is written full of zeros, so that a later flush changes data only. A full disk shows
//! here first, while the current segment still has room: the node then refuses writes before they
//! reach the log, and this thread tries until there is space again.

use std::time::Duration;

use super::LogError;
use super::queue::{Phase, Shared};
use super::segment::SPARE_TEMPORARY;

const FULL_DISK_PAUSE: Duration = Duration::from_millis(100);

/// Runs until the log is closed or fails.
pub(super) fn run(shared: &Shared) {
    while wait_until_wanted(shared) {
        match prepare(shared) {
            Ok(()) => {}
            Err(error) if error.is_no_space() => pause(shared),
            Err(error) => {
                shared.fail(&error);
                return;
            }
        }
    }
}

fn wait_until_wanted(shared: &Shared) -> bool {
    let mut inner = shared.inner.lock();
    loop {
        if inner.failed.is_some() {
            return false;
        }
        // A writer that is closing may still need a segment for what is queued.
        if inner.phase != Phase::Open && !inner.writer_waits {
            return false;
        }
        if inner.spares.is_empty() {
            return true;
        }
        shared.spares_changed.wait(&mut inner);
    }
}

pub(super) fn prepare(shared: &Shared) -> Result<(), LogError> {
    let temporary = shared.directory.join(SPARE_TEMPORARY);
    let path = shared.new_spare_path();
    let made = shared
        .disk
        .create_zeroed(&temporary, shared.options.segment_bytes)
        .and_then(|_| shared.disk.rename(&temporary, &path));
    if let Err(error) = made {
        // What was written of it takes room that the disk does not have.
        shared.disk.remove(&temporary).ok();
        return Err(error);
    }
    let mut inner = shared.inner.lock();
    inner.no_room_for_spare = false;
    inner.spares.push(path);
    shared.spares_changed.notify_all();
    Ok(())
}

fn pause(shared: &Shared) {
    let mut inner = shared.inner.lock();
    inner.no_room_for_spare = true;
    if inner.writer_waits {
        // What is queued was admitted: the ballast is kept for this.
        drop(inner);
        shared.options.on_no_space.release();
        inner = shared.inner.lock();
    }
    shared.spares_changed.notify_all();
    if inner.phase == Phase::Open {
        shared.spares_changed.wait_for(&mut inner, FULL_DISK_PAUSE);
    }
}
