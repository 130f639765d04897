//! The command line: what can be said, not what it does.
//!
//! `revfs --help` is written by hand so that it fits one screen of 80 columns and 24 lines; a test
//! checks that and that it names every command. Each command's own arguments stand with the command.

use clap::{Parser, Subcommand};

use crate::commands::{
    alarm::AlarmArgs, auth::AuthArgs, compact::CompactArgs, completion::CompletionArgs,
    del::DelArgs, diff::DiffArgs, elect::ElectArgs, get::GetArgs, import::ImportArgs,
    inspect::InspectArgs, lease::LeaseArgs, lock::LockArgs, log::LogArgs, ls::LsArgs, man::ManArgs,
    member::MemberArgs, mirror::MirrorArgs, mount::MountArgs, put::PutArgs, recover::RecoverArgs,
    restore::RestoreArgs, role::RoleArgs, serve::ServeArgs, snapshot::SnapshotArgs, stat::StatArgs,
    status::StatusArgs, txn::TxnArgs, umount::UmountArgs, up::UpArgs, user::UserArgs,
    watch::WatchArgs,
};
use crate::connection::ConnectionArgs;
use crate::guard::GuardArgs;

const HELP: &str = "\
revfs: a directory whose every change is a revision that you can go back to

Usage: revfs COMMAND [ARGUMENTS] [--endpoint E] [--json] [--log FILTER]

  up DIR                  start a node, keep its data, and mount it at DIR
  mount ENDPOINTS DIR     mount a cluster that runs elsewhere, of revfs or etcd
  serve                   a node for the network  umount DIR       and store all
  get KEY…                print values            put KEY [VALUE]  store one
  ls [KEY]                list one level          del KEY…         delete
  txn [FILE]              several changes in one step, if conditions hold
  watch KEY [-- CMD]      print changes as they come, or run CMD at each
  lock NAME [-- CMD]      hold a lock             elect NAME VALUE lead, follow
  log PATH                who changed it, when    lease grant|…    times of keys
  diff A..B PATH          between two revisions   user, role, auth who may what
  restore PATH --to N|T   as it was, in one step  compact N|@T     forget
  snapshot save|restore   back up into a file     inspect, recover DATA-DIR
  stat KEY…, status       of files; of the node   alarm, member    of a cluster
  import FILE|URL         the data of an etcd     mirror A B       a live copy

A KEY or PATH inside a mount is that file; anything else is a key (/app/color).
N is a revision, T a time: 2026-11-22T10:00:00Z, 2026-11-22, -10m, -2h, -7d.
Exit: 0 done, 1 not there or failed, 2 usage, 3 refused, 4 no node, 5 unknown.
Examples: revfs up ~/conf; cat ~/conf/@rev/41/app; revfs restore ~/conf --to 41
More: revfs COMMAND --help, revfs man [COMMAND], revfs completion bash|zsh|fish
";

/// The program `revfs`.
#[derive(Debug, Parser)]
#[command(name = "revfs", version, override_help = HELP, disable_help_subcommand = true)]
#[command(arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Globals {
    /// The node to ask: unix:///path/revfs.sock, /path/revfs.sock, http://host:port or https://host:port
    ///
    /// Several members of one cluster are written with commas between them.
    /// Without it the node is the one of the mount that the path or the current directory lies in,
    /// else that of the only mount of this user.
    #[arg(
        long,
        global = true,
        env = "REVFS_ENDPOINT",
        value_name = "ENDPOINT",
        help_heading = "Everywhere"
    )]
    pub(crate) endpoint: Option<String>,

    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,

    /// Print JSON, one document a line; errors too, on standard error
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) json: bool,

    /// What to log to standard error, as RUST_LOG: warn, revfs=debug, …
    #[arg(
        long,
        global = true,
        env = "RUST_LOG",
        value_name = "FILTER",
        help_heading = "Everywhere"
    )]
    pub(crate) log: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Up(UpArgs),
    Mount(MountArgs),
    Serve(ServeArgs),
    #[command(visible_alias = "down")]
    Umount(UmountArgs),
    Get(GetArgs),
    Put(PutArgs),
    Del(DelArgs),
    Ls(LsArgs),
    Log(LogArgs),
    Diff(DiffArgs),
    Restore(RestoreArgs),
    Stat(StatArgs),
    Status(StatusArgs),
    Txn(TxnArgs),
    Watch(WatchArgs),
    Lease(LeaseArgs),
    Lock(LockArgs),
    Elect(ElectArgs),
    Compact(CompactArgs),
    User(UserArgs),
    Role(RoleArgs),
    Auth(AuthArgs),
    Alarm(AlarmArgs),
    Member(MemberArgs),
    Snapshot(SnapshotArgs),
    Inspect(InspectArgs),
    Import(ImportArgs),
    Mirror(MirrorArgs),
    Recover(RecoverArgs),
    Completion(CompletionArgs),
    Man(ManArgs),
    #[command(hide = true)]
    GuardMount(GuardArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_names_every_command_and_fits_a_screen() {
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            let named = HELP.split(|c: char| !c.is_alphanumeric()).any(|word| word == name);
            assert!(named, "{name} is missing");
        }
        assert!(HELP.lines().count() <= 24, "{} lines", HELP.lines().count());
        for line in HELP.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
