//! Looking into the data directory of a node that does not run.

use std::path::{Path, PathBuf};

use revfs_store::{Inspector, StoreOptions};

use crate::config::StartError;
use crate::data_dir::DataDir;

pub use revfs_store::{Facts, PrefixFacts, Progress, TreeFacts, Violation};

/// The store of a data directory, which is held until this is dropped; or of a backup.
pub struct Inspection {
    pub inspector: Inspector,
    /// The file that is read.
    pub file: PathBuf,
    /// Cluster and member; none for a backup.
    pub ids: Option<(u64, u64)>,
    _held: Option<DataDir>,
}

/// Opens a data directory that no node runs on, or the file of a backup. With `whole` every page and
/// row is looked at before LMDB sees the file. Blocks.
///
/// # Errors
/// [`StartError::InUse`] while a node runs on it; damage.
pub fn inspect(path: &Path, whole: bool) -> Result<Inspection, StartError> {
    let options = StoreOptions::default();
    let found = std::fs::metadata(path).map_err(|error| StartError::io("look at", path, error))?;
    if found.is_file() {
        let inspector = Inspector::open(path, &options, whole)?;
        return Ok(Inspection { inspector, file: path.to_path_buf(), ids: None, _held: None });
    }
    let missing = || StartError::Damaged {
        path: path.to_path_buf(),
        reason: "no node was ever started on it: it has no file CURRENT".to_owned(),
    };
    if !path.join("CURRENT").exists() {
        return Err(missing());
    }
    let held = DataDir::hold(path)?;
    let layout = held.layout()?.ok_or_else(missing)?;
    let file = layout.store.join("data.mdb");
    let inspector = Inspector::open(&file, &options, whole)?;
    let ids = Some((layout.identity.cluster, layout.identity.member));
    Ok(Inspection { inspector, file, ids, _held: Some(held) })
}
