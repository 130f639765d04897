//! What differs below a target between two revisions: files by their contents, and attributes.
//!
//! Both sides are listed without values; a key with the same mod_revision on both is the same. What
//! remains are *candidates*: their values decide.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use revfs_api::KeySpace;
use revfs_api::keyspace::{KeyRange, KeyValue, Revision};

use crate::error::Result;
use crate::names::key_of_record;
use crate::scan;
use crate::target::Target;

/// A key of which something may differ. Values are not fetched yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) key: Bytes,
    pub(crate) before: Option<KeyValue>,
    pub(crate) after: Option<KeyValue>,
    /// Its side record has changed.
    pub(crate) record_changed: bool,
}

impl Candidate {
    pub(crate) fn content_changed(&self) -> bool {
        mod_revision(self.before.as_ref()) != mod_revision(self.after.as_ref())
    }

    /// The marker of a directory: it has no content to compare.
    pub(crate) fn is_marker(&self) -> bool {
        let is_empty = |kv: &Option<KeyValue>| kv.as_ref().is_none_or(|kv| kv.value_bytes == 0);
        self.key.ends_with(b"/") && is_empty(&self.before) && is_empty(&self.after)
    }
}

fn mod_revision(kv: Option<&KeyValue>) -> Revision {
    kv.map_or(Revision::NONE, |kv| kv.mod_revision)
}

/// In key order.
pub(crate) async fn candidates(
    keys: &dyn KeySpace,
    target: &Target,
    before: Revision,
    after: Revision,
) -> Result<Vec<Candidate>> {
    let files_before = all(keys, before, target.ranges()).await?;
    let files_after = all(keys, after, target.ranges()).await?;
    let records_before = all(keys, before, target.record_ranges()).await?;
    let records_after = all(keys, after, target.record_ranges()).await?;
    let records_changed: BTreeSet<Bytes> = changed(&records_before, &records_after)
        .into_iter()
        .filter_map(|record| key_of_record(&record))
        .collect();
    let candidates =
        changed(&files_before, &files_after).into_iter().chain(records_changed.clone());
    let candidates: BTreeSet<Bytes> = candidates.collect();
    let candidate = |key: Bytes| Candidate {
        before: files_before.get(&key).cloned(),
        after: files_after.get(&key).cloned(),
        record_changed: records_changed.contains(&key),
        key,
    };
    let exists = |found: &Candidate| found.before.is_some() || found.after.is_some();
    // A record without a file (a plain client deleted the file) is nothing that anyone sees.
    Ok(candidates.into_iter().map(candidate).filter(exists).collect())
}

type ByKey = BTreeMap<Bytes, KeyValue>;

async fn all(keys: &dyn KeySpace, revision: Revision, ranges: Vec<KeyRange>) -> Result<ByKey> {
    let mut found = ByKey::new();
    for range in ranges {
        let kvs = scan::range(keys, revision, range).await?;
        found.extend(kvs.into_iter().map(|kv| (kv.key.clone(), kv)));
    }
    Ok(found)
}

fn changed(before: &ByKey, after: &ByKey) -> Vec<Bytes> {
    let either: BTreeSet<&Bytes> = before.keys().chain(after.keys()).collect();
    let differs = |key: &&&Bytes| mod_revision(before.get(**key)) != mod_revision(after.get(**key));
    either.iter().filter(differs).map(|key| (*key).clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &'static str, revision: u64) -> (Bytes, KeyValue) {
        let key = Bytes::from(key);
        let mod_revision = Revision(revision);
        (key.clone(), KeyValue { key, mod_revision, ..KeyValue::default() })
    }

    #[test]
    fn a_key_is_changed_if_its_revision_is_another_or_it_is_on_one_side_only() {
        let before = ByKey::from([kv("gone", 2), kv("same", 3), kv("written", 4)]);
        let after = ByKey::from([kv("new", 7), kv("same", 3), kv("written", 8)]);
        assert_eq!(changed(&before, &after), ["gone", "new", "written"]);
    }

    #[test]
    fn an_empty_key_with_a_slash_at_its_end_is_a_marker() {
        let marker = Candidate { key: "/a/".into(), ..Candidate::default() };
        assert!(marker.is_marker());
        assert!(!Candidate { key: "/a".into(), ..Candidate::default() }.is_marker());
    }
}
