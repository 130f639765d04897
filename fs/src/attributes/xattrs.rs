//! Extended attributes: which names are stored, which are answered, which are refused.
//!
//! - `user.*` is stored in the side record, within bounds.
//! - `user.revfs.*` is ours: the names of [`VirtualXattr`] are answered from the key and never listed
//!   (`cp -a` and `rsync -X` would copy them); nothing of it is stored.
//! - `security.*` is never there. The kernel asks for `security.capability` before each write, so that
//!   answer needs no look at the file.
//! - Everything else is not supported.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use revfs_api::keyspace::{Author, KeyValue, LeaseId, Time};

use super::Attributes;

/// Linux's `XATTR_NAME_MAX`.
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// Linux's `XATTR_SIZE_MAX`.
pub const XATTR_VALUE_BYTES_MAX: usize = 64 * 1024;
/// All names (with a NUL each, as they are listed) and values of one file.
pub const XATTRS_BYTES_MAX: usize = 64 * 1024;

/// What an xattr's name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrName {
    Stored,
    Virtual(VirtualXattr),
    /// Below `user.revfs.`, but nothing.
    ReservedName,
    /// Of `security.`: none is ever there, none can be set.
    NeverThere,
    Unsupported,
}

/// What `user.revfs.NAME` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirtualXattr {
    /// The whole key, its bytes as they are.
    Key,
    /// Decimal.
    CreateRevision,
    /// Decimal.
    ModRevision,
    /// Decimal.
    Version,
    /// `PRINCIPAL`, `PRINCIPAL (claimed USER@HOST)`, or `USER@HOST (claimed)` without authentication.
    Author,
    /// Commit time of the newest version, RFC 3339 in UTC.
    Time,
    /// Hexadecimal, as etcdctl prints it; not there without a lease.
    Lease,
    /// Whole seconds until the file goes away; not there without a lease. It can be set and removed.
    Ttl,
}

/// How `setxattr` was asked to proceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrSet {
    CreateOrReplace,
    /// XATTR_CREATE
    Create,
    /// XATTR_REPLACE
    Replace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XattrError {
    #[error("xattr name of {bytes} bytes is longer than {XATTR_NAME_BYTES_MAX}")]
    NameTooLong { bytes: usize },
    #[error("xattr of {bytes} bytes is larger than {XATTR_VALUE_BYTES_MAX}")]
    ValueTooLarge { bytes: usize },
    #[error(
        "xattrs of {bytes} bytes in all are more than the {XATTRS_BYTES_MAX} that a file may have"
    )]
    NoSpace { bytes: usize },
    #[error("no such xattr")]
    NotThere,
    #[error("the xattr exists")]
    Exists,
    #[error("xattrs below user.revfs. cannot be set or removed, but for user.revfs.ttl of a file")]
    ReadOnly,
    #[error("xattrs of this namespace are not supported")]
    Unsupported,
}

impl XattrError {
    #[must_use]
    pub fn errno(self) -> i32 {
        match self {
            Self::NameTooLong { .. } => libc::ERANGE,
            Self::ValueTooLarge { .. } => libc::E2BIG,
            Self::NoSpace { .. } => libc::ENOSPC,
            Self::NotThere => libc::ENODATA,
            Self::Exists => libc::EEXIST,
            Self::ReadOnly => libc::EPERM,
            Self::Unsupported => libc::EOPNOTSUPP,
        }
    }
}

#[must_use]
pub fn classify_xattr(name: &[u8]) -> XattrName {
    if let Some(ours) = name.strip_prefix(b"user.revfs.") {
        return VirtualXattr::named(ours).map_or(XattrName::ReservedName, XattrName::Virtual);
    }
    if name.starts_with(b"user.") && name.len() > b"user.".len() {
        XattrName::Stored
    } else if name.starts_with(b"security.") {
        XattrName::NeverThere
    } else {
        XattrName::Unsupported
    }
}

impl XattrName {
    /// Why `getxattr` of such a name fails without a look at the file, if it does.
    ///
    /// # Errors
    /// [`XattrError::NotThere`] or [`XattrError::Unsupported`].
    pub fn check_readable(self) -> Result<(), XattrError> {
        match self {
            Self::Stored | Self::Virtual(_) => Ok(()),
            Self::ReservedName | Self::NeverThere => Err(XattrError::NotThere),
            Self::Unsupported => Err(XattrError::Unsupported),
        }
    }

    /// Why `setxattr` and `removexattr` of such a name fail without a look at the file, if they do.
    ///
    /// # Errors
    /// [`XattrError::ReadOnly`] or [`XattrError::Unsupported`].
    pub fn check_writable(self) -> Result<(), XattrError> {
        match self {
            Self::Stored => Ok(()),
            Self::Virtual(_) | Self::ReservedName => Err(XattrError::ReadOnly),
            Self::NeverThere | Self::Unsupported => Err(XattrError::Unsupported),
        }
    }
}

impl VirtualXattr {
    fn named(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"key" => Self::Key,
            b"create_revision" => Self::CreateRevision,
            b"mod_revision" => Self::ModRevision,
            b"version" => Self::Version,
            b"author" => Self::Author,
            b"time" => Self::Time,
            b"lease" => Self::Lease,
            b"ttl" => Self::Ttl,
            _ => return None,
        })
    }

    /// Whether [`Self::value`] needs the stamp of the newest version, which is a question of its own.
    #[must_use]
    pub fn needs_author(self) -> bool {
        self == Self::Author
    }

    /// The answer for a node with this key, whose stored version is `kv` (none: a directory without a
    /// marker) and of this author, where known.
    ///
    /// # Errors
    /// [`XattrError::NotThere`] where there is nothing to tell.
    pub fn value(
        self,
        key: &[u8],
        kv: Option<&KeyValue>,
        author: Option<&Author>,
    ) -> Result<Vec<u8>, XattrError> {
        if self == Self::Key {
            return Ok(key.to_vec());
        }
        let kv = kv.ok_or(XattrError::NotThere)?;
        let text = match self {
            Self::Key => return Ok(key.to_vec()),
            Self::CreateRevision => kv.create_revision.to_string(),
            Self::ModRevision => kv.mod_revision.to_string(),
            Self::Version => kv.version.to_string(),
            Self::Author => author.and_then(author_text).ok_or(XattrError::NotThere)?,
            Self::Time => time_text(kv.time),
            Self::Lease if kv.lease == LeaseId::default() => return Err(XattrError::NotThere),
            Self::Lease => format!("{:x}", kv.lease.0),
            // Nothing that is stored tells it.
            Self::Ttl => return Err(XattrError::NotThere),
        };
        Ok(text.into_bytes())
    }
}

fn author_text(author: &Author) -> Option<String> {
    match (author.principal.as_str(), author.claimed.as_str()) {
        ("", "") => None,
        ("", claimed) => Some(format!("{claimed} (claimed)")),
        (principal, "") => Some(principal.to_owned()),
        (principal, claimed) => Some(format!("{principal} (claimed {claimed})")),
    }
}

fn time_text(Time(nanoseconds): Time) -> String {
    Timestamp::from_nanosecond(nanoseconds.into())
        .expect("the years 1677 to 2262 of an i64 are in range")
        .to_string()
}

/// What counts towards [`XATTRS_BYTES_MAX`].
pub(super) fn xattrs_bytes(xattrs: &BTreeMap<Bytes, Bytes>) -> usize {
    xattrs.iter().map(|(name, value)| name.len() + 1 + value.len()).sum()
}

impl Attributes {
    /// Sets a stored xattr; on an error nothing is changed.
    ///
    /// # Errors
    /// Each of [`XattrError`] but [`XattrError::Unsupported`] for names that are stored.
    pub fn set_xattr(
        &mut self,
        name: &[u8],
        value: &[u8],
        how: XattrSet,
    ) -> Result<(), XattrError> {
        classify_xattr(name).check_writable()?;
        if name.len() > XATTR_NAME_BYTES_MAX {
            return Err(XattrError::NameTooLong { bytes: name.len() });
        }
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(XattrError::ValueTooLarge { bytes: value.len() });
        }
        let old = self.xattrs.get(name);
        match (how, old) {
            (XattrSet::Create, Some(_)) => return Err(XattrError::Exists),
            (XattrSet::Replace, None) => return Err(XattrError::NotThere),
            (XattrSet::CreateOrReplace, _)
            | (XattrSet::Create, None)
            | (XattrSet::Replace, Some(_)) => {}
        }
        let given_up = old.map_or(0, |old| name.len() + 1 + old.len());
        let bytes = xattrs_bytes(&self.xattrs) - given_up + name.len() + 1 + value.len();
        if bytes > XATTRS_BYTES_MAX {
            return Err(XattrError::NoSpace { bytes });
        }
        self.xattrs.insert(Bytes::copy_from_slice(name), Bytes::copy_from_slice(value));
        Ok(())
    }

    /// # Errors
    /// [`XattrError::NotThere`]; what [`XattrName::check_writable`] says.
    pub fn remove_xattr(&mut self, name: &[u8]) -> Result<(), XattrError> {
        classify_xattr(name).check_writable()?;
        self.xattrs.remove(name).map(drop).ok_or(XattrError::NotThere)
    }

    /// # Errors
    /// [`XattrError::NotThere`]; what [`XattrName::check_readable`] says.
    pub fn xattr(&self, name: &[u8]) -> Result<&Bytes, XattrError> {
        classify_xattr(name).check_readable()?;
        self.xattrs.get(name).ok_or(XattrError::NotThere)
    }
}
