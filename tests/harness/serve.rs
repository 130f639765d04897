//! One running `revfs serve` on a data directory of its own, seen from outside: what it listens on, what it
//! costs, how it ends. Killed at the end, if it has not ended before.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::{Api, program, tools, wait};

pub struct Server {
    child: Child,
    /// Read no further: what it says at its end waits there.
    _out: BufReader<ChildStdout>,
    url: String,
    arguments: Vec<String>,
    directory: TempDir,
    data: PathBuf,
}

impl Server {
    /// Starts one on a new directory, with these arguments besides.
    ///
    /// # Panics
    /// If it does not serve.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Self {
        let directory = TempDir::with_prefix("revfs-serve-").expect("a temporary directory");
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.into()).collect();
        let data = directory.path().join("data");
        let (child, out, url) = start(&directory, &data, &arguments);
        Self { child, _out: out, url, arguments, directory, data }
    }

    /// Starts one on a data directory that is there already.
    ///
    /// # Panics
    /// If it does not serve.
    #[must_use]
    pub fn of(data: &Path, arguments: &[&str]) -> Self {
        let directory = TempDir::with_prefix("revfs-serve-").expect("a temporary directory");
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.into()).collect();
        let (child, out, url) = start(&directory, data, &arguments);
        Self { child, _out: out, url, arguments, directory, data: data.to_owned() }
    }

    /// Starts it again after it has ended.
    ///
    /// # Panics
    /// If it does not serve.
    pub fn start_again(&mut self) {
        let ended = self.child.try_wait().expect("it is our child");
        assert!(ended.is_some(), "it still runs");
        (self.child, self._out, self.url) = start(&self.directory, &self.data, &self.arguments);
    }

    /// `http://host:port`
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A client of its own connection.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::at(&self.url)
    }

    /// # Panics
    /// If it does not run.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("an id");
        kill(Pid::from_raw(id), signal).expect("it runs");
    }

    /// # Panics
    /// If it still runs after `limit`.
    pub fn wait_for_end(&mut self, limit: Duration) -> ExitStatus {
        wait::until("end of the server", limit, || self.child.try_wait().expect("it is our child"))
    }

    /// Files and connections that it has open.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn open_files(&self) -> usize {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.child.id()));
        open.expect("it runs").count()
    }

    /// Memory of its own: without the pages of its files, which the kernel takes back at will.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        program::anonymous_bytes(self.child.id())
    }

    /// One value of `/metrics`, by its name and labels.
    ///
    /// # Panics
    /// If it is not there.
    #[must_use]
    pub fn metric(&self, name: &str) -> f64 {
        metric_at(self.address(), name)
    }

    fn address(&self) -> &str {
        self.url.strip_prefix("http://").expect("it is not encrypted")
    }

    /// What it answers to a GET, head and all.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn get(&self, path: &str) -> String {
        get_at(self.address(), path)
    }
}

/// What a server at `host:port` answers to a GET, head and all.
fn get_at(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it is text");
    answer
}

/// One value of `/metrics` of a server at `host:port`, by its name and labels.
///
/// # Panics
/// If it is not there.
#[must_use]
pub fn metric_at(address: &str, name: &str) -> f64 {
    let text = get_at(address, "/metrics");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = value.unwrap_or_else(|| panic!("{name} is missing in {text}"));
    value.parse().unwrap_or_else(|error| panic!("{name} {value}: {error}"))
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn start(
    directory: &TempDir,
    data: &Path,
    arguments: &[String],
) -> (Child, BufReader<ChildStdout>, String) {
    tools::need(&["setpriv"]);
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program::revfs()).args(["serve", "--json"]);
    command.args(["--listen-client-urls", "http://127.0.0.1:0", "--data-dir"]);
    command.arg(data).args(arguments);
    command.env_remove("RUST_LOG").current_dir(directory.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let log = std::fs::File::create(directory.path().join("log")).expect("a file");
    command.stderr(log);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("it is text");
    let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|error| {
        let log = std::fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        panic!("{error}: {line:?}; it said {log}")
    });
    let url = said["listening"][0].as_str().expect("it listens").to_owned();
    (child, out, url)
}

/// Lets this process have as many files open as it may.
///
/// # Panics
/// If it may not have `wanted`.
pub fn need_open_files(wanted: u64) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the kernel tells");
    assert!(hard >= wanted, "this test needs `ulimit -Hn` of {wanted}: it is {hard}");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to there it is free");
}
