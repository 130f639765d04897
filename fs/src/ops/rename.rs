//! RENAME: one transaction, of files and of whole directories.
//!
//! - A file with staged content becomes content, attributes and new name in one revision.
//! - Another file is moved with its record; mtime and birth stay with it.
//! - A directory is moved as a range, its records as another; what is staged below it goes along.
//! - Two names are exchanged with all that they stand for ([`exchange`]).
//!
//! Each attempt looks at both ends, guards what it saw, and is repeated if that did not hold.

mod directory;
pub(crate) mod exchange;
mod file;

use std::ffi::OsStr;

use bytes::Bytes;
use fuser::Errno;

use crate::errno::name_errno;
use crate::filesystem::{Answer, Caller, Filesystem};
use crate::node::Tree;
use crate::ops::create::new_component;
use crate::ops::remove::Existing;
use crate::path::{CREATED_KEY_BYTES_MAX, DirectoryKey, check_key};
use crate::resolve::{Standing, Subject};
use crate::staged::Creation;

/// Attempts while others keep changing one of the ends.
const ATTEMPTS_MAX: usize = 10;

/// What one end of a file rename is.
#[derive(Clone, Debug)]
struct NewName {
    directory: DirectoryKey,
    component: Bytes,
    key: Bytes,
    /// RENAME_NOREPLACE
    must_be_free: bool,
    /// What holds around the new name.
    around: Creation,
}

impl Filesystem {
    /// Renames what `name` leads to.
    ///
    /// # Errors
    /// ENOENT, EEXIST (RENAME_NOREPLACE), EISDIR, ENOTDIR, ENOTEMPTY; EINVAL into itself; EXDEV between
    /// the live tree and the past; EROFS in the past; EPERM for names that are the file system's own;
    /// E2BIG for a directory of more keys than a transaction holds.
    pub async fn rename(
        &self,
        caller: Caller,
        (parent, name): (u64, &OsStr),
        (new_parent, new_name): (u64, &OsStr),
        flags: u32,
    ) -> Answer<()> {
        let is_exchange = flags & libc::RENAME_EXCHANGE != 0;
        let must_be_free = flags & libc::RENAME_NOREPLACE != 0;
        let is_known = flags & !(libc::RENAME_EXCHANGE | libc::RENAME_NOREPLACE) == 0;
        if !is_known || (is_exchange && must_be_free) {
            return Err(Errno::EINVAL);
        }
        if !self.nodes.numbering().has(new_parent) {
            // Of another tree: the mount's, or that of a transaction.
            return Err(Errno::EXDEV);
        }
        let (from, to) = self.both_live(parent, new_parent)?;
        self.check_writable()?;
        for _ in 0..ATTEMPTS_MAX {
            let source = self.existing(&from, name).await?.ok_or(Errno::ENOENT)?;
            let target = self.existing(&to, new_name).await?;
            let is_here = |end: &Existing| matches!(end, Existing::Unborn { key } if self.options.local.has_key(key));
            if is_exchange && (is_here(&source) || target.as_ref().is_some_and(is_here)) {
                return Err(Errno::EPERM);
            }
            if is_exchange {
                let target = target.ok_or(Errno::ENOENT)?;
                if self.exchange(caller, (source, &from), (target, &to)).await? {
                    return Ok(());
                }
                continue;
            }
            if must_be_free && target.is_some() {
                return Err(Errno::EEXIST);
            }
            let new = self.new_name(&to, new_name, must_be_free).await?;
            // Held until the rename is in the store, so that nobody is promised the name meanwhile.
            let here = if must_be_free { self.take_here(&new.key)? } else { None };
            if must_be_free {
                self.check_not_reserved(&new.key).await?;
            }
            let is_done = match (source, target) {
                (Existing::Directory(_), Some(Existing::File(_) | Existing::Unborn { .. })) => {
                    return Err(Errno::ENOTDIR);
                }
                (Existing::File(_) | Existing::Unborn { .. }, Some(Existing::Directory(_))) => {
                    return Err(Errno::EISDIR);
                }
                (Existing::Directory(source), None) => {
                    self.rename_directory(caller, &source, &new, None).await?
                }
                (Existing::Directory(source), Some(Existing::Directory(target))) => {
                    self.rename_directory(caller, &source, &new, Some(&target)).await?
                }
                (Existing::Unborn { key }, None | Some(Existing::Unborn { .. }))
                    if self.options.local.has_key(&key)
                        && self.options.local.has(&new.component) =>
                {
                    self.rename_here(&key, &new.key).await?
                }
                (Existing::Unborn { key }, _) => self.rename_file(caller, &key, None, &new).await?,
                (Existing::File(file), _) => {
                    let key = file.kv.key.clone();
                    self.rename_file(caller, &key, Some(&file), &new).await?
                }
            };
            drop(here);
            if is_done {
                return Ok(());
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Both directories, if they are live ones.
    fn both_live(&self, parent: u64, new_parent: u64) -> Answer<(DirectoryKey, DirectoryKey)> {
        match (self.live_directory(parent), self.live_directory(new_parent)) {
            (Ok(from), Ok(to)) => Ok((from, to)),
            (Ok(_), Err(Errno::EROFS)) | (Err(Errno::EROFS), Ok(_)) => Err(Errno::EXDEV),
            (Err(errno), _) | (_, Err(errno)) => Err(errno),
        }
    }

    async fn new_name(
        &self,
        directory: &DirectoryKey,
        name: &OsStr,
        must_be_free: bool,
    ) -> Answer<NewName> {
        let component = new_component(name)?;
        let key = directory.child_key(&component);
        check_key(&key, CREATED_KEY_BYTES_MAX).map_err(|error| name_errno(&error))?;
        let seen = self.stands(Tree::Live, &Subject::Directory(directory.clone())).await?;
        let Some(Standing::Directory(own)) = seen.standing else { return Err(Errno::ENOENT) };
        if !self.is_there(&own) {
            return Err(Errno::ENOENT);
        }
        let around = Creation {
            parent_marker: own.marker.is_some(),
            // It is a directory, whatever its own key holds.
            parent_value: true,
            ..Creation::default()
        };
        Ok(NewName { directory: directory.clone(), component, key, must_be_free, around })
    }
}
