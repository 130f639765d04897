//! Which keys a user may read and which write: unions of granted intervals, and what they cover.
//!
//! Of the reserved keys, `\0revfs/a` + K, `\0revfs/l` + K and `\0revfs/r` + K are covered exactly if K is:
//! what is granted of them directly does not count, and a grant of K counts for all. There is no empty
//! key: an interval from the key of one zero byte on begins before all others, and who names the empty
//! key alone is refused for that, not for want of a permission.

use bytes::Bytes;

use super::{COVERED_PREFIXES, Permission, RESERVATION_PREFIX};
use crate::types::{KeyRange, prefix_end};

/// `[start, end)`; no end is infinity.
type Interval = (Bytes, Option<Bytes>);

/// Keys, as intervals in ascending order that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys(Vec<Interval>);

impl Keys {
    /// The union of intervals.
    fn union(mut all: Vec<Interval>) -> Self {
        all.retain(|(start, end)| end.as_ref().is_none_or(|end| end > start));
        all.sort();
        let mut merged: Vec<Interval> = Vec::with_capacity(all.len());
        for (start, end) in all {
            match merged.last_mut() {
                Some((_, None)) => break,
                Some((_, Some(last))) if *last >= start => match end {
                    Some(end) if end <= *last => {}
                    longer => merged.last_mut().expect("it was just there").1 = longer,
                },
                _ => merged.push((start, end)),
            }
        }
        Self(merged)
    }

    /// Whether every key of `range` is among these.
    pub(super) fn cover(&self, range: &KeyRange) -> bool {
        let has_no_key = match range {
            KeyRange::Key(key) => key.is_empty(),
            KeyRange::Span { start, end } => end <= start || end.as_ref() <= &[0][..],
            KeyRange::From(_) => false,
        };
        if has_no_key {
            return true;
        }
        let before = self.0.partition_point(|(start, _)| start <= range.start());
        let Some((_, own_end)) = before.checked_sub(1).map(|at| &self.0[at]) else { return false };
        let Some(own_end) = own_end else { return true };
        match range {
            KeyRange::Key(key) => own_end > key,
            KeyRange::Span { end, .. } => own_end >= end,
            KeyRange::From(_) => false,
        }
    }
}

/// What a user may do with keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) read: Keys,
    pub(super) write: Keys,
}

impl Allowed {
    pub(super) fn new<'p>(permissions: impl Iterator<Item = &'p Permission> + Clone) -> Self {
        let granted = |wanted: fn(&Permission) -> bool| {
            permissions.clone().filter(move |permission| wanted(permission)).map(interval)
        };
        let mut read = with_reserved(granted(|permission| permission.access.reads()));
        let mut write = with_reserved(granted(|permission| permission.access.writes()));
        let switch = || point(RESERVATION_PREFIX);
        read.push(switch());
        if !write.is_empty() {
            write.push(switch());
        }
        Self { read: Keys::union(read), write: Keys::union(write) }
    }
}

fn point(key: &[u8]) -> Interval {
    let end = [key, &[0]].concat();
    (Bytes::copy_from_slice(key), Some(end.into()))
}

/// Whether a permission may be granted: its interval has a key.
pub(super) fn is_valid(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || range_end == [0] || key < range_end)
}

fn interval(permission: &Permission) -> Interval {
    let Permission { key, range_end, .. } = permission;
    let (start, end) = match &range_end[..] {
        [] => point(key),
        [0] => (key.clone(), None),
        _ => (key.clone(), Some(range_end.clone())),
    };
    // Nothing lies before that key, and what asks for everything may begin at the empty one.
    (if start[..] == [0] { Bytes::new() } else { start }, end)
}

/// The intervals without what is reserved in them, and what they allow of that.
fn with_reserved(granted: impl Iterator<Item = Interval>) -> Vec<Interval> {
    let mut all = Vec::new();
    for (start, end) in granted {
        let mut direct = vec![(start.clone(), end.clone())];
        for prefix in COVERED_PREFIXES {
            let prefixed = |key: &[u8]| Bytes::from([prefix, key].concat());
            let after = prefix_end(prefix).expect("no byte of it is 0xFF");
            direct = direct.into_iter().flat_map(|own| without(own, prefix, &after)).collect();
            let own_end = end.as_ref().map_or(after, |end| prefixed(end));
            all.push((prefixed(&start), Some(own_end)));
        }
        all.append(&mut direct);
    }
    all
}

/// What `own` holds before `from` and from `to` on; either may be empty.
fn without(own: Interval, from: &[u8], to: &Bytes) -> [Interval; 2] {
    let (start, end) = own;
    let from = Bytes::copy_from_slice(from);
    let before = match &end {
        Some(end) if *end < from => end.clone(),
        _ => from,
    };
    [(start.clone(), Some(before)), (start.max(to.clone()), end)]
}

#[cfg(test)]
mod tests {
    use super::{Allowed, COVERED_PREFIXES, RESERVATION_PREFIX, is_valid};
    use crate::auth::{Access, LOCK_PREFIX, Permission, RECORD_PREFIX};
    use crate::types::KeyRange;
    use bytes::Bytes;
    use proptest::prelude::{Strategy, prop_assert_eq, proptest};
    use proptest::prop_oneof;

    /// Small keys, some of them below the reserved prefixes.
    fn key() -> impl Strategy<Value = Bytes> {
        let plain = || proptest::collection::vec(0u8..4, 1..3);
        let below = |prefix: &'static [u8]| {
            proptest::collection::vec(0u8..4, 0..3)
                .prop_map(move |rest| Bytes::from([prefix, &rest].concat()))
        };
        prop_oneof![
            6 => plain().prop_map(Bytes::from),
            1 => below(RECORD_PREFIX),
            1 => below(RESERVATION_PREFIX),
            1 => below(LOCK_PREFIX),
            1 => below(b"\0revfs/"),
            1 => below(b"\0revfs/b"),
        ]
    }

    fn range() -> impl Strategy<Value = KeyRange> {
        let border = || prop_oneof![9 => key(), 1 => proptest::strategy::Just(Bytes::new())];
        prop_oneof![
            border().prop_map(KeyRange::Key),
            (border(), border()).prop_map(|(start, end)| KeyRange::Span { start, end }),
            border().prop_map(KeyRange::From),
        ]
    }

    fn permission() -> impl Strategy<Value = Permission> {
        let end = prop_oneof![
            proptest::strategy::Just(Bytes::new()),
            proptest::strategy::Just(Bytes::from_static(&[0])),
            key(),
        ];
        let access = proptest::sample::select(&Access::ALL[..]);
        (key(), end, access)
            .prop_map(|(key, range_end, access)| Permission { key, range_end, access })
            .prop_filter("it has keys", |own| is_valid(&own.key, &own.range_end))
    }

    /// By the definition: is this one key granted?
    fn is_granted(permissions: &[Permission], key: &[u8], wanted: fn(Access) -> bool) -> bool {
        if key == RESERVATION_PREFIX {
            let writes = wanted(Access::Write) && !wanted(Access::Read);
            return !writes || permissions.iter().any(|own| own.access.writes());
        }
        let bare = COVERED_PREFIXES.iter().find_map(|p| key.strip_prefix(*p));
        // The record of a key that cannot be is that of the first key.
        let key = match bare {
            Some([]) => &[0][..],
            Some(bare) => bare,
            None => key,
        };
        permissions.iter().filter(|own| wanted(own.access)).any(|own| match &own.range_end[..] {
            [] => own.key == key,
            [0] => *own.key <= *key,
            end => *own.key <= *key && key < end,
        })
    }

    /// Whether a key is granted can change at these only, from there on.
    fn borders(permissions: &[Permission], range: &KeyRange) -> Vec<Bytes> {
        let mut all = vec![range.start().clone(), Bytes::from_static(&[0])];
        for bare in permissions.iter().flat_map(|own| [&own.key, &own.range_end]) {
            for prefix in COVERED_PREFIXES.into_iter().chain([&b""[..]]) {
                all.push([prefix, bare].concat().into());
                all.push([prefix, bare, &[0]].concat().into());
            }
        }
        for prefix in COVERED_PREFIXES.into_iter().chain([&b"\0revfs/"[..]]) {
            let mut after = prefix.to_vec();
            *after.last_mut().unwrap() += 1;
            all.push(Bytes::copy_from_slice(prefix));
            all.push([prefix, &[0]].concat().into());
            all.push(after.into());
        }
        all
    }

    proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(4_000))]
        #[test]
        fn a_range_is_covered_if_each_of_its_keys_is_granted(
            permissions in proptest::collection::vec(permission(), 0..6), range in range(),
        ) {
            let allowed = Allowed::new(permissions.iter());
            let all = |wanted: fn(Access) -> bool| {
                borders(&permissions, &range)
                    .iter()
                    .filter(|key| range.contains(key) && !key.is_empty())
                    .all(|key| is_granted(&permissions, key, wanted))
            };
            prop_assert_eq!(allowed.read.cover(&range), all(Access::reads));
            prop_assert_eq!(allowed.write.cover(&range), all(Access::writes));
        }
    }

    fn granted(permissions: &[(&'static [u8], &'static [u8])]) -> Allowed {
        let permission = |&(key, end)| Permission {
            key: Bytes::from_static(key),
            range_end: Bytes::from_static(end),
            access: Access::Read,
        };
        let permissions: Vec<_> = permissions.iter().map(permission).collect();
        Allowed::new(permissions.iter())
    }

    fn span(start: &'static [u8], end: &'static [u8]) -> KeyRange {
        KeyRange::Span { start: start.into(), end: end.into() }
    }

    #[test]
    fn intervals_that_touch_cover_together_what_none_covers_alone() {
        let allowed = granted(&[(b"a", b"c"), (b"c", b""), (b"c\0", b"e"), (b"g", b"\0")]);
        assert!(allowed.read.cover(&span(b"a", b"e")));
        assert!(!allowed.read.cover(&span(b"a", b"e\0")));
        assert!(!allowed.read.cover(&KeyRange::From("a".into())));
        assert!(allowed.read.cover(&KeyRange::From("g".into())));
        assert!(!allowed.write.cover(&KeyRange::Key("a".into())));
    }

    #[test]
    fn a_grant_of_a_key_is_one_of_what_is_kept_beside_it_and_no_grant_of_that_counts() {
        let app = granted(&[(b"/app/", b"/app0")]);
        let keys: [(&[u8], bool); 8] = [
            (b"\0revfs/a/app/", true),
            (b"\0revfs/a/app/x", true),
            (b"\0revfs/r/app/x", true),
            (b"\0revfs/l/app/x\x000123456789abcdef", true),
            (b"\0revfs/a/other", false),
            (b"\0revfs/l/other", false),
            (b"\0revfs/r", true),
            (b"\0revfs/a", false),
        ];
        for (key, expected) in keys {
            assert_eq!(
                app.read.cover(&KeyRange::Key(Bytes::from_static(key))),
                expected,
                "{key:?}"
            );
        }
        assert!(app.read.cover(&KeyRange::prefix(b"\0revfs/a/app/")));
        let records = granted(&[(b"\0", b"\x01")]);
        assert!(!records.read.cover(&KeyRange::Key(Bytes::from_static(b"\0revfs/a/app/x"))));
        assert!(records.read.cover(&KeyRange::Key(Bytes::from_static(b"\0revfs/x"))));
        let all = granted(&[(b"\0", b"\0")]);
        assert!(all.read.cover(&KeyRange::From(Bytes::new())));
        assert!(all.read.cover(&KeyRange::prefix(b"\0revfs/")));
    }
}
