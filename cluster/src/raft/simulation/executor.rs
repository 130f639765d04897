//! The one thread of a simulation: its tasks, its clock, its dice.
//!
//! Of the tasks that can go on, the dice choose which one does. Only when none can does the clock move, to
//! the earliest moment that somebody sleeps until. Nothing else gives time or chance to what runs here, so
//! that everything follows from the seed.
//!
//! A task belongs to the *party* of the task that spawned it: a member, or the world around them (0). A party
//! that is killed loses all its tasks where they stand.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Whose a task is.
pub(super) type Party = u64;

/// The party of the clients, the network, and what harms them.
pub(super) const WORLD: Party = 0;

/// Steps between two looks at the clock: more means that tasks wake each other for ever.
const STEPS_MAX: u64 = 1_000_000;

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// SplitMix64, as the dice of the suite.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

struct Task {
    party: Party,
    /// `None` while it runs.
    future: Option<Boxed>,
    is_ready: bool,
}

struct State {
    dice: Dice,
    now: Duration,
    next: u64,
    tasks: BTreeMap<u64, Task>,
    ready: Vec<u64>,
    sleeping: BTreeMap<(Duration, u64), Waker>,
    running: Party,
    steps: u64,
}

/// See the module. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Executor(Arc<Mutex<State>>);

thread_local! {
    static ENTERED: RefCell<Option<Executor>> = const { RefCell::new(None) };
}

/// Whether this thread runs a simulation.
pub(in crate::raft) fn is_entered() -> bool {
    ENTERED.with_borrow(Option::is_some)
}

/// The simulation that this thread runs.
pub(super) fn entered() -> Option<Executor> {
    ENTERED.with_borrow(Clone::clone)
}

pub(super) fn here() -> Executor {
    entered().expect("only what is simulated asks")
}

struct Wakes {
    executor: Executor,
    task: u64,
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        let mut state = self.executor.0.lock();
        let Some(task) = state.tasks.get_mut(&self.task) else { return };
        if !std::mem::replace(&mut task.is_ready, true) {
            state.ready.push(self.task);
        }
    }
}

/// Leaves the thread as it was, also by a panic.
struct Entered;

impl Drop for Entered {
    fn drop(&mut self) {
        let left = ENTERED.with_borrow_mut(Option::take);
        // What it runs may look for it while it is dropped.
        drop(left);
    }
}

/// Runs a world of this seed to its end on this thread; nothing of it is left.
pub(super) fn run<T: Send + 'static>(
    seed: u64,
    world: impl Future<Output = T> + Send + 'static,
) -> T {
    assert!(!is_entered(), "a simulation in a simulation");
    let executor = Executor(Arc::new(Mutex::new(State {
        dice: Dice(seed),
        now: Duration::ZERO,
        next: 0,
        tasks: BTreeMap::new(),
        ready: Vec::new(),
        sleeping: BTreeMap::new(),
        running: WORLD,
        steps: 0,
    })));
    ENTERED.set(Some(executor.clone()));
    let entered = Entered;
    let (done, mut end) = oneshot::channel();
    executor.spawn_in(WORLD, async move { drop(done.send(world.await)) });
    let end = loop {
        match end.try_recv() {
            Ok(end) => break end,
            Err(oneshot::error::TryRecvError::Closed) => panic!("the world was dropped"),
            Err(oneshot::error::TryRecvError::Empty) => executor.step(),
        }
    };
    executor.kill(|_| true);
    drop(entered);
    end
}

impl Executor {
    pub(super) fn now(&self) -> Duration {
        self.0.lock().now
    }

    pub(super) fn roll(&self) -> u64 {
        self.0.lock().dice.roll()
    }

    pub(super) fn running(&self) -> Party {
        self.0.lock().running
    }

    pub(super) fn spawn_in(&self, party: Party, future: impl Future<Output = ()> + Send + 'static) {
        let mut state = self.0.lock();
        let id = state.next;
        state.next += 1;
        let task = Task { party, future: Some(Box::pin(future)), is_ready: true };
        state.tasks.insert(id, task);
        state.ready.push(id);
    }

    /// Wakes at `at`; returns by which name it can be forgotten.
    pub(super) fn sleep(&self, at: Duration, waker: Waker) -> (Duration, u64) {
        let mut state = self.0.lock();
        let name = (at, state.next);
        state.next += 1;
        state.sleeping.insert(name, waker);
        name
    }

    pub(super) fn forget(&self, name: (Duration, u64)) {
        let waker = self.0.lock().sleeping.remove(&name);
        drop(waker);
    }

    /// Ends all tasks of some parties where they stand, but for the one that asks.
    pub(super) fn kill(&self, whom: impl Fn(Party) -> bool) {
        loop {
            // What is dropped may spawn and wake others.
            let killed: Vec<Boxed> = {
                let mut state = self.0.lock();
                let tasks = std::mem::take(&mut state.tasks);
                let (killed, left) = tasks
                    .into_iter()
                    .partition(|(_, task)| whom(task.party) && task.future.is_some());
                state.tasks = left;
                let killed: BTreeMap<u64, Task> = killed;
                state.ready.retain(|id| !killed.contains_key(id));
                killed.into_values().filter_map(|task| task.future).collect()
            };
            if killed.is_empty() {
                return;
            }
        }
    }

    /// Lets one task go on, or else the clock.
    fn step(&self) {
        let (id, party, mut future) = {
            let mut state = self.0.lock();
            if state.ready.is_empty() {
                return self.advance(state);
            }
            state.steps += 1;
            assert!(state.steps < STEPS_MAX, "the tasks go on for ever at {:?}", state.now);
            let roll = state.dice.roll();
            let count = u64::try_from(state.ready.len()).expect("they fit into memory");
            let at = usize::try_from(roll % count).expect("it is below a length");
            let id = state.ready.swap_remove(at);
            let task = state.tasks.get_mut(&id).expect("who is gone is not ready");
            task.is_ready = false;
            let (party, future) = (task.party, task.future.take().expect("it does not run"));
            state.running = party;
            (id, party, future)
        };
        let waker = Waker::from(Arc::new(Wakes { executor: self.clone(), task: id }));
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        let mut state = self.0.lock();
        state.running = WORLD;
        debug_assert!(state.tasks.get(&id).is_none_or(|task| task.party == party));
        let ended = match polled {
            Poll::Pending => match state.tasks.get_mut(&id) {
                Some(task) => task.future.replace(future),
                None => Some(future),
            },
            Poll::Ready(()) => {
                state.tasks.remove(&id);
                state.ready.retain(|ready| *ready != id);
                Some(future)
            }
        };
        drop(state);
        drop(ended);
    }

    fn advance(&self, mut state: parking_lot::MutexGuard<'_, State>) {
        let Some((&(at, _), _)) = state.sleeping.first_key_value() else {
            panic!("nobody can go on, and nobody sleeps, at {:?}", state.now);
        };
        state.now = state.now.max(at);
        state.steps = 0;
        let now = state.now;
        let mut due = Vec::new();
        while let Some(first) = state.sleeping.first_entry()
            && first.key().0 <= now
        {
            due.push(first.remove());
        }
        drop(state);
        due.into_iter().for_each(Waker::wake);
    }
}
