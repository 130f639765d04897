//! The key space of the node in this process: reads go straight to the store, changes are proposed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use revfs_api::backup::Backup;
use revfs_api::keyspace::{
    Answer, Capabilities, ChangesAnswer, ChangesRequest, Error, HistoryRequest, KeyRange, KeySpace,
    KvHash, LeaseId, LeaseState, Origin, Read, ReadAnswer, Result, Revision, Stamp, Status, Time,
    Txn, TxnAnswer, VALUE_BYTES_MAX, Version, Watch,
};
use revfs_api::reservations::Reservations;
use revfs_store::types::Author;
use revfs_store::{AlarmKind, Body, Done, Outcome, ReadError, Store, WatchRequest};
use tokio::sync::{Semaphore, watch};

use crate::backup::LocalBackup;
use crate::ballast::free_bytes;
use crate::convert;
use crate::data_dir::Identity;
use crate::lease_clock::LeaseClock;
use crate::proposal::Proposer;
use crate::upload::{Uploads, is_large};
use crate::watch::StoreWatch;

/// A compaction that is to be physical is waited for so long.
const COMPACTION_TIMEOUT: Duration = Duration::from_secs(600);

/// See the module.
pub struct Local {
    pub(crate) store: Arc<Store>,
    pub(crate) proposer: Arc<Proposer>,
    pub(crate) leases: Arc<LeaseClock>,
    pub(crate) uploads: Uploads,
    pub(crate) reservations: Arc<Reservations>,
    pub(crate) identity: Identity,
    pub(crate) endpoint: String,
    pub(crate) stop: watch::Receiver<bool>,
    /// One backup at a time is being copied.
    pub(crate) copying: Arc<Semaphore>,
}

impl Local {
    async fn propose(&self, origin: Origin, body: Body) -> Result<Outcome> {
        self.proposer.propose(author(origin.claimed), origin.note, body).await
    }

    fn answer(&self, revision: Revision, reads: Vec<Read>) -> Result<ReadAnswer> {
        let view = self.store.read_view().map_err(convert::store_error)?;
        let current = convert::revision_to_api(view.current());
        let at = convert::revision_to_store(revision);
        let answer = |read| match read {
            Read::Range(read) => view
                .range(at, &convert::range_read_to_store(read))
                .map(|result| Answer::Range(convert::range_to_api(result))),
            Read::List(read) => view
                .list(at, &convert::list_read_to_store(read))
                .map(|result| Answer::List(convert::list_to_api(result))),
            Read::Directory(directory) => view
                .directory(at, &directory)
                .map(|state| Answer::Directory(convert::directory_to_api(state))),
        };
        let answers: Result<_, ReadError> = reads.into_iter().map(answer).collect();
        Ok(ReadAnswer {
            revision: if revision == Revision::NONE { current } else { revision },
            current,
            answers: answers.map_err(convert::read_error)?,
        })
    }

    /// Time of the oldest revision whose history is complete; empty on an empty store.
    fn history_since(&self) -> Result<String> {
        let view = self.store.read_view().map_err(convert::store_error)?;
        let first = revfs_store::types::Revision::FIRST.next();
        let oldest = view.compacted().max(first);
        if oldest > view.current() {
            return Ok(String::new());
        }
        let time = view.stamp(oldest).map_err(convert::read_error)?.time;
        Ok(jiff::Timestamp::from_nanosecond(i128::from(time.0))
            .map(|time| time.to_string())
            .unwrap_or_default())
    }

    fn read_only(&self) -> String {
        if let Some(reason) = self.proposer.failure() {
            return reason.to_string();
        }
        if let Some(reason) = self.proposer.no_space(0) {
            return reason;
        }
        let alarms = self.store.read_view().and_then(|view| view.alarms()).unwrap_or_default();
        let named = alarms.iter().map(|alarm| match alarm.kind {
            AlarmKind::NoSpace => format!("member {:x} has no space (NOSPACE)", alarm.member),
            AlarmKind::Corrupt => format!("member {:x} is corrupt (CORRUPT)", alarm.member),
        });
        named.collect::<Vec<String>>().join(", ")
    }
}

/// Who says so and is not asked to prove it.
fn author(claimed: String) -> Author {
    Author { principal: String::new(), claimed }
}

#[async_trait]
impl KeySpace for Local {
    fn capabilities(&self) -> Capabilities {
        Capabilities { stamps: true, bulk: true, value_bytes_max: VALUE_BYTES_MAX }
    }

    fn reservations(&self) -> Option<Arc<Reservations>> {
        Some(Arc::clone(&self.reservations))
    }

    async fn read(&self, revision: Revision, reads: Vec<Read>) -> Result<ReadAnswer> {
        self.answer(revision, reads)
    }

    async fn history(&self, request: HistoryRequest) -> Result<Vec<Version>> {
        let view = self.store.read_view().map_err(convert::store_error)?;
        let at_most = convert::revision_to_store(request.at_most);
        let versions = view.history(&request.key, at_most, request.limit, request.keys_only);
        let versions = versions.map_err(convert::store_error)?;
        Ok(versions.into_iter().map(convert::version_to_api).collect())
    }

    async fn changes(&self, request: ChangesRequest) -> Result<ChangesAnswer> {
        let view = self.store.read_view().map_err(convert::store_error)?;
        let result = view.changes(&convert::changes_to_store(request));
        let result = result.map_err(convert::read_error)?;
        Ok(ChangesAnswer {
            revisions: result.revisions.into_iter().map(convert::events_to_api).collect(),
            next: result.next.map(convert::revision_to_api),
            current: convert::revision_to_api(view.current()),
        })
    }

    async fn revision_at(&self, time: Time) -> Result<Revision> {
        let view = self.store.read_view().map_err(convert::store_error)?;
        let revision = view.revision_at(revfs_store::types::Time(time.0));
        revision.map(convert::revision_to_api).map_err(convert::read_error)
    }

    async fn stamp(&self, revision: Revision) -> Result<Stamp> {
        let view = self.store.read_view().map_err(convert::store_error)?;
        let stamp = view.stamp(convert::revision_to_store(revision));
        stamp.map(convert::stamp_to_api).map_err(convert::read_error)
    }

    async fn txn(&self, txn: Txn, origin: Origin) -> Result<TxnAnswer> {
        let txn = convert::txn_to_store(txn);
        let outcome = if is_large(&txn) {
            self.uploads.run(author(origin.claimed), origin.note, txn).await?
        } else {
            self.propose(origin, Body::Txn(txn)).await?
        };
        match outcome.result.map_err(convert::refusal)? {
            Done::Txn(answer) => Ok(convert::txn_to_api(answer)),
            other => Err(convert::unexpected(&other)),
        }
    }

    async fn watch(&self, ranges: Vec<KeyRange>, from: Revision) -> Result<Box<dyn Watch>> {
        let request = WatchRequest {
            ranges: convert::ranges_to_store(ranges),
            from: convert::revision_to_store(from),
            ..WatchRequest::default()
        };
        let watcher = self.store.watch(request).map_err(convert::read_error)?;
        Ok(Box::new(StoreWatch { watcher, stop: self.stop.clone() }))
    }

    async fn compact(&self, revision: Revision, physical: bool) -> Result<()> {
        let revision = convert::revision_to_store(revision);
        let outcome = self.propose(Origin::default(), Body::Compact { revision }).await?;
        match outcome.result.map_err(convert::refusal)? {
            Done::Compacted => {}
            other => return Err(convert::unexpected(&other)),
        }
        if !physical {
            return Ok(());
        }
        let store = Arc::clone(&self.store);
        let wait = move || store.wait_compacted(revision, COMPACTION_TIMEOUT);
        match tokio::task::spawn_blocking(wait).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(Error::Timeout(COMPACTION_TIMEOUT)),
            Ok(Err(error)) => Err(convert::store_error(error)),
            Err(error) => Err(Error::Unavailable { reason: error.to_string() }),
        }
    }

    async fn lease_grant(&self, id: LeaseId, ttl_seconds: i64) -> Result<(LeaseId, i64)> {
        let (id, ttl_seconds) = self.leases.grant(convert::lease_to_store(id), ttl_seconds).await?;
        Ok((convert::lease_to_api(id), ttl_seconds))
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Option<i64>> {
        self.leases.keep_alive(convert::lease_to_store(id)).await
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<()> {
        self.leases.revoke(convert::lease_to_store(id)).await
    }

    async fn lease_time_to_live(&self, id: LeaseId, with_keys: bool) -> Result<Option<LeaseState>> {
        self.leases.time_to_live(convert::lease_to_store(id), with_keys).await
    }

    async fn leases(&self) -> Result<Vec<LeaseId>> {
        Ok(self.leases.all().await?.into_iter().map(convert::lease_to_api).collect())
    }

    async fn hash_kv(&self, revision: Revision) -> Result<KvHash> {
        let store = Arc::clone(&self.store);
        let at = convert::revision_to_store(revision);
        match tokio::task::spawn_blocking(move || store.hash_kv(at)).await {
            Ok(hash) => hash.map(convert::hash_to_api).map_err(convert::read_error),
            Err(error) => Err(Error::Unavailable { reason: error.to_string() }),
        }
    }

    async fn status(&self) -> Result<Status> {
        let raft = self.proposer.raft.status();
        let view = self.store.read_view().map_err(convert::store_error)?;
        let size = self.store.size().map_err(convert::store_error)?;
        let data_dir = &self.proposer.data_dir;
        Ok(Status {
            backend: "local".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            endpoint: self.endpoint.clone(),
            data_dir: data_dir.display().to_string(),
            process_id: std::process::id(),
            cluster_id: self.identity.cluster,
            member_id: self.identity.member,
            leader_id: raft.leader.unwrap_or(0),
            raft_term: raft.term,
            raft_index: raft.last_index,
            applied_index: self.store.applied().index,
            committed_index: self.store.committed().index,
            revision: view.current().0,
            compacted_revision: view.compacted().0,
            history_since: self.history_since()?,
            store_bytes: size.file_bytes,
            store_bytes_in_use: size.in_use_bytes,
            log_bytes: self.proposer.log.disk_bytes(),
            disk_free_bytes: free_bytes(data_dir).unwrap_or(0),
            read_only: self.read_only(),
        })
    }

    async fn backup(&self) -> Result<Box<dyn Backup>> {
        Ok(Box::new(LocalBackup::begin(self)?))
    }
}
