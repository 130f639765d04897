//! mount(2), umount(2) and fusermount3: how the mount comes and goes.
//!
//! fuser's own unmount at the end of a session goes by path, and cannot tell whether the mount there is
//! still its own; so mounting is done here and fuser is handed the open device.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::unistd::{getegid, geteuid};

use super::table::top_mount_at;
use crate::filesystem::MountOptions;

/// How the kernel and `mount -t` call it.
const KIND: &str = "fuse.revfs";

/// Refuses what cannot be mounted on: what is no directory, or is not empty (what is in it would be
/// hidden), or has a revfs mounted already.
///
/// # Errors
/// Names the path and what is wrong with it.
pub fn check_mount_point(path: &Path) -> io::Result<()> {
    let refused = |kind, what: String| {
        Err(io::Error::new(kind, format!("cannot mount on {}: {what}", path.display())))
    };
    let path = match path.canonicalize() {
        Ok(path) => path,
        Err(error) => return refused(error.kind(), error.to_string()),
    };
    if top_mount_at(&path)?.is_some_and(|mount| mount.kind == KIND) {
        return refused(io::ErrorKind::AlreadyExists, "a revfs is mounted there".to_owned());
    }
    if !fs::metadata(&path)?.is_dir() {
        return refused(io::ErrorKind::NotADirectory, "it is not a directory".to_owned());
    }
    match fs::read_dir(&path)?.next() {
        None => Ok(()),
        Some(_) => refused(io::ErrorKind::DirectoryNotEmpty, "it is not empty".to_owned()),
    }
}

/// Takes away a mount whose process is gone (each access to it says "transport endpoint is not
/// connected"). Returns whether there was one. Not to be called on a mount of this process.
///
/// # Errors
/// Why it cannot be unmounted.
pub fn clear_dead_mount(path: &Path) -> io::Result<bool> {
    // Not canonicalised as a whole: that would look into the mount.
    let path = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if parent.as_os_str().is_empty() => {
            std::env::current_dir()?.join(name)
        }
        (Some(parent), Some(name)) => parent.canonicalize()?.join(name),
        _ => path.to_owned(),
    };
    if top_mount_at(&path)?.is_none_or(|mount| mount.kind != KIND) {
        return Ok(false);
    }
    match fs::metadata(&path) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {
            unmount(&path, true).map(|()| true)
        }
        Ok(_) | Err(_) => Ok(false),
    }
}

/// Mounts and returns the open device.
pub(super) fn attach(mount_point: &Path, options: &MountOptions) -> io::Result<OwnedFd> {
    let device = match File::options().read(true).write(true).open("/dev/fuse") {
        Ok(device) => device,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return fusermount::attach(mount_point, options);
        }
        Err(error) => {
            let what = format!("cannot open /dev/fuse: {error} (is the module `fuse` loaded?)");
            return Err(io::Error::new(error.kind(), what));
        }
    };
    let mode = fs::metadata(mount_point)?.permissions().mode();
    let data = format!(
        "fd={},rootmode={:o},user_id={},group_id={},default_permissions{}",
        device.as_raw_fd(),
        mode,
        geteuid(),
        getegid(),
        if options.allow_other { ",allow_other" } else { "" },
    );
    let mut flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOATIME;
    flags.set(MsFlags::MS_NOEXEC, options.no_exec);
    let source = Some(options.source.as_str());
    match nix::mount::mount(source, mount_point, Some(KIND), flags, Some(data.as_str())) {
        Ok(()) if options.read_only => {
            make_read_only(mount_point, flags).inspect_err(|_| detach(mount_point))?;
            Ok(device.into())
        }
        Ok(()) => Ok(device.into()),
        Err(Errno::EPERM) => fusermount::attach(mount_point, options),
        Err(errno) => {
            let what = format!("cannot mount on {}: {}", mount_point.display(), errno.desc());
            Err(io::Error::new(io::Error::from(errno).kind(), what))
        }
    }
}

/// Makes the mount read-only, but not the file system: the thread that repeats changes made elsewhere
/// has a mount of its own.
fn make_read_only(mount_point: &Path, flags: MsFlags) -> io::Result<()> {
    let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    nix::mount::mount(None::<&str>, mount_point, None::<&str>, flags, None::<&str>)?;
    Ok(())
}

/// Unmounts what is mounted at a path; `lazily`: from under those who use it.
pub(super) fn unmount(mount_point: &Path, lazily: bool) -> io::Result<()> {
    let how = if lazily { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    match umount2(mount_point, how | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::EPERM) => fusermount::unmount(mount_point, lazily),
        Err(errno) => Err(errno.into()),
    }
}

/// [`unmount`] from under everybody, where nobody is left to hear of an error.
pub(super) fn detach(mount_point: &Path) {
    if let Err(error) = unmount(mount_point, true) {
        tracing::warn!(mount_point = %mount_point.display(), %error, "unmount");
    }
}

/// Has the kernel ask again for every name that it holds (FUSE_NOTIFY_INC_EPOCH, Linux 6.16).
pub(super) fn expire_names(device: &OwnedFd) -> io::Result<()> {
    const INCREASE_EPOCH: u32 = 8;
    const MESSAGE_BYTES: u32 = 16;
    let mut message = [0; MESSAGE_BYTES as usize];
    message[..4].copy_from_slice(&native(MESSAGE_BYTES));
    message[4..8].copy_from_slice(&native(INCREASE_EPOCH));
    nix::unistd::write(device, &message).map(drop).map_err(io::Error::from)
}

#[expect(clippy::host_endian_bytes, reason = "the kernel of this host reads it")]
fn native(number: u32) -> [u8; 4] {
    number.to_ne_bytes()
}

/// Mounting for those who may not: the set-user-id program of libfuse.
mod fusermount {
    use std::io::{self, IoSliceMut, Read};
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

    use nix::sys::socket::{
        AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg,
        socketpair,
    };

    use super::{Command, MountOptions, Path};

    const PROGRAM: &str = "fusermount3";

    fn not_found(error: &io::Error) -> io::Error {
        let what = format!("cannot run {PROGRAM}: {error} (install the package fuse3)");
        io::Error::new(error.kind(), what)
    }

    pub(super) fn attach(mount_point: &Path, options: &MountOptions) -> io::Result<OwnedFd> {
        // Not closed on exec: the program sends the device over it.
        let (own, theirs) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::empty())?;
        let source = options.source.replace('\\', "\\\\").replace(',', "\\,");
        let mut words = format!("default_permissions,noatime,fsname={source},subtype=revfs");
        if options.allow_other {
            words.push_str(",allow_other");
        }
        if options.read_only {
            words.push_str(",ro");
        }
        if options.no_exec {
            words.push_str(",noexec");
        }
        let mut child = Command::new(PROGRAM)
            .args(["-o", &words, "--"])
            .arg(mount_point)
            .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .map_err(|error| not_found(&error))?;
        drop(theirs);
        let device = receive_device(own.as_raw_fd());
        let mut said = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            stderr.read_to_string(&mut said)?;
        }
        let status = child.wait()?;
        match device {
            Ok(Some(device)) if status.success() => Ok(device),
            Ok(_) | Err(_) => Err(io::Error::other(format!(
                "cannot mount on {}: {PROGRAM}: {}",
                mount_point.display(),
                said.trim()
            ))),
        }
    }

    fn receive_device(socket: RawFd) -> io::Result<Option<OwnedFd>> {
        let mut byte = [0];
        let mut buffers = [IoSliceMut::new(&mut byte)];
        let mut control = nix::cmsg_space!(RawFd);
        let message = recvmsg::<UnixAddr>(
            socket,
            &mut buffers,
            Some(&mut control),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        for own in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(received) = own
                && let Some(&device) = received.first()
            {
                #[expect(unsafe_code, reason = "there is no safe way to receive a descriptor")]
                // SAFETY: the kernel has just made this descriptor for this process, and nobody else
                // in it knows its number.
                return Ok(Some(unsafe { OwnedFd::from_raw_fd(device) }));
            }
        }
        Ok(None)
    }

    pub(super) fn unmount(mount_point: &Path, lazily: bool) -> io::Result<()> {
        let how = if lazily { "-uz" } else { "-u" };
        let output = Command::new(PROGRAM)
            .args([how, "--"])
            .arg(mount_point)
            .output()
            .map_err(|error| not_found(&error))?;
        if output.status.success() {
            return Ok(());
        }
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}
