//! A FUSE file system that answers every request of a create at once and keeps nothing: what the
//! kernel's round trips alone cost. It runs in a process of its own, as revfs does.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, ReplyXattr, Request, WriteFlags,
};
use revfs_tests::{mount, wait};

/// How the benchmark calls itself to be the handler.
pub(crate) const FLAG: &str = "--empty-handler";

/// The only file that is there, and its size.
pub(crate) const FILE: &str = "present";
pub(crate) const FILE_BYTES: usize = 256;
const FILE_NUMBER: INodeNo = INodeNo(u64::MAX);

const TTL: Duration = Duration::from_secs(3600);

struct Empty {
    next: AtomicU64,
}

fn attributes(number: INodeNo, kind: FileType) -> FileAttr {
    FileAttr {
        ino: number,
        size: if number == FILE_NUMBER { FILE_BYTES as u64 } else { 0 },
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: if kind == FileType::Directory { 0o777 } else { 0o644 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for Empty {
    /// As revfs asks, as far as it matters here.
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        for capability in [InitFlags::FUSE_AUTO_INVAL_DATA, InitFlags::FUSE_PARALLEL_DIROPS] {
            // A kernel without it has neither side do it.
            config.add_capabilities(capability).ok();
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == FILE {
            let attributes = attributes(FILE_NUMBER, FileType::RegularFile);
            return reply.entry(&TTL, &attributes, Generation(0));
        }
        reply.error(Errno::ENOENT);
    }

    /// With the flags of a revfs handle that only reads.
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        _: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let content = [b'x'; FILE_BYTES];
        let from = usize::try_from(offset).map_or(FILE_BYTES, |offset| offset.min(FILE_BYTES));
        reply.data(&content[from..]);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let kind =
            if number == INodeNo::ROOT { FileType::Directory } else { FileType::RegularFile };
        reply.attr(&TTL, &attributes(number, kind));
    }

    fn create(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let number = INodeNo(self.next.fetch_add(1, Ordering::Relaxed));
        let attributes = attributes(number, FileType::RegularFile);
        let (generation, handle) = (Generation(0), FileHandle(0));
        reply.created(&TTL, &attributes, generation, handle, FopenFlags::empty());
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENODATA);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.written(u32::try_from(data.len()).expect("a request is small"));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}

/// Serves the file system at `dir` until it is unmounted.
pub(crate) fn run(dir: &Path) {
    let file_system = Empty { next: AtomicU64::new(2) };
    fuser::mount(file_system, dir, &Config::default()).expect("the empty file system mounts");
}

/// A running handler; unmounted when dropped.
pub(crate) struct Running {
    dir: PathBuf,
    child: Child,
}

impl Running {
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

pub(crate) fn start(dir: &Path) -> Running {
    std::fs::create_dir(dir).expect("a mount point");
    let program = std::env::current_exe().expect("our own program");
    let child = Command::new(program).arg(FLAG).arg(dir).spawn().expect("the handler starts");
    let running = Running { dir: dir.to_owned(), child };
    wait::until_true("the empty file system", wait::LIMIT, || mount::is_mount_point(dir));
    running
}

impl Drop for Running {
    fn drop(&mut self) {
        mount::detach(&self.dir);
        self.child.wait().ok();
    }
}
