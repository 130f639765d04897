//! What this member held at the last places of the log where members compare: kept by apply, hashed beside
//! it, one at a time and slowly, for whoever asks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use revfs_store::{Frozen, PointHash, Store};
use tokio::sync::watch;

/// So many of the last places are remembered.
const REMEMBERED: usize = 8;

/// After each part of the work the thread rests for so many times as long: a quarter of a processor.
const RESTS: u32 = 3;

/// … but no longer.
const REST_MAX: Duration = Duration::from_millis(500);

/// Between two looks at how far apply has come.
const LOOK: Duration = Duration::from_millis(500);

/// See the module.
pub(crate) struct Points {
    store: Arc<Store>,
    known: watch::Sender<Known>,
    is_stopping: Arc<AtomicBool>,
}

#[derive(Default)]
struct Known {
    /// Being hashed.
    busy: Option<u64>,
    /// What came of it, the newest last.
    done: VecDeque<(u64, Result<PointHash, Arc<str>>)>,
    /// How long the last one took.
    took: Duration,
}

impl Known {
    fn note(&mut self, index: u64, end: Result<PointHash, Arc<str>>) {
        self.done.push_back((index, end));
        while self.done.len() > REMEMBERED {
            self.done.pop_front();
        }
    }
}

impl Points {
    pub(crate) fn new(store: Arc<Store>) -> Arc<Self> {
        Arc::new(Self { store, known: watch::Sender::default(), is_stopping: Arc::default() })
    }

    /// Keeps the state after the entry `index`, which was just applied, and has it hashed, unless another
    /// one is being hashed. Called by apply.
    pub(crate) fn applied(self: &Arc<Self>, index: u64) {
        let is_busy = self.known.borrow().busy.is_some();
        let frozen = match is_busy {
            true => Err("another state was being hashed".to_owned()),
            false => self.store.freeze().map_err(|error| error.to_string()),
        };
        match frozen {
            Err(reason) => self.known.send_modify(|known| known.note(index, Err(reason.into()))),
            Ok(frozen) => {
                self.known.send_modify(|known| known.busy = Some(index));
                let points = Arc::clone(self);
                tokio::task::spawn_blocking(move || points.hash(index, frozen));
            }
        }
    }

    fn hash(&self, index: u64, frozen: Frozen) {
        let begun = Instant::now();
        let mut last = begun;
        let hashed = frozen.hash(|| {
            std::thread::sleep((last.elapsed() * RESTS).min(REST_MAX));
            last = Instant::now();
            !self.is_stopping.load(Ordering::SeqCst)
        });
        self.known.send_modify(|known| {
            known.busy = None;
            known.took = begun.elapsed();
            known.note(index, hashed.map_err(|error| error.to_string().into()));
        });
    }

    /// No hash is wanted any more: the node stops.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
    }

    /// How long the last hash took.
    pub(crate) fn took(&self) -> Duration {
        self.known.borrow().took
    }

    /// The last place whose hash was computed here; it turns with each.
    pub(crate) async fn newer_than(&self, index: u64) -> u64 {
        let newest = |known: &Known| {
            let hashed = known.done.iter().rev().find(|(_, end)| end.is_ok());
            hashed.map_or(0, |(index, _)| *index)
        };
        let mut known = self.known.subscribe();
        match known.wait_for(|known| newest(known) > index).await {
            Ok(known) => newest(&known),
            // The sender is this object.
            Err(_) => index,
        }
    }

    /// What this member held after the entry `index`. Waits until it has applied that entry and hashed its
    /// state; why it will not, if so.
    pub(crate) async fn at(&self, index: u64) -> Result<PointHash, Arc<str>> {
        let mut turns = self.known.subscribe();
        loop {
            // Before what is known, for apply tells of an entry before it goes on to the next one.
            let is_past = self.store.applied().index > index;
            {
                let known = turns.borrow_and_update();
                if let Some((_, end)) = known.done.iter().find(|(at, _)| *at == index) {
                    return end.clone();
                }
                if is_past && known.busy != Some(index) {
                    return Err(Arc::from("this member did not keep its state of that entry"));
                }
            }
            // An error would say that this object is gone.
            drop(tokio::time::timeout(LOOK, turns.changed()).await);
        }
    }
}
