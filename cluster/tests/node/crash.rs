//! `kill -9` of a writing process at random moments, again and again, on one data directory.
//!
//! The test binary starts itself as the writer: it prints a key once its change was acknowledged.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::rig::{all, put, shut_down, start, start_behind_dropped};

const WRITER: &str = "REVFS_TEST_CRASH_WRITER";
const ROUNDS: u64 = 20;
/// Keys that are written at the same time.
const WRITERS: u64 = 8;

/// Not a test of its own: what the killed process runs.
#[test]
fn writer() {
    let Ok(directory) = std::env::var(WRITER) else { return };
    let (directory, round) = directory.rsplit_once('#').unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(write_until_killed(&PathBuf::from(directory), round.parse().unwrap()));
}

async fn write_until_killed(directory: &Path, round: u64) {
    let node = Arc::new(start_behind_dropped(directory).await);
    let writers = (0..WRITERS).map(|writer| {
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            let space = node.key_space();
            for count in 0_u64.. {
                let key = format!("/{round:02}/{writer}/{count:06}");
                // Some are larger than a segment of the log.
                let length = if count % 50 == 49 { 300_000 } else { 20 + count % 900 };
                let value = vec![b'x'; usize::try_from(length).unwrap()];
                put(&space, &key, value).await.unwrap();
                let mut out = std::io::stdout().lock();
                writeln!(out, "ack {key} {length}").unwrap();
                out.flush().unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

fn spawn(directory: &Path, round: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::writer", "--nocapture", "--test-threads=1"])
        .env(WRITER, format!("{}#{round}", directory.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Runs a writer, kills it `after` its first acknowledgement, and returns what it acknowledged.
fn acknowledged_until_killed(
    directory: &Path,
    round: u64,
    after: Duration,
) -> BTreeMap<String, usize> {
    let mut child = spawn(directory, round);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = BTreeMap::new();
    let mut killed_at = None;
    while let Some(Ok(line)) = lines.next() {
        let mut words = line.split(' ');
        if words.next() != Some("ack") {
            continue;
        }
        // A line that the kill cut in two was acknowledged too, but is not readable.
        if let (Some(key), Some(Ok(length))) = (words.next(), words.next().map(str::parse)) {
            acknowledged.insert(key.to_owned(), length);
        }
        let kill_at = *killed_at.get_or_insert_with(|| Instant::now() + after);
        if Instant::now() >= kill_at {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    acknowledged
}

#[test]
fn no_acknowledged_change_is_lost_by_kill_9_in_twenty_rounds() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::new();
    let mut random = getrandom::u64().unwrap();
    println!("seed {random}");
    for round in 0..ROUNDS {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let after = Duration::from_millis((random >> 33) % 400);
        let new = acknowledged_until_killed(directory.path(), round, after);
        assert!(!new.is_empty(), "round {round}: the writer wrote nothing");
        acknowledged.extend(new);
        check(directory.path(), &acknowledged, round);
    }
    println!("{} acknowledged changes survived {ROUNDS} kills", acknowledged.len());
}

fn check(directory: &Path, acknowledged: &BTreeMap<String, usize>, round: u64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let node = start(directory).await;
        let found: BTreeMap<String, usize> = all(&node.key_space(), "/")
            .await
            .into_iter()
            .map(|(key, value)| (key, value.len()))
            .collect();
        for (key, length) in acknowledged {
            assert_eq!(found.get(key), Some(length), "round {round}: {key}");
        }
        if round.is_multiple_of(3) {
            shut_down(node).await;
        }
    });
}
