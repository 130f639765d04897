//! One transaction, applied to a copy of the keys that it touches. What was [`Before`] it may be a
//! [`State`] or what somebody else has found out about one.
//!
//! - All compares, those of nested transactions included, look at the state before the transaction.
//! - Then the operations of the branches chosen run in order, each seeing what those before it did.
//! - No key is written twice, so each has one new version; the form is refused if its ranges alone
//!   would allow it ([`check_duplicates`]).
//! - A refusal leaves nothing behind.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use revfs_api::keyspace::{
    Compare, CompareResult, CompareTarget, Error, KEY_BYTES_MAX, KeyRange, KeyValue, LeaseId, Op,
    OpAnswer, Result, Revision, Time, Txn, TxnAnswer, VALUE_BYTES_MAX, escaped_bytes,
};

use super::state::{Arrivals, Changes, State, range_answer};

/// What a transaction has to know of the state before it: of the keys that it reads and writes.
pub(crate) trait Before {
    fn current(&self) -> Revision;

    /// Time of the next revision, by this clock.
    fn next_time(&self, clock: Time) -> Time;

    fn has_lease(&self, lease: LeaseId) -> bool;

    fn get(&self, key: &[u8]) -> Option<&KeyValue>;

    /// In order.
    fn range<'a>(&'a self, range: &'a KeyRange) -> Box<dyn Iterator<Item = &'a KeyValue> + 'a>;

    /// The keys of `range` as they were at `revision`.
    fn then(&self, range: &KeyRange, revision: Revision) -> Result<Vec<KeyValue>>;
}

impl Before for State {
    fn current(&self) -> Revision {
        Self::current(self)
    }

    fn next_time(&self, clock: Time) -> Time {
        Self::next_time(self, clock)
    }

    fn has_lease(&self, lease: LeaseId) -> bool {
        self.lease(lease).is_some()
    }

    fn get(&self, key: &[u8]) -> Option<&KeyValue> {
        Self::get(self, key, Self::current(self))
    }

    fn range<'a>(&'a self, range: &'a KeyRange) -> Box<dyn Iterator<Item = &'a KeyValue> + 'a> {
        Box::new(Self::range(self, range, Self::current(self)))
    }

    fn then(&self, range: &KeyRange, revision: Revision) -> Result<Vec<KeyValue>> {
        let then = self.check_revision(revision)?;
        Ok(Self::range(self, range, then).cloned().collect())
    }
}

pub(crate) struct Transaction<'a> {
    before: &'a dyn Before,
    /// What this transaction will be if it changes anything.
    revision: Revision,
    time: Time,
    touched: BTreeMap<Bytes, Touched>,
    arrivals: Arrivals,
    /// Each key that was moved to, with the one that it came from.
    moves: BTreeMap<Bytes, Bytes>,
    rows_max: usize,
}

/// A key that the transaction changed.
struct Touched {
    /// Its place among the changes.
    place: usize,
    kv: Option<KeyValue>,
}

/// Which branch of a transaction runs, and of those nested in it.
struct Choice {
    succeeded: bool,
    nested: Vec<Choice>,
}

impl<'a> Transaction<'a> {
    /// Returns the answer and what is to be committed for it.
    pub(crate) fn run(
        before: &'a dyn Before,
        txn: &Txn,
        clock: Time,
        rows_max: usize,
    ) -> Result<(TxnAnswer, Changes)> {
        check_duplicates(&txn.success)?;
        check_duplicates(&txn.failure)?;
        let choice = choose(before, txn);
        let mut run = Self {
            before,
            revision: before.current().next(),
            time: before.next_time(clock),
            touched: BTreeMap::new(),
            arrivals: Arrivals::default(),
            moves: BTreeMap::new(),
            rows_max,
        };
        let answer = run.txn(txn, &choice)?;
        let mut touched: Vec<(Bytes, Touched)> = run.touched.into_iter().collect();
        touched.sort_by_key(|(_, touched)| touched.place);
        let keys = touched.into_iter().map(|(key, touched)| (key, touched.kv)).collect();
        Ok((answer, Changes { keys, arrivals: run.arrivals, moves: run.moves }))
    }

    fn txn(&mut self, txn: &Txn, choice: &Choice) -> Result<TxnAnswer> {
        let before = self.touched.len();
        let mut nested = choice.nested.iter();
        let ops = branch(txn, choice.succeeded).iter();
        let answers = ops.map(|op| self.op(op, &mut nested)).collect::<Result<_>>()?;
        let changed = self.touched.len() > before;
        let revision = if self.touched.is_empty() { self.before.current() } else { self.revision };
        Ok(TxnAnswer { succeeded: choice.succeeded, revision, changed, answers })
    }

    /// `nested` are the choices of the nested transactions not yet run.
    fn op<'c>(
        &mut self,
        op: &Op,
        nested: &mut impl Iterator<Item = &'c Choice>,
    ) -> Result<OpAnswer> {
        Ok(match op {
            Op::Put { key, value, lease, prev_kv, ignore_value, ignore_lease } => {
                let old = self.get(key).cloned();
                if old.is_none() && (*ignore_value || *ignore_lease) {
                    return Err(invalid("key not found"));
                }
                let kept = old.as_ref();
                let value = kept.filter(|_| *ignore_value).map_or(value, |old| &old.value).clone();
                let lease = kept.filter(|_| *ignore_lease).map_or(*lease, |old| old.lease);
                if !self.has_lease(lease) {
                    return Err(invalid("requested lease not found"));
                }
                self.put(key, value, lease)?;
                OpAnswer::Put { prev_kv: old.filter(|_| *prev_kv) }
            }
            Op::Append { key, value } => OpAnswer::Append { value_bytes: self.append(key, value)? },
            Op::Delete { range, prev_kv } => {
                let gone = self.live(range);
                for kv in &gone {
                    self.set(&kv.key, None)?;
                }
                let deleted = gone.len() as u64;
                OpAnswer::Delete { deleted, prev_kvs: if *prev_kv { gone } else { Vec::new() } }
            }
            Op::Range(read) => OpAnswer::Range(range_answer(self.live(&read.range).iter(), read)?),
            Op::Txn(inner) => {
                let choice = nested.next().expect("one choice for each nested transaction");
                OpAnswer::Txn(self.txn(inner, choice)?)
            }
            Op::Move { from, to } => OpAnswer::Move { moved: self.move_prefix(from, to)? },
            Op::MoveKey { from, to } => {
                let source = self.get(from).cloned().filter(|_| from != to);
                if let Some(source) = &source {
                    self.move_key(source, to)?;
                }
                OpAnswer::Move { moved: u64::from(source.is_some()) }
            }
            Op::Exchange { a, b } => OpAnswer::Move { moved: self.exchange(a, b)? },
            Op::Restore { range, revision } => self.restore(range, *revision)?,
        })
    }

    fn has_lease(&self, lease: LeaseId) -> bool {
        lease == LeaseId(0) || self.before.has_lease(lease)
    }

    fn append(&mut self, key: &Bytes, value: &Bytes) -> Result<u64> {
        let old = self.get(key).cloned().unwrap_or_default();
        let whole = Bytes::from([old.value.as_ref(), value.as_ref()].concat());
        let value_bytes = whole.len() as u64;
        self.put(key, whole, old.lease)?;
        Ok(value_bytes)
    }

    /// A new version of `key` with content of this revision.
    fn put(&mut self, key: &Bytes, value: Bytes, lease: LeaseId) -> Result<()> {
        let birth = self.get(key).map_or(self.revision, |old| old.birth_revision);
        let content = KeyValue {
            value,
            lease,
            content_revision: self.revision,
            content_time: self.time,
            birth_revision: birth,
            ..KeyValue::default()
        };
        let old = self.get(key).map(|old| (old.create_revision, old.version));
        self.store(key, content, old)
    }

    /// A new version of `key` with the value, lease, content and birth of `content`; it goes on with
    /// the life `old`, or begins one.
    fn store(
        &mut self,
        key: &Bytes,
        content: KeyValue,
        old: Option<(Revision, u64)>,
    ) -> Result<()> {
        check_key(key)?;
        if content.value.len() > VALUE_BYTES_MAX {
            return Err(Error::ValueTooLarge { bytes: content.value.len(), max: VALUE_BYTES_MAX });
        }
        let (create_revision, version) =
            old.map_or((self.revision, 1), |(create, version)| (create, version + 1));
        let kv = KeyValue {
            key: key.clone(),
            value_bytes: content.value.len() as u64,
            create_revision,
            mod_revision: self.revision,
            version,
            time: self.time,
            ..content
        };
        self.set(key, Some(kv))
    }

    fn move_prefix(&mut self, from: &Bytes, to: &Bytes) -> Result<u64> {
        if from.starts_with(to) || to.starts_with(from) {
            return Err(invalid("neither prefix of a move or exchange may begin with the other"));
        }
        let sources = self.live(&KeyRange::prefix(from));
        for source in &sources {
            self.arrivals.enter(&source.key, from, to);
            let target = [to.as_ref(), &source.key[from.len()..]].concat();
            self.move_key(source, &target.into())?;
        }
        Ok(sources.len() as u64)
    }

    fn move_key(&mut self, source: &KeyValue, to: &Bytes) -> Result<()> {
        // What was there ends, as the file that another is renamed over.
        self.store(to, source.clone(), None)?;
        self.moves.insert(to.clone(), source.key.clone());
        self.set(&source.key, None)
    }

    fn exchange(&mut self, a: &Bytes, b: &Bytes) -> Result<u64> {
        if a == b {
            return Ok(0);
        }
        let (of_a, of_b) = (self.live(&place(a)), self.live(&place(b)));
        for (from, to, sources, others) in [(a, b, &of_a, &of_b), (b, a, &of_b, &of_a)] {
            let others: BTreeSet<&[u8]> = others.iter().map(|kv| &kv.key[to.len()..]).collect();
            for source in sources {
                let rest = &source.key[from.len()..];
                if from.ends_with(b"/") {
                    self.arrivals.enter(&source.key, from, to);
                }
                let target: Bytes = [to.as_ref(), rest].concat().into();
                self.store(&target, source.clone(), None)?;
                self.moves.insert(target, source.key.clone());
                if !others.contains(rest) {
                    self.set(&source.key, None)?;
                }
            }
        }
        Ok((of_a.len() + of_b.len()) as u64)
    }

    fn restore(&mut self, range: &KeyRange, revision: Revision) -> Result<OpAnswer> {
        let then = self.before.then(range, revision)?;
        let mut now: BTreeMap<Bytes, KeyValue> =
            self.live(range).into_iter().map(|kv| (kv.key.clone(), kv)).collect();
        let mut put = 0;
        for old in then {
            let own = now.remove(&old.key);
            if !own.as_ref().is_some_and(|own| is_same_file(own, &old)) {
                let life = own.map(|own| (own.create_revision, own.version));
                let lease = Some(old.lease).filter(|&lease| self.has_lease(lease));
                let old = KeyValue { lease: lease.unwrap_or_default(), ..old };
                self.store(&old.key.clone(), old, life)?;
                put += 1;
            }
        }
        for key in now.keys() {
            self.set(key, None)?;
        }
        Ok(OpAnswer::Restore { put, deleted: now.len() as u64 })
    }

    fn set(&mut self, key: &Bytes, kv: Option<KeyValue>) -> Result<()> {
        let place = self.touched.len();
        if place == self.rows_max {
            return Err(Error::TooBig { unit: "keys", count: place + 1, max: self.rows_max });
        }
        let twice = self.touched.insert(key.clone(), Touched { place, kv });
        assert!(twice.is_none(), "check_duplicates refused what writes a key twice");
        Ok(())
    }

    fn get(&self, key: &Bytes) -> Option<&KeyValue> {
        match self.touched.get(key) {
            Some(touched) => touched.kv.as_ref(),
            None => self.before.get(key),
        }
    }

    /// The keys of `range` as they are now, in order.
    fn live(&self, range: &KeyRange) -> Vec<KeyValue> {
        let before = self.before.range(range);
        let mut kvs: BTreeMap<&Bytes, Option<&KeyValue>> =
            before.map(|kv| (&kv.key, Some(kv))).collect();
        let touched = self.touched.iter().filter(|(key, _)| range.contains(key));
        kvs.extend(touched.map(|(key, touched)| (key, touched.kv.as_ref())));
        kvs.into_values().flatten().cloned().collect()
    }
}

/// Whether what is there is what is to be restored, and not only equal bytes put at another time.
fn is_same_file(own: &KeyValue, wanted: &KeyValue) -> bool {
    own.content_revision == wanted.content_revision
        && own.birth_revision == wanted.birth_revision
        && own.lease == wanted.lease
        && own.value == wanted.value
}

fn branch(txn: &Txn, succeeded: bool) -> &[Op] {
    if succeeded { &txn.success } else { &txn.failure }
}

fn choose(before: &dyn Before, txn: &Txn) -> Choice {
    let succeeded = txn.compares.iter().all(|compare| holds(before.range(&compare.range), compare));
    let nested = branch(txn, succeeded).iter().filter_map(|op| match op {
        Op::Txn(inner) => Some(choose(before, inner)),
        _ => None,
    });
    Choice { succeeded, nested: nested.collect() }
}

/// Whether a condition holds, given the keys that live in its range.
pub(crate) fn holds<'a>(kvs: impl Iterator<Item = &'a KeyValue>, compare: &Compare) -> bool {
    let mut kvs = kvs.peekable();
    if kvs.peek().is_none() {
        // A missing key has no value to compare, whatever the result asked for.
        return !matches!(compare.target, CompareTarget::Value(_))
            && holds_for(&KeyValue::default(), compare);
    }
    kvs.all(|kv| holds_for(kv, compare))
}

/// Whether a condition holds of one key.
pub(crate) fn holds_for(kv: &KeyValue, compare: &Compare) -> bool {
    let order = match &compare.target {
        CompareTarget::Version(version) => kv.version.cmp(version),
        CompareTarget::CreateRevision(revision) => kv.create_revision.cmp(revision),
        CompareTarget::ModRevision(revision) => kv.mod_revision.cmp(revision),
        CompareTarget::Value(value) => kv.value.cmp(value),
        CompareTarget::Lease(lease) => kv.lease.cmp(lease),
    };
    match compare.result {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Less => order.is_lt(),
        CompareResult::Greater => order.is_gt(),
    }
}

/// What a list of operations may write, whatever the state.
#[derive(Default)]
struct Writes {
    puts: Vec<KeyRange>,
    deletes: Vec<KeyRange>,
}

/// Refuses operations of which two may write one key: two puts (what arrives by a move or a restore is
/// put), or a put and a deletion; two deletions may overlap. The branches of one nested transaction
/// exclude each other and are compared only with what stands beside it.
fn check_duplicates(ops: &[Op]) -> Result<Writes> {
    let mut all = Writes::default();
    for op in ops {
        let own = writes(op)?;
        let meets = |others: &[KeyRange], range: &KeyRange| {
            others.iter().any(|other| overlap(other, range))
        };
        if own.puts.iter().any(|range| meets(&all.puts, range) || meets(&all.deletes, range))
            || own.deletes.iter().any(|range| meets(&all.puts, range))
        {
            return Err(invalid("duplicate key given in txn request"));
        }
        all.puts.extend(own.puts);
        all.deletes.extend(own.deletes);
    }
    Ok(all)
}

fn writes(op: &Op) -> Result<Writes> {
    let key = |key: &Bytes| vec![KeyRange::Key(key.clone())];
    Ok(match op {
        Op::Put { key: own, .. } | Op::Append { key: own, .. } => {
            Writes { puts: key(own), deletes: Vec::new() }
        }
        Op::Delete { range, .. } => Writes { puts: Vec::new(), deletes: vec![range.clone()] },
        Op::Range(_) => Writes::default(),
        Op::Txn(txn) => {
            let mut both = check_duplicates(&txn.success)?;
            let failure = check_duplicates(&txn.failure)?;
            both.puts.extend(failure.puts);
            both.deletes.extend(failure.deletes);
            both
        }
        Op::Move { from, to } => {
            Writes { puts: vec![KeyRange::prefix(to)], deletes: vec![KeyRange::prefix(from)] }
        }
        Op::MoveKey { from, to } if from == to => Writes::default(),
        Op::MoveKey { from, to } => Writes { puts: key(to), deletes: key(from) },
        Op::Exchange { a, b } => {
            check_exchange(a, b)?;
            let puts = if a == b { Vec::new() } else { vec![place(a), place(b)] };
            Writes { puts, deletes: Vec::new() }
        }
        Op::Restore { range, .. } => Writes { puts: vec![range.clone()], deletes: Vec::new() },
    })
}

/// One side of an exchange.
fn place(side: &Bytes) -> KeyRange {
    if side.ends_with(b"/") { KeyRange::prefix(side) } else { KeyRange::Key(side.clone()) }
}

fn check_exchange(a: &[u8], b: &[u8]) -> Result<()> {
    match (a.ends_with(b"/"), b.ends_with(b"/")) {
        (true, true) if a.starts_with(b) || b.starts_with(a) => {
            Err(invalid("neither prefix of a move or exchange may begin with the other"))
        }
        (true, true) => Ok(()),
        (false, false) => check_key(a).and_then(|()| check_key(b)),
        _ => Err(invalid("an exchange is of two keys, or of two prefixes that end in /")),
    }
}

fn overlap(one: &KeyRange, other: &KeyRange) -> bool {
    // Where they do, the greater of the starts lies in both.
    let start = one.start().max(other.start());
    one.contains(start) && other.contains(start)
}

fn check_key(key: &[u8]) -> Result<()> {
    if key.is_empty() {
        return Err(invalid("key is not provided"));
    }
    let bytes = escaped_bytes(key);
    if bytes > KEY_BYTES_MAX {
        return Err(Error::KeyTooLong { bytes });
    }
    Ok(())
}

fn invalid(reason: &str) -> Error {
    Error::Invalid(reason.to_owned())
}
