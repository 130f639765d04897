//! OPEN of what can only be read: the made-up files of the hidden trees, and what of the past.

use bytes::Bytes;
use fuser::Errno;
use revfs_api::keyspace::Time;

use crate::filesystem::{Answer, Caller, Filesystem};
use crate::handle::FileHandle;
use crate::node::{Hidden, Place};
use crate::ops::Opened;

/// How the kernel may treat the pages of a file that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Those that it has are true.
    Keep,
    /// It has to ask for them again.
    Drop,
    /// Each read is asked for: the content is made for its reader and its size not known.
    Direct,
}

impl Filesystem {
    /// What the kernel may do with the pages of a node that is being opened.
    #[must_use]
    pub fn pages_of(&self, ino: u64) -> Pages {
        let Some(node) = self.nodes.get(ino) else { return Pages::Drop };
        match node.place() {
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
        if flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0 {
            return Err(Errno::EROFS);
        }
        let fixed = match hidden {
            Hidden::Status => self.status_text().await?,
            Hidden::Version { deleted: true, .. } => Bytes::new(),
            Hidden::Version { deleted: false, .. } => return Ok(None),
            Hidden::Refused { key, time } => {
                let copy = self.writing.refused.get(&key, Time(time)).ok_or(Errno::ENOENT)?;
                Bytes::copy_from_slice(&copy.bytes)
            }
            Hidden::TimeLink { .. } => return Err(Errno::ELOOP),
            Hidden::Revisions(_)
            | Hidden::Revision { .. }
            | Hidden::OlderRevisions { .. }
            | Hidden::Times(_)
            | Hidden::History(_)
            | Hidden::HistoryOf(_)
            | Hidden::Keys => return Err(Errno::EISDIR),
        };
        node.file.lock().open += 1;
        let handle = FileHandle { fixed: Some(fixed), ..FileHandle::new(node, flags, caller.pid) };
        let handle = self.handles.files.insert(handle);
        Ok(Some(Opened { handle, needs_no_flush: true }))
    }
}
