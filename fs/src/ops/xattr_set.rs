//! Setting and removing extended attributes: part of the side record, staged like the others.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use fuser::Errno;

use crate::attributes::{
    Attributes, VirtualXattr, XattrError, XattrName, XattrSet, classify_xattr,
};
use crate::filesystem::{Answer, Caller, Filesystem};
use crate::node::{Place, Tree};

impl Filesystem {
    /// Sets an attribute of the `user.` namespace.
    ///
    /// # Errors
    /// EPERM below `user.revfs.` but for `user.revfs.ttl` ([`Self::set_ttl`]), EOPNOTSUPP in other namespaces; EEXIST and ENODATA as XATTR_CREATE
    /// and XATTR_REPLACE ask; ENOSPC over the bound of a file.
    pub async fn setxattr(
        &self,
        caller: Caller,
        ino: u64,
        name: &OsStr,
        value: &[u8],
        flags: i32,
    ) -> Answer<()> {
        let set = match flags {
            0 => XattrSet::CreateOrReplace,
            libc::XATTR_CREATE => XattrSet::Create,
            libc::XATTR_REPLACE => XattrSet::Replace,
            _ => return Err(Errno::EINVAL),
        };
        if classify_xattr(name.as_bytes()) == XattrName::Virtual(VirtualXattr::Ttl) {
            return self.set_ttl(caller, ino, value, set).await;
        }
        let value = Bytes::copy_from_slice(value);
        self.change_xattrs(caller, ino, name, |own| {
            own.set_xattr(name.as_bytes(), &value, set).map_err(xattr_errno)
        })
        .await
    }

    /// # Errors
    /// ENODATA if there is none; else as [`Self::setxattr`].
    pub async fn removexattr(&self, caller: Caller, ino: u64, name: &OsStr) -> Answer<()> {
        if classify_xattr(name.as_bytes()) == XattrName::Virtual(VirtualXattr::Ttl) {
            return self.remove_ttl(caller, ino).await;
        }
        self.change_xattrs(caller, ino, name, |own| {
            own.remove_xattr(name.as_bytes()).map_err(xattr_errno)
        })
        .await
    }

    async fn change_xattrs(
        &self,
        caller: Caller,
        ino: u64,
        name: &OsStr,
        change: impl Fn(&mut Attributes) -> Answer<()>,
    ) -> Answer<()> {
        classify_xattr(name.as_bytes()).check_writable().map_err(xattr_errno)?;
        let node = self.nodes.get(ino).ok_or(Errno::ESTALE)?;
        if self.options.read_only {
            return Err(Errno::EROFS);
        }
        match node.place() {
            Place::Directory { tree: Tree::Live, directory } => {
                self.change_directory_attributes(caller, &directory, change).await
            }
            Place::File { .. } | Place::Detached { .. } => {
                let changed = self.change_file_attributes(caller, &node, |own, _| change(own));
                match changed.await? {
                    Some(generation) => self.commit_stranded(&node, caller, generation).await,
                    None => Ok(()),
                }
            }
            Place::Directory { .. } | Place::PastFile { .. } | Place::Hidden(_) => {
                Err(Errno::EROFS)
            }
        }
    }
}

fn xattr_errno(error: XattrError) -> Errno {
    Errno::from_i32(error.errno())
}
