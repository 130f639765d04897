//! Adopting: the file of a backup itself becomes the data file of a store, without being copied again.
//!
//! What a member received of another goes this way: the copy keeps its place in the log, its alarms and
//! all else, because it is the same cluster's.

use std::fs::File;
use std::io;
use std::path::Path;

use super::restore::RestoreError;
use super::trailer::read_whole;
use super::{BackupSummary, OnProgress, VerifyError};
use crate::check::check_file;
use crate::env::{DATA_FILE, sync_folder};

/// Checks the backup `from`, every byte and every row of it, and makes it the store in `dir`, which
/// does not exist yet and lies on the same file system. `from` is gone then.
///
/// # Errors
/// A backup that is not whole, or an I/O error. Then `from` may have lost its trailer.
pub fn adopt_backup(
    from: &Path,
    dir: &Path,
    progress: OnProgress<'_>,
) -> Result<BackupSummary, RestoreError> {
    let io = |source: io::Error| RestoreError::Io { path: dir.to_path_buf(), source };
    let file = File::options().read(true).write(true).open(from);
    let file = file.map_err(|source| VerifyError::Io { path: from.to_path_buf(), source })?;
    let summary = read_whole(&file, from, progress, &mut |_| Ok(()))?;
    file.set_len(summary.content_bytes).and_then(|()| file.sync_all()).map_err(io)?;
    drop(file);
    check_file(from, usize::MAX)?;
    std::fs::create_dir(dir).map_err(io)?;
    std::fs::rename(from, dir.join(DATA_FILE)).map_err(io)?;
    for folder in [Some(dir), dir.parent(), from.parent()].into_iter().flatten() {
        sync_folder(folder)?;
    }
    Ok(summary)
}
