//! The clients of a simulation: they write, swap and read a few registers, through any member, and note what
//! they were told.
//!
//! Each change also appends a word of its own to one key: in the end that key says what was applied, and how
//! often.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::type_config::TypeConfigExt;
use revfs_store::types::{
    Author, Compare, CompareResult, CompareTarget, KeyRange, Op, Revision, Time, Txn,
};
use revfs_store::{Body, Command, Done, Outcome};

use super::super::core::{ReadIndexError, WriteError};
use super::super::type_config::TypeConfig;
use super::executor;
use super::history::Action;
use super::member::ask;
use super::network::{below, below_time};
use super::world::World;

/// The key of the words.
pub(super) const WORDS: &[u8] = b"words";

const REGISTERS: u64 = 3;

/// A change without an answer for so long is given up: its outcome is unknown.
const PATIENCE: Duration = Duration::from_secs(3);

/// How a change ended, as its client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// It was applied, or compared false.
    Applied {
        swapped: bool,
    },
    /// It did not happen.
    Refused,
    Unknown,
}

/// What became of each word.
#[derive(Default)]
pub(super) struct Ledger {
    told: BTreeMap<u64, Told>,
}

impl Ledger {
    /// What contradicts what clients were told, in what a member holds.
    pub(super) fn wrong_in(&self, text: &str) -> Option<String> {
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        for word in text.split_terminator(';') {
            let Ok(word) = word.parse() else { return Some(format!("{word} is no word")) };
            *counts.entry(word).or_default() += 1;
        }
        self.told.iter().find_map(|(word, told)| {
            let count = counts.get(word).copied().unwrap_or_default();
            let is_right = match told {
                Told::Applied { swapped } => count == usize::from(*swapped),
                Told::Refused => count == 0,
                Told::Unknown => count <= 1,
            };
            (!is_right).then(|| format!("change {word} is there {count} times, but was {told:?}"))
        })
    }

    fn note(&mut self, word: u64, told: Told) {
        self.told.insert(word, told);
    }
}

fn key(register: usize) -> Bytes {
    Bytes::from(format!("register-{register}"))
}

fn command(register: usize, value: u64, expected: Option<Option<u64>>) -> Bytes {
    let range = KeyRange::Key(key(register));
    let compares = expected.map(|expected| {
        let (target, result) = match expected {
            None => (CompareTarget::Version(0), CompareResult::Equal),
            Some(value) => (CompareTarget::Value(value.to_string().into()), CompareResult::Equal),
        };
        Compare { range, target, result }
    });
    let word = Bytes::from(format!("{value};"));
    let success = vec![
        Op::put(key(register), value.to_string()),
        Op::Append { key: Bytes::from_static(WORDS), value: word },
    ];
    let txn = Txn { compares: compares.into_iter().collect(), success, failure: Vec::new() };
    let now = executor::here().now().as_nanos();
    let time = Time(i64::try_from(now).expect("runs are short"));
    let (author, note) = (Author::default(), Bytes::new());
    let command = Command { time, author, note, body: Body::Txn(txn) };
    command.encode().expect("it is small")
}

fn told(answer: Option<Result<Outcome, WriteError>>) -> (Told, Option<u64>) {
    match answer {
        Some(Ok(Outcome { result: Ok(Done::Txn(answer)), .. })) => {
            (Told::Applied { swapped: answer.succeeded }, None)
        }
        Some(Ok(outcome)) => panic!("the store refuses what is sound: {outcome:?}"),
        Some(Err(WriteError::NotLeader { leader })) => (Told::Refused, leader),
        Some(Err(WriteError::Unknown { .. })) | None => (Told::Unknown, None),
    }
}

/// One client.
pub(super) struct Client {
    number: u32,
    world: Arc<World>,
    /// Whom it asks next.
    asks: usize,
    /// What it believes the registers to hold.
    believed: BTreeMap<usize, u64>,
    changes: u64,
}

impl Client {
    pub(super) fn new(number: u32, world: Arc<World>) -> Self {
        Self { number, world, asks: 0, believed: BTreeMap::new(), changes: 0 }
    }

    /// Goes on until `until`.
    pub(super) async fn run(mut self, until: Duration) {
        while executor::here().now() < until {
            let register = usize::try_from(below(REGISTERS)).expect("a few");
            match below(3) {
                0 => self.read(register).await,
                1 => self.change(register, false).await,
                _ => self.change(register, true).await,
            }
            TypeConfig::sleep(below_time(Duration::from_millis(120))).await;
        }
    }

    fn any(&self) -> usize {
        let count = u64::try_from(self.world.ids.len()).expect("a few");
        usize::try_from(below(count)).expect("a few")
    }

    fn turn_to(&mut self, leader: Option<u64>) {
        let known = leader.and_then(|id| self.world.ids.iter().position(|known| *known == id));
        self.asks = known.unwrap_or_else(|| self.any());
    }

    async fn change(&mut self, register: usize, is_swap: bool) {
        self.changes += 1;
        let value = u64::from(self.number) * 1_000_000 + self.changes;
        let believed = self.believed.get(&register).copied();
        let expected = is_swap.then_some(believed);
        let (world, asks) = (Arc::clone(&self.world), self.asks);
        let from = world.history.now();
        let answer = match world.network.running(world.ids[asks]) {
            None => Some(Err(WriteError::NotLeader { leader: None })),
            Some(member) => {
                let command = command(register, value, expected);
                ask(member, PATIENCE, |raft| async move { raft.propose(command).await }).await
            }
        };
        let (told, leader) = told(answer);
        let said = format!("client {} {expected:?} -> {value} in {register}", self.number);
        world.say(&format!("{said} on m{asks}: {told:?}"));
        world.ledger.lock().note(value, told);
        let swapped = match told {
            Told::Refused => return self.turn_to(leader),
            Told::Applied { swapped } => Some(swapped),
            Told::Unknown => None,
        };
        if swapped == Some(true) {
            self.believed.insert(register, value);
        }
        let action = match expected {
            None => Action::Write { value },
            Some(expected) => Action::Swap { expected, value, swapped },
        };
        world.history.note(self.number, register, action, from, swapped.is_some());
        if swapped.is_none() {
            self.turn_to(None);
        }
    }

    /// Asks the leader for an index, and any member for what it holds once it has applied that.
    async fn read(&mut self, register: usize) {
        let world = Arc::clone(&self.world);
        let from = world.history.now();
        let Some(leader) = world.network.running(world.ids[self.asks]) else {
            return self.turn_to(None);
        };
        let index = ask(leader, PATIENCE, |raft| async move { raft.read_index().await }).await;
        let index = match index {
            Some(Ok(id)) => id.index,
            Some(Err(ReadIndexError::NotLeader { leader })) => return self.turn_to(leader),
            Some(Err(ReadIndexError::NotConfirmed { .. })) | None => return self.turn_to(None),
        };
        let place = self.any();
        let Some(reader) = world.network.running(world.ids[place]) else { return };
        let read = ask(reader, PATIENCE, |raft| async move {
            if !raft.is_applied(index, PATIENCE).await {
                return None;
            }
            let view = raft.snapshots.store.read_view().ok()?;
            view.get(Revision::NONE, &key(register), false).ok()
        });
        let Some(Some(found)) = read.await else { return };
        let seen = found.map(|kv| {
            let text = String::from_utf8(kv.value.to_vec()).expect("values are text");
            text.parse::<u64>().expect("values are numbers")
        });
        world.say(&format!("client {} reads {seen:?} in {register} on m{place}", self.number));
        match seen {
            Some(value) => drop(self.believed.insert(register, value)),
            None => drop(self.believed.remove(&register)),
        }
        world.history.note(self.number, register, Action::Read { seen }, from, true);
    }
}
