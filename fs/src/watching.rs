//! `@watch`: a file whose read waits until something in its directory, or below, changes.
//!
//! What is read are lines of JSON, one for each change ([`lines`]). Every open file has a position of its
//! own in the history and asks the store for what comes next as it is read, so that nothing is queued,
//! lost or repeated, however slowly that happens: it begins with what comes after it was opened,
//! `@watch.N` with revision N. A line is handed out when the kernel has been told of its revision: who
//! reads a file because of a line reads what is new.
//!
//! While nothing is there a read waits in a task, never in a FUSE worker, until the [`Bell`] of its file
//! rings, its caller has a signal ([`crate::interrupt`]), or the mount ends, which is the end of the
//! file. The task that keeps the kernel's caches true rings the bells.

mod lines;
mod reader;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fuser::Errno;
use parking_lot::Mutex;
use revfs_api::keyspace::{ChangesRequest, KeyRange, Revision, RevisionEvents};
use tokio::sync::{Semaphore, watch};

use self::lines::subject;
pub(crate) use self::reader::Reader;
use crate::attributes::record_key;
use crate::filesystem::{Answer, Filesystem};
use crate::interrupt::{LOOK_EVERY, is_interrupted};
use crate::node::Node;
use crate::path::DirectoryKey;

/// `@watch` files that are open at once: each of them costs a look at each revision. Beyond it open is
/// ENFILE.
pub(crate) const WATCHERS_MAX: usize = 256;

/// Reads that wait at once; the others are EAGAIN, before they take what other requests need.
const WAITING_MAX: usize = 1_024;

/// Events of a revision that are looked at for each bell; of a larger one all bells ring.
const LOOKED_AT_MAX: usize = 1_000;

/// Revisions that are turned into lines at once, and that are looked at for them.
const REVISIONS_AT_ONCE: usize = 16;
const SCANNED_AT_ONCE: usize = 2_000;

/// Before the store is asked again that could not answer, or had not heard yet of what this mount has.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Who has waited for long need not be looked at often.
const LOOK_LAST: Duration = Duration::from_millis(250);

/// A caller in another pid namespace, whose signals cannot be seen, is sent to ask again.
const BLIND_WAIT: Duration = Duration::from_secs(30);

/// Tells a program that polls to look again.
pub(crate) type Wake = Box<dyn FnOnce() + Send>;

/// Rings when something below a directory has changed.
struct Bell {
    directory: DirectoryKey,
    /// The newest revision that is known to have changed something.
    rung: watch::Sender<Revision>,
    poller: Mutex<Option<Wake>>,
}

impl Bell {
    fn ring(&self, revision: Revision) {
        self.rung.send_modify(|rung| *rung = revision.max(*rung));
        if let Some(wake) = self.poller.lock().take() {
            wake();
        }
    }
}

/// The bells of a mount, one for each open `@watch`.
pub(crate) struct Watchers {
    bells: Mutex<Vec<Arc<Bell>>>,
    waiting: Semaphore,
    /// The mount is about to go.
    ended: watch::Sender<bool>,
}

impl Default for Watchers {
    fn default() -> Self {
        let waiting = Semaphore::new(WAITING_MAX);
        Self { bells: Mutex::default(), waiting, ended: watch::Sender::default() }
    }
}

impl std::fmt::Debug for Watchers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watchers").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl Watchers {
    /// # Errors
    /// ENFILE if there are [`WATCHERS_MAX`] already.
    fn hang(&self, directory: DirectoryKey) -> Answer<Arc<Bell>> {
        let mut bells = self.bells.lock();
        if bells.len() >= WATCHERS_MAX {
            return Err(Errno::ENFILE);
        }
        let rung = watch::Sender::default();
        let bell = Arc::new(Bell { directory, rung, poller: Mutex::default() });
        bells.push(Arc::clone(&bell));
        Ok(bell)
    }

    pub(crate) fn count(&self) -> usize {
        self.bells.lock().len()
    }

    /// The kernel has been told of a revision.
    pub(crate) fn ring(&self, events: &RevisionEvents) {
        for bell in &*self.bells.lock() {
            let is_below =
                |key: &Bytes| subject(key).is_some_and(|key| bell.directory.contains(key));
            let is_large = events.events.len() > LOOKED_AT_MAX;
            if is_large || events.events.iter().any(|event| is_below(&event.kv.key)) {
                bell.ring(events.stamp.revision);
            }
        }
    }

    /// What happened up to a revision nobody knows here.
    pub(crate) fn ring_all(&self, revision: Revision) {
        for bell in &*self.bells.lock() {
            bell.ring(revision);
        }
    }

    /// The end of every `@watch`.
    pub(crate) fn end(&self) {
        self.ended.send_replace(true);
        self.ring_all(Revision::NONE);
    }

    async fn ending(&self) {
        // An error would mean the same.
        self.ended.subscribe().wait_for(|ended| *ended).await.ok();
    }
}

/// An open `@watch`.
pub(crate) struct Watching {
    reader: Reader,
    bell: Arc<Bell>,
    watchers: Arc<Watchers>,
    cursor: tokio::sync::Mutex<Cursor>,
}

struct Cursor {
    /// The first revision that was not asked for yet.
    next: Revision,
    /// The lines before it, without what was read already.
    rest: Bytes,
}

impl std::fmt::Debug for Watching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watching").field("directory", self.directory()).finish_non_exhaustive()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.watchers.bells.lock().retain(|bell| !Arc::ptr_eq(bell, &self.bell));
    }
}

impl Watching {
    fn directory(&self) -> &DirectoryKey {
        &self.bell.directory
    }

    fn request(&self, from: Revision) -> ChangesRequest {
        let directory = self.directory();
        let records = KeyRange::prefix(&record_key(directory.as_bytes()));
        ChangesRequest {
            ranges: vec![directory.range(), records],
            from,
            to: Revision::NONE,
            newest_first: false,
            limit: REVISIONS_AT_ONCE,
            scan_limit: SCANNED_AT_ONCE,
            keys_only: true,
        }
    }
}

/// What is there to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Lines,
    Nothing,
    /// Nothing at the member that was asked, but this mount knows of a change.
    NotYet,
}

/// What a program that polls is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// A file that never makes anybody wait.
    Always,
    Lines,
    Nothing,
    /// The mount is about to go.
    End,
}

impl Filesystem {
    /// Opens `@watch`, or `@watch.N`. What is looked up from now on is as new as where the lines begin.
    ///
    /// # Errors
    /// ENFILE if too many are open; what the key space answers.
    pub(crate) async fn open_watch(
        &self,
        reader: Reader,
        node: &Node,
        directory: DirectoryKey,
        from: Option<u64>,
    ) -> Answer<Watching> {
        let bell = self.watchers.hang(directory)?;
        let cursor = Cursor { next: Revision(from.unwrap_or(0).max(1)), rest: Bytes::new() };
        let watchers = Arc::clone(&self.watchers);
        let mut watching =
            Watching { reader, bell, watchers, cursor: tokio::sync::Mutex::new(cursor) };
        if from.is_none() {
            let current = self.ask(Revision::NONE, Vec::new()).await?.current;
            self.caught_up(node, current).await?;
            watching.cursor.get_mut().next = current.next();
        }
        Ok(watching)
    }

    /// A line, or `size` bytes of it; waits for one until `thread` has a signal. Nothing at the end of the
    /// mount.
    ///
    /// # Errors
    /// EINTR; EAGAIN for a descriptor that does not wait, and if too many wait; ESTALE if the history was compacted before it
    /// was read.
    pub(crate) async fn read_watch(
        &self,
        node: &Node,
        watching: &Watching,
        size: u32,
        thread: u32,
        waits: bool,
    ) -> Answer<Bytes> {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let _seat = self.watchers.waiting.try_acquire().map_err(|_| Errno::EAGAIN)?;
        tokio::select! {
            biased;
            () = self.watchers.ending() => Ok(Bytes::new()),
            bytes = self.next_bytes(node, watching, size, waits) => bytes,
            errno = interrupted(thread) => Err(errno),
        }
    }

    async fn next_bytes(
        &self,
        node: &Node,
        watching: &Watching,
        size: usize,
        waits: bool,
    ) -> Answer<Bytes> {
        let mut rung = watching.bell.rung.subscribe();
        loop {
            // Before the look, so that nothing is missed between that and the wait.
            rung.borrow_and_update();
            let mut cursor = watching.cursor.lock().await;
            let there = self.fill(node, watching, &mut cursor).await;
            if there == Ok(There::Lines) {
                return Ok(next_line(&mut cursor.rest, size));
            }
            drop(cursor);
            match there {
                Ok(_) if !waits => return Err(Errno::EAGAIN),
                Err(errno) if !waits || !is_passing(errno) => return Err(errno),
                Ok(There::Lines | There::Nothing) => {
                    // The bell hangs as long as the file is open.
                    rung.changed().await.ok();
                }
                Ok(There::NotYet) => tokio::time::sleep(RETRY_AFTER).await,
                Err(errno) => {
                    tracing::debug!(?errno, "changes cannot be read for @watch");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    /// Whether something is there to be read; `wake` is called when that may have changed.
    ///
    /// # Errors
    /// EBADF for a handle that is not open; what a read would answer.
    pub async fn poll(&self, handle: u64, wake: Option<Wake>) -> Answer<Readiness> {
        let handle = self.handles.files.get(handle).ok_or(Errno::EBADF)?;
        let Some(watching) = &handle.watching else { return Ok(Readiness::Always) };
        if let Some(wake) = wake {
            *watching.bell.poller.lock() = Some(wake);
        }
        let there = async {
            loop {
                let mut cursor = watching.cursor.lock().await;
                match self.fill(&handle.node, watching, &mut cursor).await? {
                    There::Lines => return Ok(Readiness::Lines),
                    There::Nothing => return Ok(Readiness::Nothing),
                    There::NotYet => drop(cursor),
                }
                tokio::time::sleep(RETRY_AFTER).await;
            }
        };
        tokio::select! {
            biased;
            () = self.watchers.ending() => Ok(Readiness::End),
            there = tokio::time::timeout(self.options.timeout, there) => {
                there.unwrap_or(Err(Errno::ETIMEDOUT))
            }
        }
    }

    /// Sees to it that there are lines, if there can be some.
    async fn fill(&self, node: &Node, watching: &Watching, cursor: &mut Cursor) -> Answer<There> {
        while cursor.rest.is_empty() {
            let mut is_present = true;
            match self.within(self.keys.changes(watching.request(cursor.next))).await {
                Ok(answer) => {
                    is_present = answer.next.is_none();
                    let lines = self.lines(watching, &answer.revisions).await?;
                    if let Some(last) = answer.revisions.last().filter(|_| !lines.is_empty()) {
                        self.caught_up(node, last.stamp.revision).await?;
                        self.raise_floor(last.stamp.revision);
                    }
                    // From here on nothing is waited for: the lines and the position change as one.
                    cursor.next = answer.next.unwrap_or(answer.current.next()).max(cursor.next);
                    cursor.rest = lines;
                }
                // Of the future.
                Err(errno) if errno == Errno::ENOENT => {}
                Err(errno) => return Err(errno),
            }
            if cursor.rest.is_empty() {
                if is_present {
                    let is_behind = cursor.next <= *watching.bell.rung.borrow();
                    return Ok(if is_behind { There::NotYet } else { There::Nothing });
                }
                // A long way through what happened elsewhere is not gone by a FUSE worker.
                tokio::task::yield_now().await;
            }
        }
        Ok(There::Lines)
    }
}

/// Takes what is left of the first line. What a program reads beyond its line it would try to give back,
/// and cannot.
fn next_line(rest: &mut Bytes, size: usize) -> Bytes {
    let line = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
    rest.split_to(line.min(size))
}

/// Whether what hinders a read may be gone if it is tried again.
fn is_passing(errno: Errno) -> bool {
    [Errno::EIO, Errno::ETIMEDOUT, Errno::EAGAIN, Errno::EROFS].contains(&errno)
}

/// What to answer once the wait of `thread` is to end.
async fn interrupted(thread: u32) -> Errno {
    if thread == 0 {
        tokio::time::sleep(BLIND_WAIT).await;
        return Errno::EAGAIN;
    }
    let mut pause = LOOK_EVERY;
    loop {
        tokio::time::sleep(pause).await;
        if is_interrupted(thread) {
            return Errno::EINTR;
        }
        pause = (pause + pause / 16).min(LOOK_LAST);
    }
}
