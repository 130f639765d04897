//! Two mounts of one key space and the locks of their processes.

use std::sync::Arc;
use std::time::Duration;

use fuser::Errno;
use revfs_api::KeySpace;
use tokio::task::JoinHandle;

use super::{ANYBODY, CREATE, Mount, Open, put};
use crate::filesystem::Answer;
use crate::locks::Kind;
use crate::locks::table::LAST_BYTE;
use crate::memory::Memory;
use crate::ops::{InTheWay, LockRequest};

const READ_WRITE: i32 = libc::O_RDWR;

/// What takes longer does not come.
const LIMIT: Duration = Duration::from_secs(60);

/// A mount that hears of changes, as a kernel's does.
pub(super) struct Watching {
    mount: Mount,
    watch: JoinHandle<()>,
}

impl std::ops::Deref for Watching {
    type Target = Mount;

    fn deref(&self) -> &Mount {
        &self.mount
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

pub(super) async fn watching(memory: &Arc<Memory>) -> Watching {
    let mount = Mount::new(memory);
    let watch = tokio::spawn(Arc::clone(&mount.fs).watch_changes());
    let connected = async {
        while !mount.fs.coherence.is_connected() {
            tokio::task::yield_now().await;
        }
    };
    within(connected).await;
    Watching { mount, watch }
}

impl Open<'_> {
    async fn set(&self, owner: u64, kind: Option<Kind>, waits: bool) -> Answer<()> {
        self.set_range(owner, kind, (0, LAST_BYTE), waits).await
    }

    async fn set_range(
        &self,
        owner: u64,
        kind: Option<Kind>,
        (start, end): (u64, u64),
        waits: bool,
    ) -> Answer<()> {
        let pid = u32::try_from(owner).expect("a small number");
        let asked = LockRequest { handle: self.handle, owner, start, end, kind, pid, waits };
        Arc::clone(&self.mount.fs).set_lock(ANYBODY, asked).await
    }

    async fn in_the_way(&self, owner: u64, kind: Kind) -> Option<InTheWay> {
        let asked = LockRequest {
            handle: self.handle,
            owner,
            start: 0,
            end: LAST_BYTE,
            kind: Some(kind),
            pid: 1,
            waits: false,
        };
        self.mount.fs.get_lock(asked).await.expect("the locks can be read")
    }

    /// The last descriptor goes.
    async fn end(self, owner: u64) -> Answer<()> {
        let fs = &self.mount.fs;
        let flushed = Arc::clone(fs).flush_and_let_go(ANYBODY, self.ino, self.handle, owner).await;
        let end = Arc::clone(fs).release_and_let_go(ANYBODY, self.ino, self.handle, None).await;
        flushed.and(end)
    }
}

pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("it does not hang")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_goes_from_mount_to_mount_with_what_was_written_under_it() {
    let memory = Arc::new(Memory::new());
    put(&memory, "/f", "old").await;
    let (one, other) = (watching(&memory).await, watching(&memory).await);
    let first = one.open("f", READ_WRITE).await.unwrap();
    let second = other.open("f", READ_WRITE).await.unwrap();
    assert_eq!(second.read().await.unwrap(), "old");
    first.set(1, Some(Kind::Exclusive), false).await.unwrap();
    for kind in [Kind::Shared, Kind::Exclusive] {
        assert_eq!(second.set(2, Some(kind), false).await, Err(Errno::EAGAIN));
        let there = InTheWay { start: 0, end: LAST_BYTE, kind: Kind::Exclusive, pid: 0 };
        assert_eq!(second.in_the_way(2, kind).await, Some(there));
    }
    first.write(0, "new").await.unwrap();
    let (granted, ()) = within(async {
        tokio::join!(second.set(2, Some(Kind::Exclusive), true), async {
            first.set(1, None, true).await.unwrap();
        })
    })
    .await;
    granted.unwrap();
    assert_eq!(one.stored("/f").await.as_deref(), Some("new"));
    assert_eq!(second.read().await.unwrap(), "new", "it has caught up");
    assert_eq!(first.set(1, Some(Kind::Shared), false).await, Err(Errno::EAGAIN));
    // Closing lets go.
    second.end(2).await.unwrap();
    first.set(1, Some(Kind::Shared), false).await.unwrap();
    let third = other.open("f", libc::O_RDONLY).await.unwrap();
    third.set(3, Some(Kind::Shared), false).await.unwrap();
    assert_eq!(third.set(3, Some(Kind::Exclusive), false).await, Err(Errno::EAGAIN));
    third.end(9).await.unwrap();
    first.set(1, Some(Kind::Exclusive), false).await.unwrap();
    first.end(1).await.unwrap();
    assert!(one.fs.locks.held().is_empty() && other.fs.locks.held().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_locked_apart_and_a_circle_of_waits_is_refused() {
    let memory = Arc::new(Memory::new());
    put(&memory, "/f", "0123456789").await;
    let (one, other) = (watching(&memory).await, watching(&memory).await);
    let first = one.open("f", READ_WRITE).await.unwrap();
    let second = other.open("f", READ_WRITE).await.unwrap();
    first.set_range(1, Some(Kind::Exclusive), (0, 4), false).await.unwrap();
    second.set_range(2, Some(Kind::Exclusive), (5, 9), false).await.unwrap();
    let (waited, refused) = within(async {
        tokio::join!(
            async {
                let waited = first.set_range(1, Some(Kind::Shared), (5, 5), true).await;
                first.set(1, None, false).await.unwrap();
                waited
            },
            async {
                // Whoever comes second is told.
                let refused = second.set_range(2, Some(Kind::Shared), (4, 4), true).await;
                second.set(2, None, false).await.unwrap();
                refused
            }
        )
    })
    .await;
    let ends = [waited, refused];
    assert_eq!(ends.iter().filter(|end| **end == Err(Errno::EDEADLK)).count(), 1, "{ends:?}");
    assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1, "{ends:?}");
    // A process that waits for itself would wait for ever.
    second.set(2, Some(Kind::Exclusive), false).await.unwrap();
    let pid = 2;
    let asked = LockRequest {
        handle: second.handle,
        owner: 7,
        start: 0,
        end: 9,
        kind: Some(Kind::Exclusive),
        pid,
        waits: true,
    };
    let refused = Arc::clone(&other.fs).set_lock(ANYBODY, asked).await;
    assert_eq!(refused, Err(Errno::EDEADLK));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_lost_its_lease_changes_nothing_until_its_locks_are_let_go() {
    let memory = Arc::new(Memory::new());
    put(&memory, "/lock", "").await;
    put(&memory, "/data", "old").await;
    let (one, other) = (watching(&memory).await, watching(&memory).await);
    let lock = one.open("lock", READ_WRITE).await.unwrap();
    lock.set(1, Some(Kind::Exclusive), false).await.unwrap();
    let data = one.open("data", READ_WRITE).await.unwrap();
    data.write(0, "ours").await.unwrap();
    let lease = one.fs.locks.current().expect("a session").lease;
    memory.lease_revoke(lease).await.unwrap();
    // Another has it now, and writes.
    let theirs = other.open("lock", READ_WRITE).await.unwrap();
    theirs.set(2, Some(Kind::Exclusive), false).await.unwrap();
    other.write("data", "theirs").await.unwrap();
    assert_eq!(data.flush().await, Err(Errno::EIO));
    assert!(one.fs.locks.fenced().expect("it is fenced").contains("/lock by process 1"));
    assert_eq!(one.write("else", "x").await, Err(Errno::EIO));
    assert_eq!(one.mkdir("directory").await, Err(Errno::EIO));
    assert_eq!(lock.set(1, Some(Kind::Exclusive), false).await, Err(Errno::EIO));
    assert_eq!(one.stored("/data").await.as_deref(), Some("theirs"));
    // What is staged when the lock is let go is lost too, though it is closed after that.
    let late = one.create("late", CREATE).await;
    assert!(late.is_err() || late.unwrap().end(1).await.is_err());
    lock.end(1).await.unwrap();
    assert_eq!(data.close().await, Ok(()), "it was told before");
    assert_eq!(one.fs.locks.fenced(), None);
    assert_eq!(one.read("data").await.unwrap(), "theirs");
    one.write("else", "y").await.unwrap();
    theirs.end(2).await.unwrap();
    let again = one.open("lock", READ_WRITE).await.unwrap();
    again.set(1, Some(Kind::Exclusive), false).await.unwrap();
    again.end(1).await.unwrap();
}

/// A transaction is not a way around a lock that was lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_not_committed_under_a_lost_lock() {
    let memory = Arc::new(Memory::new());
    put(&memory, "/lock", "").await;
    put(&memory, "/data", "old").await;
    let one = watching(&memory).await;
    let lock = one.open("lock", READ_WRITE).await.unwrap();
    lock.set(1, Some(Kind::Exclusive), false).await.unwrap();
    let own = one.begin("t").await.unwrap();
    own.write("data", "ours").await.unwrap();
    let lease = one.fs.locks.current().expect("a session").lease;
    memory.lease_revoke(lease).await.unwrap();
    for _ in 0..2 {
        assert_eq!(own.commit().await, Err(Errno::EIO));
        assert!(one.fs.locks.fenced().is_some());
        assert_eq!(one.stored("/data").await.as_deref(), Some("old"));
    }
    // Nothing happened: once the lock is let go, what the transaction read and wrote decides.
    lock.end(1).await.unwrap();
    own.commit().await.unwrap();
    assert_eq!(one.stored("/data").await.as_deref(), Some("ours"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_elsewhere_under_a_lost_lock_is_refused_when_the_lock_is_closed_first() {
    let memory = Arc::new(Memory::new());
    put(&memory, "/lock", "").await;
    put(&memory, "/data", "old").await;
    let one = watching(&memory).await;
    let lock = one.open("lock", READ_WRITE).await.unwrap();
    lock.set(1, Some(Kind::Exclusive), false).await.unwrap();
    let data = one.open("data", READ_WRITE).await.unwrap();
    data.write(0, "ours").await.unwrap();
    let lease = one.fs.locks.current().expect("a session").lease;
    memory.lease_revoke(lease).await.unwrap();
    put(&memory, "/data", "theirs").await;
    lock.end(1).await.ok();
    assert_eq!(one.fs.locks.fenced(), None, "it is let go");
    assert_eq!(data.close().await, Err(Errno::EIO));
    assert_eq!(one.stored("/data").await.as_deref(), Some("theirs"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_file_keeps_its_locks_and_one_that_is_gone_none() {
    let memory = Arc::new(Memory::new());
    put(&memory, "/d/f", "").await;
    let (one, other) = (watching(&memory).await, watching(&memory).await);
    let first = one.open("d/f", READ_WRITE).await.unwrap();
    first.set(1, Some(Kind::Exclusive), false).await.unwrap();
    one.rename("d/f", "d/g").await.unwrap();
    one.rename("d", "e").await.unwrap();
    let second = other.open("e/g", READ_WRITE).await.unwrap();
    assert_eq!(second.set(2, Some(Kind::Exclusive), false).await, Err(Errno::EAGAIN));
    first.end(1).await.unwrap();
    second.set(2, Some(Kind::Exclusive), false).await.unwrap();
    // A file of the same name is another one.
    other.unlink("e/g").await.unwrap();
    one.write("e/g", "").await.unwrap();
    let third = one.open("e/g", READ_WRITE).await.unwrap();
    third.set(3, Some(Kind::Exclusive), false).await.unwrap();
    second.end(2).await.unwrap();
    third.end(3).await.unwrap();
    assert!(super::keys(&memory).await.iter().all(|key| !key.contains("revfs/l/e")));
}
