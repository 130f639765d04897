//! Answers as replies to the kernel.
//!
//! Each entry in a reply that succeeds counts one lookup of its node, before the reply is sent.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, PollEvents,
    PollNotifier, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyLock, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr,
};

use crate::filesystem::{Answer, Filesystem, Found};
use crate::found::Shown;
use crate::listing::{DirectoryHandle, Listing};
use crate::locks::Kind;
use crate::notices::Notice;
use crate::ops::{DirectoryEntry, InTheWay, Opened, Pages, Statistics};
use crate::path::NAME_BYTES_MAX;
use crate::watching::{Readiness, Wake};

/// Nodes are never reused for something else while the kernel knows them.
pub(super) const GENERATION: Generation = Generation(0);

pub(super) fn empty(reply: ReplyEmpty, answer: Answer<()>) {
    match answer {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

pub(super) fn in_the_way(reply: ReplyLock, answer: Answer<Option<InTheWay>>) {
    match answer {
        Ok(Some(InTheWay { start, end, kind, pid })) => {
            let kind = match kind {
                Kind::Shared => libc::F_RDLCK,
                Kind::Exclusive => libc::F_WRLCK,
            };
            reply.locked(start, end, kind, pid);
        }
        Ok(None) => reply.locked(0, 0, libc::F_UNLCK, 0),
        Err(errno) => reply.error(errno),
    }
}

pub(super) fn data(reply: ReplyData, answer: Answer<Bytes>) {
    match answer {
        Ok(bytes) => reply.data(&bytes),
        Err(errno) => reply.error(errno),
    }
}

/// Has the kernel ask again. (It may have forgotten who polled.)
pub(super) fn wake(notifier: PollNotifier) -> Wake {
    Box::new(move || drop(notifier.notify()))
}

pub(super) fn poll(reply: ReplyPoll, answer: Answer<Readiness>) {
    let readable = PollEvents::POLLIN | PollEvents::POLLRDNORM;
    match answer {
        Ok(Readiness::Nothing) => reply.poll(PollEvents::empty()),
        Ok(Readiness::Lines) => reply.poll(readable),
        Ok(Readiness::End) => reply.poll(readable | PollEvents::POLLHUP),
        Ok(Readiness::Always) => {
            reply.poll(readable | PollEvents::POLLOUT | PollEvents::POLLWRNORM);
        }
        // A read says which.
        Err(_) => reply.poll(readable | PollEvents::POLLERR),
    }
}

pub(super) fn attr(reply: ReplyAttr, answer: Answer<Shown>) {
    match answer {
        Ok(shown) => reply.attr(&shown.ttl, &shown.attr),
        Err(errno) => reply.error(errno),
    }
}

pub(super) fn entry(own: &Filesystem, reply: ReplyEntry, answer: Answer<Found>) {
    match answer {
        Ok(found) => {
            own.nodes.count_lookup(&found.node);
            reply.entry_with_ttls(&found.attr_ttl, &found.entry_ttl, &found.attr, GENERATION);
        }
        Err(errno) => reply.error(errno),
    }
}

/// [`entry`], or has the kernel remember that there is none.
pub(super) fn entry_or_absent(own: &Filesystem, reply: ReplyEntry, answer: Answer<Option<Found>>) {
    let ttl = own.live_ttl();
    match answer.transpose() {
        Some(answer) => entry(own, reply, answer),
        None if ttl.is_zero() => reply.error(Errno::ENOENT),
        None => reply.entry_with_ttls(&Duration::ZERO, &ttl, &nothing(), GENERATION),
    }
}

/// The kernel takes an entry without a number for "there is none".
fn nothing() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

pub(super) fn open(reply: ReplyOpen, answer: Answer<(Opened, Pages)>) {
    match answer {
        Ok((opened, pages)) => reply.opened(FileHandle(opened.handle), open_flags(opened, pages)),
        Err(errno) => reply.error(errno),
    }
}

/// Longer than the kernel takes from the answer to CREATE to the end of `open`. It counts in ticks of its
/// clock, at most two here.
const WHILE_OPENED: Duration = Duration::from_nanos(1);

pub(super) fn create(own: &Filesystem, reply: ReplyCreate, answer: Answer<(Found, Opened, Pages)>) {
    match answer {
        Ok((found, opened, pages)) => {
            own.nodes.count_lookup(&found.node);
            // Without, the kernel asks for the attributes again before it lets the caller write.
            let ttl = found.entry_ttl.min(found.attr_ttl).max(WHILE_OPENED);
            let handle = FileHandle(opened.handle);
            reply.created(&ttl, &found.attr, GENERATION, handle, open_flags(opened, pages));
        }
        Err(errno) => reply.error(errno),
    }
}

/// The kernel may ask for set-id bits to be cleared, but goes on showing the mode that it has.
pub(super) fn written(
    own: &Filesystem,
    reply: ReplyWrite,
    answer: Answer<u32>,
    ino: INodeNo,
    clears_set_ids: bool,
) {
    match answer {
        Ok(count) => {
            reply.written(count);
            if clears_set_ids {
                own.notices.send(Notice::Attributes(ino.0));
            }
        }
        Err(errno) => reply.error(errno),
    }
}

fn open_flags(opened: Opened, pages: Pages) -> FopenFlags {
    let pages = match pages {
        Pages::Keep => FopenFlags::FOPEN_KEEP_CACHE,
        Pages::Drop => FopenFlags::empty(),
        Pages::Direct => FopenFlags::FOPEN_DIRECT_IO,
    };
    if opened.needs_no_flush { pages | FopenFlags::FOPEN_NOFLUSH } else { pages }
}

pub(super) fn statfs(reply: ReplyStatfs, answer: Answer<Statistics>) {
    let name_bytes = u32::try_from(NAME_BYTES_MAX).expect("255 fits");
    match answer {
        Ok(Statistics { blocks, free }) => {
            let block = Statistics::BLOCK_BYTES;
            reply.statfs(blocks, free, free, 0, 0, block, name_bytes, block);
        }
        Err(errno) => reply.error(errno),
    }
}

/// `size` is the caller's room; 0 asks for the length.
pub(super) fn xattr(reply: ReplyXattr, size: u32, answer: Answer<Bytes>) {
    let value = match answer {
        Ok(value) => value,
        Err(errno) => return reply.error(errno),
    };
    match u32::try_from(value.len()) {
        Ok(bytes) if size == 0 => reply.size(bytes),
        Ok(bytes) if bytes <= size => reply.data(&value),
        Ok(_) | Err(_) => reply.error(Errno::ERANGE),
    }
}

pub(super) fn directory(
    own: &Filesystem,
    mut reply: ReplyDirectory,
    offset: u64,
    answer: Answer<(std::sync::Arc<DirectoryHandle>, std::sync::Arc<Listing>)>,
) {
    let (handle, listing) = match answer {
        Ok(listed) => listed,
        Err(errno) => return reply.error(errno),
    };
    each_entry(own, &handle, &listing, offset, false, |entry, next| {
        reply.add(INodeNo(entry.ino), next, entry.kind, OsStr::from_bytes(&entry.name))
    });
    reply.ok();
}

pub(super) fn directory_plus(
    own: &Filesystem,
    mut reply: ReplyDirectoryPlus,
    offset: u64,
    answer: Answer<(std::sync::Arc<DirectoryHandle>, std::sync::Arc<Listing>)>,
) {
    let (handle, listing) = match answer {
        Ok(listed) => listed,
        Err(errno) => return reply.error(errno),
    };
    each_entry(own, &handle, &listing, offset, true, |entry, next| {
        add_plus(own, &mut reply, entry, next)
    });
    reply.ok();
}

/// Hands the entries from `offset` on to `add`, each with the position after it, until that says that
/// its buffer is full. (The rest is asked for again.)
fn each_entry(
    own: &Filesystem,
    handle: &DirectoryHandle,
    listing: &Listing,
    offset: u64,
    plus: bool,
    mut add: impl FnMut(&DirectoryEntry, u64) -> bool,
) {
    let mut position = offset;
    while let Some(entry) = own.entry_at(handle, listing, position, plus) {
        position += 1;
        if add(&entry, position) {
            if let Some(found) = &entry.found {
                own.nodes.release(found.node.ino);
            }
            return;
        }
    }
}

/// Adds an entry with its attributes; returns whether the buffer was full.
fn add_plus(
    own: &Filesystem,
    reply: &mut ReplyDirectoryPlus,
    entry: &DirectoryEntry,
    next: u64,
) -> bool {
    let name = OsStr::from_bytes(&entry.name);
    let Some(found) = &entry.found else {
        let attr = own.attr_of_dots(entry);
        return reply.add(attr.ino, next, name, &Duration::ZERO, &attr, GENERATION);
    };
    let ttl = found.entry_ttl.min(found.attr_ttl);
    let is_full = reply.add(found.attr.ino, next, name, &ttl, &found.attr, GENERATION);
    if !is_full {
        own.nodes.count_lookup(&found.node);
    }
    is_full
}
