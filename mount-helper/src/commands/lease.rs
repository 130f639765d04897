//! `revfs lease`: times that keys hang on.

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use revfs_api::KeySpace;
use revfs_api::keyspace::{Error, LeaseId, LeaseState};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::args::Globals;
use crate::endpoint;
use crate::error::{Asked as _, Failure, Result};
use crate::lease_id::{argument, shown};
use crate::output::{Output, readable};
use crate::signals::Signals;

/// Pause after a renewal that failed.
const PAUSE: Duration = Duration::from_millis(500);

/// Grant, keep, show and end leases
///
/// A key that was put with a lease is deleted when the lease ends: `put KEY VALUE lease ID` in a
/// transaction (revfs txn). A lease is written in hexadecimal, as etcdctl does; in JSON it is the
/// number, and `id` the digits.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  id=$(revfs lease grant 60 | cut -f1)
  echo \"put /alive/$HOSTNAME yes lease $id\" | revfs txn
  revfs lease keep-alive $id")]
pub(crate) struct LeaseArgs {
    #[command(subcommand)]
    command: LeaseCommand,
}

#[derive(Debug, Subcommand)]
enum LeaseCommand {
    /// Grant a lease; prints its ID and its seconds
    #[command(after_help = "Examples:\n  revfs lease grant 60")]
    Grant {
        /// How long it lives if nobody keeps it
        #[arg(value_parser = clap::value_parser!(i64).range(1..))]
        seconds: i64,
        /// Choose the number: 1 to 16 hexadecimal digits
        #[arg(long, value_parser = argument, default_value = None)]
        id: Option<LeaseId>,
    },
    /// End leases; their keys are deleted
    #[command(after_help = "Examples:\n  revfs lease revoke 32695410dcc0ca06")]
    Revoke {
        #[arg(required = true, value_parser = argument)]
        id: Vec<LeaseId>,
    },
    /// Keep a lease alive until Ctrl-C; prints ID and seconds at each renewal
    #[command(after_help = "Examples:\n  revfs lease keep-alive 32695410dcc0ca06 --once")]
    KeepAlive {
        #[arg(value_parser = argument)]
        id: LeaseId,
        /// Renew it once only
        #[arg(long)]
        once: bool,
    },
    /// Show what is left of a lease: ID, seconds left, seconds granted
    #[command(after_help = "Examples:\n  revfs lease ttl 32695410dcc0ca06 --keys")]
    Ttl {
        #[arg(value_parser = argument)]
        id: LeaseId,
        /// Show its keys too
        #[arg(long)]
        keys: bool,
    },
    /// List the leases that live
    #[command(after_help = "Examples:\n  revfs lease list --json")]
    List,
}

pub(crate) async fn run(
    args: LeaseArgs,
    globals: &Globals,
    output: &mut Output,
) -> Result<ExitCode> {
    let keys = endpoint::open(globals, &[], true).await?.keys;
    match args.command {
        LeaseCommand::Grant { seconds, id } => {
            let granted = keys.lease_grant(id.unwrap_or_default(), seconds).await;
            let (id, ttl) = granted.asked(|| format!("grant a lease of {seconds} seconds"))?;
            print(id, ttl, output)?;
        }
        LeaseCommand::Revoke { id } => {
            for id in id {
                match keys.lease_revoke(id).await {
                    Err(Error::Invalid(text)) if text.contains("lease not found") => {
                        return Err(missing(id));
                    }
                    ended => ended.asked(|| format!("revoke lease {}", shown(id)))?,
                }
            }
        }
        LeaseCommand::KeepAlive { id, once } => {
            let mut signals = Signals::new()?;
            tokio::select! {
                _ = signals.next() => {}
                ended = keep_alive(&*keys, id, once, output) => ended?,
            }
        }
        LeaseCommand::Ttl { id, keys: with_keys } => {
            let found = keys.lease_time_to_live(id, with_keys).await;
            let found = found.asked(|| format!("ask for lease {}", shown(id)))?;
            print_state(&found.ok_or_else(|| missing(id))?, with_keys, output)?;
        }
        LeaseCommand::List => {
            for id in keys.leases().await.asked(|| "list the leases".to_owned())? {
                match output.json {
                    true => output.document(&json!({ "lease": id.0, "id": shown(id) }))?,
                    false => output.line(&shown(id))?,
                }
            }
        }
    }
    output.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// Renews the lease and says so, three times in its time, as long as it may live.
async fn keep_alive(
    keys: &dyn KeySpace,
    id: LeaseId,
    once: bool,
    output: &mut Output,
) -> Result<()> {
    let mut until = Instant::now();
    loop {
        let sent = Instant::now();
        match keys.lease_keep_alive(id).await {
            Ok(Some(ttl)) => {
                print(id, ttl, output)?;
                if once {
                    return Ok(());
                }
                let ttl = Duration::from_secs(u64::try_from(ttl).unwrap_or(0));
                until = sent + ttl;
                tokio::time::sleep_until(sent + ttl / 3).await;
            }
            Ok(None) => return Err(missing(id)),
            Err(Error::Unavailable { .. } | Error::Timeout(_) | Error::NoQuorum { .. })
                if Instant::now() < until =>
            {
                tokio::time::sleep_until(sent + PAUSE).await;
            }
            Err(error) => return Err(error).asked(|| format!("renew lease {}", shown(id))),
        }
    }
}

fn missing(id: LeaseId) -> Failure {
    Failure::not_found(format!("lease {} does not exist, or has ended", shown(id)))
        .hint("revfs lease list shows those that live")
}

fn print(id: LeaseId, ttl: i64, output: &mut Output) -> Result<()> {
    if output.json {
        output.document(&json!({ "lease": id.0, "id": shown(id), "ttl": ttl }))?;
    } else {
        output.line(&format!("{}\t{ttl}", shown(id)))?;
    }
    output.finish()
}

fn print_state(state: &LeaseState, with_keys: bool, output: &mut Output) -> Result<()> {
    let LeaseState { id, granted_seconds, remaining_seconds, .. } = *state;
    if output.json {
        let mut document = json!({
            "lease": id.0, "id": shown(id), "ttl": remaining_seconds, "granted": granted_seconds,
        });
        if with_keys {
            document["keys"] = state.keys.iter().map(|key| key_json(key)).collect();
        }
        return output.document(&document);
    }
    let row = [shown(id), remaining_seconds.to_string(), granted_seconds.to_string()];
    output.columns(&["lease", "seconds left", "granted"], &[row.to_vec()])?;
    state.keys.iter().try_for_each(|key| output.line(&readable(key)))
}

fn key_json(key: &[u8]) -> Value {
    let mut object = Map::new();
    crate::output::insert_bytes(&mut object, "key", key);
    object.into()
}
