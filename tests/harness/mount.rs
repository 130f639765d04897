//! One running `revfs up`, or `revfs mount`, on directories of its own.
//!
//! Life: `up` starts the program and waits until the mount answers; `kill` (SIGKILL) and `stop`
//! (SIGTERM) end it, `start` brings it back on the same directories. On drop the program is ended, the
//! mount detached and the directories deleted. A watchdog ends a program that runs for longer than
//! any test may take: then whatever hangs in the mount comes back with an error, and the test fails.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::{Shell, program, shell, tools, wait};

/// No test takes longer.
const WATCHDOG: Duration = Duration::from_secs(20 * 60);

/// Opening a store after a crash on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Committing what is staged and writing the store.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Where a mount lies, and how its program is started.
#[derive(Clone, Debug)]
pub struct Place {
    pub dir: PathBuf,
    pub data: PathBuf,
    /// The cluster that is mounted; a node of its own if there is none.
    pub endpoints: Option<String>,
    /// Further arguments.
    pub arguments: Vec<String>,
}

/// A mount, its program and its directories.
pub struct Mount {
    place: Place,
    log: PathBuf,
    running: Option<Program>,
    scratch: TempDir,
}

/// The process behind a mount.
struct Program {
    child: Child,
    /// Dropped when the program has ended: that lets the watchdog go.
    _watched: Sender<()>,
}

impl Mount {
    /// A new, empty mount.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn up() -> Self {
        Self::up_with(|_| {})
    }

    /// A new mount whose place is changed before the start.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn up_with(change: impl FnOnce(&mut Place)) -> Self {
        let mut mount = Self::down();
        change(&mut mount.place);
        mount.start();
        mount
    }

    /// A new mount of a cluster that runs already, with further arguments.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn of(endpoints: &str, arguments: &[&str]) -> Self {
        Self::up_with(|place| {
            place.endpoints = Some(endpoints.to_owned());
            place.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        })
    }

    /// Directories for a mount that is not started yet.
    ///
    /// # Panics
    /// If there is no place for them.
    #[must_use]
    pub fn down() -> Self {
        tools::need(&["fusermount3", "setpriv"]);
        assert!(Path::new("/dev/fuse").exists(), "this test needs /dev/fuse: modprobe fuse");
        let mounts = std::fs::read_to_string("/proc/mounts").expect("the table of mounts");
        assert!(
            mounts.contains(" fusectl "),
            "this test needs fusectl: mount -t fusectl fusectl /sys/fs/fuse/connections"
        );
        let scratch = TempDir::with_prefix("revfs-test-").expect("a temporary directory");
        let root = scratch.path().canonicalize().expect("a new directory has a path");
        let (dir, data) = (root.join("mnt"), root.join("data"));
        let place = Place { dir, data, endpoints: None, arguments: Vec::new() };
        Self { place, log: root.join("log"), running: None, scratch }
    }

    /// Changes the place of a mount that does not run.
    pub fn change_place(&mut self, change: impl FnOnce(&mut Place)) {
        assert!(self.running.is_none(), "the program runs already");
        change(&mut self.place);
    }

    /// The mount point.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.place.dir
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.place.data
    }

    /// A path in the mount.
    #[must_use]
    pub fn path(&self, relative: &str) -> PathBuf {
        self.place.dir.join(relative)
    }

    /// A path beside the mount, on the disk.
    #[must_use]
    pub fn beside(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Lines of bash whose directory is the mount.
    #[must_use]
    pub fn shell(&self) -> Shell {
        Shell::new(&self.place.dir).variable("SCRATCH", self.scratch.path())
    }

    /// Runs a line of bash in the mount.
    pub fn run(&self, line: &str) -> shell::Finished {
        self.shell().run(line)
    }

    /// Runs a line of bash in the mount; it must succeed. Its output.
    ///
    /// # Panics
    /// If it fails.
    #[expect(clippy::must_use_candidate, reason = "a line is run for what it does")]
    pub fn ok(&self, line: &str) -> String {
        self.run(line).ok()
    }

    /// Runs a Python script in the mount; it must succeed. Its output.
    ///
    /// # Panics
    /// If it fails.
    #[expect(clippy::must_use_candidate, reason = "a script is run for what it does")]
    pub fn python(&self, script: &str) -> String {
        self.shell().interpreter("python3").run(script).ok()
    }

    /// How many revisions `file` has: what `@history` lists of it.
    ///
    /// # Panics
    /// If its history cannot be listed.
    #[must_use]
    pub fn versions(&self, file: &str) -> Vec<String> {
        let (parent, name) = file.rsplit_once('/').unwrap_or((".", file));
        let history = self.path(parent).join("@history").join(name);
        let mut names: Vec<String> = std::fs::read_dir(&history)
            .unwrap_or_else(|error| panic!("{}: {error}", history.display()))
            .map(|entry| entry.expect("an entry of @history").file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        names.sort_by_key(|name| revision_in(name));
        names
    }

    /// Starts the program and waits for the mount.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn start(&mut self) {
        assert!(self.starts_or_refuses(), "no mount at {}: {}", self.dir().display(), self.log());
    }

    /// Starts the program, which must refuse. What it said.
    ///
    /// # Panics
    /// If it comes up, panics, or is killed.
    #[must_use = "look at what it said"]
    pub fn refuses(&mut self) -> String {
        assert!(!self.starts_or_refuses(), "should have refused, but mounted: {}", self.log());
        self.log()
    }

    /// Starts the program, which may come up (true) or refuse with an error (false).
    ///
    /// # Panics
    /// If it does neither, panics, or is killed.
    #[must_use = "look at what happened"]
    pub fn starts_or_refuses(&mut self) -> bool {
        self.spawn();
        let ended = wait::ask(START_LIMIT, || {
            // It says so only after it has asked itself: until then it may still give up.
            let answers = || self.is_mounted() && self.log().contains("to stop: ");
            if answers() { Some(None) } else { self.has_ended().map(Some) }
        });
        let said = self.log();
        let ended = ended.unwrap_or_else(|| panic!("neither refused nor mounted: {said}"));
        assert!(!said.contains("panicked at"), "panicked: {said}");
        let Some(status) = ended else { return true };
        self.running = None;
        assert!(!status.success(), "ended without a mount or an error: {said}");
        assert_eq!(status.signal(), None, "{status}: {said}");
        false
    }

    fn spawn(&mut self) {
        assert!(self.running.is_none(), "the program runs already");
        let log = File::create(&self.log).expect("the log of the program");
        let mut command = Command::new("setpriv");
        // Ends with the thread that runs the test, even if the whole test binary is killed.
        command.args(["--pdeathsig", "KILL"]).arg(program::revfs());
        match &self.place.endpoints {
            Some(endpoints) => command.arg("mount").arg(endpoints).arg(&self.place.dir),
            None => command.arg("up").arg(&self.place.dir).arg("--data-dir").arg(&self.place.data),
        };
        command.arg("--foreground").args(&self.place.arguments).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a second descriptor")).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (sender, receiver) = channel();
        watch(process_of(&child), receiver);
        self.running = Some(Program { child, _watched: sender });
    }

    /// Ends the program at once: SIGKILL.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait_for_end(STOP_LIMIT);
    }

    /// Ends the program as Ctrl-C and systemd do: SIGTERM.
    ///
    /// # Panics
    /// If it does not end with success, or leaves the mount behind.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.wait_for_end(STOP_LIMIT);
        assert!(status.success(), "{status} after SIGTERM: {}", self.log());
        assert!(!self.is_mounted(), "the mount was left behind: {}", self.log());
    }

    /// Kills the program and starts it again.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn crash(&mut self) {
        self.kill();
        self.start();
    }

    /// The process id of the program.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn process(&self) -> Pid {
        process_of(&self.running.as_ref().expect("the program runs").child)
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.process(), signal).expect("the program is our child");
    }

    /// Waits until the program has ended by itself.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait_for_end(&mut self, limit: Duration) -> ExitStatus {
        let ended = wait::ask(limit, || self.has_ended());
        let status = ended.unwrap_or_else(|| panic!("did not end in {limit:?}: {}", self.log()));
        self.running = None;
        status
    }

    fn has_ended(&mut self) -> Option<ExitStatus> {
        let program = self.running.as_mut().expect("the program was started");
        program.child.try_wait().expect("the program is our child")
    }

    /// Everything that the program has said since its last start.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map_or_else(|error| error.to_string(), |said| String::from_utf8_lossy(&said).into())
    }

    /// Whether something is mounted at the mount point, alive or dead.
    #[must_use]
    pub fn is_mounted(&self) -> bool {
        is_mount_point(&self.place.dir)
    }

    /// `@status`.
    ///
    /// # Panics
    /// If it cannot be read.
    #[must_use]
    pub fn status(&self) -> Value {
        let path = self.path("@status");
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}", path.display(), self.log()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("@status: {error} in {text}"))
    }

    /// What `@status` says of the operations that were asked for.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn asked(&self) -> Asked {
        let status = self.status();
        let operations = status["mount"]["operations"].as_object().expect("@status tells them");
        let count = |kind: &Value| kind["count"].as_u64().expect("a number");
        Asked(operations.iter().map(|(name, kind)| (name.clone(), count(kind))).collect())
    }

    /// The current revision of the store.
    ///
    /// # Panics
    /// If `@status` does not say it.
    #[must_use]
    pub fn revision(&self) -> u64 {
        let status = self.status();
        find_number(&status, "revision").unwrap_or_else(|| panic!("no revision in {status}"))
    }
}

/// How often each kind of operation was asked of a mount since it began.
#[derive(Clone, Debug, Default)]
pub struct Asked(BTreeMap<String, u64>);

impl Asked {
    #[must_use]
    pub fn of(&self, operation: &str) -> u64 {
        self.0.get(operation).copied().unwrap_or(0)
    }

    /// What came between an earlier look and this one, which asks for little itself.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let more = self.0.iter().map(|(name, count)| (name.clone(), count - earlier.of(name)));
        Self(more.collect())
    }

    /// All that the kernel asked.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.0.values().sum::<u64>() - self.of("commit")
    }
}

/// The number under `name`, at the top or one level below.
fn find_number(status: &Value, name: &str) -> Option<u64> {
    let map = status.as_object()?;
    map.get(name)
        .and_then(Value::as_u64)
        .or_else(|| map.values().find_map(|inner| inner.get(name).and_then(Value::as_u64)))
}

/// The revision that a name in `@history/NAME/` begins with.
fn revision_in(name: &str) -> u64 {
    let digits = name.split('.').next().unwrap_or_default();
    digits.parse().unwrap_or_else(|error| panic!("`{name}` in @history: {error}"))
}

/// Whether a file system is mounted exactly at `dir`; asks the kernel's table, never the mount.
#[must_use]
pub fn is_mount_point(dir: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let wanted = dir.to_str().expect("the harness makes plain paths");
    table.lines().any(|line| line.split(' ').nth(4) == Some(wanted))
}

fn process_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("process ids are small"))
}

fn watch(process: Pid, ended: Receiver<()>) {
    std::thread::spawn(move || {
        if ended.recv_timeout(WATCHDOG) == Err(RecvTimeoutError::Timeout) {
            eprintln!("watchdog: {process} still runs after {WATCHDOG:?}: killed");
            kill(process, Signal::SIGKILL).ok();
        }
    });
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(mut program) = self.running.take() {
            let process = process_of(&program.child);
            for (signal, limit) in [(Signal::SIGTERM, 10), (Signal::SIGKILL, 10)] {
                // An error means that it has ended already, which is what is wanted.
                kill(process, signal).ok();
                let limit = Duration::from_secs(limit);
                if wait::ask(limit, || program.child.try_wait().ok().flatten()).is_some() {
                    break;
                }
            }
        }
        detach(&self.place.dir);
        if std::thread::panicking() {
            eprintln!("log of {}:\n{}", self.place.dir.display(), self.log());
        }
    }
}

/// Takes away whatever is mounted at `dir`, busy or dead.
pub fn detach(dir: &Path) {
    if is_mount_point(dir) && umount2(dir, MntFlags::MNT_DETACH).is_err() {
        // Not root: only the set-uid program may.
        Command::new("fusermount3").arg("-uz").arg(dir).status().ok();
    }
}
