//! Rows stand in the order of what they say, whatever bytes the keys are made of.

use std::cmp::Reverse;

use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_assert, prop_assert_eq, proptest};
use proptest::prop_oneof;
use revfs_store::escaped_bytes;
use revfs_store::schema::{
    Tree, after_prefix, attachment_row, key_of_prefix, key_prefix, key_row, lease_row, name_row,
    revision_row, split_descending,
};
use revfs_store::types::{LeaseId, Revision};

/// Any bytes, in runs: of 0x00 and 0x01, which the escape treats, of 0xFF, of their neighbours, of
/// slashes.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        6 => proptest::sample::select(vec![0x00, 0x01, 0x02, b'.', b'/', b'0', 0xFE, 0xFF]),
        1 => any::<u8>(),
    ];
    let length = prop_oneof![8 => 1..3_usize, 1 => 3..40_usize];
    vec((byte, length), 0..6)
        .prop_map(|runs| runs.into_iter().flat_map(|(byte, length)| vec![byte; length]).collect())
}

fn revision() -> impl Strategy<Value = Revision> {
    prop_oneof![0..4_u64, any::<u64>()].prop_map(Revision)
}

/// Two keys that often share a beginning.
fn keys() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    (key(), key(), key(), any::<bool>()).prop_map(|(start, a, b, shares)| {
        if shares { ([start.clone(), a].concat(), [start, b].concat()) } else { (a, b) }
    })
}

proptest! {
    #[test]
    fn rows_of_keys_stand_by_key_and_the_newest_first((a, b) in keys(), x in revision(), y in revision()) {
        let expected = (&a, Reverse(x)).cmp(&(&b, Reverse(y)));
        prop_assert_eq!(key_row(&a, x).cmp(&key_row(&b, y)), expected);
    }

    #[test]
    fn a_row_gives_its_key_and_revision_back(a in key(), x in revision()) {
        let row = key_row(&a, x);
        prop_assert_eq!(row.len(), escaped_bytes(&a) + 9);
        let (prefix, found) = split_descending(Tree::Keys, &row).unwrap();
        prop_assert_eq!(found, x);
        prop_assert_eq!(key_of_prefix(Tree::Keys, prefix).unwrap(), a);
    }

    #[test]
    fn the_rows_of_a_key_and_no_others_lie_between_its_bounds((a, b) in keys(), x in revision()) {
        let (start, end) = (key_prefix(&a), after_prefix(&key_prefix(&a)));
        let row = key_row(&b, x);
        prop_assert_eq!(start <= row && row < end, a == b);
    }

    #[test]
    fn rows_of_names_stand_by_directory_then_name_and_the_newest_first(
        (a, b) in keys(), (c, d) in keys(), x in revision(), y in revision(),
    ) {
        let expected = (&a, &c, Reverse(x)).cmp(&(&b, &d, Reverse(y)));
        prop_assert_eq!(name_row(&a, &c, x).cmp(&name_row(&b, &d, y)), expected);
    }

    #[test]
    fn rows_of_revisions_and_leases_stand_by_number(
        x in revision(), y in revision(), s in any::<u32>(), t in any::<u32>(),
        l in any::<i64>(), m in any::<i64>(), (a, b) in keys(),
    ) {
        prop_assert_eq!(revision_row(x, s).cmp(&revision_row(y, t)), (x, s).cmp(&(y, t)));
        let (l, m) = (LeaseId(l), LeaseId(m));
        prop_assert_eq!(lease_row(l).cmp(&lease_row(m)), l.cmp(&m));
        prop_assert_eq!(attachment_row(l, &a).cmp(&attachment_row(m, &b)), (l, a).cmp(&(m, b)));
    }

    #[test]
    fn an_escaped_key_is_at_most_twice_as_long(a in key()) {
        prop_assert!((a.len()..=2 * a.len()).contains(&escaped_bytes(&a)));
    }
}
