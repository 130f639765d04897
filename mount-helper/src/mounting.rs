//! Mounting, whatever key space it is: `up` mounts the node in its process, `mount` one that is elsewhere.
//!
//! [`directory`] looks whether the place will do, [`daemon`] goes into the background, [`ending`] frees the
//! mount; here is what lies between.

pub(crate) mod daemon;
pub(crate) mod directory;
pub(crate) mod ending;
pub(crate) mod promises;

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use revfs_api::KeySpace;
use revfs_fs::filesystem::MountOptions;
use revfs_fs::mount::{Mounted, mount};
use tokio::process::Command;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::args::Globals;
use crate::error::{Failure, Kind, Result};
use crate::guard;
use crate::log_file::LogFile;
use crate::signals::Signals;

/// The first answer of a new mount takes milliseconds.
const CHECK_LIMIT: Duration = Duration::from_secs(20);

/// What a mount shows of plain keys: they belong to who mounts.
pub(crate) fn options(allow_other: bool) -> MountOptions {
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    MountOptions {
        uid: user.as_raw(),
        gid: group.as_raw(),
        allow_other: allow_other || user.is_root(),
        ..MountOptions::default()
    }
}

/// Mounts, and has the mount guarded. Dropped, it goes.
pub(crate) async fn start(
    point: &Path,
    keys: Arc<dyn KeySpace>,
    options: MountOptions,
) -> Result<Mounted> {
    let mounted = mount(keys, point, options, Handle::current()).map_err(|error| {
        let failure = Failure::caused(format!("cannot mount '{}'", point.display()), &error);
        if nix::unistd::geteuid().is_root() {
            failure.hint("is the module fuse loaded? modprobe fuse")
        } else {
            failure
                .hint("users mount through fusermount3 (package fuse3) and need /dev/fuse")
                .hint("--allow-other needs user_allow_other in /etc/fuse.conf")
        }
    })?;
    if let Some(connection) = mounted.connection() {
        guard::start(connection).await;
    }
    Ok(mounted)
}

/// Variables that tell another process of this program how to connect.
pub(crate) type Environment = [(&'static str, OsString)];

/// Asks the mount which node it shows, and that node for its status, as any other command does: in a
/// process of its own, since a process that waits for its own mount could not be killed.
pub(crate) async fn check(point: &Path, environment: &Environment) -> Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("status").arg(point).env_remove("REVFS_ENDPOINT").env_remove("RUST_LOG");
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let failure = Failure::new(
        Kind::Failure,
        format!("'{}' is mounted, but does not answer", point.display()),
    );
    match timeout(CHECK_LIMIT, command.output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            Err(failure.because(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
        }
        Ok(Err(error)) => Err(failure.because(error.to_string())),
        Err(_) => Err(failure.because(format!("no answer within {CHECK_LIMIT:?}"))),
    }
}

/// Serves the mount until it is taken away, or a signal says that it is to end.
pub(crate) async fn until_end(mounted: Mounted, signals: &mut Signals) -> Result<()> {
    let point = mounted.mount_point().to_owned();
    let point = point.display();
    tokio::select! {
        ended = mounted.wait() => {
            tracing::info!("{point} was unmounted");
            ended.map_err(|error| Failure::caused(format!("the mount '{point}' broke"), &error))
        }
        name = signals.next() => {
            tracing::info!("{name}: unmounting {point}");
            ending::unmount(mounted, signals).await
        }
    }
}

/// In the background it logs to its file from the beginning: the terminal gets errors only.
pub(crate) fn start_log(globals: &Globals, file: Option<LogFile>) -> Result<()> {
    match file {
        None => crate::start_log(globals.log.as_deref(), "warn,openraft=error"),
        Some(file) => {
            let default = "info,openraft=error,fuser=error";
            crate::start_log_in(file, globals.log.as_deref(), default)
        }
    }
}

/// What a signal before the mount was up comes to.
pub(crate) fn interrupted(name: &str) -> Failure {
    Failure::new(Kind::Failure, format!("{name} before the mount was up: nothing is mounted"))
}
