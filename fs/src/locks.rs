//! flock and fcntl locks that hold across machines.
//!
//! The locks that a mount holds of a file, and those that its processes wait for, are the value of one
//! key ([`crate::path::lock_key`]) on the lease of the mount's *session*. So a file's locks are a short range of
//! keys, one of each mount; each mount changes its own key only, in a transaction that holds if nobody
//! has put one of the others since they were read. If a machine is gone its keys go with the lease.
//!
//! Here the mount remembers which owners of its processes hold or ask for something ([`Holder`]), so
//! that a close lets go of it, and what became of the lease:
//! - *open*: no locks are held; changes are guarded by nothing;
//! - *guarded*: each change compares that the session's key exists ([`Fence::Guarded`]);
//! - *fenced*: the lease was lost while locks were held. What is staged is refused, and every change is
//!   EIO, until all who held a lock have let go of it: they worked on what others may have changed.
//!
//! What is locked on a mount that may not write keys of its own, and what has no key (the past), is
//! locked within the mount ([`Scope::Here`]).

mod list;
pub(crate) mod session;
pub(crate) mod stored;
pub(crate) mod table;

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use revfs_api::keyspace::{Compare, Error, KeyRange, Op, OpAnswer, RangeRead, Txn, TxnAnswer};
use tokio::sync::{Semaphore, watch};

use self::session::Session;
use self::table::Entry;
use crate::node::{Node, Place};

pub use self::list::{LockedBy, list};
pub use self::table::Kind;

/// Requests that may wait for a lock at once; the others are ENOLCK.
const WAITING_MAX: usize = 1_024;

/// Changes of a file's locks wake those who wait for locks of it, and a few others.
const STRIPES: usize = 64;

/// Whose locks on which node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Claim {
    pub ino: u64,
    pub owner: u64,
}

/// Where the locks of a file are.
#[derive(Clone, Debug)]
pub(crate) enum Scope {
    Cluster { key: Bytes, session: Arc<Session> },
    Here { ino: u64 },
}

/// What is known of an owner that holds locks or asks for some.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    pub node: Arc<Node>,
    pub birth: u64,
    /// Process that asked last.
    pub pid: u32,
    /// Handles that it asked through.
    pub handles: BTreeSet<u64>,
    /// `None`: the locks are the mount's own.
    pub session: Option<Arc<Session>>,
    /// Requests under way.
    asking: usize,
    /// It may hold something.
    pub has_locks: bool,
    /// It is about to let go of everything.
    pub is_leaving: bool,
}

impl Holder {
    fn is_stale(&self) -> bool {
        self.has_locks && self.session.as_ref().is_some_and(|session| session.is_lost())
    }

    pub(crate) fn key(&self) -> Option<Bytes> {
        match self.node.place() {
            Place::File { key } | Place::Detached { key } => Some(key),
            Place::Directory { .. } | Place::PastFile { .. } | Place::Hidden(_) => None,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    holders: HashMap<Claim, Holder>,
    current: Option<Arc<Session>>,
    is_fenced: bool,
    /// Locks of this mount alone, with a number that grows with each change.
    here: HashMap<u64, (u64, Vec<Entry>)>,
}

/// What a change has to prove.
#[derive(Debug)]
pub(crate) enum Fence {
    Open,
    Guarded(Arc<Session>),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Locks {
    /// Held while a session is begun.
    pub(crate) beginning: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    changed: Vec<watch::Sender<()>>,
    pub(crate) waiting: Semaphore,
}

impl Default for Locks {
    fn default() -> Self {
        Self {
            beginning: tokio::sync::Mutex::default(),
            state: Mutex::default(),
            changed: (0..STRIPES).map(|_| watch::Sender::default()).collect(),
            waiting: Semaphore::new(WAITING_MAX),
        }
    }
}

fn stripe(what: impl Hash) -> usize {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    usize::try_from(hasher.finish() % STRIPES as u64).expect("it is below 64")
}

impl Scope {
    fn stripe(&self) -> usize {
        match self {
            Self::Cluster { key, .. } => stripe(key),
            Self::Here { ino } => stripe(ino),
        }
    }

    pub(crate) fn session(&self) -> Option<&Arc<Session>> {
        match self {
            Self::Cluster { session, .. } => Some(session),
            Self::Here { .. } => None,
        }
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.session().is_some_and(|session| session.is_lost())
    }
}

impl Locks {
    /// The session, if there is one that is not lost.
    pub(crate) fn current(&self) -> Option<Arc<Session>> {
        self.state.lock().current.clone()
    }

    pub(crate) fn begin(&self, session: &Arc<Session>) {
        self.state.lock().current = Some(Arc::clone(session));
    }

    /// Notes that a session's lease has ended. Whatever was held is another's by now, perhaps.
    pub(crate) fn lose(&self, id: u64) {
        let mut state = self.state.lock();
        let Some(session) = state.current.take_if(|session| session.id == id) else { return };
        session.set_lost();
        state.is_fenced = state.holders.values().any(Holder::is_stale);
        if state.is_fenced {
            let held = state.describe_stale();
            tracing::warn!(
                lease = session.lease.0,
                held,
                "the lease of this mount's locks has ended: changes are refused until they are let go"
            );
        }
        drop(state);
        // Those who wait begin anew.
        self.changed.iter().for_each(|stripe| stripe.send_modify(|()| ()));
    }

    /// Takes a guard's part from the answer to what it guarded.
    ///
    /// # Errors
    /// Nothing was changed: the lease of the locks has ended.
    pub(crate) fn check(&self, fence: &Fence, answer: &mut TxnAnswer) -> Result<(), Error> {
        let Fence::Guarded(session) = fence else { return Ok(()) };
        if fence.holds(answer) {
            return Ok(());
        }
        self.lose(session.id);
        let reason = self.fenced().unwrap_or_else(|| "the lease of a lock has ended".to_owned());
        Err(Error::Unavailable { reason })
    }

    pub(crate) fn is_fenced(&self) -> bool {
        self.state.lock().is_fenced
    }

    /// Why every change is refused, if it is.
    pub(crate) fn fenced(&self) -> Option<String> {
        let state = self.state.lock();
        state.is_fenced.then(|| {
            format!(
                "the lease of this mount's locks has ended; changes are EIO until they are let go: {}",
                state.describe_stale()
            )
        })
    }

    /// What the next change has to prove.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn fence(&self) -> Result<Fence, Error> {
        if let Some(reason) = self.fenced() {
            return Err(Error::Unavailable { reason });
        }
        let state = self.state.lock();
        let holds = state.holders.values().any(|own| own.has_locks && own.session.is_some());
        Ok(match &state.current {
            Some(session) if holds => Fence::Guarded(Arc::clone(session)),
            Some(_) | None => Fence::Open,
        })
    }

    /// Counts a request of an owner, which is a holder from now on.
    pub(crate) fn ask(&self, claim: Claim, asked: Holder) -> Asking<'_> {
        let mut state = self.state.lock();
        let holder = state.holders.entry(claim).or_insert_with(|| asked.clone());
        holder.asking += 1;
        holder.is_leaving = false;
        holder.pid = asked.pid;
        holder.handles.extend(asked.handles);
        if !holder.has_locks {
            holder.session = asked.session;
        }
        Asking { locks: self, claim }
    }

    pub(crate) fn holder(&self, claim: Claim) -> Option<Holder> {
        self.state.lock().holders.get(&claim).cloned()
    }

    /// Marks the owners that a close ends, and returns them.
    pub(crate) fn leave(&self, is_left: impl Fn(&Claim, &Holder) -> bool) -> Vec<(Claim, Holder)> {
        let mut state = self.state.lock();
        let left = state.holders.iter_mut().filter(|(claim, own)| is_left(claim, own));
        left.map(|(claim, own)| {
            own.is_leaving = true;
            (*claim, own.clone())
        })
        .collect()
    }

    /// Whether an owner is letting go of what it has.
    pub(crate) fn is_leaving(&self, claim: Claim) -> bool {
        self.state.lock().holders.get(&claim).is_some_and(|own| own.is_leaving)
    }

    /// The owner holds nothing any more.
    pub(crate) fn forget(&self, claim: Claim) {
        let mut state = self.state.lock();
        if let Some(holder) = state.holders.get_mut(&claim) {
            holder.has_locks = false;
            if holder.asking == 0 {
                state.holders.remove(&claim);
            }
        }
        if state.is_fenced && !state.holders.values().any(Holder::is_stale) {
            state.is_fenced = false;
            tracing::info!("all locks of the lease that ended are let go: changes are taken again");
        }
    }

    /// Files of which this mount holds locks in the store, as they are called now.
    pub(crate) fn locked(&self) -> Vec<(Bytes, Arc<Session>)> {
        let state = self.state.lock();
        let held = state.holders.values().filter(|own| own.has_locks);
        let held = held.filter_map(|own| Some((own.key()?, own.session.clone()?)));
        let mut held: Vec<_> = held.collect();
        held.sort_by(|one, other| one.0.cmp(&other.0));
        held.dedup_by(|one, other| one.0 == other.0);
        held
    }

    /// Each file and process that holds locks of this mount.
    pub(crate) fn held(&self) -> Vec<(Option<Bytes>, u32)> {
        let state = self.state.lock();
        let held = state.holders.values().filter(|own| own.has_locks);
        let mut held: Vec<_> = held.map(|own| (own.key(), own.pid)).collect();
        held.sort();
        held
    }

    /// Tells those who wait for a lock of this file that something has changed.
    pub(crate) fn wake(&self, key: &Bytes) {
        self.changed[stripe(key)].send_modify(|()| ());
    }

    pub(crate) fn changes(&self, scope: &Scope) -> watch::Receiver<()> {
        self.changed[scope.stripe()].subscribe()
    }

    fn here(&self, ino: u64) -> (u64, Vec<Entry>) {
        self.state.lock().here.get(&ino).cloned().unwrap_or_default()
    }

    fn set_here(&self, ino: u64, seen: u64, entries: Vec<Entry>) -> bool {
        let mut state = self.state.lock();
        let (number, held) = state.here.entry(ino).or_default();
        if *number != seen {
            return false;
        }
        *number += 1;
        *held = entries;
        if held.is_empty() {
            state.here.remove(&ino);
        }
        drop(state);
        self.changed[stripe(ino)].send_modify(|()| ());
        true
    }
}

impl State {
    fn describe_stale(&self) -> String {
        let stale = self.holders.values().filter(|own| own.is_stale());
        let mut all: Vec<_> = stale
            .map(|own| {
                let key = own.key().unwrap_or_default();
                format!("{} by process {}", key.escape_ascii(), own.pid)
            })
            .collect();
        all.sort();
        all.join(", ")
    }
}

/// A request of an owner under way.
pub(crate) struct Asking<'a> {
    locks: &'a Locks,
    claim: Claim,
}

impl Asking<'_> {
    /// From now on the owner has something to let go of. Returns whether it had before.
    pub(crate) fn granted(&self) -> bool {
        let mut state = self.locks.state.lock();
        let holder = state.holders.get_mut(&self.claim);
        holder.is_some_and(|holder| std::mem::replace(&mut holder.has_locks, true))
    }

    /// It asks again, in another session.
    pub(crate) fn moves_to(&self, scope: &Scope) {
        if let Some(holder) = self.locks.state.lock().holders.get_mut(&self.claim)
            && !holder.has_locks
        {
            holder.session = scope.session().cloned();
        }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut state = self.locks.state.lock();
        let Some(holder) = state.holders.get_mut(&self.claim) else { return };
        holder.asking -= 1;
        if holder.asking == 0 && !holder.has_locks {
            state.holders.remove(&self.claim);
        }
    }
}

impl Holder {
    pub(crate) fn new(node: &Arc<Node>, birth: u64, pid: u32, handle: u64, scope: &Scope) -> Self {
        Self {
            node: Arc::clone(node),
            birth,
            pid,
            handles: BTreeSet::from([handle]),
            session: scope.session().cloned(),
            asking: 0,
            has_locks: false,
            is_leaving: false,
        }
    }
}

impl Fence {
    /// The transaction, which does nothing if the session is lost.
    pub(crate) fn guard(&self, mut txn: Txn) -> Txn {
        if let Self::Guarded(session) = self {
            txn.compares.push(Compare::present(session.key.clone()));
            let range = KeyRange::Key(session.key.clone());
            txn.failure.push(Op::Range(RangeRead {
                limit: 1,
                keys_only: true,
                ..RangeRead::new(range)
            }));
        }
        txn
    }

    /// Takes the guard's part from an answer; false if the session is lost.
    fn holds(&self, answer: &mut TxnAnswer) -> bool {
        match self {
            Self::Guarded(_) if !answer.succeeded => {
                matches!(answer.answers.pop(), Some(OpAnswer::Range(range)) if !range.kvs.is_empty())
            }
            Self::Guarded(_) | Self::Open => true,
        }
    }
}
