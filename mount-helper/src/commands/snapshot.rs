//! `revfs snapshot`: a backup of everything into one file, and back again.

mod restore;
mod save;

use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::{Subcommand, ValueHint};
use revfs_api::keyspace::Time;
use revfs_cluster::restore::{self as backups, Summary};
use serde_json::{Value, json};

use super::status::bytes;
use crate::args::Globals;
use crate::error::{Failure, Result};
use crate::output::{Output, Progress, time_exact, time_local};

/// Back everything up into one file, and back again
///
/// A snapshot holds every key with its whole history, leases and users. It is made while the node
/// runs, holds everything that was answered before, and is checked by a SHA-256.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs snapshot save /var/backups/conf.snapshot --of ~/conf
  revfs snapshot status /var/backups/conf.snapshot
  revfs snapshot restore /var/backups/conf.snapshot --data-dir /srv/conf-data
  revfs up ~/conf-old --data-dir /srv/conf-data
  revfs snapshot restore conf.snapshot --data-dir a.revfs --name a \\
      --initial-cluster a=http://10.0.0.1:2380,b=http://10.0.0.2:2380,c=http://10.0.0.3:2380")]
pub(crate) struct SnapshotArgs {
    #[command(subcommand)]
    command: SnapshotCommand,
}

#[derive(Debug, Subcommand)]
enum SnapshotCommand {
    Save(SaveArgs),
    Restore(restore::RestoreArgs),
    Status(StatusArgs),
}

/// Save the node's data into FILE, while it runs
///
/// FILE appears when it is whole and checked; an older one is replaced only then.
#[derive(Debug, clap::Args)]
struct SaveArgs {
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,

    /// The mount whose node is saved, or any path inside it
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    of: Option<OsString>,
}

/// Check FILE and say what it holds
#[derive(Debug, clap::Args)]
struct StatusArgs {
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
}

pub(crate) async fn run(args: SnapshotArgs, globals: &Globals, output: &mut Output) -> Result<()> {
    match args.command {
        SnapshotCommand::Save(SaveArgs { file, of }) => {
            let summary = save::save(&file, of, globals).await?;
            report(output, &file, &summary, "saved")
        }
        SnapshotCommand::Restore(args) => restore::run(&args, output),
        SnapshotCommand::Status(StatusArgs { file }) => {
            let progress = Progress::new();
            let mut on_progress = counting(&progress, "checking");
            let summary = backups::verify(&file, &mut on_progress).map_err(|error| {
                Failure::caused(format!("'{}' is no whole snapshot", file.display()), &error)
            })?;
            report(output, &file, &summary, "checked")
        }
    }
}

/// Shows on a terminal how far the work has come.
pub(crate) fn counting<'p>(
    progress: &'p Progress,
    what: &'static str,
) -> impl FnMut(backups::Progress) -> ControlFlow<()> + 'p {
    move |backups::Progress { done_bytes, total_bytes }| {
        progress.at(format!("{what}: {} of {}", bytes(done_bytes), bytes(total_bytes)));
        ControlFlow::Continue(())
    }
}

fn report(output: &mut Output, file: &Path, summary: &Summary, what: &str) -> Result<()> {
    if output.json {
        output.document(&document(file, summary))?;
    } else {
        output.line(&format!("{} {what}: {}", file.display(), sentence(summary)))?;
        output.line(&format!("sha256 {}", hex(&summary.sha256)))?;
    }
    output.finish()
}

fn sentence(summary: &Summary) -> String {
    let Summary { revision, time, file_bytes, .. } = summary;
    format!("revision {revision} of {}, {}", time_local(Time(time.0)), bytes(*file_bytes))
}

fn document(file: &Path, summary: &Summary) -> Value {
    json!({
        "file": file.display().to_string(),
        "bytes": summary.file_bytes,
        "revision": summary.revision.0,
        "compacted_revision": summary.compacted.map_or(0, |revision| revision.0),
        "time": time_exact(Time(summary.time.0)),
        "log_index": summary.position.index,
        "store_format": summary.store_format,
        "sha256": hex(&summary.sha256),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
