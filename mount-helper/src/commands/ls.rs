//! `revfs ls`: one level below a directory, or everything.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::sync::Arc;

use bytes::Bytes;
use clap::ValueHint;
use revfs_api::KeySpace;
use revfs_api::keyspace::{Error, KeyRange, KeyValue, ListEntry, Revision, Stamp, Time};
use serde_json::{Map, Value};
use tokio::task::JoinSet;

use crate::args::Globals;
use crate::endpoint;
use crate::error::{Asked as _, Result};
use crate::moment::At;
use crate::output::{Output, author_json, author_text, insert_bytes, time_exact, time_local};
use crate::scan;

/// List one level below a directory
///
/// Names that end in a slash have keys below them. Without an argument: the directory of the mount
/// that one stands in, else /.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs ls /app -l
  revfs ls ~/conf/app/@rev/41
  revfs ls -R / --json")]
pub(crate) struct LsArgs {
    /// A key (/app), or a path inside a mount
    #[arg(value_name = "KEY", value_hint = ValueHint::AnyPath)]
    directory: Option<OsString>,

    /// With revision, time, size and author of each
    #[arg(short, long)]
    long: bool,

    /// Every key below, whole
    #[arg(short = 'R', long)]
    recursive: bool,

    #[command(flatten)]
    at: At,

    /// The argument is a key, never a path
    #[arg(short, long)]
    key: bool,
}

/// Questions for authors that are under way together.
const STAMPS_AT_ONCE: usize = 32;

/// One line of the listing.
struct Row {
    name: Bytes,
    key: Bytes,
    kv: Option<KeyValue>,
    is_directory: bool,
    revision: Revision,
    time: Time,
}

impl Row {
    fn of_key(name: Bytes, kv: KeyValue) -> Self {
        let (revision, time) = (kv.mod_revision, kv.time);
        Self { name, key: kv.key.clone(), kv: Some(kv), is_directory: false, revision, time }
    }

    /// `None` for the marker of the directory listed, which has no name.
    fn of_entry(directory: &Bytes, entry: ListEntry) -> Option<Self> {
        let ListEntry { name, kv, directory: below } = entry;
        if name.is_empty() {
            return None;
        }
        let key = Bytes::from([directory.as_ref(), &name].concat());
        match (below, kv) {
            (Some(below), kv) => {
                let (revision, time) = (below.changed, below.time);
                Some(Self { name, key, kv, is_directory: true, revision, time })
            }
            (None, Some(kv)) => Some(Self::of_key(name, kv)),
            (None, None) => None,
        }
    }
}

pub(crate) async fn run(args: LsArgs, globals: &Globals, output: &mut Output) -> Result<()> {
    let arguments = [directory_argument(args.directory)];
    let node = endpoint::open(globals, &arguments, args.key).await?;
    let (keys, target) = (&*node.keys, &node.targets[0]);
    let asked = args.at.moment();
    let view = asked.fixed_revision(keys).await?;
    let revision = super::get::revision_of(target, &asked, view)?;
    let existing = scan::existing(keys, revision, target).await?;
    // The root of an empty store is an empty directory, not a missing one.
    let is_root = matches!(target.key.as_ref(), b"" | b"/");
    if existing.is_absent() && !is_root {
        return Err(super::get::absence(keys, target, revision, false).await?);
    }
    let directory = target.directory().as_bytes().clone();
    let rows: Vec<Row> = if existing.directory.names == 0 && !is_root {
        existing.file.map(|kv| Row::of_key(kv.key.clone(), kv)).into_iter().collect()
    } else if args.recursive {
        let all = scan::range(keys, revision, KeyRange::prefix(&directory)).await?;
        all.into_iter().map(|kv| Row::of_key(kv.key.clone(), kv)).collect()
    } else {
        let entries = scan::list(keys, revision, &directory).await?;
        entries.into_iter().filter_map(|entry| Row::of_entry(&directory, entry)).collect()
    };
    let revisions = rows.iter().map(|row| row.revision).collect();
    let stamps = if args.long { Some(stamps(&node.keys, revisions).await?) } else { None };
    print(&rows, stamps.as_ref(), output)?;
    output.finish()
}

/// The current directory if it lies in a mount, else the root.
fn directory_argument(argument: Option<OsString>) -> OsString {
    argument.unwrap_or_else(|| {
        let mounts = crate::mounts::ours().unwrap_or_default();
        match crate::target::place(".".as_ref(), &mounts) {
            crate::target::Place::Inside { .. } => ".".into(),
            crate::target::Place::Key => "/".into(),
        }
    })
}

fn print(
    rows: &[Row],
    stamps: Option<&BTreeMap<Revision, Stamp>>,
    output: &mut Output,
) -> Result<()> {
    let mut table = Vec::new();
    for row in rows {
        let stamp = stamps.and_then(|stamps| stamps.get(&row.revision));
        if output.json {
            output.document(&document(row, stamp))?;
        } else if stamps.is_some() {
            let size = row.kv.as_ref().filter(|_| !row.is_directory);
            let size = size.map_or_else(|| "-".to_owned(), |kv| kv.value_bytes.to_string());
            let author = stamp.map_or_else(|| "-".to_owned(), |stamp| author_text(&stamp.author));
            let columns = [row.revision.to_string(), time_local(row.time), size, author];
            let name = output.name(&row.name).into_owned();
            table.push(columns.into_iter().map(String::into_bytes).chain([name]).collect());
        } else {
            let name = output.name(&row.name).into_owned();
            output.bytes(&name)?;
            output.line("")?;
        }
    }
    output.table(&table)
}

fn document(row: &Row, stamp: Option<&Stamp>) -> Value {
    let mut object = Map::new();
    insert_bytes(&mut object, "name", &row.name);
    insert_bytes(&mut object, "key", &row.key);
    object.insert("directory".into(), row.is_directory.into());
    object.insert("revision".into(), row.revision.0.into());
    object.insert("time".into(), time_exact(row.time).into());
    if let Some(kv) = row.kv.as_ref().filter(|_| !row.is_directory) {
        object.extend(super::get::document(kv, false));
    }
    if let Some(stamp) = stamp {
        object.insert("author".into(), author_json(&stamp.author));
    }
    Value::Object(object)
}

/// Who made each of the revisions; many keys share one. Left out is what the backend does not know:
/// before the compaction, or on a foreign etcd.
async fn stamps(
    keys: &Arc<dyn KeySpace>,
    revisions: BTreeSet<Revision>,
) -> Result<BTreeMap<Revision, Stamp>> {
    let mut known = BTreeMap::new();
    let mut asked = JoinSet::new();
    let mut rest = revisions.into_iter();
    loop {
        while asked.len() < STAMPS_AT_ONCE
            && let Some(revision) = rest.next()
        {
            let keys = Arc::clone(keys);
            asked.spawn(async move { (revision, keys.stamp(revision).await) });
        }
        let Some(answer) = asked.join_next().await else { return Ok(known) };
        match answer.expect("no task is aborted, and none panics") {
            (_, Err(Error::Compacted { .. } | Error::Unsupported(_))) => {}
            (revision, stamp) => {
                let stamp = stamp.asked(|| format!("ask who made revision {revision}"))?;
                known.insert(revision, stamp);
            }
        }
    }
}
