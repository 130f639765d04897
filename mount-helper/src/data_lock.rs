//! The lock by which one process at a time holds a data directory.

use std::fs::{File, TryLockError};
use std::path::Path;

/// In the data directory; the running process has it locked exclusively.
pub(crate) const LOCK_FILE: &str = "revfs.lock";

/// Whether some process holds the lock of a data directory; `false` if it cannot be told.
pub(crate) fn is_held(path: &Path) -> bool {
    let Ok(lock) = File::open(path.join(LOCK_FILE)) else { return false };
    matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_held_while_its_lock_is() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_held(directory.path()));
        let lock = File::create(directory.path().join(LOCK_FILE)).unwrap();
        assert!(!is_held(directory.path()));
        lock.lock().unwrap();
        assert!(is_held(directory.path()));
        drop(lock);
        assert!(!is_held(directory.path()));
    }
}
