//! Going on with another directory: what a member does that is given a copy of another's store.
//!
//! ```text
//! open the copy ─► no apply, no commit ─► the caller's switch, durable ─► the new state, at once ─► go on
//! ```
//!
//! Holders of the store notice nothing but a leap: revision, rows, users and the place in the log change
//! under one lock. A view that was taken before keeps its environment, from which nothing is removed any
//! more, and reads to its end; the directory goes with the last of them. Watchers go on from where they
//! are, as if what the copy holds beyond had been applied at once: they are given it from the revisions
//! tree, or end where it is compacted there.
//!
//! What the overlay held is dropped: the copy contains it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::auth::Auth;
use crate::env::{Environment, Snapshot};
use crate::error::{OpenError, StoreError};
use crate::overlay::Layers;
use crate::schema::StateRow;
use crate::store::{Position, Shared, State, Store};
use crate::types::Revision;

/// Why a store does not go on with another directory. Unless said otherwise it goes on as it was.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the copy {path} is older than the store: it holds entry {found} and revision {revision}, \
         the store entry {applied} and revision {current}",
        path = .path.display()
    )]
    Older { path: PathBuf, found: u64, revision: Revision, applied: u64, current: Revision },
    /// Nobody knows which directory the next start will find: the store is closed.
    #[error("the store in use could not be changed to {path}: {source}", path = .path.display())]
    Switch { path: PathBuf, source: io::Error },
}

/// Keeps the committer from beginning a transaction.
struct Pause<'s>(&'s Shared);

impl<'s> Pause<'s> {
    /// Waits for the running transaction, if there is one.
    fn begin(shared: &'s Shared) -> Result<Self, StoreError> {
        let mut state = shared.state.lock();
        state.is_paused = true;
        let pause = Self(shared);
        while state.is_writing && !state.ended {
            shared.progress.wait(&mut state);
        }
        let is_over = state.closing || state.ended;
        drop(state);
        shared.fault.check()?;
        if is_over { Err(shared.closed()) } else { Ok(pause) }
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.0.state.lock().is_paused = false;
        self.0.work.notify_all();
        self.0.progress.notify_all();
    }
}

/// What a store no longer needs.
struct Replaced {
    environment: Arc<Environment>,
    layers: Layers,
    snapshots: Vec<Snapshot>,
}

impl State {
    fn take_over(
        &mut self,
        environment: Arc<Environment>,
        row: &StateRow,
        auth: Arc<Auth>,
    ) -> Replaced {
        let applied = row.applied.clone();
        let position = applied.map(|(index, term, raft)| Position { index, term, raft });
        self.current = row.current;
        self.compacted = row.compacted;
        self.durable_compacted = row.compacted.unwrap_or_default();
        self.time = row.time;
        self.auth = auth;
        self.committed.clone_from(&position);
        self.applied = position;
        self.pass = row.pass;
        self.pass_sub = 0;
        self.dirty = false;
        self.rotation_wanted = false;
        self.rotated = None;
        self.no_space = None;
        self.log_lag = None;
        // Read transactions given back from now on are of the old environment.
        self.generation += 1;
        Replaced {
            environment: std::mem::replace(&mut self.environment, environment),
            layers: std::mem::take(&mut self.layers),
            snapshots: std::mem::take(&mut self.snapshots),
        }
    }
}

impl Store {
    /// Goes on with the store in `dir`, which no store has open and which is not behind this one.
    /// `switch` makes that durable: before it returns a crash finds the old directory, afterwards the
    /// new one. The old directory is removed when its last reader is gone.
    ///
    /// Returns where the store stands now.
    ///
    /// # Errors
    /// See [`InstallError`].
    pub fn install(
        &self,
        dir: &Path,
        switch: impl FnOnce() -> io::Result<()>,
    ) -> Result<Position, InstallError> {
        let shared = self.shared();
        let (environment, row) = Environment::open(dir, &shared.options)?;
        let auth = Arc::new(Auth::load(&environment)?);
        let writer = shared.writer.lock();
        let pause = Pause::begin(shared)?;
        let before = check_newer(shared, dir, &row)?;
        switch().map_err(|source| {
            drop(shared.fault.close(&format!("changing to {} failed: {source}", dir.display())));
            InstallError::Switch { path: dir.to_path_buf(), source }
        })?;
        let mut state = shared.state.lock();
        let replaced = state.take_over(Arc::new(environment), &row, auth);
        let position = state.applied.clone().unwrap_or_default();
        drop(state);
        drop(pause);
        if row.current > before {
            shared.post.publish(row.current, None);
        }
        drop(writer);
        let Replaced { environment, layers, snapshots } = replaced;
        environment.retire();
        drop((layers, snapshots, environment));
        Ok(position)
    }
}

/// The store's revision, if the copy is not behind it.
fn check_newer(shared: &Shared, dir: &Path, row: &StateRow) -> Result<Revision, InstallError> {
    let state = shared.state.lock();
    let found = row.applied.as_ref().map_or(0, |&(index, ..)| index);
    let applied = state.applied.as_ref().map_or(0, |position| position.index);
    let current = state.current;
    drop(state);
    if found < applied || row.current < current {
        let (path, revision) = (dir.to_path_buf(), row.current);
        return Err(InstallError::Older { path, found, revision, applied, current });
    }
    Ok(current)
}
