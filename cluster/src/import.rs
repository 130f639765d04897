//! Taking over the data of an etcd, from a snapshot of it: every revision that it still has, with its
//! numbers, so that clients that know revisions go on with them.
//!
//! ```text
//! file ─► Bolt: pages ─► survey: what there is, what cannot be taken ─► Target: a new data directory
//! ```
//!
//! Nothing is written before the survey is through. The new directory gets its name when it is whole and
//! was compared, row by row, with the file; it is a cluster of one, which others may join.

mod auth;
mod bolt;
mod compared;
mod rows;
mod survey;
mod target;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;
use revfs_store::types::{LeaseId, Revision, Time};
use revfs_store::{ImportedChange, ImportedPut, ImportedRevision, OpenError, StoreError};

use crate::config::StartError;
use crate::new_directory::NewDirectoryError;

pub use bolt::{Bolt, BoltError};
pub use survey::{LongKey, Survey, survey};
use target::Target;

/// In place of changes of keys that were left out, where nothing else of their revision is left.
pub const LEFT_OUT_KEY: &[u8] = b"\0revfs/left-out";

/// Leases that keys name and that etcd does not have: nothing may end them by itself.
const ENDLESS_SECONDS: i64 = 9_000_000_000;

/// How far the work has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub stage: &'static str,
    pub done: u64,
    /// 0 if it is not known.
    pub total: u64,
}

/// Called now and then; an error ends the work.
pub type OnProgress<'p> = &'p mut dyn FnMut(Progress) -> Result<(), EtcdImportError>;

/// Why nothing was imported. The data directory does not exist then.
#[derive(Debug, thiserror::Error)]
pub enum EtcdImportError {
    #[error(transparent)]
    File(#[from] BoltError),
    #[error(
        "the row \"{row}\" of the bucket {bucket} makes no sense: {reason}; is the file damaged?"
    )]
    Row { bucket: String, row: String, reason: String },
    #[error("{count} keys are longer than {max} bytes", max = revfs_store::types::KEY_BYTES_MAX)]
    LongKeys { count: u64 },
    #[error(transparent)]
    Directory(#[from] NewDirectoryError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Import(#[from] revfs_store::ImportError),
    #[error("what was imported is not what etcd has: {reason}; please report this")]
    Differs { reason: String },
    #[error("the import was given up")]
    GivenUp,
}

impl EtcdImportError {
    /// Whether the directory holds something already.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Directory(NewDirectoryError::Exists { .. }))
    }
}

#[derive(Clone, Copy, Debug)]
pub struct ImportOptions {
    pub skip_long_keys: bool,
    /// Compare everything with the file before the directory gets its name.
    pub verify: bool,
    /// Nanoseconds since the epoch, with which all revisions are stamped: etcd does not know when they
    /// were made.
    pub time: i64,
}

/// What a new data directory holds.
#[derive(Clone, Debug)]
pub struct Imported {
    pub cluster_id: u64,
    pub member_id: u64,
    pub revision: Revision,
    pub compacted: Revision,
    /// Rows that were compared with the file.
    pub compared: u64,
    /// etcd's HashKV of the whole.
    pub hash: u32,
    /// What could not be taken over as it was, in words.
    pub notes: Vec<String>,
}

/// Makes `data_dir`, which is absent or empty, from the data of etcd. Blocks.
///
/// # Errors
/// See [`EtcdImportError`].
pub fn import(
    bolt: &Bolt,
    survey: &Survey,
    data_dir: &Path,
    options: ImportOptions,
    progress: OnProgress<'_>,
) -> Result<Imported, EtcdImportError> {
    if survey.long_keys_count > 0 && !options.skip_long_keys {
        return Err(EtcdImportError::LongKeys { count: survey.long_keys_count });
    }
    let mut target = Target::begin(data_dir, Time(options.time))?;
    let filled = fill(&mut target, bolt, survey, options, progress);
    let (compared, hash) = filled.inspect_err(|_| target.directory.remove())?;
    target.finish(survey, compared, hash)
}

fn fill(
    target: &mut Target,
    bolt: &Bolt,
    survey: &Survey,
    options: ImportOptions,
    progress: OnProgress<'_>,
) -> Result<(u64, u32), EtcdImportError> {
    for &(id, ttl_seconds) in &survey.leases {
        target.grant(LeaseId(id), ttl_seconds)?;
    }
    auth::users_and_roles(target, survey)?;
    history(target, bolt, survey, progress)?;
    missing_leases(target, survey)?;
    target.compact(survey.compacted)?;
    auth::enable(target, survey)?;
    let compared = match options.verify {
        true => compared::compare(target, bolt, survey, progress)?,
        false => 0,
    };
    let hash = target.store.hash_kv(Revision::NONE);
    let hash = hash.map_err(|error| EtcdImportError::Differs { reason: error.to_string() })?;
    Ok((compared, hash.hash))
}

fn history(
    target: &mut Target,
    bolt: &Bolt,
    survey: &Survey,
    progress: OnProgress<'_>,
) -> Result<(), EtcdImportError> {
    let mut taking = Taking {
        target,
        survey,
        revision: Revision::NONE,
        changes: BTreeMap::new(),
        subs: BTreeMap::new(),
    };
    let (mut left_out, mut done) = (0_u64, 0);
    bolt.rows::<EtcdImportError>(b"key", &mut |row, value| {
        let read = rows::key_row(row, value).map_err(|reason| survey::wrong("key", row, reason))?;
        if read.revision != taking.revision {
            taking.complete(&mut left_out)?;
            taking.pass_compacted(read.revision)?;
            taking.revision = read.revision;
        }
        if let Some(change) = read.change
            && survey::too_long(&change.key).is_none()
        {
            taking.add(read.sub, change);
        }
        done += 1;
        if done % 1_000 == 0 {
            progress(Progress { stage: "importing", done, total: survey.versions })?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    taking.complete(&mut left_out)?;
    if taking.revision < survey.revision && survey.revision > Revision::FIRST {
        // Nothing is left of what made it: it is compacted.
        taking.revision = survey.revision;
        taking.import(BTreeMap::new())?;
    }
    Ok(())
}

/// The revision that is being read.
struct Taking<'t> {
    target: &'t mut Target,
    survey: &'t Survey,
    revision: Revision,
    changes: BTreeMap<u32, ImportedChange>,
    /// Where among them each key is.
    subs: BTreeMap<Bytes, u32>,
}

impl Taking<'_> {
    /// Of two changes of a key in one revision, which etcd makes in odd cases, the last one counts.
    fn add(&mut self, sub: u32, change: ImportedChange) {
        if let Some(before) = self.subs.insert(change.key.clone(), sub) {
            self.changes.remove(&before);
            let (revision, key) = (self.revision, change.key.clone());
            let shown = key.escape_ascii();
            self.target.notes.push(format!(
                "revision {revision} changes the key \"{shown}\" twice: only the last change was \
                 taken over, and HashKV is another"
            ));
            self.target.twice.insert((revision, key));
        }
        self.changes.insert(sub, change);
    }

    fn complete(&mut self, left_out: &mut u64) -> Result<(), EtcdImportError> {
        let mut changes = std::mem::take(&mut self.changes);
        self.subs.clear();
        if self.revision.is_none() {
            return Ok(());
        }
        if changes.is_empty() {
            if self.revision <= self.survey.compacted {
                return Ok(());
            }
            // No revision may be missing.
            *left_out += 1;
            let version = *left_out;
            let (value, lease) = (Bytes::new(), LeaseId::NONE);
            let create_revision = match version {
                1 => self.revision,
                _ => self.target.left_out_since,
            };
            self.target.left_out_since = create_revision;
            let put = ImportedPut { value, create_revision, version, lease };
            let key = Bytes::from_static(LEFT_OUT_KEY);
            changes.insert(0, ImportedChange { key, put: Some(put) });
        }
        if self.revision > self.survey.compacted {
            // Places must follow each other; they do unless something was left out.
            changes = (0..).zip(changes.into_values()).collect();
        }
        self.import(changes)
    }

    /// The compacted revision has a time even where nothing is left of it: etcd 3.4 forgets what was
    /// deleted by it.
    fn pass_compacted(&mut self, next: Revision) -> Result<(), EtcdImportError> {
        let compacted = self.survey.compacted;
        if self.revision < compacted && compacted < next && compacted > Revision::FIRST {
            self.revision = compacted;
            self.import(BTreeMap::new())?;
        }
        Ok(())
    }

    fn import(&mut self, changes: BTreeMap<u32, ImportedChange>) -> Result<(), EtcdImportError> {
        let (revision, time) = (self.revision, self.target.time);
        self.target.import(ImportedRevision { revision, time, changes })
    }
}

/// etcd removes a lease and its keys in one step, so that none should be missing.
fn missing_leases(target: &mut Target, survey: &Survey) -> Result<(), EtcdImportError> {
    let known = |id: &&i64| survey.leases.iter().any(|(known, _)| known == *id);
    let missing: Vec<i64> = survey.named_leases.iter().filter(|id| !known(id)).copied().collect();
    for id in missing {
        let keys = target.store.read_view()?.lease_keys(LeaseId(id))?.len();
        if keys > 0 {
            target.grant(LeaseId(id), ENDLESS_SECONDS)?;
            target.notes.push(format!(
                "lease {id:x}, which {keys} keys name, is not in the data: it was granted without end"
            ));
        }
    }
    Ok(())
}
