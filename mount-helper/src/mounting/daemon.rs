//! Going into the background without losing an error on the way.
//!
//! `--daemon` starts the program a second time (no thread has to survive a fork) with one end of a
//! socket pair as its standard input. The child keeps the terminal's output and error until the mount
//! answers; then it says *ready* on the socket and lets go of them. The parent returns 0 only then; if
//! the socket closes before, the child has failed, has said why, and its exit code is the parent's. A
//! parent that is gone when the child gets ready (Ctrl-C) makes the child stop again.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitCode, Stdio};

use crate::error::{Failure, Kind, Result};
use crate::log_file::LogFile;

/// Hidden option that tells the second process what it is.
pub(crate) const DETACHED: &str = "--detached";

const READY: &[u8] = b"ready\n";

/// Starts this command line again in the background and waits until it is ready.
///
/// # Errors
/// If it cannot be started, or is killed before it is ready. Its own failures it has printed itself:
/// they come back as an exit code.
pub(crate) fn start() -> Result<ExitCode> {
    let failed = |error: &io::Error| Failure::caused("cannot start the background process", error);
    let (mut ours, theirs) = UnixStream::pair().map_err(|error| failed(&error))?;
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "revfs".into());
    let mut arguments: Vec<OsString> = arguments.collect();
    let end = arguments.iter().position(|word| word == "--").unwrap_or(arguments.len());
    arguments.insert(end, DETACHED.into());
    // The running file itself, whatever became of its name.
    let mut child = Command::new("/proc/self/exe")
        .arg0(name)
        .args(arguments)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .map_err(|error| failed(&error))?;
    let mut said = Vec::new();
    ours.read_to_end(&mut said).map_err(|error| failed(&error))?;
    if said == READY {
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait().map_err(|error| failed(&error))?;
    match (status.code(), status.signal()) {
        // It has printed what went wrong.
        (Some(code), _) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(1).max(1))),
        (None, signal) => Err(Failure::new(
            Kind::Failure,
            format!("the background process was killed by signal {}", signal.unwrap_or(0)),
        )
        .hint("its log says more: revfs.log in the data directory, or --log-file")),
    }
}

/// The child's side: the parent waits at the other end.
pub(crate) struct Parent(File);

/// Makes this process one of its own session, so that the terminal's signals do not reach it.
pub(crate) fn detach() -> Result<Parent> {
    let failed = |error: &dyn std::error::Error| Failure::caused("cannot detach", error);
    let socket = io::stdin().as_fd().try_clone_to_owned().map_err(|error| failed(&error))?;
    nix::unistd::setsid().map_err(|error| failed(&error))?;
    nix::unistd::chdir("/").map_err(|error| failed(&error))?;
    Ok(Parent(File::from(socket)))
}

impl Parent {
    /// Lets the terminal go, logs to `log` from now on, and releases the parent.
    ///
    /// # Errors
    /// If nobody waits any more.
    pub(crate) fn release(mut self, log: &LogFile) -> Result<()> {
        let failed = |error: &dyn std::error::Error| {
            Failure::caused("the command that started this process is gone", error)
        };
        let null = File::open("/dev/null").map_err(|error| failed(&error))?;
        nix::unistd::dup2_stdin(&null).map_err(|error| failed(&error))?;
        nix::unistd::dup2_stdout(log).map_err(|error| failed(&error))?;
        nix::unistd::dup2_stderr(log).map_err(|error| failed(&error))?;
        self.0.write_all(READY).map_err(|error| failed(&error))
    }
}
