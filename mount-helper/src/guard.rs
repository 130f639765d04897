//! A second process that breaks a mount's connection when the node was killed and cannot end.
//!
//! A killed process is gone only when its last thread is. The thread that tells the kernel what to forget may
//! wait there, deaf to signals, for a directory's lock; a program may hold that lock until the killed
//! process answers it; and while the thread lives the device is open, so that the kernel goes on waiting
//! for that answer. Only somebody outside can abort the connection.
//!
//! The guard holds nothing of the mount but the connection's `abort`, which its parent opened while it held
//! the mount and hands down as standard input. (The guard may not open it itself: by then its parent may be
//! dead and the number another mount's.) Once the mount has ended a write to it reaches nobody, so the
//! guard need not be told of an orderly end. What it waits for is the death of the *thread* that started it (PR_SET_PDEATHSIG); a
//! killed thread that waits for a child dies at once, whatever the other threads wait for.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::getppid;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::error::{Failure, Result};

const SUBCOMMAND: &str = "guard-mount";

const READY: &str = "ready";

/// It has to be loaded and to open one file.
const START_LIMIT: Duration = Duration::from_secs(10);

/// What it is told by when its parent has died.
const ORPHANED: Signal = Signal::SIGUSR1;

/// Abort a mount's connection when the process that started this one has died (`up` does it)
#[derive(Debug, clap::Args)]
pub(crate) struct GuardArgs {
    /// The process to outlive; standard input is the `abort` of its connection
    guarded: i32,
}

/// Starts the guard of a connection. A mount without one works as well, until it is killed in a bad
/// moment: so a failure is a warning.
pub(crate) async fn start(connection: u32) {
    let (tell, told) = oneshot::channel();
    let started = thread::Builder::new().name("revfs-guard".to_owned()).spawn(move || {
        let said = keep(connection, tell);
        tracing::warn!("the process that guards the mount has ended{said}");
    });
    let said = match (started, timeout(START_LIMIT, told).await) {
        (Ok(_), Ok(Ok(said))) if said == READY => return,
        (Ok(_), Ok(Ok(said))) => said,
        (Ok(_), _) => format!("no answer within {START_LIMIT:?}"),
        (Err(error), _) => error.to_string(),
    };
    tracing::warn!(
        "nobody guards the mount ({said}): if this process is killed, \
         `echo 1 > {}` may have to help it to its end",
        abort_path(connection)
    );
}

/// The parent's side: runs the guard and waits for it. The thread that is in here lives as long as the
/// process.
fn keep(connection: u32, tell: oneshot::Sender<String>) -> String {
    let mut child = match spawn(connection) {
        Ok(child) => child,
        Err(failure) => {
            let said = failure.render();
            tell.send(said.clone()).ok();
            return format!(": {said}");
        }
    };
    let mut said = String::new();
    if let Some(mut output) = child.stdout.take()
        && let Err(error) = output.read_to_string(&mut said)
    {
        said = error.to_string();
    }
    tell.send(said).ok();
    child.wait().map_or_else(|error| format!(": {error}"), |status| format!(": {status}"))
}

fn spawn(connection: u32) -> Result<Child> {
    let path = abort_path(connection);
    let abort = File::options().write(true).open(&path).map_err(|error| {
        Failure::caused(format!("cannot open '{path}'"), &error)
            .hint("is fusectl mounted? mount -t fusectl fusectl /sys/fs/fuse/connections")
    })?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("revfs").args([SUBCOMMAND, &std::process::id().to_string()]).current_dir("/");
    // Nothing that this process was given: whoever waits for the end of its output shall not wait for the guard.
    command.stdin(Stdio::from(abort)).stdout(Stdio::piped()).stderr(Stdio::null());
    Ok(command.spawn()?)
}

fn abort_path(connection: u32) -> String {
    format!("/sys/fs/fuse/connections/{connection}/abort")
}

/// The guard's side.
pub(crate) fn run(args: &GuardArgs) -> Result<()> {
    let mut output = io::stdout();
    let mut abort = match stand_ready() {
        Ok(abort) => abort,
        Err(failure) => {
            output.write_all(failure.render().as_bytes())?;
            return Err(failure);
        }
    };
    // Dead before it was to be told of: nobody reads, and no signal will come.
    if getppid().as_raw() == args.guarded {
        output.write_all(READY.as_bytes())?;
        output.flush()?;
        let null = File::options().write(true).open("/dev/null")?;
        nix::unistd::dup2_stdout(null).map_err(|error| failed(&error))?;
        let mut orphaned = SigSet::empty();
        orphaned.add(ORPHANED);
        orphaned.wait().map_err(|error| failed(&error))?;
    }
    abort.write_all(b"1")?;
    Ok(())
}

fn stand_ready() -> Result<File> {
    let_inherited_files_go().map_err(|error| failed(&error))?;
    let abort = io::stdin().as_fd().try_clone_to_owned()?;
    // What ends the node's process group must not end the guard before the node has ended.
    SigSet::all().thread_block().map_err(|error| failed(&error))?;
    set_pdeathsig(ORPHANED).map_err(|error| failed(&error))?;
    Ok(File::from(abort))
}

fn failed(error: &dyn std::error::Error) -> Failure {
    Failure::caused("cannot guard the mount", error)
}

/// LMDB hands its file down to every child: the guard must not keep a store's pages on the disk.
fn let_inherited_files_go() -> io::Result<()> {
    let number = |entry: io::Result<fs::DirEntry>| -> io::Result<Option<i32>> {
        Ok(entry?.file_name().to_str().and_then(|name| name.parse().ok()))
    };
    let open: Vec<Option<i32>> =
        fs::read_dir("/proc/self/fd")?.map(number).collect::<io::Result<_>>()?;
    for descriptor in open.into_iter().flatten().filter(|&descriptor| descriptor > 2) {
        // The directory's own is closed already.
        nix::unistd::close(descriptor).ok();
    }
    Ok(())
}
