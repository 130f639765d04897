//! Restoring a backup into a new data directory: a cluster of one, of its own.
//!
//! The directory is made beside its place under the name `NAME.restoring` and gets its own name when
//! it is whole: what a restore that was killed leaves can be mistaken for nothing. The new cluster has
//! new ids, and its log begins behind the position of the backup, so that indexes and terms go on.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use revfs_store::{
    BackupSummary, OnProgress, RestoreError as StoreRestoreError, StoreOptions, restore_backup,
};

use crate::config::StartError;
use crate::data_dir::DataDir;
use crate::log::{Log, LogError, LogId, LogOptions, Vote};
use crate::raft::position_of_one;

pub use revfs_store::{
    BackupSummary as Summary, Progress, VerifyError, backup_summary as summary,
    verify_backup as verify,
};

/// Why a backup was not restored. The data directory does not exist then.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(
        "data directory {path} exists and is not empty: restore into another one",
        path = .path.display()
    )]
    Exists { path: PathBuf },
    #[error(transparent)]
    Store(#[from] StoreRestoreError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What a restored data directory says.
#[derive(Clone, Debug)]
pub struct Restored {
    pub summary: BackupSummary,
    pub cluster_id: u64,
    pub member_id: u64,
}

/// Makes `data_dir`, which is absent or empty, from the backup `from`. Blocks.
///
/// # Errors
/// See [`RestoreError`].
pub fn restore(
    from: &Path,
    data_dir: &Path,
    progress: OnProgress<'_>,
) -> Result<Restored, RestoreError> {
    let io = |operation, error| StartError::io(operation, data_dir, error);
    let data_dir = std::path::absolute(data_dir).map_err(|error| io("find", error))?;
    check_free(&data_dir)?;
    let mut name = data_dir.file_name().unwrap_or_default().to_owned();
    name.push(".restoring");
    let building = data_dir.with_file_name(name);
    let held = DataDir::hold(&building)?;
    let layout = held.begin_creation()?;
    let member = layout.identity.member;
    let mut begin = None;
    let position = |found: &revfs_store::Position| {
        let (id, raft) = position_of_one(found, member).map_err(|error| error.to_string())?;
        begin = id;
        Ok(raft)
    };
    let options = StoreOptions::default();
    let summary = restore_backup(from, &layout.store, &options, position, progress);
    let summary = summary.inspect_err(|_| drop(fs::remove_dir_all(&building)))?;
    begin_log(&layout.log, begin, member)?;
    held.finish_creation(layout.identity)?;
    drop(held);
    // An empty directory in its place is replaced, anything else is not.
    fs::rename(&building, &data_dir).map_err(|error| io("name", error))?;
    let parent = data_dir.parent().unwrap_or(Path::new("/"));
    File::open(parent)
        .and_then(|parent| parent.sync_all())
        .map_err(|error| StartError::io("flush", parent, error))?;
    let (cluster_id, member_id) = (layout.identity.cluster, member);
    Ok(Restored { summary, cluster_id, member_id })
}

fn check_free(data_dir: &Path) -> Result<(), RestoreError> {
    match fs::read_dir(data_dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(RestoreError::Exists { path: data_dir.to_path_buf() }),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StartError::io("look into", data_dir, error).into()),
    }
}

/// An empty log that goes on behind `begin`, in the term of which `member` has voted for itself.
fn begin_log(directory: &Path, begin: Option<LogId>, member: u64) -> Result<(), RestoreError> {
    let options = LogOptions::default();
    Log::create(directory, &options)?;
    let Some(begin) = begin else { return Ok(()) };
    let log = Log::open(directory, options, None)?;
    let (done, voted) = mpsc::channel();
    let vote = Vote { term: begin.term, node: member, committed: false };
    // The receiver lives until the answer has come.
    log.save_vote(vote, Box::new(move |result| drop(done.send(result))));
    log.purge(begin);
    let closed = log.close();
    voted.recv().unwrap_or(Ok(()))?;
    Ok(closed?)
}
