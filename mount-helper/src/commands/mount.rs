//! `revfs mount`: a key space that is elsewhere, as a directory here; or a backup.
//!
//! The cluster is asked first, so that a mount comes only where somebody answers. One of revfs is mounted
//! as `up` mounts its own; a real etcd read-only, unless it is said otherwise, and then nothing but the keys
//! that the user names is written, unless that is said too: a key that its owner does not expect can stop a
//! program that lists them.

mod fstab;
mod look;
mod source;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::ValueHint;
use revfs_api::KeySpace;
use revfs_fs::filesystem::MountOptions;
use revfs_fs::node::Tree;
use revfs_fs::path::DirectoryKey;

use crate::args::Globals;
use crate::error::{Failure, Kind, Result};
use crate::log_file::LogFile;
use crate::mount8;
use crate::mounting::daemon::Parent;
use crate::mounting::promises::Promises;
use crate::mounting::{self, daemon, directory};
use crate::output::Output;
use crate::signals::Signals;
use crate::unmount::absolute;

use self::look::Look;
use self::source::{Backend, Source};
use super::up::data_dir::escape_text;

/// Mount a cluster that runs elsewhere (of revfs, or of etcd), or a backup
///
/// Creates DIR where it is missing. A real etcd is mounted read-only unless --read-write is given;
/// `@status` says under `limits` what etcd cannot do. A file that `revfs snapshot save` made is mounted
/// read-only, with its history, and stays as it is. Ends on Ctrl-C, SIGTERM or `revfs umount DIR`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  revfs mount http://node1:2379,http://node2:2379 /mnt/conf
  revfs mount https://etcd:2379 /mnt/etcd --cacert ca.pem --user root --password-file pw
  revfs mount http://localhost:2379 /mnt/pods --prefix /registry/pods/
  revfs mount http://node1:2379 /mnt/then --time -2h
  revfs mount /var/backups/conf.snapshot /mnt/backup
  mount -t revfs http://node1:2379 /mnt/conf -o ro,user=reader,password-file=/etc/pw
In /etc/fstab (`--fstab` prints the line), with /sbin/mount.revfs a link to this program:
  http://node1:2379  /mnt/conf  revfs  _netdev,nofail,x-systemd.automount  0 0

In the background it logs to --log-file, else below /var/log/revfs for root,
else below $XDG_STATE_HOME/revfs or ~/.local/state/revfs.")]
pub(crate) struct MountArgs {
    /// The members of the cluster, with commas between them; or the file of a backup
    #[arg(value_name = "ENDPOINTS|FILE")]
    endpoints: String,

    /// Where to mount: an empty directory, or one that does not exist yet
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    directory: PathBuf,

    /// Show only the keys below this prefix; ends in a slash
    #[arg(long, value_name = "PREFIX", default_value = "/")]
    prefix: String,

    /// Refuse all changes (the default for a real etcd)
    #[arg(long, conflicts_with = "read_write")]
    read_only: bool,

    /// Allow changes to a real etcd too; of keys that the user names, no others
    #[arg(long)]
    read_write: bool,

    /// On a real etcd: keep directories by marker keys (`dir/`), so that mkdir works
    #[arg(long, requires = "read_write")]
    markers: bool,

    /// On a real etcd: keep modes, owners, times and links in side records below \0revfs
    #[arg(long, requires = "read_write")]
    attributes: bool,

    /// Locks (flock, fcntl) of this machine are given to others so many seconds after it vanished
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    #[arg(value_parser = clap::value_parser!(u64).range(2..))]
    lock_lease: u64,

    /// Run until Ctrl-C (the default)
    #[arg(long, conflicts_with = "daemon")]
    foreground: bool,

    /// Return once the mount answers, and run on in the background
    #[arg(long)]
    daemon: bool,

    /// Where it logs in the background
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "daemon")]
    log_file: Option<PathBuf>,

    /// Let other users in, as far as modes allow (the default for root)
    #[arg(long)]
    allow_other: bool,

    #[command(flatten)]
    look: Look,

    #[command(flatten)]
    promises: Promises,

    /// Options as mount(8) and fstab write them: those above by name, and ro
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<OsString>,

    /// Print the line for /etc/fstab that mounts so, and mount nothing
    #[arg(long)]
    fstab: bool,

    /// Write that line into /etc/fstab, in place of an earlier one for DIR
    #[arg(long)]
    update_fstab: bool,

    /// The second process of --daemon.
    #[arg(long, hide = true, requires = "daemon")]
    detached: bool,
}

impl MountArgs {
    /// What `-o` said.
    pub(crate) fn options(&self) -> &[OsString] {
        &self.options
    }
}

/// All that is decided before anything is asked.
struct Plan<'a> {
    args: &'a MountArgs,
    point: PathBuf,
    source: Source,
    root: DirectoryKey,
    settings: revfs_api::client::Settings,
    environment: Vec<(&'static str, OsString)>,
    log: Option<PathBuf>,
}

pub(crate) fn run(args: &MountArgs, globals: &Globals, output: &mut Output) -> Result<ExitCode> {
    if args.fstab || args.update_fstab {
        let source = Source::new(&args.endpoints)?.to_string();
        fstab::write(&source, &absolute(&args.directory)?, args.update_fstab, output)?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.daemon && !args.detached {
        return daemon::start();
    }
    let plan = plan(args, globals)?;
    // From here on the current directory is the root: everything above is absolute.
    let parent = if args.detached { Some(daemon::detach()?) } else { None };
    let found = directory::check(&plan.point)?;
    mounting::start_log(globals, plan.log.as_deref().map(open_log).transpose()?)?;
    plan.source.check()?;
    directory::prepare(&plan.point, found)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::caused("cannot start", &error))?;
    runtime.block_on(serve(&plan, parent, output))?;
    Ok(ExitCode::SUCCESS)
}

fn plan<'a>(args: &'a MountArgs, globals: &Globals) -> Result<Plan<'a>> {
    let point = absolute(&args.directory)?;
    let source = Source::new(&args.endpoints)?;
    if args.read_write && matches!(source, Source::Backup(_)) {
        return Err(Failure::usage(format!(
            "--read-write: {source} is a backup, which is not changed"
        ))
        .hint("to go on from it: revfs snapshot restore FILE --data-dir DIR"));
    }
    let root = DirectoryKey::new(Bytes::copy_from_slice(args.prefix.as_bytes()));
    let root = root.map_err(|error| {
        Failure::caused(format!("--prefix '{}' is no directory of keys", args.prefix), &error)
            .hint("a prefix ends in a slash: /registry/pods/")
            .of_kind(Kind::Usage)
    })?;
    let log = match (&args.log_file, args.daemon) {
        (Some(file), _) => Some(absolute(file)?),
        (None, true) => Some(default_log(&point)?),
        (None, false) => None,
    };
    let settings = globals.connection.settings()?;
    let environment = globals.connection.environment();
    Ok(Plan { args, point, source, root, settings, environment, log })
}

fn default_log(point: &Path) -> Result<PathBuf> {
    let set =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|value| value.is_absolute());
    let base = if nix::unistd::geteuid().is_root() {
        PathBuf::from("/var/log")
    } else {
        let home = || set("HOME").map(|home| home.join(".local/state"));
        set("XDG_STATE_HOME").or_else(home).ok_or_else(|| {
            Failure::usage("neither XDG_STATE_HOME nor HOME is set")
                .hint("say where it logs: --log-file FILE")
        })?
    };
    Ok(base.join("revfs").join(format!("{}.log", escape_text(point))))
}

fn open_log(path: &Path) -> Result<LogFile> {
    let failed = |error: &std::io::Error| {
        Failure::caused(format!("cannot open the log '{}'", path.display()), error)
            .hint("another with --log-file FILE")
    };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(|error| failed(&error))?;
    }
    LogFile::open(path.to_owned()).map_err(|error| failed(&error))
}

/// Connects, mounts, and runs until it is told to end.
async fn serve(plan: &Plan<'_>, parent: Option<Parent>, output: &mut Output) -> Result<()> {
    let mut signals = Signals::new()?;
    let (keys, backend) = tokio::select! {
        opened = plan.source.open(&plan.settings) => opened?,
        name = signals.next() => return Err(mounting::interrupted(name)),
    };
    let tree = plan.args.look.tree(keys.as_ref(), &plan.root).await?;
    let options = options(plan, backend, tree);
    let is_read_only = options.read_only || tree != Tree::Live;
    let mounted = mounting::start(&plan.point, Arc::clone(&keys), options).await?;
    // If it fails the mount goes as it is dropped.
    mounting::check(&plan.point, &plan.environment).await?;
    announce(plan, keys.as_ref(), (backend, is_read_only, tree), parent.is_some(), output)?;
    if let (Some(parent), Some(log)) = (parent, &plan.log) {
        parent.release(&open_log(log)?)?;
    }
    tracing::info!("{} is mounted at {}", plan.source, plan.point.display());
    mounting::until_end(mounted, &mut signals).await
}

fn options(plan: &Plan<'_>, backend: Backend, tree: Tree) -> MountOptions {
    let args = plan.args;
    let is_etcd = backend == Backend::Etcd;
    MountOptions {
        root: plan.root.clone(),
        tree,
        source: plan.source.to_string(),
        read_only: args.read_only || backend == Backend::Backup || (is_etcd && !args.read_write),
        writes_markers: !is_etcd || args.markers,
        writes_attributes: !is_etcd || args.attributes,
        is_remote: true,
        lock_lease: Duration::from_secs(args.lock_lease),
        ..args.promises.over(args.look.over(mounting::options(args.allow_other)))
    }
}

fn announce(
    plan: &Plan<'_>,
    keys: &dyn KeySpace,
    (backend, is_read_only, tree): (Backend, bool, Tree),
    is_background: bool,
    output: &mut Output,
) -> Result<()> {
    if mount8::is_helper() {
        return Ok(());
    }
    let point = plan.point.display();
    if output.json {
        output.document(&serde_json::json!({
            "directory": point.to_string(),
            "endpoint": plan.source.to_string(),
            "backend": backend.word(),
            "read_only": is_read_only,
            "revision": match tree { Tree::Live => None, Tree::Past(revision) => Some(revision.0) },
            "process_id": std::process::id(),
        }))?;
        return output.finish();
    }
    let what = match (tree, is_read_only) {
        (Tree::Past(revision), _) => format!(", as of revision {revision}"),
        (Tree::Live, true) => format!(", read-only; its past: ls {point}/@rev/"),
        (Tree::Live, false) => format!("; its past: ls {point}/@rev/"),
    };
    output.line(&format!("{} is mounted at {point}{what}", plan.source))?;
    if backend == Backend::Etcd && !keys.capabilities().stamps {
        output.line(&format!("it is an etcd: {point}/@status says what that cannot do"))?;
    }
    let before = if is_background { "" } else { "Ctrl-C, or: " };
    output.line(&format!("to stop: {before}revfs umount {point}"))?;
    output.finish()
}
