//! Keys and paths: a bijection, for every byte string.
//!
//! The model:
//! - A *directory* is a prefix of keys that is empty or ends in `/` ([`DirectoryKey`]). A mount has a
//!   root directory, by default `/`; the keys that begin with it have paths, the others only an entry
//!   in `@keys/` ([`keys_name`]).
//! - The rest of a key after the root, cut at each `/`, is its list of *components*: never an empty
//!   list, though components may be empty. The key `/a/` is the components `a` and ``.
//! - Each component has one file name ([`encode_component`]), and each file name stands for one
//!   component, or is hidden, or must be looked for ([`decode_name`]).
//! - Two names depend on what else is stored. A key with keys below it is a directory, and its value is
//!   `@value` in it. A key that ends in `/` with an empty value is the *marker* of that directory and
//!   has no name of its own.

mod component;
mod keys_name;

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes, BytesMut};
use revfs_api::keyspace::{KEY_BYTES_MAX, KeyRange, escaped_bytes};

pub use component::{
    DIGEST_DIGITS, DigestName, Hidden, NAME_BYTES_MAX, Name, decode_name, encode_component,
};
pub use keys_name::{KeysName, keys_name, parse_keys_name};

/// The longest escaped key that the file system creates: short of [`KEY_BYTES_MAX`], so that a file's
/// side record, its reservation and the marker of a directory of that name fit as well.
pub const CREATED_KEY_BYTES_MAX: usize = KEY_BYTES_MAX - 20;

/// Why a file name or a path stands for no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("name of {bytes} bytes is longer than {NAME_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("key of {bytes} bytes (encoded) is longer than {max}")]
    KeyTooLong { bytes: usize, max: usize },
    #[error("`{name}` cannot be the name of a directory entry")]
    Illegal { name: String },
    #[error("`{name}` is not how a key is spelled in @keys (letters, digits, -._~ and %XX)")]
    NotAKeysName { name: String },
    #[error("`{name}` is hidden: no key has this name")]
    Hidden { name: String },
    #[error("`{name}` is a shortened name: list its directory to find the key")]
    Shortened { name: String },
    #[error("`{prefix}` does not end in a slash")]
    NotADirectory { prefix: String },
}

/// The prefix that the keys below a directory have in common: empty, or ending in `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectoryKey(Bytes);

impl Default for DirectoryKey {
    /// `/`, the root of a mount that asks for no other.
    fn default() -> Self {
        Self(Bytes::from_static(b"/"))
    }
}

impl DirectoryKey {
    /// # Errors
    /// [`NameError::NotADirectory`] unless `prefix` is empty or ends in `/`.
    pub fn new(prefix: impl Into<Bytes>) -> Result<Self, NameError> {
        let prefix = prefix.into();
        if prefix.is_empty() || prefix.ends_with(b"/") {
            Ok(Self(prefix))
        } else {
            Err(NameError::NotADirectory { prefix: prefix.escape_ascii().to_string() })
        }
    }

    /// The directory in which `key` lies, and its component there: `/a/b` is `b` in `/a/`, and `/a/` is
    /// the empty component in `/a/`.
    #[must_use]
    pub fn of_key(key: &Bytes) -> (Self, Bytes) {
        let prefix_bytes = key.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        (Self(key.slice(..prefix_bytes)), key.slice(prefix_bytes..))
    }

    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The key of a component in this directory.
    #[must_use]
    pub fn child_key(&self, component: &[u8]) -> Bytes {
        debug_assert!(!component.contains(&b'/'), "a component holds no slash");
        let mut key = BytesMut::with_capacity(self.0.len() + component.len());
        key.put_slice(&self.0);
        key.put_slice(component);
        key.freeze()
    }

    #[must_use]
    pub fn child_directory(&self, component: &[u8]) -> Self {
        debug_assert!(!component.contains(&b'/'), "a component holds no slash");
        let mut key = BytesMut::with_capacity(self.0.len() + component.len() + 1);
        key.put_slice(&self.0);
        key.put_slice(component);
        key.put_u8(b'/');
        Self(key.freeze())
    }

    /// The directory above and the component of this one in it; `None` for the empty prefix. (Where
    /// its own root is, the mount knows.)
    #[must_use]
    pub fn split(&self) -> Option<(Self, Bytes)> {
        self.without_slash().map(|key| Self::of_key(&key))
    }

    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.split().map(|(parent, _)| parent)
    }

    #[must_use]
    pub fn name_in_parent(&self) -> Option<Bytes> {
        self.split().map(|(_, component)| component)
    }

    /// The key that keeps the directory when it is empty: the prefix itself. `None` for the empty
    /// prefix, which is no key.
    #[must_use]
    pub fn marker(&self) -> Option<Bytes> {
        (!self.0.is_empty()).then(|| self.0.clone())
    }

    /// The key behind `@value`: the prefix without its slash. `None` where that is no key.
    #[must_use]
    pub fn value_key(&self) -> Option<Bytes> {
        self.without_slash().filter(|key| !key.is_empty())
    }

    fn without_slash(&self) -> Option<Bytes> {
        (!self.0.is_empty()).then(|| self.0.slice(..self.0.len() - 1))
    }

    /// All keys of the directory, its marker included.
    #[must_use]
    pub fn range(&self) -> KeyRange {
        KeyRange::prefix(&self.0)
    }

    /// All keys of the directory but its marker.
    #[must_use]
    pub fn range_below_marker(&self) -> KeyRange {
        let after_marker = Bytes::from([self.0.as_ref(), b"\0"].concat());
        match self.range() {
            KeyRange::Span { end, .. } => KeyRange::Span { start: after_marker, end },
            // Of the empty prefix; there is no empty key.
            KeyRange::From(start) | KeyRange::Key(start) => KeyRange::From(start),
        }
    }

    /// Whether `key` lies in the directory, at any depth (or is its marker).
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key.starts_with(&self.0)
    }

    /// The key below `to` that corresponds to `key` below this directory; `None` if it lies elsewhere.
    #[must_use]
    pub fn rebase(&self, key: &[u8], to: &Self) -> Option<Bytes> {
        let rest = key.strip_prefix(self.0.as_ref())?;
        Some([to.0.as_ref(), rest].concat().into())
    }

    /// [`Self::rebase`] of a directory.
    #[must_use]
    pub fn rebase_directory(&self, directory: &Self, to: &Self) -> Option<Self> {
        // The rest of a directory ends in a slash, as `to` does, or is empty.
        self.rebase(&directory.0, to).map(Self)
    }

    /// The path of `key` below this directory, by the ordinary names. `None` if it lies elsewhere.
    /// Shortened names (`%~`) are part of it where needed.
    #[must_use]
    pub fn path_of(&self, key: &[u8]) -> Option<PathBuf> {
        let rest = key.strip_prefix(self.0.as_ref())?;
        let mut path = Vec::with_capacity(rest.len());
        for (index, component) in rest.split(|&byte| byte == b'/').enumerate() {
            if index > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(&encode_component(component));
        }
        Some(PathBuf::from(std::ffi::OsString::from_vec(path)))
    }

    /// The key of a path below this directory; the reverse of [`Self::path_of`], and `…/@value` is the
    /// key of the directory's value.
    ///
    /// # Errors
    /// [`NameError::Hidden`] and [`NameError::Shortened`] for names that no key has or that one must
    /// look for; [`NameError::Illegal`] also for an empty name (`a//b`, `a/`).
    pub fn key_of(&self, path: &Path) -> Result<Bytes, NameError> {
        let mut directory = self.clone();
        let mut names = path.as_os_str().as_bytes().split(|&byte| byte == b'/').peekable();
        while let Some(name) = names.next() {
            let is_last = names.peek().is_none();
            let printed = || name.escape_ascii().to_string();
            match decode_name(OsStr::from_bytes(name))? {
                Name::Component(component) if is_last => {
                    let key = directory.child_key(&component);
                    check_key(&key, KEY_BYTES_MAX)?;
                    return Ok(key);
                }
                Name::Component(component) => directory = directory.child_directory(&component),
                Name::Value if is_last && directory != *self => {
                    return directory.value_key().ok_or(NameError::Hidden { name: printed() });
                }
                Name::Digest(_) => return Err(NameError::Shortened { name: printed() }),
                Name::Value | Name::Hidden(_) | Name::Reserved => {
                    return Err(NameError::Hidden { name: printed() });
                }
            }
        }
        Err(NameError::Illegal { name: String::new() })
    }
}

/// A name in a listing of one level, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed<'a> {
    /// The key that equals the directory: its marker, or the file `%`.
    Marker,
    /// The key of this component.
    Key(&'a [u8]),
    /// Keys lie below this component.
    Directory(&'a [u8]),
}

impl<'a> Listed<'a> {
    /// Takes the name of a `ListEntry` apart.
    #[must_use]
    pub fn new(name: &'a [u8]) -> Self {
        match name.strip_suffix(b"/") {
            Some(component) => Self::Directory(component),
            None if name.is_empty() => Self::Marker,
            None => Self::Key(name),
        }
    }

    #[must_use]
    pub fn component(self) -> &'a [u8] {
        match self {
            Self::Marker => b"",
            Self::Key(component) | Self::Directory(component) => component,
        }
    }
}

/// Below this lie the reservations of names (`reservation`), in the order of the keys reserved.
const RESERVATION_PREFIX: &[u8] = b"\0revfs/r";

/// The reservation of a key that is being created.
#[must_use]
pub fn reservation_key(key: &[u8]) -> Bytes {
    [RESERVATION_PREFIX, key].concat().into()
}

/// Whether a key only reserves another, or says that keys are reserved.
pub(crate) fn is_reservation_key(key: &[u8]) -> bool {
    key.starts_with(RESERVATION_PREFIX)
}

/// Exists once a mount has reserved in the store. No key of the file system is empty, so it is no
/// reservation.
#[must_use]
pub fn in_store_key() -> Bytes {
    Bytes::from_static(RESERVATION_PREFIX)
}

/// Below this lie the locks of files ([`crate::locks`]), in the order of their keys.
pub const LOCK_PREFIX: &[u8] = b"\0revfs/l";

/// Digits by which the key of a lock ends: the session of the mount that holds it.
const SESSION_DIGITS: usize = 16;

/// All locks of a file: one key for each mount that has some.
#[must_use]
pub fn locks_of(key: &[u8]) -> Bytes {
    [LOCK_PREFIX, key, b"\0"].concat().into()
}

/// The locks that one mount holds of a file.
#[must_use]
pub fn lock_key(key: &[u8], session: u64) -> Bytes {
    [&locks_of(key)[..], format!("{session:0SESSION_DIGITS$x}").as_bytes()].concat().into()
}

/// File and session of a key that [`lock_key`] made; `None` for every other.
#[must_use]
pub fn parse_lock_key(lock: &Bytes) -> Option<(Bytes, u64)> {
    let end = lock.len().checked_sub(SESSION_DIGITS + 1).filter(|&end| end >= LOCK_PREFIX.len())?;
    let (nul, digits) = lock[end..].split_first()?;
    let digits = std::str::from_utf8(digits).ok()?;
    let is_one = *nul == 0 && lock.starts_with(LOCK_PREFIX);
    let session = u64::from_str_radix(digits, 16).ok()?;
    is_one.then(|| (lock.slice(LOCK_PREFIX.len()..end), session))
}

/// There as long as the session of a mount on `root` is: it goes with the lease of its locks.
#[must_use]
pub fn session_key(root: &DirectoryKey, session: u64) -> Bytes {
    let name = format!("\0m{session:0SESSION_DIGITS$x}");
    [LOCK_PREFIX, root.as_bytes(), name.as_bytes()].concat().into()
}

/// Refuses a key whose escaped length is over `max` ([`CREATED_KEY_BYTES_MAX`] for what the file
/// system is about to create).
///
/// # Errors
/// [`NameError::KeyTooLong`].
pub fn check_key(key: &[u8], max: usize) -> Result<(), NameError> {
    let bytes = escaped_bytes(key);
    if bytes > max {
        return Err(NameError::KeyTooLong { bytes, max });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
