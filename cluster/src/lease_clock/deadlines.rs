//! When each lease ends, by the clock of the leader of one term. Pure: the time comes in as an argument.
//!
//! A term begins with [`Deadlines::new`]: *loading*. Leases that are granted from then on are known at
//! once; those from before arrive with [`Deadlines::load`], with all the time that they may have left
//! and a while more, because nobody knows when the leader before them renewed them last. A lease lives
//! until its deadline passes; then it is *expiring*: it cannot be renewed any more, and it is gone when
//! its revocation is applied.
//!
//! The queue has one entry for each lease, at its deadline or earlier: a renewal only changes the
//! lease, and the entry is put back when it comes up too early.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use revfs_store::types::{Lease, LeaseId};

/// At a change of leaders leases come due together; of what is loaded no more than so many a second do,
/// so that their revocation leaves room for other changes.
const LOADED_PER_SECOND: usize = 750;

/// Leases shorter than this are not noted in checkpoints: a new leader gives them their whole time.
pub(super) const NOTED_FROM: Duration = Duration::from_secs(300);

struct Entry {
    ttl_seconds: i64,
    deadline: Instant,
    is_expiring: bool,
    /// Its row holds less than its whole time.
    is_noted: bool,
}

/// What a keep-alive finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewal {
    Renewed {
        ttl_seconds: i64,
        /// The row must be told that the lease has its whole time again.
        was_noted: bool,
    },
    /// Wait until it is gone.
    Expiring,
    /// Wait until the leases from before this term are loaded.
    Loading,
    Unknown,
}

pub(super) struct Deadlines {
    pub(super) term: u64,
    is_loaded: bool,
    leases: HashMap<LeaseId, Entry>,
    queue: BinaryHeap<Reverse<(Instant, LeaseId)>>,
    /// Revoked while loading: a view from before may still show them.
    gone: HashSet<LeaseId>,
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

impl Deadlines {
    pub(super) fn new(term: u64) -> Self {
        Self {
            term,
            is_loaded: false,
            leases: HashMap::new(),
            queue: BinaryHeap::new(),
            gone: HashSet::new(),
        }
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.is_loaded
    }

    pub(super) fn granted(&mut self, id: LeaseId, ttl_seconds: i64, now: Instant) {
        self.gone.remove(&id);
        self.insert(id, ttl_seconds, now + seconds(ttl_seconds), false);
    }

    fn insert(&mut self, id: LeaseId, ttl_seconds: i64, deadline: Instant, is_noted: bool) {
        let entry = Entry { ttl_seconds, deadline, is_expiring: false, is_noted };
        self.leases.insert(id, entry);
        self.queue.push(Reverse((deadline, id)));
    }

    /// Whether somebody may be waiting for it.
    pub(super) fn gone(&mut self, id: LeaseId) -> bool {
        if !self.is_loaded {
            self.gone.insert(id);
        }
        self.leases.remove(&id).is_some_and(|entry| entry.is_expiring)
    }

    /// Takes the leases from before this term.
    pub(super) fn load(&mut self, leases: Vec<Lease>, now: Instant, extension: Duration) {
        let left = |lease: &Lease| match lease.remaining_seconds {
            0 => lease.ttl_seconds,
            remaining => remaining.min(lease.ttl_seconds),
        };
        let mut loaded: Vec<(Instant, Lease)> = leases
            .into_iter()
            .filter(|lease| !self.leases.contains_key(&lease.id) && !self.gone.contains(&lease.id))
            .map(|lease| (now + seconds(left(&lease)) + extension, lease))
            .collect();
        loaded.sort_by_key(|(deadline, lease)| (*deadline, lease.id));
        let mut last = VecDeque::with_capacity(LOADED_PER_SECOND);
        for (deadline, lease) in loaded {
            let mut deadline = deadline;
            if last.len() == LOADED_PER_SECOND
                && let Some(before) = last.pop_front()
            {
                deadline = deadline.max(before + Duration::from_secs(1));
            }
            last.push_back(deadline);
            self.insert(lease.id, lease.ttl_seconds, deadline, lease.remaining_seconds != 0);
        }
        self.gone = HashSet::new();
        self.is_loaded = true;
    }

    pub(super) fn renew(&mut self, id: LeaseId, now: Instant) -> Renewal {
        match self.leases.get_mut(&id) {
            Some(entry) if entry.is_expiring || entry.deadline <= now => Renewal::Expiring,
            Some(entry) => {
                entry.deadline = now + seconds(entry.ttl_seconds);
                let was_noted = std::mem::replace(&mut entry.is_noted, false);
                Renewal::Renewed { ttl_seconds: entry.ttl_seconds, was_noted }
            }
            None if self.is_loaded || self.gone.contains(&id) => Renewal::Unknown,
            None => Renewal::Loading,
        }
    }

    /// The row still says that less is left than the whole time.
    pub(super) fn still_noted(&mut self, id: LeaseId) {
        if let Some(entry) = self.leases.get_mut(&id) {
            entry.is_noted = true;
        }
    }

    pub(super) fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    /// Seconds granted, and seconds left in whole.
    pub(super) fn left(&self, id: LeaseId, now: Instant) -> Option<(i64, i64)> {
        let entry = self.leases.get(&id)?;
        let left = entry.deadline.saturating_duration_since(now).as_secs();
        Some((entry.ttl_seconds, i64::try_from(left).unwrap_or(i64::MAX)))
    }

    pub(super) fn count(&self) -> usize {
        self.leases.len()
    }

    /// By the time that they have left, the shortest first.
    pub(super) fn all(&self) -> Vec<LeaseId> {
        let mut all: Vec<(Instant, LeaseId)> =
            self.leases.iter().map(|(id, entry)| (entry.deadline, *id)).collect();
        all.sort();
        all.into_iter().map(|(_, id)| id).collect()
    }

    /// At most `max` leases whose time is over; from now on they are expiring.
    pub(super) fn due(&mut self, now: Instant, max: usize) -> Vec<LeaseId> {
        let mut due = Vec::new();
        while due.len() < max
            && let Some(&Reverse((at, id))) = self.queue.peek()
            && at <= now
        {
            self.queue.pop();
            let Some(entry) = self.leases.get_mut(&id) else { continue };
            if entry.is_expiring || entry.deadline <= now {
                entry.is_expiring = true;
                due.push(id);
            } else {
                self.queue.push(Reverse((entry.deadline, id)));
            }
        }
        due
    }

    /// Its expiry was not decided: it comes up again at `at`.
    pub(super) fn retry(&mut self, id: LeaseId, at: Instant) {
        if self.leases.contains_key(&id) {
            self.queue.push(Reverse((at, id)));
        }
    }

    /// When [`Self::due`] may have something at the earliest.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse((at, _))| *at)
    }

    /// What the long leases have left, for their rows.
    pub(super) fn note(&mut self, now: Instant) -> Vec<(LeaseId, i64)> {
        let mut noted = Vec::new();
        for (id, entry) in &mut self.leases {
            let left = entry.deadline.saturating_duration_since(now).as_secs();
            let left = i64::try_from(left).unwrap_or(i64::MAX);
            if seconds(entry.ttl_seconds) >= NOTED_FROM
                && !entry.is_expiring
                && left > 0
                && left < entry.ttl_seconds
            {
                entry.is_noted = true;
                noted.push((*id, left));
            }
        }
        noted.sort();
        noted
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use revfs_store::types::{Lease, LeaseId};

    use super::{Deadlines, LOADED_PER_SECOND, Renewal};

    const SECOND: Duration = Duration::from_secs(1);

    fn lease(id: i64, ttl_seconds: i64, remaining_seconds: i64) -> Lease {
        Lease { id: LeaseId(id), ttl_seconds, remaining_seconds }
    }

    fn loaded() -> (Deadlines, Instant) {
        let (mut deadlines, now) = (Deadlines::new(1), Instant::now());
        deadlines.load(Vec::new(), now, SECOND);
        (deadlines, now)
    }

    fn renewed(ttl_seconds: i64) -> Renewal {
        Renewal::Renewed { ttl_seconds, was_noted: false }
    }

    #[test]
    fn a_lease_lives_as_long_as_it_is_renewed() {
        let (mut deadlines, now) = loaded();
        deadlines.granted(LeaseId(1), 5, now);
        deadlines.granted(LeaseId(2), 5, now);
        assert_eq!(deadlines.next_due(), Some(now + 5 * SECOND));
        assert_eq!(deadlines.renew(LeaseId(1), now + 4 * SECOND), renewed(5));
        assert_eq!(deadlines.left(LeaseId(1), now + 6 * SECOND), Some((5, 3)));
        assert_eq!(deadlines.due(now + 4 * SECOND, 9), []);
        assert_eq!(deadlines.due(now + 5 * SECOND, 9), [LeaseId(2)]);
        assert_eq!(deadlines.all(), [LeaseId(2), LeaseId(1)]);
        // It is being revoked: too late, and not proposed twice.
        assert_eq!(deadlines.renew(LeaseId(2), now + 5 * SECOND), Renewal::Expiring);
        assert_eq!(deadlines.due(now + 6 * SECOND, 9), []);
        assert!(deadlines.gone(LeaseId(2)));
        assert_eq!(deadlines.renew(LeaseId(2), now + 6 * SECOND), Renewal::Unknown);
        assert_eq!(deadlines.due(now + 9 * SECOND, 9), [LeaseId(1)]);
        deadlines.retry(LeaseId(1), now + 12 * SECOND);
        assert_eq!(deadlines.due(now + 11 * SECOND, 9), []);
        assert_eq!(deadlines.due(now + 12 * SECOND, 9), [LeaseId(1)]);
    }

    #[test]
    fn a_lease_past_its_deadline_is_not_renewed_though_nobody_has_noticed_yet() {
        let (mut deadlines, now) = loaded();
        deadlines.granted(LeaseId(1), 5, now);
        assert_eq!(deadlines.renew(LeaseId(1), now + 5 * SECOND), Renewal::Expiring);
    }

    #[test]
    fn a_new_leader_gives_what_is_left_and_a_while_more() {
        let (mut deadlines, now) = (Deadlines::new(2), Instant::now());
        deadlines.granted(LeaseId(3), 7, now);
        assert!(!deadlines.gone(LeaseId(4)), "nobody waits for what is not known yet");
        assert_eq!(deadlines.renew(LeaseId(1), now), Renewal::Loading);
        assert_eq!(deadlines.renew(LeaseId(4), now), Renewal::Unknown);
        let rows = [lease(1, 60, 0), lease(2, 600, 100), lease(3, 7, 0), lease(4, 9, 0)];
        deadlines.load(rows.to_vec(), now + SECOND, SECOND);
        assert_eq!(deadlines.left(LeaseId(1), now), Some((60, 62)));
        assert_eq!(deadlines.left(LeaseId(2), now), Some((600, 102)));
        assert_eq!(deadlines.left(LeaseId(3), now), Some((7, 7)));
        assert_eq!(deadlines.left(LeaseId(4), now), None, "it was revoked while they were read");
        let first = deadlines.renew(LeaseId(2), now);
        assert_eq!(first, Renewal::Renewed { ttl_seconds: 600, was_noted: true });
        assert_eq!(deadlines.renew(LeaseId(2), now), renewed(600));
    }

    #[test]
    fn what_is_loaded_does_not_come_due_all_at_once() {
        let (mut deadlines, now) = (Deadlines::new(2), Instant::now());
        let count = i64::try_from(3 * LOADED_PER_SECOND).unwrap();
        deadlines.load((1..=count).map(|id| lease(id, 2, 0)).collect(), now, SECOND);
        for second in 3..6 {
            let due = deadlines.due(now + second * SECOND, usize::MAX);
            assert_eq!(due.len(), LOADED_PER_SECOND, "after {second} s");
        }
        assert_eq!(deadlines.next_due(), None);
    }

    #[test]
    fn checkpoints_note_long_leases_that_have_aged() {
        let (mut deadlines, now) = loaded();
        deadlines.granted(LeaseId(1), 60, now);
        deadlines.granted(LeaseId(2), 3_600, now);
        assert_eq!(deadlines.note(now), []);
        assert_eq!(deadlines.note(now + 50 * SECOND), [(LeaseId(2), 3_550)]);
        let renewed = deadlines.renew(LeaseId(2), now + 51 * SECOND);
        assert_eq!(renewed, Renewal::Renewed { ttl_seconds: 3_600, was_noted: true });
        deadlines.still_noted(LeaseId(2));
        let renewed = deadlines.renew(LeaseId(2), now + 51 * SECOND);
        assert_eq!(renewed, Renewal::Renewed { ttl_seconds: 3_600, was_noted: true });
    }
}
