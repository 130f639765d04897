//! Where the log of a serving node goes, and in which form.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::args::Globals;
use crate::error::{Failure, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Stderr,
    Stdout,
    /// Appended to; who rotates it moves it away by copying and truncating.
    File(PathBuf),
}

#[derive(Clone, Debug)]
pub(super) struct LogPlan {
    pub(super) level: &'static str,
    /// Whether the level was asked for, rather than the default.
    pub(super) is_level_said: bool,
    pub(super) format: Format,
    pub(super) targets: Vec<Target>,
}

/// Each line goes to all of them; one that fails does not keep it from the others.
struct Outputs(Vec<Box<dyn Write + Send>>);

impl Write for Outputs {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        for output in &mut self.0 {
            // There is no other place to say that a log cannot be written.
            output.write_all(line).ok();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.iter_mut().try_for_each(Write::flush)
    }
}

/// Begins to log; `--log` (or `RUST_LOG`) is finer than a level and wins over the level's default.
pub(super) fn start(plan: &LogPlan, globals: &Globals) -> Result<()> {
    let of_level = match plan.level {
        "debug" => "debug,openraft=info,h2=info,hyper=info,tower=info".to_owned(),
        level => format!("{level},openraft=error"),
    };
    let filter = match &globals.log {
        Some(filter) if !plan.is_level_said => filter,
        _ => &of_level,
    };
    let mut outputs: Vec<Box<dyn Write + Send>> = Vec::new();
    for target in &plan.targets {
        outputs.push(match target {
            Target::Stderr => Box::new(io::stderr()),
            Target::Stdout => Box::new(io::stdout()),
            Target::File(path) => Box::new(open(path)?),
        });
    }
    let is_colored = plan.targets == [Target::Stderr] && io::stderr().is_terminal();
    let log = tracing_subscriber::fmt()
        .with_env_filter(crate::log_filter(filter)?)
        .with_writer(Mutex::new(Outputs(outputs)))
        .with_ansi(is_colored);
    match plan.format {
        Format::Text => log.init(),
        Format::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}

fn open(path: &PathBuf) -> Result<File> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    opened.map_err(|error| {
        Failure::caused(format!("cannot open the log '{}'", path.display()), &error)
            .hint("--log-outputs names files, or stderr, or stdout")
    })
}
