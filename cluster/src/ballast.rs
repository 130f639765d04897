//! The ballast: a file without meaning that holds room on the disk of the data directory.
//!
//! When the disk is full it is given up, so that what was admitted before can be written, and it is
//! taken again when there is room for it beside what the node wants free. And the measure of that
//! room: writes are refused before they reach the log.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

const NAME: &str = "ballast";

#[derive(Debug)]
pub(crate) struct Ballast {
    path: PathBuf,
    bytes: u64,
    is_held: AtomicBool,
}

/// Bytes that an ordinary user may still write to the file system of `path`.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let answer = nix::sys::statvfs::statvfs(path)?;
    Ok(answer.blocks_available().saturating_mul(answer.fragment_size()))
}

/// Where there is so much more room than is wanted, a measure holds for a moment.
const PLENTY_BYTES: u64 = 1 << 30;

/// Less than any disk needs to take [`PLENTY_BYTES`].
const MEASURE_HOLDS: Duration = Duration::from_millis(20);

/// The free room of a disk, for those who ask before each change.
#[derive(Debug, Default)]
pub(crate) struct FreeRoom(Mutex<Option<(Instant, u64)>>);

impl FreeRoom {
    /// Bytes that are free on the disk of `path`: measured now, or just now where there was plenty beyond
    /// `wanted`.
    pub(crate) fn bytes(&self, path: &Path, wanted: u64) -> io::Result<u64> {
        let mut last = self.0.lock();
        let enough = wanted.saturating_add(PLENTY_BYTES);
        match *last {
            Some((at, free)) if free >= enough && at.elapsed() < MEASURE_HOLDS => Ok(free),
            _ => {
                let free = free_bytes(path)?;
                *last = Some((Instant::now(), free));
                Ok(free)
            }
        }
    }
}

impl Ballast {
    pub(crate) fn new(data_dir: &Path, bytes: u64) -> Self {
        let path = data_dir.join(NAME);
        let is_held = fs::metadata(&path).is_ok_and(|found| found.len() == bytes);
        Self { path, bytes, is_held: AtomicBool::new(is_held) }
    }

    /// Takes the room if the disk has it and `beside` more; a full disk is no failure.
    pub(crate) fn take(&self, beside: u64) {
        if self.bytes == 0 || self.is_held.load(Ordering::Acquire) {
            return;
        }
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        let wanted = self.bytes.saturating_add(beside);
        if free_bytes(directory).is_ok_and(|free| free < wanted) {
            return;
        }
        match self.allocate() {
            Ok(()) => self.is_held.store(true, Ordering::Release),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "no room for the ballast");
                fs::remove_file(&self.path).ok();
            }
        }
    }

    fn allocate(&self) -> io::Result<()> {
        let file = File::create(&self.path)?;
        let bytes = i64::try_from(self.bytes).map_err(io::Error::other)?;
        nix::fcntl::posix_fallocate(&file, 0, bytes)?;
        file.sync_all()
    }

    /// Gives the room up.
    pub(crate) fn release(&self) {
        if self.is_held.swap(false, Ordering::AcqRel) {
            tracing::warn!(path = %self.path.display(), "the disk is full: the ballast is given up");
            if let Err(error) = fs::remove_file(&self.path) {
                tracing::error!(path = %self.path.display(), %error, "the ballast cannot be given up");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Ballast, free_bytes};

    #[test]
    fn the_room_is_taken_given_up_and_taken_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ballast");
        let ballast = Ballast::new(directory.path(), 1 << 20);
        ballast.take(0);
        assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 20);
        ballast.release();
        assert!(!path.exists());
        ballast.take(0);
        assert!(path.exists());
        // A restart finds it held.
        Ballast::new(directory.path(), 1 << 20).release();
        assert!(!path.exists());
    }

    #[test]
    fn a_disk_without_room_for_it_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let ballast = Ballast::new(directory.path(), 1 << 20);
        ballast.take(free_bytes(directory.path()).unwrap().saturating_add(1 << 40));
        assert!(!directory.path().join("ballast").exists());
    }
}
