//! A backup of this node's store: copied into a file without a name, then handed out in pieces.
//!
//! The file has lost its name before anything is written to it, so that nothing is left behind
//! whatever ends the node. One copy is made at a time; handing out is pulled by the reader, and a
//! reader that stalls costs room on the disk but pins nothing in the store.

use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use revfs_api::backup::{Backup, BackupPart};
use revfs_api::keyspace::{Error, Result};
use revfs_store::{BackupError, BackupOptions, Progress, Store};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::ballast::free_bytes;
use crate::convert;
use crate::local::Parts;

/// A piece of the file, in one message.
const PIECE_BYTES: usize = 1 << 20;

/// Signs of life that wait for the reader; it misses those beyond.
const PROGRESS_QUEUE: usize = 4;

/// See the module.
pub(crate) struct LocalBackup {
    stage: Stage,
}

enum Stage {
    Copying { progress: mpsc::Receiver<Progress>, copied: JoinHandle<Result<File>> },
    Sending { file: Arc<File>, at: u64, total_bytes: u64 },
    Ended,
}

impl LocalBackup {
    pub(crate) fn begin(local: &Parts) -> Result<Self> {
        let reason = || "another backup is being copied".to_owned();
        let permit = Arc::clone(&local.copying).try_acquire_owned();
        let permit = permit.map_err(|_| Error::Busy { reason: reason() })?;
        let size = local.store.size().map_err(convert::store_error)?;
        let data_dir = local.proposer.data_dir.clone();
        let wanted = size.in_use_bytes.saturating_add(local.proposer.disk_free_min_bytes);
        let free = free_bytes(&data_dir).map_err(|error| unwritable(&data_dir, &error))?;
        if free < wanted {
            let reason = format!(
                "a backup is copied to {} first: {wanted} bytes are wanted there, {free} are free",
                data_dir.display()
            );
            return Err(Error::NoSpace { reason });
        }
        let (store, stop) = (Arc::clone(&local.store), local.stop.clone());
        let (sender, progress) = mpsc::channel(PROGRESS_QUEUE);
        let copied = tokio::task::spawn_blocking(move || {
            let file = copy(&store, &data_dir, &sender, &stop);
            drop(permit);
            file
        });
        Ok(Self { stage: Stage::Copying { progress, copied } })
    }

    async fn advance(&mut self) -> Result<Option<BackupPart>> {
        loop {
            match &mut self.stage {
                Stage::Ended => return Ok(None),
                Stage::Copying { progress, copied } => {
                    if let Some(Progress { done_bytes, total_bytes }) = progress.recv().await {
                        let chunk = Bytes::new();
                        return Ok(Some(BackupPart { chunk, done_bytes, total_bytes }));
                    }
                    let ended = |error: tokio::task::JoinError| Error::Unavailable {
                        reason: error.to_string(),
                    };
                    let file = copied.await.map_err(ended)??;
                    let total_bytes = file.metadata().map_err(|error| unreadable(&error))?.len();
                    self.stage = Stage::Sending { file: Arc::new(file), at: 0, total_bytes };
                }
                Stage::Sending { at, total_bytes, .. } if at == total_bytes => {
                    self.stage = Stage::Ended;
                }
                Stage::Sending { file, at, total_bytes } => {
                    let (file, from) = (Arc::clone(file), *at);
                    let left = usize::try_from(*total_bytes - from).unwrap_or(usize::MAX);
                    let read = tokio::task::spawn_blocking(move || {
                        let mut piece = vec![0; left.min(PIECE_BYTES)];
                        file.read_exact_at(&mut piece, from).map(|()| piece)
                    });
                    let read = read.await.map_err(io::Error::other).and_then(|read| read);
                    let chunk = Bytes::from(read.map_err(|error| unreadable(&error))?);
                    *at += u64::try_from(chunk.len()).expect("a piece is a MiB");
                    let (done_bytes, total_bytes) = (*at, *total_bytes);
                    return Ok(Some(BackupPart { chunk, done_bytes, total_bytes }));
                }
            }
        }
    }
}

#[async_trait]
impl Backup for LocalBackup {
    async fn next(&mut self) -> Result<Option<BackupPart>> {
        let part = self.advance().await;
        if part.is_err() {
            self.stage = Stage::Ended;
        }
        part
    }
}

fn copy(
    store: &Store,
    data_dir: &Path,
    progress: &mpsc::Sender<Progress>,
    stop: &watch::Receiver<bool>,
) -> Result<File> {
    let mut file =
        nameless(data_dir, "backup.tmp").map_err(|error| unwritable(data_dir, &error))?;
    let mut on_progress = |done| {
        // A reader that is behind misses a number; one that is gone ends the work.
        let is_unwanted =
            matches!(progress.try_send(done), Err(mpsc::error::TrySendError::Closed(_)));
        if is_unwanted || *stop.borrow() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };
    match store.backup(&mut file, &BackupOptions::default(), &mut on_progress) {
        Ok(_) => Ok(file),
        Err(BackupError::Store(error)) => Err(convert::store_error(error)),
        Err(BackupError::Write(error)) if error.kind() == io::ErrorKind::StorageFull => {
            Err(Error::NoSpace { reason: format!("{}: {error}", data_dir.display()) })
        }
        Err(BackupError::GivenUp) => Err(Error::shutting_down()),
        Err(error @ (BackupError::Copy { .. } | BackupError::Write(_))) => {
            Err(Error::Unavailable { reason: error.to_string() })
        }
    }
}

/// A file in the data directory that is gone with its last holder, even if the node dies.
pub(crate) fn nameless(data_dir: &Path, name: &str) -> io::Result<File> {
    let path = data_dir.join(name);
    // What a node left that died right here is without content.
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

fn unwritable(data_dir: &Path, error: &io::Error) -> Error {
    Error::Unavailable { reason: format!("a backup in {}: {error}", data_dir.display()) }
}

fn unreadable(error: &io::Error) -> Error {
    Error::Unavailable { reason: format!("the copy cannot be read back: {error}") }
}
