//! `revfs txn DIR -- CMD`: a command in a transaction of a mount (`@txn/NAME`).
//!
//! Each attempt begins a transaction of its own, and drops it however it ends.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

use nix::errno::Errno;
use serde::Deserialize;
use serde_json::json;

use crate::child::{self, Child};
use crate::error::{Failure, Kind, Result};
use crate::mounts;
use crate::output::Output;
use crate::signals::Signals;
use crate::target::{self, Place};

/// Names that are tried for a new transaction; others have taken those before.
const NAMES_MAX: u32 = 1_000;

/// What `@txn/NAME/@status` says that is needed here.
#[derive(Debug, Default, Deserialize)]
struct Status {
    revision: u64,
    state: String,
    committed: Option<u64>,
    #[serde(default)]
    conflicts: Vec<String>,
    #[serde(default)]
    more_conflicts: bool,
    error: Option<String>,
}

/// A transaction under way; dropped, it is gone.
struct Transaction {
    root: PathBuf,
    /// A lock of `@commit`, by which the mount knows that this process is there: if it is killed, the transaction
    /// goes too.
    _held: Option<File>,
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.root) {
            tracing::debug!(path = %self.root.display(), %error, "a transaction is left behind");
        }
    }
}

/// What a commit came to.
enum Ended {
    Committed(u64),
    Conflict(Status),
}

pub(super) async fn run(
    directory: &Path,
    command: &[OsString],
    retry: u32,
    output: &mut Output,
) -> Result<ExitCode> {
    let mounts = mounts::ours().unwrap_or_default();
    let Place::Inside { mount, below } = target::place(directory.as_os_str(), &mounts) else {
        let shown = directory.display();
        return Err(Failure::usage(format!("'{shown}' is no directory of a mount of revfs")).hint(
            "a command runs in a transaction of a mount; a text of conditions needs no `--`",
        ));
    };
    let mut signals = Signals::new()?;
    for attempt in 0..=retry {
        let transaction = Transaction::begin(&mount.point)?;
        let status = transaction.run(&below, command, &mut signals).await?;
        if !status.success() {
            return Ok(child::exit_code(status));
        }
        match transaction.commit().await? {
            Ended::Committed(revision) => {
                if output.json {
                    output.document(&json!({ "revision": revision, "attempts": attempt + 1 }))?;
                    output.finish()?;
                }
                return Ok(ExitCode::SUCCESS);
            }
            Ended::Conflict(status) if attempt == retry => return Err(conflict(&status, retry)),
            Ended::Conflict(status) => {
                tracing::info!(attempt, conflicts = ?status.conflicts, "the command runs again");
            }
        }
    }
    unreachable!("the last attempt is answered")
}

impl Transaction {
    fn begin(point: &Path) -> Result<Self> {
        for number in 0..NAMES_MAX {
            let name = format!("revfs-{}-{number}", std::process::id());
            let root = point.join("@txn").join(name);
            match fs::create_dir(&root) {
                Ok(()) => return Ok(Self { _held: hold(&root), root }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(not_begun(point, &error)),
            }
        }
        Err(not_begun(point, &io::Error::from(io::ErrorKind::AlreadyExists)))
    }

    async fn run(
        &self,
        below: &Path,
        command: &[OsString],
        signals: &mut Signals,
    ) -> Result<ExitStatus> {
        let variables = vec![("REVFS_TXN", self.root.clone().into_os_string())];
        let mut child = Child::start_in(&self.root.join(below), command, variables)?;
        loop {
            tokio::select! {
                signal = signals.next() => child.pass_on(signal),
                status = child.wait() => return status,
            }
        }
    }

    async fn commit(&self) -> Result<Ended> {
        let file = self.root.join("@commit");
        let commit = move || OpenOptions::new().write(true).open(file).map(drop);
        let committed = tokio::task::spawn_blocking(commit).await;
        let committed = committed.map_err(|error| Failure::caused("cannot commit", &error))?;
        let status = self.status();
        let error = match (committed, status.state.as_str()) {
            (Ok(()), _) | (Err(_), "committed") => {
                return Ok(Ended::Committed(status.committed.unwrap_or(status.revision)));
            }
            (Err(error), _) => error,
        };
        if status.state == "conflict" {
            return Ok(Ended::Conflict(status));
        }
        let failure = Failure::caused("the transaction cannot be committed", &error);
        let failure = match status.error {
            Some(reason) => failure.because(reason),
            None => failure,
        };
        Err(match status.state.as_str() {
            "unknown" => failure
                .of_kind(Kind::OutcomeUnknown)
                .hint("look whether the changes are there before you run it again"),
            _ => failure.because("nothing has happened"),
        })
    }

    /// As far as it can be read.
    fn status(&self) -> Status {
        let text = fs::read(self.root.join("@status"));
        text.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }
}

/// A mount of an older release knows no such lock, and drops what is left alone after an hour.
fn hold(root: &Path) -> Option<File> {
    let locked = File::open(root.join("@commit")).and_then(|file| {
        file.try_lock_shared()?;
        Ok(file)
    });
    locked.inspect_err(|error| tracing::debug!(%error, "the transaction is not held")).ok()
}

fn not_begun(point: &Path, error: &io::Error) -> Failure {
    let failure =
        Failure::caused(format!("cannot begin a transaction on {}", point.display()), error);
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EDQUOT) => {
            failure.hint("as many as a mount has at once are under way: ls @txn in its root")
        }
        Some(Errno::EROFS) => failure.hint("the mount is read-only: cat @status in its root"),
        _ => failure,
    }
}

fn conflict(status: &Status, retry: u32) -> Failure {
    let mut names = status.conflicts.join(", ");
    if status.more_conflicts {
        names.push_str(" and others");
    }
    if names.is_empty() {
        "something that it read".clone_into(&mut names);
    }
    let since = status.revision;
    let failure = Failure::conflict(format!(
        "nothing was committed: {names} changed after revision {since}, at which the command began"
    ));
    if retry == 0 {
        failure.hint("--retry N runs the command again, so many times at most")
    } else {
        failure.because(format!("it was run {} times", retry + 1))
    }
}
