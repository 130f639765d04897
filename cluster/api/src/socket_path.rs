//! Unix socket paths of any length. The kernel takes 107 bytes; a longer path is reached through its
//! directory, held open, as `/proc/self/fd/N/name`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// `sun_path` has 108 bytes, the last of which is NUL.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A name for a socket that bind and connect take, valid as long as this value lives.
#[derive(Debug)]
pub struct SocketPath {
    short: PathBuf,
    /// Keeps the number in `short` alive.
    _directory: Option<File>,
}

impl SocketPath {
    /// # Errors
    /// If the path is too long and its directory cannot be opened, or its last component alone is
    /// too long.
    pub fn new(path: &Path) -> io::Result<Self> {
        if path.as_os_str().as_bytes().len() <= SOCKET_PATH_BYTES_MAX {
            return Ok(Self { short: path.to_owned(), _directory: None });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"));
        };
        let directory = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
            .open(parent)?;
        let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
        let bytes = short.as_os_str().as_bytes().len();
        if bytes > SOCKET_PATH_BYTES_MAX {
            let reason = format!(
                "socket name of {} bytes is too long: use one of at most 80",
                name.as_bytes().len()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        Ok(Self { short, _directory: Some(directory) })
    }

    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.short
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_path_stays_as_it_is() {
        let path = Path::new("/run/revfs/socket");
        assert_eq!(SocketPath::new(path).unwrap().as_path(), path);
    }

    #[test]
    fn a_long_path_is_bound_and_reached_through_its_directory() {
        let top = tempfile::tempdir().unwrap();
        let directory = top.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("socket");
        let long = SocketPath::new(&path).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(long.as_path()).unwrap();
        assert!(path.exists());
        drop(
            std::os::unix::net::UnixStream::connect(SocketPath::new(&path).unwrap().as_path())
                .unwrap(),
        );
        drop(listener);
    }

    #[test]
    fn a_name_that_cannot_be_shortened_is_refused_with_its_length() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("n".repeat(150));
        let error = SocketPath::new(&path).unwrap_err().to_string();
        assert!(error.contains("150 bytes"), "{error}");
    }
}
