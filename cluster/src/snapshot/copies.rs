//! The sending side: one compacted copy of the store, shared by all members that need one.
//!
//! It is made when the first of them asks and is gone with the last: the file has lost its name before
//! anything is written to it. Making and sending keep to a pace, so that the leader's clients hardly
//! notice. While a copy exists, and for a while afterwards, the log is not purged: who receives it would
//! else need the next one when it has this one.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use revfs_store::{BackupError, BackupOptions, Position, Store};

use crate::backup::nameless;
use crate::ballast::free_bytes;
use crate::data_dir::DataDir;
use crate::log::Log;
use crate::raft::{Instant, blocking, now};

/// The log is kept for so long behind the last copy that was sent.
const KEPT_AFTER: Duration = Duration::from_secs(30);

/// What is read and sent at once. Small beside what a connection carries in a heartbeat's time: appends
/// go between the pieces.
const PIECE_BYTES: usize = 256 << 10;

/// Before it loses it.
const FILE_NAME: &str = "copy.tmp";

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error(
        "a copy of the store needs {wanted} bytes in the data directory, {free} are free: free some space"
    )]
    NoSpace { wanted: u64, free: u64 },
    #[error("a copy of the store: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Backup(#[from] BackupError),
}

/// Spreads bytes over time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    begun: Instant,
    bytes_per_second: u64,
}

impl Pace {
    pub(crate) fn begin(bytes_per_second: u64) -> Self {
        Self { begun: now(), bytes_per_second: bytes_per_second.max(1) }
    }

    /// How long to wait after so many bytes.
    pub(crate) fn wait_after(&self, bytes: u64) -> Duration {
        let micros = u128::from(bytes) * 1_000_000 / u128::from(self.bytes_per_second);
        let due = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        due.saturating_sub(now() - self.begun)
    }
}

/// How many copies there are, and when there was the last one.
#[derive(Debug, Default)]
struct InUse(Mutex<(usize, Option<Instant>)>);

#[derive(Debug)]
struct Use(Arc<InUse>);

impl Use {
    fn begin(of: &Arc<InUse>) -> Self {
        of.0.lock().0 += 1;
        Self(Arc::clone(of))
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut in_use = self.0.0.lock();
        *in_use = (in_use.0 - 1, Some(now()));
    }
}

/// A whole copy, as [`Store::backup`] writes it.
#[derive(Debug)]
pub(crate) struct Copy {
    file: Arc<File>,
    pub(crate) sha256: [u8; 32],
    pub(crate) bytes: u64,
    pub(crate) position: Position,
    _use: Use,
}

impl Copy {
    /// What follows `from`; empty at the end.
    pub(crate) async fn read(&self, from: u64) -> io::Result<Bytes> {
        let left = usize::try_from(self.bytes.saturating_sub(from)).unwrap_or(usize::MAX);
        let file = Arc::clone(&self.file);
        let read = move || {
            let mut piece = vec![0; left.min(PIECE_BYTES)];
            file.read_exact_at(&mut piece, from).map(|()| Bytes::from(piece))
        };
        blocking(read).await?
    }
}

/// See the module.
pub(crate) struct Copies {
    data_dir: Arc<DataDir>,
    store: Arc<Store>,
    bytes_per_second: u64,
    disk_free_min_bytes: u64,
    /// Held while one is made: who comes meanwhile waits for it.
    current: tokio::sync::Mutex<Weak<Copy>>,
    in_use: Arc<InUse>,
    made: AtomicU64,
}

impl Copies {
    pub(crate) fn new(
        data_dir: Arc<DataDir>,
        store: Arc<Store>,
        bytes_per_second: u64,
        disk_free_min_bytes: u64,
    ) -> Self {
        let (current, in_use, made) = Default::default();
        Self { data_dir, store, bytes_per_second, disk_free_min_bytes, current, in_use, made }
    }

    /// How many were made since the start.
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// The pace of one more reader.
    pub(crate) fn pace(&self) -> Pace {
        Pace::begin(self.bytes_per_second)
    }

    /// Whether somebody receives a copy, or has just received one: the log behind it is still needed.
    pub(crate) fn need_log(&self) -> bool {
        let in_use = self.in_use.0.lock();
        in_use.0 > 0 || in_use.1.is_some_and(|last| now() - last < KEPT_AFTER)
    }

    /// A copy that somebody receives, if the log goes on behind it.
    pub(crate) fn held(&self, log: &Log) -> Option<Arc<Copy>> {
        // While one is made nobody holds one that is useful.
        let current = self.current.try_lock().ok()?;
        let purged = log.state().purged.map(|purged| purged.index);
        current.upgrade().filter(|copy| purged.is_none_or(|purged| purged <= copy.position.index))
    }

    /// A copy that holds at least the entry `at_least`: one that somebody holds, or else a new one. Who
    /// comes while one is made waits for it.
    ///
    /// # Errors
    /// No room, or a store that cannot be copied.
    pub(crate) async fn get(&self, at_least: u64) -> Result<Arc<Copy>, CopyError> {
        let mut current = self.current.lock().await;
        if let Some(copy) = current.upgrade().filter(|copy| copy.position.index >= at_least) {
            return Ok(copy);
        }
        let held = Use::begin(&self.in_use);
        // Gone with this future: then nobody wants the copy any more.
        let wanted = Arc::new(());
        let (store, data_dir) = (Arc::clone(&self.store), Arc::clone(&self.data_dir));
        let (watched, pace) = (Arc::downgrade(&wanted), self.pace());
        let free_min = self.disk_free_min_bytes;
        let making = blocking(move || {
            make(&store, &data_dir, free_min, pace, &watched).map(|made| (made, held))
        });
        let ((file, summary), held) = making.await??;
        tracing::info!(
            bytes = summary.file_bytes,
            index = summary.position.index,
            "copied the store for another member"
        );
        let copy = Arc::new(Copy {
            file: Arc::new(file),
            sha256: summary.sha256,
            bytes: summary.file_bytes,
            position: summary.position,
            _use: held,
        });
        *current = Arc::downgrade(&copy);
        self.made.fetch_add(1, Ordering::Relaxed);
        drop(wanted);
        Ok(copy)
    }
}

fn make(
    store: &Store,
    data_dir: &DataDir,
    free_min_bytes: u64,
    pace: Pace,
    wanted: &Weak<()>,
) -> Result<(File, revfs_store::BackupSummary), CopyError> {
    let in_use = store.size().map_err(BackupError::from)?.in_use_bytes;
    let (free, wanted_bytes) = (free_bytes(&data_dir.path)?, in_use.saturating_add(free_min_bytes));
    if free < wanted_bytes {
        return Err(CopyError::NoSpace { wanted: wanted_bytes, free });
    }
    let mut file = nameless(&data_dir.path, FILE_NAME)?;
    let options = BackupOptions { pause: Duration::ZERO, ..BackupOptions::default() };
    let mut on_progress = |progress: revfs_store::Progress| {
        if wanted.strong_count() == 0 {
            return ControlFlow::Break(());
        }
        std::thread::sleep(pace.wait_after(progress.done_bytes));
        ControlFlow::Continue(())
    };
    let summary = store.backup(&mut file, &options, &mut on_progress)?;
    Ok((file, summary))
}
