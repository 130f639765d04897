//! fuser's trait -> [`Filesystem`]: decodes a request, calls the operation, sends its answer. Decides
//! nothing.

mod reply;
mod request;
mod serve;

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use fuser::{
    BsdFileFlags, Errno, FileHandle, FopenFlags, INodeNo, InitFlags, IoctlFlags, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use tokio::runtime::Handle;

use self::request::{asked_time, caller};
use self::serve::Server;
use crate::filesystem::{Answer, Filesystem};
use crate::notices::Notice;
use crate::ops::{SetAttr, WriteRequest};

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

impl fuser::Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for capability in CAPABILITIES {
            if config.add_capabilities(capability).is_err() {
                tracing::info!(?capability, "this kernel does not have it");
            }
        }
        // A value that is refused comes back as the nearest that is possible.
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
            |own, answer| reply::entry_or_absent(own, reply, answer),
        );
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        self.filesystem.nodes.forget(ino.0, count);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.serve(
            |own| async move { own.getattr(ino.0).await },
            |_, answer| reply::attr(reply, answer),
        );
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let caller = caller(request);
        let handle = handle.map(|handle| handle.0);
        let (atime, mtime) = (atime.map(asked_time), mtime.map(asked_time));
        let set = SetAttr { mode, uid, gid, size, atime, mtime, handle };
        self.serve(
            move |own| async move { own.setattr(caller, ino.0, set).await },
            |_, answer| reply::attr(reply, answer),
        );
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        self.serve(
            |own| async move { own.readlink(ino.0).await },
            |_, answer| reply::data(reply, answer),
        );
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let (caller, name) = (caller(request), name.to_owned());
        self.serve(
            move |own| async move { own.mknod(caller, parent.0, &name, mode).await },
            |own, answer| reply::entry(own, reply, answer),
        );
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let (caller, name) = (caller(request), name.to_owned());
        self.serve(
            move |own| async move { own.mkdir(caller, parent.0, &name, mode).await },
            |own, answer| reply::entry(own, reply, answer),
        );
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let (caller, name, target) = (caller(request), name.to_owned(), target.to_owned());
        self.serve(
            move |own| async move {
                own.symlink(caller, parent.0, &name, target.as_os_str()).await
            },
            |own, answer| reply::entry(own, reply, answer),
        );
    }

    /// Hard links are not kept: the kernel passes EPERM on, and programs copy or rename instead.
    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    /// No file here is a device or a terminal.
    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (caller, name) = (caller(request), name.to_owned());
        self.serve(
            move |own| async move { own.unlink(caller, parent.0, &name).await },
            |_, answer| reply::empty(reply, answer),
        );
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (caller, name) = (caller(request), name.to_owned());
        self.serve(
            move |own| async move { own.rmdir(caller, parent.0, &name).await },
            |_, answer| reply::empty(reply, answer),
        );
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (caller, name, new_name) = (caller(request), name.to_owned(), new_name.to_owned());
        self.serve(
            move |own| async move {
                let (from, to) =
                    ((parent.0, name.as_os_str()), (new_parent.0, new_name.as_os_str()));
                own.rename(caller, from, to, flags.bits()).await
            },
            |_, answer| reply::empty(reply, answer),
        );
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let caller = caller(request);
        self.serve(
            move |own| async move {
                let opened = match own.open_made_up(caller, ino.0, flags.0).await? {
                    Some(opened) => opened,
                    None => own.open(caller, ino.0, flags.0).await?,
                };
                Ok((opened, own.pages_of(ino.0)))
            },
            |_, answer| reply::open(reply, answer),
        );
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (caller, name) = (caller(request), name.to_owned());
        self.serve(
            move |own| async move {
                let (found, opened) = own.create(caller, parent.0, &name, mode, flags).await?;
                let pages = own.pages_of(found.node.ino);
                Ok((found, opened, pages))
            },
            |own, answer| reply::create(own, reply, answer),
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
            |_, answer| reply::data(reply, answer),
        );
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let caller = caller(request);
        let data = Bytes::copy_from_slice(data);
        let is_page = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let clears_set_ids = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        self.serve(
            move |own| async move {
                let (handle, flags) = (handle.0, flags.0);
                let request = WriteRequest { handle, offset, data: &data, flags, is_page };
                own.write(caller, ino.0, request).await
            },
            move |own, answer| match answer {
                Ok(count) => {
                    reply.written(count);
                    if clears_set_ids {
                        // It asks for that, but goes on showing the mode that it has.
                        own.notices.send(Notice::Attributes(ino.0));
                    }
                }
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn flush(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: LockOwner,
        reply: ReplyEmpty,
    ) {
        let caller = caller(request);
        self.serve(
            move |own| async move { own.flush(caller, ino.0, handle.0).await },
            |_, answer| reply::empty(reply, answer),
        );
    }

    fn release(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let caller = caller(request);
        self.serve(
            move |own| async move { own.release(caller, handle.0).await },
            |_, answer| reply::empty(reply, answer),
        );
    }

    fn fsync(&self, request: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        let caller = caller(request);
        self.serve(
            move |own| async move { own.fsync(caller, handle.0).await },
            |_, answer| reply::empty(reply, answer),
        );
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.serve(
            move |own| async move { own.fallocate(ino.0, handle.0, offset, length, mode).await },
            |_, answer| reply::empty(reply, answer),
        );
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
        reply: ReplyDirectory,
    ) {
        self.serve(
            move |own| async move { own.listing_at(handle.0, offset).await },
            move |own, answer| reply::directory(own, reply, offset, answer),
        );
    }

    fn readdirplus(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.serve(
            move |own| async move { own.listing_at(handle.0, offset).await },
            move |own, answer| reply::directory_plus(own, reply, offset, answer),
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

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply::empty(reply, self.filesystem.fsyncdir());
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.serve(
            |own| async move { own.statfs().await },
            |_, answer| reply::statfs(reply, answer),
        );
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let (caller, name) = (caller(request), name.to_owned());
        let value = Bytes::copy_from_slice(value);
        self.serve(
            move |own| async move { own.setxattr(caller, ino.0, &name, &value, flags).await },
            |_, answer| reply::empty(reply, answer),
        );
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = name.to_owned();
        self.serve(
            |own| async move { own.getxattr(ino.0, &name).await },
            move |_, answer| reply::xattr(reply, size, answer),
        );
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.serve(
            |own| async move { own.listxattr(ino.0).await },
            move |_, answer| reply::xattr(reply, size, answer),
        );
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (caller, name) = (caller(request), name.to_owned());
        self.serve(
            move |own| async move { own.removexattr(caller, ino.0, &name).await },
            |_, answer| reply::empty(reply, answer),
        );
    }
}
