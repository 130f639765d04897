//! The encoding by example, and as a bijection over arbitrary bytes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use proptest::{collection, prop_assert, prop_assert_eq, prop_assert_ne};

use super::{DigestName, Hidden, NAME_BYTES_MAX, Name, NameError, decode_name, encode_component};

const DIGITS: &str = "0123456789abcdef0123456789abcdef01234567";

fn decoded(name: &[u8]) -> Result<Name, NameError> {
    decode_name(OsStr::from_bytes(name))
}

fn component(text: &[u8]) -> Result<Name, NameError> {
    Ok(Name::Component(Bytes::copy_from_slice(text)))
}

#[track_caller]
fn check(text: impl AsRef<[u8]>, name: impl AsRef<[u8]>) {
    let (text, name) = (text.as_ref(), name.as_ref());
    assert_eq!(
        encode_component(text).escape_ascii().to_string(),
        name.escape_ascii().to_string(),
        "name of {}",
        text.escape_ascii()
    );
    assert_eq!(decoded(name), component(text), "component of {}", name.escape_ascii());
}

#[test]
fn leaves_ordinary_names_alone() {
    for name in [
        "color",
        "@babel",
        "@revs",
        "@Rev",
        "rev",
        "a@rev",
        "@watch.",
        "@watch.x",
        "%41",
        "%40x",
        "%2e",
        "%2F",
        "100%",
        "%%",
        "%25x",
        "%0",
        "%2",
        "%24",
        "...",
        ".git",
        "x.",
        "a%2E",
        "%~",
        "%~0123",
        "%40",
        "%2540",
        "new\nline",
    ] {
        check(name, name);
    }
    check(b"\xff\xfe", b"\xff\xfe");
    check([b'x'; 255], [b'x'; 255]);
}

#[test]
fn escapes_what_cannot_be_a_file_name_or_is_hidden() {
    for (text, name) in [
        ("", "%"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("@rev", "%40rev"),
        ("@time", "%40time"),
        ("@history", "%40history"),
        ("@watch", "%40watch"),
        ("@watch.7", "%40watch.7"),
        ("@txn", "%40txn"),
        ("@status", "%40status"),
        ("@keys", "%40keys"),
        ("@value", "%40value"),
        ("@commit", "%40commit"),
        ("@@", "%40@"),
        ("@@later", "%40@later"),
        ("\0", "%00"),
        ("a\0\0b", "a%00%00b"),
        ("%\0", "%%00"),
        ("@@\0", "%40@%00"),
    ] {
        check(text, name);
    }
}

#[test]
fn gives_literal_text_of_an_escape_one_more_25() {
    for (text, name) in [
        ("%", "%25"),
        ("%25", "%2525"),
        ("%2E", "%252E"),
        ("%252E", "%25252E"),
        ("%2E%2E", "%252E%2E"),
        ("%252E%2E", "%25252E%2E"),
        ("%2E%252E", "%2E%252E"),
        ("%40rev", "%2540rev"),
        ("%2540rev", "%252540rev"),
        ("%40@x", "%2540@x"),
        ("%00", "%2500"),
        ("x%2500y%00", "x%252500y%2500"),
        ("%25\0", "%25%00"),
        ("%40@%00", "%2540@%2500"),
    ] {
        check(text, name);
    }
    check(format!("a%~{DIGITS}"), format!("a%25~{DIGITS}"));
    check(format!("%2525~{DIGITS}"), format!("%252525~{DIGITS}"));
    check(format!("@@%~{DIGITS}"), format!("%40@%25~{DIGITS}"));
}

#[test]
fn cuts_a_long_component_and_adds_its_digest() {
    // head -c256 /dev/zero | tr "\0" x | sha256sum | cut -c1-40
    let name = [&[b'x'; 213][..], b"%~85e62acd750c4eb56b7b6a1d66dca5bfaac5f062"].concat();
    let long = [b'x'; 256];
    assert_eq!(encode_component(&long).len(), NAME_BYTES_MAX);
    assert_eq!(encode_component(&long)[..215], name[..215]);
    let Ok(Name::Digest(digest)) = decoded(&encode_component(&long)) else { panic!("a digest") };
    assert_eq!(digest.stem().as_ref(), [b'x'; 213]);
    assert!(digest.is_of_component(&long));
    assert!(!digest.is_of_component(&[b'x'; 257]));
    assert_eq!(encode_component(&long).as_ref(), name);
}

#[test]
fn cuts_a_name_that_only_its_escapes_make_too_long() {
    let text = [b"\0".as_slice(), &[b'x'; 253]].concat();
    let Ok(Name::Digest(digest)) = decoded(&encode_component(&text)) else { panic!("a digest") };
    assert!(digest.stem().is_empty(), "nothing is certain before the first %");
    assert!(digest.is_of_component(&text));
}

#[test]
fn knows_the_hidden_names() {
    for (name, hidden) in [
        ("@rev", Hidden::Rev),
        ("@time", Hidden::Time),
        ("@history", Hidden::History),
        ("@watch", Hidden::Watch(None)),
        ("@watch.041", Hidden::Watch(Some(41))),
        ("@watch.99999999999999999999999", Hidden::Watch(Some(u64::MAX))),
        ("@txn", Hidden::Txn),
        ("@status", Hidden::Status),
        ("@keys", Hidden::Keys),
        ("@commit", Hidden::Commit),
    ] {
        assert_eq!(decoded(name.as_bytes()), Ok(Name::Hidden(hidden)));
    }
    assert_eq!(decoded(b"@value"), Ok(Name::Value));
    assert_eq!(decoded(b"@@"), Ok(Name::Reserved));
    assert_eq!(decoded(b"@@anything"), Ok(Name::Reserved));
}

#[test]
fn refuses_what_no_entry_is_called() {
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
        assert!(matches!(decoded(name), Err(NameError::Illegal { .. })));
    }
    assert_eq!(decoded(&[b'x'; 256]), Err(NameError::TooLong { bytes: 256 }));
}

/// Bytes in which the forms of the encoding are frequent.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        8 => Just(b"%".to_vec()),
        8 => Just(b"25".to_vec()),
        4 => Just(b"00".to_vec()),
        4 => Just(b"\0".to_vec()),
        3 => Just(b"2E".to_vec()),
        3 => Just(b".".to_vec()),
        3 => Just(b"40".to_vec()),
        3 => Just(b"@".to_vec()),
        3 => Just(b"~".to_vec()),
        2 => Just(b"rev".to_vec()),
        1 => Just(b"value".to_vec()),
        1 => Just(b"watch.1".to_vec()),
        3 => Just(DIGITS.as_bytes().to_vec()),
        3 => (0..3_usize).prop_map(|count| format!("%{}~{DIGITS}", "25".repeat(count)).into_bytes()),
        1 => Just(vec![b'y'; 200]),
        1 => Just(b"25".repeat(100)),
        4 => any::<u8>().prop_map(|byte| vec![if byte == b'/' { b'%' } else { byte }]),
    ];
    prop_oneof![
        4 => collection::vec(token.clone(), 0..5),
        2 => collection::vec(token, 0..14),
    ]
    .prop_map(|tokens| tokens.concat())
}

fn is_legal(name: &[u8]) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && !matches!(name, b"." | b"..")
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

fn is_of(digest: &DigestName, text: &[u8]) -> bool {
    text.starts_with(digest.stem()) && digest.is_of_component(text)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_component_has_a_legal_name_and_comes_back(text in text()) {
        let name = encode_component(&text);
        prop_assert!(is_legal(&name), "{}", name.escape_ascii());
        match decoded(&name) {
            Ok(Name::Component(back)) => prop_assert_eq!(back, text),
            Ok(Name::Digest(digest)) => {
                prop_assert_eq!(name.len(), NAME_BYTES_MAX);
                prop_assert!(is_of(&digest, &text));
            }
            other => prop_assert!(false, "{:?} for {}", other, name.escape_ascii()),
        }
    }

    #[test]
    fn different_components_have_different_names(a in text(), b in text()) {
        if a != b {
            prop_assert_ne!(encode_component(&a), encode_component(&b));
        }
    }

    #[test]
    fn every_legal_name_is_special_or_the_one_name_of_its_component(name in text()) {
        match decoded(&name) {
            Ok(Name::Component(text)) => prop_assert_eq!(encode_component(&text), name),
            Ok(Name::Digest(digest)) => prop_assert_eq!(digest.name(), &name),
            Ok(Name::Value | Name::Hidden(_) | Name::Reserved) => {
                // Literal text of it has another name.
                prop_assert_ne!(encode_component(&name), name.as_slice());
            }
            Err(_) => prop_assert!(!is_legal(&name)),
        }
    }
}
