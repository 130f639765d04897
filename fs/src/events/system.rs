//! The system calls of the poker that have no safe form: a table of descriptors of its own, the
//! detached clone of a mount, and directories by their numbers.

#![expect(unsafe_code, reason = "these system calls have no safe wrapper here")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

const OPEN_TREE_CLONE: libc::c_uint = 1;

/// How the kernel calls a FUSE node number in a file handle (`FILEID_INO64_GEN`).
const HANDLE_KIND: libc::c_int = 0x81;

const FIRST_CLOSED: libc::c_uint = 0;

/// Standard input, output and errors.
const STANDARD: usize = 3;

fn descriptor(result: libc::c_long) -> nix::Result<OwnedFd> {
    let number = Errno::result(result)?;
    let number = RawFd::try_from(number).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Gives the calling thread a table of descriptors of its own, with nothing in it but `/dev/null` as
/// standard input, output and errors: whoever waits for the end of the process's own must not wait for
/// this thread. (A thread that waits for a mount of its own process would else keep the device
/// open, and a killed process would wait for itself.)
pub(super) fn own_descriptors() -> io::Result<()> {
    // SAFETY: both calls take no pointers. Only this thread's table is emptied, and it has no
    // descriptor in use.
    let results = unsafe {
        [
            libc::syscall(libc::SYS_unshare, libc::CLONE_FILES),
            libc::syscall(libc::SYS_close_range, FIRST_CLOSED, libc::c_uint::MAX, 0),
        ]
    };
    for result in results {
        Errno::result(result)?;
    }
    for _ in 0..STANDARD {
        // They are the lowest numbers, and stay open as long as the thread lives.
        let _number = File::options().read(true).write(true).open("/dev/null")?.into_raw_fd();
    }
    Ok(())
}

/// A clone of the mount at `path`, attached nowhere and without what is mounted inside.
pub(super) fn detached_clone(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC.unsigned_abs();
    // SAFETY: the path is a string that ends in NUL and outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    Ok(descriptor(result)?)
}

/// `struct mount_attr`.
#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const READ_ONLY: u64 = 1;

/// Lets the clone be written to, though the mount is read-only.
pub(super) fn make_writable(clone: &OwnedFd) -> io::Result<()> {
    let attributes =
        MountAttributes { set: 0, clear: READ_ONLY, propagation: 0, user_namespace: 0 };
    // SAFETY: the path is an empty string that ends in NUL, and the attributes have the size that is
    // given; both outlive the call, which only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            clone.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(&attributes),
            size_of::<MountAttributes>(),
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// `struct file_handle`, with the three words of a FUSE node in it.
#[repr(C)]
struct Handle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    words: [u32; 3],
}

/// Opens a directory of the mount by the number of its node, if the kernel has a name for it.
pub(super) fn open_directory(root: BorrowedFd<'_>, number: u64) -> nix::Result<OwnedFd> {
    let half = |number: u64| u32::try_from(number & u64::from(u32::MAX)).expect("it was masked");
    let handle =
        Handle { bytes: 12, kind: HANDLE_KIND, words: [half(number >> 32), half(number), 0] };
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the handle says how long it is and outlives the call, which only reads it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            root.as_raw_fd(),
            std::ptr::from_ref(&handle),
            flags,
        )
    };
    descriptor(result)
}
