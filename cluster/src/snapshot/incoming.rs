//! The receiving side: a copy that grows in the data directory, and the store that it becomes.
//!
//! Both are removed when they are dropped, and by the next start: until `CURRENT` names a store it is
//! nothing.

use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::mpsc;

use revfs_store::{BackupSummary, RestoreError, adopt_backup};

use super::Snapshots;
use crate::config::StartError;
use crate::data_dir::{DataDir, Layout, Room};
use crate::log::{Log, LogId, LogOptions};

/// What was written is flushed after so many bytes, so that no flush of the log waits for much.
const FLUSH_BYTES: u64 = 8 << 20;

/// A copy that is being received.
#[derive(Debug)]
pub(crate) struct Incoming {
    room: Room,
    file: File,
    bytes: u64,
    flushed: u64,
}

impl Incoming {
    pub(crate) fn begin(data_dir: &DataDir) -> Result<Self, StartError> {
        let room = data_dir.new_room()?;
        let mut options = File::options();
        let options = options.read(true).write(true).create_new(true).mode(0o600);
        let file = options
            .open(&room.incoming)
            .map_err(|error| StartError::io("create", &room.incoming, error))?;
        Ok(Self { room, file, bytes: 0, flushed: 0 })
    }

    /// What has come so far: a sender goes on from there.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds what follows. Blocks.
    ///
    /// # Errors
    /// The disk's; what was added before is there.
    pub(crate) fn add(&mut self, chunk: &[u8]) -> io::Result<()> {
        self.file.write_all_at(chunk, self.bytes)?;
        self.bytes += u64::try_from(chunk.len()).expect("a chunk fits into memory");
        if self.bytes - self.flushed >= FLUSH_BYTES {
            self.file.sync_data()?;
            self.flushed = self.bytes;
        }
        Ok(())
    }

    /// Checks every byte and row of the whole copy and makes it a store. Blocks.
    ///
    /// # Errors
    /// A copy that is not whole or is damaged; the disk's. It is removed then.
    pub(crate) fn finish(self) -> Result<Received, RestoreError> {
        let mut go_on = |_| ControlFlow::Continue(());
        let dir = self.room.store.clone();
        let summary = adopt_backup(&self.room.incoming, &dir, &mut go_on)
            .inspect_err(|_| drop(fs::remove_dir_all(&dir)))?;
        Ok(Received { dir: Some(dir), summary })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        match fs::remove_file(&self.room.incoming) {
            // It has become a store.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(%error, "a copy that was given up is left to the next start");
            }
            Ok(()) => {}
        }
    }
}

/// A whole store that waits to be put into use.
#[derive(Debug)]
pub(crate) struct Received {
    /// `None` once it is in use.
    dir: Option<PathBuf>,
    pub(crate) summary: BackupSummary,
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir
            && let Err(error) = fs::remove_dir_all(dir)
        {
            tracing::warn!(%error, "a copy that was not needed is left to the next start");
        }
    }
}

impl Snapshots {
    /// The store goes on with `received`, and the log behind it. A crash before the store is in use
    /// finds the old one, a crash before the log has followed is noticed by the next start
    /// ([`open_log`]). Blocks.
    ///
    /// # Errors
    /// The disk's: then nobody knows which of the two is in use, and the member must be started again.
    pub(crate) fn install(&self, mut received: Received, id: LogId) -> io::Result<()> {
        let Some(dir) = received.dir.take() else { return Ok(()) };
        let switch = || self.data_dir.use_store(&dir, Some(id));
        self.store.install(&dir, switch).map_err(io::Error::other)?;
        follow(&self.log, id)?;
        self.data_dir.use_store(&dir, None)?;
        tracing::info!(%id, dir = %dir.display(), "went on with the store of another member");
        Ok(())
    }
}

/// Opens the log, which must reach what the store has `committed`, unless the store came from another
/// member and a crash came before the log had followed it. Blocks.
///
/// # Errors
/// The log's and the disk's.
pub(crate) fn open_log(
    data_dir: &DataDir,
    layout: &Layout,
    options: LogOptions,
    committed: Option<LogId>,
) -> Result<Log, StartError> {
    let Some(installed) = layout.installed else {
        return Ok(Log::open(&layout.log, options, committed)?);
    };
    let must_reach = committed.filter(|&committed| committed != installed);
    let log = Log::open(&layout.log, options, must_reach)?;
    let followed = follow(&log, installed).and_then(|()| data_dir.use_store(&layout.store, None));
    followed.map_err(|error| StartError::io("go on behind the copy in", &layout.store, error))?;
    Ok(log)
}

/// Lets the log go on behind a store that was installed at `id`, durably. Blocks.
fn follow(log: &Log, id: LogId) -> io::Result<()> {
    let (done, answer) = mpsc::channel();
    // The receiver lives until the answer has come.
    log.begin_behind(id, Box::new(move |result| drop(done.send(result))));
    answer.recv().map_err(io::Error::other)?.map_err(io::Error::from)
}
