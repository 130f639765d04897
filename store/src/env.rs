//! Opening LMDB: the environment, its trees and the only unsafe of the crate.
//!
//! One environment per directory, a map far larger than any store (the file grows only as it is
//! used), read transactions that are not bound to a thread, and LMDB's default, synced commits. The
//! data file is checked before LMDB sees it (`check.rs`), because LMDB answers some damage with an
//! assertion.

use std::fs::File;
use std::io::PipeWriter;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use heed::types::Bytes as Raw;
use heed::{
    CommitOrAbort, CompactionOption, Database, Env, EnvFlags, EnvOpenOptions, MdbError, RoTxn,
    RwTxn, WithoutTls,
};

use crate::check::check_file;
use crate::counts::Counts;
use crate::error::OpenError;
use crate::options::StoreOptions;
use crate::schema::{
    FORMAT_VERSION, PAGE_BYTES, ROW_FORMAT, ROW_STATE, Skip, StateRow, Tree, decode_format,
    decode_state, encode_format, encode_stamp, encode_state,
};
use crate::store::Size;
use crate::types::{Author, Revision, Stamp};

/// LMDB's name for the data file in a store's directory.
pub(crate) const DATA_FILE: &str = "data.mdb";

/// A database of uninterpreted rows, in byte order.
pub(crate) type Rows = Database<'static, Raw, Raw>;

/// A read transaction that owns its environment and may move between threads.
pub(crate) type Snapshot = RoTxn<'static, WithoutTls>;

/// An open environment with its trees.
pub(crate) struct Environment {
    env: Env<WithoutTls>,
    trees: [Rows; Tree::ALL.len()],
    path: PathBuf,
    /// They change with a restore only, before anybody reads.
    skips: Vec<Skip>,
    counts: Counts,
    /// Another one has taken its place: its directory goes with it.
    is_retired: AtomicBool,
}

impl Environment {
    /// Makes `dir` a store with `state`.
    pub(crate) fn create(
        dir: &Path,
        options: &StoreOptions,
        state: &StateRow,
    ) -> Result<Self, OpenError> {
        let path = dir.join(DATA_FILE);
        if path.try_exists().map_err(|source| OpenError::Io { path: path.clone(), source })? {
            return Err(OpenError::Exists { path });
        }
        std::fs::create_dir_all(dir)
            .map_err(|source| OpenError::Io { path: dir.to_path_buf(), source })?;
        let env = open_lmdb(dir, &path, options, EnvFlags::empty())?;
        let wtxn = env.write_txn().map_err(|error| lmdb_error(&path, &error))?;
        let trees = env
            .create_databases_and_commit(wtxn, |opener, wtxn| {
                let mut trees = Vec::with_capacity(Tree::ALL.len());
                for tree in Tree::ALL {
                    trees.push(opener.create_database::<Raw, Raw>(wtxn, Some(tree.name()))?);
                }
                let meta = trees[Tree::Meta.index()];
                meta.put(wtxn, ROW_FORMAT, &encode_format(FORMAT_VERSION))?;
                let state = StateRow { txn: txn_id(wtxn), ..state.clone() };
                meta.put(wtxn, ROW_STATE, &encode_state(&state))?;
                let trees: [_; Tree::ALL.len()] =
                    trees.try_into().unwrap_or_else(|_| unreachable!("one database per tree"));
                Ok(CommitOrAbort::<_, ()>::Commit(trees))
            })
            .map_err(|error: heed::Error| lmdb_error(&path, &error))?
            .unwrap_commit();
        // The rows are durable; so must be the file's name.
        for folder in [Some(dir), dir.parent()].into_iter().flatten() {
            sync_folder(folder)?;
        }
        let skips = state.skips.clone();
        let counts = Counts::since(state.current);
        Ok(Self { env, trees, path, skips, counts, is_retired: AtomicBool::new(false) })
    }

    /// Opens a store and returns where it stands.
    pub(crate) fn open(dir: &Path, options: &StoreOptions) -> Result<(Self, StateRow), OpenError> {
        let path = dir.join(DATA_FILE);
        if !path.try_exists().map_err(|source| OpenError::Io { path: path.clone(), source })? {
            return Err(OpenError::Missing { path });
        }
        check_file(&path, pages_to_check(&path, options)?)?;
        let env = open_lmdb(dir, &path, options, EnvFlags::empty())?;
        Self::of_env(env, path)
    }

    /// Opens a data file that nobody writes, wherever it lies; leaves no trace beside it.
    pub(crate) fn open_read_only(
        path: &Path,
        options: &StoreOptions,
    ) -> Result<(Self, StateRow), OpenError> {
        check_file(path, pages_to_check(path, options)?)?;
        let flags = EnvFlags::READ_ONLY | EnvFlags::NO_SUB_DIR | EnvFlags::NO_LOCK;
        let env = open_lmdb(path, path, options, flags)?;
        Self::of_env(env, path.to_path_buf())
    }

    fn of_env(env: Env<WithoutTls>, path: PathBuf) -> Result<(Self, StateRow), OpenError> {
        let error = |error: heed::Error| lmdb_error(&path, &error);
        let rtxn = env.read_txn().map_err(error)?;
        let opened = env
            .open_databases_and_commit(rtxn, |opener, rtxn| {
                let mut trees = Vec::with_capacity(Tree::ALL.len());
                for tree in Tree::ALL {
                    match opener.open_database::<Raw, Raw>(rtxn, Some(tree.name()))? {
                        Some(rows) => trees.push(rows),
                        None => return Ok(CommitOrAbort::Abort(tree)),
                    }
                }
                let trees: [_; Tree::ALL.len()] =
                    trees.try_into().unwrap_or_else(|_| unreachable!("one database per tree"));
                Ok(CommitOrAbort::Commit(trees))
            })
            .map_err(|error: heed::Error| lmdb_error(&path, &error))?;
        let trees = match opened {
            CommitOrAbort::Commit(trees) => trees,
            CommitOrAbort::Abort(tree) => {
                let reason = format!("the tree {} is missing", tree.name());
                return Err(OpenError::Foreign { path, reason });
            }
        };
        let is_retired = AtomicBool::new(false);
        let (skips, counts) = (Vec::new(), Counts::since(Revision::NONE));
        let mut environment = Self { env, trees, path, skips, counts, is_retired };
        let state = environment.read_state()?;
        environment.skips.clone_from(&state.skips);
        environment.counts = Counts::since(state.current);
        Ok((environment, state))
    }

    /// Checks the format row and reads the state row.
    fn read_state(&self) -> Result<StateRow, OpenError> {
        let path = self.path.clone();
        let error = |error: heed::Error| lmdb_error(&self.path, &error);
        let rtxn = self.env.read_txn().map_err(error)?;
        let meta = self.rows(Tree::Meta);
        let format = meta.get(&rtxn, ROW_FORMAT).map_err(error)?;
        match format.and_then(decode_format) {
            None => {
                let reason = "the row format of the tree meta is missing or damaged".to_owned();
                return Err(OpenError::Foreign { path, reason });
            }
            Some(FORMAT_VERSION) => {}
            Some(found) => {
                return Err(OpenError::FormatVersion { path, found, expected: FORMAT_VERSION });
            }
        }
        let Some(value) = meta.get(&rtxn, ROW_STATE).map_err(error)? else {
            let reason = "the row state of the tree meta is missing".to_owned();
            return Err(OpenError::Foreign { path, reason });
        };
        let state = match decode_state(value) {
            Ok(state) => state,
            Err(source) => return Err(OpenError::CorruptRow { path, source }),
        };
        let txn = txn_id(&rtxn);
        if txn != state.txn && txn != TXN_OF_COPY {
            let reason = format!("LMDB found transaction {txn}, its rows are of {}", state.txn);
            return Err(OpenError::CorruptPage { path, offset: 0, reason });
        }
        Ok(state)
    }

    /// From now on nothing is written here, and the directory is removed when this is dropped.
    pub(crate) fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Acquire)
    }

    /// What is known of the numbers of keys.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(crate) fn skips(&self) -> &[Skip] {
        &self.skips
    }

    /// The skip that holds `revision`.
    pub(crate) fn skip_of(&self, revision: Revision) -> Option<Skip> {
        self.skips.iter().copied().find(|skip| skip.holds(revision))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn rows(&self, tree: Tree) -> &Rows {
        &self.trees[tree.index()]
    }

    pub(crate) fn snapshot(&self) -> Result<Snapshot, heed::Error> {
        self.env.clone().static_read_txn()
    }

    pub(crate) fn write_txn(&self) -> Result<RwTxn<'_>, heed::Error> {
        self.env.write_txn()
    }

    /// Writes LMDB's compacted copy of the last commit.
    pub(crate) fn copy_compacted(&self, to: PipeWriter) -> Result<(), heed::Error> {
        let mut to = File::from(OwnedFd::from(to));
        self.env.copy_to_file(&mut to, CompactionOption::Enabled)
    }

    /// Gives a restored copy its own state; members and alarms were those of another cluster.
    pub(crate) fn write_restored(&self, state: &StateRow) -> Result<(), OpenError> {
        let error = |error: heed::Error| lmdb_error(&self.path, &error);
        let mut wtxn = self.env.write_txn().map_err(error)?;
        let state = StateRow { txn: txn_id(&wtxn), ..state.clone() };
        for tree in [Tree::Alarms, Tree::Members] {
            self.rows(tree).clear(&mut wtxn).map_err(error)?;
        }
        if let Some(skip) = state.skips.last().filter(|skip| skip.until == state.current) {
            // Nobody made it, but it has a time, as every current revision.
            let row = skip.until.0.to_be_bytes();
            let (author, note) = (Author::default(), bytes::Bytes::new());
            let stamp = Stamp { revision: skip.until, time: state.time, author, note };
            let value = encode_stamp(&row, &stamp);
            self.rows(Tree::Times).put(&mut wtxn, &row, &value).map_err(error)?;
        }
        self.rows(Tree::Meta).put(&mut wtxn, ROW_STATE, &encode_state(&state)).map_err(error)?;
        wtxn.commit().map_err(error)
    }

    /// Bytes of the file, and of the pages that hold rows now.
    pub(crate) fn size(&self) -> Result<Size, heed::Error> {
        let file_bytes = self.env.real_disk_size()?;
        let rtxn = self.env.read_txn()?;
        // The two meta pages, the main tree's pages, and those of each tree.
        let main = self.env.unnamed_database_stat();
        let mut pages = 2 + main.branch_pages + main.leaf_pages + main.overflow_pages;
        let mut page_bytes = u64::from(main.page_size);
        for rows in &self.trees {
            let stat = rows.stat(&rtxn)?;
            pages += stat.branch_pages + stat.leaf_pages + stat.overflow_pages;
            page_bytes = u64::from(stat.page_size);
        }
        let pages = u64::try_from(pages).unwrap_or(u64::MAX);
        Ok(Size { file_bytes, in_use_bytes: pages.saturating_mul(page_bytes).min(file_bytes) })
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        if !*self.is_retired.get_mut() {
            return;
        }
        let Some(dir) = self.path.parent().map(Path::to_path_buf) else { return };
        // Whoever dropped the last view should not wait for the disk. LMDB has the file open: it ends
        // when that does. What a crash leaves is removed by the next start.
        let remove = move || {
            if let Err(error) = std::fs::remove_dir_all(&dir) {
                tracing::warn!(%error, dir = %dir.display(), "a replaced store was not removed");
            }
        };
        let thread = std::thread::Builder::new().name("store-remove".to_owned());
        if let Err(error) = thread.spawn(remove) {
            tracing::warn!(%error, "a replaced store is left to the next start");
        }
    }
}

fn pages_to_check(path: &Path, options: &StoreOptions) -> Result<usize, OpenError> {
    let io = |source| OpenError::Io { path: path.to_path_buf(), source };
    let bytes = std::fs::metadata(path).map_err(io)?.len();
    let pages = usize::try_from(bytes).unwrap_or(usize::MAX) / PAGE_BYTES;
    let is_small = pages <= options.check_whole_pages;
    Ok(if is_small { usize::MAX } else { options.check_pages_max })
}

pub(crate) fn sync_folder(folder: &Path) -> Result<(), OpenError> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder)
        .and_then(|open| open.sync_all())
        .map_err(|source| OpenError::Io { path: folder.to_path_buf(), source })
}

/// The number that LMDB gives the only transaction of a compacted copy.
const TXN_OF_COPY: u64 = 1;

pub(crate) fn txn_id<T>(txn: &RoTxn<'_, T>) -> u64 {
    u64::try_from(txn.id()).expect("a usize has at most 64 bits")
}

/// `file` is the data file, for errors; `place` what LMDB wants to be told, by its flags.
fn open_lmdb(
    place: &Path,
    file: &Path,
    options: &StoreOptions,
    flags: EnvFlags,
) -> Result<Env<WithoutTls>, OpenError> {
    let mut open = EnvOpenOptions::new().read_txn_without_tls();
    open.map_size(options.map_bytes)
        .max_readers(options.max_readers)
        .max_dbs(u32::try_from(Tree::ALL.len()).expect("a few trees"));
    // Keys are read where they lie, not one after another: a disk that reads megabytes ahead at each
    // fault would make a cold lookup a hundred times slower.
    // SAFETY: the data file is written by LMDB alone: a data directory is locked by its node, and
    // heed refuses to open one path twice in a process. Without LMDB's lock only files are opened
    // that nobody writes: backups, and the file of a store whose directory the caller holds.
    #[expect(unsafe_code, reason = "a memory map of a file cannot be proven sound by the compiler")]
    let env = unsafe { open.flags(flags | EnvFlags::NO_READ_AHEAD).open(place) };
    env.map_err(|error| lmdb_error(file, &error))
}

fn lmdb_error(path: &Path, error: &heed::Error) -> OpenError {
    let path = path.to_path_buf();
    match error {
        heed::Error::EnvAlreadyOpened => OpenError::AlreadyOpen { path },
        heed::Error::Mdb(MdbError::Invalid | MdbError::VersionMismatch) => {
            OpenError::Foreign { path, reason: error.to_string() }
        }
        _ => OpenError::Lmdb { path, reason: error.to_string() },
    }
}
