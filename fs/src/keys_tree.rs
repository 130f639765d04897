//! `@keys/`: every key of the key space, whatever the mount's root, under one flat name each.
//!
//! A key and its ordinary name are one node. The listing reads pages of keys and holds one of them.

use std::ffi::OsStr;
use std::time::Duration;

use bytes::Bytes;
use fuser::{Errno, FileType};
use revfs_api::keyspace::{Answer as KeyAnswer, KeyRange, RangeRead, Read, Revision};

use crate::errno::name_errno;
use crate::filesystem::{Answer, Filesystem, Found};
use crate::listing::{Entry, Listing, What};
use crate::node::{Place, Tree};
use crate::path::{DigestName, KeysName, keys_name, parse_keys_name};
use crate::resolve::{Seen, Subject};

/// Keys in a page.
pub(crate) const PAGE_KEYS: usize = 1_000;

impl Filesystem {
    pub(crate) async fn lookup_key(&self, name: &OsStr) -> Answer<Found> {
        let key = match parse_keys_name(name).map_err(|error| name_errno(&error))? {
            KeysName::Key(key) => key,
            KeysName::Digest(digest) => self.key_of_digest(&digest).await?.ok_or(Errno::ENOENT)?,
        };
        let Seen { revision, standing } = self.stands(Tree::Live, &Subject::AnyKey(key)).await?;
        let standing = standing.ok_or(Errno::ENOENT)?;
        let mut found = self.found(Tree::Live, &standing, revision);
        // Nobody tells the kernel when a name here comes or goes.
        found.entry_ttl = Duration::ZERO;
        Ok(found)
    }

    async fn key_of_digest(&self, digest: &DigestName) -> Answer<Option<Bytes>> {
        let mut range = KeyRange::prefix(digest.stem());
        loop {
            let (keys, more, _) = self.keys_in(Revision::NONE, range.clone()).await?;
            if let Some(key) = keys.iter().find(|key| digest.is_of_key(key)) {
                return Ok(Some(key.clone()));
            }
            let Some(last) = keys.last().filter(|_| more) else { return Ok(None) };
            let start = Bytes::from([last.as_ref(), b"\0"].concat());
            range = match range {
                KeyRange::Span { end, .. } => KeyRange::Span { start, end },
                KeyRange::From(_) | KeyRange::Key(_) => KeyRange::From(start),
            };
        }
    }

    /// The first keys of a range, whether there are more, and the revision of the view.
    async fn keys_in(
        &self,
        revision: Revision,
        range: KeyRange,
    ) -> Answer<(Vec<Bytes>, bool, Revision)> {
        let read = RangeRead { limit: PAGE_KEYS, keys_only: true, ..RangeRead::new(range) };
        let answer = self.ask(revision, vec![Read::Range(read)]).await?;
        let revision = answer.revision;
        match answer.answers.into_iter().next() {
            Some(KeyAnswer::Range(range)) => {
                let keys = range.kvs.into_iter().map(|kv| kv.key).collect();
                Ok((keys, range.more, revision))
            }
            _ => Err(Errno::EIO),
        }
    }

    /// One page of `@keys/`: the keys from `start` on, of the view of `revision`. The first of them is
    /// entry number `first`.
    pub(crate) async fn list_keys(
        &self,
        revision: Revision,
        start: Bytes,
        first: usize,
    ) -> Answer<Listing> {
        let (keys, more, revision) = self.keys_in(revision, KeyRange::From(start)).await?;
        let next = keys.last().filter(|_| more).map(|last| [last.as_ref(), b"\0"].concat().into());
        let entries = keys.into_iter().map(|key| {
            let name = Bytes::from(keys_name(&key));
            let ino = self.number_of(&Place::File { key });
            Entry { name, what: What::Bare { ino, kind: FileType::RegularFile } }
        });
        Ok(Listing { revision, first, entries: entries.collect(), next })
    }
}
