//! `revfs put`: stores one value, on a condition if asked.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::ValueHint;
use revfs_api::keyspace::{Compare, KeyRange, Op, OpAnswer, RangeRead, Revision};
use revfs_api::keyspace::{Txn, TxnAnswer};
use serde_json::{Map, Value};

use crate::args::Globals;
use crate::endpoint;
use crate::error::{Asked as _, Failure, Result};
use crate::origin::origin;
use crate::output::{Output, insert_bytes};
use crate::target::Target;

/// Store a value under a key
///
/// The value is the argument, or the contents of --file, or standard input. When the command exits
/// 0 the value is durable. With a condition that does not hold nothing is changed and it exits 3.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs put /app/color red
  revfs put ~/conf/app/limits < limits
  revfs put /app/leader $HOSTNAME --if-absent")]
pub(crate) struct PutArgs {
    /// A key (/app/color), or a path inside a mount
    #[arg(value_name = "KEY", value_hint = ValueHint::AnyPath)]
    key_or_path: OsString,

    /// The value; left out: standard input
    value: Option<OsString>,

    /// Take the value from this file (- is standard input)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "value")]
    file: Option<PathBuf>,

    /// Only if the key does not exist
    #[arg(long)]
    if_absent: bool,

    /// Only if the key was last changed at revision N
    #[arg(long, value_name = "N", conflicts_with = "if_absent", value_parser = crate::moment::parse_revision)]
    if_rev: Option<u64>,

    /// The argument is a key, never a path
    #[arg(short, long)]
    key: bool,
}

pub(crate) async fn run(args: PutArgs, globals: &Globals, output: &mut Output) -> Result<()> {
    let PutArgs { key_or_path, value, file, if_absent, if_rev, key } = args;
    let node = endpoint::open(globals, &[key_or_path], key).await?;
    let target = &node.targets[0];
    check_writable(target)?;
    let bound = node.keys.capabilities().value_bytes_max;
    let value = match (value, file) {
        (Some(value), _) => Bytes::from(value.into_vec()),
        (None, Some(path)) if path != Path::new("-") => read_file(&path, bound)?,
        (None, _) => read_all(io::stdin().lock(), "standard input", bound)?,
    };
    let value_bytes = value.len();
    let compare = match (if_absent, if_rev) {
        (true, _) => Some(Compare::absent(KeyRange::Key(target.key.clone()))),
        (false, Some(rev)) => Some(Compare::mod_revision(target.key.clone(), Revision(rev))),
        (false, None) => None,
    };
    let present =
        RangeRead { keys_only: true, ..RangeRead::new(KeyRange::Key(target.key.clone())) };
    let txn = Txn {
        compares: compare.into_iter().collect(),
        success: vec![Op::put(target.key.clone(), value)],
        failure: vec![Op::Range(present)],
    };
    let answer = node.keys.txn(txn, origin()).await;
    let answer = answer.asked(|| format!("put {}", target.shown()))?;
    if !answer.succeeded {
        return Err(refusal(target, if_rev, &answer));
    }
    if output.json {
        let mut object = Map::new();
        insert_bytes(&mut object, "key", &target.key);
        object.insert("value_bytes".into(), value_bytes.into());
        object.insert("revision".into(), answer.revision.0.into());
        output.document(&Value::Object(object))?;
    } else {
        output.line(&format!("revision {}", answer.revision))?;
    }
    output.finish()
}

/// Refuses what can be read but not changed.
pub(crate) fn check_writable(target: &Target) -> Result<()> {
    let shown = target.shown();
    if let Some(revision) = target.revision {
        return Err(Failure::usage(format!(
            "'{shown}' lies at revision {revision}: the past is read-only"
        ))
        .hint("revfs restore PATH --to N brings it back"));
    }
    if target.key.is_empty() {
        return Err(Failure::usage("the key is empty; a key has at least one byte"));
    }
    Ok(())
}

fn refusal(target: &Target, if_rev: Option<u64>, answer: &TxnAnswer) -> Failure {
    let present = answer.answers.iter().find_map(|answer| match answer {
        OpAnswer::Range(range) => range.kvs.first(),
        _ => None,
    });
    let shown = target.shown();
    match (present, if_rev) {
        (Some(kv), Some(wanted)) => Failure::conflict(format!(
            "{shown} was last changed at revision {}, not at {wanted} (--if-rev)",
            kv.mod_revision
        ))
        .hint(format!("revfs log {shown} shows the change; read it and try again")),
        (None, Some(wanted)) => Failure::conflict(format!(
            "{shown} does not exist, so it is not at revision {wanted} (--if-rev)"
        ))
        .hint("use --if-absent to create it"),
        (Some(kv), None) => Failure::conflict(format!(
            "{shown} exists already (--if-absent): created at revision {}, changed at {}",
            kv.create_revision, kv.mod_revision
        )),
        (None, None) => Failure::conflict(format!("{shown} appeared and vanished meanwhile")),
    }
}

fn read_file(path: &Path, bound: usize) -> Result<Bytes> {
    let shown = path.display();
    let file = File::open(path)
        .map_err(|error| Failure::caused(format!("cannot read --file '{shown}'"), &error))?;
    read_all(file, &shown.to_string(), bound)
}

/// Reads no more than a value may hold.
fn read_all(input: impl Read, name: &str, bound: usize) -> Result<Bytes> {
    if name == "standard input" && io::stdin().is_terminal() {
        eprintln!("revfs: the value is read from the terminal; Ctrl-D ends it");
    }
    let mut value = Vec::new();
    let limit = u64::try_from(bound).unwrap_or(u64::MAX).saturating_add(1);
    input
        .take(limit)
        .read_to_end(&mut value)
        .map_err(|error| Failure::caused(format!("cannot read {name}"), &error))?;
    if value.len() > bound {
        return Err(Failure::new(
            crate::error::Kind::Failure,
            format!("{name} is larger than a value may be: more than {bound} bytes"),
        )
        .hint("split it, or keep large files elsewhere and store where they are"));
    }
    Ok(Bytes::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_up_to_its_bound_and_not_beyond() {
        assert_eq!(read_all(&b"1234"[..], "f", 4).unwrap().as_ref(), b"1234");
        let failure = read_all(io::repeat(b'x'), "f", 4).unwrap_err();
        assert!(failure.render().contains("more than 4 bytes"), "{}", failure.render());
    }
}
