//! What the store has of a live file: its key and its side record, from one view.

use bytes::Bytes;
use fuser::Errno;
use revfs_api::keyspace::{KeyValue, Read, Revision};

use crate::attributes::{Attributes, Record, in_force_of_file, record_key};
use crate::commit::key_value;
use crate::filesystem::{Answer, Filesystem};
use crate::node::{Node, Place};
use crate::staged::{Content, Life};

/// A file as the store has it.
#[derive(Clone, Debug)]
pub(crate) struct StoredFile {
    pub kv: KeyValue,
    /// The side record, whether it holds or not.
    pub record: Option<KeyValue>,
    /// What holds now; the start of each change of attributes.
    pub attributes: Attributes,
}

impl StoredFile {
    pub(crate) fn life(&self) -> Life {
        Life::of(&self.kv)
    }

    pub(crate) fn content(&self) -> Content {
        Content::new(&self.kv)
    }
}

impl Filesystem {
    /// The file at `key` as of `revision`; none if there is none.
    pub(crate) async fn stored_file(
        &self,
        key: &Bytes,
        revision: Revision,
    ) -> Answer<Option<StoredFile>> {
        let reads = vec![Read::key(key.clone()), Read::key(record_key(key))];
        let answer = self.ask(revision, reads).await?;
        let Some(kv) = key_value(&answer, 0).cloned() else { return Ok(None) };
        let record_kv = key_value(&answer, 1).cloned();
        let record = record_kv.as_ref().map(Record::read).transpose().map_err(|error| {
            tracing::error!(key = %key.escape_ascii(), %error, "side record unreadable");
            Errno::EIO
        })?;
        let attributes = in_force_of_file(&kv, record.as_ref(), &self.options.defaults());
        Ok(Some(StoredFile { kv, record: record_kv, attributes }))
    }

    /// The file that `node` is, as the store has it (a detached one: as it was when it was last seen).
    ///
    /// # Errors
    /// ESTALE if the name is free or another file's now; EISDIR and EROFS for what is no live file.
    pub(crate) async fn stored_of(&self, node: &Node) -> Answer<StoredFile> {
        let (key, revision) = match node.place() {
            Place::File { key } => (key, Revision::NONE),
            Place::Detached { key } => (key, node.seen()),
            Place::Directory { .. } => return Err(Errno::EISDIR),
            Place::PastFile { .. } | Place::Hidden(_) => return Err(Errno::EROFS),
        };
        let stored = self.stored_file(&key, revision).await?.ok_or(Errno::ESTALE)?;
        if !node.is_or_begins(stored.life()) {
            return Err(Errno::ESTALE);
        }
        Ok(stored)
    }
}
