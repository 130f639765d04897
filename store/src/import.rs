//! Taking over history that was made elsewhere: revisions with the numbers that they had there.
//!
//! What another store has forgotten stays forgotten: of what lies at or below its compacted revision it
//! gives us some rows only. They are taken as if they were all that ever happened, in order, and then the
//! importer compacts at that revision, so that afterwards nothing tells an imported store from one that
//! made its history itself, except that a key may say of its birth that it is older than its history.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::apply::{Entry, change_rows};
use crate::command::{Body, Command};
use crate::error::StoreError;
use crate::moved::Moved;
use crate::names::NewRow;
use crate::schema::{KeyRow, Want};
use crate::store::{Position, Store};
use crate::txn::Change;
use crate::types::{Author, KeyValue, LeaseId, Revision, Time, Txn};
use crate::view::ReadView;

/// One change of a revision, as the other store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedChange {
    pub key: Bytes,
    /// `None`: the key was deleted.
    pub put: Option<ImportedPut>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedPut {
    pub value: Bytes,
    pub create_revision: Revision,
    pub version: u64,
    pub lease: LeaseId,
}

/// All that is left of a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportedRevision {
    pub revision: Revision,
    pub time: Time,
    /// By their sub revision.
    pub changes: BTreeMap<u32, ImportedChange>,
}

/// Why a revision was not taken over. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("revision {revision} cannot follow revision {current}")]
    Order { revision: Revision, current: Revision },
    #[error("revision {revision} changes the key \"{key}\" twice")]
    Twice { revision: Revision, key: String },
}

impl Store {
    /// Applies a revision as another store made it; like an entry of the log, at `position`. The caller has
    /// checked keys and values against their bounds. Nobody watches meanwhile.
    ///
    /// # Errors
    /// See [`ImportError`].
    pub fn import(&self, position: Position, from: ImportedRevision) -> Result<(), ImportError> {
        let ImportedRevision { revision, time, changes } = from;
        let writer = self.shared().writer.lock();
        let entry = Entry(self.shared());
        let (view, before, layer) = self.begin(&position)?;
        let time = time.max(before);
        let rows = rows(&view, revision, time, changes).inspect_err(|_| self.abandon_entry())?;
        drop(view);
        for (tree, row, value) in rows {
            layer.insert(tree, row, value);
        }
        let mut state = self.shared().state.lock();
        state.current = revision;
        state.time = time;
        self.finish(&mut state, position);
        drop(state);
        drop((entry, writer));
        Ok(())
    }
}

fn rows(
    view: &ReadView,
    revision: Revision,
    time: Time,
    from: BTreeMap<u32, ImportedChange>,
) -> Result<Vec<NewRow>, ImportError> {
    let current = view.current();
    if revision <= current {
        return Err(ImportError::Order { revision, current });
    }
    let mut changes = BTreeMap::new();
    for (sub, ImportedChange { key, put }) in from {
        let old = view.version_at(&key, current, Want::Header)?;
        let old = old.filter(|version| !version.tombstone).map(|version| version.kv);
        let kv = KeyValue { key: key.clone(), mod_revision: revision, time, ..KeyValue::default() };
        let version = match put {
            None => KeyRow { sub, tombstone: true, kv },
            Some(ImportedPut { value, create_revision, version, lease }) => {
                let value_bytes = u64::try_from(value.len()).unwrap_or(u64::MAX);
                let kv = KeyValue { value, value_bytes, create_revision, version, lease, ..kv };
                let (content_revision, content_time) = (revision, time);
                let birth_revision = create_revision;
                let kv = KeyValue { content_revision, content_time, birth_revision, ..kv };
                KeyRow { sub, tombstone: false, kv }
            }
        };
        // A key whose deletion alone is left never lived here.
        let was_alive = old.is_some();
        let old_lease = old.map(|kv| kv.lease).unwrap_or_default();
        let change = Change { version, was_alive, old_lease };
        if changes.insert(key.clone(), change).is_some() {
            let key = key.escape_ascii().to_string();
            return Err(ImportError::Twice { revision, key });
        }
    }
    let (author, note, body) = (Author::default(), Bytes::new(), Body::Txn(Txn::default()));
    let command = Command { time, author, note, body };
    let mut rows = Vec::new();
    change_rows(view, revision, time, &command, (changes, &Moved::default()), &mut rows)?;
    Ok(rows)
}
