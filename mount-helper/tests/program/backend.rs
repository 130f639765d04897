//! Real servers that the commands are run against: a node of this program, and Debian's etcd.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::command::{Prepared, command};

/// Far above what anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// As [`LIMIT`], for a call under way: a hanging one ends, and fails its test.
const LIMIT_SECONDS: &str = "60";

/// A server, killed at the end.
pub(crate) struct Backend {
    child: Child,
    pub(crate) endpoint: String,
    _directory: TempDir,
}

impl Backend {
    /// A node and an etcd: what is true for one has to be true for the other.
    pub(crate) fn both() -> [Self; 2] {
        [Self::node(), Self::etcd()]
    }

    pub(crate) fn node() -> Self {
        let directory = TempDir::with_prefix("revfs-node-").expect("a temporary directory");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_revfs"), "serve", "--json"]);
        command.arg("--data-dir").arg(directory.path().join("data"));
        command.args(["--listen-client-urls", "http://127.0.0.1:0"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("setpriv is installed");
        let mut line = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("it is text");
        let said: serde_json::Value = serde_json::from_str(&line).expect("it says where it is");
        let endpoint = said["listening"][0].as_str().expect("it listens").to_owned();
        Self { child, endpoint, _directory: directory }
    }

    pub(crate) fn etcd() -> Self {
        let directory = TempDir::with_prefix("revfs-etcd-").expect("a temporary directory");
        let [client, peer] = [(); 2].map(|()| {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            format!("http://{}", listener.local_addr().expect("it is bound"))
        });
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "etcd", "--name=one", "--log-level=error"]);
        command.arg("--data-dir").arg(directory.path()).args([
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=one={peer}"),
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("setpriv is installed");
        let etcd = Self { child, endpoint: client, _directory: directory };
        until("etcd answers", || etcd.call("status").run().code() == Some(0));
        etcd
    }

    /// A call of the program that asks this server. Arguments are separated by spaces.
    pub(crate) fn call(&self, line: &str) -> Prepared {
        command(line.split(' ')).variable("REVFS_ENDPOINT", &self.endpoint)
    }

    /// A call that goes on while the test does.
    pub(crate) fn begin(&self, arguments: &[&str]) -> Running {
        // Passes signals and the exit code on.
        let mut command = Command::new("timeout");
        command.args([LIMIT_SECONDS, env!("CARGO_BIN_EXE_revfs")]).args(arguments);
        command.env("REVFS_ENDPOINT", &self.endpoint).env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it is built");
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        Running { child, out }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // An error means that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A call under way; killed if the test does not end it.
pub(crate) struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Running {
    /// Waits for the next line of its output; empty if it ended.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("it is text");
        line.trim_end_matches('\n').to_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("an id");
        kill(Pid::from_raw(id), signal).expect("it runs");
    }

    /// Waits for its end: exit code, the rest of the output, and what it said on standard error.
    pub(crate) fn end(mut self) -> (Option<i32>, String, String) {
        let (mut rest, mut said) = (String::new(), String::new());
        self.out.read_to_string(&mut rest).expect("it is text");
        let stderr = self.child.stderr.as_mut().expect("it is piped");
        stderr.read_to_string(&mut said).expect("it is text");
        let status = self.child.wait().expect("it is our child");
        (status.code(), rest, said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::SIGTERM);
            self.child.wait().ok();
        }
    }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        std::thread::yield_now();
    }
}
