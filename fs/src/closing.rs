//! Whether a FLUSH is a close: the question that decides when staged content is committed.
//!
//! The kernel sends FLUSH for each descriptor that goes, also for copies of it: `echo x > f` flushes
//! when the shell moves the descriptor, and `{ a; b; } > f` when each child exits. What a person means
//! by "closed" is that the process that opened the file has no descriptor left to write it with. /proc
//! tells: `/proc/PID/fdinfo/*` names the inode and the flags of each descriptor, and at a FLUSH the
//! descriptor that goes is no longer among them (also not while a process exits: its table is then
//! gone). A descriptor that is open for reading only cannot be a copy of one that writes, and does not
//! count: who reads a file and writes it anew has closed it when the writing descriptor is closed.
//!
//! A handle opened by a *thread* belongs to its process, which outlives the thread; so the process is
//! noted when the file is opened.

use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// What /proc says of a process and an inode: whether it could still write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    /// With so many descriptors, at least one.
    Yes(usize),
    /// It has no descriptor of the inode that could write, or it is gone.
    No,
    /// The process is in another pid namespace, or /proc hides it.
    Unknown,
}

/// The process of a thread; 0 if there is no telling.
pub(crate) fn process_of(thread: u32) -> u32 {
    if thread == 0 {
        return 0;
    }
    let Ok(status) = read(Path::new(&format!("/proc/{thread}/status"))) else { return 0 };
    field(&status, "Tgid:").and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}

/// Whether `process` has a descriptor for writing of the inode numbered `ino`. (Another file system may have the
/// same number: it is one of 2^63, and the answer `Yes` only delays a commit to RELEASE.)
pub(crate) fn holds(process: u32, ino: u64) -> Holds {
    if process == 0 {
        return Holds::Unknown;
    }
    let folder = format!("/proc/{process}/fdinfo");
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return gone_or_hidden(process),
        Err(_) => return Holds::Unknown,
    };
    let mut writing = 0;
    for entry in entries {
        let Ok(entry) = entry else { return gone_or_hidden(process) };
        if is_nameless(process, &entry.file_name()) {
            continue;
        }
        match read(&entry.path()) {
            Ok(text) if field(&text, "ino:") == Some(ino) && may_write(&text) => writing += 1,
            Ok(_) => {}
            // Closed since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(_) => return Holds::Unknown,
        }
    }
    if writing == 0 { Holds::No } else { Holds::Yes(writing) }
}

/// Whether a descriptor is of a pipe, a socket or the like: one look instead of three, and a process has
/// several of them. (A file of the mount has a path, of which nothing is assumed.)
fn is_nameless(process: u32, descriptor: &OsStr) -> bool {
    let link = Path::new("/proc").join(process.to_string()).join("fd").join(descriptor);
    let target = fs::read_link(link);
    target.is_ok_and(|target| !target.as_os_str().as_encoded_bytes().starts_with(b"/"))
}

/// Where /proc has no such process: gone, or hidden from this one (`hidepid`)?
fn gone_or_hidden(process: u32) -> Holds {
    let Ok(process) = i32::try_from(process) else { return Holds::Unknown };
    match kill(Pid::from_raw(process), None) {
        Err(Errno::ESRCH) => Holds::No,
        // A process that exits has no descriptors any more, though it is still there.
        Ok(()) if Path::new(&format!("/proc/{process}")).exists() => Holds::No,
        Ok(()) | Err(_) => Holds::Unknown,
    }
}

/// Reads a file of /proc, or as much of it as one page holds: what is asked for stands at the beginning.
fn read(path: &Path) -> std::io::Result<String> {
    let mut page = [0; 4096];
    let bytes = fs::File::open(path)?.read(&mut page)?;
    Ok(String::from_utf8_lossy(&page[..bytes]).into_owned())
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)).and_then(|rest| rest.trim().parse().ok())
}

/// Whether a descriptor is open for more than reading: `flags:` holds those of `open(2)`, in octal.
fn may_write(text: &str) -> bool {
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_none_or(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY)
}

#[cfg(test)]
mod tests {
    //! This process, its threads and a child as witnesses.

    use std::os::unix::fs::MetadataExt;
    use std::process::{Command, Stdio};

    use super::{Holds, holds, process_of};

    #[test]
    fn a_descriptor_is_seen_until_its_last_copy_is_closed() {
        let file = tempfile::tempfile().unwrap();
        let ino = file.metadata().unwrap().ino();
        let own = std::process::id();
        assert_eq!(holds(own, ino), Holds::Yes(1));
        let copy = file.try_clone().unwrap();
        assert_eq!(holds(own, ino), Holds::Yes(2));
        drop(file);
        assert_eq!(holds(own, ino), Holds::Yes(1));
        drop(copy);
        assert_eq!(holds(own, ino), Holds::No);
    }

    #[test]
    fn a_descriptor_that_only_reads_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let writer = std::fs::File::create(&path).unwrap();
        let ino = writer.metadata().unwrap().ino();
        let _reader = std::fs::File::open(&path).unwrap();
        let both = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        let own = std::process::id();
        drop(writer);
        assert_eq!(holds(own, ino), Holds::Yes(1));
        drop(both);
        assert_eq!(holds(own, ino), Holds::No);
    }

    #[test]
    fn a_process_that_ended_holds_nothing() {
        let file = tempfile::tempfile().unwrap();
        let ino = file.metadata().unwrap().ino();
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(file.try_clone().unwrap())
            .spawn()
            .unwrap();
        // A program that has just begun may still hold what closes at exec: one or more.
        assert!(matches!(holds(child.id(), ino), Holds::Yes(_)));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(holds(child.id(), ino), Holds::No);
    }

    #[test]
    fn a_thread_belongs_to_its_process() {
        let own = std::process::id();
        let thread = std::thread::spawn(|| {
            let thread = nix::unistd::gettid().as_raw();
            process_of(u32::try_from(thread).unwrap())
        });
        assert_eq!(thread.join().unwrap(), own);
        assert_eq!(process_of(own), own);
    }

    #[test]
    fn an_unknown_caller_cannot_be_told() {
        assert_eq!(process_of(0), 0);
        assert_eq!(holds(0, 1), Holds::Unknown);
    }
}
