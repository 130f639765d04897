//! The key space of the node in this process: reads go straight to the store, changes are proposed.
//!
//! A `Local` asks on behalf of somebody. What is read is authorised by the view that answers it, what is
//! proposed by apply.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use revfs_api::backup::Backup;
use revfs_api::keyspace::{
    Capabilities, ChangesAnswer, ChangesRequest, Error, HistoryRequest, KeyRange, KeySpace, KvHash,
    LeaseId, LeaseState, Origin, Read, ReadAnswer, Result, Revision, Stamp, Status, Time, Txn,
    TxnAnswer, VALUE_BYTES_MAX, Version, Watch,
};
use revfs_api::operations::Operations;
use revfs_api::reservations::Reservations;
use revfs_store::schema::VersionRef;
use revfs_store::types as store;
use revfs_store::{
    AlarmKind, Auth, Body, Done, Need, Outcome, PasswordHash, RangeEnd, ReadView, Store,
    WatchRequest,
};
use tokio::sync::{Semaphore, watch};

use crate::auth::{AuthTurns, Caller, Gate, LoginError};
use crate::backup::LocalBackup;
use crate::ballast::free_bytes;
use crate::convert;
use crate::data_dir::Identity;
use crate::divergence::Integrity;
use crate::leader_watch::Presence;
use crate::lease_clock::LeaseClock;
use crate::members::Reconciler;
use crate::proposal::Proposer;
use crate::read_barrier::ReadBarrier;
use crate::reading;
use crate::upload::{Uploads, is_large};

/// A compaction that is to be physical is waited for so long.
const COMPACTION_TIMEOUT: Duration = Duration::from_secs(600);

/// See the module. Clones are cheap.
#[derive(Clone)]
pub struct Local {
    pub(crate) node: Arc<Parts>,
    caller: Caller,
}

/// What all who ask have in common.
pub(crate) struct Parts {
    pub(crate) store: Arc<Store>,
    pub(crate) proposer: Arc<Proposer>,
    pub(crate) leases: Arc<LeaseClock>,
    pub(crate) read_barrier: ReadBarrier,
    pub(crate) uploads: Uploads,
    pub(crate) members: Arc<Reconciler>,
    pub(crate) integrity: Arc<Integrity>,
    pub(crate) reservations: Arc<Reservations>,
    /// What the mounts in this process count.
    pub(crate) mounted: Mutex<Vec<Weak<Operations>>>,
    pub(crate) identity: Identity,
    pub(crate) endpoint: String,
    pub(crate) stop: watch::Receiver<bool>,
    /// One backup at a time is being copied.
    pub(crate) copying: Arc<Semaphore>,
    /// Turns with each change of users and roles.
    pub(crate) auth_turns: Arc<AuthTurns>,
    pub(crate) gate: Gate,
    pub(crate) presence: watch::Receiver<Presence>,
}

impl Local {
    /// The node, asking on its own behalf.
    pub(crate) fn new(node: Parts) -> Self {
        Self { node: Arc::new(node), caller: Caller::Trusted }
    }

    /// The same key space for somebody else.
    #[must_use]
    pub fn on_behalf_of(&self, caller: Caller) -> Self {
        Self { node: Arc::clone(&self.node), caller }
    }

    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Whom a token speaks for: `None` while authentication is disabled, `Some(None)` if it is not valid.
    #[must_use]
    pub fn caller_of(&self, token: &str) -> Option<Option<Caller>> {
        let auth = self.node.store.auth();
        auth.is_enabled().then(|| self.node.gate.caller(&auth, token))
    }

    /// A token for who knows the password of a user.
    pub(crate) async fn login(&self, user: &str, password: &str) -> Result<String, LoginError> {
        self.node.gate.login(&self.node.store, user, password).await
    }

    pub(crate) async fn hash_password(&self, password: String) -> Result<PasswordHash> {
        self.node.gate.passwords.hash(password).await
    }

    /// Looks at users and roles, and the revision of then, if the caller may.
    pub(crate) fn look_at_auth<T>(
        &self,
        need: Need<'_>,
        look: impl FnOnce(&Auth) -> T,
    ) -> Result<(T, Revision)> {
        let view = self.view()?;
        self.may(&view, need)?;
        Ok((look(view.auth()), convert::revision_to_api(view.current())))
    }

    /// Whether this member belongs to the cluster without a voice.
    pub(crate) fn is_learner(&self) -> bool {
        self.node.proposer.raft.is_learner()
    }

    /// Whether there is a leader now.
    pub(crate) fn has_leader(&self) -> bool {
        *self.node.presence.borrow() == Presence::Here
    }

    /// Whether it matters who asks.
    pub(crate) fn has_users(&self) -> bool {
        self.node.store.auth().is_enabled()
    }

    /// The user of that name, who was found out just now.
    #[must_use]
    pub fn user(&self, name: &Arc<str>) -> Caller {
        let auth_revision = self.node.store.auth().revision();
        Caller::User { name: Arc::clone(name), auth_revision }
    }

    /// Whether the caller may have `need`, as of now: for what is neither read from a view nor proposed.
    ///
    /// # Errors
    /// [`Error::Denied`], or what else is wrong with who asks.
    pub fn require(&self, need: Need<'_>) -> Result<()> {
        self.may(&self.view()?, need)
    }

    /// Proposes what the caller asks for. Apply decides whether it may be.
    pub(crate) async fn propose(&self, origin: Origin, body: Body) -> Result<Outcome> {
        // Who is corrupt may still be mended.
        if !matches!(body, Body::Alarm { .. } | Body::Member(_)) {
            self.check_serves()?;
        }
        let author = self.caller.author(origin.claimed);
        self.node.proposer.propose(author, origin.note, self.caller.ask(body)).await
    }

    /// Refuses everything while this member holds other data than a majority.
    pub(crate) fn check_serves(&self) -> Result<()> {
        self.node.integrity.check().map_err(convert::store_error)
    }

    pub(crate) fn view(&self) -> Result<ReadView> {
        self.node.store.read_view().map_err(convert::store_error)
    }

    pub(crate) fn may(&self, view: &ReadView, need: Need<'_>) -> Result<()> {
        self.caller.authorise(view, need).map_err(convert::read_error)
    }

    pub(crate) fn may_read(&self, view: &ReadView, range: &store::KeyRange) -> Result<()> {
        self.check_serves()?;
        self.may(view, Need::Read(range))
    }

    fn answer(&self, revision: Revision, reads: Vec<Read>) -> Result<ReadAnswer> {
        self.check_serves()?;
        let view = self.view()?;
        self.may(&view, Need::User)?;
        let ranges = reads.iter().filter(|read| matches!(read, Read::Range(_))).count() as u64;
        let answer = reading::answer(&view, revision, reads, |range| self.may_read(&view, range))?;
        self.node.proposer.meters.ranges.inc_by(ranges);
        Ok(answer)
    }

    /// Calls `each` with the keys of a plain range, in order and in place; the store's revision then.
    pub(crate) fn range_in_place(
        &self,
        query: &store::RangeQuery,
        each: impl FnMut(&[u8], &VersionRef<'_>),
    ) -> Result<(RangeEnd, Revision)> {
        self.check_serves()?;
        let view = self.view()?;
        self.may(&view, Need::User)?;
        self.may_read(&view, &query.range)?;
        let end = view.range_in_place(store::Revision::NONE, query, each);
        let end = end.map_err(convert::read_error)?;
        self.node.proposer.meters.ranges.inc();
        Ok((end, convert::revision_to_api(view.current())))
    }

    /// What is known of a revision, without the note where it may tell of more than the caller may read.
    fn visible(&self, view: &ReadView, stamp: store::Stamp) -> Result<store::Stamp> {
        let sees_notes =
            stamp.note.is_empty() || self.caller.reads_all(view).map_err(convert::read_error)?;
        Ok(if sees_notes { stamp } else { store::Stamp { note: Bytes::new(), ..stamp } })
    }

    fn read_only(&self) -> String {
        if let Some(reason) = self.node.proposer.failure() {
            return reason.to_string();
        }
        if let Err(error) = self.node.integrity.check() {
            return error.to_string();
        }
        if let Some(reason) = self.node.proposer.no_space(0) {
            return reason;
        }
        let Ok(view) = self.node.store.read_view() else { return String::new() };
        let stops_all = view.corrupt_stops_all().unwrap_or(false);
        let alarms = view.alarms().unwrap_or_default().into_iter();
        let named = alarms.filter_map(|alarm| match alarm.kind {
            AlarmKind::NoSpace => Some(format!("member {:x} has no space (NOSPACE)", alarm.member)),
            AlarmKind::Corrupt if !stops_all => None,
            AlarmKind::Corrupt if alarm.member == 0 => {
                Some("members hold different data, and no majority the same (CORRUPT)".to_owned())
            }
            AlarmKind::Corrupt => Some(format!("member {:x} is corrupt (CORRUPT)", alarm.member)),
        });
        named.collect::<Vec<String>>().join(", ")
    }
}

#[async_trait]
impl KeySpace for Local {
    fn capabilities(&self) -> Capabilities {
        Capabilities { stamps: true, bulk: true, value_bytes_max: VALUE_BYTES_MAX }
    }

    fn reservations(&self) -> Option<Arc<Reservations>> {
        // Mounts of other members would not see them.
        self.node.proposer.raft.is_alone().then(|| Arc::clone(&self.node.reservations))
    }

    fn show_operations(&self, operations: &Arc<Operations>) {
        let mut mounted = self.node.mounted.lock();
        mounted.retain(|own| own.strong_count() > 0);
        mounted.push(Arc::downgrade(operations));
    }

    async fn confirm(&self) -> Result<()> {
        self.check_serves()?;
        self.node.read_barrier.pass().await
    }

    async fn read(&self, revision: Revision, reads: Vec<Read>) -> Result<ReadAnswer> {
        self.answer(revision, reads)
    }

    async fn history(&self, request: HistoryRequest) -> Result<Vec<Version>> {
        let view = self.view()?;
        self.may_read(&view, &store::KeyRange::Key(request.key.clone()))?;
        let at_most = convert::revision_to_store(request.at_most);
        let versions = view.history(&request.key, at_most, request.limit, request.keys_only);
        let versions = versions.map_err(convert::store_error)?;
        let version =
            |(event, stamp)| Ok(convert::version_to_api((event, self.visible(&view, stamp)?)));
        versions.into_iter().map(version).collect()
    }

    async fn changes(&self, request: ChangesRequest) -> Result<ChangesAnswer> {
        let view = self.view()?;
        let query = convert::changes_to_store(request);
        self.may(&view, Need::User)?;
        query.ranges.iter().try_for_each(|range| self.may_read(&view, range))?;
        let result = view.changes(&query).map_err(convert::read_error)?;
        let revision = |mut events: store::RevisionEvents| {
            events.stamp = self.visible(&view, events.stamp)?;
            Ok(convert::events_to_api(events))
        };
        let revisions: Result<_> = result.revisions.into_iter().map(revision).collect();
        Ok(ChangesAnswer {
            revisions: revisions?,
            next: result.next.map(convert::revision_to_api),
            current: convert::revision_to_api(view.current()),
        })
    }

    async fn revision_at(&self, time: Time) -> Result<Revision> {
        self.check_serves()?;
        let view = self.view()?;
        self.may(&view, Need::User)?;
        let revision = view.revision_at(store::Time(time.0));
        revision.map(convert::revision_to_api).map_err(convert::read_error)
    }

    async fn stamp(&self, revision: Revision) -> Result<Stamp> {
        self.check_serves()?;
        let view = self.view()?;
        self.may(&view, Need::User)?;
        let stamp =
            view.stamp(convert::revision_to_store(revision)).map_err(convert::read_error)?;
        let stamp = if self.caller.reads_all(&view).map_err(convert::read_error)? {
            stamp
        } else {
            // Who did what is told with the changes that the caller may read.
            store::Stamp { author: store::Author::default(), note: Bytes::new(), ..stamp }
        };
        Ok(convert::stamp_to_api(stamp))
    }

    async fn txn(&self, txn: Txn, origin: Origin) -> Result<TxnAnswer> {
        let txn = convert::txn_to_store(txn);
        let outcome = if is_large(&txn) {
            self.check_serves()?;
            let author = self.caller.author(origin.claimed);
            self.node.uploads.run(self.caller.clone(), author, origin.note, txn).await?
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
        self.watch_store(request)
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
        let store = Arc::clone(&self.node.store);
        let wait = move || store.wait_compacted(revision, COMPACTION_TIMEOUT);
        match tokio::task::spawn_blocking(wait).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(Error::Timeout(COMPACTION_TIMEOUT)),
            Ok(Err(error)) => Err(convert::store_error(error)),
            Err(error) => Err(Error::Unavailable { reason: error.to_string() }),
        }
    }

    async fn lease_grant(&self, id: LeaseId, ttl_seconds: i64) -> Result<(LeaseId, i64)> {
        self.check_serves()?;
        let id = convert::lease_to_store(id);
        let granted = self.node.leases.grant(&self.caller, id, ttl_seconds).await;
        granted.map(|(id, ttl_seconds)| (convert::lease_to_api(id), ttl_seconds))
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Option<i64>> {
        self.check_serves()?;
        let id = convert::lease_to_store(id);
        self.require(Need::WriteLease(id))?;
        let renewed = self.node.leases.keep_alive(id).await;
        if let Ok(Some(_)) = renewed {
            self.node.proposer.meters.leases_renewed.inc();
        }
        renewed
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<()> {
        self.check_serves()?;
        self.node.leases.revoke(&self.caller, convert::lease_to_store(id)).await
    }

    async fn lease_time_to_live(&self, id: LeaseId, with_keys: bool) -> Result<Option<LeaseState>> {
        self.check_serves()?;
        self.require(Need::User)?;
        let id = convert::lease_to_store(id);
        self.node.leases.time_to_live(&self.caller, id, with_keys).await
    }

    async fn leases(&self) -> Result<Vec<LeaseId>> {
        self.check_serves()?;
        self.require(Need::User)?;
        let leases = self.node.leases.all().await?;
        if self.caller != Caller::Trusted {
            let view = self.view()?;
            leases.iter().try_for_each(|&id| self.may(&view, Need::ReadLease(id)))?;
        }
        Ok(leases.into_iter().map(convert::lease_to_api).collect())
    }

    async fn hash_kv(&self, revision: Revision) -> Result<KvHash> {
        self.require(Need::Root)?;
        let store = Arc::clone(&self.node.store);
        let at = convert::revision_to_store(revision);
        match tokio::task::spawn_blocking(move || store.hash_kv(at)).await {
            Ok(hash) => hash.map(convert::hash_to_api).map_err(convert::read_error),
            Err(error) => Err(Error::Unavailable { reason: error.to_string() }),
        }
    }

    async fn status(&self) -> Result<Status> {
        let view = self.view()?;
        self.may(&view, Need::User)?;
        let raft = self.node.proposer.raft.status();
        let size = self.node.store.size().map_err(convert::store_error)?;
        let data_dir = &self.node.proposer.data_dir;
        let status = Status {
            backend: "local".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            endpoint: self.node.endpoint.clone(),
            data_dir: data_dir.display().to_string(),
            process_id: std::process::id(),
            cluster_id: self.node.identity.cluster,
            cluster_version: view.cluster_version().map_err(convert::store_error)?,
            member_id: self.node.identity.member,
            leader_id: raft.leader.unwrap_or(0),
            raft_term: raft.term,
            raft_index: raft.last_index,
            applied_index: self.node.store.applied().index,
            committed_index: self.node.store.committed().index,
            revision: view.current().0,
            compacted_revision: view.compacted().0,
            history_since: reading::history_since(&view)?,
            store_bytes: size.file_bytes,
            store_bytes_in_use: size.in_use_bytes,
            log_bytes: self.node.proposer.log.disk_bytes(),
            disk_free_bytes: free_bytes(data_dir).unwrap_or(0),
            read_only: self.read_only(),
        };
        Ok(match self.may(&view, Need::Root) {
            Ok(()) => status,
            // Where the node lies on its machine is not for every user of its keys.
            Err(_) => Status { data_dir: String::new(), process_id: 0, ..status },
        })
    }

    async fn backup(&self) -> Result<Box<dyn Backup>> {
        self.check_serves()?;
        self.require(Need::Root)?;
        Ok(Box::new(LocalBackup::begin(&self.node)?))
    }
}
