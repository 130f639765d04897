//! Freeing a mount point, and how it is named.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::error::{Failure, Kind, Result};
use crate::mounts;
use crate::target::physical_parent;

/// The absolute path of a mount point with its parents' symlinks resolved, as the kernel names it.
///
/// What is in the table of mounts is never looked at: the process behind it may be dead, or silent.
///
/// # Errors
/// If the current directory is needed and gone.
pub(crate) fn absolute(directory: &Path) -> Result<PathBuf> {
    let shown = directory.display();
    let path = std::path::absolute(directory)
        .map_err(|error| Failure::caused(format!("cannot make '{shown}' absolute"), &error))?;
    let path = physical_parent(&path);
    let is_mounted = matches!(mounts::at(&path), Ok(Some(_)));
    if is_mounted { Ok(path) } else { Ok(path.canonicalize().unwrap_or(path)) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Force {
    /// Refused while someone uses it.
    No,
    /// Gone from the tree at once; the rest when the last user is gone.
    Lazy,
}

pub(crate) enum Refusal {
    Busy,
    Failed(Failure),
}

/// Takes the uppermost mount away from `point`: as root by itself, otherwise through fusermount3.
pub(crate) fn unmount(point: &Path, force: Force) -> std::result::Result<(), Refusal> {
    if nix::unistd::geteuid().is_root() {
        let flags = match force {
            Force::No => MntFlags::UMOUNT_NOFOLLOW,
            Force::Lazy => MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH,
        };
        return match umount2(point, flags) {
            Ok(()) => Ok(()),
            Err(Errno::EBUSY) => Err(Refusal::Busy),
            Err(error) => {
                let message = format!("cannot unmount '{}'", point.display());
                Err(Refusal::Failed(Failure::caused(message, &error)))
            }
        };
    }
    through_fusermount(point, force)
}

fn through_fusermount(point: &Path, force: Force) -> std::result::Result<(), Refusal> {
    let option = match force {
        Force::No => "-u",
        Force::Lazy => "-uz",
    };
    let message = format!("cannot unmount '{}'", point.display());
    let ran = Command::new("fusermount3")
        .arg(option)
        .arg("--")
        .arg(point)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output();
    let ran = ran.map_err(|error| {
        let failure = Failure::caused(format!("{message}: fusermount3 does not run"), &error);
        Refusal::Failed(failure.hint("install the package fuse3"))
    })?;
    if ran.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
    if said.contains("busy") {
        return Err(Refusal::Busy);
    }
    let failure = Failure::new(Kind::Failure, format!("{message}: {said}"));
    Err(Refusal::Failed(failure.hint("only the user who mounted it, and root, may unmount it")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_missing_mount_point_is_named_as_the_kernel_would() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().canonicalize().unwrap();
        fs::create_dir(top.join("real")).unwrap();
        std::os::unix::fs::symlink("real", top.join("link")).unwrap();
        assert_eq!(absolute(&top.join("link/new/er")).unwrap(), top.join("real/new/er"));
        assert_eq!(absolute(&top.join("link")).unwrap(), top.join("real"));
    }
}
