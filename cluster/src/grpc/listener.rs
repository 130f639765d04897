//! Listening sockets. The socket in the data directory belongs to its user alone from its first moment; one that a dead
//! server left behind is replaced, one that answers is not.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, fchmod};
use revfs_api::socket_path::SocketPath;
use tokio::net::{TcpListener, UnixListener, UnixSocket, UnixStream};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {address}: {source}")]
    Tcp { address: SocketAddr, source: io::Error },
    #[error("cannot listen on the socket {path}: {source}")]
    Unix { path: PathBuf, source: io::Error },
    #[error("another process answers on the socket {path}: stop it first")]
    Answered { path: PathBuf },
    #[error("{path} is not a socket: move it away, or choose another path for the socket")]
    NotASocket { path: PathBuf },
}

/// A bound unix socket; its file is removed when it is released, unless another one has its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    fn identity(path: &Path) -> io::Result<(u64, u64)> {
        let metadata = std::fs::symlink_metadata(path)?;
        Ok((metadata.dev(), metadata.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if Self::identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // A file that stays is a stale socket: the next start replaces it.
            std::fs::remove_file(&self.path).ok();
        }
    }
}

pub(crate) async fn tcp(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| ListenError::Tcp { address, source })
}

/// Whom a unix socket lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenTo {
    /// Its owner.
    Owner,
    /// Whomever the process's umask leaves the right to write, as with any server.
    Umask,
}

pub(super) async fn unix(
    path: &Path,
    open_to: OpenTo,
) -> Result<(UnixListener, SocketFile), ListenError> {
    let failed = |source| ListenError::Unix { path: path.to_owned(), source };
    let short = SocketPath::new(path).map_err(failed)?;
    remove_stale(path, short.as_path()).await?;
    let socket = UnixSocket::new_stream().map_err(failed)?;
    // The mode of the socket becomes that of the file that bind creates: at no time may anyone else
    // connect.
    if open_to == OpenTo::Owner {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        fchmod(socket.as_fd(), mode).map_err(|errno| failed(errno.into()))?;
    }
    socket.bind(short.as_path()).map_err(failed)?;
    let identity = SocketFile::identity(path).map_err(failed)?;
    let file = SocketFile { path: path.to_owned(), identity };
    let listener = socket.listen(BACKLOG).map_err(failed)?;
    Ok((listener, file))
}

/// Removes a socket on which nobody answers.
async fn remove_stale(path: &Path, short: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::Unix { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ListenError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(short).await {
        Ok(_) => Err(ListenError::Answered { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}
