//! `revfs lock --list`: who holds locks of files, on all mounts, and who waits for one.

use std::ffi::OsString;

use revfs_fs::locks::{Kind, LockedBy, list};
use serde_json::{Map, Value};

use crate::args::Globals;
use crate::endpoint;
use crate::error::{Asked as _, Result};
use crate::output::{Output, insert_bytes, readable};

const COLUMNS: [&str; 6] = ["file", "kind", "state", "bytes", "host", "process"];

pub(super) async fn run(
    below: Option<OsString>,
    globals: &Globals,
    output: &mut Output,
) -> Result<()> {
    let arguments: Vec<OsString> = below.into_iter().collect();
    let node = endpoint::open(globals, &arguments, false).await?;
    let target = node.targets.first();
    let prefix = target.map(|target| target.key.clone()).unwrap_or_default();
    let found = list(&*node.keys, &prefix).await.asked(|| "read the locks".to_owned())?;
    let wanted = found.iter().filter(|lock| {
        target.is_none_or(|target| target.ranges().iter().any(|range| range.contains(&lock.key)))
    });
    if output.json {
        wanted.into_iter().try_for_each(|lock| output.document(&document(lock)))?;
    } else {
        let rows: Vec<_> = wanted.map(row).collect();
        output.columns(&COLUMNS, &rows)?;
    }
    output.finish()
}

fn kind(lock: &LockedBy) -> &'static str {
    match lock.kind {
        Kind::Shared => "shared",
        Kind::Exclusive => "exclusive",
    }
}

fn state(lock: &LockedBy) -> &'static str {
    if lock.waits { "waits" } else { "held" }
}

fn row(lock: &LockedBy) -> Vec<String> {
    let bytes = match (lock.start, lock.end) {
        (0, None) => "all".to_owned(),
        (start, None) => format!("{start}-"),
        (start, Some(end)) => format!("{start}-{end}"),
    };
    vec![
        readable(&lock.key),
        kind(lock).to_owned(),
        state(lock).to_owned(),
        bytes,
        lock.host.clone(),
        lock.process.to_string(),
    ]
}

fn document(lock: &LockedBy) -> Value {
    let mut object = Map::new();
    insert_bytes(&mut object, "key", &lock.key);
    object.insert("kind".into(), kind(lock).into());
    object.insert("state".into(), state(lock).into());
    object.insert("start".into(), lock.start.into());
    object.insert("end".into(), lock.end.into());
    object.insert("host".into(), lock.host.clone().into());
    object.insert("mount".into(), lock.mount.clone().into());
    object.insert("process".into(), lock.process.into());
    object.into()
}
