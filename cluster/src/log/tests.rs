//! The log against a model, against damage, and on disks that fail.

mod damage;
mod durability;
mod failing_disk;
mod model;

use std::path::Path;
use std::sync::mpsc;

use bytes::Bytes;
use tempfile::TempDir;

use super::{Completion, Entry, Log, LogError, LogId, LogOptions, Vote};

type Append = fn(&Log, Vec<Entry>, Completion);

/// On the writer's thread, and on the own one.
const BOTH_WAYS: [Append; 2] = [Log::append, Log::append_here];

/// Small enough that a test fills many segments and reads from disk.
fn small() -> LogOptions {
    LogOptions { segment_bytes: 16 << 10, cache_bytes: 1 << 10, ..LogOptions::default() }
}

fn new_directory(options: &LogOptions) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    Log::create(directory.path(), options).unwrap();
    directory
}

fn entry(term: u64, index: u64, payload_bytes: usize) -> Entry {
    let begin = u8::try_from(index % 251).unwrap();
    let payload: Vec<u8> = (begin..=u8::MAX).cycle().take(payload_bytes).collect();
    Entry { id: LogId { term, index }, kind: begin, payload: Bytes::from(payload) }
}

/// Appends and waits until it is durable; both ways take turns.
fn append(log: &Log, entries: Vec<Entry>) -> Result<(), LogError> {
    let (done, answer) = mpsc::channel();
    let way = entries.first().map_or(0, |entry| usize::from(entry.id.index % 3 == 0));
    BOTH_WAYS[way](log, entries, Box::new(move |result| done.send(result).unwrap()));
    answer.recv().unwrap()
}

fn save_vote(log: &Log, vote: Vote) -> Result<(), LogError> {
    let (done, answer) = mpsc::channel();
    log.save_vote(vote, Box::new(move |result| done.send(result).unwrap()));
    answer.recv().unwrap()
}

fn open(directory: &Path, options: &LogOptions) -> Log {
    Log::open(directory, options.clone(), None).unwrap()
}

fn all(log: &Log) -> Vec<Entry> {
    log.read(0..u64::MAX, usize::MAX).unwrap()
}
