//! Every operation of the log on files, each behind a seam at which a test may make it fail.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use revfs_store::Durations;

use super::LogError;

/// Zeros are written in pieces of this size.
const ZERO_CHUNK_BYTES: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOperation {
    Create,
    Write,
    Sync,
    SyncDirectory,
    Rename,
    Remove,
}

type Fault = dyn Fn(DiskOperation, &Path) -> io::Result<()> + Send + Sync;

/// Decides for each operation whether it fails; by default none does.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<Fault>>);

impl Faults {
    pub fn new(
        fault: impl Fn(DiskOperation, &Path) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(fault)))
    }

    fn check(&self, operation: DiskOperation, path: &Path) -> io::Result<()> {
        match &self.0 {
            None => Ok(()),
            Some(fault) => fault(operation, path),
        }
    }
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Faults(injected)" } else { "Faults(none)" })
    }
}

/// The file operations of one log directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) faults: Faults,
    /// How long each flush of a file took.
    pub(super) syncs: Arc<Durations>,
}

impl Disk {
    fn run<T>(
        &self,
        kind: DiskOperation,
        operation: &'static str,
        path: &Path,
        act: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, LogError> {
        self.faults
            .check(kind, path)
            .and_then(|()| act())
            .map_err(|source| LogError::io(operation, path, source))
    }

    /// Creates `path` with `bytes` of zeros on disk, so that later writes change no metadata.
    pub(super) fn create_zeroed(&self, path: &Path, bytes: u32) -> Result<File, LogError> {
        let file = self.run(DiskOperation::Create, "create", path, || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(true).open(path)
        })?;
        let zeros = vec![0; ZERO_CHUNK_BYTES];
        let mut offset = 0;
        while offset < u64::from(bytes) {
            let rest = u64::from(bytes) - offset;
            let piece = usize::try_from(rest).map_or(zeros.len(), |rest| rest.min(zeros.len()));
            self.write(&file, path, &zeros[..piece], offset)?;
            offset += u64::try_from(piece).expect("a piece is at most a chunk");
        }
        self.run(DiskOperation::Sync, "sync", path, || file.sync_all())?;
        Ok(file)
    }

    pub(super) fn write(
        &self,
        file: &File,
        path: &Path,
        bytes: &[u8],
        offset: u64,
    ) -> Result<(), LogError> {
        self.run(DiskOperation::Write, "write", path, || file.write_all_at(bytes, offset))
    }

    pub(super) fn sync(&self, file: &File, path: &Path) -> Result<(), LogError> {
        self.run(DiskOperation::Sync, "sync", path, || self.syncs.time(|| file.sync_data()))
    }

    pub(super) fn sync_directory(&self, directory: &Path) -> Result<(), LogError> {
        self.run(DiskOperation::SyncDirectory, "sync directory", directory, || {
            File::open(directory)?.sync_all()
        })
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<(), LogError> {
        self.run(DiskOperation::Rename, "rename", from, || fs::rename(from, to))
    }

    pub(super) fn remove(&self, path: &Path) -> Result<(), LogError> {
        self.run(DiskOperation::Remove, "remove", path, || fs::remove_file(path))
    }
}
