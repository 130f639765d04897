//! fsync, of files and directories.

use fuser::Errno;

use crate::filesystem::{Answer, Caller, Filesystem};

impl Filesystem {
    /// Commits what is staged. What the store has acknowledged is durable.
    ///
    /// # Errors
    /// What a commit was refused with, once for each handle.
    pub async fn fsync(&self, caller: Caller, handle: u64) -> Answer<()> {
        let handle = self.handles.files.get(handle).ok_or(Errno::EBADF)?;
        if handle.may_write() {
            return self.commit_for(&handle, caller).await;
        }
        // POSIX: data of the file, whoever wrote them.
        self.commit(&handle.node, caller.uid).await
    }

    /// Names are durable when their operation is answered; those of files that are open here are not
    /// in the store yet, and become so with their content.
    ///
    /// # Errors
    /// None.
    pub fn fsyncdir(&self) -> Answer<()> {
        Ok(())
    }
}
