//! One change made elsewhere, as the operation that raises its events when it is repeated here.
//!
//! A poke names directories by their keys and files by node numbers: it is carried by a thread that
//! must not be the last to hold anything whose end could wake a task ([`super::poker`]).

use bytes::Bytes;
use fuser::FileType;

use crate::path::DirectoryKey;

/// A name in a live directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub directory: DirectoryKey,
    /// As a file name. Empty: the directory itself, which only the root of the mount is named by.
    pub name: Bytes,
}

/// What happened to a file while it was open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    /// It was written, or its length changed.
    Content,
    Attributes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A file was opened to write, perhaps made by that, and closed.
    Write {
        is_new: bool,
        touches: Vec<Touch>,
    },
    Symlink,
    MakeDirectory,
    /// Attributes of what is of this kind.
    Attributes(FileType),
    /// A file was removed, or what else is no directory.
    Remove(FileType),
    RemoveDirectory(DirectoryKey),
    Rename {
        to: Spot,
        kind: FileType,
        replaced: Option<u64>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Poke {
    pub action: Action,
    pub at: Spot,
    /// The node that was changed, moved or removed, where the kernel knows it.
    pub subject: Option<u64>,
}

impl Poke {
    /// The other directory and name of a rename.
    pub(crate) fn to(&self) -> Option<&Spot> {
        match &self.action {
            Action::Rename { to, .. } => Some(to),
            _ => None,
        }
    }

    /// What the kernel must think it is, if it has to be made up.
    pub(crate) fn kind(&self) -> FileType {
        match &self.action {
            Action::Write { .. } => FileType::RegularFile,
            Action::Symlink => FileType::Symlink,
            Action::MakeDirectory | Action::RemoveDirectory(_) => FileType::Directory,
            Action::Attributes(kind) | Action::Remove(kind) | Action::Rename { kind, .. } => *kind,
        }
    }

    /// It makes its name.
    pub(crate) fn creates(&self) -> bool {
        matches!(
            self.action,
            Action::Write { is_new: true, .. } | Action::Symlink | Action::MakeDirectory
        )
    }
}
