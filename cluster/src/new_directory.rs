//! A data directory that is made from something else than nothing: from a backup, or from etcd's data.
//!
//! ```text
//! NAME.restoring: identity, store, log ─► whole and durable ─► renamed: NAME
//! ```
//!
//! What a program that was killed leaves can be mistaken for nothing, and the next attempt begins anew.
//! The log begins behind the position of the store, so that indexes and terms go on from there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use crate::config::StartError;
use crate::data_dir::{DataDir, Identity, Layout};
use crate::log::{Log, LogError, LogId, LogOptions, Vote};

/// Why a data directory was not made. It does not exist then.
#[derive(Debug, thiserror::Error)]
pub enum NewDirectoryError {
    #[error(
        "data directory {path} exists and is not empty: name another one",
        path = .path.display()
    )]
    Exists { path: PathBuf },
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Log(#[from] LogError),
}

/// See the module.
pub(crate) struct NewDirectory {
    data_dir: PathBuf,
    building: PathBuf,
    held: DataDir,
    pub(crate) layout: Layout,
}

impl NewDirectory {
    /// Begins to make `data_dir`, which is absent or empty, for the member `identity`.
    pub(crate) fn begin(data_dir: &Path, identity: Identity) -> Result<Self, NewDirectoryError> {
        let io = |operation, error| StartError::io(operation, data_dir, error);
        let data_dir = std::path::absolute(data_dir).map_err(|error| io("find", error))?;
        check_free(&data_dir)?;
        let mut name = data_dir.file_name().unwrap_or_default().to_owned();
        name.push(".restoring");
        let building = data_dir.with_file_name(name);
        let held = DataDir::hold(&building)?;
        let layout = held.begin_creation(identity)?;
        Ok(Self { data_dir, building, held, layout })
    }

    /// Gives up what was begun.
    pub(crate) fn remove(&self) {
        // What is left is begun anew by the next attempt.
        fs::remove_dir_all(&self.building).ok();
    }

    /// The store is whole: lets the log begin behind `position`, in whose term the member has voted for
    /// itself, and gives the directory its name.
    pub(crate) fn finish(self, position: Option<LogId>) -> Result<(), NewDirectoryError> {
        begin_log(&self.layout.log, position, self.layout.identity.member)?;
        self.held.finish_creation(self.layout.identity)?;
        let Self { data_dir, building, held, .. } = self;
        drop(held);
        // An empty directory in its place is replaced, anything else is not.
        fs::rename(&building, &data_dir)
            .map_err(|error| StartError::io("name", &data_dir, error))?;
        let parent = data_dir.parent().unwrap_or(Path::new("/"));
        File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(|error| StartError::io("flush", parent, error))?;
        Ok(())
    }
}

fn check_free(data_dir: &Path) -> Result<(), NewDirectoryError> {
    match fs::read_dir(data_dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(NewDirectoryError::Exists { path: data_dir.to_path_buf() }),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StartError::io("look into", data_dir, error).into()),
    }
}

fn begin_log(
    directory: &Path,
    position: Option<LogId>,
    member: u64,
) -> Result<(), NewDirectoryError> {
    let options = LogOptions::default();
    Log::create(directory, &options)?;
    let Some(position) = position else { return Ok(()) };
    let log = Log::open(directory, options, None)?;
    let (done, voted) = mpsc::channel();
    let vote = Vote { term: position.term, node: member, committed: false };
    // The receiver lives until the answer has come.
    log.save_vote(vote, Box::new(move |result| drop(done.send(result))));
    log.purge(position);
    let closed = log.close();
    voted.recv().unwrap_or(Ok(()))?;
    Ok(closed?)
}
