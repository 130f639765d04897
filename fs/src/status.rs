//! `@status`: the state of the backend and of this mount, as one JSON object.

use bytes::Bytes;
use fuser::Errno;
use serde::Serialize;

use crate::filesystem::{Answer, Filesystem};

/// What `@status` says besides the backend's own status.
#[derive(Debug, Serialize)]
struct MountStatus {
    #[serde(flatten)]
    backend: revfs_api::keyspace::Status,
    /// Where `revfs get`, `put` and the others reach the node behind this mount.
    mount: Mount,
}

#[derive(Debug, Serialize)]
struct Mount {
    /// Hexadecimal; in the note of each change made here.
    mount_id: String,
    root: String,
    read_only: bool,
    /// Whether changes made elsewhere are being watched; without it nothing is cached.
    watching: bool,
    /// The revision up to which the kernel has been told of changes made elsewhere.
    told: u64,
    /// The newest revision shown: an older state is never shown again.
    floor: u64,
    nodes: usize,
    /// Files with content that is not committed yet.
    staged_files: usize,
    staged_bytes: usize,
    /// Files that had to be committed at a FLUSH because /proc did not tell whether it was a close.
    blind_flushes: u64,
    /// Change events of other machines' changes for inotify: `off` in this version.
    events: &'static str,
}

impl Filesystem {
    pub(crate) async fn status_text(&self) -> Answer<Bytes> {
        let backend = self.within(self.keys.status()).await?;
        let staged = self.nodes.all();
        let staged = staged.iter().filter(|node| node.file.lock().staged.is_some());
        let mount = Mount {
            mount_id: format!("{:016x}", self.mount_id),
            root: self.options.root.as_bytes().escape_ascii().to_string(),
            read_only: self.options.read_only,
            watching: self.coherence.is_connected(),
            told: self.coherence.position().0,
            floor: self.floor().0,
            nodes: self.nodes.count(),
            staged_files: staged.count(),
            staged_bytes: self.writing.budget.used(),
            blind_flushes: self.writing.blind_flushes(),
            events: "off",
        };
        let mut text =
            serde_json::to_vec_pretty(&MountStatus { backend, mount }).map_err(|error| {
                tracing::error!(%error, "@status");
                Errno::EIO
            })?;
        text.push(b'\n');
        Ok(text.into())
    }
}
