//! `@keys/`: every key of the key space, whatever the mount's root, under one flat name each.
//!
//! A key and its ordinary name are one node. The listing reads pages of keys and holds one of them.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::time::Duration;

use bytes::Bytes;
use fuser::Errno;
use revfs_api::keyspace::{KeyRange, KeyValue, RangeRead, Read, Revision};

use crate::attributes::record_key;
use crate::errno::name_errno;
use crate::filesystem::{Answer, Filesystem, Found};
use crate::listing::{Entry, Listing, What};
use crate::node::Tree;
use crate::path::{DigestName, KeysName, keys_name, parse_keys_name};
use crate::resolve::{Answers, Seen, Standing, Subject, standing_file};

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
            let page = self.keys_in(Revision::NONE, range.clone()).await?;
            if let Some(kv) = page.kvs.iter().find(|kv| digest.is_of_key(&kv.key)) {
                return Ok(Some(kv.key.clone()));
            }
            let Some(start) = page.next else { return Ok(None) };
            range = match range {
                KeyRange::Span { end, .. } => KeyRange::Span { start, end },
                KeyRange::From(_) | KeyRange::Key(_) => KeyRange::From(start),
            };
        }
    }

    /// The first keys of a range.
    async fn keys_in(&self, revision: Revision, range: KeyRange) -> Answer<Page> {
        let read = RangeRead { limit: PAGE_KEYS, keys_only: true, ..RangeRead::new(range) };
        let answer = self.ask(revision, vec![Read::Range(read)]).await?;
        let revision = answer.revision;
        let range = Answers::new(answer).range()?;
        let next = range.kvs.last().filter(|_| range.more).map(|last| after(&last.key));
        Ok(Page { revision, kvs: range.kvs, next })
    }

    /// One page of `@keys/`: the keys from `start` on, of the view of `revision`. The first of them is
    /// entry number `first`.
    pub(crate) async fn list_keys(
        &self,
        revision: Revision,
        start: Bytes,
        first: usize,
    ) -> Answer<Listing> {
        let page = self.keys_in(revision, KeyRange::From(start.clone())).await?;
        let records = match page.kvs.last() {
            Some(last) => {
                let range = KeyRange::Span {
                    start: record_key(&start),
                    end: record_key(&after(&last.key)),
                };
                let read = vec![Read::Range(RangeRead::new(range))];
                Answers::new(self.ask(page.revision, read).await?).range()?.kvs
            }
            None => Vec::new(),
        };
        let records: HashMap<Bytes, KeyValue> =
            records.into_iter().map(|record| (record.key.clone(), record)).collect();
        let defaults = self.options.defaults();
        let entries = page.kvs.into_iter().map(|kv| {
            let name = Bytes::from(keys_name(&kv.key));
            let record = records.get(&record_key(&kv.key));
            let standing = Box::new(Standing::File(standing_file(kv, record, &defaults)));
            Entry { name, what: What::Standing { tree: Tree::Live, standing } }
        });
        Ok(Listing {
            revision: page.revision,
            first,
            entries: entries.collect(),
            is_unwatched: true,
            next: page.next,
        })
    }
}

/// Keys of one view, in order.
struct Page {
    revision: Revision,
    kvs: Vec<KeyValue>,
    /// Where the next page begins, if there is one.
    next: Option<Bytes>,
}

/// The least key above `key`.
fn after(key: &[u8]) -> Bytes {
    [key, b"\0"].concat().into()
}
