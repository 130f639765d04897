//! `@history/NAME/`: every stored version of a key as a file dated by its commit, and each deletion
//! as an empty file `N.deleted`.
//!
//! `@history/` itself lists the names of the directory that have versions: those that are there, and
//! those that were removed lately.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::time::Duration;

use bytes::Bytes;
use fuser::Errno;
use revfs_api::keyspace::{
    ChangeKind, ChangesRequest, Error, HistoryRequest, ListRead, Read, Revision, Time, Version,
};

use crate::attributes::{Effective, Kind, effective_file, record_key};
use crate::errno::{errno, name_errno};
use crate::filesystem::{Answer, Filesystem, Found};
use crate::found::{FOREVER, HIDDEN_TTL, Shown, file_attr};
use crate::history::HistoryName;
use crate::listing::{Entry, Listing, What};
use crate::node::{Hidden, Tree};
use crate::path::{DirectoryKey, Listed, Name, decode_name, encode_component};
use crate::resolve::{Answers, Standing, Subject, read_record};

/// Versions that `@history/NAME/` lists; older ones are found by their name.
const VERSIONS_MAX: usize = 10_000;

/// Revisions that `@history/` walks back to find removed names.
const SCAN_MAX: usize = 20_000;

impl Filesystem {
    /// `@history/NAME`: there if the key has a version that is kept.
    pub(crate) async fn lookup_history(
        &self,
        directory: &DirectoryKey,
        name: &OsStr,
    ) -> Answer<Found> {
        let key = match decode_name(name).map_err(|error| name_errno(&error))? {
            Name::Component(component) => directory.child_key(&component),
            Name::Value if *directory != self.options.root => {
                directory.value_key().ok_or(Errno::ENOENT)?
            }
            Name::Digest(digest) => {
                let component =
                    self.component_of_digest(Revision::NONE, directory, &digest).await?;
                directory.child_key(&component.ok_or(Errno::ENOENT)?)
            }
            Name::Value | Name::Hidden(_) | Name::Reserved => return Err(Errno::ENOENT),
        };
        self.found_hidden(Hidden::HistoryOf(key)).await
    }

    /// `@history/NAME/N`, `N.deleted` and `refused-TIME`.
    pub(crate) async fn lookup_version(&self, key: &Bytes, name: &[u8]) -> Answer<Found> {
        let hidden = match HistoryName::parse(name).ok_or(Errno::ENOENT)? {
            HistoryName::Version(revision) => {
                Hidden::Version { key: key.clone(), revision, deleted: false }
            }
            HistoryName::Deleted(revision) => {
                Hidden::Version { key: key.clone(), revision, deleted: true }
            }
            HistoryName::Refused(Time(time)) => Hidden::Refused { key: key.clone(), time },
        };
        self.found_hidden(hidden).await
    }

    async fn versions(&self, key: &Bytes, at_most: Revision, limit: usize) -> Answer<Vec<Version>> {
        let request = HistoryRequest { key: key.clone(), at_most, limit, keys_only: true };
        self.within(self.keys.history(request)).await
    }

    /// The directory `@history/NAME/`, dated by the newest version.
    pub(crate) async fn shown_history_of(&self, ino: u64, key: &Bytes) -> Answer<Shown> {
        let newest = self.versions(key, Revision::NONE, 1).await?;
        let committed = newest.first().map(|version| version.event.kv.time);
        let refused = self.writing.refused.list(key).last().copied();
        let time = committed.max(refused).ok_or(Errno::ENOENT)?;
        let effective = self.made_up(Kind::Directory, 0o555, time);
        Ok(Shown { attr: file_attr(ino, 0, &effective), ttl: Duration::ZERO })
    }

    pub(crate) async fn shown_version(
        &self,
        ino: u64,
        key: &Bytes,
        revision: Revision,
        deleted: bool,
    ) -> Answer<Shown> {
        let newest = self.versions(key, revision, 1).await?;
        let version = newest.first().filter(|own| own.event.kv.mod_revision == revision);
        let version = version.ok_or(Errno::ENOENT)?;
        if deleted != (version.event.kind == ChangeKind::Delete) {
            return Err(Errno::ENOENT);
        }
        let time = version.event.kv.time;
        if deleted {
            let effective = self.made_up(Kind::File, 0o444, time);
            return Ok(Shown { attr: file_attr(ino, 0, &effective), ttl: FOREVER });
        }
        let subject = Subject::AnyKey(key.clone());
        match self.stands(Tree::Past(revision), &subject).await?.standing {
            Some(Standing::File(mut file)) => {
                file.effective.mtime = time;
                let attr = file_attr(ino, file.kv.value_bytes, &file.effective);
                Ok(Shown { attr, ttl: HIDDEN_TTL })
            }
            Some(Standing::Directory(_)) | None => Err(Errno::ENOENT),
        }
    }

    /// Bytes that could not be committed: for the owner of the file that they were for.
    pub(crate) fn shown_refused(&self, ino: u64, key: &Bytes, time: Time) -> Answer<Shown> {
        let copy = self.writing.refused.get(key, time).ok_or(Errno::ENOENT)?;
        let mut effective = self.made_up(Kind::File, 0o400, time);
        effective.uid = copy.attributes.uid.unwrap_or(effective.uid);
        effective.gid = copy.attributes.gid.unwrap_or(effective.gid);
        let size = u64::try_from(copy.bytes.len()).unwrap_or(u64::MAX);
        Ok(Shown { attr: file_attr(ino, size, &effective), ttl: HIDDEN_TTL })
    }

    /// The listing of `@history/NAME/`. The side records of all versions come from one question.
    pub(crate) async fn list_versions(&self, key: &Bytes) -> Answer<Listing> {
        self.confirm_present().await?;
        let versions = self.versions(key, Revision::NONE, VERSIONS_MAX).await?;
        let request = HistoryRequest {
            key: record_key(key),
            at_most: Revision::NONE,
            limit: VERSIONS_MAX,
            keys_only: false,
        };
        let records: BTreeMap<Revision, Version> = self
            .within(self.keys.history(request))
            .await?
            .into_iter()
            .map(|version| (version.event.kv.mod_revision, version))
            .collect();
        let subject = Subject::AnyKey(key.clone());
        let present = self.stands_at(Revision::NONE, &subject).await?.standing;
        let mut listing = Listing::default();
        for version in versions {
            let kv = version.event.kv;
            let revision = kv.mod_revision;
            let deleted = version.event.kind == ChangeKind::Delete;
            let (name, size, effective) = if deleted {
                (HistoryName::Deleted(revision), 0, self.made_up(Kind::File, 0o444, kv.time))
            } else {
                let record = records.range(..=revision).next_back().map(|(_, record)| record);
                let record = record.filter(|record| record.event.kind == ChangeKind::Put);
                let record = record.and_then(|record| read_record(&record.event.kv));
                let then = effective_file(&kv, record.as_ref(), &self.options.defaults());
                let mut shown = if self.options.history_as_is {
                    then
                } else {
                    then.as_past(present.as_ref().map(Standing::effective))
                };
                shown.mtime = kv.time;
                (HistoryName::Version(revision), kv.value_bytes, shown)
            };
            let hidden = Hidden::Version { key: key.clone(), revision, deleted };
            let shown = Shown { attr: file_attr(0, size, &effective), ttl: HIDDEN_TTL };
            listing.entries.push(Entry {
                name: Bytes::from(name.to_string()),
                what: What::Hidden { hidden, shown },
            });
        }
        for time in self.writing.refused.list(key) {
            let hidden = Hidden::Refused { key: key.clone(), time: time.0 };
            let shown = self.shown_refused(0, key, time)?;
            let name = Bytes::from(HistoryName::Refused(time).to_string());
            listing.entries.push(Entry { name, what: What::Hidden { hidden, shown } });
        }
        Ok(listing)
    }

    /// The listing of `@history/`.
    pub(crate) async fn list_history(&self, directory: &DirectoryKey) -> Answer<Listing> {
        let list = Read::List(ListRead {
            directory: directory.as_bytes().clone(),
            after: Bytes::new(),
            limit: 0,
            with_values: false,
        });
        let list = Answers::new(self.ask(Revision::NONE, vec![list]).await?).list()?;
        let mut names: BTreeSet<Bytes> = BTreeSet::new();
        for entry in &list.entries {
            if let Listed::Key(component) = Listed::new(&entry.name) {
                names.insert(Bytes::copy_from_slice(component));
            }
        }
        names.extend(self.removed_lately(directory).await?);
        let entries = names.iter().map(|component| {
            let hidden = Hidden::HistoryOf(directory.child_key(component));
            let name = Bytes::from(encode_component(component).into_owned());
            // Whoever wants to know when it changed last asks for it.
            let effective = self.made_up(Kind::Directory, 0o555, Time(0));
            let shown = Shown { attr: file_attr(0, 0, &effective), ttl: Duration::ZERO };
            Entry { name, what: What::Hidden { hidden, shown } }
        });
        Ok(Listing { entries: entries.collect(), ..Listing::default() })
    }

    /// Components of the directory that were deleted in the last [`SCAN_MAX`] revisions.
    async fn removed_lately(&self, directory: &DirectoryKey) -> Answer<Vec<Bytes>> {
        let mut request = ChangesRequest {
            ranges: vec![directory.range()],
            from: Revision(1),
            to: Revision::NONE,
            newest_first: true,
            limit: 0,
            scan_limit: SCAN_MAX,
            keys_only: true,
        };
        let answer = match self.keys.changes(request.clone()).await {
            Err(Error::Compacted { compacted, .. }) => {
                request.from = compacted.next();
                self.keys.changes(request).await
            }
            other => other,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(Error::Future { .. } | Error::Unsupported(_)) => return Ok(Vec::new()),
            Err(error) => return Err(errno(&error)),
        };
        let events = answer.revisions.iter().flat_map(|revision| &revision.events);
        Ok(events
            .filter(|event| event.kind == ChangeKind::Delete)
            .map(|event| DirectoryKey::of_key(&event.kv.key))
            .filter(|(parent, component)| parent == directory && !component.is_empty())
            .map(|(_, component)| component)
            .collect())
    }

    /// Attributes of what exists only to be looked at.
    pub(crate) fn made_up(&self, kind: Kind, mode: u16, time: Time) -> Effective {
        Effective {
            kind,
            mode,
            uid: self.options.uid,
            gid: self.options.gid,
            mtime: time,
            ctime: time,
            xattrs: BTreeMap::new(),
        }
    }
}
