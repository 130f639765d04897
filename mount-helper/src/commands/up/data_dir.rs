//! The directory that holds a node's data, and who holds it.
//!
//! One process at a time: it keeps an exclusive lock on `revfs.lock`, in which it says who it is. The
//! lock goes with the process, however it ends; the text in the file may be old and counts only while
//! the lock is held.
//!
//!     revfs.lock   held and described by the running process
//!     revfs.sock   its unix socket
//!     revfs.log    what it logs when it runs in the background
//!     revfs.keep   how long history is kept
//!     …            the rest is the node's

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::data_lock::{LOCK_FILE, is_held};
use crate::error::{Failure, Result};
use crate::log_file::LogFile;

/// The longest name of a directory entry that file systems have in common.
const NAME_BYTES_MAX: usize = 255;

/// A data directory whose lock this process holds until it drops it.
#[derive(Debug)]
pub(crate) struct DataDir {
    pub(crate) path: PathBuf,
    lock: File,
}

/// What the holder of the lock says of itself.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Holder {
    pub(crate) process_id: u32,
    /// Empty if the node serves without a mount.
    pub(crate) mount_point: String,
    /// It serves others: it does not end with its mount.
    #[serde(default)]
    pub(crate) serves: bool,
}

/// What a data directory is held for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Use<'a> {
    /// The process lives as long as its mount.
    Mounts(&'a Path),
    /// It serves others, and may have a mount beside.
    Serves(Option<&'a Path>),
}

/// Where the data of a mount lies if nobody says otherwise.
///
/// # Errors
/// If neither `$XDG_DATA_HOME` nor `$HOME` is set for a user who is not root, or the name of the
/// mount point is too long to be escaped into one name.
pub(crate) fn default_path(mount_point: &Path) -> Result<PathBuf> {
    let is_root = nix::unistd::geteuid().is_root();
    let set = |name: &str| std::env::var_os(name).filter(|value| Path::new(value).is_absolute());
    let base = match (is_root, set("XDG_DATA_HOME"), set("HOME")) {
        (true, ..) => PathBuf::from("/var/lib"),
        (false, Some(data), _) => PathBuf::from(data),
        (false, None, Some(home)) => PathBuf::from(home).join(".local/share"),
        (false, None, None) => {
            return Err(Failure::usage("neither XDG_DATA_HOME nor HOME is set")
                .hint("say where the data goes: --data-dir DIR"));
        }
    };
    let name = escape(mount_point);
    if name.len() > NAME_BYTES_MAX {
        return Err(Failure::usage(format!(
            "the path '{}' is too long to name its data directory: {} bytes, at most {NAME_BYTES_MAX}",
            mount_point.display(),
            name.len()
        ))
        .hint("say where the data goes: --data-dir DIR"));
    }
    Ok(base.join("revfs").join(std::ffi::OsString::from_vec(name)))
}

/// One file name for an absolute path, as systemd names mount units: `/srv/my-conf` is
/// `srv-my\x2dconf`. Different paths have different names.
fn escape(path: &Path) -> Vec<u8> {
    let bytes = path.as_os_str().as_bytes();
    let inner = bytes.strip_prefix(b"/").unwrap_or(bytes);
    let mut name = Vec::with_capacity(inner.len());
    for (at, &byte) in inner.iter().enumerate() {
        let is_plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'_' | b':' | b'.' if at > 0)
            || byte >= 0x80;
        match byte {
            b'/' => name.push(b'-'),
            _ if is_plain => name.push(byte),
            _ => name.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
    if name.is_empty() { b"-".to_vec() } else { name }
}

/// [`escape`] as text, where a name is shown or need not be read back.
pub(crate) fn escape_text(path: &Path) -> String {
    String::from_utf8_lossy(&escape(path)).into_owned()
}

impl DataDir {
    /// Creates the directory if it is missing (only its owner may look in) and takes the lock.
    ///
    /// # Errors
    /// `Conflict` naming the holder if another process has the lock.
    pub(crate) fn open(path: PathBuf, wanted: Use<'_>) -> Result<Self> {
        let shown = path.display().to_string();
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(|error| {
            Failure::caused(format!("cannot create the data directory '{shown}'"), &error)
                .hint("choose another with --data-dir")
        })?;
        let file = path.join(LOCK_FILE);
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&file)
            .map_err(|error| {
                Failure::caused(format!("cannot open '{}'", file.display()), &error)
                    .hint("does the data directory belong to this user? --data-dir names another")
            })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(&shown, holder(&lock))),
            Err(TryLockError::Error(error)) => {
                return Err(Failure::caused(format!("cannot lock '{}'", file.display()), &error));
            }
        }
        let this = Self { path, lock };
        this.describe(wanted).map_err(|error| {
            Failure::caused(format!("cannot write '{}'", file.display()), &error)
        })?;
        Ok(this)
    }

    /// The mount of who serves is gone.
    pub(crate) fn tell_unmounted(&self) -> io::Result<()> {
        self.describe(Use::Serves(None))
    }

    fn describe(&self, wanted: Use<'_>) -> io::Result<()> {
        let (point, serves) = match wanted {
            Use::Mounts(point) => (Some(point), false),
            Use::Serves(point) => (point, true),
        };
        let mount_point = point.map(|point| point.display().to_string()).unwrap_or_default();
        let holder = Holder { process_id: std::process::id(), mount_point, serves };
        let mut lock = &self.lock;
        lock.set_len(0)?;
        lock.rewind()?;
        lock.write_all(&serde_json::to_vec(&holder)?)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path.join("revfs.sock")
    }

    /// Opens the log for appending.
    pub(crate) fn open_log(&self) -> Result<LogFile> {
        let path = self.path.join("revfs.log");
        LogFile::open(path.clone()).map_err(|error| {
            Failure::caused(format!("cannot open the log '{}'", path.display()), &error)
        })
    }
}

/// Who holds the data directory `path`, if anybody does.
pub(crate) fn holder_of(path: &Path) -> Option<Holder> {
    if !is_held(path) {
        return None;
    }
    File::open(path.join(LOCK_FILE)).ok().as_ref().and_then(holder)
}

fn holder(lock: &File) -> Option<Holder> {
    let mut text = Vec::new();
    // Bounded: the file is ours, but may hold anything.
    lock.take(64 << 10).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

fn held(shown: &str, holder: Option<Holder>) -> Failure {
    match holder {
        Some(Holder { process_id, mount_point, serves }) if serves || mount_point.is_empty() => {
            Failure::conflict(format!(
                "the data directory '{shown}' is in use by process {process_id}, which serves it"
            ))
            .hint(format!("stop it with: kill {process_id}"))
            .hint("or keep other data: --data-dir DIR")
        }
        Some(Holder { process_id, mount_point, .. }) => Failure::conflict(format!(
            "the data directory '{shown}' is in use by process {process_id}, which mounts it at '{mount_point}'"
        ))
        .hint(format!("stop it with: revfs umount {mount_point}"))
        .hint("or keep other data: --data-dir DIR"),
        None => Failure::conflict(format!("the data directory '{shown}' is in use by another process"))
            .hint("stop that process, or keep other data: --data-dir DIR"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::error::Kind;

    fn name(path: &str) -> String {
        String::from_utf8(escape(Path::new(path))).unwrap()
    }

    #[test]
    fn a_path_is_escaped_into_one_name_and_no_two_into_the_same() {
        assert_eq!(name("/srv/conf"), "srv-conf");
        assert_eq!(name("/srv/my-conf"), "srv-my\\x2dconf");
        assert_eq!(name("/"), "-");
        assert_eq!(name("/a b/größe"), "a\\x20b-größe");
        let paths = ["/a/b", "/a-b", "/a\\x2db", "/.a", "/a/.b", "/a.b"];
        let names: std::collections::BTreeSet<String> =
            paths.iter().map(|path| name(path)).collect();
        assert_eq!(names.len(), paths.len());
        assert!(!name("/.").starts_with('.'));
    }

    #[test]
    fn a_second_holder_is_refused_by_name_and_the_lock_goes_with_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        let first = DataDir::open(path.clone(), Use::Mounts(Path::new("/srv/x"))).unwrap();
        assert!(is_held(&path));
        assert_eq!(holder_of(&path).unwrap().mount_point, "/srv/x");
        let refused = DataDir::open(path.clone(), Use::Serves(None)).unwrap_err();
        assert_eq!(refused.kind, Kind::Conflict);
        let text = refused.render();
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
        assert!(text.contains("revfs umount /srv/x"), "{text}");
        drop(first);
        assert!(!is_held(&path));
        assert_eq!(holder_of(&path), None);
        let serving = DataDir::open(path.clone(), Use::Serves(Some(Path::new("/srv/y")))).unwrap();
        assert_eq!(holder_of(&path).unwrap().mount_point, "/srv/y");
        serving.tell_unmounted().unwrap();
        let holder = holder_of(&path).unwrap();
        assert_eq!((holder.mount_point.as_str(), holder.serves), ("", true));
    }

    #[test]
    fn only_its_owner_may_look_into_a_new_data_directory() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::open(directory.path().join("a/data"), Use::Serves(None)).unwrap();
        assert_eq!(fs::metadata(&data.path).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
