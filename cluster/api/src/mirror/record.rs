//! What a mirror writes down at its destination: whose it is, and what of it the destination shows.
//!
//! One JSON document at the key [`RECORD_PREFIX`] and the destination's prefix.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::{Value, json};

use super::places::overlap;
use super::{MirrorError, Places};
use crate::KeySpace;
use crate::keyspace::{
    Answer, Compare, CompareResult, CompareTarget, KeyRange, RangeRead, Read, Revision,
};

/// Before the destination's prefix, the key of the record.
pub const RECORD_PREFIX: &[u8] = b"\0revfs/mirror/";

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub source_cluster: u64,
    pub source_prefix: Bytes,
    /// Random: the process that keeps the mirror. Another one takes over with a number of its own.
    pub keeper: u64,
    /// Clusters that the data comes from, through however many mirrors.
    pub origins: BTreeSet<u64>,
    /// The destination is a mixture of what it was and of this revision.
    pub is_copying: bool,
    /// Of the source.
    pub revision: Revision,
    /// While it is copied: up to this key of the destination it is equal to that revision.
    pub copied: Option<Bytes>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(digits: &str) -> Option<Bytes> {
    let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    (0..digits.len()).step_by(2).map(byte).collect::<Option<Vec<u8>>>().map(Bytes::from)
}

impl Record {
    pub(super) fn new(source_cluster: u64, places: &Places) -> Self {
        Self {
            source_cluster,
            source_prefix: places.source.clone(),
            keeper: 0,
            origins: BTreeSet::from([source_cluster]),
            is_copying: true,
            revision: Revision::NONE,
            copied: None,
        }
    }

    pub(super) fn is_of(&self, cluster: u64, places: &Places) -> bool {
        self.source_cluster == cluster && self.source_prefix == places.source
    }

    pub(super) fn encode(&self) -> Bytes {
        let origins: Vec<String> = self.origins.iter().map(|id| format!("{id:016x}")).collect();
        let document = json!({
            "source_cluster": format!("{:016x}", self.source_cluster),
            "source_prefix_hex": hex(&self.source_prefix),
            "keeper": format!("{:016x}", self.keeper),
            "origins": origins,
            "state": if self.is_copying { "copying" } else { "following" },
            "revision": self.revision.0,
            "copied_hex": self.copied.as_deref().map(hex),
        });
        document.to_string().into()
    }

    pub(super) fn decode(text: &[u8]) -> Option<Self> {
        let document: Value = serde_json::from_slice(text).ok()?;
        let id = |value: &Value| u64::from_str_radix(value.as_str()?, 16).ok();
        let origins: Option<BTreeSet<u64>> =
            document["origins"].as_array()?.iter().map(id).collect();
        Some(Self {
            source_cluster: id(&document["source_cluster"])?,
            source_prefix: from_hex(document["source_prefix_hex"].as_str()?)?,
            keeper: id(&document["keeper"])?,
            origins: origins?,
            is_copying: document["state"].as_str()? == "copying",
            revision: Revision(document["revision"].as_u64()?),
            copied: document["copied_hex"].as_str().map(from_hex).unwrap_or_default(),
        })
    }
}

pub(super) fn key(places: &Places) -> Bytes {
    [RECORD_PREFIX, &places.destination].concat().into()
}

/// The record is as it was at `revision`; or there is none.
pub(super) fn unchanged(key: Bytes, revision: Revision) -> Compare {
    Compare {
        range: KeyRange::Key(key),
        target: CompareTarget::ModRevision(revision),
        result: CompareResult::Equal,
    }
}

/// The record of the destination, and its own revision there.
pub(super) async fn read(
    destination: &dyn KeySpace,
    places: &Places,
) -> Result<Option<(Record, Revision)>, MirrorError> {
    let answer = destination.read(Revision::NONE, vec![Read::key(key(places))]).await?;
    let Some(Answer::Range(range)) = answer.answers.into_iter().next() else { return Ok(None) };
    let Some(kv) = range.kvs.into_iter().next() else { return Ok(None) };
    let record = Record::decode(&kv.value).ok_or_else(|| MirrorError::Record {
        reason: kv.value.escape_ascii().take(200).map(char::from).collect(),
    })?;
    Ok(Some((record, kv.mod_revision)))
}

/// The clusters that the source's own data comes from.
pub(super) async fn origins_of(
    source: &dyn KeySpace,
    places: &Places,
) -> Result<BTreeSet<u64>, MirrorError> {
    let range = RangeRead::new(KeyRange::prefix(RECORD_PREFIX));
    let answer = source.read(Revision::NONE, vec![Read::Range(range)]).await?;
    let Some(Answer::Range(range)) = answer.answers.into_iter().next() else {
        return Ok(BTreeSet::new());
    };
    let mut origins = BTreeSet::new();
    for kv in range.kvs {
        let prefix = kv.key.strip_prefix(RECORD_PREFIX).unwrap_or_default();
        if let Some(record) = Record::decode(&kv.value)
            && overlap(prefix, &places.source)
        {
            origins.extend(record.origins);
        }
    }
    Ok(origins)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Record;
    use crate::keyspace::Revision;

    #[test]
    fn a_record_says_what_was_written() {
        let record = Record {
            source_cluster: u64::MAX,
            source_prefix: (&b"/a\xff/"[..]).into(),
            keeper: 5,
            origins: BTreeSet::from([1, u64::MAX]),
            is_copying: false,
            revision: Revision(77),
            copied: None,
        };
        assert_eq!(Record::decode(&record.encode()), Some(record.clone()));
        let copying = Record { is_copying: true, copied: Some("/b\u{7f}".into()), ..record };
        assert_eq!(Record::decode(&copying.encode()), Some(copying));
        for wrong in ["", "{}", "[]", "{\"revision\":1}"] {
            assert_eq!(Record::decode(wrong.as_bytes()), None);
        }
    }
}
