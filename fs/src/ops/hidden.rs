//! The hidden names: what each is, and what it shows. The trees behind them are in `history`, in
//! `keys_tree` and in `status`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use fuser::{Errno, FileAttr, FileType, INodeNo};
use revfs_api::keyspace::Time;

use crate::attributes::Kind;
use crate::filesystem::{Answer, Filesystem, Found};
use crate::found::{FOREVER, HIDDEN_TTL, Shown, file_attr};
use crate::node::{Hidden, Place, Tree};
use crate::path::{self, DirectoryKey};
use crate::resolve::{Standing, Subject};

impl Filesystem {
    /// What a hidden name is in a live directory.
    pub(crate) async fn hidden_of(
        &self,
        directory: &DirectoryKey,
        hidden: path::Hidden,
    ) -> Answer<Found> {
        if hidden.is_root_only() && *directory != self.options.root {
            return Err(Errno::ENOENT);
        }
        if self.private.is_some() {
            // The past is to be had beside the transaction.
            return match hidden {
                path::Hidden::Status => self.found_hidden(Hidden::Status).await,
                path::Hidden::Commit if *directory == self.options.root => {
                    self.found_hidden(Hidden::Commit).await
                }
                _ => Err(Errno::ENOENT),
            };
        }
        let hidden = match hidden {
            path::Hidden::Rev => Hidden::Revisions(directory.clone()),
            path::Hidden::Time => Hidden::Times(directory.clone()),
            path::Hidden::History => Hidden::History(directory.clone()),
            path::Hidden::Status => Hidden::Status,
            path::Hidden::Keys => Hidden::Keys,
            path::Hidden::Watch(from) => Hidden::Watch { directory: directory.clone(), from },
            path::Hidden::Txn => Hidden::Transactions,
            path::Hidden::Commit => return Err(Errno::ENOENT),
        };
        self.found_hidden(hidden).await
    }

    /// A hidden node with its attributes, if there is such a one.
    pub(crate) async fn found_hidden(&self, hidden: Hidden) -> Answer<Found> {
        let shown = self.shown_hidden(0, &hidden).await?;
        let entry_ttl = match &hidden {
            Hidden::Revisions(_) | Hidden::Times(_) | Hidden::History(_) => self.live_ttl(),
            Hidden::Status | Hidden::Keys | Hidden::Transactions | Hidden::Version { .. } => {
                FOREVER
            }
            Hidden::Revision { .. }
            | Hidden::OlderRevisions { .. }
            | Hidden::TimeLink { .. }
            | Hidden::HistoryOf(_)
            | Hidden::Watch { .. }
            | Hidden::Commit
            | Hidden::Refused { .. } => Duration::ZERO,
        };
        Ok(self.found_of_hidden(hidden, shown, entry_ttl))
    }

    pub(crate) fn found_of_hidden(
        &self,
        hidden: Hidden,
        shown: Shown,
        entry_ttl: Duration,
    ) -> Found {
        let node = self.node_of(&Place::Hidden(hidden));
        let attr = FileAttr { ino: INodeNo(node.ino), ..shown.attr };
        Found { attr, entry_ttl, attr_ttl: shown.ttl, node }
    }

    pub(crate) async fn shown_hidden(&self, ino: u64, hidden: &Hidden) -> Answer<Shown> {
        match hidden {
            Hidden::Revisions(directory)
            | Hidden::OlderRevisions { directory, .. }
            | Hidden::Times(directory)
            | Hidden::History(directory) => self.shown_beside(ino, directory).await,
            Hidden::Revision { directory, revision } => {
                self.shown_revision(ino, directory, *revision).await
            }
            Hidden::TimeLink { name, .. } => self.shown_time(ino, name).await,
            Hidden::HistoryOf(key) => self.shown_history_of(ino, key).await,
            Hidden::Version { key, revision, deleted } => {
                self.shown_version(ino, key, *revision, *deleted).await
            }
            Hidden::Refused { key, time } => self.shown_refused(ino, key, Time(*time)),
            Hidden::Watch { directory, .. } => {
                let mut shown = self.shown_beside(ino, directory).await?;
                shown.attr.kind = FileType::RegularFile;
                shown.attr.perm &= 0o444;
                Ok(shown)
            }
            // Its length is known only when it is read: like a file of /proc, it says 0.
            Hidden::Status => {
                let effective = self.made_up(Kind::File, 0o444, Time(0));
                Ok(Shown { attr: file_attr(ino, 0, &effective), ttl: FOREVER })
            }
            // As /tmp: everybody may begin one, and drop those that are his own.
            Hidden::Transactions => {
                let mut effective = self.made_up(Kind::Directory, 0o1777, Time(0));
                (effective.uid, effective.gid) = (0, 0);
                Ok(Shown { attr: file_attr(ino, 0, &effective), ttl: FOREVER })
            }
            Hidden::Commit => {
                let mut effective = self.made_up(Kind::File, 0o600, Time(0));
                if let Some(private) = &self.private {
                    (effective.uid, effective.gid) = (private.maker.uid, private.maker.gid);
                }
                Ok(Shown { attr: file_attr(ino, 0, &effective), ttl: Duration::ZERO })
            }
            Hidden::Keys => {
                let mut effective = self.made_up(Kind::Directory, 0o700, Time(0));
                (effective.uid, effective.gid) = (0, 0);
                Ok(Shown { attr: file_attr(ino, 0, &effective), ttl: FOREVER })
            }
        }
    }

    /// A hidden directory that is as readable as the live directory it lies in, and not writable.
    async fn shown_beside(&self, ino: u64, directory: &DirectoryKey) -> Answer<Shown> {
        let subject = Subject::Directory(directory.clone());
        let Some(Standing::Directory(standing)) = self.stands(Tree::Live, &subject).await?.standing
        else {
            return Err(Errno::ENOENT);
        };
        let mut effective = standing.effective;
        effective.mode &= 0o555;
        Ok(Shown { attr: file_attr(ino, 0, &effective), ttl: HIDDEN_TTL })
    }

    /// A name in a hidden directory.
    pub(crate) async fn lookup_hidden(&self, parent: &Hidden, name: &OsStr) -> Answer<Found> {
        self.confirm_present().await?;
        let bytes = name.as_bytes();
        match parent {
            Hidden::Revisions(directory) | Hidden::OlderRevisions { directory, .. } => {
                self.lookup_revision(directory, bytes).await
            }
            Hidden::Times(directory) => self.lookup_time(directory, bytes).await,
            Hidden::History(directory) => self.lookup_history(directory, name).await,
            Hidden::HistoryOf(key) => self.lookup_version(key, bytes).await,
            Hidden::Keys => self.lookup_key(name).await,
            Hidden::Transactions => self.lookup_transaction(name).await,
            Hidden::Revision { .. }
            | Hidden::TimeLink { .. }
            | Hidden::Version { .. }
            | Hidden::Refused { .. }
            | Hidden::Watch { .. }
            | Hidden::Commit
            | Hidden::Status => Err(Errno::ENOTDIR),
        }
    }
}
