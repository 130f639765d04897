//! fuser's trait -> [`Filesystem`]: decodes a request, calls the operation, sends its answer. Decides
//! nothing.

mod adapter;
mod poked;
mod reply;
mod request;
mod serve;

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use bytes::Bytes;
use fuser::{
    BsdFileFlags, Errno, FileHandle, FopenFlags, INodeNo, IoctlFlags, KernelConfig, LockOwner,
    OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyOpen,
    ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

pub use self::adapter::Adapter;
pub use self::poked::Poked;
use self::request::{asked_time, caller, lock_request};
use crate::ops::{AllocateRequest, OperationKind as Op, SetAttr, WriteRequest};

impl fuser::Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        adapter::configure(config);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.to_owned();
        self.at(Op::Lookup, parent).serve(
            |own| async move { own.lookup_or_absent(parent.0, &name).await },
            |own, answer| reply::entry_or_absent(own, reply, answer),
        );
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        self.tree_of(ino).nodes.forget(ino.0, count);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.at(Op::Stat, ino).serve(
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
        self.at(Op::Attributes, ino).serve(
            move |own| async move { own.setattr(caller, ino.0, set).await },
            |_, answer| reply::attr(reply, answer),
        );
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        self.at(Op::Read, ino).serve(
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
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let (caller, name) = (caller(request), name.to_owned());
        self.at(Op::Create, parent).serve(
            move |own| async move { own.mknod(caller, parent.0, &name, (mode, rdev)).await },
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
        self.at(Op::Create, parent).serve(
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
        self.at(Op::Create, parent).serve(
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
        self.at(Op::Remove, parent).serve(
            move |own| async move { own.unlink(caller, parent.0, &name).await },
            |_, answer| reply::empty(reply, answer),
        );
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (caller, name) = (caller(request), name.to_owned());
        self.at(Op::Remove, parent).serve(
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
        self.at(Op::Rename, parent).serve(
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
        self.at(Op::Open, ino).serve(
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
        self.at(Op::Create, parent).serve(
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
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (thread, waits) = (request.pid(), flags.0 & libc::O_NONBLOCK == 0);
        self.at(Op::Read, ino).serve(
            move |own| async move { own.read_as(thread, handle.0, offset, size, waits).await },
            |_, answer| reply::data(reply, answer),
        );
    }

    fn poll(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        notifier: PollNotifier,
        _: PollEvents,
        flags: PollFlags,
        reply: ReplyPoll,
    ) {
        let wake =
            flags.contains(PollFlags::FUSE_POLL_SCHEDULE_NOTIFY).then(|| reply::wake(notifier));
        self.uncounted(ino).serve(
            move |own| async move { own.poll(handle.0, wake).await },
            |_, answer| reply::poll(reply, answer),
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
        self.at(Op::Write, ino).serve(
            move |own| async move {
                let (handle, flags) = (handle.0, flags.0);
                let request = WriteRequest { handle, offset, data: &data, flags, is_page };
                own.write(caller, ino.0, request).await
            },
            move |own, answer| reply::written(own, reply, answer, ino, clears_set_ids),
        );
    }

    fn flush(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        let caller = caller(request);
        self.at(Op::Close, ino).serve(
            move |own| own.flush_and_let_go(caller, ino.0, handle.0, owner.0),
            |_, answer| reply::empty(reply, answer),
        );
    }

    fn release(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        owner: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let (caller, owner) = (caller(request), owner.map(|owner| owner.0));
        self.at(Op::Close, ino).serve(
            move |own| own.release_and_let_go(caller, ino.0, handle.0, owner),
            |_, answer| reply::empty(reply, answer),
        );
    }

    fn getlk(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        match lock_request(handle, owner, (start, end), kind, pid, false) {
            Ok(asked) => self.at(Op::Lock, ino).serve(
                move |own| async move { own.get_lock(asked).await },
                |_, answer| reply::in_the_way(reply, answer),
            ),
            Err(errno) => reply.error(errno),
        }
    }

    fn setlk(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        waits: bool,
        reply: ReplyEmpty,
    ) {
        let caller = caller(request);
        match lock_request(handle, owner, (start, end), kind, pid, waits) {
            Ok(asked) => self.at(Op::Lock, ino).serve(
                move |own| own.set_lock(caller, asked),
                |_, answer| reply::empty(reply, answer),
            ),
            Err(errno) => reply.error(errno),
        }
    }

    fn fsync(&self, request: &Request, n: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        let caller = caller(request);
        self.at(Op::Sync, n).serve(
            move |own| async move { own.fsync(caller, handle.0).await },
            |_, answer| reply::empty(reply, answer),
        );
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let caller = caller(request);
        let asked = AllocateRequest { handle: handle.0, offset, length, mode };
        self.at(Op::Write, ino).serve(
            move |own| async move { own.fallocate(caller, ino.0, asked).await },
            |_, answer| reply::empty(reply, answer),
        );
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.tree_of(ino).opendir(ino.0) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.at(Op::List, ino).serve(
            move |own| async move { own.listing_at(handle.0, offset).await },
            move |own, answer| reply::directory(own, reply, offset, answer),
        );
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.at(Op::List, ino).serve(
            move |own| async move { own.listing_at(handle.0, offset).await },
            move |own, answer| reply::directory_plus(own, reply, offset, answer),
        );
    }

    fn releasedir(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.tree_of(ino).releasedir(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply::empty(reply, self.filesystem.fsyncdir());
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.at(Op::Stat, ino).serve(
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
        self.at(Op::Attributes, ino).serve(
            move |own| async move { own.setxattr(caller, ino.0, &name, &value, flags).await },
            |_, answer| reply::empty(reply, answer),
        );
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = name.to_owned();
        self.at(Op::Xattr, ino).serve(
            |own| async move { own.getxattr(ino.0, &name).await },
            move |_, answer| reply::xattr(reply, size, answer),
        );
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.at(Op::Xattr, ino).serve(
            |own| async move { own.listxattr(ino.0).await },
            move |_, answer| reply::xattr(reply, size, answer),
        );
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (caller, name) = (caller(request), name.to_owned());
        self.at(Op::Attributes, ino).serve(
            move |own| async move { own.removexattr(caller, ino.0, &name).await },
            |_, answer| reply::empty(reply, answer),
        );
    }
}
