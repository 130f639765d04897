//! `revfs get`: prints values.

use std::ffi::OsString;

use clap::ValueHint;
use revfs_api::KeySpace;
use revfs_api::keyspace::{KeyRange, KeyValue, Revision};
use serde_json::{Map, Value};

use crate::args::Globals;
use crate::endpoint;
use crate::error::{Failure, Result};
use crate::moment::{At, Moment};
use crate::output::{Output, insert_bytes, readable, time_exact};
use crate::scan;
use crate::target::Target;

/// Print the values of keys or files
///
/// One KEY: its value, with a newline at the end if it has none (--raw: the exact bytes).
/// Several, or --prefix: one line for each, KEY TAB VALUE with control characters written \xHH
/// (--raw: the values one after the other). Exits 1 if a KEY is absent.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs get /app/color
  revfs get ~/conf/app/color --time -2h
  revfs get --prefix /app/ --json")]
pub(crate) struct GetArgs {
    /// Keys (/app/color), or paths inside a mount
    #[arg(required = true, value_name = "KEY", value_hint = ValueHint::AnyPath)]
    keys: Vec<OsString>,

    #[command(flatten)]
    at: At,

    /// Every key that begins with KEY; for a path, every file below it
    #[arg(long)]
    prefix: bool,

    /// Exactly the bytes of the values
    #[arg(short = 'p', long)]
    raw: bool,

    /// Arguments are keys, never paths
    #[arg(short, long)]
    key: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Raw,
    /// Of a single key: the value, ended by a newline.
    Value,
    /// One of several: key, tab, value.
    Line,
}

pub(crate) async fn run(args: GetArgs, globals: &Globals, output: &mut Output) -> Result<()> {
    let node = endpoint::open(globals, &args.keys, args.key).await?;
    let keys = &*node.keys;
    let form = match (output.json, args.raw, args.prefix || node.targets.len() > 1) {
        (true, ..) => Form::Json,
        (false, true, _) => Form::Raw,
        (false, false, true) => Form::Line,
        (false, false, false) => Form::Value,
    };
    let asked = args.at.moment();
    let view = asked.fixed_revision(keys).await?;
    let mut absent = Vec::new();
    for target in &node.targets {
        let revision = revision_of(target, &asked, view)?;
        let found = if args.prefix {
            print_range(keys, revision, KeyRange::prefix(&target.prefix()), form, output).await?
        } else {
            print_key(keys, revision, target, form, output).await?
        };
        if !found {
            absent.push((target, revision));
        }
    }
    output.finish()?;
    match absent.as_slice() {
        [] => Ok(()),
        [(target, revision), ..] => Err(absence(keys, target, *revision, args.prefix).await?),
    }
}

/// The revision in the path (`@rev/N`) or the one of the options, not both.
pub(crate) fn revision_of(target: &Target, asked: &Moment, view: Revision) -> Result<Revision> {
    match target.revision {
        None => Ok(view),
        Some(revision) if *asked == Moment::Now => Ok(revision),
        Some(revision) => Err(Failure::usage(format!(
            "'{}' lies at revision {revision} already; --rev and --time do not go with it",
            target.shown()
        ))),
    }
}

async fn print_key(
    keys: &dyn KeySpace,
    revision: Revision,
    target: &Target,
    form: Form,
    output: &mut Output,
) -> Result<bool> {
    let found = scan::values(keys, revision, vec![target.key.clone()]).await?;
    match found.into_iter().next().flatten() {
        Some(kv) => print(&kv, form, output).map(|()| true),
        None => Ok(false),
    }
}

async fn print_range(
    keys: &dyn KeySpace,
    revision: Revision,
    range: KeyRange,
    form: Form,
    output: &mut Output,
) -> Result<bool> {
    let all = scan::range(keys, revision, range).await?;
    let mut rest = all.as_slice();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(scan::batch(rest));
        let wanted = now.iter().map(|kv| kv.key.clone()).collect();
        for kv in scan::values(keys, revision, wanted).await?.into_iter().flatten() {
            print(&kv, form, output)?;
        }
        rest = later;
    }
    Ok(!all.is_empty())
}

fn print(kv: &KeyValue, form: Form, output: &mut Output) -> Result<()> {
    match form {
        Form::Raw => output.bytes(&kv.value),
        Form::Json => output.document(&Value::Object(document(kv, true))),
        Form::Line => output.line(&format!("{}\t{}", readable(&kv.key), readable(&kv.value))),
        Form::Value => {
            output.bytes(&kv.value)?;
            if kv.value.ends_with(b"\n") { Ok(()) } else { output.line("") }
        }
    }
}

/// A key as JSON.
pub(crate) fn document(kv: &KeyValue, with_value: bool) -> Map<String, Value> {
    let mut object = Map::new();
    insert_bytes(&mut object, "key", &kv.key);
    if with_value {
        insert_bytes(&mut object, "value", &kv.value);
    }
    object.insert("value_bytes".into(), kv.value_bytes.into());
    object.insert("create_revision".into(), kv.create_revision.0.into());
    object.insert("mod_revision".into(), kv.mod_revision.0.into());
    object.insert("version".into(), kv.version.into());
    object.insert("time".into(), time_exact(kv.time).into());
    if kv.lease.0 != 0 {
        object.insert("lease".into(), kv.lease.0.into());
    }
    object
}

/// Says what is absent, and what the user may have meant.
pub(crate) async fn absence(
    keys: &dyn KeySpace,
    target: &Target,
    revision: Revision,
    prefix: bool,
) -> Result<Failure> {
    let shown = target.shown();
    if prefix {
        let range = readable(&target.prefix());
        return Ok(Failure::not_found(format!(
            "no key begins with {range} at revision {revision}"
        )));
    }
    let failure = Failure::not_found(format!("{shown} does not exist at revision {revision}"));
    let directory = scan::existing(keys, revision, target).await?.directory;
    if directory.names > 0 {
        return Ok(failure.hint(format!("it is a directory: revfs ls {shown}")));
    }
    if !target.is_path && !target.key.starts_with(b"/") {
        return Ok(failure.hint(format!("keys that a mount shows begin with a slash: /{shown}")));
    }
    Ok(failure.hint(format!("revfs log {shown} shows when it existed")))
}
