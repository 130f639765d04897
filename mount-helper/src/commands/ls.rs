//! `revfs ls`: one level below a directory, or everything.

use std::collections::BTreeMap;
use std::ffi::OsString;

use bytes::Bytes;
use revfs_api::KeySpace;
use revfs_api::keyspace::{Error, KeyRange, KeyValue, ListEntry, Revision, Stamp, Time};
use serde_json::{Map, Value};

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
    print(keys, &rows, args.long, output).await?;
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

async fn print(keys: &dyn KeySpace, rows: &[Row], long: bool, output: &mut Output) -> Result<()> {
    let mut stamps = Stamps::default();
    let mut table = Vec::new();
    for row in rows {
        let stamp = if long { stamps.of(keys, row.revision).await? } else { None };
        if output.json {
            output.document(&document(row, stamp.as_ref()))?;
        } else if long {
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

/// Authors by revision; many keys share one.
#[derive(Default)]
pub(crate) struct Stamps {
    known: BTreeMap<Revision, Option<Stamp>>,
}

impl Stamps {
    /// `None` where the backend does not know: before the compaction, or on a foreign etcd.
    pub(crate) async fn of(
        &mut self,
        keys: &dyn KeySpace,
        revision: Revision,
    ) -> Result<Option<Stamp>> {
        if let Some(stamp) = self.known.get(&revision) {
            return Ok(stamp.clone());
        }
        let stamp = match keys.stamp(revision).await {
            Err(Error::Compacted { .. } | Error::Unsupported(_)) => None,
            answer => Some(answer.asked(|| format!("ask who made revision {revision}"))?),
        };
        self.known.insert(revision, stamp.clone());
        Ok(stamp)
    }
}
