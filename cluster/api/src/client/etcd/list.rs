//! One level below a prefix, from ranges: what lies in a subdirectory is skipped.
//!
//! The pages of a listing are ranges from a cursor on. Two keys of a subdirectory are looked at, which
//! is enough to know that it is there and whether it holds more than its marker; then the cursor jumps
//! behind it. Pages grow while names follow each other, and shrink where they are mostly skipped or
//! values are large.

use bytes::Bytes;

use super::plain::{key_value, number};
use crate::keyspace::{
    DirectoryAnswer, ListAnswer, ListEntry, ListRead, Revision, Time, prefix_end,
};
use crate::wire::etcdserverpb as pb;

const PAGE_FIRST: i64 = 32;
const PAGE_LEAST: i64 = 8;
const PAGE_MAX: i64 = 1_024;

/// Values of one page, about: etcd cannot leave them out and tell their sizes.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// A listing that is being made.
pub(super) struct Listing {
    directory: Bytes,
    /// The first key that was not looked at.
    cursor: Bytes,
    end: Bytes,
    limit: usize,
    with_values: bool,
    page: i64,
    answer: ListAnswer,
}

impl Listing {
    pub(super) fn new(read: ListRead) -> Self {
        let ListRead { directory, after, limit, with_values } = read;
        let after_key = [directory.as_ref(), after.as_ref()].concat();
        let cursor = match (after.is_empty(), after.ends_with(b"/")) {
            (true, _) if directory.is_empty() => Bytes::from_static(b"\0"),
            (true, _) => directory.clone(),
            (false, true) => prefix_end(&after_key).unwrap_or_else(|| after_key.into()),
            (false, false) => next_key(&after_key),
        };
        let end = prefix_end(&directory).unwrap_or(Bytes::from_static(b"\0"));
        let limit = if limit == 0 { usize::MAX } else { limit };
        let page = PAGE_FIRST.min(i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX));
        let answer = ListAnswer::default();
        Self { directory, cursor, end, limit, with_values, page, answer }
    }

    /// The next page, at `revision`.
    pub(super) fn request(&self, revision: Revision) -> pb::RangeRequest {
        pb::RangeRequest {
            key: self.cursor.clone(),
            range_end: self.end.clone(),
            limit: self.page,
            revision: number(revision),
            ..pb::RangeRequest::default()
        }
    }

    /// Takes a page; the listing if that was the last.
    pub(super) fn take(&mut self, response: pb::RangeResponse) -> Option<ListAnswer> {
        let count = response.kvs.len();
        let bytes: usize = response.kvs.iter().map(|kv| kv.value.len()).sum();
        let mut skipped = 0;
        for kv in response.kvs {
            if kv.key < self.cursor {
                skipped += 1;
                continue;
            }
            let Some(rest) = kv.key.strip_prefix(self.directory.as_ref()) else { continue };
            let name = match rest.iter().position(|&byte| byte == b'/') {
                Some(slash) => kv.key.slice_ref(&rest[..=slash]),
                None => kv.key.slice_ref(rest),
            };
            if let Some(last) = self.answer.entries.last_mut().filter(|last| last.name == name) {
                // The second key of a subdirectory.
                if let Some(directory) = &mut last.directory {
                    directory.names = 2;
                }
                self.cursor = behind(&self.directory, &name, &kv.key);
                continue;
            }
            // The empty name, which is the first if it is there, does not count.
            let has_own = self.answer.entries.first().is_some_and(|first| first.name.is_empty());
            if self.answer.entries.len() >= self.limit.saturating_add(usize::from(has_own)) {
                self.answer.more = true;
                return Some(std::mem::take(&mut self.answer));
            }
            self.cursor = next_key(&kv.key);
            let is_directory = name.ends_with(b"/");
            let is_own = name.len() == rest.len();
            let kv = is_own.then(|| key_value(kv, !self.with_values));
            let directory = is_directory.then(|| found(1));
            self.answer.entries.push(ListEntry { name, kv, directory });
        }
        if !response.more {
            return Some(std::mem::take(&mut self.answer));
        }
        let page =
            if bytes > PAGE_BYTES || skipped * 2 > count { self.page / 4 } else { self.page * 2 };
        self.page = page.clamp(PAGE_LEAST, PAGE_MAX);
        None
    }
}

/// A directory that holds so many names, or more than one. When one came or went last etcd does not
/// tell.
pub(super) fn found(names: u64) -> DirectoryAnswer {
    DirectoryAnswer { names, changed: Revision::NONE, time: Time(0) }
}

fn next_key(key: &[u8]) -> Bytes {
    Bytes::from([key, b"\0"].concat())
}

/// The first key that does not lie below `name`.
fn behind(directory: &[u8], name: &[u8], key: &[u8]) -> Bytes {
    prefix_end(&[directory, name].concat()).unwrap_or_else(|| next_key(key))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::wire::mvccpb;

    /// What etcd answers to a range of `keys`.
    fn range(keys: &BTreeSet<&str>, request: &pb::RangeRequest) -> pb::RangeResponse {
        let is_in = |key: &&&str| {
            key.as_bytes() >= request.key.as_ref()
                && (request.range_end == "\0" || key.as_bytes() < request.range_end.as_ref())
        };
        let all: Vec<&&str> = keys.iter().filter(is_in).collect();
        let limit = usize::try_from(request.limit).unwrap();
        let kv = |key: &&&str| mvccpb::KeyValue {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: "12345".into(),
            ..mvccpb::KeyValue::default()
        };
        pb::RangeResponse {
            kvs: all.iter().take(limit).map(kv).collect(),
            more: all.len() > limit,
            ..pb::RangeResponse::default()
        }
    }

    fn list(keys: &BTreeSet<&str>, read: ListRead) -> (Vec<String>, bool, usize) {
        let mut listing = Listing::new(read);
        for pages in 1..1_000 {
            let response = range(keys, &listing.request(Revision(5)));
            if let Some(answer) = listing.take(response) {
                let shown = |entry: &ListEntry| {
                    let name = String::from_utf8(entry.name.to_vec()).unwrap();
                    let names = entry.directory.map(|directory| directory.names);
                    let size = entry.kv.as_ref().map(|kv| kv.value_bytes);
                    format!("{name} {names:?} {size:?}")
                };
                return (answer.entries.iter().map(shown).collect(), answer.more, pages);
            }
        }
        panic!("the listing has no end");
    }

    fn whole(directory: &'static str) -> ListRead {
        ListRead { directory: directory.into(), after: "".into(), limit: 0, with_values: false }
    }

    #[test]
    fn a_level_holds_keys_directories_and_markers() {
        let keys =
            ["/", "/a", "/a-b", "/a/", "/a/x", "/b/", "/c/d/e", "/d//x", "z"].into_iter().collect();
        let (found, more, _) = list(&keys, whole("/"));
        let expected = [
            " None Some(5)",
            "a None Some(5)",
            "a-b None Some(5)",
            "a/ Some(2) Some(5)",
            "b/ Some(1) Some(5)",
            "c/ Some(1) None",
            "d/ Some(1) None",
        ];
        assert_eq!(found, expected);
        assert!(!more);
        let (found, ..) = list(&keys, whole("/d/"));
        assert_eq!(found, ["/ Some(1) None"]);
        let (found, ..) = list(&keys, whole(""));
        assert_eq!(found, ["/ Some(2) Some(5)", "z None Some(5)"]);
        assert!(list(&keys, whole("/nothing/")).0.is_empty());
    }

    #[test]
    fn a_listing_goes_on_after_each_of_its_names() {
        let keys: BTreeSet<&str> =
            ["/", "/a", "/a-b", "/a/", "/a/x", "/b/1", "/b/2", "/b/3", "/c"].into_iter().collect();
        let (all, ..) = list(&keys, whole("/"));
        let name = |shown: &String| shown.split(' ').next().unwrap().to_owned();
        for limit in 1..=all.len() + 1 {
            let mut found = Vec::new();
            let mut after = String::new();
            loop {
                let read = ListRead { after: after.clone().into(), limit, ..whole("/") };
                let (page, more, _) = list(&keys, read);
                assert!(page.iter().filter(|shown| !name(shown).is_empty()).count() <= limit);
                found.extend(page);
                if !more {
                    break;
                }
                after = found.last().map(name).unwrap();
            }
            assert_eq!(found, all, "limit {limit}");
        }
    }

    #[test]
    fn a_large_subdirectory_costs_no_more_than_a_small_one() {
        let below: Vec<String> = (0..100_000).map(|number| format!("/big/{number:06}")).collect();
        let mut keys: BTreeSet<&str> = below.iter().map(String::as_str).collect();
        keys.extend(["/a", "/z"]);
        let (found, _, pages) = list(&keys, whole("/"));
        assert_eq!(found, ["a None Some(5)", "big/ Some(2) None", "z None Some(5)"]);
        assert!(pages <= 2, "{pages} pages");
        let (found, _, pages) = list(&keys, whole("/big/"));
        assert_eq!(found.len(), 100_000);
        assert!(pages < 120, "{pages} pages");
    }
}
