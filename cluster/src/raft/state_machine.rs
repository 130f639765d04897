//! The store behind openraft's state machine.
//!
//! Apply never flushes: the log holds every entry until LMDB does. LMDB is the snapshot: building one
//! means committing the overlay and noting the log id and membership of that commit, without a copy.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use revfs_store::{Body, Command, Store, StoreError};

use crate::auth::AuthTurns;
use crate::lease_clock::LeaseBook;

use super::payload::{from_position, to_position};
use super::type_config::{Applied, RaftEntry, RaftLogId, StoredMembership, TypeConfig};

type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
type Snapshot = openraft::alias::SnapshotOf<TypeConfig, CommittedState>;

/// What a snapshot consists of: the store's last commit, where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct CommittedState;

pub(super) struct StateMachine {
    store: Arc<Store>,
    leases: Arc<LeaseBook>,
    auth_turns: Arc<AuthTurns>,
    membership: StoredMembership,
}

impl StateMachine {
    pub(super) fn new(
        store: Arc<Store>,
        leases: Arc<LeaseBook>,
        auth_turns: Arc<AuthTurns>,
    ) -> io::Result<Self> {
        let (_, membership) = from_position(&store.applied())?;
        Ok(Self { store, leases, auth_turns, membership })
    }

    fn apply_entry(&mut self, entry: RaftEntry) -> io::Result<Applied> {
        let id = entry.log_id;
        match entry.payload {
            EntryPayload::Normal(encoded) => {
                let command = Command::decode(&encoded.0).map_err(|error| {
                    let reason = format!(
                        "entry {} is a command that this program cannot read ({error}): \
                         use a newer release",
                        id.index
                    );
                    io::Error::new(io::ErrorKind::InvalidData, reason)
                })?;
                let position = to_position(id, &self.membership);
                let outcome = self.store.apply(position, &command).map_err(io::Error::other)?;
                let revoked = match command.body.inner() {
                    Body::LeaseRevoke { id } | Body::LeaseExpire { id, .. } => Some(*id),
                    _ => None,
                };
                self.leases.applied(revoked, &outcome);
                self.auth_turns.applied(&outcome);
                Ok(Some(outcome))
            }
            EntryPayload::Blank => self.advance(id),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(id), membership);
                self.advance(id)
            }
        }
    }

    fn advance(&self, id: RaftLogId) -> io::Result<Applied> {
        self.store.advance(to_position(id, &self.membership)).map_err(io::Error::other)?;
        Ok(None)
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = CommittedState;
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
            let applied = self.apply_entry(entry)?;
            if let Some(responder) = responder {
                responder.send(applied);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { store: Arc::clone(&self.store) }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        _snapshot: CommittedState,
    ) -> Result<(), io::Error> {
        let reason = format!(
            "a snapshot ({meta}) cannot be installed: this release has no connections between members"
        );
        Err(io::Error::new(io::ErrorKind::Unsupported, reason))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        committed_state(&self.store)
    }
}

/// The last commit as a snapshot; `None` before the first entry.
fn committed_state(store: &Store) -> io::Result<Option<Snapshot>> {
    let (last_log_id, last_membership) = from_position(&store.committed())?;
    Ok(last_log_id.map(|last_log_id| Snapshot {
        meta: SnapshotMeta { last_log_id: Some(last_log_id), last_membership },
        snapshot: CommittedState,
    }))
}

pub(super) struct Builder {
    store: Arc<Store>,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = CommittedState;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let store = Arc::clone(&self.store);
        let committed = tokio::task::spawn_blocking(move || store.commit()).await?;
        match committed {
            // A full disk passes: until it does, the commit before is the newest snapshot.
            Ok(_) | Err(StoreError::NoSpace { .. }) => {}
            Err(error) => return Err(io::Error::other(error)),
        }
        let snapshot = committed_state(&self.store)?;
        snapshot.ok_or_else(|| io::Error::other("nothing was applied yet"))
    }
}
