//! What is written but not yet committed belongs to the inode: one staged copy, shared by all open
//! handles of a file.
//!
//! The life of a staged copy: the first change of a file stages its whole content as this mount shows
//! it, with its attributes; further changes change the copy. A commit takes a [`Draft`] of it (cheap:
//! the bytes are shared, and copied only if somebody writes meanwhile), sends it, and afterwards
//! [`FileState::settle`]s: if nothing was written meanwhile nothing is staged any more, else what was
//! written stays staged on top of what has just been committed.
//!
//! How a copy came about decides what its commit asks of the store ([`Basis`]): a rewrite wins over
//! what is there, a change in the middle is only good on the content that it was made on, and appended
//! bytes go to the end of whatever is there.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use revfs_api::keyspace::{KeyValue, LeaseId, Revision, Time};

use crate::attributes::Attributes;
use crate::budget::{Charge, OverBudget};
use crate::reservation::Reservation;

/// A file's content as the store holds it, kept while a handle is open.
#[derive(Clone, Debug)]
pub struct Content {
    pub mod_revision: Revision,
    /// The put that gave these bytes: stays when the file is moved.
    pub content_revision: Revision,
    pub bytes: Bytes,
}

impl Content {
    #[must_use]
    pub fn new(kv: &KeyValue) -> Self {
        Self {
            mod_revision: kv.mod_revision,
            content_revision: kv.content_revision,
            bytes: kv.value.clone(),
        }
    }
}

/// Which file a node is: a life of a key, wherever it was moved to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// `create_revision` of the key that has this file's name now; none while the file is not yet in
    /// the store.
    pub create: Revision,
    /// `birth_revision`: the same before and after a move.
    pub birth: Revision,
}

impl Life {
    #[must_use]
    pub fn of(kv: &KeyValue) -> Self {
        Self { create: kv.create_revision, birth: kv.birth_revision }
    }

    #[must_use]
    pub fn is_unborn(self) -> bool {
        self.create == Revision::NONE
    }
}

/// The part of a node that only files use.
#[derive(Debug, Default)]
pub struct FileState {
    /// Open handles of any kind.
    pub open: usize,
    /// Of these, the ones that may write and of which no close is known yet.
    pub writers: usize,
    pub life: Life,
    pub content: Option<Content>,
    /// Counts how often the content became another one than what may just be on its way here.
    pub(crate) content_changes: u64,
    pub staged: Option<Staged>,
    /// Of the name of an unborn file that must be new.
    pub(crate) reservation: Option<Reservation>,
    /// Unlinked or replaced through this mount: what is staged is for its open handles only.
    pub is_private: bool,
    /// The kernel holds pages of a content that was refused, or lacks what others appended. Until it
    /// has dropped them, pages that it writes back are not taken for new content.
    pub(crate) has_stale_pages: bool,
    /// Changes of what is staged, counted, so that a commit sees whether there was one meanwhile.
    pub(crate) generation: u64,
    /// The generation up to which all is in the store.
    pub(crate) committed: u64,
    /// Why the last commit was refused that was, and the generation up to which all went with it.
    pub(crate) refused: Option<(u64, fuser::Errno)>,
}

/// Content and attributes that only this mount sees.
#[derive(Debug)]
pub struct Staged {
    /// The whole content of the file as this mount shows it.
    pub bytes: Arc<Vec<u8>>,
    /// Attributes as this mount shows them.
    pub attributes: Attributes,
    /// mtime that the mount shows until the commit, if none was set by hand.
    pub modified: Time,
    pub(crate) basis: Basis,
    /// The put that a rewrite may replace, of a mount where it does not win over others.
    pub(crate) replaces: Option<Base>,
    /// The attributes that the store has; `None` for a file that it has not.
    pub(crate) stored: Option<Attributes>,
    /// What is known of the place of a file to be created.
    pub(crate) creation: Creation,
    /// The operations since the last commit, repeats left out.
    pub(crate) steps: Vec<Step>,
    /// What was sent with which number, if its outcome is not known yet.
    pub(crate) uncertain: Option<Box<Uncertain>>,
    pub(crate) written: Instant,
    pub(crate) charge: Charge,
}

/// A put: its revision, and that of the content, which stays when the file is moved. None: no file yet.
pub(crate) type Base = (Revision, Revision);

/// What the staged bytes rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Basis {
    /// Written from empty: wins over what is there.
    Rewrite,
    /// Changed in the middle of the content of this put.
    Change { modified: Revision, content: Revision },
    /// The first `kept` bytes are the content of this put, the rest goes behind whatever is there.
    Append { kept: usize, modified: Revision, content: Revision },
}

impl Basis {
    pub(crate) fn append_to(content: &Content) -> Self {
        Self::Append {
            kept: content.bytes.len(),
            modified: content.mod_revision,
            content: content.content_revision,
        }
    }

    fn as_change(self) -> Self {
        match self {
            Self::Append { modified, content, .. } => Self::Change { modified, content },
            Self::Rewrite | Self::Change { .. } => self,
        }
    }
}

/// How a file that is not in the store yet may come into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Creation {
    /// O_EXCL: the name must not have been taken meanwhile.
    pub is_exclusive: bool,
    /// The lease of the reservation that the store has of its name; 0 if it has none.
    pub reserved: LeaseId,
    /// Opened with O_TRUNC: if the file is gone, its name may be created again.
    pub may_repeat: bool,
    /// The directory has a marker, so its absence means that the directory was removed.
    pub parent_marker: bool,
    /// The directory's own key has a value, so that is no reason to refuse.
    pub parent_value: bool,
}

/// One kind of operation in the note of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Create,
    Write,
    Append,
    Truncate,
    Attributes,
}

/// A note has 4 KiB; alternating operations beyond this say nothing new.
const STEPS_MAX: usize = 64;

/// Where a WRITE goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    At(usize),
    End,
}

/// What a commit sends: the staged copy at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub life: Life,
    pub bytes: Arc<Vec<u8>>,
    pub attributes: Attributes,
    pub stored: Option<Attributes>,
    pub basis: Basis,
    pub creation: Creation,
    pub steps: Vec<Step>,
    pub generation: u64,
}

impl Draft {
    /// The bytes that a commit sends.
    pub(crate) fn value(&self) -> Bytes {
        match self.basis {
            Basis::Append { kept, .. } if !self.life.is_unborn() => self.whole().slice(kept..),
            Basis::Append { .. } | Basis::Change { .. } | Basis::Rewrite => self.whole(),
        }
    }

    pub(crate) fn whole(&self) -> Bytes {
        Bytes::from_owner(SharedBytes(Arc::clone(&self.bytes)))
    }

    /// Whether the bytes miss some of what its commit appended to: the key as it was `before`. The
    /// revision tells; a length may be the same by chance.
    pub(crate) fn lacks(&self, before: Option<&KeyValue>) -> bool {
        match self.basis {
            Basis::Append { content, .. } if !self.life.is_unborn() => {
                before.is_none_or(|before| before.content_revision != content)
            }
            Basis::Append { .. } | Basis::Change { .. } | Basis::Rewrite => false,
        }
    }
}

/// A draft that was sent, and of which nobody knows whether it is in the store.
#[derive(Clone, Debug)]
pub(crate) struct Uncertain {
    /// In the note of its transaction.
    pub sequence: u64,
    /// It did not happen at or before this revision.
    pub since: Revision,
    pub draft: Draft,
    /// The key that it was to be renamed to.
    pub renamed_to: Option<Bytes>,
}

/// What a commit left in the store.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    /// The key after the commit, its value left out.
    pub kv: KeyValue,
    /// The bytes it holds are not the ones that this mount showed: others had changed what was
    /// appended to.
    pub has_foreign_bytes: bool,
}

impl FileState {
    /// Whether the node must stay in the table even if the kernel forgets it.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.open > 0 || self.staged.is_some()
    }

    /// Something is staged that no close will come for.
    #[must_use]
    pub(crate) fn is_stranded(&self) -> bool {
        self.writers == 0 && self.staged.is_some() && !self.is_private
    }

    /// Gives up the name that it was to be born under. It may still be born, if the name is free then.
    pub(crate) fn give_up_name(&mut self) {
        self.reservation = None;
        if let Some(staged) = &mut self.staged {
            staged.creation.reserved = LeaseId::default();
        }
    }

    /// Content read before now is not to be kept.
    pub(crate) fn drop_content(&mut self) {
        self.content = None;
        self.content_changes += 1;
    }

    pub(crate) fn stage(&mut self, staged: Staged) {
        debug_assert!(self.staged.is_none(), "a file has one staged copy");
        self.generation += 1;
        self.staged = Some(staged);
    }

    /// Changes the staged copy; `None` if there is none.
    pub(crate) fn change<E>(
        &mut self,
        step: Step,
        change: impl FnOnce(&mut Staged) -> Result<(), E>,
    ) -> Option<Result<(), E>> {
        let staged = self.staged.as_mut()?;
        let changed = change(staged);
        if changed.is_ok() {
            staged.note(step);
            self.generation += 1;
        }
        Some(changed)
    }

    pub(crate) fn draft(&self) -> Option<Draft> {
        let staged = self.staged.as_ref()?;
        let basis = match (staged.basis, staged.replaces) {
            (Basis::Rewrite, Some((modified, content))) => Basis::Change { modified, content },
            (basis, _) => basis,
        };
        Some(Draft {
            life: self.life,
            bytes: Arc::clone(&staged.bytes),
            attributes: staged.attributes.clone(),
            stored: staged.stored.clone(),
            basis,
            creation: staged.creation,
            steps: staged.steps.clone(),
            generation: self.generation,
        })
    }

    /// Takes note that `draft` is in the store. Returns whether something is still staged.
    pub(crate) fn settle(&mut self, draft: &Draft, committed: &Committed) -> bool {
        self.life = Life::of(&committed.kv);
        if let Some(reservation) = self.reservation.take() {
            reservation.fulfil();
        }
        self.drop_content();
        let bytes = Bytes::from_owner(SharedBytes(Arc::clone(&draft.bytes)));
        self.content = (!committed.has_foreign_bytes).then(|| Content {
            mod_revision: committed.kv.mod_revision,
            content_revision: committed.kv.content_revision,
            bytes,
        });
        self.committed = self.committed.max(draft.generation);
        if self.generation == draft.generation {
            self.staged = None;
        }
        let Some(staged) = self.staged.as_mut() else { return false };
        let kept = draft.bytes.len();
        let (mod_revision, content_revision) =
            (committed.kv.mod_revision, committed.kv.content_revision);
        let is_foreign = committed.has_foreign_bytes;
        staged.basis = match staged.basis {
            Basis::Rewrite => Basis::Rewrite,
            // The copy lacks what others wrote. Until that is put before it the base stays the old
            // one, so that a change in the middle is refused.
            change @ Basis::Change { .. } if is_foreign => change,
            Basis::Append { modified, content, .. } if is_foreign => {
                Basis::Append { kept, modified, content }
            }
            Basis::Change { .. } => {
                Basis::Change { modified: mod_revision, content: content_revision }
            }
            Basis::Append { .. } => {
                Basis::Append { kept, modified: mod_revision, content: content_revision }
            }
        };
        staged.replaces = staged.replaces.map(|_| (mod_revision, content_revision));
        staged.stored = Some(draft.attributes.clone());
        staged.creation.is_exclusive = false;
        staged.creation.reserved = LeaseId::default();
        staged.uncertain = None;
        let done = draft.steps.len().min(staged.steps.len());
        staged.steps.drain(..done);
        true
    }
}

impl Staged {
    /// A copy of what the store has, about to be changed.
    pub(crate) fn on_content(
        content: &Content,
        attributes: Attributes,
        basis: Basis,
        charge: Charge,
        now: Time,
    ) -> Self {
        let bytes = if basis == Basis::Rewrite { Vec::new() } else { content.bytes.to_vec() };
        Self {
            bytes: Arc::new(bytes),
            stored: Some(attributes.clone()),
            attributes,
            modified: now,
            basis,
            replaces: None,
            creation: Creation::default(),
            steps: Vec::new(),
            uncertain: None,
            written: Instant::now(),
            charge,
        }
    }

    /// A file that the store does not have yet.
    pub(crate) fn new_file(
        attributes: Attributes,
        creation: Creation,
        charge: Charge,
        now: Time,
    ) -> Self {
        // Whoever neither demanded a new file nor emptied an old one adds to what another may have
        // put there meanwhile.
        let basis = if creation.is_exclusive || creation.may_repeat {
            Basis::Rewrite
        } else {
            Basis::Append { kept: 0, modified: Revision::NONE, content: Revision::NONE }
        };
        Self {
            bytes: Arc::default(),
            stored: None,
            attributes,
            modified: now,
            basis,
            replaces: None,
            creation,
            steps: vec![Step::Create],
            uncertain: None,
            written: Instant::now(),
            charge,
        }
    }

    pub(crate) fn is_append_only(&self) -> bool {
        matches!(self.basis, Basis::Append { kept, .. } if kept < self.bytes.len())
            && self.stored.as_ref().is_none_or(|stored| *stored == self.attributes)
    }

    /// Puts `data` where it belongs; a gap before it reads as zeros.
    pub(crate) fn write(
        &mut self,
        position: Position,
        data: &[u8],
        now: Time,
    ) -> Result<(), OverBudget> {
        let start = match position {
            Position::At(start) => start,
            Position::End => self.bytes.len(),
        };
        let end = start + data.len();
        if end > self.bytes.len() {
            self.charge.resize(end)?;
        }
        let bytes = Arc::make_mut(&mut self.bytes);
        if end > bytes.len() {
            bytes.resize(end, 0);
        }
        bytes[start..end].copy_from_slice(data);
        if position != Position::End {
            self.basis = self.basis.as_change();
        }
        self.content_changed(now);
        Ok(())
    }

    pub(crate) fn resize(&mut self, size: usize, now: Time) -> Result<(), OverBudget> {
        self.charge.resize(size)?;
        Arc::make_mut(&mut self.bytes).resize(size, 0);
        self.basis = if size == 0 { Basis::Rewrite } else { self.basis.as_change() };
        self.content_changed(now);
        Ok(())
    }

    /// Makes zeros of what is there of a part.
    pub(crate) fn clear(&mut self, part: Range<usize>, now: Time) {
        let end = part.end.min(self.bytes.len());
        Arc::make_mut(&mut self.bytes)[part.start.min(end)..end].fill(0);
        self.basis = self.basis.as_change();
        self.content_changed(now);
    }

    /// POSIX: new content has a new mtime, whatever was set by hand before.
    fn content_changed(&mut self, now: Time) {
        self.modified = now;
        self.attributes.mtime = None;
        self.written = Instant::now();
    }

    fn note(&mut self, step: Step) {
        if self.steps.last() != Some(&step) && self.steps.len() < STEPS_MAX {
            self.steps.push(step);
        }
    }

    /// A repeat of bytes that may have been appended already must not append them twice.
    pub(crate) fn append_no_more(&mut self) {
        self.basis = self.basis.as_change();
    }

    /// What others appended comes before what is still staged here.
    pub(crate) fn put_before(&mut self, stored: &Content) {
        let Basis::Append { kept, .. } = self.basis else { return };
        let mut bytes = stored.bytes.to_vec();
        bytes.extend_from_slice(&self.bytes[kept..]);
        // Only what others wrote is added; it must not fail now.
        self.charge.force(bytes.len());
        self.basis = Basis::append_to(stored);
        self.bytes = Arc::new(bytes);
    }
}

/// Lets a `Bytes` share the staged copy.
struct SharedBytes(Arc<Vec<u8>>);

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests;
