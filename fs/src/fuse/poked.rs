//! The poker's requests, told apart from everybody else's.
//!
//! Every request of the poker's thread that would change something is answered as a poke
//! ([`crate::events::answers`]) or refused; it never reaches an operation. What only looks goes the
//! ordinary way. Requests on a file that the poker opened are known by its handle: the kernel sends
//! some of them without a thread.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, FileType, FopenFlags, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};

use super::Adapter;
use super::reply::{self, GENERATION};
use crate::events::POKER_HANDLE;
use crate::events::answers::PokeEntry;
use crate::filesystem::{Answer, Filesystem};
use crate::inode_number::Numbering;

/// [`Adapter`], with the poker's requests kept from it.
#[derive(Debug)]
pub struct Poked {
    inner: Adapter,
}

impl Poked {
    #[must_use]
    pub fn new(inner: Adapter) -> Self {
        Self { inner }
    }

    fn is_poker(&self, request: &Request) -> bool {
        self.inner.filesystem.events.is_poker(request.pid())
    }

    fn make(
        &self,
        parent: INodeNo,
        name: &OsStr,
        kind: FileType,
        send: impl FnOnce(&Filesystem, Answer<PokeEntry>) + Send + 'static,
    ) {
        let name = name.to_owned();
        self.inner
            .uncounted(parent)
            .serve(move |own| async move { own.poke_create(parent.0, &name, kind).await }, send);
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.inner.uncounted(parent).serve(
            move |own| async move { own.poke_remove(parent.0, &name).await },
            |_, answer| reply::empty(reply, answer),
        );
    }
}

fn entry(own: &Filesystem, reply: ReplyEntry, answer: Answer<PokeEntry>) {
    match answer {
        Ok(PokeEntry { attr, node }) => {
            if let Some(node) = &node {
                own.nodes.count_lookup(node);
            }
            reply.entry_with_ttls(&Duration::ZERO, &Duration::ZERO, &attr, GENERATION);
        }
        Err(errno) => reply.error(errno),
    }
}

/// What is written through it goes nowhere, and there is nothing to be done when it is closed.
fn poker_flags() -> FopenFlags {
    FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH
}

/// What the poker may ask like everybody.
macro_rules! pass {
    ($($name:ident($($argument:ident: $kind:ty),*);)*) => {$(
        fn $name(&self, request: &Request, $($argument: $kind),*) {
            self.inner.$name(request, $($argument),*);
        }
    )*};
}

/// What the poker never has to ask: an error if its thread does.
macro_rules! keep_from_poker {
    ($($name:ident($($argument:ident: $kind:ty),*; $reply:ty) $errno:ident;)*) => {$(
        fn $name(&self, request: &Request, $($argument: $kind,)* reply: $reply) {
            if self.is_poker(request) {
                return reply.error(Errno::$errno);
            }
            self.inner.$name(request, $($argument,)* reply);
        }
    )*};
}

/// What the kernel does by itself once it knows that nobody else does: it knows the size of a file, of which
/// all is data, and reads and writes what is to be copied.
macro_rules! leave_to_kernel {
    ($($name:ident($($kind:ty),*; $reply:ty);)*) => {$(
        fn $name(&self, _: &Request, $(_: $kind,)* reply: $reply) {
            reply.error(Errno::ENOSYS);
        }
    )*};
}

/// What happens to an open file: nothing, if it is the poker's.
macro_rules! pass_unless_pokers {
    ($($name:ident($($before:ident: $kind:ty),*; $($after:ident: $other:ty),*);)*) => {$(
        fn $name(
            &self,
            request: &Request,
            $($before: $kind,)*
            handle: FileHandle,
            $($after: $other,)*
            reply: ReplyEmpty,
        ) {
            if handle.0 == POKER_HANDLE {
                return reply.ok();
            }
            self.inner.$name(request, $($before,)* handle, $($after,)* reply);
        }
    )*};
}

impl fuser::Filesystem for Poked {
    fn init(&mut self, request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.inner.init(request, config)
    }

    fn destroy(&mut self) {
        self.inner.destroy();
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if !self.is_poker(request) {
            return self.inner.lookup(request, parent, name, reply);
        }
        let name = name.to_owned();
        self.inner.uncounted(parent).serve(
            move |own| async move { own.poke_lookup(parent.0, &name).await },
            |own, answer| entry(own, reply, answer),
        );
    }

    fn getattr(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        if !(self.is_poker(request) && Numbering::is_made_up(ino.0)) {
            return self.inner.getattr(request, ino, handle, reply);
        }
        self.inner.uncounted(ino).serve(
            move |own| async move { own.poke_setattr(ino.0).await },
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
        ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        crtime: Option<SystemTime>,
        chgtime: Option<SystemTime>,
        bkuptime: Option<SystemTime>,
        flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if !self.is_poker(request) {
            return self.inner.setattr(
                request, ino, mode, uid, gid, size, atime, mtime, ctime, handle, crtime, chgtime,
                bkuptime, flags, reply,
            );
        }
        self.inner.uncounted(ino).serve(
            move |own| async move { own.poke_setattr(ino.0).await },
            |_, answer| reply::attr(reply, answer),
        );
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        if !self.is_poker(request) {
            return self.inner.mkdir(request, parent, name, mode, umask, reply);
        }
        let kind = FileType::Directory;
        self.make(parent, name, kind, |own, answer| entry(own, reply, answer));
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        if !self.is_poker(request) {
            return self.inner.symlink(request, parent, name, target, reply);
        }
        let kind = FileType::Symlink;
        self.make(parent, name, kind, |own, answer| entry(own, reply, answer));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        if !self.is_poker(request) {
            return self.inner.create(request, parent, name, mode, umask, flags, reply);
        }
        self.make(parent, name, FileType::RegularFile, |own, answer| match answer {
            Ok(PokeEntry { attr, node }) => {
                if let Some(node) = &node {
                    own.nodes.count_lookup(node);
                }
                let handle = FileHandle(POKER_HANDLE);
                reply.created(&Duration::ZERO, &attr, GENERATION, handle, poker_flags());
            }
            Err(errno) => reply.error(errno),
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if self.is_poker(request) {
            return self.remove(parent, name, reply);
        }
        self.inner.unlink(request, parent, name, reply);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if self.is_poker(request) {
            return self.remove(parent, name, reply);
        }
        self.inner.rmdir(request, parent, name, reply);
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
        if self.is_poker(request) {
            let (from, to) = ((parent.0, name), (new_parent.0, new_name));
            return reply::empty(reply, self.inner.filesystem.poke_rename(from, to));
        }
        self.inner.rename(request, parent, name, new_parent, new_name, flags, reply);
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if !self.is_poker(request) {
            return self.inner.open(request, ino, flags, reply);
        }
        match self.inner.filesystem.poke_open(ino.0) {
            Ok(()) => reply.opened(FileHandle(POKER_HANDLE), poker_flags()),
            Err(errno) => reply.error(errno),
        }
    }

    pass! {
        forget(ino: INodeNo, count: u64);
        readlink(ino: INodeNo, reply: ReplyData);
        opendir(ino: INodeNo, flags: OpenFlags, reply: ReplyOpen);
        readdir(ino: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectory);
        readdirplus(ino: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectoryPlus);
        releasedir(ino: INodeNo, handle: FileHandle, flags: OpenFlags, reply: ReplyEmpty);
        fsyncdir(ino: INodeNo, handle: FileHandle, datasync: bool, reply: ReplyEmpty);
        statfs(ino: INodeNo, reply: ReplyStatfs);
    }

    keep_from_poker! {
        mknod(parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32; ReplyEntry) EIO;
        link(ino: INodeNo, parent: INodeNo, name: &OsStr; ReplyEntry) EIO;
        read(ino: INodeNo, handle: FileHandle, offset: u64, size: u32, flags: OpenFlags,
            owner: Option<LockOwner>; ReplyData) EIO;
        write(ino: INodeNo, handle: FileHandle, offset: u64, data: &[u8], write_flags: WriteFlags,
            flags: OpenFlags, owner: Option<LockOwner>; ReplyWrite) EIO;
        setxattr(ino: INodeNo, name: &OsStr, value: &[u8], flags: i32, position: u32;
            ReplyEmpty) EIO;
        getxattr(ino: INodeNo, name: &OsStr, size: u32; ReplyXattr) ENODATA;
        listxattr(ino: INodeNo, size: u32; ReplyXattr) ENODATA;
        removexattr(ino: INodeNo, name: &OsStr; ReplyEmpty) EIO;
        getlk(ino: INodeNo, handle: FileHandle, owner: LockOwner, start: u64, end: u64, kind: i32,
            pid: u32; ReplyLock) EIO;
        setlk(ino: INodeNo, handle: FileHandle, owner: LockOwner, start: u64, end: u64, kind: i32,
            pid: u32, sleep: bool; ReplyEmpty) EIO;
        ioctl(ino: INodeNo, handle: FileHandle, flags: IoctlFlags, command: u32, data: &[u8],
            out_size: u32; ReplyIoctl) EIO;
        poll(ino: INodeNo, handle: FileHandle, notifier: PollNotifier, events: PollEvents,
            flags: PollFlags; ReplyPoll) EIO;
    }

    leave_to_kernel! {
        lseek(INodeNo, FileHandle, i64, i32; ReplyLseek);
        copy_file_range(INodeNo, FileHandle, u64, INodeNo, FileHandle, u64, u64,
            CopyFileRangeFlags; ReplyWrite);
    }

    pass_unless_pokers! {
        flush(ino: INodeNo; owner: LockOwner);
        fsync(ino: INodeNo; datasync: bool);
        fallocate(ino: INodeNo; offset: u64, length: u64, mode: i32);
        release(ino: INodeNo; flags: OpenFlags, owner: Option<LockOwner>, flush: bool);
    }
}
