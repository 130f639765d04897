//! Every figure of the whole program that has a bound, one bench after the other, as one document.
//!
//!     cargo bench --workspace --bench all                one node, three, a million keys, how rates grow, mounts
//!     cargo bench --workspace --bench all -- --short     smaller and shorter; no sweep, one mount
//!     … -- --plots DIR                                   where the sweep draws its pictures
//!
//! `-p revfs-tests` instead of `--workspace` does the same, but has cargo build the libraries twice, for other features.
//!
//! Each bench is a process, as if it had been called alone. What they print goes out as it comes, and behind it how many of
//! the wanted figures are met, and which are not. A bench that fails is named there, too, and the others are run all the same.

use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use cargo_metadata::Message;
use revfs_tests::program::{self, PROGRAM_VARIABLE, workspace};
use revfs_tests::wait;

/// A bench and its arguments.
type Call = (&'static str, &'static [&'static str]);

const FULL: &[Call] = &[
    ("clients", &["--rounds", "3", "--seconds", "2"]),
    ("clients", &["--members", "3", "--rounds", "3", "--seconds", "2"]),
    ("clients", &["--million", "--rounds", "3", "--seconds", "2"]),
    ("clients", &["--rounds", "1", "--seconds", "2", "--sweep"]),
    ("mount", &["--bounded"]),
    ("remote", &[]),
    ("blocked", &[]),
    ("disturbed", &[]),
];

const SHORT: &[Call] = &[
    ("clients", &["--quick"]),
    ("clients", &["--quick", "--members", "3"]),
    ("clients", &["--quick", "--million"]),
    ("mount", &["--bounded", "--quick"]),
];

/// The last argument of a bench that draws: a directory comes behind it.
const DRAWS: &str = "--sweep";

/// Far above what one of them takes.
const LIMIT: Duration = Duration::from_secs(20 * 60);

struct Settings {
    calls: &'static [Call],
    plots: PathBuf,
}

/// What all of them said together.
#[derive(Default)]
struct Tally {
    met: usize,
    missed: Vec<String>,
    failed: Vec<String>,
}

impl Settings {
    fn read() -> Result<Self, String> {
        let plots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plots");
        let mut settings = Self { calls: FULL, plots };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                // cargo bench says so to every benchmark.
                "--bench" => {}
                "--short" => settings.calls = SHORT,
                "--plots" => {
                    let directory = arguments.next().ok_or("--plots needs a directory")?;
                    settings.plots = directory.into();
                }
                other => return Err(format!("unknown argument {other}: --short, --plots DIR")),
            }
        }
        Ok(settings)
    }
}

/// Builds the benches in the profile of this one, with the whole workspace's features as the program itself; the path of
/// each.
fn build(calls: &[Call]) -> Vec<(String, PathBuf)> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg(if cfg!(debug_assertions) { "test" } else { "bench" });
    command.args(["--workspace", "--no-run", "--message-format=json-render-diagnostics"]);
    for (name, _) in calls {
        command.args(["--bench", name]);
    }
    command.current_dir(workspace()).stderr(Stdio::inherit());
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", output.status);
    let built = Message::parse_stream(output.stdout.as_slice()).filter_map(|message| match message
        .expect("cargo writes JSON lines")
    {
        Message::CompilerArtifact(artifact) if artifact.target.is_bench() => {
            Some((artifact.target.name, artifact.executable?.into()))
        }
        _ => None,
    });
    built.collect()
}

/// What a bench has printed; an error if it did not end well.
fn run(program: &Path, arguments: &[&str], plots: &Path) -> Result<String, String> {
    let mut printed = tempfile::tempfile().expect("a temporary file");
    let mut command = Command::new(program);
    command.args(arguments).env(PROGRAM_VARIABLE, program::revfs()).stdin(Stdio::null());
    if arguments.last() == Some(&DRAWS) {
        command.arg(plots);
    }
    command.stdout(printed.try_clone().expect("a second descriptor"));
    let mut child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    let Some(status) = wait::ask(LIMIT, || child.try_wait().expect("it is our child")) else {
        // It may end at this very moment.
        child.kill().ok();
        child.wait().ok();
        return Err(format!("not done within {LIMIT:?}"));
    };
    if !status.success() {
        return Err(status.to_string());
    }
    let mut text = String::new();
    printed.rewind().and_then(|()| printed.read_to_string(&mut text)).expect("it is text");
    Ok(text)
}

impl Tally {
    /// The lines of tables that say whether they are met.
    fn count(&mut self, text: &str) {
        for line in text.lines() {
            let name = || line.split('|').nth(1).unwrap_or_default().trim().to_owned();
            if line.contains("| yes |") {
                self.met += 1;
            } else if line.contains("| **no** |") {
                self.missed.push(name());
            }
        }
    }

    fn print(&self) {
        let wanted = self.met + self.missed.len();
        println!("## Wanted figures: {} of {wanted} are met\n", self.met);
        for name in &self.missed {
            println!("- not met: {name}");
        }
        for name in &self.failed {
            println!("- failed: {name}");
        }
    }
}

fn main() -> ExitCode {
    let Settings { calls, plots } = match Settings::read() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let built = build(calls);
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    println!("# Figures of {} on {processors} processors\n", program::revfs().display());
    let (begun, mut tally) = (Instant::now(), Tally::default());
    for (name, arguments) in calls {
        let called = format!("{name} {}", arguments.join(" "));
        println!("## {}\n", called.trim());
        let program = built.iter().find(|(built, _)| built == name);
        let (_, program) = program.unwrap_or_else(|| panic!("cargo built no bench {name}"));
        let begun = Instant::now();
        match run(program, arguments, &plots) {
            Ok(text) => {
                tally.count(&text);
                println!("{}\n\n{:.0?}\n", text.trim(), begun.elapsed());
            }
            Err(error) => {
                println!("{error}\n");
                tally.failed.push(called);
            }
        }
    }
    tally.print();
    println!("\nAll of it took {:.0?}.", begun.elapsed());
    if tally.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
