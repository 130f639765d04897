//! GETATTR: what a node is now.

use bytes::Bytes;
use fuser::Errno;

use crate::filesystem::{Answer, Filesystem};
use crate::found::{Shown, file_attr};
use crate::node::{Hidden, Node, Place, Tree};
use crate::path::DirectoryKey;
use crate::resolve::{Standing, Subject};
use crate::staged::Life;

impl Filesystem {
    /// # Errors
    /// ESTALE for what is not known or cannot be read any more.
    pub async fn getattr(&self, ino: u64) -> Answer<Shown> {
        let node = self.nodes.get(ino).ok_or(Errno::ESTALE)?;
        self.shown(&node).await
    }

    /// The attributes of a node, whatever it is.
    pub(crate) async fn shown(&self, node: &Node) -> Answer<Shown> {
        match node.place() {
            Place::Directory { tree, directory } => {
                self.shown_of_directory(node, tree, directory).await
            }
            Place::File { key } => self.shown_of_file(node, key).await,
            Place::PastFile { key, .. } => {
                let standing = self.stands(Tree::Past(node.seen()), &Subject::AnyKey(key)).await?;
                let Some(Standing::File(file)) = standing.standing else {
                    return Err(Errno::ESTALE);
                };
                let attr = file_attr(node.ino, file.kv.value_bytes, &file.effective);
                Ok(Shown { attr, ttl: self.past_ttl() })
            }
            Place::Hidden(Hidden::Revision { directory, revision }) => {
                self.shown_revision(node.ino, &directory, revision).await
            }
            Place::Hidden(hidden) => self.shown_hidden(node.ino, &hidden).await,
            Place::Detached { key } => self.shown_nameless(node, &key).await,
        }
    }

    async fn shown_of_directory(
        &self,
        node: &Node,
        tree: Tree,
        directory: DirectoryKey,
    ) -> Answer<Shown> {
        let subject = Subject::Directory(directory);
        let is_root = tree == Tree::Live && node.ino == self.nodes.root().ino;
        let seen = if is_root && self.is_linear() {
            self.root_stands(&subject).await?
        } else {
            self.stands(tree, &subject).await?
        };
        match seen.standing {
            Some(Standing::Directory(directory)) => {
                Ok(self.shown_directory(tree, node, &directory))
            }
            Some(Standing::File(_)) | None => Err(Errno::ESTALE),
        }
    }

    async fn shown_of_file(&self, node: &Node, key: Bytes) -> Answer<Shown> {
        if let Some(shown) = self.shown_staged(node) {
            return Ok(shown);
        }
        let seen = self.stands(Tree::Live, &Subject::AnyKey(key.clone())).await?;
        if let Some(Standing::File(file)) = seen.standing
            && node.is_or_begins(Life::of(&file.kv))
        {
            node.see(seen.revision);
            self.note_program(node, &file, seen.revision);
            return Ok(self.shown_file(node, &file));
        }
        self.shown_nameless(node, &key).await
    }

    /// A file whose name is gone or another's: who has it open still sees it, as on any file system.
    async fn shown_nameless(&self, node: &Node, key: &Bytes) -> Answer<Shown> {
        let mut shown = match self.shown_staged(node) {
            Some(shown) => shown,
            None => self.shown_when_last_seen(node, key).await?,
        };
        shown.attr.nlink = 0;
        Ok(shown)
    }

    async fn shown_when_last_seen(&self, node: &Node, key: &Bytes) -> Answer<Shown> {
        let seen = node.seen();
        if seen == revfs_api::keyspace::Revision::NONE {
            return Err(Errno::ESTALE);
        }
        match self.stands_at(seen, &Subject::AnyKey(key.clone())).await?.standing {
            Some(Standing::File(file)) => {
                let attr = file_attr(node.ino, file.kv.value_bytes, &file.effective);
                Ok(Shown { attr, ttl: std::time::Duration::ZERO })
            }
            Some(Standing::Directory(_)) | None => Err(Errno::ESTALE),
        }
    }
}
