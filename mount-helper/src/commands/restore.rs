//! `revfs restore`: makes a file or directory what it was, in one transaction.

use std::ffi::OsString;

use bytes::Bytes;
use clap::ValueHint;
use revfs_api::KeySpace;
use revfs_api::keyspace::{ChangeKind, ChangesRequest, Op, Revision, Txn};
use serde_json::{Map, Value};

use crate::args::Globals;
use crate::compare;
use crate::endpoint;
use crate::error::{Asked as _, Failure, Result};
use crate::moment::Moment;
use crate::names::key_of_record;
use crate::origin::origin;
use crate::output::{Output, counted, insert_bytes, readable};
use crate::scan;
use crate::target::Target;

/// Make a file or directory what it was at a revision or time
///
/// One transaction, so that nobody sees half of it: contents, modes, owners and links come back, and
/// what did not exist then is deleted. It is a new revision: nothing is lost, and restoring to the
/// revision before undoes it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs restore ~/conf/app --to 41
  revfs restore ~/conf/app/limits --to -10m
  revfs restore /app/ --to 2026-11-22T10:00:00Z --dry-run")]
pub(crate) struct RestoreArgs {
    /// A path inside a mount, or a key
    #[arg(value_hint = ValueHint::AnyPath)]
    path: OsString,

    /// A revision, or a time: 2026-11-22T10:00:00Z, 2026-11-22, -10m, -2h, -7d
    #[arg(long, value_name = "N|T", allow_hyphen_values = true)]
    to: String,

    /// Only say what would change
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Also if PATH did not exist then: delete it
    #[arg(long)]
    delete: bool,

    /// PATH is a key, never a path
    #[arg(short, long)]
    key: bool,
}

/// What happens to one key.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    key: Bytes,
    what: &'static str,
}

pub(crate) async fn run(args: RestoreArgs, globals: &Globals, output: &mut Output) -> Result<()> {
    let moment = match Moment::parse(&args.to)? {
        Moment::Now => return Err(Failure::usage("--to '' names no revision and no time")),
        moment => moment,
    };
    let node = endpoint::open(globals, &[args.path], args.key).await?;
    let (keys, target) = (&*node.keys, &node.targets[0]);
    if target.revision.is_some() {
        let shown = target.shown();
        return Err(Failure::usage(format!("'{shown}' lies in the past"))
            .hint("name the present path; --to says the revision"));
    }
    let to = moment.fixed_revision(keys).await?;
    check_existed(keys, target, to, args.delete).await?;
    if args.dry_run {
        let now = crate::moment::current(keys).await?;
        let steps = planned(keys, target, to, now).await?;
        return print(&steps, to, None, output);
    }
    let mut ranges = target.ranges();
    ranges.extend(target.record_ranges());
    let restore = |range| Op::Restore { range, revision: to };
    let txn = Txn { success: ranges.iter().cloned().map(restore).collect(), ..Txn::default() };
    let answer = keys.txn(txn, origin()).await;
    let answer = answer.asked(|| format!("restore {} to revision {to}", target.shown()))?;
    if !answer.changed {
        return print(&[], to, Some(answer.revision), output);
    }
    // What the transaction really did, as its own revision tells it.
    let request = ChangesRequest {
        ranges,
        from: answer.revision,
        to: answer.revision,
        newest_first: false,
        limit: 0,
        scan_limit: 0,
        keys_only: true,
    };
    let changes = keys.changes(request).await;
    let changes = changes
        .asked(|| format!("list what revision {} changed; it is done, though", answer.revision))?;
    let events = changes.revisions.iter().flat_map(|revision| &revision.events);
    let steps = events.map(|event| {
        let what = if event.kind == ChangeKind::Put { "restored" } else { "deleted" };
        (event.kv.key.clone(), what)
    });
    print(&merged(steps), to, Some(answer.revision), output)
}

/// Restoring what did not exist deletes it: only on demand.
async fn check_existed(
    keys: &dyn KeySpace,
    target: &Target,
    to: Revision,
    delete: bool,
) -> Result<()> {
    let then = scan::existing(keys, to, target).await?;
    if delete || !then.is_absent() {
        return Ok(());
    }
    let shown = target.shown();
    let now = scan::existing(keys, Revision::NONE, target).await?;
    if now.is_absent() {
        return Err(Failure::not_found(format!("{shown} exists neither at revision {to} nor now"))
            .hint(format!("revfs log {shown} shows when it existed")));
    }
    Err(Failure::not_found(format!(
        "{shown} did not exist at revision {to}: restoring it would delete it"
    ))
    .hint(format!("name another revision (revfs log {shown}), or say --delete")))
}

async fn planned(
    keys: &dyn KeySpace,
    target: &Target,
    to: Revision,
    now: Revision,
) -> Result<Vec<Step>> {
    let candidates = compare::candidates(keys, target, now, to).await?;
    let step = |candidate: &compare::Candidate| {
        let what = match (&candidate.after, candidate.content_changed()) {
            (None, _) => "deleted",
            (Some(_), true) => "restored",
            (Some(_), false) => "attributes",
        };
        Step { key: candidate.key.clone(), what }
    };
    Ok(candidates.iter().map(step).collect())
}

/// One step for a key and its side record, in key order.
fn merged(events: impl Iterator<Item = (Bytes, &'static str)>) -> Vec<Step> {
    let mut steps: std::collections::BTreeMap<Bytes, &'static str> =
        std::collections::BTreeMap::new();
    let mut records = Vec::new();
    for (key, what) in events {
        match key_of_record(&key) {
            Some(key) => records.push(key),
            None => {
                steps.insert(key, what);
            }
        }
    }
    for key in records {
        steps.entry(key).or_insert("attributes");
    }
    steps.into_iter().map(|(key, what)| Step { key, what }).collect()
}

/// `made`: the revision of the transaction; none if nothing was done.
fn print(steps: &[Step], to: Revision, made: Option<Revision>, output: &mut Output) -> Result<()> {
    if output.json {
        let mut object = Map::new();
        object.insert("to".into(), to.0.into());
        object.insert("revision".into(), made.map(|revision| revision.0).into());
        object.insert("dry_run".into(), made.is_none().into());
        object.insert("changes".into(), steps.iter().map(document).collect());
        output.document(&Value::Object(object))?;
        return output.finish();
    }
    let rows: Vec<Vec<Vec<u8>>> = steps
        .iter()
        .map(|step| vec![step.what.as_bytes().to_vec(), readable(&step.key).into_bytes()])
        .collect();
    output.table(&rows)?;
    let count = counted(steps.len() as u64, "key");
    match made {
        _ if steps.is_empty() => {
            output.line(&format!("nothing to do: it is as it was at revision {to}"))?;
        }
        Some(revision) => {
            output.line(&format!("{count} as at revision {to}: revision {revision}"))?;
        }
        None => output.line(&format!("{count} would change; nothing was done"))?,
    }
    output.finish()
}

fn document(step: &Step) -> Value {
    let mut object = Map::new();
    insert_bytes(&mut object, "key", &step.key);
    object.insert("change".into(), step.what.into());
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_and_its_side_record_are_one_step() {
        let record = |key: &[u8]| crate::names::record_key(key);
        let events = [
            (record(b"/a"), "restored"),
            (record(b"/b"), "deleted"),
            (Bytes::from("/a"), "restored"),
            (Bytes::from("/c"), "deleted"),
        ];
        let step = |key: &'static str, what| Step { key: key.into(), what };
        let expected = [step("/a", "restored"), step("/b", "attributes"), step("/c", "deleted")];
        assert_eq!(merged(events.into_iter()), expected);
    }
}
