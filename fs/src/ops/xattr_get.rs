//! GETXATTR and LISTXATTR.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use fuser::Errno;
use revfs_api::keyspace::KeyValue;

use crate::attributes::{VirtualXattr, XattrError, XattrName, classify_xattr};
use crate::filesystem::{Answer, Filesystem};
use crate::node::{Hidden, Node, Place, Tree};
use crate::resolve::{Standing, Subject};

/// The kernel's errno for an xattr that cannot be had.
fn errno_of(error: XattrError) -> Errno {
    Errno::from_i32(error.errno())
}

/// What xattrs are read from.
#[derive(Default)]
struct Source {
    key: Bytes,
    kv: Option<KeyValue>,
    xattrs: std::collections::BTreeMap<Bytes, Bytes>,
}

impl Filesystem {
    /// # Errors
    /// ENODATA, EOPNOTSUPP, or why the node cannot be read.
    pub async fn getxattr(&self, ino: u64, name: &OsStr) -> Answer<Bytes> {
        let name = name.as_bytes();
        let class = classify_xattr(name);
        // Before anything is looked up: the kernel asks for security.capability again and again.
        class.check_readable().map_err(errno_of)?;
        let node = self.nodes.get(ino).ok_or(Errno::ESTALE)?;
        let source = self.xattr_source(&node).await?;
        match class {
            XattrName::Virtual(xattr) => self.virtual_xattr(xattr, &source).await,
            XattrName::Stored
            | XattrName::ReservedName
            | XattrName::NeverThere
            | XattrName::Unsupported => source.xattrs.get(name).cloned().ok_or(Errno::ENODATA),
        }
    }

    /// The stored names, each with a NUL behind it. The names of `user.revfs.` are not listed: copying
    /// programs would copy them.
    ///
    /// # Errors
    /// Why the node cannot be read.
    pub async fn listxattr(&self, ino: u64) -> Answer<Bytes> {
        let node = self.nodes.get(ino).ok_or(Errno::ESTALE)?;
        let source = self.xattr_source(&node).await?;
        let mut names = Vec::new();
        for name in source.xattrs.keys() {
            names.extend_from_slice(name);
            names.push(0);
        }
        Ok(names.into())
    }

    async fn virtual_xattr(&self, xattr: VirtualXattr, source: &Source) -> Answer<Bytes> {
        if xattr == VirtualXattr::Ttl {
            let lease = source.kv.as_ref().map(|kv| kv.lease).unwrap_or_default();
            return self.remaining_seconds(lease).await;
        }
        let author = match &source.kv {
            Some(kv) if xattr.needs_author() => {
                Some(self.within(self.keys.stamp(kv.mod_revision)).await?.author)
            }
            _ => None,
        };
        let value = xattr.value(&source.key, source.kv.as_ref(), author.as_ref());
        value.map(Bytes::from).map_err(errno_of)
    }

    async fn xattr_source(&self, node: &Node) -> Answer<Source> {
        let (tree, subject) = match node.place() {
            Place::Directory { tree, directory } => (tree, Subject::Directory(directory)),
            Place::Hidden(Hidden::Revision { directory, revision }) => {
                (Tree::Past(revision), Subject::Directory(directory))
            }
            Place::File { key } => (Tree::Live, Subject::AnyKey(key)),
            Place::PastFile { key, .. } | Place::Detached { key } => {
                (Tree::Past(node.seen()), Subject::AnyKey(key))
            }
            Place::Hidden(Hidden::Version { key, revision, deleted: false }) => {
                (Tree::Past(revision), Subject::AnyKey(key))
            }
            Place::Hidden(_) => return Ok(Source::default()),
        };
        let mut source = match self.stands(tree, &subject).await?.standing {
            Some(Standing::File(file)) => Source {
                key: file.kv.key.clone(),
                kv: Some(file.kv),
                xattrs: file.effective.xattrs,
            },
            Some(Standing::Directory(directory)) => Source {
                key: directory.directory.as_bytes().clone(),
                kv: directory.marker,
                xattrs: directory.effective.xattrs,
            },
            None => Source::default(),
        };
        if let Some(staged) = &node.file.lock().staged {
            source.xattrs.clone_from(&staged.attributes.xattrs);
        }
        if source.key.is_empty()
            && let Some(key) = node.live_file()
        {
            source.key = key;
        }
        Ok(source)
    }
}
