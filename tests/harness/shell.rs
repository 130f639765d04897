//! Shell lines with a deadline, whose outcome must be looked at.
//!
//! Each line runs in a process group of its own, with no input, its output kept. A line that passes
//! its deadline is killed with all that it started, and fails the test. Lines find the program under
//! test as `revfs`, speak plain C, count time in UTC, and know no user's settings.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::{program, tools, wait};

/// Where and how lines run.
#[derive(Clone, Debug)]
pub struct Shell {
    interpreter: &'static str,
    dir: PathBuf,
    limit: Duration,
    variables: Vec<(OsString, OsString)>,
}

impl Shell {
    /// Lines of bash in `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self {
            interpreter: "bash",
            dir: dir.to_owned(),
            limit: Duration::from_secs(120),
            variables: Vec::new(),
        }
    }

    #[must_use]
    pub fn interpreter(mut self, interpreter: &'static str) -> Self {
        self.interpreter = interpreter;
        self
    }

    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Runs a line to its end.
    ///
    /// # Panics
    /// If it is not done in time.
    pub fn run(&self, line: &str) -> Finished {
        self.start(line).finish(self.limit)
    }

    /// Starts a line and goes on.
    ///
    /// # Panics
    /// If the shell cannot be started.
    #[must_use = "a line that is dropped is killed"]
    pub fn start(&self, line: &str) -> Running {
        tools::need(&[self.interpreter]);
        let keep = || tempfile::tempfile().expect("a temporary file for the output of a line");
        let (stdout, stderr) = (keep(), keep());
        let child = self.command(line, &stdout, &stderr).spawn().unwrap_or_else(|error| {
            panic!("{} in {}: {error}", self.interpreter, self.dir.display())
        });
        Running { line: line.to_owned(), child, stdout, stderr }
    }

    fn command(&self, line: &str, stdout: &File, stderr: &File) -> Command {
        let clone = |file: &File| Stdio::from(file.try_clone().expect("a second descriptor"));
        let mut command = Command::new(self.interpreter);
        command.arg("-c").arg(line).current_dir(&self.dir).process_group(0);
        command.stdin(Stdio::null()).stdout(clone(stdout)).stderr(clone(stderr));
        command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC").env("HOME", "/nonexistent");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        for (name, value) in [("NAME", "Test"), ("EMAIL", "test@example.org")] {
            command.env(format!("GIT_AUTHOR_{name}"), value);
            command.env(format!("GIT_COMMITTER_{name}"), value);
        }
        command.env("PATH", path_with_program());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

fn path_with_program() -> OsString {
    let own = program::revfs().parent().expect("a program lies in a directory").to_owned();
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&inherited)))
        .expect("directories of PATH have no colon")
}

/// A line that runs; killed with all that it started when dropped.
pub struct Running {
    line: String,
    child: Child,
    stdout: File,
    stderr: File,
}

impl Running {
    /// Waits for the end.
    ///
    /// # Panics
    /// If it is not done within `limit`.
    pub fn finish(mut self, limit: Duration) -> Finished {
        let ended = wait::ask(limit, || self.child.try_wait().expect("the line is our child"));
        let Some(status) = ended else {
            self.kill();
            let (stdout, stderr) = (self.stdout(), self.stderr());
            panic!(
                "`{}` was not done within {limit:?}\nstdout: {stdout}\nstderr: {stderr}",
                self.line
            );
        };
        Finished {
            line: std::mem::take(&mut self.line),
            status,
            stdout: bytes(&self.stdout),
            stderr: bytes(&self.stderr),
        }
    }

    /// Kills it unless it ends within `time`, and waits until it is gone.
    ///
    /// `timeout -s KILL` does not wait: what it kills may still hold files and locks when the next
    /// line begins. The line is one command with `exec` before it.
    ///
    /// # Panics
    /// If it outlives its being killed.
    pub fn kill_after(mut self, time: Duration) -> Finished {
        if wait::ask(time, || self.child.try_wait().expect("the line is our child")).is_none() {
            self.signal(Signal::SIGKILL);
        }
        self.finish(wait::LIMIT)
    }

    /// What it has written so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }

    #[must_use]
    pub fn stderr(&self) -> String {
        text(&self.stderr)
    }

    /// Sends a signal to everything that the line started.
    pub fn signal(&self, signal: Signal) {
        let group = i32::try_from(self.child.id()).expect("process ids are small");
        // The group may have ended by itself: then there is nobody left to tell.
        killpg(Pid::from_raw(group), signal).ok();
    }

    fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        // Bounded: a process that hangs in a dead mount must not hang the tests too.
        wait::ask(Duration::from_secs(5), || self.child.try_wait().ok().flatten());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.kill();
        }
    }
}

/// Reads without moving the file's offset, which the line that still writes shares.
fn bytes(file: &File) -> Vec<u8> {
    let size = file.metadata().expect("a temporary file has attributes").len();
    let mut content = vec![0; usize::try_from(size).expect("output fits in memory")];
    file.read_exact_at(&mut content, 0).expect("output only grows");
    content
}

fn text(file: &File) -> String {
    String::from_utf8_lossy(&bytes(file)).into_owned()
}

/// A line that has ended.
#[must_use = "say what was expected: `.ok()`, `.fails()` or `.code()`"]
#[derive(Debug)]
pub struct Finished {
    line: String,
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Finished {
    /// Its output, without the last newline; it must have succeeded.
    ///
    /// # Panics
    /// If it failed.
    pub fn ok(self) -> String {
        let output = self.ok_bytes();
        String::from_utf8_lossy(&output).trim_end_matches('\n').to_owned()
    }

    /// Its output as it is; it must have succeeded.
    ///
    /// # Panics
    /// If it failed.
    pub fn ok_bytes(self) -> Vec<u8> {
        assert!(self.status.success(), "{}", self.describe());
        self.stdout
    }

    /// What it said on either output; it must have failed by itself: no signal, no panic.
    ///
    /// # Panics
    /// If it succeeded, was killed, or panicked.
    pub fn fails(self) -> String {
        assert!(!self.status.success(), "should have failed: {}", self.describe());
        assert_eq!(self.status.signal(), None, "was killed: {}", self.describe());
        let said = format!("{}{}", lossy(&self.stderr), lossy(&self.stdout));
        assert!(!said.contains("panicked at"), "panicked: {}", self.describe());
        said
    }

    /// What it said on either output; it must have failed with these words.
    ///
    /// # Panics
    /// If it succeeded or said something else.
    pub fn fails_saying(self, words: &str) -> String {
        let description = self.describe();
        let said = self.fails();
        assert!(said.contains(words), "should say `{words}`: {description}");
        said
    }

    /// Its output, whether it succeeded or failed; it must have ended by itself.
    ///
    /// # Panics
    /// If it was killed.
    pub fn said(self) -> String {
        assert_eq!(self.status.signal(), None, "was killed: {}", self.describe());
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The exit code; `None` if a signal ended it.
    pub fn code(self) -> Option<i32> {
        self.status.code()
    }

    fn describe(&self) -> String {
        let (out, err) = (lossy(&self.stdout), lossy(&self.stderr));
        format!("`{}`: {}\nstdout: {out}\nstderr: {err}", self.line, self.status)
    }
}

fn lossy(bytes: &[u8]) -> String {
    /// More would bury the reason.
    const SHOWN_BYTES_MAX: usize = 8_192;
    let shown = &bytes[bytes.len().saturating_sub(SHOWN_BYTES_MAX)..];
    String::from_utf8_lossy(shown).into_owned()
}
