//! `@txn/NAME/@status`: what a transaction is and what became of it, as one JSON object.

use bytes::Bytes;
use fuser::Errno;
use serde::Serialize;

use super::commit::CONFLICTS_MAX;
use super::{Outcome, Private};
use crate::filesystem::{Answer, Filesystem};

#[derive(Debug, Serialize)]
struct Status {
    name: String,
    /// The revision that it began at.
    revision: u64,
    /// `open`, `committed`, `conflict`, or `unknown`.
    state: &'static str,
    /// The revision that it became.
    committed: Option<u64>,
    /// Names in the mount that changed since it began, the first of them.
    conflicts: Vec<String>,
    /// Whether there may be more.
    more_conflicts: bool,
    /// Keys that are to be changed, side records included.
    changed: usize,
    /// Of keys, listings and ranges that must be as they were.
    read: usize,
    /// Why the last attempt to commit failed, after which it may be tried again, or why its outcome is not
    /// known.
    error: Option<String>,
}

impl Filesystem {
    pub(super) fn conflict_name(&self, key: &Bytes) -> String {
        let root = &self.options.root;
        let name = key.strip_suffix(b"/").unwrap_or(key);
        match root.path_of(name) {
            Some(path) => path.display().to_string(),
            // The root itself.
            None => ".".to_owned(),
        }
    }

    pub(crate) fn transaction_text(&self, private: &Private) -> Answer<Bytes> {
        let decided = private.decided.lock().clone();
        let (state, committed, keys, reason) = match decided {
            None => ("open", None, Vec::new(), private.failure.lock().clone()),
            Some(Outcome::Committed(revision)) => ("committed", Some(revision.0), Vec::new(), None),
            Some(Outcome::Conflict(keys)) => ("conflict", None, keys, None),
            Some(Outcome::Unknown(reason)) => ("unknown", None, Vec::new(), Some(reason)),
        };
        let status = Status {
            name: String::from_utf8_lossy(&private.name).into_owned(),
            revision: private.overlay.at.0,
            state,
            committed,
            conflicts: keys.iter().map(|key| self.conflict_name(key)).collect(),
            more_conflicts: keys.len() >= CONFLICTS_MAX,
            changed: private.overlay.changed(),
            read: private.overlay.state.lock().reads.count(),
            error: reason,
        };
        let mut text = serde_json::to_vec_pretty(&status).map_err(|error| {
            tracing::error!(%error, "@status of a transaction");
            Errno::EIO
        })?;
        text.push(b'\n');
        Ok(text.into())
    }
}
