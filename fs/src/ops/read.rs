//! READ: bytes of an open file.

use bytes::Bytes;
use fuser::Errno;
use revfs_api::keyspace::{Read, Revision};

use crate::filesystem::{Answer, Filesystem};
use crate::node::{Hidden, Node, Place};
use crate::resolve::Answers;
use crate::staged::{Content, Life};

impl Filesystem {
    /// At most `size` bytes from `offset` on; fewer only at the end of the file.
    ///
    /// # Errors
    /// EBADF for a handle that is not open; ESTALE if the content cannot be read any more.
    pub async fn read(&self, handle: u64, offset: u64, size: u32) -> Answer<Bytes> {
        self.read_as(0, handle, offset, size, true).await
    }

    /// [`Self::read`] by a thread. Where there is something to wait for, it `waits` until it has a signal,
    /// or not at all.
    ///
    /// # Errors
    /// EINTR, too; and EAGAIN where there would be something to wait for.
    pub async fn read_as(
        &self,
        thread: u32,
        handle: u64,
        offset: u64,
        size: u32,
        waits: bool,
    ) -> Answer<Bytes> {
        let handle = self.handles.files.get(handle).ok_or(Errno::EBADF)?;
        if let Some(watching) = &handle.watching {
            return self.read_watch(&handle.node, watching, size, thread, waits).await;
        }
        if let Some(fixed) = &handle.fixed {
            return Ok(part(fixed, offset, size));
        }
        let content_changes = {
            let file = handle.node.file.lock();
            if let Some(staged) = &file.staged {
                return Ok(Bytes::copy_from_slice(slice(&staged.bytes, offset, size)));
            }
            if let Some(content) = &file.content {
                return Ok(part(&content.bytes, offset, size));
            }
            file.content_changes
        };
        let content = self.stored_content_of(&handle.node).await?;
        let bytes = part(&content.bytes, offset, size);
        let mut file = handle.node.file.lock();
        // Kept for the life of the handle: a large file would otherwise be copied out of the store
        // again for each READ of a part of it.
        // What changed while it was on its way would stay hidden as long.
        let is_current = file.content_changes == content_changes;
        if is_current && file.open > 0 && file.staged.is_none() && file.content.is_none() {
            file.content = Some(content);
        }
        Ok(bytes)
    }

    /// The whole content of a file as the store has it: now for a live file, else when it was last
    /// seen to exist.
    pub(crate) async fn stored_content_of(&self, node: &Node) -> Answer<Content> {
        let (key, revision) = match node.place() {
            Place::File { key } => {
                if let Some(content) = self.value_at(Revision::NONE, &key).await?
                    && node.is_or_begins(content.0)
                {
                    return Ok(content.1);
                }
                (key, node.seen())
            }
            Place::PastFile { key, .. } | Place::Detached { key } => (key, node.seen()),
            Place::Hidden(Hidden::Version { key, revision, deleted: false }) => (key, revision),
            Place::Directory { .. } => return Err(Errno::EISDIR),
            Place::Hidden(_) => return Err(Errno::EINVAL),
        };
        if revision == Revision::NONE {
            return Err(Errno::ESTALE);
        }
        self.value_at(revision, &key).await?.map(|(_, content)| content).ok_or(Errno::ESTALE)
    }

    async fn value_at(&self, revision: Revision, key: &Bytes) -> Answer<Option<(Life, Content)>> {
        let answer = self.ask(revision, vec![Read::key(key.clone())]).await?;
        let kv = Answers::new(answer).key()?;
        Ok(kv.map(|kv| (Life::of(&kv), Content::new(&kv))))
    }
}

fn bounds(len: usize, offset: u64, size: u32) -> std::ops::Range<usize> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(len);
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    start..start.saturating_add(size).min(len)
}

fn slice(bytes: &[u8], offset: u64, size: u32) -> &[u8] {
    &bytes[bounds(bytes.len(), offset, size)]
}

fn part(bytes: &Bytes, offset: u64, size: u32) -> Bytes {
    bytes.slice(bounds(bytes.len(), offset, size))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::part;

    #[test]
    fn a_part_ends_with_the_file() {
        let bytes = Bytes::from_static(b"abcdef");
        assert_eq!(part(&bytes, 2, 3), "cde");
        assert_eq!(part(&bytes, 4, 100), "ef");
        assert_eq!(part(&bytes, 6, 1), "");
        assert_eq!(part(&bytes, u64::MAX, u32::MAX), "");
    }
}
