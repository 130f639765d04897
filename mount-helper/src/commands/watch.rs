//! `revfs watch`: changes as they come, or a command at each batch of them.
//!
//! A batch begins with a revision and ends when nothing has followed for a while (`--debounce`), or when
//! it has become large or old. One command runs at a time; what changes meanwhile is the next batch.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStringExt as _;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use clap::ValueHint;
use revfs_api::KeySpace;
use revfs_api::client::Settings;
use revfs_api::keyspace::{
    Answer, ChangeKind, Error, Event, KeyRange, KeyValue, Read, Revision, RevisionEvents, Watch,
};
use serde_json::{Map, Value};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

use crate::args::Globals;
use crate::child::Child;
use crate::endpoint::{self, Node};
use crate::error::{Asked as _, Failure, Result};
use crate::output::{Output, author_json, insert_bytes, readable, time_exact};
use crate::signals::Signals;
use crate::target::Target;

/// Print changes as they come, or run a command at each
///
/// One line for each change: revision, put or delete, key, value (and with --prev what it was),
/// separated by tabs, control characters written \xHH. A lost connection is made again, for as long as
/// it takes, and the watch goes on where it was, without gap or repeat. Ends with Ctrl-C.
/// CMD runs when a change has settled (--debounce), and once more for what changed while it ran. It
/// finds REVFS_WATCH_REVISION, all keys in REVFS_WATCH_KEYS (one a line), and of the last change
/// REVFS_WATCH_KIND, REVFS_WATCH_KEY and REVFS_WATCH_VALUE (what is larger than 64 KiB is left out);
/// all changes, as with --json, come on its standard input.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs watch /app/ --prefix --json
  revfs watch /app/color --rev 41 -n 1
  revfs watch ~/conf/nginx -- systemctl reload nginx
  revfs watch ~/site --debounce 2s -- make")]
pub(crate) struct WatchArgs {
    /// A key (/app/color), or a path inside a mount: a file, or a directory with all below it
    #[arg(value_name = "KEY", value_hint = ValueHint::AnyPath)]
    key_or_path: OsString,

    /// Every key that begins with KEY; for a path, every file below it, also if it is not there yet
    #[arg(long)]
    prefix: bool,

    /// Begin with revision N, not with what comes next
    #[arg(long, value_name = "N", value_parser = crate::moment::parse_revision)]
    rev: Option<u64>,

    /// Show what was there before
    #[arg(long)]
    prev: bool,

    /// End after N revisions
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<u64>,

    /// The argument is a key, never a path
    #[arg(short, long)]
    key: bool,

    /// Run CMD once for all changes, when there were none for so long (500ms, 2s, 1m; 0: at each
    /// revision by itself) [default: 200ms]
    #[arg(long, value_name = "TIME", value_parser = parse_pause)]
    debounce: Option<Duration>,

    /// End CMD when it has run for so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: Option<u64>,

    /// What to run instead of printing
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// So many revisions are gathered for one run at most, though they go on.
const GATHERED_MAX: usize = 10_000;

/// A run waits for so many times the pause at most, though the changes go on.
const PAUSES_MAX: u32 = 20;

/// Without `--debounce`: longer than a program takes from one file of a few to the next.
const PAUSE: Duration = Duration::from_millis(200);

const PAUSE_MAX: Duration = Duration::from_secs(3_600);

/// Longer values are not put into a variable: a program's variables are bounded.
const VARIABLE_BYTES_MAX: usize = 64 * 1024;

/// Who watches waits for its node to come back: it has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// `500ms`, `2s`, `1m`; a number alone is milliseconds.
fn parse_pause(text: &str) -> std::result::Result<Duration, String> {
    let wrong = || "a time is a number with ms, s or m after it: 500ms, 2s, 1m".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" | "" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let pause = number.checked_mul(unit).map(Duration::from_millis);
    pause.filter(|pause| *pause <= PAUSE_MAX).ok_or_else(|| "that is longer than an hour".into())
}

pub(crate) async fn run(
    args: WatchArgs,
    globals: &Globals,
    output: &mut Output,
) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    if args.command.is_empty() && (args.debounce.is_some() || args.timeout.is_some()) {
        return Err(Failure::usage(
            "--debounce and --timeout are about a command, and there is none",
        )
        .hint("revfs watch KEY --debounce 500ms -- CMD"));
    }
    let argument = std::slice::from_ref(&args.key_or_path);
    let settings = Settings { watch_patience: PATIENCE, ..globals.connection.settings()? };
    let node = endpoint::open_with(globals, argument, args.key, settings).await?;
    follow(&args, &node, &mut signals, output).await.map(|()| ExitCode::SUCCESS)
}

/// What is watched: a path that is a directory with all below it.
fn range(args: &WatchArgs, target: &Target) -> KeyRange {
    let is_directory = || {
        let is_there = std::fs::metadata(&args.key_or_path).is_ok_and(|found| found.is_dir());
        target.is_path && (is_there || target.file().is_none())
    };
    match args.prefix || is_directory() {
        true => KeyRange::prefix(&target.prefix()),
        false => KeyRange::Key(target.key.clone()),
    }
}

async fn follow(
    args: &WatchArgs,
    node: &Node,
    signals: &mut Signals,
    output: &mut Output,
) -> Result<()> {
    let target = &node.targets[0];
    let from = args.rev.map_or(Revision::NONE, Revision);
    let asked = || format!("watch {}", target.shown());
    let mut watch = tokio::select! {
        _ = signals.next() => return Ok(()),
        watch = node.keys.watch(vec![range(args, target)], from) => watch.asked(asked)?,
    };
    let pause = args.debounce.unwrap_or(PAUSE);
    let pause = (!args.command.is_empty() && !pause.is_zero()).then_some(pause);
    let mut left = args.limit;
    while left != Some(0) {
        let revisions = tokio::select! {
            _ = signals.next() => return Ok(()),
            revisions = gather(watch.as_mut(), pause, left) => revisions.asked(asked)?,
        };
        let mut changes = Vec::new();
        for revision in &revisions {
            let before = match args.prev {
                true => before(&*node.keys, revision).await?,
                false => vec![None; revision.events.len()],
            };
            let events = revision.events.iter().zip(before);
            changes.extend(events.map(|(event, prev)| Change { revision, event, prev }));
        }
        if args.command.is_empty() {
            for change in &changes {
                match output.json {
                    true => output.document(&change.document())?,
                    false => output.line(&change.line(args.prev))?,
                }
            }
            output.finish()?;
        } else if run_at(args, &node.endpoint, &changes, signals).await?.is_break() {
            return Ok(());
        }
        let count = u64::try_from(revisions.len()).unwrap_or(u64::MAX);
        left = left.map(|left| left.saturating_sub(count));
    }
    Ok(())
}

/// The next revision, and all that follow it without so long a pause between them, up to `most`.
async fn gather(
    watch: &mut dyn Watch,
    pause: Option<Duration>,
    most: Option<u64>,
) -> std::result::Result<Vec<RevisionEvents>, Error> {
    let mut revisions = vec![watch.next().await?];
    let Some(pause) = pause else { return Ok(revisions) };
    let most = most.and_then(|most| usize::try_from(most).ok()).unwrap_or(GATHERED_MAX);
    let end = Instant::now() + pause * PAUSES_MAX;
    while revisions.len() < most.min(GATHERED_MAX) {
        let deadline = end.min(Instant::now() + pause);
        match tokio::time::timeout_at(deadline, watch.next()).await {
            Ok(revision) => revisions.push(revision?),
            Err(_) => break,
        }
    }
    Ok(revisions)
}

/// What the keys were before the revision, where that is still known.
async fn before(keys: &dyn KeySpace, of: &RevisionEvents) -> Result<Vec<Option<KeyValue>>> {
    let unknown = vec![None; of.events.len()];
    let view = Revision(of.stamp.revision.0 - 1);
    if view == Revision::NONE {
        return Ok(unknown);
    }
    let reads = of.events.iter().map(|event| Read::key(event.kv.key.clone())).collect();
    let answer = match keys.read(view, reads).await {
        Err(Error::Compacted { .. }) => return Ok(unknown),
        answer => answer.asked(|| format!("read what was there at revision {view}"))?,
    };
    let first = |answer| match answer {
        Answer::Range(range) => range.kvs.into_iter().next(),
        Answer::List(_) | Answer::Directory(_) => None,
    };
    Ok(answer.answers.into_iter().map(first).collect())
}

struct Change<'a> {
    revision: &'a RevisionEvents,
    event: &'a Event,
    prev: Option<KeyValue>,
}

impl Change<'_> {
    fn kind(&self) -> &'static str {
        match self.event.kind {
            ChangeKind::Put => "put",
            ChangeKind::Delete => "delete",
        }
    }

    fn line(&self, with_prev: bool) -> String {
        let KeyValue { key, value, .. } = &self.event.kv;
        let revision = self.revision.stamp.revision;
        let (kind, key, value) = (self.kind(), readable(key), readable(value));
        let line = format!("{revision}\t{kind}\t{key}\t{value}");
        let prev = self.prev.as_ref().map(|kv| readable(&kv.value)).unwrap_or_default();
        if with_prev { format!("{line}\t{prev}") } else { line }
    }

    fn document(&self) -> Value {
        let stamp = &self.revision.stamp;
        let mut object = Map::new();
        object.insert("revision".into(), stamp.revision.0.into());
        object.insert("kind".into(), self.kind().into());
        match self.event.kind {
            ChangeKind::Put => object.extend(super::get::document(&self.event.kv, true)),
            ChangeKind::Delete => {
                insert_bytes(&mut object, "key", &self.event.kv.key);
                object.insert("time".into(), time_exact(stamp.time).into());
            }
        }
        object.insert("author".into(), author_json(&stamp.author));
        if let Some(prev) = &self.prev {
            object.insert("prev".into(), super::get::document(prev, true).into());
        }
        object.into()
    }
}

/// Runs the command for a batch and waits for it. What it makes of it is its own matter: the watch
/// goes on, unless it is told to end.
async fn run_at(
    args: &WatchArgs,
    endpoint: &str,
    changes: &[Change<'_>],
    signals: &mut Signals,
) -> Result<ControlFlow<()>> {
    let Some(last) = changes.last() else { return Ok(ControlFlow::Continue(())) };
    let revision = last.revision.stamp.revision;
    let mut child =
        Child::start(&args.command, variables(endpoint, changes, last), Stdio::piped())?;
    let input = child.input();
    let text: String = changes.iter().map(|change| format!("{}\n", change.document())).collect();
    let telling = async move {
        let Some(mut input) = input else { return Ok(()) };
        match input.write_all(text.as_bytes()).await {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            // It need not read what it is told.
            _ => Ok(()),
        }
    };
    let mut telling = std::pin::pin!(telling);
    let mut is_told = false;
    let deadline = args.timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut flow = ControlFlow::Continue(());
    loop {
        tokio::select! {
            signal = signals.next() => {
                match flow {
                    ControlFlow::Continue(()) => child.pass_on(signal),
                    // It was told once.
                    ControlFlow::Break(()) => child.end().await,
                }
                flow = ControlFlow::Break(());
            }
            told = &mut telling, if !is_told => {
                told?;
                is_told = true;
            }
            status = child.wait() => {
                let status = status?;
                if !status.success() {
                    eprintln!("revfs: '{}' at revision {revision}: {status}", child.shown());
                }
                return Ok(flow);
            }
            () = until(deadline) => {
                child.end().await;
                let timeout = Duration::from_secs(args.timeout.unwrap_or_default());
                let shown = child.shown();
                eprintln!("revfs: '{shown}' at revision {revision}: ended after {timeout:?}");
                return Ok(flow);
            }
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What the command finds in its environment.
fn variables(
    endpoint: &str,
    changes: &[Change<'_>],
    last: &Change<'_>,
) -> Vec<(&'static str, OsString)> {
    let KeyValue { key, value, .. } = &last.event.kv;
    let mut variables = vec![
        ("REVFS_ENDPOINT", endpoint.into()),
        ("REVFS_WATCH_REVISION", last.revision.stamp.revision.to_string().into()),
        ("REVFS_WATCH_KIND", last.kind().into()),
    ];
    let keys: BTreeSet<&[u8]> = changes.iter().map(|change| &change.event.kv.key[..]).collect();
    let keys = keys.into_iter().collect::<Vec<_>>().join(&b'\n');
    for (name, bytes) in [
        ("REVFS_WATCH_KEY", &key[..]),
        ("REVFS_WATCH_VALUE", &value[..]),
        ("REVFS_WATCH_KEYS", &keys[..]),
    ] {
        if bytes.len() <= VARIABLE_BYTES_MAX && !bytes.contains(&0) {
            variables.push((name, OsString::from_vec(bytes.to_vec())));
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::parse_pause;

    #[test]
    fn a_pause_is_a_number_with_its_unit() {
        for (text, milliseconds) in
            [("0", 0), ("500", 500), ("500ms", 500), ("2s", 2_000), ("60m", 3_600_000)]
        {
            assert_eq!(parse_pause(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "-1s", "1h", "1.5s", "2 s", "61m", "99999999999999999999s"] {
            assert!(parse_pause(text).is_err(), "{text}");
        }
    }
}
