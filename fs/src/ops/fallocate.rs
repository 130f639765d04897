//! FALLOCATE: room for a file that is open, and zeros in it.
//!
//! Nothing is reserved, because nothing needs it; and a value is kept whole, so that a hole is zeros like any
//! other.

use std::sync::Arc;

use fuser::Errno;

use crate::budget::OverBudget;
use crate::commit::now;
use crate::filesystem::{Answer, Caller, Filesystem};
use crate::node::Node;
use crate::notices::Notice;
use crate::ops::write::clear_set_ids;
use crate::staged::{FileState, Step};

/// One FALLOCATE.
#[derive(Clone, Copy, Debug)]
pub struct AllocateRequest {
    pub handle: u64,
    pub offset: u64,
    pub length: u64,
    /// FALLOC_FL_…
    pub mode: i32,
}

/// What is to become of the bytes in a range.
#[derive(Clone, Copy, Debug)]
struct Allocation {
    start: u64,
    end: u64,
    /// What is there becomes zeros.
    clears: bool,
    /// The file reaches as far, at least.
    grows: bool,
}

impl Allocation {
    /// # Errors
    /// EFBIG for an end that no file has; EOPNOTSUPP for what can only be refused.
    fn new(request: AllocateRequest) -> Answer<Self> {
        let (clears, grows) = match request.mode {
            0 => (false, true),
            libc::FALLOC_FL_KEEP_SIZE => (false, false),
            libc::FALLOC_FL_ZERO_RANGE => (true, true),
            mode if mode == libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE => (true, false),
            mode if mode == libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE => (true, false),
            _ => return Err(Errno::EOPNOTSUPP),
        };
        let end = request.offset.checked_add(request.length).ok_or(Errno::EFBIG)?;
        Ok(Self { start: request.offset, end, clears, grows })
    }

    fn changes(&self, size: u64) -> bool {
        (self.clears && self.start < size) || (self.grows && self.end > size)
    }
}

impl Filesystem {
    /// Grows a file, or makes a part of it zeros; where nothing changes by it, nothing is staged.
    ///
    /// # Errors
    /// EOPNOTSUPP for every mode but those, a hole and a range of zeros; else as [`Self::write`].
    pub async fn fallocate(
        &self,
        caller: Caller,
        ino: u64,
        request: AllocateRequest,
    ) -> Answer<()> {
        let handle = self.handles.files.get(request.handle).ok_or(Errno::EBADF)?;
        if !handle.may_write() || handle.node.ino != ino {
            return Err(Errno::EBADF);
        }
        if let Some(errno) = handle.refusal.lock().take() {
            return Err(errno);
        }
        let allocation = Allocation::new(request)?;
        let size_max = self.keys.capabilities().value_bytes_max as u64;
        if allocation.grows && allocation.end > size_max {
            return Err(Errno::EFBIG);
        }
        handle.reopen();
        self.allocate(caller, &handle.node, allocation).await?;
        if caller.uid != 0 {
            // The kernel leaves set-id bits to the file system, but goes on showing the mode that it has.
            self.notices.send(Notice::Attributes(ino));
        }
        Ok(())
    }

    async fn allocate(
        &self,
        caller: Caller,
        node: &Arc<Node>,
        allocation: Allocation,
    ) -> Answer<()> {
        if let Some(allocated) = allocate_staged(&mut node.file.lock(), caller, allocation) {
            return allocated;
        }
        let stored = self.stored_of(node).await?;
        if !allocation.changes(stored.kv.value_bytes) {
            return Ok(());
        }
        self.check_writable()?;
        let mut state = node.file.lock();
        self.stage_on(&mut state, stored, false)?;
        allocate_staged(&mut state, caller, allocation).ok_or(Errno::EIO)?
    }
}

/// Changes what is staged, if anything is.
fn allocate_staged(
    state: &mut FileState,
    caller: Caller,
    allocation: Allocation,
) -> Option<Answer<()>> {
    let bytes = state.staged.as_ref()?.bytes.len();
    if !allocation.changes(bytes as u64) {
        return Some(Ok(()));
    }
    // Beyond the end there is nothing to clear, and the end to grow to is bounded.
    let within = |position: u64| usize::try_from(position).unwrap_or(usize::MAX);
    let (start, end) = (within(allocation.start), within(allocation.end));
    let step = if allocation.clears { Step::Write } else { Step::Truncate };
    let changed = state.change(step, |staged| {
        if allocation.grows && end > bytes {
            staged.resize(end, now())?;
        }
        if allocation.clears {
            staged.clear(start..end, now());
        }
        if caller.uid != 0 {
            clear_set_ids(&mut staged.attributes);
        }
        Ok(())
    });
    changed.map(|changed| changed.map_err(|OverBudget| Errno::ENOSPC))
}

#[cfg(test)]
mod tests {
    use fuser::Errno;

    use super::{AllocateRequest, Allocation};

    #[test]
    fn a_hole_never_grows_a_file_and_room_never_clears_it() {
        let (keep, hole, zeros) = (
            libc::FALLOC_FL_KEEP_SIZE,
            libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
            libc::FALLOC_FL_ZERO_RANGE,
        );
        let of = |mode, offset, length| {
            Allocation::new(AllocateRequest { handle: 0, offset, length, mode })
        };
        // (mode, whether 2..6 changes a file of 2, of 4, and of 8 bytes)
        for (mode, changes) in [
            (0, [true, true, false]),
            (keep, [false, false, false]),
            (hole, [false, true, true]),
            (zeros, [true, true, true]),
            (zeros | keep, [false, true, true]),
        ] {
            let allocation = of(mode, 2, 4).expect("it is possible");
            assert_eq!([2, 4, 8].map(|size| allocation.changes(size)), changes, "mode {mode}");
        }
        for mode in
            [libc::FALLOC_FL_COLLAPSE_RANGE, libc::FALLOC_FL_INSERT_RANGE, 0x40, hole | zeros]
        {
            assert_eq!(of(mode, 2, 4).map(drop), Err(Errno::EOPNOTSUPP), "mode {mode}");
        }
        assert_eq!(of(hole, u64::MAX, 1).map(drop), Err(Errno::EFBIG));
    }
}
