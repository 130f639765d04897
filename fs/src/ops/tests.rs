//! The operations that change something, without FUSE: on the key space in memory, as a kernel would
//! call them.

mod commits;
mod faults;
mod local_names;
mod locks;
mod meanwhile;
mod model;
mod names;
mod plain_keys;
mod refusals;
mod renames;
mod reservations;
mod transactions;
mod ttl;
mod watching;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use bytes::Bytes;
use fuser::{Errno, FileAttr, FileType};
use revfs_api::KeySpace;
use revfs_api::keyspace::{KeyRange, KeyValue, Op, Origin, RangeRead, Read, Revision, Txn};

use super::WriteRequest;
use crate::attributes::{Attributes, Record, record_key};
use crate::filesystem::{Answer, Caller, Filesystem, MountOptions};
use crate::memory::Memory;
use crate::notices::{Notice, Notices};

/// Its process is not known, so each FLUSH with staged bytes commits.
const ANYBODY: Caller = Caller { uid: 0, gid: 0, pid: 0 };
const USER: Caller = Caller { uid: 1000, gid: 1000, pid: 0 };

const CREATE: i32 = libc::O_CREAT | libc::O_WRONLY;
const REWRITE: i32 = libc::O_WRONLY | libc::O_TRUNC;

/// A mount without a kernel, and what its notifier was told.
struct Mount {
    fs: Arc<Filesystem>,
    memory: Arc<Memory>,
    notices: Notices,
    notifier: Option<std::thread::JoinHandle<Vec<Notice>>>,
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.notices.close();
        if let Some(notifier) = self.notifier.take() {
            notifier.join().expect("it only collects");
        }
    }
}

impl Mount {
    fn new(memory: &Arc<Memory>) -> Self {
        Self::with(memory, MountOptions::default())
    }

    fn with(memory: &Arc<Memory>, options: MountOptions) -> Self {
        static MOUNTS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let notices = Notices::default();
        let notifier = std::thread::spawn({
            let notices = notices.clone();
            move || {
                let mut told = Vec::new();
                notices.drain(|notice| told.push(notice.clone()));
                told
            }
        });
        let keys: Arc<dyn KeySpace> = Arc::clone(memory) as _;
        let id = MOUNTS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let fs = Arc::new(Filesystem::new(keys, options, notices.clone(), id));
        Self { fs, memory: Arc::clone(memory), notices, notifier: Some(notifier) }
    }

    fn empty() -> Self {
        Self::new(&Arc::new(Memory::new()))
    }

    /// `mkdir @txn/NAME`, and the tree in it.
    async fn begin(&self, name: &str) -> Answer<Self> {
        let transactions = self.ino("@txn").await?;
        let found = self.fs.mkdir(ANYBODY, transactions, OsStr::new(name), 0o755).await?;
        Ok(self.tree(self.fs.tree_of(found.node.ino)))
    }

    fn tree(&self, fs: Arc<Filesystem>) -> Self {
        Self { fs, memory: Arc::clone(&self.memory), notices: Notices::default(), notifier: None }
    }

    /// `: > @commit`
    async fn commit(&self) -> Answer<()> {
        let ino = self.ino("@commit").await?;
        self.fs.open_made_up(ANYBODY, ino, libc::O_WRONLY).await.map(drop)
    }

    /// Walks a path as the kernel does; the parent's node and the last name.
    async fn parent<'a>(&self, path: &'a str) -> Answer<(u64, &'a OsStr)> {
        let (directories, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut ino = self.fs.nodes.root().ino;
        for name in directories.split('/').filter(|name| !name.is_empty()) {
            ino = self.step(ino, OsStr::new(name)).await?;
            if self.fs.getattr(ino).await?.attr.kind != FileType::Directory {
                return Err(Errno::ENOTDIR);
            }
        }
        Ok((ino, OsStr::new(name)))
    }

    async fn step(&self, ino: u64, name: &OsStr) -> Answer<u64> {
        let found = self.fs.lookup(ino, name).await?;
        self.fs.nodes.count_lookup(&found.node);
        Ok(found.node.ino)
    }

    async fn ino(&self, path: &str) -> Answer<u64> {
        let (parent, name) = self.parent(path).await?;
        self.step(parent, name).await
    }

    async fn stat(&self, path: &str) -> Answer<FileAttr> {
        let ino = self.ino(path).await?;
        Ok(self.fs.getattr(ino).await?.attr)
    }

    async fn create(&self, path: &str, flags: i32) -> Answer<Open<'_>> {
        self.create_as(ANYBODY, path, 0o644, flags).await
    }

    async fn create_as(
        &self,
        caller: Caller,
        path: &str,
        mode: u32,
        flags: i32,
    ) -> Answer<Open<'_>> {
        let (parent, name) = self.parent(path).await?;
        let (found, opened) = match self.fs.create(caller, parent, name, mode, flags).await {
            // The kernel looks the name up anew, checks what it finds, and opens that.
            Err(Errno::ESTALE) => {
                let ino = self.ino(path).await?;
                let handle = self.fs.open(caller, ino, flags).await?.handle;
                return Ok(Open { mount: self, caller, ino, handle, flags });
            }
            created => created?,
        };
        self.fs.nodes.count_lookup(&found.node);
        Ok(Open { mount: self, caller, ino: found.node.ino, handle: opened.handle, flags })
    }

    async fn open(&self, path: &str, flags: i32) -> Answer<Open<'_>> {
        let ino = self.ino(path).await?;
        let opened = self.fs.open(ANYBODY, ino, flags).await?;
        Ok(Open { mount: self, caller: ANYBODY, ino, handle: opened.handle, flags })
    }

    /// `echo -n CONTENT > PATH`
    async fn write(&self, path: &str, content: &str) -> Answer<()> {
        let open = match self.open(path, REWRITE).await {
            Err(Errno::ENOENT) => self.create(path, CREATE | libc::O_TRUNC).await?,
            open => open?,
        };
        open.write(0, content).await?;
        open.close().await
    }

    async fn read(&self, path: &str) -> Answer<String> {
        let open = self.open(path, libc::O_RDONLY).await?;
        let content = open.read().await?;
        open.close().await?;
        Ok(content)
    }

    async fn mkdir(&self, path: &str) -> Answer<()> {
        let (parent, name) = self.parent(path).await?;
        let found = self.fs.mkdir(ANYBODY, parent, name, 0o755).await?;
        self.fs.nodes.count_lookup(&found.node);
        Ok(())
    }

    async fn symlink(&self, path: &str, target: &str) -> Answer<()> {
        let (parent, name) = self.parent(path).await?;
        self.fs.symlink(ANYBODY, parent, name, OsStr::new(target)).await.map(drop)
    }

    async fn unlink(&self, path: &str) -> Answer<()> {
        let (parent, name) = self.parent(path).await?;
        self.fs.unlink(ANYBODY, parent, name).await
    }

    async fn rmdir(&self, path: &str) -> Answer<()> {
        let (parent, name) = self.parent(path).await?;
        self.fs.rmdir(ANYBODY, parent, name).await
    }

    async fn rename(&self, from: &str, to: &str) -> Answer<()> {
        self.rename_with(from, to, 0).await
    }

    async fn rename_with(&self, from: &str, to: &str, flags: u32) -> Answer<()> {
        let (parent, name) = self.parent(from).await?;
        let new = self.parent(to).await?;
        self.fs.rename(ANYBODY, (parent, name), new, flags).await
    }

    fn revision(&self) -> u64 {
        self.memory.current().0
    }

    /// What the store has, without markers and records.
    async fn stored(&self, key: &str) -> Option<String> {
        let kv = get(&self.memory, key.as_bytes()).await?;
        Some(String::from_utf8(kv.value.to_vec()).expect("tests write text"))
    }

    async fn record(&self, key: &str) -> Option<Attributes> {
        let kv = get(&self.memory, &record_key(key.as_bytes())).await?;
        Some(Record::read(&kv).expect("the mount wrote it").attributes)
    }
}

/// An open file.
struct Open<'a> {
    mount: &'a Mount,
    caller: Caller,
    ino: u64,
    handle: u64,
    flags: i32,
}

impl Open<'_> {
    async fn write(&self, offset: u64, content: &str) -> Answer<()> {
        let data = content.as_bytes();
        let (handle, flags) = (self.handle, self.flags);
        let request = WriteRequest { handle, offset, data, flags, is_page: false };
        let count = self.mount.fs.write(self.caller, self.ino, request).await?;
        assert_eq!(count as usize, data.len());
        Ok(())
    }

    async fn read(&self) -> Answer<String> {
        let bytes = self.mount.fs.read(self.handle, 0, u32::MAX).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn flush(&self) -> Answer<()> {
        self.mount.fs.flush(self.caller, self.ino, self.handle).await
    }

    async fn fsync(&self) -> Answer<()> {
        self.mount.fs.fsync(self.caller, self.handle).await
    }

    async fn release(self) -> Answer<()> {
        self.mount.fs.release(self.caller, self.handle).await
    }

    async fn close(self) -> Answer<()> {
        let flushed = self.flush().await;
        self.release().await.ok();
        flushed
    }
}

async fn get(memory: &Memory, key: &[u8]) -> Option<KeyValue> {
    let read = Read::key(Bytes::copy_from_slice(key));
    let answer = memory.read(Revision::NONE, vec![read]).await.expect("memory answers");
    crate::commit::key_value(&answer, 0).cloned()
}

/// A client of the key space.
async fn put(memory: &Memory, key: &str, value: &str) {
    change(memory, vec![Op::put(key.to_owned(), value.to_owned())]).await;
}

async fn delete(memory: &Memory, key: &str) {
    change(memory, vec![Op::delete(key.to_owned())]).await;
}

async fn change(memory: &Memory, success: Vec<Op>) {
    let txn = Txn { compares: Vec::new(), success, failure: Vec::new() };
    memory.txn(txn, Origin::default()).await.expect("memory takes it");
}

/// Every key of the store.
async fn keys(memory: &Memory) -> Vec<String> {
    let all = Read::Range(RangeRead::new(KeyRange::From(Bytes::from_static(b"\0"))));
    let answer = memory.read(Revision::NONE, vec![all]).await.expect("memory answers");
    match answer.answers.into_iter().next() {
        Some(revfs_api::keyspace::Answer::Range(range)) => {
            range.kvs.iter().map(|kv| kv.key.escape_ascii().to_string()).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn name(text: &str) -> &OsStr {
    OsStr::from_bytes(text.as_bytes())
}
