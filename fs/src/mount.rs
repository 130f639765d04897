//! Mounting and unmounting: the session, its threads, and the life of both.
//!
//! A mount has fuser's workers, one thread that tells the kernel what to forget, one that repeats
//! changes made elsewhere on a clone of the mount, and tasks on the caller's runtime. No other thread of
//! this process may ever touch a path below the mount point: it would wait for itself, and a killed
//! process would not go away. So all that is asked about a mount is asked of /proc/self/mountinfo.

mod attach;
mod leaving;
mod table;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fuser::{Config, Notifier, Session, SessionACL};
use revfs_api::KeySpace;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use self::attach::{check_mount_point, clear_dead_mount};
pub use self::table::{MountLine, mounts};

use crate::commit::TEND_EVERY;
use crate::events::poker;
use crate::filesystem::{Filesystem, MountOptions};
use crate::fuse::{Adapter, Poked};
use crate::notices::{Notice, Notices};
use crate::panics::{AbortOnPanic, abort_on_panic};

/// How long an unmount waits for the commits of what is staged.
const COMMIT_WAIT: Duration = Duration::from_secs(10);

/// How long an unmount waits for programs that use the mount before it takes the mount away from them.
const BUSY_WAIT: Duration = Duration::from_secs(2);

/// How long a mount that was taken away may still be used before this process goes on without it.
const DETACHED_WAIT: Duration = Duration::from_secs(2);

const POLL: Duration = Duration::from_millis(20);

/// A name that no directory has.
const NOBODYS_NAME: &str = "@@barrier";

/// A mounted file system. Dropping it takes the mount away at once, committing nothing.
#[derive(Debug)]
pub struct Mounted {
    filesystem: Arc<Filesystem>,
    mount_point: PathBuf,
    /// Its number in the table of mounts: what lies over it or came after it is not ours.
    mount_number: Option<u64>,
    connection: Option<u32>,
    ended: watch::Receiver<Option<Result<(), String>>>,
    tasks: Vec<JoinHandle<()>>,
}

/// Mounts a key space on an empty directory.
///
/// # Errors
/// What is wrong with the mount point, or why the kernel refuses.
pub fn mount(
    keys: Arc<dyn KeySpace>,
    mount_point: &Path,
    options: MountOptions,
    runtime: Handle,
) -> io::Result<Mounted> {
    check_mount_point(mount_point)?;
    let mount_point = mount_point.canonicalize()?;
    let mut mount_id = [0; 8];
    getrandom::fill(&mut mount_id).map_err(io::Error::other)?;
    let notices = Notices::default();
    let filesystem = Filesystem::new(keys, options, notices.clone(), u64::from_be_bytes(mount_id));
    let filesystem = Arc::new(filesystem);
    filesystem.keys.show_operations(&filesystem.operations);
    let options = &filesystem.options;

    let device = attach::attach(&mount_point, options)?;
    let line = table::top_mount_at(&mount_point)?;
    let mount_number = line.as_ref().map(|line| line.number);
    let connection = line.map(|line| line.device_minor);
    let epoch = device.try_clone()?;
    let mut config = Config::default();
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(options.workers.max(1));
    let adapter = Poked::new(Adapter::new(Arc::clone(&filesystem), runtime.clone()));
    let session = Session::from_fd(adapter, device, config.acl, config)
        .inspect_err(|_| attach::detach(&mount_point))?;
    let notifier = session.notifier();
    start_notifier(Arc::clone(&filesystem), notifier, epoch)?;

    let mut tasks = vec![
        runtime.spawn(AbortOnPanic::new(Arc::clone(&filesystem).watch_changes())),
        runtime.spawn(AbortOnPanic::new(tend(Arc::clone(&filesystem)))),
    ];
    let (end, ended) = watch::channel(None);
    let events = Arc::clone(&filesystem.events);
    let point = mount_point.clone();
    std::thread::Builder::new().name("revfs-session".to_owned()).spawn(move || {
        let result = ending(session.run(), &point, mount_number);
        notices.close();
        events.close();
        end.send(Some(result)).ok();
    })?;
    if let Some(minor) = connection {
        tasks.push(runtime.spawn(AbortOnPanic::new(end_events(Arc::clone(&filesystem), minor))));
        poker::start(&filesystem, mount_point.clone(), minor)?;
    }
    Ok(Mounted { filesystem, mount_point, mount_number, connection, ended, tasks })
}

/// Whether the mount of this number is what stands at the mount point.
fn is_on_top(point: &Path, number: Option<u64>) -> io::Result<bool> {
    Ok(table::top_mount_at(point)?.is_some_and(|top| Some(top.number) == number))
}

/// How a session has ended. The kernel tells a worker of an unmount by ENODEV, or, if it had just taken a
/// request, by ECONNABORTED; it says the same when the connection is aborted, but then the mount stays in the table.
fn ending(result: io::Result<()>, point: &Path, number: Option<u64>) -> Result<(), String> {
    let is_there = is_on_top(point, number).unwrap_or(false);
    match result {
        Ok(()) if is_there => Err("its connection was aborted".to_owned()),
        Err(error) if is_there || error.raw_os_error() != Some(libc::ECONNABORTED) => {
            Err(error.to_string())
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Mounted {
    #[must_use]
    pub fn filesystem(&self) -> &Arc<Filesystem> {
        &self.filesystem
    }

    #[must_use]
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// The number of its connection below `/sys/fs/fuse/connections/`.
    #[must_use]
    pub fn connection(&self) -> Option<u32> {
        self.connection
    }

    /// Waits until the mount is gone, by whatever way.
    ///
    /// # Errors
    /// Why the session ended, if not by an unmount.
    pub async fn wait(&self) -> io::Result<()> {
        let mut ended = self.ended.clone();
        let result = ended.wait_for(Option::is_some).await;
        match result.as_deref() {
            Ok(Some(Err(error))) => Err(io::Error::other(error.clone())),
            Ok(Some(Ok(())) | None) | Err(_) => Ok(()),
        }
    }

    /// Commits what is staged and unmounts. Programs that use the mount have a moment to go away; then it is taken from them.
    ///
    /// # Errors
    /// Why it cannot be unmounted.
    pub async fn unmount(&self) -> io::Result<()> {
        self.commit_staged().await;
        self.filesystem.watchers.end();
        let deadline = Instant::now() + BUSY_WAIT;
        while self.is_still_there() {
            let mount_point = self.mount_point.clone();
            let lazily = Instant::now() >= deadline;
            let unmounted =
                tokio::task::spawn_blocking(move || attach::unmount(&mount_point, lazily)).await;
            match unmounted.map_err(io::Error::other)? {
                Ok(()) => {
                    self.filesystem.events.close();
                    break;
                }
                Err(error) if lazily => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, "the mount is in use");
                    tokio::time::sleep(POLL).await;
                }
            }
        }
        // Until here programs could still write; whoever stands in a mount that was taken away can
        // even now, and keeps the session alive.
        self.commit_staged().await;
        let ended = tokio::time::timeout(DETACHED_WAIT, self.wait()).await;
        self.commit_staged().await;
        ended.unwrap_or(Ok(()))
    }

    async fn commit_staged(&self) {
        let refused = self.filesystem.commit_all(COMMIT_WAIT).await;
        if refused > 0 {
            tracing::warn!(refused, "files could not be committed before the unmount");
        }
    }

    /// Whether our mount is what stands at the mount point.
    fn is_still_there(&self) -> bool {
        is_on_top(&self.mount_point, self.mount_number).unwrap_or(true)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.filesystem.events.close();
        if self.is_still_there() {
            attach::detach(&self.mount_point);
        }
    }
}

/// Looks after what is staged and waits for no close.
async fn tend(filesystem: Arc<Filesystem>) {
    let mut due = tokio::time::interval(TEND_EVERY);
    loop {
        due.tick().await;
        filesystem.tend().await;
        filesystem.tend_transactions().await;
    }
}

/// Ends the thread that repeats changes, and its clone of the mount, once the mount is gone.
async fn end_events(filesystem: Arc<Filesystem>, minor: u32) {
    match leaving::gone(minor).await {
        // Whoever reads an `@watch` of a mount that was detached would keep it alive.
        Ok(()) => filesystem.watchers.end(),
        Err(error) => {
            tracing::warn!(%error, "the table of mounts cannot be watched: there are no events");
        }
    }
    filesystem.events.close();
}

fn start_notifier(
    filesystem: Arc<Filesystem>,
    notifier: Notifier,
    device: OwnedFd,
) -> io::Result<()> {
    std::thread::Builder::new().name("revfs-notifier".to_owned()).spawn(move || {
        let notices = filesystem.notices.clone();
        abort_on_panic(|| notices.drain(|notice| tell(&filesystem, &notifier, &device, notice)));
    })?;
    Ok(())
}

/// Tells the kernel. It answers ENOENT for what it does not know, which is as good.
fn tell(filesystem: &Filesystem, notifier: &Notifier, device: &OwnedFd, notice: &Notice) {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use fuser::INodeNo;

    let told = match notice {
        Notice::Inode(ino) => notifier.inval_inode(INodeNo(*ino), 0, 0),
        Notice::Attributes(ino) => notifier.inval_inode(INodeNo(*ino), -1, 0),
        Notice::Entry { parent, name } => {
            notifier.inval_entry(INodeNo(*parent), OsStr::from_bytes(name))
        }
        // It takes the lock that a lookup holds until its answer has arrived.
        Notice::Barrier { parent } => {
            notifier.inval_entry(INodeNo(*parent), OsStr::new(NOBODYS_NAME))
        }
        Notice::Events(batch) => {
            filesystem.events.release(*batch);
            Ok(())
        }
        Notice::Everything => {
            for node in filesystem.nodes.all() {
                notifier.inval_inode(INodeNo(node.ino), 0, 0).ok();
            }
            attach::expire_names(device)
        }
    };
    if let Err(error) = told {
        tracing::debug!(?notice, %error, "the kernel was not told");
    }
}
