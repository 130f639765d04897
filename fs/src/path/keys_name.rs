//! Whole keys as single file names: the entries of `@keys/`.
//!
//! Letters, digits, `-`, `.`, `_` and `~` stand for themselves; every other byte is `%XX` with
//! upper-case digits. The keys ``, `.` and `..` are `%`, `%2E` and `%2E%2E`. A name over
//! [`NAME_BYTES_MAX`] is cut after the last whole byte of the key within 213 and ends in `%~` and the
//! first 40 hexadecimal digits of the key's SHA-256. Only this spelling is accepted, so that a key has
//! one name here; and no name here begins with `@`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;

use super::NameError;
use super::component::{
    DIGEST_TAIL_BYTES, DigestName, NAME_BYTES_MAX, ends_in_digest, with_digest,
};

/// An entry of `@keys/`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysName {
    Key(Bytes),
    /// A key too long for a file name: to be found among the keys that begin with its stem.
    Digest(DigestName),
}

impl DigestName {
    /// Whether `key` has this name in `@keys/`.
    #[must_use]
    pub fn is_of_key(&self, key: &[u8]) -> bool {
        key.starts_with(&self.stem) && keys_name(key) == self.name.as_ref()
    }
}

/// The file name of a key in `@keys/`.
#[must_use]
pub fn keys_name(key: &[u8]) -> Vec<u8> {
    match key {
        b"" => return b"%".to_vec(),
        b"." => return b"%2E".to_vec(),
        b".." => return b"%2E%2E".to_vec(),
        _ => {}
    }
    let mut name = Vec::with_capacity(key.len());
    let mut kept = 0;
    for &byte in key {
        if stands_for_itself(byte) {
            name.push(byte);
        } else {
            name.extend_from_slice(&escaped(byte));
        }
        if name.len() <= NAME_BYTES_MAX - DIGEST_TAIL_BYTES {
            kept = name.len();
        }
    }
    if name.len() > NAME_BYTES_MAX {
        return with_digest(&name[..kept], key);
    }
    name
}

/// Takes an entry of `@keys/` apart.
///
/// # Errors
/// [`NameError::TooLong`] over 255 bytes; [`NameError::NotAKeysName`] for any other spelling than the
/// one of [`keys_name`].
pub fn parse_keys_name(name: &OsStr) -> Result<KeysName, NameError> {
    let name = name.as_bytes();
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong { bytes: name.len() });
    }
    let refused = || NameError::NotAKeysName { name: name.escape_ascii().to_string() };
    let head = &name[..name.len().saturating_sub(DIGEST_TAIL_BYTES)];
    if ends_in_digest(name) && name[head.len()..].starts_with(b"%~") {
        let stem = Bytes::from(unescape(head).ok_or_else(refused)?);
        return Ok(KeysName::Digest(DigestName { name: Bytes::copy_from_slice(name), stem }));
    }
    let key = if name == b"%" { Vec::new() } else { unescape(name).ok_or_else(refused)? };
    if keys_name(&key) != name {
        return Err(refused());
    }
    Ok(KeysName::Key(key.into()))
}

fn stands_for_itself(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn escaped(byte: u8) -> [u8; 3] {
    const HEXADECIMAL: &[u8; 16] = b"0123456789ABCDEF";
    [b'%', HEXADECIMAL[usize::from(byte >> 4)], HEXADECIMAL[usize::from(byte & 15)]]
}

fn unescape(name: &[u8]) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(name.len());
    let mut rest = name;
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            let [high, low, after @ ..] = after else { return None };
            key.push(hexadecimal_digit(*high)? << 4 | hexadecimal_digit(*low)?);
            rest = after;
        } else {
            key.push(*first);
            rest = after;
        }
    }
    Some(key)
}

fn hexadecimal_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    //! The mapping over arbitrary keys, and the spellings that are refused.

    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use proptest::prelude::{any, proptest};
    use proptest::{collection, prop_assert, prop_assert_eq};

    use super::{KeysName, keys_name, parse_keys_name};

    fn parsed(name: &[u8]) -> Option<KeysName> {
        parse_keys_name(OsStr::from_bytes(name)).ok()
    }

    #[test]
    fn spells_every_key_in_one_way() {
        for (key, name) in [
            (&b""[..], &b"%"[..]),
            (b".", b"%2E"),
            (b"..", b"%2E%2E"),
            (b"...", b"..."),
            (b"/app/color", b"%2Fapp%2Fcolor"),
            (b"@rev", b"%40rev"),
            (b"50%", b"50%25"),
            (b"\0revfs/a/app/x", b"%00revfs%2Fa%2Fapp%2Fx"),
            ("\u{e4}".as_bytes(), b"%C3%A4"),
            (b"a~b-c_d.e", b"a~b-c_d.e"),
        ] {
            assert_eq!(keys_name(key), name);
            assert_eq!(parsed(name), Some(KeysName::Key(key.to_vec().into())));
        }
    }

    #[test]
    fn refuses_other_spellings() {
        for name in
            ["", ".", "..", "%2f", "%61", "a%", "a%2", "a b", "@rev", "%2E.", ".%2E", "%~", "%zz"]
        {
            assert_eq!(parsed(name.as_bytes()), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn every_key_comes_back(key in collection::vec(any::<u8>(), 0..400)) {
            let name = keys_name(&key);
            prop_assert!((1..=255).contains(&name.len()));
            prop_assert!(!name.starts_with(b"@") && !name.contains(&b'/') && !name.contains(&0));
            match parsed(&name) {
                Some(KeysName::Key(back)) => prop_assert_eq!(back, key),
                Some(KeysName::Digest(digest)) => {
                    prop_assert!(digest.is_of_key(&key));
                    prop_assert!(digest.stem().len() >= 213 / 3);
                    let mut other = key.clone();
                    let last = other.len() - 1;
                    other[last] ^= 1;
                    prop_assert!(!digest.is_of_key(&other));
                }
                None => prop_assert!(false, "{} is refused", name.escape_ascii()),
            }
        }

        #[test]
        fn every_name_that_is_accepted_is_the_keys_own(name in "[%.~0-9A-Fa-f/@]{0,20}") {
            if let Some(KeysName::Key(key)) = parsed(name.as_bytes()) {
                prop_assert_eq!(keys_name(&key), name.as_bytes());
            }
        }
    }
}
