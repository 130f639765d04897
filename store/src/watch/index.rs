//! Which watchers see a key, found without asking each: single keys by a lookup, spans by
//! [`Spans`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::Slot;
use super::spans::{End, Spans};
use crate::types::KeyRange;

/// See the module.
#[derive(Default)]
pub(super) struct Index {
    keys: BTreeMap<Bytes, BTreeSet<Slot>>,
    spans: Spans,
}

impl Index {
    pub(super) fn insert(&mut self, ranges: &[KeyRange], slot: Slot) {
        for range in ranges {
            match range {
                KeyRange::Key(key) => {
                    self.keys.entry(key.clone()).or_default().insert(slot);
                }
                KeyRange::Span { start, end } if end <= start => {}
                KeyRange::Span { start, end } => {
                    self.spans.insert(start, &End(Some(end.clone())), slot);
                }
                KeyRange::From(start) => self.spans.insert(start, &End(None), slot),
            }
        }
    }

    pub(super) fn remove(&mut self, ranges: &[KeyRange], slot: Slot) {
        for range in ranges {
            match range {
                KeyRange::Key(key) => {
                    if let Some(slots) = self.keys.get_mut(key) {
                        slots.remove(&slot);
                        if slots.is_empty() {
                            self.keys.remove(key);
                        }
                    }
                }
                KeyRange::Span { start, end } => {
                    self.spans.remove(start, &End(Some(end.clone())), slot);
                }
                KeyRange::From(start) => self.spans.remove(start, &End(None), slot),
            }
        }
    }

    /// Adds the watchers of `key` to `found`, one of several such ranges more than once; returns how
    /// many places of the index were looked at.
    pub(super) fn find(&self, key: &[u8], found: &mut Vec<Slot>) -> u64 {
        if let Some(slots) = self.keys.get(key) {
            found.extend(slots);
        }
        1 + self.spans.find(key, found)
    }
}

#[cfg(test)]
mod tests {
    use super::Index;
    use crate::types::KeyRange;
    use bytes::Bytes;
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};
    use proptest::prop_oneof;

    fn range() -> impl Strategy<Value = KeyRange> {
        let key = || proptest::collection::vec(0u8..4, 0..3).prop_map(Bytes::from);
        prop_oneof![
            key().prop_map(KeyRange::Key),
            (key(), key()).prop_map(|(start, end)| KeyRange::Span { start, end }),
            key().prop_map(KeyRange::From),
        ]
    }

    proptest! {
        #[test]
        fn finds_the_watchers_whose_ranges_contain_the_key(
            watchers in proptest::collection::vec(
                (proptest::collection::vec(range(), 1..4), any::<bool>()), 0..40,
            ),
            key in proptest::collection::vec(0u8..5, 0..4),
        ) {
            let mut index = Index::default();
            for (slot, (ranges, _)) in watchers.iter().enumerate() {
                index.insert(ranges, slot);
            }
            for (slot, (ranges, stays)) in watchers.iter().enumerate() {
                if !stays {
                    index.remove(ranges, slot);
                }
            }
            let mut found = Vec::new();
            index.find(&key, &mut found);
            found.sort_unstable();
            found.dedup();
            let sees = |ranges: &[KeyRange]| ranges.iter().any(|range| range.contains(&key));
            let expected: Vec<_> = (watchers.iter().enumerate())
                .filter(|(_, (ranges, stays))| *stays && sees(ranges))
                .map(|(slot, _)| slot)
                .collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_search_among_many_spans_looks_at_few() {
        let mut index = Index::default();
        for slot in 0..100_000 {
            index.insert(&[KeyRange::prefix(format!("/{slot:06}/").as_bytes())], slot);
        }
        // In order is the worst order for a tree that does not balance itself.
        for slot in [0, 1, 49_999, 50_000, 99_998, 99_999] {
            let mut found = Vec::new();
            let steps = index.find(format!("/{slot:06}/x").as_bytes(), &mut found);
            assert_eq!(found, [slot]);
            assert!(steps < 150, "{steps} places for one of 100,000 spans");
        }
    }
}
