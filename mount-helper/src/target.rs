//! What an argument stands for: a path inside a mount, or a key.
//!
//! The rule: an argument that lies inside a mounted revfs directory (relative ones are taken from the
//! current directory, symlinks on the way are followed) is that file, and the mount's node is asked.
//! Any other argument is a key, byte for byte. `--key` makes every argument a key.
//!
//! A [`Target`] is both a file (its key) and a directory (the keys below); the command looks which of
//! the two exists, now or then.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use revfs_api::keyspace::{KeyRange, Revision};
use revfs_fs::path::{self, DirectoryKey, Hidden, Name};

use crate::error::{Failure, Result};
use crate::mounts::{self, Mount};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// As the user wrote it.
    pub(crate) shown: OsString,
    pub(crate) key: Bytes,
    /// From `@rev/N` in the path.
    pub(crate) revision: Option<Revision>,
    /// The argument was a path inside a mount.
    pub(crate) is_path: bool,
}

/// Where an argument lies, before a node is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Inside { mount: Mount, below: PathBuf },
    Key,
}

/// What a mount shows at its root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) root: DirectoryKey,
    pub(crate) revision: Option<Revision>,
}

impl Target {
    /// # Errors
    /// Usage errors for names in a mount that stand for no key (`@status`, a shortened name, …).
    pub(crate) fn inside(argument: &OsStr, below: &Path, mount: &Shown) -> Result<Self> {
        let is_directory = argument.as_bytes().ends_with(b"/");
        let (key, revision) =
            inside(mount, below, is_directory).map_err(|reason| not_a_key(argument, &reason))?;
        Ok(Self { shown: argument.to_owned(), key, revision, is_path: true })
    }

    pub(crate) fn key(argument: &OsStr) -> Self {
        let key = Bytes::copy_from_slice(argument.as_bytes());
        Self { shown: argument.to_owned(), key, revision: None, is_path: false }
    }

    pub(crate) fn shown(&self) -> String {
        crate::output::readable(self.shown.as_bytes())
    }

    /// The key as a file; `None` if it can only be a directory.
    pub(crate) fn file(&self) -> Option<&Bytes> {
        let is_directory = self.key.is_empty() || self.key.ends_with(b"/");
        (!is_directory).then_some(&self.key)
    }

    /// The target as a directory.
    pub(crate) fn directory(&self) -> DirectoryKey {
        let mut prefix = self.key.to_vec();
        if self.file().is_some() {
            prefix.push(b'/');
        }
        DirectoryKey::new(prefix).expect("it is empty or ends in a slash")
    }

    /// The keys that `--prefix` means: everything below a path, or everything that begins with a key.
    pub(crate) fn prefix(&self) -> Bytes {
        if self.is_path { self.directory().as_bytes().clone() } else { self.key.clone() }
    }

    /// The target with all that lies below it.
    pub(crate) fn ranges(&self) -> Vec<KeyRange> {
        let file = self.file().map(|key| KeyRange::Key(key.clone()));
        file.into_iter().chain([self.directory().range()]).collect()
    }

    /// The side records (modes, owners, links) of [`Self::ranges`]. The empty key has them among its
    /// own keys.
    pub(crate) fn record_ranges(&self) -> Vec<KeyRange> {
        if self.key.is_empty() {
            return Vec::new();
        }
        let file = self.file().map(|key| KeyRange::Key(crate::names::record_key(key)));
        let below = KeyRange::prefix(&crate::names::record_key(self.directory().as_bytes()));
        file.into_iter().chain([below]).collect()
    }
}

fn not_a_key(argument: &OsStr, reason: &str) -> Failure {
    let shown = crate::output::readable(argument.as_bytes());
    Failure::usage(format!("'{shown}' stands for no key: {reason}"))
        .hint("name a file or directory of the mount, or a key with --key")
}

/// Key and revision of a path below the root of a mount.
fn inside(
    mount: &Shown,
    below: &Path,
    is_directory: bool,
) -> std::result::Result<(Bytes, Option<Revision>), String> {
    let root = &mount.root;
    let mut directory = root.clone();
    let mut revision = mount.revision;
    let mut names = below.components().map(Component::as_os_str).peekable();
    while let Some(name) = names.next() {
        match path::decode_name(name).map_err(|error| error.to_string())? {
            Name::Component(component) if names.peek().is_none() && !is_directory => {
                return Ok((directory.child_key(&component), revision));
            }
            Name::Component(component) => directory = directory.child_directory(&component),
            Name::Value if names.peek().is_none() => {
                let key = directory.value_key().ok_or("the root has no value")?;
                return Ok((key, revision));
            }
            Name::Hidden(Hidden::Rev) if revision.is_none() => {
                let number = names.next().and_then(OsStr::to_str);
                let number = number.and_then(|number| number.parse().ok());
                revision = Some(Revision(number.ok_or("a number belongs after @rev/")?));
            }
            Name::Hidden(Hidden::Keys) if directory == *root => {
                let name = names.next().ok_or("a name belongs after @keys/")?;
                let key = crate::names::flat_key(name)?;
                return if names.peek().is_none() {
                    Ok((key, revision))
                } else {
                    Err("@keys has one level".to_owned())
                };
            }
            Name::Digest(_) => {
                return Err("the name is shortened; `revfs ls` shows the whole key".to_owned());
            }
            Name::Value | Name::Hidden(_) | Name::Reserved => {
                return Err(format!("{} is a name of the mount's own", name.display()));
            }
        }
    }
    // The directory itself. Without a slash at the end it may turn out to be a file as well.
    let key = directory.as_bytes().clone();
    let is_below_root = directory != *root && !is_directory;
    Ok((if is_below_root { key.slice(..key.len() - 1) } else { key }, revision))
}

/// Where `argument` lies, given the mounts of revfs.
pub(crate) fn place(argument: &OsStr, mounts: &[Mount]) -> Place {
    let inside = |path: &Path| {
        let mount = mounts::containing(mounts, path)?;
        let below = path.strip_prefix(&mount.point).expect("it lies inside").to_owned();
        Some(Place::Inside { mount: mount.clone(), below })
    };
    if mounts.is_empty() || argument.is_empty() {
        return Place::Key;
    }
    let Ok(path) = std::path::absolute(Path::new(argument)) else { return Place::Key };
    let path = physical_parent(&path);
    if let Some(place) = inside(&path) {
        return place;
    }
    // A symlink that leads into a mount; the mount point itself through a symlink.
    path.canonicalize().ok().and_then(|path| inside(&path)).unwrap_or(Place::Key)
}

/// The path with the symlinks of its parent directories resolved as far as they exist (a deleted
/// directory has a history too), the last component as it is.
pub(crate) fn physical_parent(path: &Path) -> PathBuf {
    let path = without_dots(path);
    let mut missing: Vec<&OsStr> = Vec::new();
    let mut known = path.as_path();
    while let (Some(parent), Some(name)) = (known.parent(), known.file_name()) {
        missing.push(name);
        if let Ok(mut physical) = parent.canonicalize() {
            physical.extend(missing.iter().rev());
            return physical;
        }
        known = parent;
    }
    path
}

/// `a/./b` and `a/c/../b` are `a/b`.
fn without_dots(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(point: &Path) -> Mount {
        let fs_type = mounts::FS_TYPE.to_owned();
        Mount { point: point.to_owned(), fs_type, owner: Some(0) }
    }

    fn key_inside(below: &str) -> std::result::Result<(String, Option<u64>), String> {
        let is_directory = below.ends_with('/');
        let (key, revision) = inside(&Shown::default(), Path::new(below), is_directory)?;
        Ok((String::from_utf8(key.to_vec()).unwrap(), revision.map(|revision| revision.0)))
    }

    #[test]
    fn a_path_in_a_mount_is_its_key() {
        let plain = |key: &str| Ok((key.to_owned(), None));
        assert_eq!(key_inside(""), plain("/"));
        assert_eq!(key_inside("app/color"), plain("/app/color"));
        assert_eq!(key_inside("app/"), plain("/app/"));
        assert_eq!(key_inside("@scope/pkg"), plain("/@scope/pkg"));
        assert_eq!(key_inside("%2E"), plain("/."));
        assert_eq!(key_inside("app/@value"), plain("/app"));
        assert_eq!(key_inside("@keys/%00x"), plain("\0x"));
    }

    #[test]
    fn a_path_in_the_past_names_its_revision() {
        assert_eq!(key_inside("app/@rev/41/color"), Ok(("/app/color".to_owned(), Some(41))));
        assert_eq!(key_inside("app/@rev/41"), Ok(("/app".to_owned(), Some(41))));
        assert_eq!(key_inside("@rev/41"), Ok(("/".to_owned(), Some(41))));
    }

    #[test]
    fn a_mount_of_a_part_or_of_the_past_adds_what_it_is_of() {
        let root = DirectoryKey::new(&b"/registry/pods/"[..]).unwrap();
        let mount = Shown { root, revision: Some(Revision(7)) };
        let found = inside(&mount, Path::new("default/x"), false).unwrap();
        assert_eq!(found, (Bytes::from("/registry/pods/default/x"), Some(Revision(7))));
        let found = inside(&mount, Path::new(""), false).unwrap();
        assert_eq!(found, (Bytes::from("/registry/pods/"), Some(Revision(7))));
    }

    #[test]
    fn hidden_names_are_no_keys() {
        for name in ["@status", "app/@rev", "app/@rev/x", "a/@history/b", "@@new", "app/@keys/a"] {
            assert!(key_inside(name).is_err(), "{name}");
        }
    }

    #[test]
    fn arguments_inside_a_mount_are_found_by_path_and_others_are_keys() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().canonicalize().unwrap();
        let point = top.join("point");
        std::fs::create_dir_all(point.join("real")).unwrap();
        std::os::unix::fs::symlink(&point, top.join("link")).unwrap();
        std::os::unix::fs::symlink("real", point.join("alias")).unwrap();
        let mounts = [mount(&point)];
        let below = |argument: &Path| match place(argument.as_os_str(), &mounts) {
            Place::Inside { below, .. } => Some(below.display().to_string()),
            Place::Key => None,
        };
        assert_eq!(below(&point).as_deref(), Some(""));
        assert_eq!(below(&top.join("link")).as_deref(), Some(""));
        assert_eq!(below(&top.join("link/gone/x")).as_deref(), Some("gone/x"));
        assert_eq!(below(&point.join("alias/x")).as_deref(), Some("real/x"));
        assert_eq!(below(&point.join("alias")).as_deref(), Some("alias"));
        assert_eq!(below(&point.join("a/../b/./c")).as_deref(), Some("b/c"));
        assert_eq!(below(&top.join("points/x")), None);
        assert_eq!(below(Path::new("/app/color")), None);
        assert_eq!(place(OsStr::new(""), &mounts), Place::Key);
    }

    #[test]
    fn a_target_is_a_file_and_a_directory() {
        let target = |key: &str| Target::key(OsStr::new(key));
        let app = target("/app");
        assert_eq!(app.file().unwrap().as_ref(), b"/app");
        assert_eq!(app.directory().as_bytes().as_ref(), b"/app/");
        assert_eq!(app.prefix().as_ref(), b"/app");
        assert_eq!(app.ranges().len(), 2);
        assert!(target("/app/").file().is_none());
        assert_eq!(target("").directory().as_bytes().as_ref(), b"");
        assert!(target("").record_ranges().is_empty());
        let path = Target { is_path: true, ..app };
        assert_eq!(path.prefix().as_ref(), b"/app/");
    }
}
