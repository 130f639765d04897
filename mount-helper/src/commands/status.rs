//! `revfs status`: the node behind a mount.

use std::ffi::OsString;

use clap::ValueHint;
use revfs_api::keyspace::Status;

use crate::args::Globals;
use crate::endpoint;
use crate::error::{Asked as _, Failure, Result};
use crate::output::{Output, counted};

/// Show the state of the node
///
/// Which process serves the mount, where its data and its socket are, its revision, since when
/// history is complete, and how much space it takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs status ~/conf
  revfs status --endpoint /var/lib/revfs/conf/revfs.sock --json")]
pub(crate) struct StatusArgs {
    /// A mount, or any path inside it
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    directory: Option<OsString>,
}

pub(crate) async fn run(args: StatusArgs, globals: &Globals, output: &mut Output) -> Result<()> {
    let arguments: Vec<OsString> = args.directory.into_iter().collect();
    let mounts = crate::mounts::ours().unwrap_or_default();
    if let Some(argument) = arguments.first()
        && globals.endpoint.is_none()
        && crate::target::place(argument, &mounts) == crate::target::Place::Key
    {
        let shown = argument.display();
        return Err(Failure::not_found(format!("'{shown}' does not lie in a mount of revfs"))
            .hint(format!("mount it with `revfs up {shown}`, or name a node with --endpoint")));
    }
    let node = endpoint::open(globals, &arguments, false).await?;
    let status = node.keys.status().await.asked(|| "ask the node for its status".to_owned())?;
    if output.json {
        let document = serde_json::to_value(&status)
            .map_err(|error| Failure::caused("cannot write the status as JSON", &error))?;
        output.document(&document)?;
    } else {
        output.table(&rows(&status))?;
    }
    output.finish()
}

fn rows(status: &Status) -> Vec<Vec<Vec<u8>>> {
    let Status { compacted_revision, history_since, .. } = status;
    let since = if history_since.is_empty() { "the beginning" } else { history_since };
    let history = match compacted_revision {
        0 => "complete".to_owned(),
        compacted => format!("complete since revision {compacted} ({since})"),
    };
    let writes = match status.read_only.as_str() {
        "" => "accepted".to_owned(),
        reason => format!("refused: {reason}"),
    };
    let applied = status.applied_index;
    // A backup belongs to no member: it has no log, and no disk to be filled.
    let of_member = |value: String| if status.member_id == 0 { String::new() } else { value };
    let rows = [
        ("node", format!("{} {}", status.backend, status.version)),
        ("process", status.process_id.to_string()),
        ("endpoint", status.endpoint.clone()),
        ("data", status.data_dir.clone()),
        ("revision", status.revision.to_string()),
        ("history", history),
        ("writes", writes),
        (
            "store",
            format!("{}, {} in use", bytes(status.store_bytes), bytes(status.store_bytes_in_use)),
        ),
        (
            "log",
            of_member(format!(
                "{}, applied {applied}, in the store {}",
                bytes(status.log_bytes),
                status.committed_index
            )),
        ),
        ("disk", of_member(format!("{} free", bytes(status.disk_free_bytes)))),
        (
            "cluster",
            of_member(format!(
                "{:x}, member {:x}, leader {:x}, term {}",
                status.cluster_id, status.member_id, status.leader_id, status.raft_term
            )),
        ),
        (
            "version",
            match status.cluster_version {
                // A real etcd.
                0 => String::new(),
                version => format!("{version}: what all members of the cluster speak"),
            },
        ),
    ];
    let cells = |(name, value): (&str, String)| vec![name.as_bytes().to_vec(), value.into_bytes()];
    rows.into_iter().filter(|(_, value)| !value.is_empty()).map(cells).collect()
}

/// `17.3 MiB`
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if count < 1024 {
        return counted(count, "byte");
    }
    // In tenths of the unit, so that no floating point is needed.
    let (mut tenths, mut unit) = (u128::from(count) * 10 / 1024, 0);
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_the_largest_fitting_unit() {
        assert_eq!(bytes(1), "1 byte");
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(1_572_864), "1.5 MiB");
        assert_eq!(bytes(1 << 60), "1024.0 PiB");
    }
}
