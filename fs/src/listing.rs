//! A directory handle: the listing that `opendir` fixed, so that cookies are positions in it.

use parking_lot::Mutex;

/// An open directory. Offset 0 takes a new listing; later offsets are positions in it.
#[derive(Debug, Default)]
pub struct DirectoryHandle {
    pub entries: Mutex<Vec<crate::filesystem::Found>>,
}
