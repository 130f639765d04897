//! Reading many keys in bounded steps, all at one revision.

use bytes::Bytes;
use revfs_api::KeySpace;
use revfs_api::keyspace::{Answer, DirectoryAnswer, KeyRange, KeyValue, ListEntry, ListRead};
use revfs_api::keyspace::{RangeRead, Read, ReadAnswer, Revision, prefix_end};

use crate::error::{Asked as _, Result};
use crate::target::Target;

/// Keys, or names, of one request: about 1,000 x 300 bytes stays well below the limits of a message.
const PAGE: usize = 1_000;

/// Values are fetched together until they reach this; a single larger one is fetched alone.
const BATCH_BYTES: u64 = 4 << 20;

/// All keys of `range` in order, without values, at `revision` (which is not "now": the pages would
/// show different states).
pub(crate) async fn range(
    keys: &dyn KeySpace,
    revision: Revision,
    range: KeyRange,
) -> Result<Vec<KeyValue>> {
    debug_assert!(revision != Revision::NONE, "pages are read at a fixed revision");
    let mut all = Vec::new();
    let mut rest = Some(range);
    while let Some(range) = rest {
        let read = RangeRead { limit: PAGE, keys_only: true, ..RangeRead::new(range.clone()) };
        let answer = keys.read(revision, vec![Read::Range(read)]).await;
        let answer = answer.asked(|| format!("read {}", shown(&range)))?;
        let Some(Answer::Range(page)) = answer.answers.into_iter().next() else { break };
        let last = page.kvs.last().map(|kv| kv.key.clone());
        all.extend(page.kvs);
        rest = last.filter(|_| page.more).map(|last| after(&range, &last));
    }
    Ok(all)
}

/// How many of `kvs`, from the first, are fetched with one request.
pub(crate) fn batch(kvs: &[KeyValue]) -> usize {
    let mut bytes = 0;
    let fitting = kvs.iter().take(PAGE).take_while(|kv| {
        bytes += kv.value_bytes + kv.key.len() as u64;
        bytes <= BATCH_BYTES
    });
    fitting.count().max(1)
}

/// The values of `keys` at a fixed revision; `None` for those that do not exist then.
pub(crate) async fn values(
    keys: &dyn KeySpace,
    revision: Revision,
    wanted: Vec<Bytes>,
) -> Result<Vec<Option<KeyValue>>> {
    let what = wanted.first().map(|key| crate::output::readable(key)).unwrap_or_default();
    let reads = wanted.into_iter().map(Read::key).collect();
    let answer = keys.read(revision, reads).await.asked(|| format!("read {what}"))?;
    let first = |answer| match answer {
        Answer::Range(range) => range.kvs.into_iter().next(),
        Answer::List(_) | Answer::Directory(_) => None,
    };
    Ok(answer.answers.into_iter().map(first).collect())
}

/// The part of `range` above `key`.
fn after(range: &KeyRange, key: &[u8]) -> KeyRange {
    let start = Bytes::from([key, b"\0"].concat());
    match range {
        KeyRange::Key(_) => KeyRange::Span { start: start.clone(), end: start },
        KeyRange::Span { end, .. } => KeyRange::Span { start, end: end.clone() },
        KeyRange::From(_) => KeyRange::From(start),
    }
}

/// A range as the messages name it.
pub(crate) fn shown(range: &KeyRange) -> String {
    let start = crate::output::readable(range.start());
    match range {
        KeyRange::Key(_) => start,
        KeyRange::Span { start: from, end } if prefix_end(from).as_ref() == Some(end) => {
            format!("the keys below {start}")
        }
        KeyRange::Span { end, .. } => {
            format!("the keys from {start} to {}", crate::output::readable(end))
        }
        KeyRange::From(_) => format!("the keys from {start}"),
    }
}

/// All names of one directory at a fixed revision.
pub(crate) async fn list(
    keys: &dyn KeySpace,
    revision: Revision,
    directory: &Bytes,
) -> Result<Vec<ListEntry>> {
    let mut entries: Vec<ListEntry> = Vec::new();
    loop {
        let after = entries.last().map(|entry| entry.name.clone()).unwrap_or_default();
        let directory = directory.clone();
        let read =
            ListRead { directory: directory.clone(), after, limit: PAGE, with_values: false };
        let answer = keys.read(revision, vec![Read::List(read)]).await;
        let answer = answer.asked(|| format!("list {}", crate::output::readable(&directory)))?;
        let Some(Answer::List(page)) = answer.answers.into_iter().next() else { break };
        let more = page.more && !page.entries.is_empty();
        entries.extend(page.entries);
        if !more {
            break;
        }
    }
    Ok(entries)
}

/// What a target is at a revision.
pub(crate) struct Existing {
    /// Without its value.
    pub(crate) file: Option<KeyValue>,
    pub(crate) directory: DirectoryAnswer,
}

impl Existing {
    pub(crate) fn is_absent(&self) -> bool {
        self.file.is_none() && self.directory.names == 0
    }
}

/// Asks in one view whether `target` is a file, a directory, both, or nothing.
pub(crate) async fn existing(
    keys: &dyn KeySpace,
    revision: Revision,
    target: &Target,
) -> Result<Existing> {
    let mut reads = vec![Read::Directory(target.directory().as_bytes().clone())];
    if let Some(key) = target.file() {
        let read = RangeRead { keys_only: true, ..RangeRead::new(KeyRange::Key(key.clone())) };
        reads.push(Read::Range(read));
    }
    let answer = keys.read(revision, reads).await;
    let ReadAnswer { answers, .. } = answer.asked(|| format!("read {}", target.shown()))?;
    let mut found = Existing { file: None, directory: DirectoryAnswer::default() };
    for answer in answers {
        match answer {
            Answer::Range(range) => found.file = range.kvs.into_iter().next(),
            Answer::Directory(directory) => found.directory = directory,
            Answer::List(_) => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_begins_right_above_the_last_key() {
        let prefix = KeyRange::prefix(b"/a/");
        assert!(!after(&prefix, b"/a/x").contains(b"/a/x"));
        assert!(after(&prefix, b"/a/x").contains(b"/a/x\0"));
        assert!(!after(&prefix, b"/a/x").contains(b"/a0"));
        assert!(!after(&KeyRange::Key("k".into()), b"k").contains(b"k\0"));
    }

    #[test]
    fn values_are_fetched_in_bounded_batches_of_at_least_one() {
        let kv = |value_bytes| KeyValue { value_bytes, ..KeyValue::default() };
        assert_eq!(batch(&[kv(1 << 24), kv(1)]), 1);
        assert_eq!(batch(&[kv(1 << 21), kv(1 << 21), kv(1)]), 2);
        assert_eq!(batch(&vec![kv(1); 5_000]), PAGE);
    }

    #[test]
    fn ranges_are_named_as_people_name_them() {
        assert_eq!(shown(&KeyRange::prefix(b"/a/")), "the keys below /a/");
        assert_eq!(shown(&KeyRange::Key("/a".into())), "/a");
    }
}
