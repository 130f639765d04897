//! What concurrent clients did to a few registers, and whether some order of it explains what they saw.
//!
//! A register is a key with a number, and each number is written once. A read without an answer says nothing
//! and is left out. A write without an answer may have happened at any time after it was sent, or never:
//! one whose number was seen had happened by then; of the others it is only known that they can have put
//! something into the register that nobody expected, so that they need not be told from each other.
//! Without that, the orders to be tried double with each of them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use porcupine_rs::{CheckResult, Model, Operation, check_operations_timeout};

/// Above this the order is not searched for any longer.
const CHECK_LIMIT: Duration = Duration::from_secs(120);

/// One thing that a client did, and what it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Read {
        seen: Option<u64>,
    },
    Write {
        value: u64,
    },
    /// Writes if the register holds what is expected; `swapped` is `None` where no answer came.
    Swap {
        expected: Option<u64>,
        value: u64,
        swapped: Option<bool>,
    },
}

/// What a register holds after a write that nobody saw.
const UNSEEN: u64 = u64::MAX;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Read {
        seen: Option<u64>,
    },
    Write {
        value: u64,
    },
    Swap {
        expected: Option<u64>,
        value: u64,
        swapped: bool,
    },
    /// Without an answer and never seen. They are as good as each other, so they happen in order.
    UnseenWrite {
        rank: usize,
    },
    UnseenSwap {
        expected: Option<u64>,
    },
    /// After all that was answered: what has not happened by now need not.
    End,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Held {
    value: Option<u64>,
    unseen_writes: usize,
    ended: bool,
}

#[derive(Clone, Debug)]
struct Register;

impl Model for Register {
    type State = Held;
    type Op = (usize, Step);
    type Metadata = ();

    fn partition_operations(history: &[Operation<Self>]) -> Vec<Vec<Operation<Self>>> {
        let mut registers: BTreeMap<usize, Vec<Operation<Self>>> = BTreeMap::new();
        for operation in history {
            registers.entry(operation.op.0).or_default().push(operation.clone());
        }
        registers.into_values().collect()
    }

    fn init() -> Self::State {
        Held::default()
    }

    fn step(held: &Self::State, (_, step): &Self::Op) -> (bool, Self::State) {
        let with = |value: Option<u64>| Held { value, ..held.clone() };
        match *step {
            Step::Read { seen } => (seen == held.value, held.clone()),
            Step::Write { value } => (true, with(Some(value))),
            Step::Swap { expected, value, swapped } => {
                let matches = expected == held.value;
                let after = if matches { Some(value) } else { held.value };
                (swapped == matches, with(after))
            }
            Step::End => (true, Held { ended: true, ..held.clone() }),
            Step::UnseenWrite { .. } | Step::UnseenSwap { .. } if held.ended => {
                (true, held.clone())
            }
            Step::UnseenWrite { rank } => {
                let after = Held { unseen_writes: rank + 1, ..with(Some(UNSEEN)) };
                (rank == held.unseen_writes, after)
            }
            Step::UnseenSwap { expected } => (expected == held.value, with(Some(UNSEEN))),
        }
    }
}

#[derive(Clone, Debug)]
struct Noted {
    client: u32,
    register: usize,
    action: Action,
    from: i64,
    /// `None` without an answer.
    until: Option<i64>,
}

impl Noted {
    fn writes(&self) -> Option<u64> {
        match self.action {
            Action::Read { .. } => None,
            Action::Write { value } | Action::Swap { value, .. } => Some(value),
        }
    }

    /// The number that this shows to have been there.
    fn shows(&self) -> Option<u64> {
        match self.action {
            Action::Read { seen } => seen,
            Action::Swap { expected, swapped: Some(true), .. } => expected,
            Action::Write { .. } | Action::Swap { .. } => None,
        }
    }
}

/// Gives each unanswered write whose number was seen the end that it had by then.
fn end_what_was_seen(noted: &mut [Noted]) {
    loop {
        let mut seen: BTreeMap<(usize, u64), i64> = BTreeMap::new();
        for operation in &*noted {
            if let (Some(value), Some(until)) = (operation.shows(), operation.until) {
                let first = seen.entry((operation.register, value)).or_insert(until);
                *first = until.min(*first);
            }
        }
        let mut ended = false;
        for operation in noted.iter_mut().filter(|operation| operation.until.is_none()) {
            let value = operation.writes().map(|value| (operation.register, value));
            if let Some(&until) = value.and_then(|value| seen.get(&value)) {
                operation.until = Some(until);
                if let Action::Swap { swapped, .. } = &mut operation.action {
                    *swapped = Some(true);
                }
                ended = true;
            }
        }
        // What a swap expected that turns out to have happened was there as well.
        if !ended {
            return;
        }
    }
}

fn operations(mut noted: Vec<Noted>) -> Vec<Operation<Register>> {
    end_what_was_seen(&mut noted);
    noted.sort_by_key(|operation| operation.from);
    let mut unseen_writes: BTreeMap<usize, usize> = BTreeMap::new();
    let mut ends: BTreeMap<usize, i64> = BTreeMap::new();
    let mut operations = Vec::new();
    for Noted { client, register, action, from, until } in noted {
        let end = ends.entry(register).or_insert(from);
        *end = until.unwrap_or(from).max(*end);
        let step = match action {
            Action::Read { seen } => Step::Read { seen },
            Action::Write { value } if until.is_some() => Step::Write { value },
            Action::Write { .. } => {
                let rank = unseen_writes.entry(register).or_default();
                *rank += 1;
                Step::UnseenWrite { rank: *rank - 1 }
            }
            Action::Swap { expected, value, swapped: Some(swapped) } => {
                Step::Swap { expected, value, swapped }
            }
            Action::Swap { expected, swapped: None, .. } => Step::UnseenSwap { expected },
        };
        operations.push(operation(Some(client), register, step, from, until.unwrap_or(i64::MAX)));
    }
    let end = |(register, last)| operation(None, register, Step::End, last + 1, i64::MAX);
    operations.extend(ends.into_iter().map(end));
    operations
}

fn operation(
    client_id: Option<u32>,
    register: usize,
    step: Step,
    call_time: i64,
    return_time: i64,
) -> Operation<Register> {
    Operation { client_id, call_time, return_time, op: (register, step), metadata: None }
}

/// What has been recorded so far.
pub struct History {
    /// How many moments there were.
    moments: AtomicI64,
    noted: Mutex<Vec<Noted>>,
}

impl Default for History {
    fn default() -> Self {
        Self { moments: AtomicI64::new(0), noted: Mutex::default() }
    }
}

/// A moment of a history.
#[derive(Clone, Copy, Debug)]
pub struct Moment(i64);

impl History {
    #[must_use]
    pub fn now(&self) -> Moment {
        Moment(self.moments.fetch_add(1, Ordering::SeqCst))
    }

    /// Notes what a client began at `from` and has just ended; with `is_answered` false it has no end.
    ///
    /// # Panics
    /// If another client panicked.
    pub fn note(
        &self,
        client: u32,
        register: usize,
        action: Action,
        from: Moment,
        is_answered: bool,
    ) {
        let until = is_answered.then(|| self.now().0);
        let noted = Noted { client, register, action, from: from.0, until };
        self.noted.lock().expect("no client panics").push(noted);
    }

    /// How many operations have an answer.
    ///
    /// # Panics
    /// If a client panicked.
    #[must_use]
    pub fn answered(&self) -> usize {
        let noted = self.noted.lock().expect("no client panics");
        noted.iter().filter(|operation| operation.until.is_some()).count()
    }

    /// Whether all of it can have happened one after the other; `None` if that was not found out in time.
    ///
    /// # Panics
    /// If a client panicked.
    #[must_use]
    pub fn is_linearizable(&self) -> Option<bool> {
        let operations = operations(self.noted.lock().expect("no client panics").clone());
        // Seen before it was sent.
        if operations.iter().any(|operation| operation.return_time < operation.call_time) {
            return Some(false);
        }
        match check_operations_timeout(&operations, CHECK_LIMIT) {
            CheckResult::Ok => Some(true),
            CheckResult::Illegal => Some(false),
            CheckResult::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, History};

    /// Actions of one client after each other.
    fn check(actions: &[(Action, bool)]) -> Option<bool> {
        let history = History::default();
        for (action, is_answered) in actions {
            history.note(0, 0, action.clone(), history.now(), *is_answered);
        }
        history.is_linearizable()
    }

    const ONE: Action = Action::Write { value: 1 };
    const TWO: Action = Action::Write { value: 2 };

    fn read(seen: u64) -> (Action, bool) {
        (Action::Read { seen: Some(seen) }, true)
    }

    #[test]
    fn a_stale_read_a_lost_write_and_a_doubled_one_are_found() {
        assert_eq!(check(&[(ONE, true), (TWO, true), read(2)]), Some(true));
        assert_eq!(check(&[(ONE, true), (TWO, true), read(1)]), Some(false), "stale");
        assert_eq!(check(&[(ONE, true), (Action::Read { seen: None }, true)]), Some(false), "lost");
        assert_eq!(check(&[(ONE, false), read(1), (TWO, true), read(2), read(1)]), Some(false));
    }

    #[test]
    fn what_has_no_answer_may_have_happened_or_not() {
        assert_eq!(check(&[(ONE, true), (TWO, false), read(1)]), Some(true));
        assert_eq!(check(&[(ONE, true), (TWO, false), read(2)]), Some(true));
        assert_eq!(check(&[(ONE, true), (TWO, false), read(2), read(1)]), Some(false));
        let swap = |swapped| Action::Swap { expected: Some(1), value: 3, swapped };
        assert_eq!(check(&[(ONE, true), (swap(None), false), read(3)]), Some(true));
        assert_eq!(check(&[(ONE, true), (swap(Some(true)), true), read(1)]), Some(false));
        assert_eq!(check(&[(TWO, true), (swap(Some(true)), true)]), Some(false));
        let failed = (swap(Some(false)), true);
        assert_eq!(check(&[(ONE, true), failed.clone()]), Some(false));
        assert_eq!(check(&[(ONE, true), (TWO, false), failed.clone()]), Some(true));
        assert_eq!(check(&[(ONE, true), failed.clone(), (TWO, false)]), Some(false));
        assert_eq!(check(&[(ONE, true), (TWO, false), failed.clone(), read(1)]), Some(false));
        assert_eq!(check(&[(ONE, false), (swap(None), false), read(3), read(1)]), Some(false));
        assert_eq!(check(&[read(1), (ONE, true)]), Some(false), "before it was sent");
    }

    #[test]
    fn many_writes_without_an_answer_are_no_burden() {
        let writes = (1..100).map(|value| (Action::Write { value }, false));
        let swap =
            |value| Action::Swap { expected: Some(value), value: value + 1_000, swapped: None };
        let swaps = (1..50).map(|value| (swap(value), false));
        let reads = [read(7), read(9), (Action::Write { value: 500 }, true), read(500)];
        let good: Vec<_> = writes.chain(swaps).chain(reads.clone()).collect();
        assert_eq!(check(&good), Some(true));
        let bad: Vec<_> = good.into_iter().chain([read(7)]).collect();
        assert_eq!(check(&bad), Some(false));
    }
}
