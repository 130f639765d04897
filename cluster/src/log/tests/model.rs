//! Random appends, truncations, purges, votes and reopens against a list in memory.

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};

use super::{Entry, Log, LogId, LogOptions, Vote, append, new_directory, open, save_vote, small};

#[derive(Clone, Debug)]
enum Step {
    Append { count: u64, bytes: usize },
    Truncate { keep: u8 },
    Purge { part: u8 },
    Vote,
    Committed,
    Read { from: u8, count: u8 },
    Reopen { in_order: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..8_u64, prop_oneof![4 => 0..300_usize, 1 => 3_000..40_000_usize])
            .prop_map(|(count, bytes)| Step::Append { count, bytes }),
        1 => any::<u8>().prop_map(|keep| Step::Truncate { keep }),
        2 => any::<u8>().prop_map(|part| Step::Purge { part }),
        1 => Just(Step::Vote),
        1 => Just(Step::Committed),
        2 => (any::<u8>(), 1..20_u8).prop_map(|(from, count)| Step::Read { from, count }),
        1 => any::<bool>().prop_map(|in_order| Step::Reopen { in_order }),
    ]
}

#[derive(Default)]
struct Model {
    term: u64,
    entries: Vec<Entry>,
    purged: Option<LogId>,
    vote: Option<Vote>,
}

impl Model {
    fn next(&self) -> u64 {
        self.last().map_or(0, |last| last.index + 1)
    }

    fn last(&self) -> Option<LogId> {
        self.entries.last().map(|entry| entry.id).or(self.purged)
    }

    /// The entry at `part`/256 of the log.
    fn at(&self, part: u8) -> Option<LogId> {
        let at = self.entries.len() * usize::from(part) / 256;
        self.entries.get(at).map(|entry| entry.id)
    }

    fn check(&self, log: &Log) {
        let state = log.state();
        assert_eq!(state.last, self.last());
        assert_eq!(state.purged, self.purged);
        assert_eq!(state.vote, self.vote);
        assert_eq!(super::all(log), self.entries);
    }
}

fn run(steps: Vec<Step>, options: &LogOptions) {
    let directory = new_directory(options);
    let mut log = open(directory.path(), options);
    let mut model = Model { term: 1, ..Model::default() };
    for step in steps {
        match step {
            Step::Append { count, bytes } => {
                let first = model.next();
                let entries: Vec<Entry> = (first..first + count)
                    .map(|index| super::entry(model.term, index, bytes))
                    .collect();
                append(&log, entries.clone()).unwrap();
                model.entries.extend(entries);
            }
            Step::Truncate { keep } => {
                let id = model.at(keep).or(model.purged);
                log.truncate_after(id);
                model.entries.retain(|entry| Some(entry.id) <= id);
                model.term += 1;
            }
            Step::Purge { part } => {
                let Some(id) = model.at(part) else { continue };
                log.purge(id);
                model.entries.retain(|entry| entry.id > id);
                model.purged = Some(id);
            }
            Step::Vote => {
                model.term += 1;
                let vote =
                    Vote { term: model.term, node: 3, committed: model.term.is_multiple_of(2) };
                save_vote(&log, vote).unwrap();
                model.vote = Some(vote);
            }
            Step::Committed => {
                if let Some(last) = model.last() {
                    log.hint_committed(last);
                }
            }
            Step::Read { from, count } => {
                let Some(from) = model.at(from).map(|id| id.index) else { continue };
                let range = from..from + u64::from(count);
                let wanted: Vec<Entry> = model
                    .entries
                    .iter()
                    .filter(|entry| range.contains(&entry.id.index))
                    .cloned()
                    .collect();
                assert_eq!(log.read(range, usize::MAX).unwrap(), wanted);
            }
            Step::Reopen { in_order } => {
                if in_order {
                    log.close().unwrap();
                }
                drop(log);
                log = Log::open(directory.path(), options.clone(), model.last()).unwrap();
            }
        }
        model.check(&log);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_is_what_was_written(steps in proptest::collection::vec(step(), 1..60)) {
        run(steps, &small());
    }
}

#[test]
fn purging_gives_segments_back() {
    let options = small();
    let directory = new_directory(&options);
    let log = open(directory.path(), &options);
    let mut bytes_max = 0;
    for index in 0..600 {
        append(&log, vec![super::entry(1, index, 500)]).unwrap();
        if index >= 10 {
            log.purge(LogId { term: 1, index: index - 10 });
        }
        bytes_max = bytes_max.max(log.disk_bytes());
    }
    // 600 entries fill 20 segments; 10 are kept, in two at most, beside the spares.
    assert!(bytes_max <= 5 * u64::from(options.segment_bytes), "{bytes_max} bytes on disk");
    let kept: Vec<u64> = super::all(&log).iter().map(|entry| entry.id.index).collect();
    assert_eq!(kept, (590..600).collect::<Vec<_>>());
}

#[test]
fn concurrent_appends_share_flushes_and_complete_in_order() {
    let options = LogOptions::default();
    let directory = new_directory(&options);
    let log = open(directory.path(), &options);
    let (done, answers) = std::sync::mpsc::channel();
    for index in 0..500 {
        let done = done.clone();
        let report = move |result: Result<(), _>| done.send((index, result.is_ok())).unwrap();
        log.append(vec![super::entry(1, index, 100)], Box::new(report));
    }
    drop(done);
    let order: Vec<(u64, bool)> = answers.iter().collect();
    assert_eq!(order, (0..500).map(|index| (index, true)).collect::<Vec<_>>());
}

#[test]
fn a_gap_is_refused_and_leaves_the_log_as_it_was() {
    let options = small();
    let directory = new_directory(&options);
    let log = open(directory.path(), &options);
    append(&log, vec![super::entry(1, 0, 10)]).unwrap();
    assert!(append(&log, vec![super::entry(1, 1, 10), super::entry(1, 3, 10)]).is_err());
    assert_eq!(log.state().last, Some(LogId { term: 1, index: 0 }));
    append(&log, vec![super::entry(1, 1, 10)]).unwrap();
    assert_eq!(super::all(&log).len(), 2);
}
