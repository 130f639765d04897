//! `revfs del`: deletes keys, all of one call in one transaction.

use std::ffi::OsString;

use clap::ValueHint;
use revfs_api::keyspace::{KeyRange, Op, OpAnswer, Txn};

use crate::args::Globals;
use crate::endpoint::{self, Node};
use crate::error::{Asked as _, Failure, Result};
use crate::names::record_key;
use crate::origin::origin;
use crate::output::{Output, counted};
use crate::target::Target;

/// Delete keys, in one transaction
///
/// What was deleted stays in the history: revfs restore brings it back. Exits 1 if nothing was
/// there to delete.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs del /app/color /app/size
  revfs del --prefix /app/")]
pub(crate) struct DelArgs {
    /// Keys (/app/color), or paths inside a mount
    #[arg(required = true, value_name = "KEY", value_hint = ValueHint::AnyPath)]
    keys: Vec<OsString>,

    /// Every key that begins with KEY; for a path, everything below it
    #[arg(long)]
    prefix: bool,

    /// Arguments are keys, never paths
    #[arg(short, long)]
    key: bool,
}

pub(crate) async fn run(args: DelArgs, globals: &Globals, output: &mut Output) -> Result<()> {
    let node = endpoint::open(globals, &args.keys, args.key).await?;
    let mut ranges = Vec::new();
    for target in &node.targets {
        ranges.push(range_to_delete(target, args.prefix)?);
    }
    // A real etcd has no side records, and the user may lack the permission to touch their keys.
    let records = if node.keys.capabilities().bulk { records_of(&ranges) } else { Vec::new() };
    let delete = |range: KeyRange| Op::Delete { range, prev_kv: false };
    let success = ranges.iter().cloned().chain(records).map(delete).collect();
    let txn = Txn { success, ..Txn::default() };
    let answer = node.keys.txn(txn, origin()).await.asked(|| format!("delete {}", shown(&node)))?;
    let deleted: u64 = answer.answers.iter().take(ranges.len()).map(deleted).sum();
    if output.json {
        let revision = answer.revision.0;
        output.document(&serde_json::json!({ "deleted": deleted, "revision": revision }))?;
    } else if deleted > 0 {
        output.line(&format!(
            "deleted {}, revision {}",
            counted(deleted, "key"),
            answer.revision
        ))?;
    }
    output.finish()?;
    if deleted > 0 {
        return Ok(());
    }
    let failure = Failure::not_found(format!("nothing to delete: {} does not exist", shown(&node)));
    if args.prefix { Err(failure) } else { Err(failure.hint("a directory needs --prefix")) }
}

fn shown(node: &Node) -> String {
    node.targets.iter().map(Target::shown).collect::<Vec<_>>().join(", ")
}

fn range_to_delete(target: &Target, prefix: bool) -> Result<KeyRange> {
    if prefix && target.prefix().is_empty() {
        return Err(Failure::usage("--prefix with an empty key would delete every key there is")
            .hint("'/' means everything that a mount shows"));
    }
    super::put::check_writable(target)?;
    if prefix {
        Ok(KeyRange::prefix(&target.prefix()))
    } else {
        Ok(KeyRange::Key(target.key.clone()))
    }
}

/// The side records of what is deleted: left behind they would be void, but still take space.
fn records_of(ranges: &[KeyRange]) -> Vec<KeyRange> {
    let record = |range: &KeyRange| match range {
        KeyRange::Key(key) => KeyRange::Key(record_key(key)),
        KeyRange::Span { start, .. } | KeyRange::From(start) => {
            KeyRange::prefix(&record_key(start))
        }
    };
    ranges.iter().map(record).collect()
}

fn deleted(answer: &OpAnswer) -> u64 {
    match answer {
        OpAnswer::Delete { deleted, .. } => *deleted,
        _ => 0,
    }
}
