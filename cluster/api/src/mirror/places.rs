//! Which key of the destination stands for which key of the source.
//!
//! What a mount keeps beside a file (mode, owner, times, links) lies under a prefix of its own and goes with
//! the file. Everything else under the reserved prefix belongs to one cluster and stays there.

use bytes::Bytes;

use crate::keyspace::{KEY_BYTES_MAX, KeyRange, escaped_bytes};

/// Below it is what belongs to a cluster, not to its users.
const RESERVED: &[u8] = b"\0revfs/";

/// Before a key, its side record.
const SIDE: &[u8] = b"\0revfs/a";

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    pub source: Bytes,
    pub destination: Bytes,
    /// Keys whose name at the destination would be longer than [`KEY_BYTES_MAX`] are none of it.
    pub leaves_out_long: bool,
}

fn joined(first: &[u8], second: &[u8]) -> Bytes {
    [first, second].concat().into()
}

fn mapped(key: &[u8], from: &[u8], to: &[u8]) -> Option<Place> {
    let (is_file, key) = match key.strip_prefix(SIDE) {
        Some(subject) => (false, [SIDE, to, subject.strip_prefix(from)?].concat()),
        None if key.starts_with(RESERVED) => return None,
        None => (true, [to, key.strip_prefix(from)?].concat()),
    };
    Some(Place { is_file, key: key.into() })
}

fn is_long(key: &[u8]) -> bool {
    escaped_bytes(key) > KEY_BYTES_MAX
}

/// A key of the destination. The order is that in which both sides are walked: first what lies beside
/// files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) is_file: bool,
    pub(super) key: Bytes,
}

fn ranges(prefix: &Bytes) -> [KeyRange; 2] {
    [KeyRange::prefix(&joined(SIDE, prefix)), KeyRange::prefix(prefix)]
}

impl Places {
    #[must_use]
    pub fn to_destination(&self, key: &[u8]) -> Option<Bytes> {
        self.place_of(key).map(|place| place.key)
    }

    pub(super) fn place_of(&self, key: &[u8]) -> Option<Place> {
        let place = mapped(key, &self.source, &self.destination);
        place.filter(|place| !(self.leaves_out_long && is_long(&place.key)))
    }

    /// The key of the source that stands at a place.
    pub(super) fn key_of_source(&self, place: &Place) -> Option<Bytes> {
        mapped(&place.key, &self.destination, &self.source).map(|place| place.key)
    }

    /// A key of the destination as its own place; `None` for what is no mirror's business.
    pub(super) fn place_at_destination(&self, key: &[u8]) -> Option<Place> {
        mapped(key, &self.destination, &self.destination)
    }

    /// What a watch has to show.
    #[must_use]
    pub fn source_watched(&self) -> Vec<KeyRange> {
        match self.source.is_empty() {
            true => vec![KeyRange::From(Bytes::new())],
            false => ranges(&self.source).into(),
        }
    }

    /// What lies beside files, then the files; a key may lie in both if the prefix is short.
    pub(super) fn source_ranges(&self) -> [KeyRange; 2] {
        ranges(&self.source)
    }

    pub(super) fn destination_ranges(&self) -> [KeyRange; 2] {
        ranges(&self.destination)
    }
}

/// Whether a key can be below both.
pub(super) fn overlap(one: &[u8], other: &[u8]) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

#[cfg(test)]
mod tests {
    use super::{Places, overlap};
    use crate::keyspace::KEY_BYTES_MAX;

    fn between(source: &'static str, destination: &'static str) -> Places {
        let (source, destination) = (source.into(), destination.into());
        Places { source, destination, leaves_out_long: false }
    }

    #[test]
    fn a_place_leads_back_and_long_keys_are_left_out_if_it_is_said() {
        let places = between("/app/", "/copy/");
        for key in [&b"/app/x"[..], b"\0revfs/a/app/x"] {
            let place = places.place_of(key).expect("it lies below the prefix");
            assert_eq!(places.key_of_source(&place).as_deref(), Some(key));
        }
        let long = [b"/app/", &vec![1; KEY_BYTES_MAX / 2][..]].concat();
        assert!(places.to_destination(&long).is_some());
        let others = Places { leaves_out_long: true, ..places };
        assert_eq!(others.to_destination(&long), None);
        assert!(others.to_destination(b"/app/x").is_some());
    }

    #[test]
    fn keys_and_their_side_records_change_their_prefix_and_nothing_else_comes_along() {
        let places = between("/app/", "/copy/");
        let mapped = |key: &[u8]| places.to_destination(key).map(|key| key.to_vec());
        assert_eq!(mapped(b"/app/x"), Some(b"/copy/x".to_vec()));
        assert_eq!(mapped(b"/app/"), Some(b"/copy/".to_vec()));
        assert_eq!(mapped(b"\0revfs/a/app/x"), Some(b"\0revfs/a/copy/x".to_vec()));
        for other in [&b"/other"[..], b"\0revfs/r/app/x", b"\0revfs/mirror//app/", b"\0revfs/a/b"] {
            assert_eq!(mapped(other), None);
        }
        let own = places.place_at_destination(b"/copy/x").map(|place| place.key.to_vec());
        assert_eq!(own, Some(b"/copy/x".to_vec()));
        let all = between("", "");
        assert_eq!(all.to_destination(b"\0revfs/mirror/"), None);
        assert_eq!(all.to_destination(b"\0revfs/a/x").as_deref(), Some(&b"\0revfs/a/x"[..]));
        assert_eq!(all.source_watched().len(), 1);
    }

    #[test]
    fn prefixes_overlap_if_one_begins_with_the_other() {
        assert!(overlap(b"/a", b"/a/b") && overlap(b"/a/b", b"") && !overlap(b"/a/", b"/b/"));
    }
}
