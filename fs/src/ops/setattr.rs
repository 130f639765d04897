//! Changing attributes: mode, owner, size, mtime.
//!
//! While something of a file is staged its attributes are staged with it, and become part of the same
//! revision; if nobody has the file open for writing, or its last writer is just closing it, that revision
//! is made before the answer. Otherwise a change is one transaction on the side record, guarded by what
//! was read.
//! Access times are not stored: they follow the mtime, and setting nothing but one is refused.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fuser::{Errno, TimeOrNow};
use revfs_api::keyspace::{Answer as KeyAnswer, Compare, Op, Read, Revision, Time, Txn};

use crate::attributes::{Attributes, Record, in_force_of_directory, is_marker, record_key};
use crate::commit::transaction::{Site, unchanged};
use crate::commit::{key_value, now};
use crate::errno::errno;
use crate::filesystem::{Answer, Caller, CommitAt, Filesystem};
use crate::found::Shown;
use crate::node::{Hidden, Node, Place, Tree};
use crate::note::Operation;
use crate::ops::write::clear_set_ids;
use crate::path::DirectoryKey;
use crate::staged::Step;

/// Attempts while others keep changing the same record.
const ATTEMPTS_MAX: usize = 10;

/// What SETATTR asks for; what is absent stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<TimeOrNow>,
    pub mtime: Option<TimeOrNow>,
    /// Given for ftruncate only; futimens and fchmod carry none.
    pub handle: Option<u64>,
}

impl SetAttr {
    fn changes_record(&self) -> bool {
        self.mode.is_some() || self.uid.is_some() || self.gid.is_some() || self.mtime.is_some()
    }

    /// Applies everything but the size. With `at_commit`, "now" is the time of the commit to come.
    fn apply(
        &self,
        attributes: &mut Attributes,
        caller: Caller,
        at_commit: bool,
        is_directory: bool,
    ) -> Answer<()> {
        let mtime = match self.mtime {
            Some(TimeOrNow::SpecificTime(time)) => Some(Some(nanoseconds(time)?)),
            Some(TimeOrNow::Now) => Some((!at_commit).then(now)),
            None => None,
        };
        if self.uid.is_some() || self.gid.is_some() || (self.size.is_some() && caller.uid != 0) {
            // POSIX leaves directories alone.
            if !is_directory {
                clear_set_ids(attributes);
            }
        }
        attributes.uid = self.uid.or(attributes.uid);
        attributes.gid = self.gid.or(attributes.gid);
        if let Some(mode) = self.mode {
            attributes.mode = u16::try_from(mode & 0o7777).expect("12 bits fit in 16");
        }
        if let Some(mtime) = mtime {
            attributes.mtime = mtime;
        }
        Ok(())
    }
}

impl Filesystem {
    /// Changes attributes of a live file or directory.
    ///
    /// # Errors
    /// EROFS outside the live tree; EISDIR for the size of a directory; EFBIG; EOPNOTSUPP for an access
    /// time alone; EINVAL for a time that 64 bits of nanoseconds do not hold; ESTALE if the file is
    /// gone.
    pub async fn setattr(&self, caller: Caller, ino: u64, set: SetAttr) -> Answer<Shown> {
        let node = self.nodes.get(ino).ok_or(Errno::ESTALE)?;
        if self.options.read_only {
            return Err(Errno::EROFS);
        }
        match node.place() {
            Place::Directory { tree: Tree::Live, .. } if set.size.is_some() => {
                return Err(Errno::EISDIR);
            }
            Place::Directory { tree: Tree::Live, directory }
                if self.private.is_some()
                    && directory == self.options.root
                    && (set.mode.is_some() || set.uid.is_some() || set.gid.is_some()) =>
            {
                // What it shows is whose the transaction is.
                return Err(Errno::EPERM);
            }
            Place::Hidden(Hidden::Commit) => {
                self.commit_transaction(caller).await?;
                return self.shown(&node).await;
            }
            Place::Directory { tree: Tree::Live, directory } => {
                if set.changes_record() {
                    let apply = |own: &mut Attributes| set.apply(own, caller, false, true);
                    self.change_directory_attributes(caller, &directory, apply).await?;
                }
            }
            Place::File { .. } | Place::Detached { .. } => {
                self.set_file_attributes(caller, &node, &set).await?;
            }
            Place::Directory { .. } | Place::PastFile { .. } | Place::Hidden(_) => {
                return Err(Errno::EROFS);
            }
        }
        if set.atime.is_some() && set.size.is_none() && !set.changes_record() {
            return Err(Errno::EOPNOTSUPP);
        }
        self.shown(&node).await
    }

    async fn set_file_attributes(
        &self,
        caller: Caller,
        node: &Arc<Node>,
        set: &SetAttr,
    ) -> Answer<()> {
        let is_step = self.options.commit == CommitAt::Write;
        let commits_at_once =
            is_step || (set.handle.is_none() && node.file.lock().staged.is_none());
        let mut staged = None;
        if let Some(size) = set.size {
            if let Some(handle) = set.handle {
                let handle = self.handles.files.get(handle).ok_or(Errno::EBADF)?;
                if let Some(errno) = handle.refusal.lock().take() {
                    return Err(errno);
                }
                handle.reopen();
            }
            staged = Some(self.resize_staged(node, size).await?);
        }
        if set.changes_record() || (set.size.is_some() && caller.uid != 0) {
            let apply = |own: &mut Attributes, at_commit| set.apply(own, caller, at_commit, false);
            staged = self.change_file_attributes(caller, node, apply).await?.or(staged);
        }
        let Some(generation) = staged else { return Ok(()) };
        if set.size.is_some() && commits_at_once {
            return self.commit_unwaited(node, caller, generation).await;
        }
        self.commit_stranded(node, caller, generation).await
    }

    /// Commits what a request has staged as `generation`, if no close will come for it.
    pub(crate) async fn commit_stranded(
        &self,
        node: &Arc<Node>,
        caller: Caller,
        generation: u64,
    ) -> Answer<()> {
        if node.file.lock().writers > 0 {
            return Ok(());
        }
        self.commit_unwaited(node, caller, generation).await
    }

    /// Commits what a request has staged as `generation`, without waiting for the kernel: the request
    /// that waits holds the file's lock there.
    pub(super) async fn commit_unwaited(
        &self,
        node: &Arc<Node>,
        caller: Caller,
        generation: u64,
    ) -> Answer<()> {
        let renames = self.hold_names().await?;
        let own = node.commit.lock().await;
        let committed = self.commit_locked(node, caller.uid).await;
        drop((own, renames));
        committed?;
        // Another commit may have taken it along, and may have been refused.
        let state = node.file.lock();
        match state.refused {
            Some((refused, errno)) if refused >= generation && state.committed < generation => {
                Err(errno)
            }
            _ => Ok(()),
        }
    }

    /// Changes what is staged, or else the record. `change` is told whether it becomes part of a
    /// commit to come; returns the generation of the staged copy that it became part of.
    pub(crate) async fn change_file_attributes(
        &self,
        caller: Caller,
        node: &Arc<Node>,
        change: impl Fn(&mut Attributes, bool) -> Answer<()>,
    ) -> Answer<Option<u64>> {
        let change = |own: &mut Attributes, at_commit| {
            let before = own.clone();
            change(own, at_commit)?;
            self.check_attributes(own, before)
        };
        for _ in 0..ATTEMPTS_MAX {
            {
                let mut state = node.file.lock();
                let changed = state.change(Step::Attributes, |staged| {
                    staged.modified = now();
                    change(&mut staged.attributes, true)
                });
                if let Some(changed) = changed {
                    return changed.map(|()| Some(state.generation));
                }
            }
            self.check_writable()?;
            let stored = self.stored_of(node).await?;
            if node.file.lock().is_private {
                // Nobody else will see it, but its open handles do.
                self.stage_on(&mut node.file.lock(), stored, false)?;
                continue;
            }
            let mut attributes = stored.attributes.clone();
            change(&mut attributes, false)?;
            if attributes == stored.attributes {
                return Ok(None);
            }
            let key = stored.kv.key.clone();
            let defaults = self.options.defaults();
            let site = Site { key: &key, root: &self.options.root, defaults: &defaults };
            let txn = Txn {
                compares: vec![
                    Compare::create_revision(key.clone(), stored.kv.create_revision),
                    unchanged(&record_key(&key), stored.record.as_ref()),
                ],
                success: vec![site.record_op(&attributes, stored.kv.value.len())],
                failure: Vec::new(),
            };
            let note = vec![Operation::Attributes(key.clone())];
            let proposed = self.propose(caller.uid, note, txn).await;
            let answer = proposed.map_err(|error| errno(&error))?;
            if answer.succeeded {
                node.see(answer.revision);
                return Ok(None);
            }
        }
        Err(Errno::ESTALE)
    }

    /// Where no side record may be written, what is set must be what is there.
    fn check_attributes(&self, own: &mut Attributes, before: Attributes) -> Answer<()> {
        if self.options.writes_attributes || *own == before {
            return Ok(());
        }
        *own = before;
        Err(Errno::EPERM)
    }

    /// Changes the record of a directory; one that has no marker gets it, to carry the record.
    pub(crate) async fn change_directory_attributes(
        &self,
        caller: Caller,
        directory: &DirectoryKey,
        change: impl Fn(&mut Attributes) -> Answer<()>,
    ) -> Answer<()> {
        self.check_writable()?;
        let marker = directory.marker().ok_or(Errno::EPERM)?;
        let record = record_key(&marker);
        let defaults = self.options.defaults();
        for _ in 0..ATTEMPTS_MAX {
            let reads = vec![
                Read::Directory(marker.clone()),
                Read::key(marker.clone()),
                Read::key(record.clone()),
            ];
            let answer = self.ask(Revision::NONE, reads).await?;
            let Some(KeyAnswer::Directory(own)) = answer.answers.first() else {
                return Err(Errno::EIO);
            };
            if own.names == 0 && *directory != self.options.root {
                return Err(Errno::ENOENT);
            }
            let marker_kv = key_value(&answer, 1);
            let record_kv = key_value(&answer, 2);
            let stored = record_kv.map(Record::read).transpose().map_err(|_| Errno::EIO)?;
            if marker_kv.is_some_and(|kv| !is_marker(kv, stored.as_ref())) {
                // The record there is that of the file `%`.
                return Err(Errno::EPERM);
            }
            let before = in_force_of_directory(own, marker_kv, stored.as_ref(), &defaults);
            let mut attributes = before.clone();
            change(&mut attributes)?;
            self.check_attributes(&mut attributes, before.clone())?;
            if attributes == before {
                return Ok(());
            }
            let mut success = Vec::new();
            if marker_kv.is_none() {
                success.push(Op::put(marker.clone(), Bytes::new()));
            }
            success.push(if attributes.is_default(&defaults) {
                Op::delete(record.clone())
            } else {
                Op::put(record.clone(), attributes.encode())
            });
            let compares = vec![unchanged(&marker, marker_kv), unchanged(&record, record_kv)];
            let txn = Txn { compares, success, failure: Vec::new() };
            let note = vec![Operation::Attributes(marker.clone())];
            let proposed = self.propose(caller.uid, note, txn).await;
            if proposed.map_err(|error| errno(&error))?.succeeded {
                return Ok(());
            }
        }
        Err(Errno::EAGAIN)
    }
}

/// A time as the record holds it.
fn nanoseconds(time: SystemTime) -> Answer<Time> {
    let nanoseconds = match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).ok(),
        Err(before) => i64::try_from(before.duration().as_nanos()).ok().map(|since| -since),
    };
    nanoseconds.map(Time).ok_or(Errno::EINVAL)
}
