//! SETLK and GETLK: flock and fcntl locks, and what their end means.
//!
//! The kernel's messages as they arrive here do not tell flock from fcntl, so the two are one kind of lock,
//! as on NFS: by owner and bytes, flock's are all bytes.
//!
//! - *Asked for*: what is staged of the file is committed first, so that it is in the store, and this mount
//!   shows what the last holder left, not what it had itself.
//! - *Granted*: answered when the kernel has been told of all that was committed before ([`caught_up`]).
//! - *Let go*: what the process wrote is committed first, here and in other files.
//!
//! [`caught_up`]: Filesystem::caught_up

mod letting_go;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fuser::Errno;
use revfs_api::keyspace::{Op, Revision};

use crate::filesystem::{Answer, Caller, Filesystem};
use crate::locks::session::Session;
use crate::locks::stored::Loaded;
use crate::locks::table::{Entry, Kind, LAST_BYTE};
use crate::locks::{Claim, Holder, Scope};
use crate::node::{Node, Place};
use crate::notices::Notice;
use crate::path::lock_key;

/// How long who only tries waits for a close that is on its way: the kernel tells of the last close of a
/// file only after the process that made it has gone on.
const CLOSE_PATIENCE: Duration = Duration::from_millis(10);

/// A request about a lock.
#[derive(Clone, Copy, Debug)]
pub struct LockRequest {
    pub handle: u64,
    pub owner: u64,
    pub start: u64,
    /// Inclusive.
    pub end: u64,
    /// `None` lets go.
    pub kind: Option<Kind>,
    pub pid: u32,
    /// Waits until it can be had.
    pub waits: bool,
}

/// A lock that is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InTheWay {
    pub start: u64,
    pub end: u64,
    pub kind: Kind,
    /// 0 for a process of another machine.
    pub pid: u32,
}

/// What a first look at a file's locks says.
enum Look {
    Held,
    Waits(u64),
    Deadlock,
    /// By whom of this mount's owners, if by no others.
    InTheWay(Option<Vec<u64>>),
}

impl LockRequest {
    fn entry(&self, kind: Kind, birth: u64) -> Entry {
        let Self { owner, pid, start, .. } = *self;
        let end = self.end.min(LAST_BYTE);
        Entry { owner, pid, birth, start, end, kind, waits: None }
    }
}

impl Filesystem {
    /// Sets or takes away a lock.
    ///
    /// # Errors
    /// EAGAIN if it is not free and `waits` is not set; EDEADLK if it never would be; EINTR if the caller
    /// has a signal to act on; EIO if the lease of this mount's locks is lost; ENOLCK beyond the bounds;
    /// what a commit was refused with that had to come first.
    pub async fn set_lock(self: Arc<Self>, caller: Caller, asked: LockRequest) -> Answer<()> {
        let handle = self.handles.files.get(asked.handle).ok_or(Errno::EBADF)?;
        let node = Arc::clone(&handle.node);
        let claim = Claim { ino: node.ino, owner: asked.owner };
        let Some(kind) = asked.kind else {
            return self.unlock(caller, claim, asked.start, asked.end.min(LAST_BYTE)).await;
        };
        if self.is_lockable(&node) {
            if handle.may_write() {
                self.commit_for(&handle, caller).await?;
            } else {
                self.commit(&node, caller.uid).await?;
            }
        }
        let birth = self.birth_of(&node).await?;
        let wanted = asked.entry(kind, birth);
        let mut scope = self.lock_scope(&node).await?;
        let new = Holder::new(&node, birth, asked.pid, asked.handle, &scope);
        let asking = self.locks.ask(claim, new);
        let taken = loop {
            let taken = self.take_lock(&scope, claim, &wanted, asked.waits, caller).await;
            // Who waited with the session that is lost begins anew, if it had nothing.
            if taken != Err(Errno::EIO) || !scope.is_lost() || !asked.waits {
                break taken;
            }
            scope = self.lock_scope(&node).await?;
            asking.moves_to(&scope);
        };
        let had_locks = match taken {
            // Nobody knows: a close lets go of what there may be.
            Ok(_) | Err(Errno::EIO) => asking.granted(),
            Err(_) => true,
        };
        let caught_up = match taken {
            Ok(Some(revision)) if scope.session().is_some() => {
                self.caught_up(&node, revision).await
            }
            Ok(_) => Ok(()),
            Err(errno) => return Err(errno),
        };
        if scope.is_lost() {
            if !had_locks {
                self.locks.forget(claim);
            }
            return Err(Errno::EIO);
        }
        if let Err(errno) = caught_up {
            drop(asking);
            self.unlock(caller, claim, wanted.start, wanted.end).await.ok();
            return Err(errno);
        }
        Ok(())
    }

    /// The first lock that would be in the way of one.
    ///
    /// # Errors
    /// Why the locks cannot be read.
    pub async fn get_lock(&self, asked: LockRequest) -> Answer<Option<InTheWay>> {
        let handle = self.handles.files.get(asked.handle).ok_or(Errno::EBADF)?;
        let node = Arc::clone(&handle.node);
        let Some(kind) = asked.kind else { return Ok(None) };
        if node.file.lock().life.is_unborn() && self.is_lockable(&node) {
            // Who locks it brings it into the store.
            return Ok(None);
        }
        let wanted = asked.entry(kind, self.birth_of(&node).await?);
        let loaded = if self.is_lockable(&node) {
            self.within(self.keys.confirm()).await?;
            let (key, own) = (key_of(&node).ok_or(Errno::ESTALE)?, self.locks.current());
            self.load_stored(&key, own.as_ref()).await?
        } else {
            self.load_locks(&Scope::Here { ino: node.ino }).await?
        };
        let Loaded { table, .. } = loaded;
        let first = table.held_against(&wanted).into_iter().min_by_key(|of| of.entry.start);
        Ok(first.map(|of| InTheWay {
            start: of.entry.start,
            end: of.entry.end,
            kind: of.entry.kind,
            pid: if of.session == table.own { of.entry.pid } else { 0 },
        }))
    }

    /// What a rename does with the locks of this mount.
    pub(crate) fn moved_locks(&self, from: &Bytes, to: &Bytes) -> Option<Op> {
        let locked = self.locks.locked();
        let own = locked.iter().find(|(key, _)| key == from);
        own.map(|(_, session)| moved_lock(from, to, session))
    }

    /// Whether locks of this node are kept in the store.
    fn is_lockable(&self, node: &Node) -> bool {
        // In a transaction nobody else sees the file.
        let is_shared = self.private.is_none();
        let is_kept = self.options.writes_attributes && !self.options.read_only && is_shared;
        let is_private_only = {
            let state = node.file.lock();
            state.is_private && state.life.is_unborn()
        };
        is_kept && !is_private_only && !self.stays_here(node) && key_of(node).is_some()
    }

    async fn lock_scope(&self, node: &Arc<Node>) -> Answer<Scope> {
        match key_of(node) {
            Some(key) if self.is_lockable(node) => {
                Ok(Scope::Cluster { key, session: self.lock_session().await? })
            }
            Some(_) | None => Ok(Scope::Here { ino: node.ino }),
        }
    }

    /// Which file it is, for all mounts; 0 for one of this mount's own.
    async fn birth_of(&self, node: &Arc<Node>) -> Answer<u64> {
        let birth = node.file.lock().life.birth;
        if birth != Revision::NONE || !self.is_lockable(node) {
            return Ok(birth.0);
        }
        Ok(self.stored_of(node).await?.life().birth.0)
    }

    /// Takes a lock, now or in its turn. Returns the revision of that, if it made one.
    async fn take_lock(
        self: &Arc<Self>,
        scope: &Scope,
        claim: Claim,
        wanted: &Entry,
        waits: bool,
        caller: Caller,
    ) -> Answer<Option<Revision>> {
        if scope.session().is_some() {
            self.within(self.keys.confirm()).await?;
        }
        let mut changes = self.locks.changes(scope);
        let mut is_patient = true;
        loop {
            let (look, revision) = self
                .change_locks(scope, |table, now| {
                    let before =
                        if waits { table.before(wanted, None) } else { table.held_against(wanted) };
                    if before.is_empty() {
                        table.hold(wanted);
                        return Look::Held;
                    }
                    if !waits {
                        let own = before.iter().all(|of| of.session == table.own);
                        let owners = before.iter().map(|of| of.entry.owner).collect();
                        return Look::InTheWay(own.then_some(owners));
                    }
                    if table.is_deadlock(wanted) {
                        return Look::Deadlock;
                    }
                    table.wait(wanted, now.0);
                    Look::Waits(now.0)
                })
                .await?;
            match look {
                Look::Held => return Ok(revision),
                Look::Deadlock => return Err(Errno::EDEADLK),
                Look::Waits(place) => {
                    return self.wait_for_lock(scope, wanted, place, caller).await;
                }
                Look::InTheWay(Some(owners)) if is_patient => {
                    let is_leaving = |&owner: &u64| self.locks.is_leaving(Claim { owner, ..claim });
                    is_patient = owners.iter().any(is_leaving);
                    let patience = if is_patient { self.options.timeout } else { CLOSE_PATIENCE };
                    let changed = tokio::time::timeout(patience, changes.changed()).await;
                    is_patient &= changed.is_ok();
                }
                Look::InTheWay(_) => return Err(Errno::EAGAIN),
            }
        }
    }

    /// Waits until the kernel has been told of everything that was committed before `revision`: what the
    /// last holder wrote is what is read under the lock.
    pub(crate) async fn caught_up(&self, node: &Node, revision: Revision) -> Answer<()> {
        let told = async {
            self.coherence.reaches(revision).await;
            // Behind all that was queued before. Where nobody tells of changes all is asked for anew.
            let notice = if self.coherence.is_connected() {
                Notice::Attributes(node.ino)
            } else {
                self.drop_all_content();
                Notice::Everything
            };
            self.notices.settled(notice).await;
        };
        tokio::time::timeout(self.options.timeout, told).await.map_err(|_| Errno::ETIMEDOUT)
    }
}

/// This mount's locks of a file go along with its name.
pub(crate) fn moved_lock(from: &[u8], to: &[u8], session: &Session) -> Op {
    Op::MoveKey { from: lock_key(from, session.id), to: lock_key(to, session.id) }
}

/// The key that a live file has, or had last.
pub(crate) fn key_of(node: &Node) -> Option<Bytes> {
    match node.place() {
        Place::File { key } | Place::Detached { key } => Some(key),
        Place::Directory { .. } | Place::PastFile { .. } | Place::Hidden(_) => None,
    }
}
