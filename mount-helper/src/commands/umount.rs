//! `revfs umount`: unmounts, and waits until everything is stored.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::ValueHint;

use crate::commands::up::data_dir;
use crate::data_lock::is_held;
use crate::error::{Failure, Kind, Result};
use crate::mounts::{self, MountStatus, Probe};
use crate::output::Output;
use crate::unmount::{Force, Refusal, absolute, unmount};

/// Unmount a directory and wait until everything is stored
///
/// Returns when the process behind the mount has stored what was written, and is gone; `revfs serve` goes on
/// without its mount. A mount whose process is dead is cleaned up. If someone uses the mount it says who.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs umount ~/conf
  revfs umount --lazy ~/conf     even if someone stands in it")]
pub(crate) struct UmountArgs {
    /// The directory that was given to `revfs up`
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    directory: PathBuf,

    /// Detach at once even if it is busy; its users keep what they have open until they close it.
    /// The process behind it ends with the last of them
    #[arg(short, long)]
    lazy: bool,

    /// Seconds to wait for the process behind the mount
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// Processes that are named when a mount is busy.
const USERS_SHOWN: usize = 5;

/// A lazy unmount only sees whether nobody used the mount.
const LAZY_WAIT: Duration = Duration::from_secs(1);

/// How often the end of the process is looked for.
const POLL: Duration = Duration::from_millis(10);

pub(crate) fn run(args: &UmountArgs, output: &mut Output) -> Result<()> {
    let point = absolute(&args.directory)?;
    find(&point)?;
    // Asked before it is gone: who serves it.
    let probe = mounts::probe(&point);
    let force = if args.lazy || matches!(probe, Probe::Dead) { Force::Lazy } else { Force::No };
    match unmount(&point, force) {
        Ok(()) => {}
        // The question that is still waiting for its answer keeps it busy by itself.
        Err(Refusal::Busy) if matches!(probe, Probe::Silent) => return Err(silent(&point)),
        Err(Refusal::Busy) => return Err(busy(&point)),
        Err(Refusal::Failed(failure)) => return Err(failure),
    }
    let limit = if args.lazy { LAZY_WAIT } else { Duration::from_secs(args.timeout) };
    let has_ended = match behind(&point, probe) {
        Behind::Nobody => true,
        Behind::Process(status) => {
            let has_ended = has_ended(&status, Instant::now() + limit);
            if !has_ended && !args.lazy {
                return Err(still_running(&point, status, args.timeout));
            }
            has_ended
        }
        Behind::Unknown if args.lazy => false,
        Behind::Unknown => return Err(not_waited_for(&point)),
    };
    if output.json {
        let point = point.display().to_string();
        output.document(&serde_json::json!({ "unmounted": point, "ended": has_ended }))?;
    } else if !has_ended {
        output.line("the process behind it runs on until its last user is gone")?;
    }
    output.finish()
}

/// What stands behind a mount.
enum Behind {
    Nobody,
    Process(MountStatus),
    Unknown,
}

/// A mount that does not say so may still have the data directory that it has if nobody chose another.
fn behind(point: &Path, probe: Probe) -> Behind {
    match probe {
        Probe::Live(status) => Behind::Process(status),
        Probe::Dead => Behind::Nobody,
        Probe::Closed | Probe::Silent | Probe::Strange(_) => {
            let holder = data_dir::default_path(point)
                .ok()
                .and_then(|path| data_dir::holder_of(&path).map(|holder| (path, holder)));
            match holder {
                Some((path, holder)) if Path::new(&holder.mount_point) == point => {
                    Behind::Process(MountStatus {
                        data_dir: path.display().to_string(),
                        process_id: holder.process_id,
                        ..MountStatus::default()
                    })
                }
                _ => Behind::Unknown,
            }
        }
    }
}

/// Makes sure that a mount of revfs is there.
fn find(point: &Path) -> Result<()> {
    let shown = point.display();
    let mounted = mounts::at(point)
        .map_err(|error| Failure::caused("cannot read the table of mounts", &error))?;
    match mounted {
        Some(mount) if mount.is_ours() => Ok(()),
        Some(mount) => Err(Failure::not_found(format!(
            "'{shown}' is a mount of type {}, not of revfs",
            mount.fs_type
        ))
        .hint(format!("umount {shown}"))),
        None => {
            let failure = Failure::not_found(format!("nothing is mounted at '{shown}'"));
            let ours = mounts::ours().unwrap_or_default();
            let around = mounts::containing(&ours, point).map(|mount| mount.point.display());
            Err(match around {
                Some(point) => failure.hint(format!("it lies in the mount {point}")),
                None => failure.hint("`findmnt -t fuse.revfs` lists the mounts of revfs"),
            })
        }
    }
}

/// Whether a process runs: one that nobody has asked for its exit code yet does not.
fn runs(process_id: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{process_id}/stat")) else {
        return false;
    };
    // The name before it may hold anything.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, Some('Z' | 'X'))
}

/// Waits for the process behind a mount. With data of its own it holds the lock of its data directory
/// until everything is stored and it ends; one that serves others does not end, and says there that it mounts
/// nothing any more.
fn has_ended(status: &MountStatus, deadline: Instant) -> bool {
    let data_dir = Path::new(&status.data_dir);
    let is_running = || {
        if status.data_dir.is_empty() {
            return runs(status.process_id);
        }
        let serves_on = |holder: data_dir::Holder| holder.serves && holder.mount_point.is_empty();
        is_held(data_dir) && !data_dir::holder_of(data_dir).is_some_and(serves_on)
    };
    while is_running() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}

fn still_running(point: &Path, status: MountStatus, timeout: u64) -> Failure {
    let point = point.display();
    let MountStatus { process_id, data_dir, .. } = status;
    let failure = Failure::new(
        Kind::Failure,
        format!(
            "{point} is unmounted, but process {process_id} has not ended within {timeout} seconds \
             (--timeout)"
        ),
    );
    if data_dir.is_empty() {
        return failure.hint("its log says why: --log-file of `revfs mount`");
    }
    failure.hint(format!("it may still be storing: see revfs.log in {data_dir}"))
}

fn silent(point: &Path) -> Failure {
    let shown = point.display();
    Failure::conflict(format!("'{shown}' does not answer; it is still mounted"))
        .because("its process is stopped, or waits for a disk")
        .hint("try again later: what it has not stored yet would not be waited for now")
        .hint(format!("or detach it, and see to its process: revfs umount --lazy {shown}"))
}

fn not_waited_for(point: &Path) -> Failure {
    Failure::new(
        Kind::OutcomeUnknown,
        format!(
            "{} is unmounted, but it did not answer, so it is not known which process stands behind it \
             and whether that has stored everything",
            point.display()
        ),
    )
    .hint("wait for it: flock DATA_DIR/revfs.lock true, with the --data-dir of its `revfs up`")
}

/// Says who uses the mount.
pub(crate) fn busy(point: &Path) -> Failure {
    let shown = point.display();
    let users = mounts::users(point, USERS_SHOWN);
    let mut failure = Failure::conflict(format!("'{shown}' is busy"));
    for user in &users {
        failure = failure.because(user.to_string());
    }
    if users.is_empty() {
        failure = failure.because("of a process that this user cannot see, or a mount inside it");
    }
    failure.hint(format!("let them finish, or: revfs umount --lazy {shown}"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Behind, behind, not_waited_for};
    use crate::error::Kind;
    use crate::mounts::{MountStatus, Probe};

    #[test]
    fn what_does_not_say_who_serves_it_is_not_taken_for_stored() {
        let point = Path::new("/no/such/mount");
        for probe in [Probe::Closed, Probe::Silent, Probe::Strange("?".to_owned())] {
            assert!(matches!(behind(point, probe), Behind::Unknown));
        }
        assert!(matches!(behind(point, Probe::Dead), Behind::Nobody));
        let live = Probe::Live(MountStatus { process_id: 7, ..MountStatus::default() });
        assert!(matches!(behind(point, live), Behind::Process(status) if status.process_id == 7));
        assert_eq!(not_waited_for(point).kind, Kind::OutcomeUnknown);
    }
}
