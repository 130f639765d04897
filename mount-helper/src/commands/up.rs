//! `revfs up`: one node and its mount, nothing to configure.
//!
//! Order: look at DIR, take the data directory's lock, clean up a dead mount, start the node, serve
//! its socket, mount, answer. Whatever fails undoes what came before it. The end is the reverse:
//! unmount (files that are still being written are committed), drain, store, release the lock.

pub(crate) mod data_dir;
mod keep;
mod serving;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueHint;
use revfs_fs::filesystem::MountOptions;

use crate::args::Globals;
use crate::error::{Failure, Result};
use crate::mounting::promises::Promises;
use crate::mounting::{self, daemon, directory};
use crate::output::Output;
use crate::unmount::absolute;

use data_dir::{DataDir, Use};
use keep::{Keep, Kept};

/// Start a node, keep its data, and mount it at a directory
///
/// Creates DIR and the data directory where they are missing. Every change in DIR is a revision;
/// DIR/@rev/N is the directory as it was. Ends on Ctrl-C, SIGTERM or `revfs umount DIR`, after
/// everything is stored; a second Ctrl-C detaches the mount even if it is in use. As root DIR is open
/// to everybody as far as the modes of its files allow; otherwise to you alone, through fusermount3.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs up ~/conf
  revfs up /srv/conf --daemon
  revfs up /srv/conf --data-dir /data/conf --keep 90d --listen 127.0.0.1:2379

Data: /var/lib/revfs/… for root, else $XDG_DATA_HOME/revfs/… or ~/.local/share/revfs/…
In the background it logs to revfs.log in the data directory.")]
pub(crate) struct UpArgs {
    /// Where to mount: an empty directory, or one that does not exist yet
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    directory: PathBuf,

    /// Where the data is kept
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    data_dir: Option<PathBuf>,

    /// Run until Ctrl-C (the default)
    #[arg(long, conflicts_with = "daemon")]
    foreground: bool,

    /// Return once the mount answers, and run on in the background
    #[arg(long)]
    daemon: bool,

    /// How long old revisions are kept: 30d, 12h, 2w, or all. Remembered; 30d if it was never said
    #[arg(long, value_name = "AGE")]
    keep: Option<Keep>,

    /// Refuse to store more when so many bytes of the store are in use; none if it is not said
    #[arg(long, value_name = "BYTES")]
    quota_backend_bytes: Option<u64>,

    /// Listen on TCP too (host:port; may be repeated). Whoever reaches it may read and write
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<SocketAddr>,

    /// Let other users in, as far as modes allow (the default for root)
    #[arg(long)]
    allow_other: bool,

    #[command(flatten)]
    promises: Promises,

    /// The second process of --daemon.
    #[arg(long, hide = true, requires = "daemon")]
    detached: bool,
}

/// All that is decided before anything is started.
struct Plan {
    point: PathBuf,
    data: DataDir,
    keep: Kept,
    quota_bytes: Option<u64>,
    listen: Vec<SocketAddr>,
    mount: MountOptions,
}

pub(crate) fn run(args: UpArgs, globals: &Globals, output: &mut Output) -> Result<ExitCode> {
    if args.daemon && !args.detached {
        return daemon::start();
    }
    let point = absolute(&args.directory)?;
    let data_dir = match args.data_dir {
        Some(path) => absolute(&path)?,
        None => data_dir::default_path(&point)?,
    };
    // From here on the current directory is the root: everything above is absolute.
    let parent = if args.detached { Some(daemon::detach()?) } else { None };
    directory::check_apart(&data_dir, &point)?;
    let found = directory::check(&point)?;
    let data = DataDir::open(data_dir, Use::Mounts(&point))?;
    let log = parent.as_ref().map(|_| data.open_log()).transpose()?;
    mounting::start_log(globals, log)?;
    directory::prepare(&point, found)?;
    let mount = args.promises.over(mounting::options(args.allow_other));
    let keep = keep::settle(args.keep, &data.path)?;
    let quota_bytes = args.quota_backend_bytes;
    let plan = Plan { point, data, keep, quota_bytes, listen: args.listen, mount };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::caused("cannot start", &error))?;
    runtime.block_on(serving::run(&plan, parent, output))?;
    Ok(ExitCode::SUCCESS)
}
