//! Letting go of locks: at an unlock, at FLUSH (fcntl: of all locks of a process that closes any
//! descriptor of the file) and at RELEASE (flock; and of what was locked through a handle that only
//! reads, for which the kernel sends no FLUSH).
//!
//! What was written under the lock is committed first: the locked file, and each file that one of the
//! processes that had to do with the lock has open for writing. If the lease was lost, all that is staged
//! in this mount is refused before anybody's claim ends.

use std::sync::Arc;
use std::time::Duration;

use fuser::Errno;
use futures_util::future::join_all;

use super::key_of;
use crate::closing::process_of;
use crate::commit::{draft_of, owner_of_staged};
use crate::filesystem::{Answer, Caller, Filesystem};
use crate::locks::table::LAST_BYTE;
use crate::locks::{Claim, Holder, Scope};
use crate::node::Node;

/// After a failed attempt to let go.
const RETRY: Duration = Duration::from_secs(1);

impl Filesystem {
    /// FLUSH, and what the process has locked of the file.
    ///
    /// # Errors
    /// As [`Self::flush`].
    pub async fn flush_and_let_go(
        self: Arc<Self>,
        caller: Caller,
        ino: u64,
        handle: u64,
        owner: u64,
    ) -> Answer<()> {
        let claim = Claim { ino, owner };
        let left = self.locks.leave(|own, _| *own == claim);
        let flushed = self.flush(caller, ino, handle).await;
        self.let_go(caller, left).await;
        flushed
    }

    /// RELEASE, and what was locked through the handle.
    ///
    /// # Errors
    /// As [`Self::release`].
    pub async fn release_and_let_go(
        self: Arc<Self>,
        caller: Caller,
        ino: u64,
        handle: u64,
        owner: Option<u64>,
    ) -> Answer<()> {
        let left = self.locks.leave(|own, holder| {
            own.ino == ino && (holder.handles.contains(&handle) || Some(own.owner) == owner)
        });
        let mut released = Ok(());
        if !left.is_empty() {
            // While the handle still counts as one of those that write.
            released = self.commit_under(caller, &left).await;
        }
        if left.iter().any(|(_, holder)| holder.handles.contains(&handle)) {
            self.lock_was_closed(ino);
        }
        let released = self.release(caller, handle).await.and(released);
        self.let_go(caller, left).await;
        released
    }

    async fn let_go(self: &Arc<Self>, caller: Caller, left: Vec<(Claim, Holder)>) {
        if left.is_empty() {
            return;
        }
        // An error has reached the handles.
        self.commit_under(caller, &left).await.ok();
        for (claim, holder) in left {
            self.give_back(claim, holder, 0, LAST_BYTE).await;
        }
    }

    /// Takes away what an owner holds of some bytes.
    pub(super) async fn unlock(
        self: &Arc<Self>,
        caller: Caller,
        claim: Claim,
        start: u64,
        end: u64,
    ) -> Answer<()> {
        let Some(holder) = self.locks.holder(claim) else { return Ok(()) };
        let left = [(claim, holder.clone())];
        let committed = self.commit_under(caller, &left).await;
        self.give_back(claim, holder, start, end).await;
        committed
    }

    /// Commits what was written under locks.
    async fn commit_under(&self, caller: Caller, left: &[(Claim, Holder)]) -> Answer<()> {
        let mut writers = vec![process_of(caller.pid)];
        let mut nodes: Vec<Arc<Node>> = Vec::new();
        let open = self.handles.files.all();
        for (_, holder) in left {
            nodes.push(Arc::clone(&holder.node));
            writers.push(holder.pid);
            let through = holder.handles.iter().filter_map(|own| self.handles.files.get(*own));
            writers.extend(through.map(|own| own.opener));
        }
        let written = open
            .iter()
            .filter(|own| own.may_write() && own.opener != 0 && writers.contains(&own.opener));
        nodes.extend(written.map(|own| Arc::clone(&own.node)));
        nodes.sort_by_key(|node| node.ino);
        nodes.dedup_by_key(|node| node.ino);
        let commits = nodes.iter().map(|node| {
            let uid = if caller.pid == 0 { owner_of_staged(node) } else { caller.uid };
            self.commit(node, uid)
        });
        join_all(commits).await.into_iter().collect()
    }

    /// Lets go in the store, or, if that is out of reach, goes on trying when the caller is gone.
    async fn give_back(self: &Arc<Self>, claim: Claim, holder: Holder, start: u64, end: u64) {
        if self.give_back_now(claim, &holder, start, end).await.is_ok() {
            return;
        }
        let own = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(RETRY).await;
                if own.give_back_now(claim, &holder, start, end).await.is_ok() {
                    return;
                }
            }
        });
    }

    async fn give_back_now(
        &self,
        claim: Claim,
        holder: &Holder,
        start: u64,
        end: u64,
    ) -> Answer<()> {
        let is_lost = || holder.session.as_ref().is_some_and(|session| session.is_lost());
        let released = if is_lost() {
            Err(Errno::EIO)
        } else {
            self.release_range(claim, holder, start, end).await
        };
        if is_lost() {
            // Whatever was written under the lock must not be committed once it is forgotten.
            self.refuse_if_fenced().await;
            if start == 0 && end == LAST_BYTE {
                self.locks.forget(claim);
            }
            return Ok(());
        }
        if !released? {
            self.locks.forget(claim);
        }
        Ok(())
    }

    /// Returns whether the owner still holds something of the file.
    async fn release_range(
        &self,
        claim: Claim,
        holder: &Holder,
        start: u64,
        end: u64,
    ) -> Answer<bool> {
        let Claim { ino, owner } = claim;
        loop {
            let key = key_of(&holder.node);
            let scope = match (&key, &holder.session) {
                (Some(key), Some(session)) => {
                    Scope::Cluster { key: key.clone(), session: Arc::clone(session) }
                }
                (None, _) | (_, None) => Scope::Here { ino },
            };
            let (holds, _) = self
                .change_locks(&scope, |table, _| {
                    table.release(owner, holder.birth, start, end);
                    table.holds_any(owner, holder.birth)
                })
                .await?;
            // Its locks went along if it was renamed meanwhile.
            if key == key_of(&holder.node) {
                return Ok(holds);
            }
        }
    }

    /// Refuses all that is staged in this mount if the lease of its locks was lost while some were held.
    pub(crate) async fn refuse_if_fenced(&self) {
        if !self.locks.is_fenced() {
            return;
        }
        let refusals = self.nodes.all().into_iter().map(|node| async move {
            if node.file.lock().staged.is_none() || self.stays_here(&node) {
                return;
            }
            let _committing = node.commit.lock().await;
            if let Some((key, _)) = draft_of(&node) {
                // The handles are told.
                self.refuse(&node, &key, Errno::EIO).ok();
            }
        });
        join_all(refusals).await;
    }
}
