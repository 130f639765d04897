//! A backup as a key space: read where it lies, with its whole history, and never changed.
//!
//! Who can read the file can read all of it: nobody is asked for a password.

use std::future::poll_fn;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use revfs_api::keyspace::{
    Capabilities, ChangesAnswer, ChangesRequest, Error, HistoryRequest, KeyRange, KeySpace, KvHash,
    Origin, Read, ReadAnswer, Result, Revision, RevisionEvents, Stamp, Status, Time, Txn,
    TxnAnswer, VALUE_BYTES_MAX, Version, Watch,
};
use revfs_store::types as store;
use revfs_store::{OpenError, ReadView, Store, StoreOptions, WatchRequest, Watcher};

use crate::{convert, reading};

/// What a [`Status`] calls it.
pub const BACKUP: &str = "backup";

const READ_ONLY: &str = "a backup is not changed";

/// See the module.
pub struct BackupKeys {
    store: Store,
    file: PathBuf,
    size: u64,
}

impl BackupKeys {
    /// Opens the file of a backup. A bounded part of it is looked at now, each row when it is read;
    /// [`crate::restore::verify`] looks at all of it.
    ///
    /// # Errors
    /// A file that is no backup, or damaged.
    pub fn open(file: &Path) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: file.to_path_buf(), source };
        let size = std::fs::metadata(file).map_err(io)?.len();
        let store = Store::open_read_only(file, StoreOptions::default())?;
        Ok(Self { store, file: file.to_path_buf(), size })
    }

    fn view(&self) -> Result<ReadView> {
        self.store.read_view().map_err(convert::store_error)
    }
}

#[async_trait]
impl KeySpace for BackupKeys {
    fn capabilities(&self) -> Capabilities {
        Capabilities { stamps: true, bulk: true, value_bytes_max: VALUE_BYTES_MAX }
    }

    async fn read(&self, revision: Revision, reads: Vec<Read>) -> Result<ReadAnswer> {
        reading::answer(&self.view()?, revision, reads, |_| Ok(()))
    }

    async fn history(&self, request: HistoryRequest) -> Result<Vec<Version>> {
        let at_most = convert::revision_to_store(request.at_most);
        let view = self.view()?;
        let versions = view.history(&request.key, at_most, request.limit, request.keys_only);
        let versions = versions.map_err(convert::store_error)?;
        Ok(versions.into_iter().map(convert::version_to_api).collect())
    }

    async fn changes(&self, request: ChangesRequest) -> Result<ChangesAnswer> {
        let view = self.view()?;
        let result =
            view.changes(&convert::changes_to_store(request)).map_err(convert::read_error)?;
        Ok(ChangesAnswer {
            revisions: result.revisions.into_iter().map(convert::events_to_api).collect(),
            next: result.next.map(convert::revision_to_api),
            current: convert::revision_to_api(view.current()),
        })
    }

    async fn revision_at(&self, time: Time) -> Result<Revision> {
        let revision = self.view()?.revision_at(store::Time(time.0));
        revision.map(convert::revision_to_api).map_err(convert::read_error)
    }

    async fn stamp(&self, revision: Revision) -> Result<Stamp> {
        let stamp = self.view()?.stamp(convert::revision_to_store(revision));
        stamp.map(convert::stamp_to_api).map_err(convert::read_error)
    }

    async fn txn(&self, _: Txn, _: Origin) -> Result<TxnAnswer> {
        Err(Error::Unsupported(READ_ONLY))
    }

    async fn watch(&self, ranges: Vec<KeyRange>, from: Revision) -> Result<Box<dyn Watch>> {
        let request = WatchRequest {
            ranges: convert::ranges_to_store(ranges),
            from: convert::revision_to_store(from),
            ..WatchRequest::default()
        };
        let watcher = self.store.watch(request).map_err(convert::read_error)?;
        Ok(Box::new(Past(watcher)))
    }

    async fn compact(&self, _: Revision, _physical: bool) -> Result<()> {
        Err(Error::Unsupported(READ_ONLY))
    }

    async fn hash_kv(&self, revision: Revision) -> Result<KvHash> {
        let hash = self.store.hash_kv(convert::revision_to_store(revision));
        hash.map(convert::hash_to_api).map_err(convert::read_error)
    }

    async fn status(&self) -> Result<Status> {
        let view = self.view()?;
        let size = self.store.size().map_err(convert::store_error)?;
        let position = self.store.committed();
        Ok(Status {
            backend: BACKUP.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            endpoint: self.file.display().to_string(),
            process_id: std::process::id(),
            cluster_version: view.cluster_version().map_err(convert::store_error)?,
            raft_term: position.term,
            raft_index: position.index,
            applied_index: position.index,
            committed_index: position.index,
            revision: view.current().0,
            compacted_revision: view.compacted().0,
            history_since: reading::history_since(&view)?,
            store_bytes: self.size,
            store_bytes_in_use: size.in_use_bytes,
            read_only: READ_ONLY.to_owned(),
            ..Status::default()
        })
    }
}

/// A watch that comes to the newest revision, and then waits for ever.
struct Past(Watcher);

#[async_trait]
impl Watch for Past {
    async fn next(&mut self) -> Result<RevisionEvents> {
        let next = poll_fn(|context| self.0.poll_next(context.waker())).await;
        next.map(|revision| convert::events_to_api(revision.to_events()))
            .map_err(convert::read_error)
    }

    fn progress(&self) -> Revision {
        convert::revision_to_api(self.0.progress())
    }
}
