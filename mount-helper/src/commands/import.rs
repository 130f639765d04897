//! `revfs import`: the data of an etcd, into a new data directory or into a running cluster.

mod fetched;
mod live;
mod long_keys;
mod roles;

use std::path::{Path, PathBuf};

use clap::ValueHint;
use revfs_cluster::import::{
    self, Bolt, EtcdImportError, ImportOptions, Imported, LEFT_OUT_KEY, Progress as Rows, Survey,
};
use serde_json::json;

use self::live::LiveArgs;
use self::long_keys::{LongKeys, refused};
use crate::args::Globals;
use crate::error::{Failure, Kind, Result};
use crate::output::{Output, Progress, counted};

/// Take over the data of an etcd
///
/// With --data-dir, from FILE, which `etcdctl snapshot save` wrote (or member/snap/db of an etcd that does
/// not run), into a new data directory: every revision that etcd has not forgotten, with its number, leases,
/// users and roles. From the URL of a running etcd in the same way: it sends a snapshot.
///
/// With --to, from the URL of a running etcd into a cluster that runs: all keys as they are at one revision,
/// with --follow also each later revision, as one transaction, until it is told to end. The destination has
/// revisions of its own. A killed import goes on where it was when the same line is run again: its place is
/// a key of the destination. It is `revfs mirror` with a look before and a comparison at the end; a cluster
/// that does not answer is waited for as there. Roles come along at the end, unless only a part of the keys is
/// taken; leases, under their numbers, with --finish. Users have to be added by hand, for the API does not tell
/// the hashes of their passwords; they are listed. With --data-dir they come along.
///
/// What cannot be taken over is listed before anything is written. At the end everything is compared. To
/// go on after an interruption, run the same line again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  etcdctl snapshot save /tmp/etcd.db && revfs import /tmp/etcd.db --data-dir /srv/revfs
  revfs import http://etcd:2379 --data-dir /srv/revfs
  revfs import http://etcd:2379 --to http://node:2379 --follow --finish")]
pub(crate) struct ImportArgs {
    /// A snapshot of etcd, or the URL of a running one
    #[arg(value_name = "FILE|URL", value_hint = ValueHint::AnyPath)]
    source: String,

    /// The data directory to make; it may exist if it is empty
    #[arg(
        long,
        value_name = "DIR",
        value_hint = ValueHint::DirPath,
        required_unless_present = "to"
    )]
    data_dir: Option<PathBuf>,

    /// Leave out keys longer than 1,900 bytes
    #[arg(long)]
    skip_long_keys: bool,

    /// Do not compare at the end
    #[arg(long)]
    no_verify: bool,

    #[command(flatten)]
    live: LiveArgs,
}

pub(crate) async fn run(args: ImportArgs, globals: &Globals, output: &mut Output) -> Result<()> {
    let data_dir = match (&args.live.to, &args.data_dir) {
        (Some(to), _) => return live::run(&args, to, globals, output).await,
        (None, Some(data_dir)) => data_dir,
        (None, None) => return Err(Failure::usage("where to? --data-dir DIR, or --to ENDPOINTS")),
    };
    if !args.source.contains("://") {
        return import_file(&args, Path::new(&args.source), data_dir, output);
    }
    let file = fetched::fetch(&args.source, data_dir, globals).await?;
    import_file(&args, file.path(), data_dir, output)
}

fn import_file(args: &ImportArgs, file: &Path, data_dir: &Path, output: &mut Output) -> Result<()> {
    let shown = &args.source;
    let failed = |error: EtcdImportError| {
        let failure = Failure::caused(format!("cannot import '{shown}'"), &error);
        match &error {
            error if error.is_taken() => failure.of_kind(Kind::Conflict),
            EtcdImportError::LongKeys { .. } => refused(failure),
            _ => failure,
        }
    };
    let progress = Progress::new();
    let mut on_progress = |Rows { stage, done, total }: Rows| {
        progress.at(match total {
            0 => format!("{stage}: row {done}"),
            _ => format!("{stage}: row {done} of {total}"),
        });
        Ok(())
    };
    let bolt = Bolt::open(file).map_err(|error| failed(error.into()))?;
    let survey = import::survey(&bolt, &mut on_progress).map_err(failed)?;
    announce(args, &survey, output)?;
    let options =
        ImportOptions { skip_long_keys: args.skip_long_keys, verify: !args.no_verify, time: now() };
    let imported =
        import::import(&bolt, &survey, data_dir, options, &mut on_progress).map_err(failed)?;
    report(data_dir, &survey, &imported, output)
}

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.ok().and_then(|since| i64::try_from(since.as_nanos()).ok()).unwrap_or_default()
}

/// What there is and what stays behind, before anything is written.
fn announce(args: &ImportArgs, survey: &Survey, output: &mut Output) -> Result<()> {
    let named = survey.long_keys.iter().map(|long| (&long.key[..], long.bytes)).collect();
    let long_keys = LongKeys { named, count: survey.long_keys_count };
    if output.json {
        output.document(&json!({
            "source": args.source,
            "is_verified": survey.is_verified,
            "revision": survey.revision.0,
            "compacted_revision": survey.compacted.0,
            "versions": survey.versions,
            "leases": survey.leases.len(),
            "users": survey.users_count(),
            "roles": survey.roles_count(),
            "auth_enabled": survey.is_auth_enabled,
            "left_out": survey.left_out,
            "long_keys_count": survey.long_keys_count,
            "long_keys": long_keys.documents(),
        }))?;
        return output.finish();
    }
    let source = &args.source;
    output.line(&format!(
        "{source}: revision {}, compacted at {}, {}, {}, {}, {}",
        survey.revision,
        survey.compacted,
        counted(survey.versions, "row"),
        counted(as_u64(survey.leases.len()), "lease"),
        counted(as_u64(survey.users_count()), "user"),
        counted(as_u64(survey.roles_count()), "role"),
    ))?;
    if !survey.is_verified {
        output.line("no checksum stands behind it: damage within values would not be noticed")?;
    }
    for what in &survey.left_out {
        output.line(&format!("not taken over: {what}"))?;
    }
    long_keys.print(output)?;
    if survey.long_keys_count > 0 && args.skip_long_keys {
        let stand_in = LEFT_OUT_KEY.escape_ascii();
        output.line(&format!("where nothing else of a revision is left, it puts {stand_in}"))?;
    }
    output.finish()
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn report(
    data_dir: &Path,
    survey: &Survey,
    imported: &Imported,
    output: &mut Output,
) -> Result<()> {
    let dir = data_dir.display();
    if output.json {
        output.document(&json!({
            "data_dir": dir.to_string(),
            "cluster_id": format!("{:016x}", imported.cluster_id),
            "member_id": format!("{:016x}", imported.member_id),
            "revision": imported.revision.0,
            "compacted_revision": imported.compacted.0,
            "compared": imported.compared,
            "hash_kv": imported.hash,
            "notes": imported.notes,
        }))?;
        return output.finish();
    }
    for note in &imported.notes {
        output.line(&format!("note: {note}"))?;
    }
    let rows = counted(survey.versions, "row");
    let compared = match imported.compared {
        0 => "not compared".to_owned(),
        compared => format!("{} compared", counted(compared, "row")),
    };
    output.line(&format!(
        "imported into {dir}: revision {}, {rows}, {compared}, HashKV {}",
        imported.revision, imported.hash
    ))?;
    output.line(&format!(
        "to start it: revfs serve --data-dir {dir}, or revfs up MOUNTPOINT --data-dir {dir}"
    ))?;
    output.finish()
}
