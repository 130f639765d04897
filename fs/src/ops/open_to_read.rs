//! OPEN of what can only be read: the made-up files of the hidden trees, and what of the past.

use std::sync::Arc;

use bytes::Bytes;
use fuser::Errno;
use revfs_api::keyspace::Time;

use crate::filesystem::{Answer, Caller, Filesystem};
use crate::handle::FileHandle;
use crate::node::{Hidden, Node, Place};
use crate::ops::Opened;
use crate::ops::open::writes;
use crate::watching::Reader;

/// How the kernel may treat the pages of a file that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Those that it has are true.
    Keep,
    /// It has to ask for them again.
    Drop,
    /// Each read is asked for: the content is made for its reader and its size not known, or may become
    /// another at any moment. A stream (`@watch`) is such a file, too: it has no positions, but programs ask for
    /// theirs, and complain if there is none.
    Direct,
}

impl Filesystem {
    /// What the kernel may do with the pages of a node that is being opened.
    #[must_use]
    pub fn pages_of(&self, ino: u64) -> Pages {
        let Some(node) = self.nodes.get(ino) else { return Pages::Drop };
        match node.place() {
            Place::File { .. } | Place::Detached { .. } if self.is_linear() => Pages::Direct,
            Place::File { key } => {
                let is_watched = self.coherence.is_connected() && self.options.root.contains(&key);
                let is_true = is_watched && !node.file.lock().has_stale_pages;
                if is_true { Pages::Keep } else { Pages::Drop }
            }
            Place::PastFile { .. } => Pages::Keep,
            Place::Hidden(Hidden::Version { .. }) => Pages::Keep,
            Place::Hidden(_) => Pages::Direct,
            Place::Directory { .. } | Place::Detached { .. } => Pages::Drop,
        }
    }

    /// Opens a file that is made up for its reader; `None` for every other.
    ///
    /// # Errors
    /// EROFS to write; EISDIR.
    pub async fn open_made_up(
        &self,
        caller: Caller,
        ino: u64,
        flags: i32,
    ) -> Answer<Option<Opened>> {
        let node = self.nodes.get(ino).ok_or(Errno::ESTALE)?;
        let Place::Hidden(hidden) = node.place() else { return Ok(None) };
        if hidden == Hidden::Commit {
            return self.open_commit(caller, node, flags).await.map(Some);
        }
        if writes(flags) {
            return Err(Errno::EROFS);
        }
        let mut watching = None;
        let fixed = match hidden {
            Hidden::Watch { directory, from } => {
                let reader = Reader::of(caller);
                watching = Some(self.open_watch(reader, &node, directory, from).await?);
                None
            }
            Hidden::Status => Some(self.status_text().await?),
            Hidden::Version { deleted: true, .. } => Some(Bytes::new()),
            Hidden::Version { deleted: false, .. } => return Ok(None),
            Hidden::Refused { key, time } => {
                let copy = self.writing.refused.get(&key, Time(time)).ok_or(Errno::ENOENT)?;
                Some(Bytes::copy_from_slice(&copy.bytes))
            }
            Hidden::Commit => return Err(Errno::EINVAL),
            Hidden::TimeLink { .. } => return Err(Errno::ELOOP),
            Hidden::Revisions(_)
            | Hidden::Revision { .. }
            | Hidden::OlderRevisions { .. }
            | Hidden::Times(_)
            | Hidden::History(_)
            | Hidden::HistoryOf(_)
            | Hidden::Keys
            | Hidden::Transactions => return Err(Errno::EISDIR),
        };
        let handle = FileHandle { fixed, watching, ..FileHandle::new(node, flags, caller.pid) };
        Ok(Some(self.opened_made_up(handle)))
    }

    fn opened_made_up(&self, handle: FileHandle) -> Opened {
        handle.node.file.lock().open += 1;
        Opened { handle: self.handles.files.insert(handle), needs_no_flush: true }
    }

    /// Whoever opens it to write commits; whoever reads it is told what came of it.
    async fn open_commit(&self, caller: Caller, node: Arc<Node>, flags: i32) -> Answer<Opened> {
        let fixed = if writes(flags) {
            self.commit_transaction(caller).await?;
            Bytes::new()
        } else {
            self.status_text().await?
        };
        let handle = FileHandle::new(node, flags & !libc::O_ACCMODE, caller.pid);
        Ok(self.opened_made_up(FileHandle { fixed: Some(fixed), ..handle }))
    }
}
