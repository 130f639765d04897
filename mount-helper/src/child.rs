//! A program of the user's that a command runs.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;

use crate::error::{Failure, Result};

/// What a program is given to end by itself.
const GRACE: Duration = Duration::from_secs(5);

pub(crate) struct Child {
    child: tokio::process::Child,
    shown: String,
}

impl Child {
    /// Starts `command` (its name and its arguments) with more variables.
    pub(crate) fn start(
        command: &[OsString],
        variables: Vec<(&'static str, OsString)>,
        input: Stdio,
    ) -> Result<Self> {
        Self::spawn(command, variables, input, None)
    }

    /// Starts `command` in a directory.
    pub(crate) fn start_in(
        directory: &Path,
        command: &[OsString],
        variables: Vec<(&'static str, OsString)>,
    ) -> Result<Self> {
        Self::spawn(command, variables, Stdio::inherit(), Some(directory))
    }

    fn spawn(
        command: &[OsString],
        variables: Vec<(&'static str, OsString)>,
        input: Stdio,
        directory: Option<&Path>,
    ) -> Result<Self> {
        let (name, arguments) = command.split_first().expect("a command has a name");
        let shown = name.display().to_string();
        let mut command = Command::new(name);
        command.args(arguments).envs(variables).stdin(input);
        if let Some(directory) = directory {
            command.current_dir(directory);
        }
        let child = command.spawn().map_err(|error| {
            Failure::caused(format!("cannot run '{shown}'"), &error)
                .hint("for what a shell understands: -- sh -c '…'")
        })?;
        Ok(Self { child, shown })
    }

    /// What feeds its standard input, if that is piped.
    pub(crate) fn input(&mut self) -> Option<tokio::process::ChildStdin> {
        self.child.stdin.take()
    }

    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// Waits for its end. Dropping the future loses nothing.
    pub(crate) async fn wait(&mut self) -> Result<ExitStatus> {
        let failed = |error| Failure::caused(format!("cannot wait for '{}'", self.shown), &error);
        self.child.wait().await.map_err(failed)
    }

    /// Passes on a signal that this process got. Ctrl-C comes from a terminal, which sends it to both.
    pub(crate) fn pass_on(&self, signal: &str) {
        match signal {
            "SIGTERM" => self.send(Signal::SIGTERM),
            "SIGHUP" => self.send(Signal::SIGHUP),
            _ => {}
        }
    }

    fn send(&self, signal: Signal) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(id) = id {
            // It may have ended just now.
            kill(Pid::from_raw(id), signal).ok();
        }
    }

    /// Ends it: asks, and after a while does not ask.
    pub(crate) async fn end(&mut self) {
        self.send(Signal::SIGTERM);
        if tokio::time::timeout(GRACE, self.child.wait()).await.is_err() {
            // An error means that it has ended meanwhile.
            self.child.kill().await.ok();
        }
    }
}

/// As a shell tells it: a signal is 128 and its number.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
