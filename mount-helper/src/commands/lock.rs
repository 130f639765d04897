//! `revfs lock`: holds a lock, while a command runs or until told to end. `revfs elect` is the same with
//! a value.

mod list;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use bytes::Bytes;
use revfs_api::client::LeaseKeeper;
use revfs_api::keyspace::LeaseId;
use serde_json::Map;

use crate::args::Globals;
use crate::child::{self, Child};
use crate::endpoint::{self, Node};
use crate::error::{Asked as _, Failure, Kind, Result};
use crate::lease_id;
use crate::output::{Output, insert_bytes, readable};
use crate::signals::Signals;
use crate::turn::{self, Turn};

/// Hold a lock while CMD runs, or until Ctrl-C
///
/// Waits until the lock is free. CMD is ended when the lease of the lock is lost; otherwise the exit
/// code is CMD's. It finds REVFS_LOCK_KEY, which exists while the lock is held, REVFS_LOCK_REVISION,
/// which grows from holder to holder, and REVFS_LEASE. Without CMD the key is printed once the lock is
/// held. etcdctl lock, and etcd's Lock service, wait in the same line. These are not the locks of files
/// (flock, fcntl) that programs take in a mount: --list shows those.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs lock /locks/backup -- backup.sh
  revfs lock /locks/backup --wait 0 -- backup.sh || echo 'somebody else does it'
  revfs lock --list ~/conf/app")]
pub(crate) struct LockArgs {
    /// The lock: a prefix of keys (with --list: a file or directory, as a key or a path in a mount)
    #[arg(required_unless_present = "list")]
    name: Option<OsString>,

    /// Show who holds and waits for locks of files, on all mounts
    #[arg(long, conflicts_with_all = ["wait", "command"])]
    list: bool,

    #[command(flatten)]
    pub(crate) holding: Holding,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Holding {
    /// Others get it so many seconds after this process vanished
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(i64).range(1..))]
    ttl: i64,

    /// Wait so many seconds at most, then exit 3; 0 = only try
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,

    /// What to run while it is held
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What is waited for.
pub(crate) struct Claim<'a> {
    /// What it is called in messages.
    pub(crate) what: &'static str,
    pub(crate) name: &'a OsStr,
    pub(crate) value: Bytes,
    pub(crate) holding: &'a Holding,
}

pub(crate) async fn run(
    args: LockArgs,
    globals: &Globals,
    output: &mut Output,
) -> Result<ExitCode> {
    if args.list {
        list::run(args.name, globals, output).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let value = Bytes::new();
    let name = args.name.unwrap_or_default();
    let claim = Claim { what: "the lock", name: &name, value, holding: &args.holding };
    claim.hold(globals, output).await
}

impl Claim<'_> {
    pub(crate) async fn hold(self, globals: &Globals, output: &mut Output) -> Result<ExitCode> {
        if self.name.is_empty() {
            return Err(Failure::usage(format!("the name of {} is empty", self.what)));
        }
        let mut signals = Signals::new()?;
        let node = endpoint::open(globals, &[], true).await?;
        let granted = LeaseKeeper::grant(node.keys.clone(), self.holding.ttl).await;
        let mut lease = granted.asked(|| "grant a lease".to_owned())?;
        let ended = self.in_turn(&node, &mut lease, &mut signals, output).await;
        // An error means that it ends by itself.
        lease.revoke().await.ok();
        ended
    }

    async fn in_turn(
        &self,
        node: &Node,
        lease: &mut LeaseKeeper,
        signals: &mut Signals,
        output: &mut Output,
    ) -> Result<ExitCode> {
        let id = lease.id();
        let turn = tokio::select! {
            () = lease.lost() => return Err(self.lost(id)),
            signal = signals.next() => {
                let shown = readable(self.name.as_bytes());
                let message = format!("{signal} came before {} {shown} was free", self.what);
                return Err(Failure::new(Kind::Failure, message));
            }
            turn = self.take(node, id) => turn?,
        };
        if self.holding.command.is_empty() {
            report(&turn, id, output)?;
            return tokio::select! {
                () = lease.lost() => Err(self.lost(id)),
                _ = signals.next() => Ok(ExitCode::SUCCESS),
            };
        }
        let variables = variables(node, &turn, id);
        let mut child = Child::start(&self.holding.command, variables, Stdio::inherit())?;
        loop {
            tokio::select! {
                () = lease.lost() => {
                    child.end().await;
                    return Err(self.lost(id).because(format!("'{}' was ended", child.shown())));
                }
                signal = signals.next() => child.pass_on(signal),
                status = child.wait() => return Ok(child::exit_code(status?)),
            }
        }
    }

    fn lost(&self, id: LeaseId) -> Failure {
        let (what, shown) = (self.what, readable(self.name.as_bytes()));
        let lease = lease_id::shown(id);
        Failure::conflict(format!("{what} {shown} is lost: its lease {lease} has ended"))
            .hint("a longer --ttl outlasts longer interruptions")
    }

    async fn take(&self, node: &Node, lease: LeaseId) -> Result<Turn> {
        let (keys, name) = (&*node.keys, self.name.as_bytes());
        let turn = Turn::enter(keys, name, &self.value, lease).await?;
        let patience = self.holding.wait.map(Duration::from_secs);
        if turn.wait(keys, patience).await? {
            return Ok(turn);
        }
        let holder = turn::holder(keys, name).await?.0;
        let holder = holder.map_or("somebody".to_owned(), |kv| readable(&kv.key));
        let (what, shown) = (self.what, readable(name));
        let waited = patience.unwrap_or_default().as_secs();
        Err(Failure::conflict(format!("{what} {shown} is not free: {holder} has it"))
            .because(format!("it was waited for {waited} seconds (--wait)")))
    }
}

fn report(turn: &Turn, lease: LeaseId, output: &mut Output) -> Result<()> {
    if output.json {
        let mut object = Map::new();
        insert_bytes(&mut object, "key", &turn.key);
        object.insert("revision".into(), turn.revision.0.into());
        object.insert("lease".into(), lease.0.into());
        output.document(&object.into())?;
    } else {
        output.line(&readable(&turn.key))?;
    }
    output.finish()
}

fn variables(node: &Node, turn: &Turn, lease: LeaseId) -> Vec<(&'static str, OsString)> {
    vec![
        ("REVFS_ENDPOINT", node.endpoint.clone().into()),
        ("REVFS_LOCK_KEY", OsString::from_vec(turn.key.to_vec())),
        ("REVFS_LOCK_REVISION", turn.revision.to_string().into()),
        ("REVFS_LEASE", lease_id::shown(lease).into()),
    ]
}
