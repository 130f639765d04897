//! What must be true of the members of a simulation at each step, whatever happens to them.
//!
//! - In a term one member leads at most: what members save of votes that are committed names the same one.
//! - What is committed at a place of the log is so for ever: what members call committed is the same entry
//!   everywhere, at any time, and none of them gives it up.
//! - What was acknowledged stands in the log that is committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::trace::Trace;
use crate::log::{Entry, Log, LogId};

/// An entry that is committed: its term, kind and payload.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Committed {
    term: u64,
    kind: u8,
    digest: u32,
}

impl Committed {
    fn of(entry: &Entry) -> Self {
        let digest = crc32c::crc32c(&entry.payload);
        Self { term: entry.id.term, kind: entry.kind, digest }
    }
}

#[derive(Default)]
struct Seen {
    leaders: BTreeMap<u64, u64>,
    entries: BTreeMap<u64, Committed>,
    /// Up to where each member has been compared since it was started.
    compared: BTreeMap<u64, u64>,
    violation: Option<String>,
    /// Who has given its vote to another member last.
    voter: u64,
}

/// See the module.
pub(super) struct Checks {
    seen: Mutex<Seen>,
    trace: Arc<Trace>,
    has_voted: Notify,
    /// Members by their place, for people.
    names: BTreeMap<u64, usize>,
}

impl Checks {
    pub(super) fn new(trace: Arc<Trace>, names: BTreeMap<u64, usize>) -> Self {
        Self { seen: Mutex::default(), trace, has_voted: Notify::new(), names }
    }

    pub(super) fn name(&self, member: u64) -> String {
        self.names.get(&member).map_or_else(|| format!("{member:x}"), |name| format!("m{name}"))
    }

    /// Notes what must not be. The first counts: what follows may follow from it.
    pub(super) fn violated(&self, what: String) {
        self.trace.line(&format!("VIOLATED: {what}"));
        self.seen.lock().violation.get_or_insert(what);
    }

    pub(super) fn violation(&self) -> Option<String> {
        self.seen.lock().violation.clone()
    }

    pub(super) fn voted(&self, member: u64, term: u64, of: u64, is_committed: bool) {
        let (who, whom) = (self.name(member), self.name(of));
        if !is_committed {
            if of != member {
                self.seen.lock().voter = member;
                self.has_voted.notify_one();
            }
            return self.trace.line(&format!("{who} votes for {whom} in term {term}"));
        }
        self.trace.line(&format!("{who} follows {whom} in term {term}"));
        let leader = *self.seen.lock().leaders.entry(term).or_insert(of);
        if leader != of {
            let other = self.name(leader);
            self.violated(format!("{other} and {whom} lead in term {term}, as {who} has it"));
        }
    }

    /// Waits until a member gives its vote to another one.
    pub(super) async fn next_voter(&self) -> u64 {
        self.has_voted.notified().await;
        self.seen.lock().voter
    }

    pub(super) fn started(&self, member: u64) {
        self.seen.lock().compared.remove(&member);
    }

    /// A member holds all entries up to `upto` committed.
    pub(super) fn committed(&self, member: u64, log: &Log, upto: LogId) {
        let from = self.seen.lock().compared.get(&member).map_or(0, |index| index + 1);
        if from > upto.index {
            return;
        }
        let entries = match log.read(from..upto.index + 1, usize::MAX) {
            Ok(entries) => entries,
            Err(error) => return self.violated(format!("{}: {error}", self.name(member))),
        };
        let violation = {
            let mut seen = self.seen.lock();
            seen.compared.insert(member, upto.index);
            let mut differs = None;
            for entry in &entries {
                let is = Committed::of(entry);
                let was = seen.entries.entry(entry.id.index).or_insert_with(|| is.clone());
                if *was != is {
                    differs.get_or_insert((entry.id.index, was.clone(), is));
                }
            }
            differs
        };
        if let Some((index, was, is)) = violation {
            let who = self.name(member);
            self.violated(format!("entry {index} was committed as {was:?}, {who} has {is:?}"));
        }
    }

    pub(super) fn truncated(&self, member: u64, last: Option<LogId>) {
        let who = self.name(member);
        self.trace.line(&format!("{who} gives up what is behind {last:?}"));
        let mut seen = self.seen.lock();
        let compared = seen.compared.entry(member).or_default();
        let last = last.map_or(0, |last| last.index);
        if last < *compared {
            let compared = *compared;
            drop(seen);
            let what =
                format!("{who} gives up entries behind {last}, and called {compared} committed");
            self.violated(what);
        }
    }

    pub(super) fn purged(&self, member: u64, upto: LogId) {
        self.trace.line(&format!("{} purges up to {upto}", self.name(member)));
    }

    /// How many entries were committed in all.
    pub(super) fn entries(&self) -> usize {
        self.seen.lock().entries.len()
    }

    pub(super) fn terms(&self) -> usize {
        self.seen.lock().leaders.len()
    }
}
