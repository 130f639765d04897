//! Committing: what is staged in a node becomes one revision, or is refused as a whole.
//!
//! One commit of a node at a time ([`Node::commit`]). It takes a draft of the staged copy, proposes it
//! as one guarded transaction, and then
//! - *committed*: settles the node; what was written meanwhile stays staged on the new base;
//! - *a compare failed*: learns from the failure branch, and tries again with what it learnt, or gives
//!   up with the exact errno;
//! - *refused*: drops the staged copy, keeps its bytes for an hour, tells every open handle once, and
//!   waits until the kernel has forgotten the pages;
//! - *outcome unknown*: keeps the copy and answers EIO; before anything else is committed of the file,
//!   its history is read back for the transaction's note.
//!
//! Lock order: [`Writing::renames`], then [`Node::commit`] (of two nodes, the lower number first), then
//! the synchronous locks as `node` lists them.

pub(crate) mod doubt;
pub(crate) mod origin;
mod proposing;
pub(crate) mod transaction;
mod uncertain;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fuser::Errno;
use parking_lot::Mutex;
use revfs_api::keyspace::{
    Answer as KeyAnswer, Error, KeyValue, Read, ReadAnswer, Revision, Time, TxnAnswer,
};

use self::doubt::Doubt;
use self::origin::Authors;
use self::transaction::{Site, Surroundings, Verdict, first_key, last_key};
use crate::budget::Budget;
use crate::errno::errno;
use crate::filesystem::{Answer, Filesystem};
use crate::node::{Node, Place, Tree};
use crate::note::Operation;
use crate::notices::Notice;
use crate::path::DirectoryKey;
use crate::refused::{RefusedCopies, RefusedCopy};
use crate::staged::{Committed, Content, Draft, Step, Uncertain};

/// Attempts of one commit while others keep changing what it rests on.
const ATTEMPTS_MAX: usize = 10;

/// A file to which only bytes were appended is committed after this long without a write.
const IDLE: Duration = Duration::from_secs(1);

/// The store writes a value whole at each append, so a long one is committed less often.
const APPENDED_VALUE_BYTES_PER_SECOND: u64 = 64 * 1024;

/// How often [`Filesystem::tend`] looks.
pub const TEND_EVERY: Duration = Duration::from_millis(250);

/// Commits that an unmount asks for together, so that they share the store's flushes.
const COMMITS_AT_ONCE: usize = 256;

/// What the operations that write share.
#[derive(Debug)]
pub struct Writing {
    pub budget: Arc<Budget>,
    pub refused: RefusedCopies,
    pub(crate) authors: Authors,
    /// FLUSHes that had to commit because /proc did not tell whether they were closes.
    pub(crate) blind_flushes: AtomicU64,
    /// Commits hold it for reading, the rename of a directory for writing: no commit goes to a key
    /// that is just being moved.
    pub(crate) renames: tokio::sync::RwLock<()>,
    /// Renames of which nobody knows whether they happened.
    pub(crate) doubts: Mutex<Vec<Doubt>>,
    /// Nodes that [`Filesystem::tend`] looks after, with the time before which it leaves them alone.
    tended: Mutex<HashMap<u64, (Weak<Node>, Instant)>>,
    /// Why the key space refused the last transaction for want of a quorum or of space, and when.
    hindrance: Mutex<Option<(Errno, Instant)>>,
}

/// How long a refusal for want of quorum or space answers later opens and writes too: a shell that
/// ignores the error of close sees that of open.
const HINDRANCE_LASTS: Duration = Duration::from_secs(1);

impl Writing {
    #[must_use]
    pub fn new(staged_bytes_max: usize) -> Self {
        Self {
            budget: Budget::new(staged_bytes_max),
            refused: RefusedCopies::default(),
            authors: Authors::default(),
            blind_flushes: AtomicU64::new(0),
            renames: tokio::sync::RwLock::default(),
            doubts: Mutex::default(),
            tended: Mutex::default(),
            hindrance: Mutex::default(),
        }
    }

    #[must_use]
    pub fn blind_flushes(&self) -> u64 {
        self.blind_flushes.load(Ordering::Relaxed)
    }

    /// Has the node looked after: something in it is staged that no close may come for.
    pub(crate) fn tend(&self, node: &Arc<Node>) {
        let mut tended = self.tended.lock();
        let (known, _) =
            tended.entry(node.ino).or_insert_with(|| (Arc::downgrade(node), Instant::now()));
        // The number may have been that of a node that is gone.
        if !std::ptr::eq(known.as_ptr(), Arc::as_ptr(node)) {
            tended.insert(node.ino, (Arc::downgrade(node), Instant::now()));
        }
    }

    /// The reason for which a write would be refused now, if it is known.
    pub(crate) fn hindrance(&self) -> Option<Errno> {
        let mut hindrance = self.hindrance.lock();
        if hindrance.is_some_and(|(_, since)| since.elapsed() >= HINDRANCE_LASTS) {
            *hindrance = None;
        }
        hindrance.map(|(errno, _)| errno)
    }

    fn learn(&self, answer: &Result<TxnAnswer, Error>) {
        let hindrance = match answer {
            Err(error @ (Error::NoQuorum { .. } | Error::NoSpace { .. })) => Some(errno(error)),
            _ => None,
        };
        *self.hindrance.lock() = hindrance.map(|errno| (errno, Instant::now()));
    }
}

/// The present time, for what is shown until the commit stamps its own.
pub(crate) fn now() -> Time {
    let nanoseconds = jiff::Timestamp::now().as_nanosecond();
    Time(i64::try_from(nanoseconds).expect("a clock between the years 1678 and 2262"))
}

impl Filesystem {
    /// Commits what is staged in `node`; nothing to do is a success.
    ///
    /// # Errors
    /// What the whole copy was refused with; EIO if the outcome is not known.
    pub(crate) async fn commit(&self, node: &Arc<Node>, uid: u32) -> Answer<()> {
        let is_new_and_empty = match &node.file.lock().staged {
            Some(staged) => staged.stored.is_none() && staged.bytes.is_empty(),
            None => return Ok(()),
        };
        let committed = if self.stays_here(node) {
            Ok(())
        } else {
            let renames = self.hold_names().await?;
            let own = node.commit.lock().await;
            let committed = self.commit_locked(node, uid).await;
            drop((own, renames));
            committed
        };
        self.drop_stale_pages(node).await;
        if is_new_and_empty {
            // CREATE lends the kernel the attributes for a moment, and no WRITE has ended that.
            self.notices.settled(Notice::Attributes(node.ino)).await;
        }
        committed
    }

    /// Waits until the kernel has dropped the pages of a node whose content has become another than
    /// it was told. Only for who may wait for a notice.
    async fn drop_stale_pages(&self, node: &Node) {
        if node.file.lock().has_stale_pages {
            self.notices.settled(Notice::Inode(node.ino)).await;
            node.file.lock().has_stale_pages = false;
        }
    }

    /// [`Self::commit`], by a caller that holds the node's commit lock. Does not wait for the kernel.
    pub(crate) async fn commit_locked(&self, node: &Arc<Node>, uid: u32) -> Answer<()> {
        if self.stays_here(node) {
            return Ok(());
        }
        self.read_back(node).await?;
        for _ in 0..ATTEMPTS_MAX {
            let Some((key, draft)) = draft_of(node) else { return Ok(()) };
            let site =
                Site { key: &key, root: &self.options.root, defaults: &self.options.defaults() };
            let txn = site.transaction(&draft);
            let (sequence, since) = (self.next_sequence(), self.floor());
            let note = operations(&key, &draft.steps);
            match self.propose_as(sequence, uid, note, txn).await {
                Ok(answer) if answer.succeeded => {
                    let Some(kv) = last_key(&answer.answers) else { return Err(Errno::EIO) };
                    let has_foreign_bytes = draft.lacks(first_key(&answer.answers));
                    let committed = Committed { kv, has_foreign_bytes };
                    return self.settle(node, &key, &draft, &committed).await;
                }
                Ok(answer) => match Surroundings::new(&site, &answer.answers).judge(&draft) {
                    Verdict::Again { life, creation, basis } => {
                        let mut state = node.file.lock();
                        state.life = life;
                        if let Some(staged) = &mut state.staged {
                            staged.creation = creation;
                            staged.basis = basis;
                        }
                    }
                    Verdict::Refused(errno) => return self.refuse(node, &key, errno),
                },
                Err(Error::OutcomeUnknown { reason }) => {
                    tracing::warn!(key = %key.escape_ascii(), reason, "outcome of a commit unknown");
                    let uncertain = Uncertain { sequence, since, draft, renamed_to: None };
                    self.read_back_later(node, uncertain);
                    return Err(Errno::EIO);
                }
                Err(error) => return self.refuse(node, &key, errno(&error)),
            }
        }
        let Some((key, _)) = draft_of(node) else { return Ok(()) };
        self.refuse(node, &key, Errno::ESTALE)
    }

    /// Takes note that `draft` is in the store under `key`.
    pub(crate) async fn settle(
        &self,
        node: &Arc<Node>,
        key: &Bytes,
        draft: &Draft,
        committed: &Committed,
    ) -> Answer<()> {
        let is_staged = node.file.lock().settle(draft, committed);
        node.see(committed.kv.mod_revision);
        self.raise_floor(committed.kv.mod_revision);
        self.forget_unborn(node, key);
        if node.live_file().is_none() {
            self.nodes.attach(node, key);
        }
        if committed.has_foreign_bytes {
            node.file.lock().has_stale_pages = true;
            self.notices.send(Notice::Inode(node.ino));
            self.writing.tend(node);
            if is_staged {
                let content = self.stored_content(key).await?.ok_or(Errno::ESTALE)?;
                if let Some(staged) = &mut node.file.lock().staged {
                    staged.put_before(&content);
                }
            }
        }
        Ok(())
    }

    /// Drops the staged copy of `node`, keeps its bytes for an hour, and has everybody told.
    pub(crate) fn refuse(&self, node: &Arc<Node>, key: &Bytes, errno: Errno) -> Answer<()> {
        let (staged, was_unborn) = {
            let mut state = node.file.lock();
            state.has_stale_pages = true;
            state.drop_content();
            state.refused = Some((state.generation, errno));
            state.generation += 1;
            let was_unborn = state.life.is_unborn();
            state.is_private |= was_unborn;
            state.reservation = None;
            (state.staged.take(), was_unborn)
        };
        tracing::warn!(key = %key.escape_ascii(), ?errno, "commit refused");
        if let Some(staged) = staged {
            let (bytes, attributes) = (Arc::clone(&staged.bytes), staged.attributes.clone());
            let copy = RefusedCopy { key: key.clone(), time: now(), bytes, attributes };
            self.writing.refused.keep(copy, Instant::now());
        }
        for handle in self.handles.files.all() {
            if Arc::ptr_eq(&handle.node, node) && handle.may_write() {
                *handle.refusal.lock() = Some(errno);
            }
        }
        if was_unborn {
            self.forget_unborn(node, key);
            self.nodes.detach(key);
            self.forget_name(key);
        }
        self.notices.send(Notice::Inode(node.ino));
        self.writing.tend(node);
        Err(errno)
    }

    /// Has the kernel forget the name of `key`.
    pub(crate) fn forget_name(&self, key: &Bytes) {
        let (directory, component) = DirectoryKey::of_key(key);
        let place = Place::Directory { tree: Tree::Live, directory };
        if let Some(parent) = self.nodes.find(&place) {
            let name = Bytes::from(crate::path::encode_component(&component).into_owned());
            self.notices.send(Notice::Entry { parent: parent.ino, name });
        }
    }

    /// The file is no longer one that only this mount has.
    pub(crate) fn forget_unborn(&self, node: &Arc<Node>, key: &Bytes) {
        let place = DirectoryKey::of_key(key);
        let mut unborn = self.unborn.lock();
        if unborn.get(&place).is_some_and(|own| Arc::ptr_eq(own, node)) {
            unborn.remove(&place);
        }
    }

    /// A file's content as the store has it now.
    pub(crate) async fn stored_content(&self, key: &Bytes) -> Answer<Option<Content>> {
        let answer = self.ask(Revision::NONE, vec![Read::key(key.clone())]).await?;
        Ok(key_value(&answer, 0).map(Content::new))
    }

    /// Commits what is staged in all files, before an unmount. Returns how many were refused.
    pub async fn commit_all(&self, deadline: Duration) -> usize {
        let deadline = tokio::time::Instant::now() + deadline;
        let mut refused = 0;
        for nodes in self.nodes.all().chunks(COMMITS_AT_ONCE) {
            let commits = nodes.iter().map(|node| {
                tokio::time::timeout_at(deadline, self.commit(node, owner_of_staged(node)))
            });
            let done = futures_util::future::join_all(commits).await;
            refused += done.iter().filter(|done| !matches!(done, Ok(Ok(())))).count();
        }
        refused
    }

    /// Commits appended bytes of files that have become idle and what no close will come for, and
    /// reads back commits whose outcome is not known. To be called every [`TEND_EVERY`].
    pub async fn tend(&self) {
        // Whoever needs the names hears of it.
        self.settle_names().await.ok();
        self.refuse_if_fenced().await;
        let now = Instant::now();
        let nodes: Vec<_> = {
            let mut tended = self.writing.tended.lock();
            tended.retain(|_, (node, _)| {
                node.upgrade().is_some_and(|node| needs_tending(&node) && !self.stays_here(&node))
            });
            let due = tended.values().filter(|(_, not_before)| *not_before <= now);
            due.filter_map(|(node, _)| node.upgrade()).collect()
        };
        for node in nodes {
            self.drop_stale_pages(&node).await;
            if !is_due(&node) {
                continue;
            }
            // An error has reached the handles, or stays with the copy; there is nobody else to tell.
            self.commit(&node, owner_of_staged(&node)).await.ok();
            self.nodes.release(node.ino);
            let value_bytes = node.file.lock().content.as_ref().map_or(0, |own| own.bytes.len());
            let value_bytes = u64::try_from(value_bytes).unwrap_or(u64::MAX);
            let pause = Duration::from_millis(
                value_bytes.saturating_mul(1000) / APPENDED_VALUE_BYTES_PER_SECOND,
            );
            if let Some((_, not_before)) = self.writing.tended.lock().get_mut(&node.ino) {
                *not_before = Instant::now() + pause.max(IDLE);
            }
        }
    }
}

fn needs_tending(node: &Node) -> bool {
    let state = node.file.lock();
    state.open > 0 || state.staged.is_some() || state.has_stale_pages
}

fn is_due(node: &Node) -> bool {
    let state = node.file.lock();
    let is_idle = state.staged.as_ref().is_some_and(|staged| {
        staged.uncertain.is_some() || (staged.is_append_only() && staged.written.elapsed() >= IDLE)
    });
    is_idle || state.is_stranded()
}

/// The user in whose name a commit is made that no request asks for.
pub(crate) fn owner_of_staged(node: &Node) -> u32 {
    node.file.lock().staged.as_ref().and_then(|staged| staged.attributes.uid).unwrap_or(0)
}

/// The key that the question `index` about one key found.
pub(crate) fn key_value(answer: &ReadAnswer, index: usize) -> Option<&KeyValue> {
    match answer.answers.get(index) {
        Some(KeyAnswer::Range(range)) => range.kvs.first(),
        _ => None,
    }
}

/// What a commit of `node` would send, and to which key. None if nothing is staged, or if what is
/// staged is private.
pub(crate) fn draft_of(node: &Node) -> Option<(Bytes, Draft)> {
    let key = match node.place() {
        Place::File { key } | Place::Detached { key } => key,
        Place::Directory { .. } | Place::PastFile { .. } | Place::Hidden(_) => return None,
    };
    let state = node.file.lock();
    if state.is_private { None } else { state.draft().map(|draft| (key, draft)) }
}

/// The note of a commit.
pub(crate) fn operations(key: &Bytes, steps: &[Step]) -> Vec<Operation> {
    let mut operations: Vec<_> = steps
        .iter()
        .map(|step| match step {
            Step::Create => Operation::Create(key.clone()),
            Step::Write => Operation::Write(key.clone()),
            Step::Append => Operation::Append(key.clone()),
            Step::Truncate => Operation::Truncate(key.clone()),
            Step::Attributes => Operation::Attributes(key.clone()),
        })
        .collect();
    operations.push(Operation::Close(key.clone()));
    operations
}

#[cfg(test)]
mod tests {
    //! Who is looked after.

    use std::sync::Arc;

    use super::Writing;
    use crate::node::{Node, Place};

    #[test]
    fn a_node_is_tended_though_one_that_is_gone_had_its_number() {
        let place = || Place::File { key: "/f".into() };
        let writing = Writing::new(0);
        let gone = Node::new(7, place());
        writing.tend(&gone);
        drop(gone);
        let node = Node::new(7, place());
        writing.tend(&node);
        let tended = writing.tended.lock()[&7].0.upgrade();
        assert!(tended.is_some_and(|tended| Arc::ptr_eq(&tended, &node)));
    }
}
