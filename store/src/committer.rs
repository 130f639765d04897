//! The one thread that writes LMDB.
//!
//! It sleeps until the overlay is due (an interval after its first change, or enough rows or bytes,
//! or somebody waits), turns the active layer into the one being committed, and writes its rows and
//! the state row in one synced transaction. A step of a physical compaction rides in the same
//! transaction.
//!
//! A commit that finds no space keeps its layer and is tried again; anything else that fails closes
//! the store, because after a failed fsync nobody knows what the disk holds.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use heed::{MdbError, PutFlags, RwTxn};
use parking_lot::MutexGuard;

use crate::barrier::{self, Passage};
use crate::compaction::{self, Progress};
use crate::env::{Environment, Rows, txn_id};
use crate::fault::StopPoint;
use crate::overlay::Layer;
use crate::schema::{ROW_STATE, StateRow, Tree, encode_state};
use crate::store::{Position, Shared, State};
use crate::types::Revision;

/// One transaction's work.
pub(crate) struct Batch {
    pub(crate) environment: Arc<Environment>,
    pub(crate) layer: Arc<Layer>,
    pub(crate) position: Option<Position>,
    state: StateRow,
    /// The compacted revision that LMDB holds already: a pass may go so far.
    pub(crate) durable_compacted: Revision,
    /// No step of a pass rides in this transaction.
    holds_pass: bool,
    /// Where in `state.pass.next` a step begins.
    sub: u32,
}

/// Tells whoever waits that the thread is gone, even if it panicked.
struct Ending<'s>(&'s Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.0.fault.close("the committer panicked"));
        }
        self.0.state.lock().ended = true;
        self.0.progress.notify_all();
    }
}

pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let thread = std::thread::Builder::new().name("store-committer".to_owned());
    thread.spawn(move || run(&shared))
}

fn run(shared: &Shared) {
    let ending = Ending(shared);
    while let Some(batch) = next_batch(shared) {
        match barrier::wait(shared, &batch) {
            Passage::Open => {}
            Passage::Later => {
                shared.state.lock().is_writing = false;
                shared.progress.notify_all();
                continue;
            }
            Passage::Closed => break,
        }
        match shared.options.commits.time(|| write(shared, &batch)) {
            Ok(Some(progress)) => succeeded(shared, &batch, progress),
            Ok(None) => break,
            Err(failure) => failed(shared, &batch.environment, &failure),
        }
    }
    drop(ending);
}

/// Waits for something to write; `None` ends the thread.
fn next_batch(shared: &Shared) -> Option<Batch> {
    let mut state = shared.state.lock();
    loop {
        if shared.fault.check().is_err() || (state.closing && state.abandon) {
            return None;
        }
        if state.is_paused {
            shared.work.wait(&mut state);
            continue;
        }
        if state.layers.committing.is_some() {
            // The last commit failed. When closing, one more attempt was made: what is left is in
            // the log.
            if state.closing {
                return None;
            }
            if state.no_space.is_some() {
                let interval = shared.options.retry_interval;
                shared.work.wait_while_for(&mut state, |state| !state.closing, interval);
            }
            if state.is_paused || state.layers.committing.is_none() {
                continue;
            }
            return batch(state);
        }
        let has_pass = has_compaction(&state);
        if state.dirty || (has_pass && !state.closing) {
            let options = &shared.options;
            // Under load a pass rides in the commits that there are: more of them would take the disk
            // and the processor from apply.
            let interval =
                if state.dirty { options.commit_interval } else { options.compaction_pause };
            shared.work.wait_while_for(&mut state, |state| !is_due(shared, state), interval);
            while state.applying && state.layers.committing.is_none() && !state.abandon {
                // Apply begins the next entry before this thread has woken: it rotates for us.
                state.rotation_wanted = true;
                shared.progress.wait(&mut state);
            }
            state.rotation_wanted = false;
            if state.abandon {
                return None;
            }
            if state.is_paused {
                continue;
            }
            if state.layers.committing.is_none() {
                rotate(&mut state);
            }
            return batch(state);
        }
        if state.closing {
            return None;
        }
        shared.work.wait(&mut state);
    }
}

fn is_due(shared: &Shared, state: &State) -> bool {
    let active = &state.layers.active;
    state.closing
        || state.commit_wanted
        || active.rows() >= shared.options.commit_changes
        || active.bytes() >= shared.options.commit_bytes
}

fn has_compaction(state: &State) -> bool {
    let has_pass = state.pass.target != Revision::NONE || state.pass.done < state.durable_compacted;
    has_pass && state.holds == 0
}

/// Rotates for a committer that waits for the end of an entry. It would wake too late to do so itself:
/// apply has begun the next entry by then.
pub(crate) fn rotate_if_wanted(state: &mut State) {
    if std::mem::take(&mut state.rotation_wanted) {
        rotate(state);
    }
}

fn rotate(state: &mut State) {
    state.layers.committing = Some(std::mem::take(&mut state.layers.active));
    state.dirty = false;
    state.commit_wanted = false;
    // The batch writes the state as of this rotation, however often it is tried.
    state.rotated = Some(StateRow {
        txn: 0,
        current: state.current,
        compacted: state.compacted,
        time: state.time,
        applied: state.applied.as_ref().map(|p| (p.index, p.term, p.raft.clone())),
        pass: state.pass,
        skips: state.environment.skips().to_vec(),
    });
}

fn batch(mut state: MutexGuard<'_, State>) -> Option<Batch> {
    let layer = Arc::clone(state.layers.committing.as_ref()?);
    let row = state.rotated.clone()?;
    let holds_pass = state.holds > 0;
    let position = row.applied.clone().map(|(index, term, raft)| Position { index, term, raft });
    state.is_writing = true;
    Some(Batch {
        environment: Arc::clone(&state.environment),
        layer,
        position,
        state: row,
        durable_compacted: state.durable_compacted,
        holds_pass,
        sub: state.pass_sub,
    })
}

/// Writes a batch and makes it durable; returns how far the compaction came, or `None` where a test stops
/// the store.
fn write(shared: &Shared, batch: &Batch) -> Result<Option<Progress>, heed::Error> {
    let stops_at = |point| shared.fault.stops_at(point);
    if stops_at(StopPoint::BeforeCommit) {
        return Ok(None);
    }
    let environment = &batch.environment;
    let mut wtxn = environment.write_txn()?;
    for tree in Tree::ALL {
        write_tree(environment, &mut wtxn, tree, &batch.layer)?;
        if tree == Tree::Revisions && stops_at(StopPoint::MiddleOfCommit) {
            return Ok(None);
        }
    }
    let before = Progress { pass: batch.state.pass, sub: batch.sub };
    let mut progress = before;
    if !batch.holds_pass {
        progress = compaction::step(shared, &mut wtxn, before, batch)?;
        if progress != before && stops_at(StopPoint::MiddleOfCompaction) {
            return Ok(None);
        }
    }
    let state = StateRow { txn: txn_id(&wtxn), pass: progress.pass, ..batch.state.clone() };
    environment.rows(Tree::Meta).put(&mut wtxn, ROW_STATE, &encode_state(&state))?;
    wtxn.commit()?;
    Ok(Some(progress).filter(|_| !stops_at(StopPoint::AfterCommit)))
}

fn write_tree(
    environment: &Environment,
    wtxn: &mut RwTxn<'_>,
    tree: Tree,
    layer: &Layer,
) -> Result<(), heed::Error> {
    let rows = environment.rows(tree);
    let is_by_revision = matches!(tree, Tree::Revisions | Tree::Times);
    for entry in layer.tree(tree) {
        match entry.value().get() {
            Some(value) if is_by_revision => append(rows, wtxn, entry.key(), &value)?,
            Some(value) => rows.put(wtxn, entry.key(), &value)?,
            None => {
                // A row that was added and deleted within the layer is not in LMDB.
                rows.delete(wtxn, entry.key())?;
            }
        }
    }
    Ok(())
}

/// Puts a row behind all others, as it usually is: LMDB need not look for its place, and fills its pages.
fn append(rows: &Rows, wtxn: &mut RwTxn<'_>, row: &[u8], value: &[u8]) -> Result<(), heed::Error> {
    match rows.put_with_flags(wtxn, PutFlags::APPEND, row, value) {
        Err(heed::Error::Mdb(MdbError::KeyExist)) => rows.put(wtxn, row, value),
        put => put,
    }
}

fn succeeded(shared: &Shared, batch: &Batch, progress: Progress) {
    let mut state = shared.state.lock();
    state.committed = batch.position.clone();
    let layer = state.layers.committing.take();
    state.generation += 1;
    // Older than the commit: a view that took one would miss the rows of the layer.
    let snapshots = std::mem::take(&mut state.snapshots);
    state.rotated = None;
    state.pass = progress.pass;
    state.pass_sub = progress.sub;
    state.durable_compacted = batch.state.compacted.unwrap_or_default();
    state.is_writing = false;
    state.log_lag = None;
    state.attempts += 1;
    if state.no_space.take().is_some() {
        tracing::info!("the commit found space again");
    }
    drop(state);
    drop((snapshots, layer));
    shared.progress.notify_all();
}

fn failed(shared: &Shared, environment: &Environment, failure: &heed::Error) {
    let reason = format!("commit of {}: {failure}", environment.path().display());
    if is_no_space(environment, failure) {
        let mut state = shared.state.lock();
        state.is_writing = false;
        if state.no_space.is_none() {
            tracing::warn!(reason, "no space for the commit: it is retried");
        }
        state.no_space = Some(Arc::from(reason));
        state.attempts += 1;
    } else {
        drop(shared.fault.close(&reason));
    }
    shared.progress.notify_all();
}

/// Whether a commit failed for want of space and can be tried again.
///
/// LMDB reports a short write, which is how a disk fills up, as EIO: whether that was a full disk is
/// asked of the disk itself. A retry is sound then: the transaction was aborted, its pages belong to
/// nobody, and the next attempt writes every one of them again.
fn is_no_space(environment: &Environment, failure: &heed::Error) -> bool {
    match failure {
        heed::Error::Mdb(MdbError::MapFull) => true,
        heed::Error::Io(error) if is_space_error(error) => true,
        heed::Error::Io(error) => {
            is_eio(error) && probe(environment).is_err_and(|e| is_space_error(&e))
        }
        _ => false,
    }
}

fn is_space_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

fn is_eio(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    error.raw_os_error() == Some(EIO)
}

/// Bytes that the probe asks of the disk: more than the tail of a short write.
const PROBE_BYTES: usize = 1 << 20;

/// Writes beside the data file, as far beyond its end as the commit might have gone.
fn probe(environment: &Environment) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let path = environment.path().with_file_name("probe.tmp");
    let length = std::fs::metadata(environment.path())?.len();
    let file = std::fs::File::create(&path)?;
    let written = file
        .write_all_at(&[0; 1], length)
        .and_then(|()| file.write_all_at(&vec![0; PROBE_BYTES], 0))
        .and_then(|()| file.sync_all());
    drop(file);
    std::fs::remove_file(&path)?;
    written
}
