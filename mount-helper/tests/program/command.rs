//! Running the program under test, and what it said.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// No call takes longer; a hanging one fails its test with exit code 124.
const LIMIT_SECONDS: &str = "120";

/// The program, with an environment that says nothing about nodes.
pub(crate) fn revfs<I, S>(arguments: I) -> Ended
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    command(arguments).run()
}

/// As [`revfs`], to be added to before it runs.
pub(crate) fn command<I, S>(arguments: I) -> Prepared
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new("timeout");
    command.args([LIMIT_SECONDS, env!("CARGO_BIN_EXE_revfs")]).args(arguments);
    command
        .env_remove("REVFS_ENDPOINT")
        .env_remove("REVFS_USER")
        .env_remove("RUST_LOG")
        .env("TZ", "UTC")
        .env("LC_ALL", "C");
    Prepared { command, input: Vec::new() }
}

pub(crate) struct Prepared {
    command: Command,
    input: Vec<u8>,
}

impl Prepared {
    pub(crate) fn input(mut self, input: &[u8]) -> Self {
        self.input = input.to_vec();
        self
    }

    /// One more argument, whatever is in it.
    pub(crate) fn argument(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub(crate) fn directory(mut self, directory: impl AsRef<Path>) -> Self {
        self.command.current_dir(directory);
        self
    }

    pub(crate) fn variable(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn run(mut self) -> Ended {
        let shown = format!("{:?}", self.command);
        let command = self.command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("timeout is installed");
        // A program that does not read its input closes it.
        child.stdin.take().expect("it is piped").write_all(&self.input).ok();
        Ended { shown, output: child.wait_with_output().expect("it is our child") }
    }
}

/// A call that has ended. What it said has to be looked at.
#[must_use = "check how it ended"]
pub(crate) struct Ended {
    shown: String,
    output: Output,
}

impl Ended {
    pub(crate) fn out(&self) -> String {
        String::from_utf8(self.output.stdout.clone()).expect("its output is UTF-8")
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// It succeeded without a word on standard error; its output.
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code(), self.err()), (Some(0), String::new()), "{self}");
        self.out()
    }

    /// As [`Self::ok`], for output that is no text.
    pub(crate) fn ok_bytes(self) -> Vec<u8> {
        assert_eq!((self.code(), self.err()), (Some(0), String::new()));
        self.output.stdout
    }

    /// The one JSON document of a successful call.
    pub(crate) fn json(self) -> Value {
        let mut documents = self.json_lines();
        assert_eq!(documents.len(), 1, "{documents:?}");
        documents.remove(0)
    }

    /// All JSON documents of a successful call.
    pub(crate) fn json_lines(self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).expect("each line is a document");
        self.ok().lines().map(parse).collect()
    }

    pub(crate) fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    /// It failed with this exit code, printed nothing on standard output, and said all of `words`.
    pub(crate) fn fails(self, code: i32, words: &[&str]) {
        assert_eq!((self.code(), self.out()), (Some(code), String::new()), "{self}");
        let said = self.err();
        assert!(!said.contains("panicked"), "{self}");
        for word in words {
            assert!(said.contains(word), "{word:?} is missing: {self}");
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let out = String::from_utf8_lossy(&self.output.stdout);
        let status = self.output.status;
        write!(f, "{}: {status}\nstdout: {out}\nstderr: {}", self.shown, self.err())
    }
}
