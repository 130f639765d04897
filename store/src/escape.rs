//! Keys as they stand in LMDB: 0x00 becomes 01 01, 0x01 becomes 01 02, and 00 ends the key.
//!
//! The escape is order preserving and prefix free, so that rows of one key stand side by side, in the
//! order of the raw keys, whatever follows the terminator. The least byte string above every row of
//! an escaped key `e` is `e 01`, because what follows `e` in a longer key is at least 01.

use crate::codec::{DecodeError, Problem};

/// Ends an escaped key.
pub(crate) const TERMINATOR: u8 = 0x00;
const MARK: u8 = 0x01;

/// Bytes of `key` after escaping, without the terminator.
#[must_use]
pub fn escaped_bytes(key: &[u8]) -> usize {
    key.len() + key.iter().filter(|&&byte| byte <= MARK).count()
}

/// Appends the escaped key, without the terminator.
pub(crate) fn escape_into(key: &[u8], out: &mut Vec<u8>) {
    out.reserve(key.len());
    if is_plain(key) {
        out.extend_from_slice(key);
        return;
    }
    for &byte in key {
        if byte <= MARK {
            out.push(MARK);
            out.push(byte + 1);
        } else {
            out.push(byte);
        }
    }
}

/// Whether the bytes are the same before and after escaping. Reads all of them, so that the compiler
/// can compare many at a time.
pub(crate) fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |is_plain, &byte| is_plain & (byte > MARK))
}

/// Reads an escaped key up to its terminator; returns it and what follows the terminator.
pub(crate) fn unescape(row: &[u8]) -> Result<(Vec<u8>, &[u8]), DecodeError> {
    let mut key = Vec::with_capacity(row.len());
    let mut at = 0;
    let error = |offset, problem| DecodeError { field: "escaped key", offset, problem };
    loop {
        match row.get(at) {
            None => return Err(error(at, Problem::Truncated { wanted: 1, left: 0 })),
            Some(&TERMINATOR) => return Ok((key, &row[at + 1..])),
            Some(&MARK) => {
                match row.get(at + 1) {
                    Some(&code @ 1..=2) => key.push(code - 1),
                    Some(&other) => {
                        let tag = u32::from(other);
                        return Err(error(at, Problem::UnknownTag { tag }));
                    }
                    None => return Err(error(at, Problem::Truncated { wanted: 1, left: 0 })),
                }
                at += 2;
            }
            Some(&byte) => {
                key.push(byte);
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{TERMINATOR, escape_into, escaped_bytes, unescape};
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};
    use proptest::prop_oneof;

    /// Arbitrary bytes, with runs of the bytes that the escape treats, and of 0xFF.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            3 => proptest::sample::select(vec![0x00, 0x01, 0x02, 0xFE, 0xFF]),
            1 => any::<u8>(),
        ];
        proptest::collection::vec(byte, 0..12)
    }

    fn row(key: &[u8], tail: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        escape_into(key, &mut out);
        assert_eq!(out.len(), escaped_bytes(key));
        out.push(TERMINATOR);
        out.extend_from_slice(tail);
        out
    }

    proptest! {
        #[test]
        fn order_of_rows_is_order_of_keys(
            a in key(), b in key(), x in any::<[u8; 8]>(), y in any::<[u8; 8]>(),
        ) {
            let expected = (&a, x).cmp(&(&b, y));
            prop_assert_eq!(row(&a, &x).cmp(&row(&b, &y)), expected);
        }

        #[test]
        fn unescape_undoes_escape(a in key(), tail in any::<[u8; 8]>()) {
            let row = row(&a, &tail);
            let (back, rest) = unescape(&row).unwrap();
            prop_assert_eq!(back, a);
            prop_assert_eq!(rest, &tail[..]);
        }

        #[test]
        fn rows_of_a_key_end_below_its_successor(a in key(), b in key(), tail in any::<[u8; 8]>()) {
            let mut successor = Vec::new();
            escape_into(&a, &mut successor);
            successor.push(0x01);
            let row = row(&b, &tail);
            prop_assert_eq!(row < successor, b <= a);
        }

        #[test]
        fn garbage_is_read_one_way_or_refused(garbage in proptest::collection::vec(any::<u8>(), 0..24)) {
            if let Ok((key, rest)) = unescape(&garbage) {
                prop_assert_eq!(row(&key, rest), garbage);
            }
        }
    }
}
