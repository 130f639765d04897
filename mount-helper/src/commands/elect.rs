//! `revfs elect`: leads an election, or tells who leads it.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::process::ExitCode;

use revfs_api::KeySpace;
use revfs_api::keyspace::{KeyValue, Revision};
use revfs_api::line;
use serde_json::Value;

use super::lock::{Claim, Holding};
use crate::args::Globals;
use crate::endpoint;
use crate::error::{Asked as _, Failure, Result};
use crate::output::{Output, readable};
use crate::signals::Signals;
use crate::turn;

/// Lead an election, or tell who leads
///
/// With VALUE: waits until nobody else leads, says so by printing the key, and leads until Ctrl-C, or
/// while CMD runs (as `revfs lock`); VALUE is what the others are told. With --listen: prints key and
/// value of who leads, now and whenever that changes. etcdctl elect takes part in the same election.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs elect /elections/mail $HOSTNAME -- mail-daemon --foreground
  revfs elect /elections/mail --listen --json")]
pub(crate) struct ElectArgs {
    /// The election: a prefix of keys
    name: OsString,

    /// What a leader says of itself
    #[arg(required_unless_present = "listen")]
    value: Option<OsString>,

    /// Do not stand for election: tell who leads
    #[arg(long, conflicts_with_all = ["value", "wait", "command"])]
    listen: bool,

    #[command(flatten)]
    holding: Holding,
}

pub(crate) async fn run(
    args: ElectArgs,
    globals: &Globals,
    output: &mut Output,
) -> Result<ExitCode> {
    let Some(value) = args.value else {
        return listen(&args.name, globals, output).await;
    };
    let value = value.into_vec().into();
    let claim = Claim { what: "the lead of", name: &args.name, value, holding: &args.holding };
    claim.hold(globals, output).await
}

async fn listen(name: &OsString, globals: &Globals, output: &mut Output) -> Result<ExitCode> {
    if name.is_empty() {
        return Err(Failure::usage("the name of the election is empty"));
    }
    let mut signals = Signals::new()?;
    let node = endpoint::open(globals, &[], true).await?;
    tokio::select! {
        _ = signals.next() => Ok(ExitCode::SUCCESS),
        ended = follow(&*node.keys, name.as_bytes(), output) => {
            ended.map(|()| ExitCode::SUCCESS)
        }
    }
}

/// Prints each leader, and each thing that it says.
async fn follow(keys: &dyn KeySpace, name: &[u8], output: &mut Output) -> Result<()> {
    let asked = || format!("watch {}", readable(name));
    let (mut leader, view) = turn::holder(keys, name).await?;
    let mut watch = keys.watch(vec![line::of(name)], view.next()).await.asked(asked)?;
    let mut shown = Revision::NONE;
    loop {
        if let Some(leader) = leader.filter(|leader| leader.mod_revision != shown) {
            shown = leader.mod_revision;
            print(&leader, output)?;
        }
        watch.next().await.asked(asked)?;
        leader = turn::holder(keys, name).await?.0;
    }
}

fn print(leader: &KeyValue, output: &mut Output) -> Result<()> {
    if output.json {
        output.document(&Value::Object(super::get::document(leader, true)))?;
    } else {
        output.line(&format!("{}\t{}", readable(&leader.key), readable(&leader.value)))?;
    }
    output.finish()
}
