//! fuser's trait -> [`Filesystem`]: decodes a request, calls the operation, sends its answer. Decides
//! nothing.
//!
//! Each entry in a reply that succeeds counts one lookup of its node, before the reply is sent.

mod serve;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use tokio::runtime::Handle;

use self::serve::Server;
use crate::filesystem::{Answer, Caller, Filesystem, Found};
use crate::found::Shown;
use crate::listing::{DirectoryHandle, Listing};
use crate::ops::{DirectoryEntry, Pages, Statistics};
use crate::path::NAME_BYTES_MAX;

/// Nodes are never reused for something else while the kernel knows them.
const GENERATION: Generation = Generation(0);

/// The largest WRITE that is asked for: what the kernel's `max_pages` allows.
const WRITE_BYTES_MAX: u32 = 1024 * 1024;

/// Requests that the kernel may have under way in the background (read-ahead, RELEASE).
const BACKGROUND_MAX: u16 = 64;

/// What is asked of the kernel, where it has it.
const CAPABILITIES: [InitFlags; 5] = [
    // O_TRUNC comes with OPEN, so that emptying and writing anew are one change.
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    // Names come with their attributes: no LOOKUP for each.
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_PARALLEL_DIROPS,
    // Else each WRITE would ask for security.capability.
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_AUTO_INVAL_DATA,
];

/// The adapter between fuser's workers and a [`Filesystem`].
#[derive(Debug)]
pub struct Adapter {
    filesystem: Arc<Filesystem>,
    server: Server,
}

impl Adapter {
    #[must_use]
    pub fn new(filesystem: Arc<Filesystem>, runtime: Handle) -> Self {
        Self { filesystem, server: Server::new(runtime) }
    }

    fn serve<T, O>(
        &self,
        operation: impl FnOnce(Arc<Filesystem>) -> O,
        send: impl FnOnce(&Filesystem, Answer<T>) + Send + 'static,
    ) where
        O: Future<Output = Answer<T>> + Send + 'static,
    {
        let filesystem = Arc::clone(&self.filesystem);
        self.server.serve(operation(Arc::clone(&filesystem)), move |answer| {
            send(&filesystem, answer);
        });
    }
}

fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

fn send_entry(filesystem: &Filesystem, reply: ReplyEntry, found: &Found) {
    filesystem.nodes.count_lookup(&found.node);
    reply.entry_with_ttls(&found.attr_ttl, &found.entry_ttl, &found.attr, GENERATION);
}

/// Has the kernel remember that a name leads to nothing.
fn send_absence(reply: ReplyEntry, ttl: Duration) {
    if ttl.is_zero() {
        reply.error(Errno::ENOENT);
        return;
    }
    let nothing = FileAttr {
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
    };
    reply.entry_with_ttls(&Duration::ZERO, &ttl, &nothing, GENERATION);
}

fn send_attr(reply: ReplyAttr, answer: Answer<Shown>) {
    match answer {
        Ok(shown) => reply.attr(&shown.ttl, &shown.attr),
        Err(errno) => reply.error(errno),
    }
}

fn send_empty(reply: ReplyEmpty, answer: Answer<()>) {
    match answer {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn send_xattr(reply: ReplyXattr, size: u32, answer: Answer<Bytes>) {
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

/// Flags of an OPEN that succeeded.
fn open_flags(pages: Pages, needs_no_flush: bool) -> FopenFlags {
    let pages = match pages {
        Pages::Keep => FopenFlags::FOPEN_KEEP_CACHE,
        Pages::Drop => FopenFlags::empty(),
        Pages::Direct => FopenFlags::FOPEN_DIRECT_IO,
    };
    if needs_no_flush { pages | FopenFlags::FOPEN_NOFLUSH } else { pages }
}

impl fuser::Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for capability in CAPABILITIES {
            if config.add_capabilities(capability).is_err() {
                tracing::info!(?capability, "this kernel does not have it");
            }
        }
        // Refused values are replaced by the nearest that is possible.
        if let Err(nearest) = config.set_max_write(WRITE_BYTES_MAX) {
            config.set_max_write(nearest).ok();
        }
        if let Err(nearest) = config.set_max_background(BACKGROUND_MAX) {
            config.set_max_background(nearest).ok();
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.to_owned();
        self.serve(
            |own| async move { own.lookup_or_absent(parent.0, &name).await },
            |own, answer| match answer {
                Ok(Some(found)) => send_entry(own, reply, &found),
                Ok(None) => send_absence(reply, own.live_ttl()),
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        self.filesystem.nodes.forget(ino.0, count);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.serve(
            |own| async move { own.getattr(ino.0).await },
            |_, answer| send_attr(reply, answer),
        );
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        self.serve(
            |own| async move { own.readlink(ino.0).await },
            |_, answer| match answer {
                Ok(target) => reply.data(&target),
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let caller = caller(request);
        self.serve(
            move |own| async move {
                match own.open_made_up(caller, ino.0, flags.0).await? {
                    Some(handle) => Ok((handle, true)),
                    None => own.open_to_read(caller, ino.0, flags.0),
                }
            },
            move |own, answer| match answer {
                Ok((handle, needs_no_flush)) => {
                    let flags = open_flags(own.pages_of(ino.0), needs_no_flush);
                    reply.opened(FileHandle(handle), flags);
                }
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.serve(
            move |own| async move { own.read(handle.0, offset, size).await },
            |_, answer| match answer {
                Ok(bytes) => reply.data(&bytes),
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.filesystem.release_reader(handle.0);
        reply.ok();
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.filesystem.opendir(ino.0) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.serve(
            move |own| async move { own.listing_at(handle.0, offset).await },
            move |own, answer| match answer {
                Ok((handle, listing)) => {
                    each_entry(own, &handle, &listing, offset, false, |entry, next| {
                        let name = OsStr::from_bytes(&entry.name);
                        reply.add(INodeNo(entry.ino), next, entry.kind, name)
                    });
                    reply.ok();
                }
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn readdirplus(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        self.serve(
            move |own| async move { own.listing_at(handle.0, offset).await },
            move |own, answer| match answer {
                Ok((handle, listing)) => {
                    each_entry(own, &handle, &listing, offset, true, |entry, next| {
                        add_plus(own, &mut reply, entry, next)
                    });
                    reply.ok();
                }
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.filesystem.releasedir(handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let name_bytes = u32::try_from(NAME_BYTES_MAX).expect("255 fits");
        self.serve(
            |own| async move { own.statfs().await },
            move |_, answer| match answer {
                Ok(Statistics { blocks, free }) => {
                    let block = Statistics::BLOCK_BYTES;
                    reply.statfs(blocks, free, free, 0, 0, block, name_bytes, block);
                }
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = name.to_owned();
        self.serve(
            |own| async move { own.getxattr(ino.0, &name).await },
            move |_, answer| send_xattr(reply, size, answer),
        );
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.serve(
            |own| async move { own.listxattr(ino.0).await },
            move |_, answer| send_xattr(reply, size, answer),
        );
    }
}

/// Hands the entries from `offset` on to `add`, each with the position after it, until that says that
/// its buffer is full. (The rest is asked for again.)
fn each_entry(
    filesystem: &Filesystem,
    handle: &DirectoryHandle,
    listing: &Listing,
    offset: u64,
    plus: bool,
    mut add: impl FnMut(&DirectoryEntry, u64) -> bool,
) {
    let mut position = offset;
    while let Some(entry) = filesystem.entry_at(handle, listing, position, plus) {
        position += 1;
        if add(&entry, position) {
            if let Some(found) = &entry.found {
                filesystem.nodes.release(found.node.ino);
            }
            return;
        }
    }
}

/// Adds an entry with its attributes; returns whether the buffer was full.
fn add_plus(
    filesystem: &Filesystem,
    reply: &mut ReplyDirectoryPlus,
    entry: &DirectoryEntry,
    next: u64,
) -> bool {
    let name = OsStr::from_bytes(&entry.name);
    let Some(found) = &entry.found else {
        let attr = filesystem.attr_of_dots(entry);
        return reply.add(attr.ino, next, name, &Duration::ZERO, &attr, GENERATION);
    };
    let ttl = found.entry_ttl.min(found.attr_ttl);
    let is_full = reply.add(found.attr.ino, next, name, &ttl, &found.attr, GENERATION);
    if !is_full {
        filesystem.nodes.count_lookup(&found.node);
    }
    is_full
}
