//! `revfs inspect`: what is in the data of a node that does not run, and whether it agrees.

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::ValueHint;
use revfs_api::keyspace::Time;
use revfs_cluster::StartError;
use revfs_cluster::inspect::{self as cluster, Facts, Inspection, PrefixFacts, Progress as Rows};
use serde_json::{Map, Value, json};

use super::status::bytes;
use crate::error::{Failure, Kind, Result};
use crate::output::{Output, Progress, counted, insert_bytes, readable, time_exact, time_local};

/// Look into the data of a node that does not run
///
/// Says what is in a data directory, or in a snapshot: revisions, sizes, keys of each directory. With
/// --check everything is compared with everything and each violation is printed; then the exit code
/// is 1 if there is one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs inspect /var/lib/revfs/srv-conf
  revfs inspect /var/lib/revfs/srv-conf --check
  revfs inspect /var/backups/conf.snapshot --depth 2 --json")]
pub(crate) struct InspectArgs {
    /// The data directory of a node that does not run, or a snapshot
    #[arg(value_name = "DATA-DIR", value_hint = ValueHint::AnyPath)]
    path: PathBuf,

    /// Check every page, row and invariant
    #[arg(long)]
    check: bool,

    /// Count keys by so many directories
    #[arg(long, value_name = "N", default_value_t = 1)]
    depth: usize,
}

pub(crate) fn run(args: &InspectArgs, output: &mut Output) -> Result<()> {
    let shown = args.path.display();
    let inspection = cluster::inspect(&args.path, args.check).map_err(|error| {
        let failure = Failure::caused(format!("cannot inspect '{shown}'"), &error);
        match error {
            StartError::InUse { .. } => failure
                .of_kind(Kind::Conflict)
                .hint("ask the running node: revfs status")
                .hint("or save a snapshot and inspect that: revfs snapshot save FILE"),
            _ => failure,
        }
    })?;
    let failed = |error| Failure::caused(format!("cannot inspect '{shown}'"), &error);
    let progress = Progress::new();
    let mut count = |rows: Rows| {
        progress.at(format!("reading: row {} of {}", rows.done_bytes, rows.total_bytes));
        ControlFlow::Continue(())
    };
    // Violations first: counting ends at a damaged row.
    let mut violations = Vec::new();
    if args.check {
        let mut report = |violation| violations.push(violation);
        inspection.inspector.check(&mut count, &mut report).map_err(failed)?;
    }
    let facts = inspection.inspector.facts(args.depth, &mut count);
    let facts = match facts {
        Err(_) if !violations.is_empty() => None,
        facts => Some(facts.map_err(failed)?),
    };
    drop(progress);
    let violations: Vec<String> = violations.iter().map(ToString::to_string).collect();
    if output.json {
        output.document(&document(args, &inspection, facts.as_ref(), &violations))?;
    } else {
        print(args, &inspection, facts.as_ref(), &violations, output)?;
    }
    output.finish()?;
    if violations.is_empty() { Ok(()) } else { Err(Failure::new(Kind::Differs, "")) }
}

fn print(
    args: &InspectArgs,
    inspection: &Inspection,
    facts: Option<&Facts>,
    violations: &[String],
    output: &mut Output,
) -> Result<()> {
    if let Some(facts) = facts {
        output.table(&summary(inspection, facts))?;
        output.line("")?;
        let mut trees = vec![row(["tree", "rows", "bytes"])];
        trees.extend(
            facts.trees.iter().map(|facts| {
                row([facts.tree.name(), &facts.rows.to_string(), &bytes(facts.bytes)])
            }),
        );
        output.table(&trees)?;
        output.line("")?;
        let mut prefixes = vec![row(["keys", "values", "below"])];
        let line = |below: &str, facts: &PrefixFacts| {
            row([&facts.keys.to_string(), &bytes(facts.value_bytes), below])
        };
        prefixes.extend(facts.prefixes.iter().map(|(name, facts)| line(&readable(name), facts)));
        if facts.other_prefixes.keys > 0 {
            prefixes.push(line("(others)", &facts.other_prefixes));
        }
        output.table(&prefixes)?;
    }
    if args.check {
        for violation in violations {
            output.line(&format!("violation: {violation}"))?;
        }
        let found = u64::try_from(violations.len()).unwrap_or(u64::MAX);
        output.line(&format!(
            "\nchecked every page, row and invariant: {}",
            counted(found, "violation")
        ))?;
    }
    Ok(())
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<Vec<u8>> {
    cells.iter().map(|cell| cell.as_bytes().to_vec()).collect()
}

fn summary(inspection: &Inspection, facts: &Facts) -> Vec<Vec<Vec<u8>>> {
    let Facts { revision, time, position, size, .. } = facts;
    let history = match facts.compacted {
        None => "complete".to_owned(),
        Some(compacted) if facts.compacted_physically >= compacted => {
            format!("since revision {compacted}")
        }
        Some(compacted) => format!(
            "since revision {compacted}; the space of what is older is free up to {}",
            facts.compacted_physically
        ),
    };
    let cluster = match inspection.ids {
        Some((cluster, member)) => format!("{cluster:016x}, member {member:016x}"),
        None => "none: this is a snapshot".to_owned(),
    };
    let rows = [
        ("file", inspection.file.display().to_string()),
        ("format", facts.format_version.to_string()),
        ("cluster", cluster),
        ("log", format!("entry {}, term {}", position.index, position.term)),
        ("revision", format!("{revision} of {}", time_local(Time(time.0)))),
        ("history", history),
        ("keys", format!("{}, {} of values", facts.living.keys, bytes(facts.living.value_bytes))),
        ("versions", facts.versions.to_string()),
        ("store", format!("{}, {} in use", bytes(size.file_bytes), bytes(size.in_use_bytes))),
    ];
    rows.iter().map(|(name, value)| row([name, value])).collect()
}

fn document(
    args: &InspectArgs,
    inspection: &Inspection,
    facts: Option<&Facts>,
    violations: &[String],
) -> Value {
    let mut document = json!({ "file": inspection.file.display().to_string() });
    if let Some((cluster, member)) = inspection.ids {
        document["cluster_id"] = format!("{cluster:016x}").into();
        document["member_id"] = format!("{member:016x}").into();
    }
    if let Some(facts) = facts {
        let prefix = |(name, facts): (&bytes::Bytes, &PrefixFacts)| {
            let mut object = Map::new();
            insert_bytes(&mut object, "prefix", name);
            object.insert("keys".to_owned(), facts.keys.into());
            object.insert("value_bytes".to_owned(), facts.value_bytes.into());
            Value::from(object)
        };
        let tree = |facts: &cluster::TreeFacts| json!({ "tree": facts.tree.name(), "rows": facts.rows, "bytes": facts.bytes });
        document["format_version"] = facts.format_version.into();
        document["log_index"] = facts.position.index.into();
        document["log_term"] = facts.position.term.into();
        document["revision"] = facts.revision.0.into();
        document["time"] = time_exact(Time(facts.time.0)).into();
        document["compacted_revision"] = facts.compacted.map_or(0, |revision| revision.0).into();
        document["compacted_physically"] = facts.compacted_physically.0.into();
        document["keys"] = facts.living.keys.into();
        document["value_bytes"] = facts.living.value_bytes.into();
        document["versions"] = facts.versions.into();
        document["file_bytes"] = facts.size.file_bytes.into();
        document["in_use_bytes"] = facts.size.in_use_bytes.into();
        document["trees"] = facts.trees.iter().map(tree).collect();
        document["prefixes"] = facts.prefixes.iter().map(prefix).collect();
    }
    if args.check {
        document["violations"] = violations.into();
    }
    document
}
