//! A damaged file is an error or the right data: never other data, never a panic.

use std::path::Path;

use bytes::Bytes;
use revfs_store::types::{
    ChangesQuery, Event, KeyRange, KeyValue, ListQuery, Op, RangeQuery, Revision, Stamp, Time,
};
use revfs_store::{OpenError, Position, ReadView, Store, StoreOptions, check_file};
use tempfile::TempDir;

use crate::random::{Random, seed};

fn options(check_pages_max: usize) -> StoreOptions {
    let bounds = StoreOptions { check_whole_pages: 0, check_pages_max, ..StoreOptions::default() };
    StoreOptions { map_bytes: 1 << 30, ..bounds }
}

/// Where a meta page of LMDB says which transaction wrote it.
const TRANSACTION: std::ops::Range<usize> = 144..152;

/// Several levels of pages, values of a few bytes and of several pages, free pages, history; perhaps as it
/// was before the last commit.
fn sample(with_last: bool) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), options(0)).unwrap();
    let mut index = 0;
    let mut apply = |ops: Vec<Op>| {
        index += 1;
        let position = Position { index, term: 1, raft: Bytes::from_static(b"position") };
        let command = crate::scenario::command(ops, Time(i64::try_from(index).unwrap()));
        store.apply(position, &command).unwrap().result.unwrap();
        store.commit().unwrap();
    };
    for part in 0..6 {
        let key = |n: usize| format!("/dir{}/{}-{n:04}", n % 7, "long".repeat(40));
        apply((0..60).map(|n| Op::put(key(part * 60 + n), vec![b'v'; n * 5])).collect());
    }
    apply(vec![Op::put("/big", vec![b'B'; 30_000]), Op::put("/one", vec![b'1'; 5_000])]);
    apply(vec![Op::Delete { range: KeyRange::prefix(b"/dir3/"), prev_kv: false }]);
    if with_last {
        apply(vec![Op::put("/big", vec![b'C'; 20_000])]);
    }
    store.close().unwrap();
    dir
}

/// Everything that a store says.
#[derive(Debug, PartialEq)]
struct Everything {
    now: Vec<KeyValue>,
    before: Vec<KeyValue>,
    names: usize,
    events: Vec<Event>,
    history: Vec<(Event, Stamp)>,
}

fn everything(view: &ReadView) -> Result<Everything, revfs_store::ReadError> {
    let all = RangeQuery::new(KeyRange::From(Bytes::new()));
    let mut names = 0;
    for directory in ["", "/", "/dir0/", "/dir3/"] {
        let directory = Bytes::from_static(directory.as_bytes());
        let query = ListQuery { directory, after: Bytes::new(), limit: 0, with_values: true };
        names = names * 1000 + view.list(Revision::NONE, &query)?.entries.len();
    }
    let changes = view.changes(&ChangesQuery {
        ranges: vec![KeyRange::From(Bytes::new())],
        from: Revision(1),
        to: Revision::NONE,
        newest_first: false,
        limit: 0,
        scan_limit: 0,
        keys_only: false,
    })?;
    view.verify()?;
    Ok(Everything {
        now: view.range(Revision::NONE, &all)?.kvs,
        before: view.range(Revision(7), &all)?.kvs,
        names,
        events: changes.revisions.into_iter().flat_map(|revision| revision.events).collect(),
        history: view.history(b"/big", Revision::NONE, 0, false)?,
    })
}

struct Judge {
    expected: Everything,
    before_last: Everything,
    bytes: Vec<u8>,
    dir: TempDir,
    refused: usize,
    closed: usize,
    right: usize,
}

impl Judge {
    fn new() -> Self {
        let said = |dir: &TempDir| {
            let store = Store::open(dir.path(), options(usize::MAX)).unwrap();
            everything(&store.read_view().unwrap()).unwrap()
        };
        let source = sample(true);
        let (expected, before_last) = (said(&source), said(&sample(false)));
        assert!(expected.events.len() > 400 && expected.now.len() > 300);
        let bytes = std::fs::read(source.path().join("data.mdb")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        Self { expected, before_last, bytes, dir, refused: 0, closed: 0, right: 0 }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("data.mdb")
    }

    /// Opens and reads a store whose file is `damaged`.
    fn judge(&mut self, damaged: &[u8], check_pages_max: usize, what: &str) {
        std::fs::write(self.path(), damaged).unwrap();
        let store = match Store::open(self.dir.path(), options(check_pages_max)) {
            Ok(store) => store,
            Err(error) => {
                assert!(error.to_string().contains("data.mdb"), "{what}: {error}");
                self.refused += 1;
                return;
            }
        };
        match store.read_view().map_err(Into::into).and_then(|view| everything(&view)) {
            Ok(found) => {
                let is_right = found == self.expected || self.lacks_the_last(damaged, &found);
                assert!(is_right, "{what}: other data was read");
                self.right += 1;
            }
            Err(error) => {
                assert!(error.to_string().contains("closed"), "{what}: {error}");
                self.closed += 1;
            }
        }
    }
}

impl Judge {
    /// LMDB goes on with the transaction before if the newest says that it is an older one, as it does
    /// where the power went before that was written. Whoever has a log applies the rest again.
    fn lacks_the_last(&self, damaged: &[u8], found: &Everything) -> bool {
        let differs = |at: &usize| self.bytes.get(*at) != damaged.get(*at);
        let is_of_transaction = |at: usize| at / 4096 < 2 && TRANSACTION.contains(&(at % 4096));
        (0..self.bytes.len()).filter(differs).all(is_of_transaction) && *found == self.before_last
    }
}

#[test]
#[expect(clippy::host_endian_bytes, reason = "LMDB writes numbers as the machine has them")]
fn the_newest_transaction_under_the_number_of_an_older_one_is_left_out_whole() {
    let mut judge = Judge::new();
    let numbers = [0, 1].map(|page: usize| {
        let at = page * 4096 + TRANSACTION.start;
        u64::from_ne_bytes(judge.bytes[at..at + 8].try_into().unwrap())
    });
    let (older, newest) = if numbers[0] > numbers[1] { (1, 0) } else { (0, 1) };
    let mut damaged = judge.bytes.clone();
    let lower = (numbers[older] - 1).to_ne_bytes();
    damaged[newest * 4096..][TRANSACTION].copy_from_slice(&lower);
    judge.judge(&damaged, usize::MAX, "the newest transaction's number lowered");
    assert_eq!(judge.right, 1);
    // And the other way round, nothing is taken from an older one that says that it is the newest.
    let mut damaged = judge.bytes.clone();
    let higher = (numbers[newest] + 1).to_ne_bytes();
    damaged[older * 4096..][TRANSACTION].copy_from_slice(&higher);
    judge.judge(&damaged, usize::MAX, "an older transaction's number raised");
    assert_eq!(judge.refused, 1);
}

#[test]
fn zeroed_pages_are_refused_or_unused() {
    let mut judge = Judge::new();
    let whole = judge.bytes.clone();
    let pages = whole.len() / 4096;
    for page in 0..pages {
        let mut damaged = whole.clone();
        damaged[page * 4096..(page + 1) * 4096].fill(0);
        judge.judge(&damaged, usize::MAX, &format!("page {page} zeroed"));
    }
    println!("{pages} pages: {} refused, {} unused", judge.refused, judge.right);
    assert!(judge.refused > pages / 3 && judge.right > 0);
}

#[test]
fn flipped_bits_are_refused_or_without_effect() {
    let mut judge = Judge::new();
    let whole = judge.bytes.clone();
    let mut random = Random::new(seed());
    for _ in 0..600 {
        // Half of them where the structure is: the first bytes of a page.
        let at = if random.one_in(2) {
            random.index(whole.len() / 4096) * 4096 + random.index(160)
        } else {
            random.index(whole.len())
        };
        let bit = random.below(8);
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << bit;
        judge.judge(&damaged, usize::MAX, &format!("bit {bit} of byte {at} flipped"));
    }
    println!("{} refused, {} closed, {} right", judge.refused, judge.closed, judge.right);
    assert!(judge.refused > 100 && judge.right > 0);
}

#[test]
fn cut_files_are_refused() {
    let mut judge = Judge::new();
    let whole = judge.bytes.clone();
    let mut random = Random::new(seed());
    let mut cuts: Vec<usize> = (0..whole.len() / 4096).map(|page| page * 4096).collect();
    cuts.extend((0..50).map(|_| random.index(whole.len())));
    for cut in cuts {
        // A budget of one page: a file that is too short is walked whole all the same.
        judge.judge(&whole[..cut], 1, &format!("cut at {cut}"));
    }
    println!("{} refused, {} right", judge.refused, judge.right);
}

/// A row that `open` did not look at is refused when it is read.
#[test]
fn a_damaged_value_closes_the_store_when_it_is_read() {
    let mut judge = Judge::new();
    let mut damaged = judge.bytes.clone();
    let at = damaged.windows(64).position(|window| window == [b'C'; 64]).unwrap();
    damaged[at + 7] ^= 0x10;
    judge.judge(&damaged, 0, "a value damaged");
    assert_eq!(judge.closed, 1);
    // Without values only the header is read, and that is whole.
    let store = Store::open(judge.dir.path(), options(0)).unwrap();
    let view = store.read_view().unwrap();
    assert_eq!(view.get(Revision::NONE, b"/big", true).unwrap().unwrap().value_bytes, 20_000);
    let error = view.get(Revision::NONE, b"/big", false).unwrap_err().to_string();
    assert!(error.contains("/big") && error.contains("checksum"), "{error}");
    // The store stays closed: nothing after the damage is trusted.
    let position = Position { index: 10, term: 1, raft: Bytes::new() };
    let command = crate::scenario::command(vec![Op::put("/x", "y")], Time(0));
    let refused = store.apply(position, &command).unwrap_err().to_string();
    assert!(refused.contains("/big"), "{refused}");
}

#[test]
fn files_that_are_no_store_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(dir.path(), options(usize::MAX)).map(drop).unwrap_err();
    assert!(matches!(open(), OpenError::Missing { .. }));
    let write = |bytes: &[u8]| std::fs::write(dir.path().join("data.mdb"), bytes).unwrap();
    // An empty file is no fresh store.
    write(b"");
    assert!(matches!(open(), OpenError::CorruptPage { .. }));
    write(&[b'x'; 20_000]);
    assert!(matches!(open(), OpenError::Foreign { .. }));
    assert!(matches!(
        Store::create(dir.path(), options(0)).map(drop),
        Err(OpenError::Exists { .. })
    ));
}

#[test]
fn another_format_version_is_refused_with_both_numbers() {
    let source = sample(true);
    let path: &Path = &source.path().join("data.mdb");
    let mut bytes = std::fs::read(path).unwrap();
    let magic = b"revfs-st\x00\x00\x00\x01";
    let mut found = 0;
    for at in 0..bytes.len() - magic.len() {
        if bytes[at..].starts_with(magic) {
            bytes[at + 11] = 9;
            found += 1;
        }
    }
    assert!(found > 0);
    std::fs::write(path, bytes).unwrap();
    check_file(path, usize::MAX).unwrap();
    match Store::open(source.path(), options(usize::MAX)).map(drop) {
        Err(error @ OpenError::FormatVersion { found: 9, expected: 1, .. }) => {
            assert!(error.to_string().contains("format version 9"), "{error}");
        }
        other => panic!("{other:?}"),
    }
}
