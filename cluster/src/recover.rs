//! A data directory that somebody worries about: what it is, what is wrong with it, and what can be done.
//!
//! Looking changes nothing. What can be done is a list of [`Choice`]s, each with what it loses; one of them is
//! done only when it is asked for by name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use revfs_store::{Inspector, OpenError, Position, Store, StoreOptions};

use crate::config::StartError;
use crate::data_dir::{DataDir, Identity, Layout};
use crate::forced::go_on_alone;
use crate::log::{Log, LogError, LogOptions};
use crate::raft::{log_id_of, voters_of};
use crate::snapshot::open_log;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: PathBuf,
    pub offset: Option<u64>,
    pub reason: String,
}

/// A member that votes, as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownMember {
    pub id: u64,
    /// Empty if it never said.
    pub name: String,
    pub peer_urls: Vec<String>,
}

/// What the store says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSays {
    pub file: PathBuf,
    pub revision: u64,
    pub compacted_revision: u64,
    /// The last entry of the log that it holds.
    pub index: u64,
    pub term: u64,
}

/// What the log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSays {
    pub directory: PathBuf,
    /// The last entry: index and term.
    pub last: Option<(u64, u64)>,
    pub entries: u64,
    pub was_closed: bool,
}

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// It is whole: start it as it is.
    Start,
    /// Let the others bring a member with an empty directory up to date in its place.
    Replace,
    /// Go on alone from what this member has: see `forced.rs`.
    ForceNewCluster,
    /// Begin a new cluster from a backup.
    Restore,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    pub path: PathBuf,
    /// Cluster and member.
    pub ids: Option<(u64, u64)>,
    /// The member was added to a cluster that had begun.
    pub is_invited: bool,
    /// Nothing was ever started on it.
    pub is_unused: bool,
    pub store: Option<StoreSays>,
    pub log: Option<LogSays>,
    pub members: Vec<KnownMember>,
    pub problems: Vec<Problem>,
    pub choices: Vec<Choice>,
}

impl Diagnosis {
    #[must_use]
    pub fn voters(&self) -> usize {
        self.members.len()
    }

    /// Voters that must agree.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.voters() / 2 + 1
    }
}

impl Problem {
    fn of_start(path: &Path, error: &StartError) -> Self {
        let reason = error.to_string();
        let of =
            |file: &Path, offset| Self { file: file.to_path_buf(), offset, reason: reason.clone() };
        match error {
            StartError::Io { path, .. } | StartError::Damaged { path, .. } => of(path, None),
            StartError::Incomplete { path, missing, .. } => of(&path.join(missing), None),
            StartError::Log(error) => Self::of_log(path, error),
            StartError::Store(error) => Self::of_store(path, error),
            _ => of(path, None),
        }
    }

    fn of_store(path: &Path, error: &OpenError) -> Self {
        let (file, offset) = match error {
            OpenError::CorruptPage { path, offset, .. } => (path.as_path(), Some(*offset)),
            OpenError::Io { path, .. }
            | OpenError::Missing { path }
            | OpenError::Foreign { path, .. }
            | OpenError::CorruptRow { path, .. }
            | OpenError::FormatVersion { path, .. }
            | OpenError::Lmdb { path, .. } => (path.as_path(), None),
            _ => (path, None),
        };
        Self { file: file.to_path_buf(), offset, reason: error.to_string() }
    }

    fn of_log(path: &Path, error: &LogError) -> Self {
        let (file, offset) = match error {
            LogError::Corrupt { file, offset, .. } | LogError::TooShort { file, offset, .. } => {
                (file.as_path(), Some(*offset))
            }
            LogError::Io { path, .. } => (path.as_path(), None),
            LogError::Format { file, .. } => (file.as_path(), None),
            LogError::Missing { directory } => (directory.as_path(), None),
            _ => (path, None),
        };
        Self { file: file.to_path_buf(), offset, reason: error.to_string() }
    }
}

/// Looks at a data directory that no process runs on; with `whole` at every page and row of the store.
/// Blocks.
///
/// # Errors
/// [`StartError::InUse`], or a directory that cannot be looked into.
pub fn diagnose(path: &Path, whole: bool) -> Result<Diagnosis, StartError> {
    let found = fs::metadata(path).map_err(|error| StartError::io("look at", path, error))?;
    if !found.is_dir() {
        let error = io::Error::from(io::ErrorKind::NotADirectory);
        return Err(StartError::io("look into", path, error));
    }
    let held = DataDir::hold(path)?;
    let mut diagnosis = Diagnosis {
        path: held.path.clone(),
        ids: None,
        is_invited: false,
        is_unused: false,
        store: None,
        log: None,
        members: Vec::new(),
        problems: Vec::new(),
        choices: Vec::new(),
    };
    match held.layout() {
        Ok(Some(layout)) => look(&mut diagnosis, &layout, whole),
        Ok(None) => diagnosis.is_unused = true,
        Err(error) => diagnosis.problems.push(Problem::of_start(&held.path, &error)),
    }
    diagnosis.choices = choices(&diagnosis);
    Ok(diagnosis)
}

fn look(diagnosis: &mut Diagnosis, layout: &Layout, whole: bool) {
    let Identity { cluster, member, .. } = layout.identity;
    diagnosis.ids = Some((cluster, member));
    diagnosis.is_invited = layout.is_invited;
    let committed = match look_at_store(diagnosis, layout, whole) {
        Ok(position) => position,
        Err(error) => {
            diagnosis.problems.push(Problem::of_store(&layout.store, &error));
            None
        }
    };
    // A store that was installed may be ahead of the log: the next start lets it follow.
    let committed = committed.and_then(|position| log_id_of(&position).ok().flatten());
    let committed = committed.filter(|&committed| layout.installed != Some(committed));
    match Log::examine(&layout.log, committed) {
        Ok(examined) => {
            diagnosis.log = Some(LogSays {
                directory: layout.log.clone(),
                last: examined.state.last.map(|id| (id.index, id.term)),
                entries: examined.entries,
                was_closed: examined.was_closed,
            });
        }
        Err(error) => diagnosis.problems.push(Problem::of_log(&layout.log, &error)),
    }
}

fn look_at_store(
    diagnosis: &mut Diagnosis,
    layout: &Layout,
    whole: bool,
) -> Result<Option<Position>, OpenError> {
    let file = layout.store.join("data.mdb");
    let options = StoreOptions::default();
    drop(Inspector::open(&file, &options, whole)?);
    let store = Store::open_read_only(&file, options)?;
    let position = store.committed();
    let view = store.read_view();
    let rows = view.as_ref().ok().and_then(|view| view.members().ok()).unwrap_or_default();
    let (revision, compacted) =
        view.as_ref().map_or((0, 0), |view| (view.current().0, view.compacted().0));
    diagnosis.store = Some(StoreSays {
        file,
        revision,
        compacted_revision: compacted,
        index: position.index,
        term: position.term,
    });
    let voters = voters_of(&position).unwrap_or_default();
    for (id, urls) in &voters {
        let member = rows.iter().find(|member| member.id == *id);
        let said: Vec<String> = urls.split(',').map(str::to_owned).collect();
        diagnosis.members.push(KnownMember {
            id: *id,
            name: member.map(|member| member.name.clone()).unwrap_or_default(),
            peer_urls: member.map_or(said, |member| member.peer_urls.clone()),
        });
    }
    Ok(Some(position))
}

fn choices(diagnosis: &Diagnosis) -> Vec<Choice> {
    let is_whole = diagnosis.problems.is_empty();
    let has_others = diagnosis.voters() > 1;
    let mut choices = Vec::new();
    if is_whole {
        choices.push(Choice::Start);
    }
    if diagnosis.is_unused {
        return choices;
    }
    // Where the store cannot be read nobody knows whether there are others.
    if !is_whole && (has_others || diagnosis.store.is_none()) {
        choices.push(Choice::Replace);
    }
    if is_whole && has_others {
        choices.push(Choice::ForceNewCluster);
    }
    choices.push(Choice::Restore);
    choices
}

/// Does [`Choice::ForceNewCluster`]: the member goes on alone, as a cluster with another id, which is returned.
/// Blocks.
///
/// # Errors
/// As the start of a node.
pub fn force_new_cluster(path: &Path) -> Result<u64, StartError> {
    let held = DataDir::hold(path)?;
    let layout = held.layout()?.ok_or_else(|| StartError::Damaged {
        path: path.to_path_buf(),
        reason: "no node was ever started on it".to_owned(),
    })?;
    let store = Store::open(&layout.store, StoreOptions::default())?;
    let committed = log_id_of(&store.committed())?;
    let log = open_log(&held, &layout, LogOptions::default(), committed)?;
    let identity = go_on_alone(&held, layout.identity, &store, &log)?;
    store.close().map_err(|error| StartError::Interrupted { reason: error.to_string() })?;
    log.close()?;
    Ok(identity.cluster)
}

/// Gives the directory another name, so that a restored one can have its own; which name.
///
/// # Errors
/// [`StartError::InUse`], or the file system's.
pub fn set_aside(path: &Path) -> Result<PathBuf, StartError> {
    let held = DataDir::hold(path)?;
    let name = held.path.file_name().unwrap_or_default().to_owned();
    let aside = (1..u32::MAX).map(|number| {
        let mut name = name.clone();
        name.push(format!(".damaged-{number}"));
        held.path.with_file_name(name)
    });
    let aside = aside.into_iter().find(|path| !path.exists()).unwrap_or_default();
    fs::rename(&held.path, &aside).map_err(|error| StartError::io("rename", path, error))?;
    Ok(aside)
}
