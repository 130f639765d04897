//! Opening a file, and the two ways in which its last use ends: FLUSH and RELEASE.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fuser::Errno;

use crate::budget::Charge;
use crate::closing::{Holds, holds, process_of};
use crate::commit::{now, owner_of_staged};
use crate::filesystem::{Answer, Caller, Filesystem};
use crate::handle::FileHandle;
use crate::node::{Node, Place};
use crate::ops::write::clear_set_ids;
use crate::staged::{Base, Basis, Staged, Step};
use crate::txn::Private;

/// An open file, as the kernel is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    pub handle: u64,
    /// Closing this handle can commit nothing: no FLUSH is needed.
    pub needs_no_flush: bool,
}

impl Filesystem {
    /// Opens a file or symlink of any tree.
    ///
    /// # Errors
    /// EISDIR; EROFS for writing where nothing can be written; ENOSPC and EROFS early, where a commit
    /// is known to fail; ETXTBSY for a program that is to be emptied by who only reads it.
    pub async fn open(&self, caller: Caller, ino: u64, flags: i32) -> Answer<Opened> {
        let node = self.nodes.get(ino).ok_or(Errno::ESTALE)?;
        self.begin_anew(&node);
        if !writes(flags) {
            return Ok(self.opened(node, caller, flags));
        }
        match node.place() {
            Place::Directory { .. } => return Err(Errno::EISDIR),
            Place::PastFile { .. } | Place::Hidden(_) => return Err(Errno::EROFS),
            Place::File { .. } | Place::Detached { .. } => self.check_writable()?,
        }
        // The kernel refuses to open a program that runs for writing. But with O_TRUNC alone it asks for that
        // only after the answer, when content and pages would be gone already.
        if flags & libc::O_ACCMODE == libc::O_RDONLY && self.may_run(&node).await? {
            return Err(Errno::ETXTBSY);
        }
        // Counted first, so that the node stays while its content is fetched.
        let opened = self.opened(Arc::clone(&node), caller, flags);
        if flags & libc::O_TRUNC != 0
            && let Err(errno) = self.empty(caller, &node).await
        {
            self.forget_handle(opened.handle);
            return Err(errno);
        }
        Ok(opened)
    }

    /// Whether anybody may execute a file.
    async fn may_run(&self, node: &Node) -> Answer<bool> {
        let staged = node.file.lock().staged.as_ref().map(|staged| staged.attributes.mode);
        let mode = match staged {
            Some(mode) => mode,
            None => self.stored_of(node).await?.attributes.mode,
        };
        Ok(mode & 0o111 != 0)
    }

    /// Refuses what is known to be refused at the commit, while a shell still listens.
    pub(crate) fn check_writable(&self) -> Answer<()> {
        let is_decided = self.private.as_ref().is_some_and(Private::is_decided);
        if self.options.read_only || is_decided {
            return Err(Errno::EROFS);
        }
        if self.locks.is_fenced() {
            return Err(Errno::EIO);
        }
        self.writing.hindrance().map_or(Ok(()), Err)
    }

    /// [`Self::check_writable`] for what makes room: it is tried where writing found none.
    pub(crate) fn check_removable(&self) -> Answer<()> {
        match self.check_writable() {
            Err(errno) if errno == Errno::ENOSPC => Ok(()),
            other => other,
        }
    }

    /// Makes a handle and counts it.
    pub(crate) fn opened(&self, node: Arc<Node>, caller: Caller, flags: i32) -> Opened {
        // The process outlives the thread that opened the file.
        let opener = if writes(flags) { process_of(caller.pid) } else { 0 };
        let handle = FileHandle::new(node, flags, opener);
        {
            let mut state = handle.node.file.lock();
            state.open += 1;
            state.writers += usize::from(handle.may_write());
        }
        let handle = self.handles.files.insert(handle);
        Opened { handle, needs_no_flush: !writes(flags) }
    }

    /// O_TRUNC: what is staged, or will be, starts from nothing and wins over what is there.
    async fn empty(&self, caller: Caller, node: &Arc<Node>) -> Answer<()> {
        let emptied = |state: &mut crate::staged::FileState| {
            state.change(Step::Truncate, |staged| {
                staged.creation.may_repeat = true;
                if caller.uid != 0 {
                    clear_set_ids(&mut staged.attributes);
                }
                staged.resize(0, now())
            })
        };
        if emptied(&mut node.file.lock()).is_some() {
            return Ok(());
        }
        let stored = self.stored_of(node).await?;
        let mut state = node.file.lock();
        if emptied(&mut state).is_some() {
            return Ok(());
        }
        let charge = Charge::new(&self.writing.budget, 0).map_err(|_| Errno::ENOSPC)?;
        state.life = stored.life();
        let content = stored.content();
        let attributes = stored.attributes;
        let staged = Staged::on_content(&content, attributes, Basis::Rewrite, charge, now());
        let base = (content.mod_revision, content.content_revision);
        state.stage(Staged { replaces: self.replaced(base), ..staged });
        emptied(&mut state);
        Ok(())
    }

    /// What a rewrite of a file on this content may replace.
    pub(crate) fn replaced(&self, base: Base) -> Option<Base> {
        self.options.compare_and_swap.then_some(base)
    }

    /// A descriptor of the file goes. Commits what is staged if that was the opener's last one.
    ///
    /// # Errors
    /// What a commit was refused with, once for each handle.
    pub async fn flush(&self, caller: Caller, ino: u64, handle: u64) -> Answer<()> {
        let handle = self.handles.files.get(handle).ok_or(Errno::EBADF)?;
        if !handle.may_write() {
            return Ok(());
        }
        let has_staged = {
            let state = handle.node.file.lock();
            state.staged.is_some() && !state.is_private
        };
        if has_staged && self.is_close(&handle, ino) {
            handle.close();
            self.commit_for(&handle, caller).await
        } else {
            handle.refusal.lock().take().map_or(Ok(()), Err)
        }
    }

    /// Whether the opener of the handle has no descriptor of it any more. Each of its other handles
    /// that may write has at least one descriptor: only what it holds beyond those can be a copy.
    fn is_close(&self, handle: &Arc<FileHandle>, ino: u64) -> bool {
        match holds(handle.opener, ino) {
            Holds::Yes(descriptors) => descriptors <= self.other_writers(handle),
            Holds::No => true,
            Holds::Unknown => {
                self.writing.blind_flushes.fetch_add(1, Ordering::Relaxed);
                true
            }
        }
    }

    /// Other handles by which the opener of this one may write the file.
    fn other_writers(&self, handle: &Arc<FileHandle>) -> usize {
        let open = self.handles.files.all();
        let others = open.iter().filter(|other| {
            other.opener == handle.opener
                && other.may_write()
                && Arc::ptr_eq(&other.node, &handle.node)
                && !Arc::ptr_eq(other, handle)
        });
        others.count()
    }

    /// Commits, and tells this handle's owner now rather than at its next call.
    pub(crate) async fn commit_for(&self, handle: &FileHandle, caller: Caller) -> Answer<()> {
        let committed = self.commit(&handle.node, caller.uid).await;
        let refused = handle.refusal.lock().take();
        committed.and(refused.map_or(Ok(()), Err))
    }

    /// The last descriptor of a handle is gone, and every mapping.
    ///
    /// # Errors
    /// As [`Self::flush`]; the kernel tells nobody.
    pub async fn release(&self, caller: Caller, handle: u64) -> Answer<()> {
        let Some(open) = self.handles.files.get(handle) else { return Err(Errno::EBADF) };
        // The kernel does not say who closed it last.
        let uid = if caller.pid == 0 { owner_of_staged(&open.node) } else { caller.uid };
        let caller = Caller { uid, ..caller };
        // Who changes something while this commits must wait for a commit of its own.
        open.close();
        let committed =
            if open.may_write() { self.commit_for(&open, caller).await } else { Ok(()) };
        let node = Arc::clone(&open.node);
        drop(open);
        self.forget_handle(handle);
        // What was changed while the commit was on its way has no other close to wait for. An error
        // stays with the copy.
        if committed.is_ok() && node.file.lock().is_stranded() {
            self.commit(&node, owner_of_staged(&node)).await.ok();
            self.nodes.release(node.ino);
        }
        committed
    }

    fn forget_handle(&self, handle: u64) {
        let Some(open) = self.handles.files.remove(handle) else { return };
        open.close();
        let mut state = open.node.file.lock();
        state.open -= 1;
        if state.open == 0 {
            // What is private goes with its last handle; content is read anew.
            if state.is_private {
                state.staged = None;
            }
            state.content = None;
        }
        if state.is_stranded() {
            self.writing.tend(&open.node);
        }
        drop(state);
        self.nodes.release(open.node.ino);
    }
}

/// Whether `open(2)` flags ask for more than reading.
pub(super) fn writes(flags: i32) -> bool {
    flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0
}
