//! The store behind openraft's state machine.
//!
//! Apply never flushes: the log holds every entry until LMDB does. LMDB is the snapshot: building one
//! means committing the overlay and noting the log id and membership of that commit, without a copy.
//! What is installed is another member's store, received whole and checked before openraft hears of it:
//! then the store goes on with it, and this member's log behind it.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use revfs_store::{Body, Command, MemberChange, Outcome, Store, StoreError};

use crate::auth::AuthTurns;
use crate::divergence::{Integrity, Points};
use crate::lease_clock::LeaseBook;
use crate::meters::Meters;
use crate::peer::Waiting;
use crate::snapshot::{Copy, Received, Snapshots};

use super::payload::{from_position, to_log_id, to_position};
use super::runtime::blocking;
use super::type_config::{Applied, RaftEntry, RaftLogId, StoredMembership, TypeConfig};

type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// What a snapshot consists of.
#[derive(Debug)]
pub(super) enum SnapshotData {
    /// This member's last commit, where it is.
    Committed,
    /// A copy of it that somebody receives already.
    Copied(Arc<Copy>),
    /// Another member's store, in a directory beside the own one. Dropped, it is removed.
    Received(Received),
}

/// Who is told what was applied.
#[derive(Clone)]
pub(crate) struct Told {
    pub(crate) leases: Arc<LeaseBook>,
    pub(crate) auth_turns: Arc<AuthTurns>,
    /// Those who forwarded a change to the leader.
    pub(crate) waiting: Arc<Waiting>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) points: Arc<Points>,
    pub(crate) integrity: Arc<Integrity>,
    /// The newest cluster version that this program speaks.
    pub(crate) speaks: u32,
}

pub(super) struct StateMachine {
    store: Arc<Store>,
    snapshots: Arc<Snapshots>,
    told: Told,
    membership: StoredMembership,
}

impl StateMachine {
    pub(super) fn new(snapshots: Arc<Snapshots>, told: Told) -> io::Result<Self> {
        let store = Arc::clone(&snapshots.store);
        let (_, membership) = from_position(&store.applied())?;
        Ok(Self { store, snapshots, told, membership })
    }

    fn apply_entry(&mut self, entry: RaftEntry) -> io::Result<Applied> {
        let id = entry.log_id;
        match entry.payload {
            EntryPayload::Normal(encoded) => {
                let command = Command::decode(&encoded.bytes).map_err(|error| {
                    let reason = format!(
                        "entry {} is a command that this program cannot read ({error}): \
                         use a newer release",
                        id.index
                    );
                    io::Error::new(io::ErrorKind::InvalidData, reason)
                })?;
                let position = to_position(id, &self.membership);
                let begun = Instant::now();
                let outcome = self.store.apply(position, &command).map_err(io::Error::other)?;
                self.told.meters.applied(command.body.inner(), &outcome, begun.elapsed());
                let revoked = match command.body.inner() {
                    Body::LeaseRevoke { id } | Body::LeaseExpire { id, .. } => Some(*id),
                    _ => None,
                };
                self.told.leases.applied(revoked, &outcome);
                self.told.auth_turns.applied(&outcome);
                self.consequences(id, command.body.inner(), &outcome)?;
                if let Some(number) = encoded.forwarded {
                    self.told.waiting.applied(number, &outcome);
                }
                Ok(Some(outcome))
            }
            EntryPayload::Blank => self.advance(id),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(id), membership);
                self.advance(id)
            }
        }
    }

    /// What this member does because of an entry, before it applies the next one.
    fn consequences(&self, id: RaftLogId, body: &Body, outcome: &Outcome) -> io::Result<()> {
        if outcome.result.is_err() {
            return Ok(());
        }
        match body {
            // Alone there is nobody to compare with.
            Body::Compact { .. } | Body::Check if self.membership.nodes().count() > 1 => {
                self.told.points.applied(id.index);
            }
            Body::Alarm { .. } | Body::Member(_) => {
                if self.told.integrity.look(&self.store).map_err(io::Error::other)? {
                    // Whoever watches looks again.
                    self.told.auth_turns.installed();
                }
                let is_raised = matches!(body, Body::Member(MemberChange::RaiseVersion { .. }));
                return if is_raised { self.check_version() } else { Ok(()) };
            }
            _ => {}
        }
        Ok(())
    }

    /// Stops a program that is too old for what may come behind this entry.
    fn check_version(&self) -> io::Result<()> {
        check_version(&self.store, self.told.speaks).map_err(io::Error::other)
    }

    fn advance(&self, id: RaftLogId) -> io::Result<Applied> {
        self.store.advance(to_position(id, &self.membership)).map_err(io::Error::other)?;
        Ok(None)
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<RaftLogId>, StoredMembership), io::Error> {
        from_position(&self.store.applied())
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let applied = if self.store.is_overlay_full() {
                // Replication goes on, on another thread, while the store commits.
                tokio::task::block_in_place(|| self.apply_entry(entry))?
            } else {
                self.apply_entry(entry)?
            };
            if let Some(responder) = responder {
                responder.send(applied);
            }
        }
        Ok(())
    }

    /// While somebody receives a copy no snapshot is noted, so that the log behind the copy is kept.
    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        if !force && self.snapshots.need_log() {
            return None;
        }
        Some(self.get_snapshot_builder().await)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { store: Arc::clone(&self.store) }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        let SnapshotData::Received(received) = snapshot else {
            // The state of an earlier commit is in the store already.
            return Ok(());
        };
        let (id, membership) = from_position(&received.summary.position)?;
        let Some(id) = id.filter(|_| id == meta.last_log_id) else {
            let reason = format!("the copy stands at {id:?}, but was announced as {meta}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        };
        let snapshots = Arc::clone(&self.snapshots);
        let install = move || snapshots.install(received, to_log_id(id));
        blocking(install).await??;
        self.membership = membership;
        self.told.integrity.look(&self.store).map_err(io::Error::other)?;
        self.told.auth_turns.installed();
        self.told.waiting.installed();
        self.check_version()?;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        // What is copied already is what the next member that lags is given, too.
        match self.snapshots.copies.held(&self.snapshots.log) {
            None => committed_state(&self.store),
            Some(copy) => {
                let (last_log_id, last_membership) = from_position(&copy.position)?;
                let meta = SnapshotMeta { last_log_id, last_membership };
                Ok(Some(Snapshot { meta, snapshot: SnapshotData::Copied(copy) }))
            }
        }
    }
}

/// Refuses a store whose cluster is at a newer version than this program speaks.
pub(crate) fn check_version(store: &Store, speaks: u32) -> Result<(), VersionError> {
    let needed = store.read_view().and_then(|view| view.cluster_version())?;
    Ok(check_spoken(needed, speaks)?)
}

/// Refuses a cluster that is at a newer version than a program speaks.
///
/// # Errors
/// [`TooOld`].
pub fn check_spoken(needed: u32, speaks: u32) -> Result<(), TooOld> {
    if needed > speaks { Err(TooOld { needed, speaks }) } else { Ok(()) }
}

/// A program that cannot take part in a cluster any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cluster is at version {needed}, and this program speaks {speaks} at most: \
     use the release that the other members run"
)]
pub struct TooOld {
    pub needed: u32,
    pub speaks: u32,
}

/// Why a program may not go on with a store.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    #[error(transparent)]
    TooOld(#[from] TooOld),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The last commit as a snapshot; `None` before the first entry.
fn committed_state(store: &Store) -> io::Result<Option<Snapshot>> {
    let (last_log_id, last_membership) = from_position(&store.committed())?;
    Ok(last_log_id.map(|last_log_id| Snapshot {
        meta: SnapshotMeta { last_log_id: Some(last_log_id), last_membership },
        snapshot: SnapshotData::Committed,
    }))
}

pub(super) struct Builder {
    store: Arc<Store>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let store = Arc::clone(&self.store);
        let committed = blocking(move || store.commit()).await?;
        match committed {
            // A full disk passes: until it does, the commit before is the newest snapshot.
            Ok(_) | Err(StoreError::NoSpace { .. }) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
        let snapshot = committed_state(&self.store)?;
        snapshot.ok_or_else(|| io::Error::other("nothing was applied yet"))
    }
}
