//! LOOKUP: a name in a directory.

use std::ffi::OsStr;

use fuser::Errno;

use crate::errno::name_errno;
use crate::filesystem::{Answer, Filesystem, Found};
use crate::node::{Hidden, Place, Tree};
use crate::path::{self, DirectoryKey, Name, decode_name};

impl Filesystem {
    /// What `name` is in the directory `parent`.
    ///
    /// # Errors
    /// ENOENT; ESTALE for a directory that is not known (any more); what the key space answers.
    pub async fn lookup(&self, parent: u64, name: &OsStr) -> Answer<Found> {
        self.lookup_or_absent(parent, name).await?.ok_or(Errno::ENOENT)
    }

    /// [`Self::lookup`], telling apart two kinds of nothing: `None`, which the kernel may remember
    /// (it will be told when the name appears), and ENOENT.
    ///
    /// # Errors
    /// As [`Self::lookup`].
    pub async fn lookup_or_absent(&self, parent: u64, name: &OsStr) -> Answer<Option<Found>> {
        let node = self.nodes.get(parent).ok_or(Errno::ESTALE)?;
        match node.place() {
            Place::Directory { tree, directory } => self.lookup_in(tree, &directory, name).await,
            Place::Hidden(Hidden::Revision { directory, revision }) => {
                self.lookup_in(Tree::Past(revision), &directory, name).await
            }
            Place::Hidden(hidden) => self.lookup_hidden(&hidden, name).await.map(Some),
            Place::File { .. } | Place::PastFile { .. } | Place::Detached { .. } => {
                Err(Errno::ENOTDIR)
            }
        }
    }

    async fn lookup_in(
        &self,
        tree: Tree,
        directory: &DirectoryKey,
        name: &OsStr,
    ) -> Answer<Option<Found>> {
        let name = decode_name(name).map_err(|error| name_errno(&error))?;
        if let Name::Hidden(hidden) = name {
            // In the past there is nothing hidden: one would look from one past into another. But a mount of
            // the past says, too, what it is.
            let says_what_it_is = hidden == path::Hidden::Status && self.options.tree != Tree::Live;
            if tree != Tree::Live && !says_what_it_is {
                return Err(Errno::ENOENT);
            }
            return self.hidden_of(directory, hidden).await.map(Some);
        }
        let component = match &name {
            Name::Component(component) => Some(component.clone()),
            _ => None,
        };
        if tree == Tree::Live {
            self.settle_names().await?;
        }
        let here = component.as_ref().and_then(|own| self.local_file(directory, own));
        if let Some(node) = here.filter(|_| tree == Tree::Live) {
            return self.found_unborn(node).map(Some);
        }
        let seen = self.stands_under_name(tree, directory, name).await?;
        if let Some(standing) = &seen.standing {
            return Ok(Some(self.found(tree, standing, seen.revision)));
        }
        if tree != Tree::Live {
            return Err(Errno::ENOENT);
        }
        let Some(component) = component else { return Ok(None) };
        let unborn = self.unborn.lock().get(&(directory.clone(), component.clone())).cloned();
        if let Some(node) = unborn {
            return self.found_unborn(node).map(Some);
        }
        let directory = directory.child_directory(&component);
        if let Some(node) = self.nodes.find(&Place::Directory { tree, directory }) {
            // It must be told when the directory is back. (If that has been told of already, the
            // kernel must not remember this answer.)
            node.deny();
            if self.coherence.is_beyond(seen.revision) {
                return Err(Errno::ENOENT);
            }
        }
        Ok(None)
    }
}
