//! `revfs watch`: changes as they come.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::process::{ExitCode, Stdio};

use clap::ValueHint;
use revfs_api::KeySpace;
use revfs_api::keyspace::{
    Answer, ChangeKind, Error, Event, KeyRange, KeyValue, Read, Revision, RevisionEvents,
};
use serde_json::{Map, Value};
use tokio::io::AsyncWriteExt as _;

use crate::args::Globals;
use crate::child::Child;
use crate::endpoint::{self, Node};
use crate::error::{Asked as _, Result};
use crate::output::{Output, author_json, insert_bytes, readable, time_exact};
use crate::signals::Signals;

/// Print changes as they come, or run a command at each
///
/// One line for each change: revision, put or delete, key, value (and with --prev what it was),
/// separated by tabs, control characters written \xHH. A lost connection is made again and the watch
/// goes on where it was, without gap or repeat. Ends with Ctrl-C.
/// CMD runs once for each revision, one after the other. It finds REVFS_WATCH_REVISION, and of the
/// (last) change REVFS_WATCH_KIND, REVFS_WATCH_KEY and REVFS_WATCH_VALUE (unless it is larger than
/// 64 KiB or holds a NUL); all changes, as with --json, come on its standard input.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs watch /app/ --prefix --json
  revfs watch /app/color --rev 41 -n 1
  revfs watch ~/conf/nginx --prefix -- systemctl reload nginx")]
pub(crate) struct WatchArgs {
    /// A key (/app/color), or a path inside a mount
    #[arg(value_name = "KEY", value_hint = ValueHint::AnyPath)]
    key_or_path: OsString,

    /// Every key that begins with KEY; for a path, every file below it
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

    /// What to run at each revision, instead of printing it
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Longer values are not put into a variable: a program's variables are bounded.
const VARIABLE_BYTES_MAX: usize = 64 * 1024;

pub(crate) async fn run(
    args: WatchArgs,
    globals: &Globals,
    output: &mut Output,
) -> Result<ExitCode> {
    let mut signals = Signals::new()?;
    let node = endpoint::open(globals, std::slice::from_ref(&args.key_or_path), args.key).await?;
    tokio::select! {
        _ = signals.next() => Ok(ExitCode::SUCCESS),
        ended = follow(&args, &node, output) => ended.map(|()| ExitCode::SUCCESS),
    }
}

async fn follow(args: &WatchArgs, node: &Node, output: &mut Output) -> Result<()> {
    let target = &node.targets[0];
    let range = match args.prefix {
        true => KeyRange::prefix(&target.prefix()),
        false => KeyRange::Key(target.key.clone()),
    };
    let from = args.rev.map_or(Revision::NONE, Revision);
    let asked = || format!("watch {}", target.shown());
    let mut watch = node.keys.watch(vec![range], from).await.asked(asked)?;
    let mut left = args.limit;
    while left != Some(0) {
        let revision = watch.next().await.asked(asked)?;
        let before = match args.prev {
            true => before(&*node.keys, &revision).await?,
            false => vec![None; revision.events.len()],
        };
        let changes: Vec<Change> = revision
            .events
            .iter()
            .zip(before)
            .map(|(event, prev)| Change { revision: &revision, event, prev })
            .collect();
        if args.command.is_empty() {
            for change in &changes {
                match output.json {
                    true => output.document(&change.document())?,
                    false => output.line(&change.line(args.prev))?,
                }
            }
            output.finish()?;
        } else {
            run_at(&args.command, &node.endpoint, &changes).await?;
        }
        left = left.map(|left| left - 1);
    }
    Ok(())
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

/// Runs the command for one revision and waits for it. What it makes of it is its own matter: the watch
/// goes on.
async fn run_at(command: &[OsString], endpoint: &str, changes: &[Change<'_>]) -> Result<()> {
    let Some(last) = changes.last() else { return Ok(()) };
    let KeyValue { key, value, .. } = &last.event.kv;
    let mut variables = vec![
        ("REVFS_ENDPOINT", endpoint.into()),
        ("REVFS_WATCH_REVISION", last.revision.stamp.revision.to_string().into()),
        ("REVFS_WATCH_KIND", last.kind().into()),
    ];
    for (name, bytes) in [("REVFS_WATCH_KEY", key), ("REVFS_WATCH_VALUE", value)] {
        if bytes.len() <= VARIABLE_BYTES_MAX && !bytes.contains(&0) {
            variables.push((name, OsString::from_vec(bytes.to_vec())));
        }
    }
    let text: String = changes.iter().map(|change| format!("{}\n", change.document())).collect();
    let mut child = Child::start(command, variables, Stdio::piped())?;
    if let Some(mut input) = child.input() {
        match input.write_all(text.as_bytes()).await {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
            // It need not read what it is told.
            _ => {}
        }
    }
    let status = child.wait().await?;
    if !status.success() {
        let revision = last.revision.stamp.revision;
        eprintln!("revfs: '{}' at revision {revision}: {status}", child.shown());
    }
    Ok(())
}
