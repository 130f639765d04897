//! [`Store`]: open, apply, read, close; owns the LMDB environment, the overlay and the committer.
//!
//! Three parties meet in [`Shared`]:
//! - *apply* (one at a time, by the `writer` lock) adds rows to the active layer and makes them
//!   visible by raising `current`, all rows of a log entry at once;
//! - the *committer* turns the active layer into the one being committed (never in the middle of an
//!   entry: `applying`), writes it to LMDB and drops it;
//! - *read views* take revisions and layers together under the `state` lock.
//!
//! Lock order: `writer`, then `state`. Nothing is done under `state` but reading and writing its
//! fields; LMDB is never called under it.

mod shared;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use crate::apply::{Application, Entry};
use crate::auth::Auth;
use crate::command::{Command, Outcome};
use crate::committer;
use crate::env::Environment;
use crate::error::{OpenError, StoreError};
use crate::fault::StopPoint;
use crate::options::StoreOptions;
use crate::overlay::Layer;
use crate::schema::{CompactionPass, StateRow};
use crate::touch::Warmth;
use crate::types::{Revision, Time};
use crate::view::ReadView;
use crate::watch;
pub(crate) use shared::{Shared, State};

/// A place in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    pub index: u64,
    /// Term of the entry: what a leader decided by its clock counts only in its own term.
    pub term: u64,
    /// Log id and membership as the cluster encodes them; opaque here. Empty before the first entry.
    pub raft: Bytes,
}

/// Bytes of the data file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    pub file_bytes: u64,
    /// The file without its free pages.
    pub in_use_bytes: u64,
}

/// Whether the store takes writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    Good,
    /// The last commit found no space. Changes are kept in the overlay and the commit is retried; the
    /// node refuses new writes meanwhile.
    NoSpace {
        reason: Arc<str>,
    },
    Closed {
        reason: Arc<str>,
    },
}

type StartThread = fn(&Arc<Shared>) -> io::Result<JoinHandle<()>>;

/// A revisioned store in one directory. All methods take `&self`.
pub struct Store {
    shared: Arc<Shared>,
    /// The committer and the hub of the watches.
    threads: Mutex<Vec<JoinHandle<()>>>,
    pub(crate) warmth: Warmth,
}

impl Store {
    /// Makes an empty store in `dir`, which may exist but holds no store yet.
    ///
    /// # Errors
    /// A directory that holds a store, or an I/O error.
    pub fn create(dir: &Path, options: StoreOptions) -> Result<Self, OpenError> {
        let state = StateRow {
            txn: 0,
            current: Revision::FIRST,
            compacted: None,
            time: Time::default(),
            applied: None,
            pass: CompactionPass::default(),
            skips: Vec::new(),
        };
        let environment = Environment::create(dir, &options, &state)?;
        Self::start(environment, options, state)
    }

    /// Opens the store in `dir` where its last commit left it.
    ///
    /// # Errors
    /// A directory without a store, a store of another format version, a damaged file.
    pub fn open(dir: &Path, options: StoreOptions) -> Result<Self, OpenError> {
        let (environment, state) = Environment::open(dir, &options)?;
        Self::start(environment, options, state)
    }

    fn start(
        environment: Environment,
        options: StoreOptions,
        row: StateRow,
    ) -> Result<Self, OpenError> {
        let path = environment.path().to_path_buf();
        let store = Self {
            shared: Arc::new(Shared::new(environment, options, row)?),
            threads: Mutex::default(),
            warmth: Warmth::default(),
        };
        store.start_threads(&path, &[committer::start, watch::start])?;
        Ok(store)
    }

    /// A store that takes no changes: it has no committer.
    pub(crate) fn of_file(
        environment: Environment,
        options: StoreOptions,
        row: StateRow,
    ) -> Result<Self, OpenError> {
        let path = environment.path().to_path_buf();
        let shared = Shared { is_read_only: true, ..Shared::new(environment, options, row)? };
        shared.state.lock().ended = true;
        let store =
            Self { shared: Arc::new(shared), threads: Mutex::default(), warmth: Warmth::default() };
        store.start_threads(&path, &[watch::start])?;
        Ok(store)
    }

    /// A store of which one thread did not start stops the other as it is dropped.
    fn start_threads(&self, path: &Path, starts: &[StartThread]) -> Result<(), OpenError> {
        for start in starts {
            let thread = start(&self.shared)
                .map_err(|source| OpenError::Thread { path: path.to_path_buf(), source })?;
            self.threads.lock().push(thread);
        }
        Ok(())
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Applies one log entry. `position` is committed in the same LMDB transaction as the changes.
    ///
    /// # Errors
    /// A closed store, or an entry out of order. What the command asks for wrongly is an
    /// [`Outcome`], the same on every member.
    pub fn apply(&self, position: Position, command: &Command) -> Result<Outcome, StoreError> {
        let writer = self.shared.writer.lock();
        let entry = Entry(&self.shared);
        let (view, time, layer) = self.begin(&position)?;
        let before = view.current();
        let is_watched = self.shared.post.is_wanted();
        let application = Application::run(&view, time, position.term, command, is_watched);
        let application = application.inspect_err(|_| self.abandon_entry())?;
        let Application { outcome, rows, time, compacted, auth, published } = application;
        let stops = self.shared.fault.stops_at(StopPoint::MiddleOfEntry);
        let inserted = if stops { rows.len() / 2 } else { rows.len() };
        for (tree, row, value) in rows.into_iter().take(inserted) {
            layer.insert(tree, row, value);
        }
        if stops {
            return Err(self.shared.closed());
        }
        let mut state = self.shared.state.lock();
        state.current = outcome.revision;
        if outcome.revision > before {
            state.time = time;
        }
        if compacted.is_some() {
            state.compacted = compacted;
        }
        if let Some(auth) = auth {
            state.auth = Arc::new(auth);
        }
        self.finish(&mut state, position);
        drop(state);
        if outcome.revision > before {
            self.shared.post.publish(outcome.revision, published);
        }
        drop((entry, writer));
        Ok(outcome)
    }

    /// Whether [`Store::apply`] would wait for a commit now.
    #[must_use]
    pub fn is_overlay_full(&self) -> bool {
        self.shared.state.lock().layers.bytes() > self.shared.options.overlay_bytes_max
    }

    /// Users and roles, as of the last entry that was applied.
    #[must_use]
    pub fn auth(&self) -> Arc<Auth> {
        Arc::clone(&self.shared.state.lock().auth)
    }

    /// Applies a log entry that changes nothing here: a blank one, or a membership.
    ///
    /// # Errors
    /// As [`Store::apply`].
    pub fn advance(&self, position: Position) -> Result<(), StoreError> {
        let writer = self.shared.writer.lock();
        let mut state = self.admit(&position)?;
        self.finish(&mut state, position);
        drop(state);
        drop(writer);
        Ok(())
    }

    /// Waits for room in the overlay and checks that the entry is the next one.
    fn admit(&self, position: &Position) -> Result<MutexGuard<'_, State>, StoreError> {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        while !state.closing
            && !state.ended
            && shared.fault.check().is_ok()
            && state.layers.bytes() > shared.options.overlay_bytes_max
        {
            state.commit_wanted = true;
            state.overlay_waits += 1;
            shared.work.notify_one();
            shared.progress.wait(&mut state);
        }
        shared.fault.check()?;
        if state.closing || state.ended {
            return Err(shared.closed());
        }
        // Raft's log begins at 0 or 1, as the cluster numbers it.
        let is_next = match &state.applied {
            None => position.index <= 1,
            Some(applied) => position.index == applied.index + 1,
        };
        if !is_next {
            let expected = state.applied.as_ref().map_or(0, |applied| applied.index + 1);
            return Err(StoreError::OutOfOrder { expected, found: position.index });
        }
        Ok(state)
    }

    /// Starts an entry: from here until [`Store::finish`] the active layer is not rotated.
    pub(crate) fn begin(
        &self,
        position: &Position,
    ) -> Result<(ReadView, Time, Arc<Layer>), StoreError> {
        let mut state = self.admit(position)?;
        state.applying = true;
        let (seen, time) = (state.see(), state.time);
        drop(state);
        let active = Arc::clone(&seen.layers.active);
        let view = ReadView::of_writer(Arc::clone(&self.shared), seen)
            .inspect_err(|_| self.abandon_entry())?;
        Ok((view, time, active))
    }

    /// Ends an entry that failed before it added a row.
    pub(crate) fn abandon_entry(&self) {
        self.shared.state.lock().applying = false;
        self.shared.progress.notify_all();
        self.shared.work.notify_one();
    }

    pub(crate) fn finish(&self, state: &mut State, position: Position) {
        let options = &self.shared.options;
        // The committer may wait for the end of this entry to rotate the layer.
        if std::mem::replace(&mut state.applying, false) {
            self.shared.progress.notify_all();
        }
        let was_dirty = std::mem::replace(&mut state.dirty, true);
        state.applied = Some(position);
        let active = &state.layers.active;
        let is_due =
            active.rows() >= options.commit_changes || active.bytes() >= options.commit_bytes;
        if !was_dirty || is_due || state.commit_wanted {
            self.shared.work.notify_one();
        }
        committer::rotate_if_wanted(state);
    }

    /// The last applied log entry; the default before the first.
    #[must_use]
    pub fn applied(&self) -> Position {
        self.shared.state.lock().applied.clone().unwrap_or_default()
    }

    /// The last log entry that LMDB holds durably: after a crash replay goes on behind it.
    #[must_use]
    pub fn committed(&self) -> Position {
        self.shared.state.lock().committed.clone().unwrap_or_default()
    }

    /// Commits everything applied so far and waits until it is durable.
    ///
    /// # Errors
    /// A closed store, or no space, or a log that is late: then nothing is lost and the committer keeps
    /// trying.
    pub fn commit(&self) -> Result<Position, StoreError> {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        let wanted = state.applied.clone();
        let index = |position: &Option<Position>| position.as_ref().map(|p| p.index);
        let attempts = state.attempts;
        while index(&state.committed) < index(&wanted) {
            shared.fault.check()?;
            if state.ended {
                return Err(shared.closed());
            }
            if let (Some(reason), true) = (&state.no_space, state.attempts > attempts) {
                return Err(StoreError::NoSpace { reason: Arc::clone(reason) });
            }
            if let (Some(reason), true) = (&state.log_lag, state.attempts > attempts) {
                return Err(StoreError::LogLate { reason: Arc::clone(reason) });
            }
            state.commit_wanted = true;
            shared.work.notify_one();
            shared.progress.wait(&mut state);
        }
        shared.fault.check()?;
        Ok(state.committed.clone().unwrap_or_default())
    }

    /// A consistent view of the current state and of every revision not compacted.
    ///
    /// # Errors
    /// A closed store, or no reader slot left.
    pub fn read_view(&self) -> Result<ReadView, StoreError> {
        ReadView::take(Arc::clone(&self.shared))
    }

    /// # Errors
    /// A closed store.
    pub fn size(&self) -> Result<Size, StoreError> {
        self.shared.fault.check()?;
        self.shared.environment().size().map_err(|error| self.shared.fault.lmdb(&error))
    }

    #[must_use]
    pub fn health(&self) -> Health {
        if let Some(reason) = self.shared.fault.reason() {
            return Health::Closed { reason };
        }
        match &self.shared.state.lock().no_space {
            Some(reason) => Health::NoSpace { reason: Arc::clone(reason) },
            None => Health::Good,
        }
    }

    /// Stops the committer after a last commit. Apply is refused from now on; views that exist may
    /// be read until they are dropped, and the file is closed with the last of them.
    ///
    /// # Errors
    /// The last commit failed.
    pub fn close(&self) -> Result<(), StoreError> {
        let committed = self.commit();
        self.stop(false);
        committed.map(|_| ())
    }

    /// Makes the store stop as a crash would, once it comes to `point`: for tests.
    pub fn stop_at(&self, point: StopPoint) {
        self.shared.fault.stop_at(point);
    }

    /// Stops without a last commit, as a crash would; what is not committed is in the log.
    pub fn abandon(self) {
        self.stop(true);
    }

    fn stop(&self, abandon: bool) {
        {
            let mut state = self.shared.state.lock();
            state.closing = true;
            state.abandon |= abandon;
        }
        self.shared.work.notify_all();
        self.shared.progress.notify_all();
        self.shared.post.close();
        for thread in self.threads.lock().drain(..) {
            // The committer, if it panicked, has closed the store itself; the hub has ended the
            // watches.
            thread.join().ok();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop(false);
    }
}
