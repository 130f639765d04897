//! `revfs recover`: what is wrong with a data directory, and what can be done about it.

use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::{ValueEnum, ValueHint};
use revfs_cluster::StartError;
use revfs_cluster::recover::{self, Choice, Diagnosis, KnownMember};
use revfs_cluster::restore::{Bump, RestoreOptions, restore};
use serde_json::{Value, json};

use crate::error::{Failure, Kind, Result};
use crate::output::{Output, Progress, counted};

/// As `snapshot restore`: far above what was written between the backup and the end.
const BUMP: u64 = 1_000_000_000;

/// Say what is wrong with a data directory, and what can be done
///
/// Looks at the data of a node that does not run: whose it is, whether store and log are whole, who else
/// belongs to the cluster; and says which ways lead on and what each of them loses. Nothing is changed
/// unless --do names one of them, and --yes confirms it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs recover /srv/revfs
  revfs recover /srv/revfs --do force-new-cluster --yes
  revfs recover /srv/revfs --do restore --backup /var/backups/conf.snapshot --yes")]
pub(crate) struct RecoverArgs {
    /// The data directory of a node that does not run
    #[arg(value_name = "DATA-DIR", value_hint = ValueHint::DirPath)]
    path: PathBuf,

    /// Look at every page and row of the store
    #[arg(long)]
    check: bool,

    /// Do this
    #[arg(long = "do", value_name = "WHAT")]
    wanted: Option<Wanted>,

    /// The snapshot for --do restore
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    backup: Option<PathBuf>,

    /// Really
    #[arg(long, requires = "wanted")]
    yes: bool,
}

/// What can be done here; the rest is done elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Wanted {
    /// Go on alone, as a new cluster, from what this member has
    ForceNewCluster,
    /// Set this directory aside, and make it anew from --backup
    Restore,
}

impl Wanted {
    fn choice(self) -> Choice {
        match self {
            Self::ForceNewCluster => Choice::ForceNewCluster,
            Self::Restore => Choice::Restore,
        }
    }
}

pub(crate) fn run(args: &RecoverArgs, output: &mut Output) -> Result<()> {
    let shown = args.path.display();
    let diagnosis = recover::diagnose(&args.path, args.check).map_err(|error| {
        let failure = Failure::caused(format!("cannot look into '{shown}'"), &error);
        match error {
            StartError::InUse { .. } => failure
                .of_kind(Kind::Conflict)
                .hint("a node that runs needs no recovery: revfs status"),
            _ => failure,
        }
    })?;
    if output.json {
        output.document(&document(&diagnosis))?;
    } else {
        explain(&diagnosis, output)?;
    }
    output.finish()?;
    let Some(wanted) = args.wanted else {
        let is_whole = diagnosis.problems.is_empty();
        return if is_whole { Ok(()) } else { Err(Failure::new(Kind::Differs, "")) };
    };
    if !diagnosis.choices.contains(&wanted.choice()) {
        return Err(Failure::conflict(format!("--do cannot do that to '{shown}'"))
            .because("it is not among the ways that are listed above"));
    }
    if !args.yes {
        return Err(Failure::usage("nothing was changed: --yes is missing")
            .hint("read above what is lost, then say --yes"));
    }
    match wanted {
        Wanted::ForceNewCluster => alone(args, output),
        Wanted::Restore => restored(args, output),
    }
}

fn alone(args: &RecoverArgs, output: &mut Output) -> Result<()> {
    let shown = args.path.display();
    let cluster = recover::force_new_cluster(&args.path)
        .map_err(|error| Failure::caused(format!("cannot go on alone in '{shown}'"), &error))?;
    if output.json {
        output.document(
            &json!({ "done": "force-new-cluster", "cluster_id": format!("{cluster:016x}") }),
        )?;
    } else {
        output.line(&format!("done: a cluster of one, {cluster:x}; start it as before"))?;
        output.line("the others: empty their data directories, and let them join")?;
    }
    output.finish()
}

fn restored(args: &RecoverArgs, output: &mut Output) -> Result<()> {
    let shown = args.path.display();
    let Some(backup) = &args.backup else {
        return Err(Failure::usage("--do restore without --backup FILE"));
    };
    let progress = Progress::new();
    let mut on_progress = |_| {
        progress.at("restoring");
        ControlFlow::Continue(())
    };
    let failed = |error: &dyn std::error::Error| {
        Failure::caused(format!("cannot restore '{}' into '{shown}'", backup.display()), error)
    };
    // Before anything is moved: it must be whole.
    revfs_cluster::restore::verify(backup, &mut on_progress).map_err(|error| failed(&error))?;
    let aside = recover::set_aside(&args.path).map_err(|error| failed(&error))?;
    let bump = Bump { revisions: BUMP, mark_compacted: false };
    let options = RestoreOptions { founders: None, bump };
    let made = restore(backup, &args.path, &options, &mut on_progress);
    let made = made.map_err(|error| {
        failed(&error).hint(format!("the old directory is at {}", aside.display()))
    })?;
    drop(progress);
    if output.json {
        output.document(&json!({
            "done": "restore",
            "revision": made.revision,
            "cluster_id": format!("{:016x}", made.cluster_id),
            "set_aside": aside.display().to_string(),
        }))?;
    } else {
        output.line(&format!(
            "done: it goes on at revision {}, as a cluster of one",
            made.revision
        ))?;
        output.line(&format!("what was there before is at {}", aside.display()))?;
    }
    output.finish()
}

fn explain(diagnosis: &Diagnosis, output: &mut Output) -> Result<()> {
    let Diagnosis { path, ids, store, log, members, problems, .. } = diagnosis;
    let shown = path.display();
    match ids {
        Some((cluster, member)) => {
            output.line(&format!("{shown}: member {member:x} of the cluster {cluster:x}"))?;
        }
        None if diagnosis.is_unused => {
            output.line(&format!("{shown}: no node was ever started on it"))?;
        }
        None => output.line(&format!("{shown}: it cannot be told whose it is"))?,
    }
    if let Some(store) = store {
        let history = match store.compacted_revision {
            0 => "all its history".to_owned(),
            compacted => format!("its history since {compacted}"),
        };
        let (revision, index) = (store.revision, store.index);
        output.line(&format!(
            "store: revision {revision} with {history}, up to entry {index} of the log"
        ))?;
    }
    if let Some(log) = log {
        let last = log.last.map_or(0, |(index, _)| index);
        let end = if log.was_closed { "shut down in order" } else { "it ended without a shutdown" };
        output.line(&format!("log: {} up to {last}; {end}", counted(log.entries, "record")))?;
    }
    for member in members {
        let own = ids.is_some_and(|(_, own)| own == member.id);
        output.line(&format!(
            "voter: {}{}",
            words(member),
            if own { " (this one)" } else { "" }
        ))?;
    }
    for problem in problems {
        let at = problem.offset.map_or(String::new(), |offset| format!(" at byte {offset}"));
        output.line(&format!("damaged: {}{at}", problem.file.display()))?;
        output.line(&format!("  {}", problem.reason))?;
    }
    if problems.is_empty() {
        output.line("nothing is wrong with it")?;
    }
    output.line("what can be done:")?;
    for choice in &diagnosis.choices {
        for line in way(*choice, diagnosis) {
            output.line(&line)?;
        }
    }
    Ok(())
}

fn words(member: &KnownMember) -> String {
    let urls = member.peer_urls.join(",");
    [format!("{:x}", member.id), member.name.clone(), urls]
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// A way on, what it needs, and what it loses.
fn way(choice: Choice, diagnosis: &Diagnosis) -> Vec<String> {
    let dir = diagnosis.path.display();
    let (voters, quorum) = (diagnosis.voters(), diagnosis.quorum());
    let member = diagnosis.ids.map_or_else(|| "ID".to_owned(), |(_, member)| format!("{member:x}"));
    let lines: [String; 3] = match choice {
        Choice::Start if voters > 1 => [
            format!("start it as before; with {quorum} of {voters} voters running the cluster goes on"),
            "  loses nothing".to_owned(),
            "  do: start the node".to_owned(),
        ],
        Choice::Start => [
            "start it as before".to_owned(),
            "  loses nothing".to_owned(),
            "  do: start the node".to_owned(),
        ],
        Choice::Replace => [
            "replace this member, if most of the others run: they bring a new one up to date".to_owned(),
            "  loses nothing that was acknowledged".to_owned(),
            format!(
                "  do: at another member `revfs member remove {member}`; move {dir} away; \
                 `revfs serve --data-dir {dir} --join HOST`"
            ),
        ],
        Choice::ForceNewCluster => [
            format!("go on alone, only if {quorum} of the {voters} voters are lost for good"),
            "  loses what others have acknowledged and this one has not; they must begin anew, empty"
                .to_owned(),
            format!("  do: revfs recover {dir} --do force-new-cluster --yes"),
        ],
        Choice::Restore => [
            "begin a new cluster from a backup".to_owned(),
            "  loses everything since the backup; the directory itself is set aside, not deleted"
                .to_owned(),
            format!("  do: revfs recover {dir} --do restore --backup FILE --yes"),
        ],
    };
    lines.into_iter().map(|line| format!("  {line}")).collect()
}

fn name(choice: Choice) -> &'static str {
    match choice {
        Choice::Start => "start",
        Choice::Replace => "member-replace",
        Choice::ForceNewCluster => "force-new-cluster",
        Choice::Restore => "restore",
    }
}

fn document(diagnosis: &Diagnosis) -> Value {
    let id = |id: u64| format!("{id:016x}");
    let members: Vec<Value> = diagnosis
        .members
        .iter()
        .map(|m| json!({ "id": id(m.id), "name": m.name, "peer_urls": m.peer_urls }))
        .collect();
    let problems: Vec<Value> = diagnosis
        .problems
        .iter()
        .map(|p| json!({ "file": p.file.display().to_string(), "offset": p.offset, "reason": p.reason }))
        .collect();
    let store = diagnosis.store.as_ref().map(|store| {
        json!({
            "revision": store.revision,
            "compacted_revision": store.compacted_revision,
            "index": store.index,
            "term": store.term,
        })
    });
    let log = diagnosis.log.as_ref().map(|log| {
        json!({
            "last_index": log.last.map(|(index, _)| index),
            "entries": log.entries,
            "was_closed": log.was_closed,
        })
    });
    json!({
        "data_dir": diagnosis.path.display().to_string(),
        "cluster_id": diagnosis.ids.map(|(cluster, _)| id(cluster)),
        "member_id": diagnosis.ids.map(|(_, member)| id(member)),
        "is_unused": diagnosis.is_unused,
        "store": store,
        "log": log,
        "voters": members,
        "problems": problems,
        "choices": diagnosis.choices.iter().map(|choice| name(*choice)).collect::<Vec<_>>(),
    })
}
