//! Changing the content of an open file: the staged copy of its inode.

use std::sync::Arc;

use fuser::Errno;

use crate::attributes::Attributes;
use crate::budget::{Charge, OverBudget};
use crate::commit::now;
use crate::filesystem::{Answer, Caller, CommitAt, Filesystem};
use crate::handle::FileHandle;
use crate::node::Node;
use crate::staged::{Basis, FileState, Position, Staged, Step};
use crate::stored::StoredFile;

/// One WRITE.
#[derive(Clone, Copy, Debug)]
pub struct WriteRequest<'a> {
    pub handle: u64,
    pub offset: u64,
    pub data: &'a [u8],
    /// `open(2)` flags of the descriptor as they are now.
    pub flags: i32,
    /// The kernel writes a page back (of a mapping): nobody waits for it, and the caller is not known.
    pub is_page: bool,
}

impl Filesystem {
    /// Writes into the staged copy; stages one first if there is none.
    ///
    /// # Errors
    /// EFBIG over the largest value, before anything is kept; ENOSPC over the mount's bound of staged
    /// bytes; what a commit was refused with since the last call.
    pub async fn write(&self, caller: Caller, ino: u64, request: WriteRequest<'_>) -> Answer<u32> {
        let handle = self.handles.files.get(request.handle).ok_or(Errno::EBADF)?;
        if !handle.may_write() || handle.node.ino != ino {
            return Err(Errno::EBADF);
        }
        // Nobody hears the answer to a page.
        if !request.is_page
            && let Some(errno) = handle.refusal.lock().take()
        {
            return Err(errno);
        }
        handle.reopen();
        let count = u32::try_from(request.data.len()).map_err(|_| Errno::EINVAL)?;
        let appends = request.flags & libc::O_APPEND != 0;
        self.stage_write(caller, &handle.node, &request, appends).await?;
        // Pages of a mapping wait for their fsync or close: they are no write of anybody's.
        if !request.is_page && self.options.commit == CommitAt::Write {
            self.commit_step(&handle, caller).await?;
        }
        Ok(count)
    }

    async fn stage_write(
        &self,
        caller: Caller,
        node: &Arc<Node>,
        request: &WriteRequest<'_>,
        appends: bool,
    ) -> Answer<()> {
        if let Some(written) = self.write_staged(&mut node.file.lock(), caller, request) {
            // A new file is staged since it was created.
            if appends {
                self.writing.tend(node);
            }
            return written;
        }
        self.check_writable()?;
        let stored = self.stored_of(node).await?;
        let start =
            if appends && !request.is_page { stored.kv.value_bytes } else { request.offset };
        let end = start.checked_add(request.data.len() as u64).ok_or(Errno::EFBIG)?;
        // Before anything is staged: the close of an unchanged file commits nothing.
        if end > self.keys.capabilities().value_bytes_max as u64 {
            return Err(Errno::EFBIG);
        }
        let written = {
            let mut state = node.file.lock();
            self.stage_on(&mut state, stored, appends)?;
            self.write_staged(&mut state, caller, request).ok_or(Errno::EIO)?
        };
        if appends {
            self.writing.tend(node);
        }
        written
    }

    /// One step of a program is a revision (`commit=write`).
    async fn commit_step(&self, handle: &FileHandle, caller: Caller) -> Answer<()> {
        let generation = handle.node.file.lock().generation;
        let committed = self.commit_unwaited(&handle.node, caller, generation).await;
        let refused = handle.refusal.lock().take();
        committed.and(refused.map_or(Ok(()), Err))
    }

    /// Writes if something is staged (or the bytes are not wanted any more).
    fn write_staged(
        &self,
        state: &mut FileState,
        caller: Caller,
        request: &WriteRequest<'_>,
    ) -> Option<Answer<()>> {
        if request.is_page && state.has_stale_pages {
            return Some(Ok(()));
        }
        let staged_bytes = state.staged.as_ref()?.bytes.len();
        // A page of a mapping has its place, whatever the flags of the descriptor it came through.
        let appends = request.flags & libc::O_APPEND != 0 && !request.is_page;
        let start = if appends { Some(staged_bytes) } else { usize::try_from(request.offset).ok() };
        let end = start.and_then(|start| start.checked_add(request.data.len()));
        if end.is_none_or(|end| end > self.keys.capabilities().value_bytes_max) {
            return Some(Err(Errno::EFBIG));
        }
        let position = match start {
            Some(start) if !appends => Position::At(start),
            _ => Position::End,
        };
        let step = if appends { Step::Append } else { Step::Write };
        let written = state.change(step, |staged| {
            staged.write(position, request.data, now())?;
            if caller.uid != 0 || request.is_page {
                clear_set_ids(&mut staged.attributes);
            }
            Ok(())
        });
        written.map(|written| written.map_err(|OverBudget| Errno::ENOSPC))
    }

    /// Stages what the store has, unless something is staged by now.
    pub(crate) fn stage_on(
        &self,
        state: &mut FileState,
        stored: StoredFile,
        appends: bool,
    ) -> Answer<()> {
        if state.staged.is_some() {
            return Ok(());
        }
        if state.is_private && state.open == 0 {
            // Its name went while it was looked up; nobody would ever drop the copy.
            return Err(Errno::ESTALE);
        }
        let newest = stored.content();
        // What was read through this mount is what is changed; if it is no longer what is there, the
        // commit must notice.
        let content = match &state.content {
            Some(read) if !appends => read.clone(),
            _ => newest,
        };
        let basis = if appends {
            Basis::append_to(&content)
        } else {
            Basis::Change { modified: content.mod_revision, content: content.content_revision }
        };
        let charge = Charge::new(&self.writing.budget, content.bytes.len());
        let charge = charge.map_err(|OverBudget| Errno::ENOSPC)?;
        state.life = stored.life();
        let staged = Staged::on_content(&content, stored.attributes, basis, charge, now());
        let base = (content.mod_revision, content.content_revision);
        state.stage(Staged { replaces: self.replaced(base), ..staged });
        Ok(())
    }

    /// Sets the length of a file that is open, or of which something is staged. Returns the generation
    /// of the staged copy that has it.
    pub(crate) async fn resize_staged(&self, node: &Arc<Node>, size: u64) -> Answer<u64> {
        let size = usize::try_from(size).map_err(|_| Errno::EFBIG)?;
        if size > self.keys.capabilities().value_bytes_max {
            return Err(Errno::EFBIG);
        }
        let resize = |state: &mut FileState| {
            let resized = state.change(Step::Truncate, |staged| staged.resize(size, now()))?;
            Some(resized.map(|()| state.generation).map_err(|OverBudget| Errno::ENOSPC))
        };
        if let Some(resized) = resize(&mut node.file.lock()) {
            return resized;
        }
        self.check_writable()?;
        let stored = self.stored_of(node).await?;
        let mut state = node.file.lock();
        self.stage_on(&mut state, stored, false)?;
        resize(&mut state).ok_or(Errno::EIO)?
    }
}

/// New content from a user without privilege must not run with the rights of the old one's owner.
pub(crate) fn clear_set_ids(attributes: &mut Attributes) {
    const SET_GROUP: u16 = 0o2000;
    const GROUP_EXECUTE: u16 = 0o010;
    attributes.mode &= !0o4000;
    // Without the execute bit, the set-group bit means mandatory locking, not rights.
    if attributes.mode & GROUP_EXECUTE != 0 {
        attributes.mode &= !SET_GROUP;
    }
}
