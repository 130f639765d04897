//! The directory that is mounted at: whether it will do.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::{Failure, Result};
use crate::mounts::{self, Mount, Probe};
use crate::unmount::{Force, Refusal, unmount};

/// What was found at a mount point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// An empty directory.
    Free,
    /// Nothing: it may be created.
    Missing,
    /// A mount of revfs whose process is gone.
    DeadMount,
}

/// # Errors
/// If the mount would cover the data that it shows.
pub(crate) fn check_apart(data_dir: &Path, point: &Path) -> Result<()> {
    if !data_dir.starts_with(point) {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "the data directory '{}' lies inside the mount point '{}'",
        data_dir.display(),
        point.display()
    ))
    .hint("the mount would cover its own data: choose another with --data-dir"))
}

/// Whether something can be mounted at `point`.
///
/// # Errors
/// `Conflict` if it is in use, not empty, or no directory; each says what to do.
pub(crate) fn check(point: &Path) -> Result<Found> {
    let shown = point.display();
    let unreadable =
        |error: &io::Error| Failure::caused(format!("cannot look at '{shown}'"), error);
    let mounted = mounts::at(point)
        .map_err(|error| Failure::caused("cannot read the table of mounts", &error))?;
    if let Some(mount) = mounted.filter(Mount::is_ours) {
        return match mounts::probe(point) {
            Probe::Dead => Ok(Found::DeadMount),
            Probe::Live(status) => Err(Failure::conflict(format!(
                "'{shown}' is mounted already, by process {}",
                status.process_id
            ))
            .hint(format!("revfs status {shown} shows it; revfs umount {shown} ends it"))),
            Probe::Closed | Probe::Silent | Probe::Strange(_) => {
                let owner =
                    mount.owner.map_or_else(|| "someone".into(), |uid| format!("user {uid}"));
                Err(Failure::conflict(format!("'{shown}' is mounted already, by {owner}"))
                    .hint(format!("end it first: revfs umount {shown}")))
            }
        };
    }
    let metadata = match fs::symlink_metadata(point) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
        Err(error) => return Err(unreadable(&error)),
    };
    if !metadata.is_dir() {
        return Err(Failure::conflict(format!("'{shown}' is not a directory"))
            .hint("name an empty directory, or one that does not exist yet"));
    }
    let mut entries = fs::read_dir(point).map_err(|error| unreadable(&error))?;
    if let Some(entry) = entries.next() {
        let name = entry.map_err(|error| unreadable(&error))?.file_name();
        return Err(Failure::conflict(format!(
            "'{shown}' is not empty: it holds '{}'",
            name.display()
        ))
        .hint("the mount would hide what is in it: name an empty directory, or one that does not exist yet"));
    }
    Ok(Found::Free)
}

/// Makes `point` an empty directory that nothing is mounted at.
pub(crate) fn prepare(point: &Path, found: Found) -> Result<()> {
    let shown = point.display();
    match found {
        Found::Free => Ok(()),
        Found::Missing => fs::create_dir_all(point)
            .map_err(|error| Failure::caused(format!("cannot create '{shown}'"), &error)),
        Found::DeadMount => {
            unmount(point, Force::Lazy).map_err(|refusal| match refusal {
                Refusal::Busy => Failure::conflict(format!("the dead mount at '{shown}' is busy")),
                Refusal::Failed(failure) => failure,
            })?;
            tracing::info!("removed the dead mount at {shown}");
            // What it covered has to pass the same test.
            match check(point)? {
                Found::Free => Ok(()),
                Found::Missing => prepare(point, Found::Missing),
                Found::DeadMount => {
                    Err(Failure::conflict(format!("several dead mounts lie at '{shown}'"))
                        .hint(format!("remove them: umount -l {shown}")))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_mount_point_is_an_empty_or_a_missing_directory() {
        let directory = tempfile::tempdir().unwrap();
        let point = directory.path().join("point");
        assert_eq!(check(&point).unwrap(), Found::Missing);
        prepare(&point, Found::Missing).unwrap();
        assert_eq!(check(&point).unwrap(), Found::Free);
        fs::write(point.join("kept"), "x").unwrap();
        let refused = check(&point).unwrap_err();
        assert_eq!(refused.kind, Kind::Conflict);
        assert!(refused.render().contains("'kept'"), "{}", refused.render());
        let refused = check(&point.join("kept")).unwrap_err();
        assert!(refused.render().contains("is not a directory"), "{}", refused.render());
    }
}
