//! The thread that repeats changes on a clone of the mount.
//!
//! It has a table of descriptors of its own, in which there is no device: a thread that waits for its
//! own process would else outlive it. For the same reason it logs nothing, wakes no task and tells the
//! kernel nothing itself, since all these need descriptors of the process; and it holds nodes by number
//! only. What it waits for is a request of this mount or the notifier, never the other way round.
//!
//! The clone is attached nowhere: what a user mounts inside or over the mount is not in it, and it does
//! not keep the mount busy. It does keep the file system alive, so it is closed once the mount is gone.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, FallocateFlags, OFlag, RenameFlags, fallocate, openat, renameat2};
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, UtimensatFlags, fstat, fstatat, futimens, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, gettid, symlinkat, unlinkat};

use super::poke::{Action, Poke, Spot, Touch};
use super::watched::Watched;
use super::{Events, system};
use crate::filesystem::Filesystem;
use crate::node::{Place, Tree};
use crate::node_table::NodeTable;
use crate::notices::{Notice, Notices};
use crate::panics::abort_on_panic;
use crate::path::DirectoryKey;

/// The kernel may hold an older entry for the name: then it is told to forget it, and asks.
const ATTEMPTS_MAX: usize = 5;

const EXECUTABLE: u32 = 0o111;

struct Poker {
    events: Arc<Events>,
    nodes: Arc<NodeTable>,
    notices: Notices,
    root: DirectoryKey,
    /// The root of the clone.
    top: OwnedFd,
    watched: Watched,
}

/// Starts the poker of a mount, which is over a file system of the device number `minor`. If it cannot
/// work here (it takes privilege), there are no events.
///
/// # Errors
/// If there can be no thread.
pub(crate) fn start(filesystem: &Filesystem, mount_point: PathBuf, minor: u32) -> io::Result<()> {
    let events = Arc::clone(&filesystem.events);
    let nodes = Arc::clone(&filesystem.nodes);
    let notices = filesystem.notices.clone();
    let root = filesystem.options.root.clone();
    std::thread::Builder::new().name("revfs-poker".to_owned()).spawn(move || {
        abort_on_panic(|| {
            let Ok((top, watched)) = prepare(&events, &mount_point, minor) else { return };
            events.is_on.store(true, Ordering::Release);
            Poker { events: Arc::clone(&events), nodes, notices, root, top, watched }.work();
            events.is_on.store(false, Ordering::Release);
        });
    })?;
    Ok(())
}

/// Opens the clone, in a table of descriptors of this thread's own.
fn prepare(events: &Events, mount_point: &Path, minor: u32) -> io::Result<(OwnedFd, Watched)> {
    // A file that is too large for this process's limit would be a signal that ends it.
    SigSet::all().thread_block()?;
    system::own_descriptors()?;
    let thread = u32::try_from(gettid().as_raw()).map_err(io::Error::other)?;
    events.thread.store(thread, Ordering::Release);
    let clone = system::detached_clone(mount_point)?;
    system::make_writable(&clone)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let top = openat(&clone, ".", flags, Mode::empty())?;
    let device = fstat(&top)?.st_dev;
    if libc::major(device) != 0 || libc::minor(device) != minor {
        return Err(io::Error::other("something else is mounted there by now"));
    }
    Ok((top, Watched::new(device)))
}

impl Poker {
    fn work(mut self) {
        while let Some(poke) = self.events.queue.take() {
            if !self.may_matter(&poke) {
                continue;
            }
            let performed = self.perform(&poke);
            self.events.end();
            match performed {
                Ok(()) => self.events.raised.fetch_add(1, Ordering::Relaxed),
                Err(_) => self.events.lost.fetch_add(1, Ordering::Relaxed),
            };
        }
        // Another thread may get the number of this one.
        self.events.thread.store(0, Ordering::Release);
    }

    fn number_of(&self, directory: &DirectoryKey) -> Option<u64> {
        let place = Place::Directory { tree: Tree::Live, directory: directory.clone() };
        self.nodes.known_number(&place)
    }

    fn may_matter(&mut self, poke: &Poke) -> bool {
        let spots = [Some(&poke.at), poke.to()].into_iter().flatten();
        let mut numbers: Vec<u64> =
            spots.filter_map(|spot| self.number_of(&spot.directory)).collect();
        numbers.extend(poke.subject);
        self.watched.may_matter(&numbers)
    }

    fn perform(&self, poke: &Poke) -> nix::Result<()> {
        let (at, parent) = self.open(&poke.at.directory)?;
        let to = poke.to().map(|to| self.open(&to.directory)).transpose()?;
        let to_parent = to.as_ref().map(|(_, number)| *number);
        let to = to.as_ref().map(|(directory, _)| directory.as_fd());
        let is_program = poke.subject.and_then(|number| self.nodes.is_program(number));
        let mut attempt = 1;
        loop {
            self.events.begin(poke, parent, to_parent);
            let Err(errno) = act(poke, is_program, at.as_fd(), to) else { return Ok(()) };
            let is_outdated =
                matches!(errno, Errno::ENOENT | Errno::EEXIST | Errno::ECANCELED | Errno::ESTALE);
            if attempt == ATTEMPTS_MAX || !is_outdated {
                return Err(errno);
            }
            attempt += 1;
            self.forget(parent, &poke.at);
            if let (Some(parent), Some(spot)) = (to_parent, poke.to()) {
                self.forget(parent, spot);
            }
        }
    }

    /// Has the kernel forget a name.
    fn forget(&self, parent: u64, spot: &Spot) {
        self.notices.told(Notice::Entry { parent, name: spot.name.clone() });
    }

    /// Opens a live directory: by its number, or, where the kernel has no name for that, by its path.
    fn open(&self, directory: &DirectoryKey) -> nix::Result<(OwnedFd, u64)> {
        if let Some(number) = self.number_of(directory)
            && *directory != self.root
            && let Ok(opened) = system::open_directory(self.top.as_fd(), number)
        {
            return Ok((opened, number));
        }
        let opened = self.walk(directory)?;
        let number = self.number_of(directory).ok_or(Errno::ENOENT)?;
        Ok((opened, number))
    }

    fn walk(&self, directory: &DirectoryKey) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut opened = openat(&self.top, ".", flags, Mode::empty())?;
        if *directory == self.root {
            return Ok(opened);
        }
        let key = directory.value_key().ok_or(Errno::ENOENT)?;
        let path = self.root.path_of(&key).ok_or(Errno::ENOENT)?;
        for name in path.components() {
            opened = openat(&opened, name.as_os_str(), flags, Mode::empty())?;
        }
        Ok(opened)
    }
}

/// Sends the operation. What it asks for is not done; the kernel raises the events of it.
fn act(
    poke: &Poke,
    is_program: Option<bool>,
    at: BorrowedFd<'_>,
    to: Option<BorrowedFd<'_>>,
) -> nix::Result<()> {
    let name = OsStr::from_bytes(&poke.at.name);
    match &poke.action {
        Action::Write { is_new: true, touches } => write_new(at, name, touches),
        Action::Write { is_new: false, touches } => write(at, name, touches, is_program),
        Action::Symlink => symlinkat(".", at, name),
        Action::MakeDirectory => mkdirat(at, name, Mode::S_IRWXU),
        Action::Attributes(_) if name.is_empty() => {
            let root = openat(at, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
            futimens(&root, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW)
        }
        Action::Attributes(_) => touch_by_name(at, name, Touch::Attributes),
        Action::Remove(_) => unlinkat(at, name, UnlinkatFlags::NoRemoveDir),
        Action::RemoveDirectory(_) => unlinkat(at, name, UnlinkatFlags::RemoveDir),
        Action::Rename { to: spot, .. } => {
            let new_name = OsStr::from_bytes(&spot.name);
            renameat2(at, name, to.ok_or(Errno::EINVAL)?, new_name, RenameFlags::empty())
        }
    }
}

/// A pipe under that name must not make this thread wait for a reader.
const TO_WRITE: OFlag =
    OFlag::O_WRONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);

fn write_new(at: BorrowedFd<'_>, name: &OsStr, touches: &[Touch]) -> nix::Result<()> {
    let flags = TO_WRITE | OFlag::O_CREAT | OFlag::O_EXCL;
    let file = openat(at, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
    touch_all(&file, touches)
}

/// A program cannot be started while it is open to be written, so that it is not opened.
fn write(
    at: BorrowedFd<'_>,
    name: &OsStr,
    touches: &[Touch],
    is_program: Option<bool>,
) -> nix::Result<()> {
    let is_program = match is_program {
        Some(is_program) => is_program,
        None => {
            let status = fstatat(at, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            if status.st_mode & libc::S_IFMT != libc::S_IFREG {
                return Err(Errno::EBUSY);
            }
            status.st_mode & EXECUTABLE != 0
        }
    };
    if !is_program {
        match openat(at, name, TO_WRITE, Mode::empty()) {
            Err(Errno::ETXTBSY) => {}
            opened => return touch_all(&opened?, touches),
        }
    }
    touches.iter().try_for_each(|touch| touch_by_name(at, name, *touch))
}

fn touch_all(file: &OwnedFd, touches: &[Touch]) -> nix::Result<()> {
    for touch in touches {
        // Room for bytes, perhaps beyond the end: a write whose answer has no attributes in it, so that the key
        // space is not asked, and the kernel only forgets those that it has.
        let is_done = *touch == Touch::Content
            && fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, 1).is_ok();
        if !is_done {
            futimens(file, &accessed(*touch), &TimeSpec::UTIME_NOW)?;
        }
    }
    Ok(())
}

fn touch_by_name(at: BorrowedFd<'_>, name: &OsStr, touch: Touch) -> nix::Result<()> {
    let flags = UtimensatFlags::NoFollowSymlink;
    utimensat(at, name, &accessed(touch), &TimeSpec::UTIME_NOW, flags)
}

/// Setting both times is a change of attributes, setting that of the content alone is a write.
fn accessed(touch: Touch) -> TimeSpec {
    match touch {
        Touch::Content => TimeSpec::UTIME_OMIT,
        Touch::Attributes => TimeSpec::UTIME_NOW,
    }
}
