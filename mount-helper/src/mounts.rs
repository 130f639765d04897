//! The mounts of revfs on this machine: where they are, whether they live, who uses them.
//!
//! The kernel's table (`/proc/self/mountinfo`) is the only list; `@status` in the root of a mount
//! says what stands behind it. A mount is *live* if its process answers, *dead* if the process is gone
//! (ENOTCONN), *closed* if this user may not look into it, *silent* if it does not answer in time.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use percent_encoding::percent_decode_str;
use revfs_fs::mount::{self, MountLine};
use revfs_fs::path::{DirectoryKey, NameError};

/// File system type of our mounts in the kernel's table.
pub(crate) const FS_TYPE: &str = "fuse.revfs";

/// A mount that has not answered by then is called silent. Reading `@status` is answered from memory.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) point: PathBuf,
    pub(crate) fs_type: String,
    /// `user_id=` of a FUSE mount: who mounted it.
    pub(crate) owner: Option<u32>,
}

impl Mount {
    pub(crate) fn is_ours(&self) -> bool {
        self.fs_type == FS_TYPE
    }
}

/// What `@status` says that this program needs; it holds more.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub(crate) struct MountStatus {
    #[serde(default)]
    pub(crate) endpoint: String,
    #[serde(default)]
    pub(crate) data_dir: String,
    #[serde(default)]
    pub(crate) process_id: u32,
    #[serde(default)]
    pub(crate) mount: MountedTree,
}

/// Which part of the key space a mount shows, and as of when.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct MountedTree {
    /// As in `@status`.
    #[serde(default)]
    root: String,
    #[serde(default)]
    pub(crate) revision: Option<u64>,
}

impl MountedTree {
    /// # Errors
    /// If it is no directory of keys.
    pub(crate) fn root(&self) -> Result<DirectoryKey, NameError> {
        DirectoryKey::new(percent_decode_str(&self.root).collect::<Vec<u8>>())
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Probe<Status = MountStatus> {
    Live(Status),
    Dead,
    Closed,
    Silent,
    /// It answered, but not with a status.
    Strange(String),
}

/// All mounts that this process sees; later ones lie over earlier ones.
pub(crate) fn all() -> io::Result<Vec<Mount>> {
    let known =
        |line: MountLine| Mount { point: line.mount_point, fs_type: line.kind, owner: line.owner };
    Ok(mount::mounts()?.into_iter().map(known).collect())
}

/// The mounts of revfs.
pub(crate) fn ours() -> io::Result<Vec<Mount>> {
    Ok(all()?.into_iter().filter(Mount::is_ours).collect())
}

/// What is mounted exactly at `point`, the uppermost if there are several.
pub(crate) fn at(point: &Path) -> io::Result<Option<Mount>> {
    Ok(all()?.into_iter().rev().find(|mount| mount.point == point))
}

/// The mount that an absolute, clean path lies in: the deepest, the uppermost.
pub(crate) fn containing<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let holding = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    // max_by_key keeps the last of equals: the one mounted over the others.
    holding.max_by_key(|mount| mount.point.as_os_str().len())
}

/// Asks the mount itself. A process that never answers must not hang this one, so another thread
/// reads and is left behind if it gets stuck.
pub(crate) fn probe(point: &Path) -> Probe {
    probe_for(point)
}

/// [`probe`], for another part of what `@status` says.
pub(crate) fn probe_for<Status: serde::de::DeserializeOwned>(point: &Path) -> Probe<Status> {
    let file = point.join("@status");
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || {
        // Nobody listens any more after the timeout.
        sender.send(fs::read(file)).ok();
    });
    match receiver.recv_timeout(PROBE_TIMEOUT) {
        Ok(Ok(bytes)) => match serde_json::from_slice(&bytes) {
            Ok(status) => Probe::Live(status),
            Err(error) => Probe::Strange(error.to_string()),
        },
        Ok(Err(error)) => match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOTCONN | Errno::ECONNABORTED) => Probe::Dead,
            Some(Errno::EACCES | Errno::EPERM) => Probe::Closed,
            _ => Probe::Strange(error.to_string()),
        },
        Err(_) => Probe::Silent,
    }
}

/// A process that keeps a mount busy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) process_id: u32,
    pub(crate) name: String,
    /// How: `working directory`, `open file a/b`, …
    pub(crate) how: String,
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} ({}): {}", self.process_id, self.name, self.how)
    }
}

/// Who keeps `point` busy, as far as this user may see (others' processes are hidden from all but
/// root). At most `limit` of them.
pub(crate) fn users(point: &Path, limit: usize) -> Vec<User> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let mut found = Vec::new();
    for process in processes.flatten() {
        let Some(id) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Some(how) = use_of(&process.path(), point) else { continue };
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        found.push(User { process_id: id, name: name.trim_end().to_owned(), how });
        if found.len() == limit {
            break;
        }
    }
    found
}

fn use_of(process: &Path, point: &Path) -> Option<String> {
    let inside = |link: &Path| fs::read_link(link).ok().filter(|target| target.starts_with(point));
    for (link, how) in [("cwd", "working directory"), ("root", "root"), ("exe", "program")] {
        if let Some(target) = inside(&process.join(link)) {
            return Some(format!("{how} {}", target.display()));
        }
    }
    let open = fs::read_dir(process.join("fd")).ok()?;
    if let Some(target) = open.flatten().find_map(|fd| inside(&fd.path())) {
        return Some(format!("open file {}", target.display()));
    }
    let mapped = fs::read(process.join("maps")).ok()?;
    mapped
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.iter().position(|&byte| byte == b'/').map(|at| &line[at..]))
        .map(|path| Path::new(OsStr::from_bytes(path)))
        .find(|path| path.starts_with(point))
        .map(|path| format!("mapped file {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(point: &str) -> Mount {
        Mount { point: point.into(), fs_type: FS_TYPE.to_owned(), owner: None }
    }

    #[test]
    fn a_path_belongs_to_the_deepest_mount_by_whole_components() {
        let mounts = ["/", "/srv/a", "/srv/a/deep"].map(mount);
        let point = |path: &str| containing(&mounts, Path::new(path)).map(|mount| &*mount.point);
        assert_eq!(point("/srv/a/x"), Some(Path::new("/srv/a")));
        assert_eq!(point("/srv/a"), Some(Path::new("/srv/a")));
        assert_eq!(point("/srv/a/deep/x"), Some(Path::new("/srv/a/deep")));
        assert_eq!(point("/srv/ab"), Some(Path::new("/")));
    }

    #[test]
    fn this_process_is_found_by_its_working_directory() {
        let here = std::env::current_dir().unwrap();
        let users = users(&here, usize::MAX);
        let own = users.iter().find(|user| user.process_id == std::process::id()).unwrap();
        assert!(own.how.starts_with("working directory"), "{own}");
    }

    #[test]
    fn a_directory_without_a_status_is_not_taken_for_a_live_mount() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(probe(directory.path()), Probe::Strange(_)));
        fs::write(directory.path().join("@status"), r#"{"endpoint":"unix:///x","more":1}"#)
            .unwrap();
        let Probe::Live(status) = probe(directory.path()) else { panic!("not live") };
        assert_eq!((status.endpoint.as_str(), status.process_id), ("unix:///x", 0));
    }
}
