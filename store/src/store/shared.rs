//! What apply, the committer and the views of a store share; see [`super`] for who may do what.

use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex};

use super::Position;
use crate::auth::Auth;
use crate::barrier::LogBarrier;
use crate::env::{Environment, Snapshot};
use crate::error::{OpenError, StoreError};
use crate::fault::Fault;
use crate::options::StoreOptions;
use crate::overlay::Layers;
use crate::schema::{CompactionPass, StateRow};
use crate::types::{Revision, Time};
use crate::watch::Post;

/// See the module.
pub(crate) struct Shared {
    pub(crate) options: StoreOptions,
    pub(super) is_read_only: bool,
    pub(crate) fault: Fault,
    /// Holds commits back until the log is durable, where there is a log.
    pub(crate) barrier: OnceLock<Arc<dyn LogBarrier>>,
    /// Held by apply from its first read until the watches know of it.
    pub(crate) writer: Mutex<()>,
    pub(crate) state: Mutex<State>,
    /// Wakes the committer.
    pub(crate) work: Condvar,
    /// Wakes whoever waits for the committer, or for apply to finish an entry.
    pub(crate) progress: Condvar,
    pub(crate) post: Arc<Post>,
}

/// The fields under the `state` lock.
pub(crate) struct State {
    /// What LMDB writes and new views read.
    pub(crate) environment: Arc<Environment>,
    pub(crate) current: Revision,
    pub(crate) compacted: Option<Revision>,
    /// Time of `current`.
    pub(crate) time: Time,
    pub(crate) auth: Arc<Auth>,
    pub(crate) layers: Layers,
    /// Commits that succeeded since the start.
    pub(crate) generation: u64,
    /// LMDB read transactions that no view uses, none of them older than `generation`.
    pub(crate) snapshots: Vec<Snapshot>,
    pub(crate) applied: Option<Position>,
    pub(crate) committed: Option<Position>,
    /// Physical compaction, as of the last commit.
    pub(crate) pass: CompactionPass,
    /// The first change of `pass.next` that was not visited; not on disk.
    pub(crate) pass_sub: u32,
    /// The compacted revision that LMDB holds: a pass may go so far.
    pub(crate) durable_compacted: Revision,
    /// Apply is adding rows of an entry to the active layer: it must not be rotated.
    pub(crate) applying: bool,
    /// The committer waits for the end of an entry to rotate the layer: whoever ends one does it.
    pub(crate) rotation_wanted: bool,
    /// Where the store stood when the layer being committed was rotated.
    pub(crate) rotated: Option<StateRow>,
    /// The position or the compacted revision moved since the last rotation.
    pub(crate) dirty: bool,
    /// Somebody waits for a commit of everything applied so far.
    pub(crate) commit_wanted: bool,
    /// How often apply found the overlay full.
    pub(crate) overlay_waits: u64,
    /// Commits that were tried, successful or not.
    pub(crate) attempts: u64,
    /// Physical compaction rests while this is not 0; see `hash.rs`.
    pub(crate) holds: usize,
    pub(crate) no_space: Option<Arc<str>>,
    /// The commit waits for the log longer than it should.
    pub(crate) log_lag: Option<Arc<str>>,
    /// The committer is to begin no transaction.
    pub(crate) is_paused: bool,
    /// The committer is at work on a batch.
    pub(crate) is_writing: bool,
    pub(crate) closing: bool,
    /// Drop what is not committed: a test's way to stop as a crash would.
    pub(crate) abandon: bool,
    /// The committer has ended.
    pub(crate) ended: bool,
}

impl Shared {
    pub(super) fn new(
        environment: Environment,
        options: StoreOptions,
        row: StateRow,
    ) -> Result<Self, OpenError> {
        let auth = Arc::new(Auth::load(&environment)?);
        let applied = row.applied.map(|(index, term, raft)| Position { index, term, raft });
        let state = State {
            environment: Arc::new(environment),
            current: row.current,
            compacted: row.compacted,
            time: row.time,
            auth,
            layers: Layers::default(),
            generation: 0,
            snapshots: Vec::new(),
            committed: applied.clone(),
            applied,
            pass: row.pass,
            pass_sub: 0,
            durable_compacted: row.compacted.unwrap_or_default(),
            applying: false,
            rotation_wanted: false,
            rotated: None,
            dirty: false,
            commit_wanted: false,
            overlay_waits: 0,
            attempts: 0,
            holds: 0,
            no_space: None,
            log_lag: None,
            is_paused: false,
            is_writing: false,
            closing: false,
            abandon: false,
            ended: false,
        };
        Ok(Self {
            post: Arc::new(Post::new(options.watch.clone(), state.current)),
            options,
            is_read_only: false,
            fault: Fault::default(),
            barrier: OnceLock::new(),
            writer: Mutex::default(),
            state: Mutex::new(state),
            work: Condvar::new(),
            progress: Condvar::new(),
        })
    }

    /// What LMDB writes and new views read.
    pub(crate) fn environment(&self) -> Arc<Environment> {
        Arc::clone(&self.state.lock().environment)
    }

    pub(crate) fn closed(&self) -> StoreError {
        match self.fault.check() {
            Err(error) => error,
            Ok(()) if self.is_read_only => {
                StoreError::Closed { reason: Arc::from("it is open for reading only") }
            }
            Ok(()) => StoreError::Closed { reason: Arc::from("close was called") },
        }
    }
}
