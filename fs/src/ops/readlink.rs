//! READLINK: the target of a symlink is its value; `@time/T` points to a revision.

use bytes::Bytes;
use fuser::Errno;

use crate::filesystem::{Answer, Filesystem};
use crate::node::{Hidden, Place};

impl Filesystem {
    /// # Errors
    /// ESTALE for a link that is gone; for `@time/T` what its time means.
    pub async fn readlink(&self, ino: u64) -> Answer<Bytes> {
        let node = self.nodes.get(ino).ok_or(Errno::ESTALE)?;
        if let Place::Hidden(Hidden::TimeLink { name, .. }) = node.place() {
            let revision = self.revision_named(&name).await?;
            return Ok(format!("../@rev/{revision}").into());
        }
        if let Some(staged) = &node.file.lock().staged {
            return Ok(Bytes::copy_from_slice(&staged.bytes));
        }
        self.stored_content_of(&node).await.map(|content| content.bytes)
    }
}
