//! Keys, values and log entries to fill a store with, the same in every run.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use revfs_store::types::{Author, LeaseId, Op, Revision, Time, Txn};
use revfs_store::{Body, Command, Done, Position, Store, StoreOptions};

use crate::Outcome;

pub(crate) const KEY_BYTES: usize = 32;
pub(crate) const VALUE_BYTES: usize = 256;
pub(crate) const ENTRY_PUTS: usize = 100;

/// The directory that the keys of most figures lie in.
pub(crate) const DIRECTORY: &[u8] = b"/bench/";

/// The key of a number: 32 bytes, in the order of the numbers.
pub(crate) fn key(number: usize) -> Bytes {
    let key = format!("/bench/{number:025}");
    debug_assert_eq!(key.len(), KEY_BYTES);
    key.into()
}

/// A generator of numbers (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("a size has 64 bits");
        usize::try_from(self.next() % bound).expect("smaller than a size")
    }

    /// The numbers below `count` in random order.
    pub(crate) fn shuffled(&mut self, count: usize) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..count).collect();
        for at in (1..count).rev() {
            numbers.swap(at, self.below(at + 1));
        }
        numbers
    }
}

/// Values: windows of one block of random bytes.
pub(crate) struct Values(Bytes);

impl Values {
    pub(crate) fn new() -> Self {
        let mut random = Random(7);
        let block: Vec<u8> = (0..65_536).flat_map(|_| random.next().to_be_bytes()).collect();
        Self(block.into())
    }

    pub(crate) fn get(&self, number: usize, bytes: usize) -> Bytes {
        let at = number.wrapping_mul(97) % (self.0.len() - bytes);
        self.0.slice(at..at + bytes)
    }
}

pub(crate) fn author() -> Author {
    Author { principal: String::new(), claimed: "user@host".to_owned() }
}

pub(crate) const TIME: Time = Time(1_700_000_000_000_000_000);

pub(crate) fn command(body: Body) -> Command {
    Command { time: TIME, author: author(), note: Bytes::new(), body }
}

pub(crate) fn txn(success: Vec<Op>) -> Command {
    command(Body::Txn(Txn { success, ..Txn::default() }))
}

/// Entries of puts of these keys, `per_entry` in each.
pub(crate) fn puts(keys: &[usize], values: &Values, per_entry: usize) -> Vec<Command> {
    let put = |&number: &usize| Op::put(key(number), values.get(number, VALUE_BYTES));
    keys.chunks(per_entry).map(|chunk| txn(chunk.iter().map(put).collect())).collect()
}

/// A store and the place of its log.
pub(crate) struct Loaded {
    pub(crate) store: Arc<Store>,
    index: u64,
}

impl Loaded {
    pub(crate) fn create(dir: &Path, options: StoreOptions) -> Outcome<Self> {
        Ok(Self { store: Arc::new(Store::create(dir, options)?), index: 0 })
    }

    pub(crate) fn open(dir: &Path, options: StoreOptions) -> Outcome<Self> {
        let store = Arc::new(Store::open(dir, options)?);
        let index = store.applied().index;
        Ok(Self { store, index })
    }

    /// Applies a command that must not be refused; returns the revision after it.
    pub(crate) fn apply(&mut self, command: &Command) -> Outcome<Revision> {
        self.index += 1;
        let position = Position { index: self.index, ..Position::default() };
        let outcome = self.store.apply(position, command)?;
        drop::<Done>(outcome.result?);
        Ok(outcome.revision)
    }

    pub(crate) fn apply_all(&mut self, commands: &[Command]) -> Outcome<Revision> {
        let mut revision = Revision::NONE;
        for command in commands {
            revision = self.apply(command)?;
        }
        Ok(revision)
    }

    /// Puts the keys of a range of numbers in order, in large entries.
    pub(crate) fn fill(&mut self, numbers: std::ops::Range<usize>, values: &Values) -> Outcome<()> {
        let mut from = numbers.start;
        while from < numbers.end {
            let to = numbers.end.min(from + 1_000);
            let ops = (from..to).map(|n| Op::put(key(n), values.get(n, VALUE_BYTES))).collect();
            self.apply(&txn(ops))?;
            from = to;
        }
        Ok(())
    }

    /// As [`Loaded::fill`], with a lease for every `per_lease` keys.
    pub(crate) fn fill_leased(
        &mut self,
        numbers: std::ops::Range<usize>,
        per_lease: usize,
        values: &Values,
    ) -> Outcome<()> {
        for (at, from) in numbers.clone().step_by(per_lease).enumerate() {
            let lease = LeaseId(i64::try_from(at)? + 1);
            self.apply(&command(Body::LeaseGrant { id: lease, ttl_seconds: 3_600 }))?;
            let put = |n| Op::Put {
                key: key(n),
                value: values.get(n, VALUE_BYTES),
                lease,
                prev_kv: false,
                ignore_value: false,
                ignore_lease: false,
            };
            self.apply(&txn((from..numbers.end.min(from + per_lease)).map(put).collect()))?;
        }
        Ok(())
    }

    pub(crate) fn close(self) -> Outcome<()> {
        Ok(self.store.close()?)
    }
}
