//! The data directory of one member: who holds it, what it says about itself, and where things are.
//!
//! ```text
//! nothing, or CREATING ──► being created (CREATING) ──► in use (CURRENT)
//! ```
//!
//! `CREATING` is there before anything else is made and goes away when `CURRENT` is durable. With it
//! and without `CURRENT` the directory was never in use, and what there is of it is made anew. Without
//! both, anything of ours in the directory means that something is missing: it is refused, never
//! replaced.
//!
//! Each store has a directory of its own, and `CURRENT` says which one is in use ([`stores`]).

mod stores;

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use nix::fcntl::{Flock, FlockArg};
use parking_lot::Mutex;

pub(crate) use self::stores::Room;
use crate::config::StartError;
use crate::log::LogId;

const FORMAT_VERSION: u32 = 1;
const LOCK: &str = "LOCK";
const FORMAT: &str = "FORMAT";
const IDENTITY: &str = "identity";
const CURRENT: &str = "CURRENT";
const CREATING: &str = "CREATING";
const STORE_PREFIX: &str = "store-";
/// It belongs to a member that was added to a cluster: it never begins one of its own.
const INVITED: &str = "INVITED";
/// The cluster has gone on without the member: its data is not used any more.
const REMOVED: &str = "REMOVED";
const FIRST_STORE: &str = "store-1";
const LOG: &str = "log";

/// Who a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) cluster: u64,
    pub(crate) member: u64,
    /// Random, of this directory alone: a member id with another instance is another disk.
    pub(crate) instance: u128,
}

impl Identity {
    pub(crate) fn random() -> io::Result<Self> {
        let random = || getrandom::u64().map_err(io::Error::other);
        Ok(Self {
            cluster: random()?.max(1),
            member: random()?.max(1),
            instance: (u128::from(random()?) << 64) | u128::from(random()?),
        })
    }

    fn to_text(self) -> String {
        let Self { cluster, member, instance } = self;
        format!("cluster {cluster:016x}\nmember {member:016x}\ninstance {instance:032x}\n")
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let hex = |digits: Option<&str>| u64::from_str_radix(digits?, 16).ok();
        let identity = Self {
            cluster: hex(field("cluster"))?,
            member: hex(field("member"))?,
            instance: u128::from_str_radix(field("instance")?, 16).ok()?,
        };
        lines.next().is_none().then_some(identity)
    }
}

/// Whether a member has begun to live in this directory.
pub(crate) fn is_in_use(path: &Path) -> bool {
    path.join(CURRENT).exists()
}

/// A data directory that this process holds, until it is released or dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    pub(crate) path: PathBuf,
    lock: Mutex<Option<Flock<File>>>,
    /// The highest number that a store or a copy got while this is held.
    last_number: AtomicU64,
}

/// What a data directory names.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) identity: Identity,
    /// The member was added to a cluster that had begun.
    pub(crate) is_invited: bool,
    pub(crate) store: PathBuf,
    pub(crate) log: PathBuf,
    /// The store came from another member when it stood here, and the log may not have followed yet.
    pub(crate) installed: Option<LogId>,
}

impl DataDir {
    /// Takes the directory for this process; makes it if there is none.
    pub(crate) fn hold(path: &Path) -> Result<Self, StartError> {
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| StartError::io("create", path, error))?;
        // Relative paths must survive a daemon's change of directory.
        let path = fs::canonicalize(path).map_err(|error| StartError::io("find", path, error))?;
        let lock_path = path.join(LOCK);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|error| StartError::io("open", &lock_path, error))?;
        let mut holder = String::new();
        // The holder may be about to write its id: then the message goes without.
        file.read_to_string(&mut holder).ok();
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                let pid = holder.trim();
                let pid = if pid.is_empty() { "unknown" } else { pid };
                return Err(StartError::InUse { path, pid: pid.to_owned() });
            }
            Err((_, errno)) => return Err(StartError::io("lock", lock_path, errno.into())),
        };
        let write = |lock: &mut Flock<File>| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        };
        write(&mut lock).map_err(|error| StartError::io("write", &lock_path, error))?;
        Ok(Self { path, lock: Mutex::new(Some(lock)), last_number: AtomicU64::new(0) })
    }

    /// Lets another process hold the directory: nothing of this one may touch it any more.
    pub(crate) fn release(&self) {
        drop(self.lock.lock().take());
    }

    /// What the directory holds; `None` if it was never in use.
    pub(crate) fn layout(&self) -> Result<Option<Layout>, StartError> {
        let Some(current) = self.read(CURRENT)? else {
            self.check_never_used()?;
            return Ok(None);
        };
        let format = self.read(FORMAT)?.ok_or_else(|| self.incomplete(FORMAT, CURRENT))?;
        if format.trim() != FORMAT_VERSION.to_string() {
            let found = format.trim().to_owned();
            let path = self.path.clone();
            return Err(StartError::Format { path, found, known: FORMAT_VERSION });
        }
        let identity = self.read(IDENTITY)?.ok_or_else(|| self.incomplete(IDENTITY, CURRENT))?;
        let identity = Identity::from_text(&identity).ok_or_else(|| StartError::Damaged {
            path: self.path.join(IDENTITY),
            reason: "it does not hold three ids".to_owned(),
        })?;
        let Current { store, log, installed } =
            parse_current(&current).ok_or_else(|| StartError::Damaged {
                path: self.path.join(CURRENT),
                reason: format!("it does not name a store and a log: {current:?}"),
            })?;
        for name in [store, log] {
            if !self.path.join(name).is_dir() {
                return Err(self.incomplete(name, CURRENT));
            }
        }
        if self.path.join(CREATING).exists() {
            self.remove(CREATING)?;
        }
        let is_invited = self.path.join(INVITED).exists();
        let (store, log) = (self.path.join(store), self.path.join(log));
        Ok(Some(Layout { identity, is_invited, store, log, installed }))
    }

    fn check_never_used(&self) -> Result<(), StartError> {
        if self.path.join(CREATING).exists() {
            return Ok(());
        }
        for name in [IDENTITY, FORMAT, LOG] {
            if self.path.join(name).exists() {
                return Err(self.incomplete(CURRENT, name));
            }
        }
        for entry in self.entries()? {
            if entry.starts_with(STORE_PREFIX) {
                return Err(self.incomplete(CURRENT, &entry));
            }
        }
        Ok(())
    }

    /// Begins to create what a directory in use holds, for the member `identity`. Whatever an earlier
    /// attempt left is removed.
    pub(crate) fn begin_creation(&self, identity: Identity) -> Result<Layout, StartError> {
        self.name_durably()?;
        self.write_durably(CREATING, "")?;
        if self.path.join(INVITED).exists() {
            self.remove(INVITED)?;
        }
        for name in [FIRST_STORE, LOG] {
            let path = self.path.join(name);
            match fs::remove_dir_all(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(StartError::io("remove", path, error)),
            }
        }
        let log = self.path.join(LOG);
        fs::create_dir(&log).map_err(|error| StartError::io("create", &log, error))?;
        let store = self.path.join(FIRST_STORE);
        Ok(Layout { identity, is_invited: false, store, log, installed: None })
    }

    /// Notes that the member was added to a cluster that had begun: however it is started, it never begins
    /// one.
    pub(crate) fn mark_invited(&self) -> Result<(), StartError> {
        self.write_durably(INVITED, "")
    }

    /// Notes that the cluster has gone on without the member, for ever.
    pub(crate) fn mark_removed(&self) -> Result<(), StartError> {
        self.write_durably(REMOVED, "")
    }

    /// Refuses the data of a member that was removed.
    pub(crate) fn check_not_removed(&self, identity: &Identity) -> Result<(), StartError> {
        if !self.path.join(REMOVED).exists() {
            return Ok(());
        }
        let Identity { cluster, member, .. } = *identity;
        Err(StartError::Removed { path: self.path.clone(), cluster, member })
    }

    /// The directory, and those above it, may be as new as what it will hold: without their names all of it
    /// would be lost with the power.
    fn name_durably(&self) -> Result<(), StartError> {
        for above in self.path.ancestors().skip(1) {
            match File::open(above).and_then(|directory| directory.sync_all()) {
                Ok(()) => {}
                // Who may not read it has made nothing in it, nor is what lies above it new.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
                Err(error) => return Err(StartError::io("sync", above, error)),
            }
        }
        Ok(())
    }

    /// Puts a created directory into use.
    pub(crate) fn finish_creation(&self, identity: Identity) -> Result<(), StartError> {
        self.write_durably(FORMAT, &format!("{FORMAT_VERSION}\n"))?;
        self.write_durably(IDENTITY, &identity.to_text())?;
        self.write_durably(CURRENT, &Current::new(FIRST_STORE, None).to_text())?;
        self.remove(CREATING)
    }

    /// Says anew who this member is.
    pub(crate) fn set_identity(&self, identity: Identity) -> Result<(), StartError> {
        self.write_durably(IDENTITY, &identity.to_text())
    }

    fn incomplete(&self, missing: &str, present: &str) -> StartError {
        StartError::Incomplete {
            path: self.path.clone(),
            missing: missing.to_owned(),
            present: present.to_owned(),
        }
    }

    fn entries(&self) -> Result<Vec<String>, StartError> {
        let list = || -> io::Result<Vec<String>> {
            let entries = fs::read_dir(&self.path)?;
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        };
        list().map_err(|error| StartError::io("list", &self.path, error))
    }

    fn read(&self, name: &str) -> Result<Option<String>, StartError> {
        let path = self.path.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StartError::io("read", path, error)),
        }
    }

    /// Replaces a file whole: written beside it, flushed, renamed, the directory flushed.
    fn write_durably(&self, name: &str, text: &str) -> Result<(), StartError> {
        let path = self.path.join(name);
        let temporary = self.path.join(format!("{name}.tmp"));
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|error| StartError::io("write", &path, error))
    }

    fn remove(&self, name: &str) -> Result<(), StartError> {
        let path = self.path.join(name);
        let remove = || {
            fs::remove_file(&path)?;
            File::open(&self.path)?.sync_all()
        };
        remove().map_err(|error| StartError::io("remove", &path, error))
    }
}

/// What the file CURRENT says.
struct Current<'t> {
    store: &'t str,
    log: &'t str,
    installed: Option<LogId>,
}

impl<'t> Current<'t> {
    fn new(store: &'t str, installed: Option<LogId>) -> Self {
        Self { store, log: LOG, installed }
    }

    fn to_text(&self) -> String {
        let Self { store, log, installed } = self;
        let mut text = format!("store {store}\nlog {log}\n");
        if let Some(LogId { term, index }) = installed {
            writeln!(text, "installed {term} {index}").expect("a string takes all");
        }
        text
    }
}

fn parse_current(text: &str) -> Option<Current<'_>> {
    let mut lines = text.strip_suffix('\n')?.split('\n');
    let is_name = |name: &&str| !name.is_empty() && !name.contains('/');
    let store = lines.next()?.strip_prefix("store ").filter(is_name)?;
    let log = lines.next()?.strip_prefix("log ").filter(is_name)?;
    let installed = match lines.next() {
        None => None,
        Some(line) => {
            let (term, index) = line.strip_prefix("installed ")?.split_once(' ')?;
            Some(LogId { term: term.parse().ok()?, index: index.parse().ok()? })
        }
    };
    lines.next().is_none().then_some(Current { store, log, installed })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{DataDir, Identity, StartError};

    fn create(directory: &DataDir) -> Identity {
        let layout = directory.begin_creation(Identity::random().unwrap()).unwrap();
        fs::create_dir(&layout.store).unwrap();
        directory.finish_creation(layout.identity).unwrap();
        layout.identity
    }

    #[test]
    fn a_directory_in_use_keeps_its_identity() {
        let directory = tempfile::tempdir().unwrap();
        let held = DataDir::hold(directory.path()).unwrap();
        assert!(held.layout().unwrap().is_none());
        let identity = create(&held);
        assert_eq!(held.layout().unwrap().unwrap().identity, identity);
    }

    #[test]
    fn a_second_holder_is_refused_with_the_pid_of_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let held = DataDir::hold(directory.path()).unwrap();
        let error = DataDir::hold(directory.path()).unwrap_err();
        let StartError::InUse { pid, .. } = &error else { panic!("{error}") };
        assert_eq!(*pid, std::process::id().to_string());
        drop(held);
        assert!(DataDir::hold(directory.path()).is_ok());
    }

    #[test]
    fn an_interrupted_creation_is_begun_again() {
        let directory = tempfile::tempdir().unwrap();
        let held = DataDir::hold(directory.path()).unwrap();
        let first = held.begin_creation(Identity::random().unwrap()).unwrap();
        fs::create_dir(&first.store).unwrap();
        fs::write(first.store.join("half"), "").unwrap();
        assert!(held.layout().unwrap().is_none());
        let identity = create(&held);
        assert_ne!(identity, first.identity);
        assert!(!first.store.join("half").exists());
    }

    #[test]
    fn what_is_missing_is_named_and_never_made_anew() {
        for missing in ["CURRENT", "FORMAT", "identity", "log", "store-1"] {
            let directory = tempfile::tempdir().unwrap();
            let held = DataDir::hold(directory.path()).unwrap();
            create(&held);
            fs::rename(directory.path().join(missing), directory.path().join("aside")).unwrap();
            let error = held.layout().unwrap_err();
            assert!(
                matches!(&error, StartError::Incomplete { missing: named, .. } if named == missing),
                "{missing}: {error}"
            );
        }
    }

    #[test]
    fn the_data_of_a_member_that_was_removed_is_refused_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let held = DataDir::hold(directory.path()).unwrap();
        let identity = create(&held);
        held.check_not_removed(&identity).unwrap();
        held.mark_removed().unwrap();
        let error = held.check_not_removed(&identity).unwrap_err().to_string();
        let member = format!("member {:x} has been permanently removed", identity.member);
        assert!(error.contains(&member) && error.contains("move the directory away"), "{error}");
    }

    #[test]
    fn another_format_is_refused_naming_both() {
        let directory = tempfile::tempdir().unwrap();
        let held = DataDir::hold(directory.path()).unwrap();
        create(&held);
        fs::write(directory.path().join("FORMAT"), "7\n").unwrap();
        let error = held.layout().unwrap_err().to_string();
        assert!(error.contains("has format 7") && error.contains("writes format 1"), "{error}");
    }
}
