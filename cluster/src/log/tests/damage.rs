//! Damage is refused with file and offset; only what was never acknowledged is cut.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use proptest::prelude::{ProptestConfig, any, proptest};
use tempfile::TempDir;

use super::{LogOptions, append, entry, new_directory, save_vote, small};
use crate::log::disk::Disk;
use crate::log::group::{self, Header};
use crate::log::segment::{HEADER_PAGE_BYTES, segment_path};
use crate::log::{LogError, LogId, State, Vote, open};

/// The bytes of a group in its file.
#[derive(Clone, Debug)]
struct Placed {
    file: PathBuf,
    begin: usize,
    end: usize,
}

/// A log of several segments, not shut down in order, and its groups.
struct Sample {
    directory: TempDir,
    options: LogOptions,
    groups: Vec<Placed>,
}

impl Sample {
    fn new(groups: u64, in_order: bool) -> Self {
        let options = small();
        let directory = new_directory(&options);
        let log = super::open(directory.path(), &options);
        save_vote(&log, Vote { term: 1, node: 7, committed: true }).unwrap();
        for index in 0..groups {
            let bytes = if index % 5 == 0 { 4_000 } else { 90 };
            append(&log, vec![entry(1, index, bytes)]).unwrap();
        }
        if in_order {
            log.close().unwrap();
        }
        drop(log);
        let groups = groups_in(directory.path());
        Self { directory, options, groups }
    }

    fn try_open(&self) -> Result<State, LogError> {
        self.try_open_to(None)
    }

    fn try_open_to(&self, must_reach: Option<LogId>) -> Result<State, LogError> {
        let opened =
            open::open(self.directory.path(), &self.options, &Disk::default(), must_reach)?;
        Ok(opened.index.state())
    }

    /// Opens with `file` changed, then puts it back as it was.
    fn try_with(&self, file: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Result<State, LogError> {
        let before = fs::read(file).unwrap();
        let mut bytes = before.clone();
        change(&mut bytes);
        fs::write(file, &bytes).unwrap();
        let result = self.try_open();
        fs::write(file, &before).unwrap();
        result
    }
}

fn groups_in(directory: &Path) -> Vec<Placed> {
    let mut groups = Vec::new();
    for segment in 1.. {
        let file = segment_path(directory, segment);
        let Ok(bytes) = fs::read(&file) else { break };
        let mut at = HEADER_PAGE_BYTES as usize;
        while let Some((header, seed)) = bytes.get(at..).and_then(Header::decode) {
            group::decode_records(&bytes, &header, seed).unwrap();
            let end = header.end().unwrap() as usize;
            groups.push(Placed { file: file.clone(), begin: at, end });
            at = end;
        }
    }
    groups
}

#[track_caller]
fn assert_refused(result: Result<State, LogError>, group: &Placed) {
    match result {
        Err(LogError::Corrupt { file, offset, .. }) => {
            assert_eq!(file, group.file);
            let offset = usize::try_from(offset).unwrap();
            assert!((group.begin..group.end).contains(&offset), "{offset} is not in {group:?}");
        }
        other => panic!("{group:?} was damaged, but: {other:?}"),
    }
}

#[test]
fn any_flipped_bit_in_a_group_that_others_follow_is_refused() {
    let sample = Sample::new(13, false);
    let (_, followed) = sample.groups.split_last().unwrap();
    assert!(followed.iter().any(|group| group.file != followed[0].file), "needs two segments");
    for group in followed {
        let file = OpenOptions::new().read(true).write(true).open(&group.file).unwrap();
        // Each bit of the headers, one of each byte of small payloads, a sample of large ones.
        for at in group.begin..group.end {
            let from_begin = at - group.begin;
            let bits = match from_begin {
                0..73 => 0..8,
                73..200 => at % 8..at % 8 + 1,
                _ if at % 97 == 0 => at % 8..at % 8 + 1,
                _ => continue,
            };
            let mut byte = [0];
            file.read_exact_at(&mut byte, at as u64).unwrap();
            for bit in bits {
                file.write_all_at(&[byte[0] ^ 1 << bit], at as u64).unwrap();
                assert_refused(sample.try_open(), group);
            }
            file.write_all_at(&byte, at as u64).unwrap();
        }
    }
    assert!(sample.try_open().is_ok());
}

#[test]
fn a_flipped_bit_in_a_segment_header_is_refused() {
    let sample = Sample::new(17, false);
    let segments =
        [segment_path(sample.directory.path(), 1), segment_path(sample.directory.path(), 2)];
    for file in segments {
        for at in (0..64).chain([100, 1000, 4095]) {
            let result = sample.try_with(&file, |bytes| bytes[at] ^= 0x10);
            match result {
                Err(LogError::Corrupt { file: named, offset: 0, .. }) => assert_eq!(named, file),
                other => panic!("byte {at}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_tail_torn_at_any_byte_of_the_last_group_gives_the_state_before_it() {
    let sample = Sample::new(16, false);
    let last = sample.groups.last().unwrap();
    let whole = sample.try_open().unwrap();
    assert_eq!(whole.last, Some(LogId { term: 1, index: 15 }));
    let significant =
        fs::read(&last.file).unwrap()[..last.end].iter().rposition(|&byte| byte != 0).unwrap();
    for cut in last.begin..=last.end {
        let state = sample.try_with(&last.file, |bytes| bytes[cut..].fill(0)).unwrap();
        let wanted = if cut > significant { 15 } else { 14 };
        assert_eq!(state.last, Some(LogId { term: 1, index: wanted }), "cut at {cut}");
        assert_eq!(state.vote, whole.vote);
    }
}

#[test]
fn a_shortened_file_is_refused_at_its_end() {
    let sample = Sample::new(16, false);
    let last = sample.groups.last().unwrap();
    for length in [0, 1, 4096, last.begin, last.begin + 10, last.end] {
        let result = sample.try_with(&last.file, |bytes| bytes.truncate(length));
        match result {
            Err(LogError::Corrupt { file, offset, .. }) => {
                assert_eq!(file, last.file);
                let named = usize::try_from(offset).unwrap();
                // Without its header page the file does not even say how long it was.
                assert_eq!(named, if length < 4096 { 0 } else { length });
            }
            other => panic!("{length}: {other:?}"),
        }
    }
}

#[test]
fn a_zeroed_page_before_the_last_group_is_refused() {
    let sample = Sample::new(17, false);
    let last = sample.groups.last().unwrap();
    for group in &sample.groups {
        let page = group.begin / 4096 * 4096;
        if group.file == last.file && page + 4096 > last.begin {
            continue;
        }
        let result = sample.try_with(&group.file, |bytes| bytes[page..page + 4096].fill(0));
        let error = result.unwrap_err();
        let LogError::Corrupt { file, offset, .. } = &error else { panic!("{error}") };
        assert_eq!(*file, group.file);
        let page = page as u64;
        assert!((page..page + 4096).contains(offset) || *offset < page, "{error}");
    }
}

#[test]
fn after_an_orderly_shutdown_a_damaged_last_group_is_refused() {
    let sample = Sample::new(16, true);
    let last = sample.groups.last().unwrap().clone();
    let before = fs::read(&last.file).unwrap();
    for at in last.begin..last.end - 8 {
        let mut bytes = before.clone();
        bytes[at] ^= 1;
        fs::write(&last.file, &bytes).unwrap();
        assert_refused(sample.try_open(), &last);
    }
    let mut bytes = before.clone();
    bytes[last.begin..].fill(0);
    fs::write(&last.file, &bytes).unwrap();
    assert_refused(sample.try_open(), &last);

    fs::write(&last.file, &before).unwrap();
    assert_eq!(sample.try_open().unwrap().last, Some(LogId { term: 1, index: 15 }));
}

#[test]
fn a_log_that_ends_before_what_the_store_has_is_refused() {
    let sample = Sample::new(16, false);
    let reached = LogId { term: 1, index: 15 };
    assert!(sample.try_open_to(Some(reached)).is_ok());
    let error = sample.try_open_to(Some(LogId { term: 1, index: 16 })).unwrap_err();
    let last = sample.groups.last().unwrap();
    assert!(matches!(
        &error,
        LogError::TooShort { file, offset, .. }
            if *file == last.file && usize::try_from(*offset).unwrap() == last.end
    ));
    let other = sample.try_open_to(Some(LogId { term: 2, index: 15 })).unwrap_err();
    assert!(matches!(other, LogError::Corrupt { .. }), "{other}");
}

#[test]
fn a_missing_segment_is_refused() {
    let sample = Sample::new(40, false);
    let path = |segment| segment_path(sample.directory.path(), segment);
    assert!(path(3).exists(), "needs three segments");
    for missing in [1, 2] {
        let aside = sample.directory.path().join("aside");
        fs::rename(path(missing), &aside).unwrap();
        let error = sample.try_open().unwrap_err();
        assert!(matches!(error, LogError::Corrupt { .. }), "segment {missing}: {error}");
        fs::rename(&aside, path(missing)).unwrap();
    }
    assert!(sample.try_open().is_ok());
}

/// A copy of log bytes inside a value, or of a segment under another name, is never taken for a
/// group.
#[test]
fn log_bytes_inside_a_torn_group_prove_nothing() {
    let options = small();
    let directory = new_directory(&options);
    let other = Sample::new(12, false);
    let foreign = fs::read(&other.groups[0].file).unwrap();
    let log = super::open(directory.path(), &options);
    append(&log, vec![entry(1, 0, 50)]).unwrap();
    let mut copy = entry(1, 1, 0);
    copy.payload = foreign[4096..12_000].to_vec().into();
    append(&log, vec![copy]).unwrap();
    drop(log);
    let groups = groups_in(directory.path());
    let last = groups.last().unwrap();
    let mut bytes = fs::read(&last.file).unwrap();
    bytes[last.begin] ^= 1;
    fs::write(&last.file, &bytes).unwrap();
    let opened = open::open(directory.path(), &options, &Disk::default(), None).unwrap();
    assert_eq!(opened.index.state().last, Some(LogId { term: 1, index: 0 }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// A power failure keeps any subset of the sectors of the group in flight; below them lies what
    /// the file held before, here records of the same shape.
    #[test]
    fn sectors_of_the_last_group_may_arrive_in_any_order(kept in any::<u32>(), size in 1_usize..4) {
        let options = LogOptions { spares_max: 4, ..small() };
        let directory = new_directory(&options);
        let log = super::open(directory.path(), &options);
        let bytes = size * 400;
        for index in 0..60 {
            if index > 2 {
                log.purge(LogId { term: 1, index: index - 2 });
            }
            append(&log, vec![entry(1, index, bytes)]).unwrap();
        }
        let active = log.shared.inner.lock().segments.back().unwrap().number;
        let file = segment_path(directory.path(), active);
        let before = fs::read(&file).unwrap();
        append(&log, vec![entry(1, 60, bytes), entry(1, 61, bytes)]).unwrap();
        let rotated = log.shared.inner.lock().segments.back().unwrap().number != active;
        drop(log);
        if rotated {
            return Ok(());
        }
        let after = fs::read(&file).unwrap();
        let mut torn = before.clone();
        let changed: Vec<usize> = (0..after.len() / 512)
            .filter(|sector| before[sector * 512..][..512] != after[sector * 512..][..512])
            .collect();
        for (at, sector) in changed.iter().enumerate() {
            if kept >> (at % 32) & 1 == 1 {
                torn[sector * 512..][..512].copy_from_slice(&after[sector * 512..][..512]);
            }
        }
        fs::write(&file, &torn).unwrap();
        let opened = open::open(directory.path(), &options, &Disk::default(), None).unwrap();
        let wanted = if torn == after { 61 } else { 59 };
        assert_eq!(opened.index.state().last.unwrap().index, wanted);
    }

    #[test]
    fn garbage_never_panics(garbage in proptest::collection::vec(any::<u8>(), 0..6000), whole in any::<bool>()) {
        assert!(group::decode_record(&garbage, 1).is_none() || garbage.len() > 8);
        let sample = Sample::new(3, false);
        let file = segment_path(sample.directory.path(), 1);
        let mut bytes = fs::read(&file).unwrap();
        let at = if whole { 0 } else { sample.groups[1].begin };
        bytes[at..at + garbage.len()].copy_from_slice(&garbage);
        fs::write(&file, &bytes).unwrap();
        if let Ok(state) = sample.try_open() {
            assert!(state.last.is_none_or(|last| last.index <= 2));
        }
    }

    /// A header that is intact, with lengths that are not.
    #[test]
    fn hostile_lengths_never_panic(length in any::<u32>(), offset in any::<u32>(), segment in 0_usize..9000) {
        let header = Header {
            nonce: 1,
            number: 1,
            position: group::Position { segment: 1, offset },
            previous_end: group::Position::default(),
            length,
            salt: 0,
        };
        let bytes = vec![0; segment];
        assert!(group::decode_records(&bytes, &header, 7).is_err());
    }
}
