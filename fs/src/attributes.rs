//! Attributes of a file or directory, and the side records that hold those that are not the default.
//!
//! The model:
//! - The side record of the key `k` is the key [`record_key`]`(k)`; that of the directory `/app/` lies
//!   beside its marker. A file with default attributes has none.
//! - A record is not bound to its file by anything stored. It *holds* iff its content is not older than
//!   the file's birth (`record.content_revision >= file.birth_revision`), so the record that outlives a
//!   plain delete means nothing to the next file of that name. A time set by hand holds only while the
//!   content has not changed since (`record.content_revision >= file.content_revision`; of a directory:
//!   while no name has come or gone since, `>= directory.changed`). A move carries these revisions along
//!   with both keys, and with a directory that it moves whole.
//! - One key serves a directory and the file `%` in it; the kind in the record says whose it is. It is
//!   the directory's iff it is [`Kind::Directory`].
//! - Who changes a record starts from [`in_force_of_file`] or [`in_force_of_directory`], never from the
//!   stored record, else a time that no longer holds would come back.

mod record;
mod xattrs;

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use revfs_api::keyspace::{DirectoryAnswer, KeyValue, Time};

pub use record::{RECORD_BYTES_MAX, Record, RecordError};
pub use xattrs::{
    VirtualXattr, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX, XATTRS_BYTES_MAX, XattrError,
    XattrName, XattrSet, classify_xattr,
};

/// Side records lie below this prefix, in the order of their keys.
pub const RECORD_PREFIX: &[u8] = b"\0revfs/a";

/// The key of the side record of `key` (of a directory: its prefix).
#[must_use]
pub fn record_key(key: &[u8]) -> Bytes {
    let mut record = BytesMut::with_capacity(RECORD_PREFIX.len() + key.len());
    record.put_slice(RECORD_PREFIX);
    record.put_slice(key);
    record.freeze()
}

/// What kind of node a record describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    /// The target is the value.
    Symlink,
    Fifo,
    Socket,
    CharDevice {
        rdev: u32,
    },
    BlockDevice {
        rdev: u32,
    },
}

/// All that is stored of a node besides its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub kind: Kind,
    /// Permission, set-id and sticky bits (07777).
    pub mode: u16,
    /// `None`: the owner that the mount gives to plain keys.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Set by hand; `None`: the time of the content.
    pub mtime: Option<Time>,
    /// Names of the `user.` namespace and their values. Changed by [`Self::set_xattr`], which keeps
    /// the bounds.
    pub xattrs: BTreeMap<Bytes, Bytes>,
}

/// What a mount shows of a plain key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    pub file_mode: u16,
    pub directory_mode: u16,
    pub uid: u32,
    pub gid: u32,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { file_mode: 0o644, directory_mode: 0o755, uid: 0, gid: 0 }
    }
}

impl Attributes {
    #[must_use]
    pub fn new(kind: Kind, mode: u16) -> Self {
        let mode = mode & 0o7777;
        Self { kind, mode, uid: None, gid: None, mtime: None, xattrs: BTreeMap::new() }
    }

    #[must_use]
    pub fn plain_file(defaults: &Defaults) -> Self {
        Self::new(Kind::File, defaults.file_mode)
    }

    #[must_use]
    pub fn plain_directory(defaults: &Defaults) -> Self {
        Self::new(Kind::Directory, defaults.directory_mode)
    }

    /// Whether a plain key looks the same, so that no record is needed.
    #[must_use]
    pub fn is_default(&self, defaults: &Defaults) -> bool {
        let plain = Defaults::default();
        let (own, anywhere) = match self.kind {
            Kind::File => (defaults.file_mode, plain.file_mode),
            Kind::Directory => (defaults.directory_mode, plain.directory_mode),
            Kind::Symlink
            | Kind::Fifo
            | Kind::Socket
            | Kind::CharDevice { .. }
            | Kind::BlockDevice { .. } => return false,
        };
        // A mount with an umask of its own shows others' modes differently, but must not change them for others.
        (self.mode, self.mode) == (own, anywhere)
            && self.uid.is_none_or(|uid| uid == defaults.uid)
            && self.gid.is_none_or(|gid| gid == defaults.gid)
            && self.mtime.is_none()
            && self.xattrs.is_empty()
    }
}

/// What `stat` and `getxattr` show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    pub kind: Kind,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    /// The later of the commits of content and record.
    pub ctime: Time,
    pub xattrs: BTreeMap<Bytes, Bytes>,
}

/// The attributes of a file that hold now, as they would be stored again.
#[must_use]
pub fn in_force_of_file(
    file: &KeyValue,
    record: Option<&Record>,
    defaults: &Defaults,
) -> Attributes {
    let Some(record) = record.filter(|record| record.is_of_file(file)) else {
        return Attributes::plain_file(defaults);
    };
    let mut attributes = record.attributes.clone();
    if record.content_revision < file.content_revision {
        attributes.mtime = None;
    }
    attributes
}

/// The attributes of a directory that hold now, as they would be stored again. `marker` is what is
/// stored at its prefix, whether it is a marker or the file `%`; without it no record holds.
#[must_use]
pub fn in_force_of_directory(
    directory: &DirectoryAnswer,
    marker: Option<&KeyValue>,
    record: Option<&Record>,
    defaults: &Defaults,
) -> Attributes {
    let holds = |record: &&Record| marker.is_some_and(|marker| record.is_of_directory(marker));
    let Some(record) = record.filter(holds) else {
        return Attributes::plain_directory(defaults);
    };
    let mut attributes = record.attributes.clone();
    if record.content_revision < directory.changed {
        attributes.mtime = None;
    }
    attributes
}

/// What a file shows.
#[must_use]
pub fn effective_file(file: &KeyValue, record: Option<&Record>, defaults: &Defaults) -> Effective {
    let changed = record.filter(|record| record.is_of_file(file)).map(|record| record.time);
    let attributes = in_force_of_file(file, record, defaults);
    Effective::new(attributes, defaults, file.content_time, changed.max(Some(file.time)))
}

/// What a directory shows.
#[must_use]
pub fn effective_directory(
    directory: &DirectoryAnswer,
    marker: Option<&KeyValue>,
    record: Option<&Record>,
    defaults: &Defaults,
) -> Effective {
    let holds = |record: &&Record| marker.is_some_and(|marker| record.is_of_directory(marker));
    let recorded = record.filter(holds).map(|record| record.time);
    // A directory that was moved keeps its time; its marker says when that was.
    let moved = marker.filter(|marker| is_marker(marker, record)).map(|marker| marker.time);
    let changed = recorded.max(moved);
    let attributes = in_force_of_directory(directory, marker, record, defaults);
    Effective::new(attributes, defaults, directory.time, changed.max(Some(directory.time)))
}

/// Whether what is stored at a directory's prefix only keeps the directory; otherwise it is the file
/// `%` in it.
#[must_use]
pub fn is_marker(at_prefix: &KeyValue, record: Option<&Record>) -> bool {
    at_prefix.value_bytes == 0 && !record.is_some_and(|record| record.is_of_file(at_prefix))
}

impl Effective {
    fn new(
        attributes: Attributes,
        defaults: &Defaults,
        content_time: Time,
        ctime: Option<Time>,
    ) -> Self {
        Self {
            kind: attributes.kind,
            mode: if attributes.kind == Kind::Symlink { 0o777 } else { attributes.mode },
            uid: attributes.uid.unwrap_or(defaults.uid),
            gid: attributes.gid.unwrap_or(defaults.gid),
            mtime: attributes.mtime.unwrap_or(content_time),
            ctime: ctime.unwrap_or(content_time),
            xattrs: attributes.xattrs,
        }
    }

    /// What a node of the past shows, given what its path shows now: the present owner, and only the
    /// permissions that it has then and now. If the path is gone, nobody but the old owner (and root)
    /// has any. So nothing readable once betrays what is private now. A link shows all permissions as
    /// ever: nobody asks for them, its directory's decide.
    #[must_use]
    pub fn as_past(mut self, present: Option<&Self>) -> Self {
        let allowed = present.map_or(0o700, |present| present.mode);
        if self.kind != Kind::Symlink {
            self.mode &= allowed;
        }
        if let Some(present) = present {
            self.uid = present.uid;
            self.gid = present.gid;
        }
        self
    }
}

#[cfg(test)]
mod tests;
