//! Restoring a backup into a new data directory: a cluster of its own, of one member or of several that
//! are each restored from the same file.
//!
//! The new cluster has new ids. Those of several members follow from their addresses, the token, the
//! backup's digest and the bump, so that members that were told different things refuse each other, and
//! so does whatever is left of the cluster that was backed up.

use std::path::Path;

use revfs_store::{
    BackupSummary, OnProgress, Position, RestoreError as StoreRestoreError, StoreOptions,
    restore_backup,
};

use crate::config::StartError;
use crate::data_dir::Identity;
use crate::founding::{Founders, Founding};
use crate::new_directory::{NewDirectory, NewDirectoryError};
use crate::raft::position_of;

pub use revfs_store::{
    BackupSummary as Summary, Bump, Progress, VerifyError, backup_summary as summary,
    verify_backup as verify,
};

/// What a restored directory is to be.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// The members of the new cluster, each of which is restored alike; `None` = this one alone.
    pub founders: Option<Founders>,
    pub bump: Bump,
}

/// Why a backup was not restored. The data directory does not exist then.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Directory(#[from] NewDirectoryError),
    #[error(transparent)]
    Store(#[from] StoreRestoreError),
    #[error(transparent)]
    Start(#[from] StartError),
}

impl RestoreError {
    /// Whether the directory holds something already.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Directory(NewDirectoryError::Exists { .. }))
    }
}

/// What a restored data directory says.
#[derive(Clone, Debug)]
pub struct Restored {
    pub summary: BackupSummary,
    /// At which the store goes on.
    pub revision: u64,
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
    options: &RestoreOptions,
    progress: OnProgress<'_>,
) -> Result<Restored, RestoreError> {
    let summary = revfs_store::backup_summary(from).map_err(StoreRestoreError::from)?;
    let revision = options.bump.above(summary.revision)?.0;
    let founding = founding(options, &summary);
    let identity = founding.identity();
    let identity = identity.map_err(|error| StartError::io("identify", data_dir, error))?;
    let members = founding.members(identity.member);
    let directory = NewDirectory::begin(data_dir, identity)?;
    let mut begin = None;
    let position = |found: &Position| {
        let (id, raft) = position_of(found, &members).map_err(|error| error.to_string())?;
        if id.is_none() && members.len() > 1 {
            return Err("nothing was ever written there: begin a new cluster instead".to_owned());
        }
        begin = id;
        Ok(raft)
    };
    let (store, options) = (StoreOptions::default(), options.bump);
    let restored =
        restore_backup(from, &directory.layout.store, &store, options, position, progress);
    let summary = restored.inspect_err(|_| directory.remove())?;
    directory.finish(begin)?;
    let Identity { cluster: cluster_id, member: member_id, .. } = identity;
    Ok(Restored { summary, revision, cluster_id, member_id })
}

/// Several members agree on their numbers without talking, as founders do.
fn founding(options: &RestoreOptions, summary: &BackupSummary) -> Founding {
    let Some(founders) = &options.founders else { return Founding::Alone };
    let Bump { revisions, mark_compacted } = options.bump;
    let digest: String = summary.sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    let token = format!("{}\nrestored {digest} {revisions} {mark_compacted}", founders.token);
    Founding::Together(Founders { token, ..founders.clone() })
}
