//! The program `revfs`, built from this workspace.
//!
//! Cargo builds the programs of a package only for the tests of that package, so the harness asks
//! cargo for it: once per test binary, in the profile of the tests, of the whole workspace's features
//! (nothing is built twice). What cargo reports is what is run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use cargo_metadata::Message;

/// The environment variable that names another program to test.
pub const PROGRAM_VARIABLE: &str = "REVFS_PROGRAM";

/// The path of the program.
///
/// # Panics
/// If it does not build.
#[must_use]
pub fn revfs() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| match std::env::var_os(PROGRAM_VARIABLE) {
        Some(program) => PathBuf::from(program),
        None => build(),
    })
}

/// The root of the workspace.
#[must_use]
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies one below the root")
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--workspace", "--bin", "revfs"]);
    command.arg("--message-format=json-render-diagnostics");
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command
        .current_dir(workspace())
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", output.status);
    Message::parse_stream(output.stdout.as_slice())
        .filter_map(|message| match message.expect("cargo writes JSON lines") {
            Message::CompilerArtifact(artifact) if artifact.target.name == "revfs" => {
                artifact.executable.map(Into::into)
            }
            _ => None,
        })
        .last()
        .unwrap_or_else(|| panic!("{command:?} reported no program `revfs`"))
}

/// What a running process has used of the processors since its start.
///
/// # Panics
/// If it does not run.
#[must_use]
pub fn processor_time(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it runs");
    // The name in brackets may hold blanks; user and system time are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')').expect("/proc/PID/stat has a name");
    let fields = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.map(|field| field.parse::<u64>().expect("ticks")).sum();
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK);
    let per_second = per_second.ok().flatten().and_then(|ticks| u32::try_from(ticks).ok());
    Duration::from_secs(ticks) / per_second.expect("the kernel tells its ticks")
}

/// Memory of a running process's own: without the pages of its files, which the kernel takes back at will.
///
/// # Panics
/// If it has ended.
#[must_use]
pub fn anonymous_bytes(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kilobytes.expect("the kernel says it in kB") * 1_024
}
