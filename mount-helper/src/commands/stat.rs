//! `revfs stat`: what the store knows of a file besides its content; of a mount, what is asked of it ([`live`]).

mod live;

use std::ffi::OsString;

use clap::ValueHint;
use revfs_api::KeySpace;
use revfs_api::keyspace::{
    Author, DirectoryAnswer, Error, KeyValue, LeaseId, LeaseState, Revision,
};
use serde_json::{Map, Value};

use super::get::document;
use crate::args::Globals;
use crate::endpoint;
use crate::error::{Asked as _, Result};
use crate::lease_id;
use crate::moment::{At, Moment};
use crate::mounts::{self, Mount};
use crate::output::{
    Output, author_json, author_text, insert_bytes, readable, time_exact, time_local,
};
use crate::scan::{self, Existing};
use crate::target::{self, Place, Target};

/// Show key, revisions, version, time, author and lease of files, or the figures of a mount
///
/// Of a mount itself, live: what is asked of it and how fast it answers, what is staged, which events were
/// raised; each second on a terminal (Ctrl-C ends it), else once, for the time since it was mounted. Of a file,
/// what `getfattr -n user.revfs.NAME FILE` says of each. A lease is in hexadecimal, with the seconds that are
/// left of it and those that it was granted. Exits 1 if one is absent.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs stat ~/conf/app/color
  revfs stat ~/conf
  revfs stat /app/color --rev 41 --json")]
pub(crate) struct StatArgs {
    /// Keys (/app/color), or paths inside a mount
    #[arg(required = true, value_name = "KEY", value_hint = ValueHint::AnyPath)]
    keys: Vec<OsString>,

    #[command(flatten)]
    at: At,

    /// Arguments are keys, never paths
    #[arg(short, long)]
    key: bool,

    /// Show the figures of a mount once, also on a terminal
    #[arg(long)]
    once: bool,
}

impl StatArgs {
    /// The mount that is asked about, and not something in it.
    fn mount(&self) -> Option<Mount> {
        let [argument] = self.keys.as_slice() else { return None };
        if self.key || self.at.moment() != Moment::Now {
            return None;
        }
        match target::place(argument, &mounts::ours().unwrap_or_default()) {
            Place::Inside { mount, below } if below.as_os_str().is_empty() => Some(mount),
            Place::Inside { .. } | Place::Key => None,
        }
    }
}

pub(crate) async fn run(args: StatArgs, globals: &Globals, output: &mut Output) -> Result<()> {
    if let Some(mount) = args.mount() {
        return live::run(&mount, args.once, output).await;
    }
    let node = endpoint::open(globals, &args.keys, args.key).await?;
    let keys = &*node.keys;
    let asked = args.at.moment();
    let view = asked.fixed_revision(keys).await?;
    for (index, target) in node.targets.iter().enumerate() {
        let revision = super::get::revision_of(target, &asked, view)?;
        let found = scan::existing(keys, revision, target).await?;
        if found.is_absent() {
            output.finish()?;
            return Err(super::get::absence(keys, target, revision, false).await?);
        }
        if index > 0 && !output.json {
            output.line("")?;
        }
        print(keys, target, &found, output).await?;
    }
    output.finish()
}

async fn print(
    keys: &dyn KeySpace,
    target: &Target,
    found: &Existing,
    output: &mut Output,
) -> Result<()> {
    let Some(kv) = &found.file else { return print_directory(target, found.directory, output) };
    let author = author(keys, kv.mod_revision).await?;
    let lease = match kv.lease {
        LeaseId(0) => None,
        id => {
            let state = keys.lease_time_to_live(id, false).await;
            state.asked(|| format!("ask for lease {}", lease_id::shown(id)))?
        }
    };
    if output.json {
        let mut object = document(kv, false);
        object.insert("author".into(), author_json(&author));
        if let Some(lease) = &lease {
            object.insert("ttl".into(), lease.remaining_seconds.into());
            object.insert("granted".into(), lease.granted_seconds.into());
        }
        return output.document(&object.into());
    }
    print_file(kv, &author, lease.as_ref(), output)
}

fn print_file(
    kv: &KeyValue,
    author: &Author,
    lease: Option<&LeaseState>,
    output: &mut Output,
) -> Result<()> {
    let lease = match (kv.lease, lease) {
        (LeaseId(0), _) => "-".to_owned(),
        (id, None) => lease_id::shown(id),
        (id, Some(state)) => {
            let LeaseState { remaining_seconds, granted_seconds, .. } = state;
            let id = lease_id::shown(id);
            format!("{id} ({remaining_seconds} of {granted_seconds} seconds left)")
        }
    };
    rows(
        output,
        &[
            ("key", readable(&kv.key)),
            ("bytes", kv.value_bytes.to_string()),
            ("create_revision", kv.create_revision.to_string()),
            ("mod_revision", kv.mod_revision.to_string()),
            ("version", kv.version.to_string()),
            ("time", time_local(kv.time)),
            ("author", author_text(author)),
            ("lease", lease),
        ],
    )
}

fn print_directory(target: &Target, directory: DirectoryAnswer, output: &mut Output) -> Result<()> {
    let own = target.directory();
    if output.json {
        let mut object = Map::new();
        insert_bytes(&mut object, "key", own.as_bytes());
        object.insert("names".into(), directory.names.into());
        object.insert("changed".into(), directory.changed.0.into());
        object.insert("time".into(), time_exact(directory.time).into());
        return output.document(&Value::Object(object));
    }
    rows(
        output,
        &[
            ("key", readable(own.as_bytes())),
            ("names", directory.names.to_string()),
            ("changed", directory.changed.to_string()),
            ("time", time_local(directory.time)),
        ],
    )
}

fn rows(output: &mut Output, rows: &[(&str, String)]) -> Result<()> {
    let cells =
        |(name, value): &(&str, String)| vec![name.as_bytes().to_vec(), value.clone().into()];
    output.table(&rows.iter().map(cells).collect::<Vec<_>>())
}

/// Nobody where the backend keeps no authors, or has forgotten them.
async fn author(keys: &dyn KeySpace, revision: Revision) -> Result<Author> {
    match keys.stamp(revision).await {
        Ok(stamp) => Ok(stamp.author),
        Err(Error::Compacted { .. } | Error::Unsupported(_)) => Ok(Author::default()),
        Err(error) => Err(error).asked(|| format!("read the author of revision {revision}")),
    }
}
