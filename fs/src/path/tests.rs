//! Directories, whole paths and bounds.

use std::path::Path;

use bytes::Bytes;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use proptest::{collection, prop_assert, prop_assert_eq, prop_assert_ne};
use revfs_api::keyspace::KEY_BYTES_MAX;

use super::{DirectoryKey, Listed, NameError, check_key, escaped_bytes, keys_name};

fn directory(prefix: &'static str) -> DirectoryKey {
    DirectoryKey::new(prefix).unwrap()
}

#[test]
fn a_directory_knows_its_keys() {
    let app = directory("/app/");
    assert_eq!(app.child_key(b"color"), "/app/color");
    assert_eq!(app.child_directory(b"sub"), directory("/app/sub/"));
    assert_eq!(app.child_directory(b""), directory("/app//"));
    assert_eq!(app.parent(), Some(DirectoryKey::default()));
    assert_eq!(app.name_in_parent(), Some(Bytes::from("app")));
    assert_eq!(app.marker(), Some(Bytes::from("/app/")));
    assert_eq!(app.value_key(), Some(Bytes::from("/app")));
    assert!(app.contains(b"/app/x") && app.contains(b"/app/") && !app.contains(b"/app"));
    assert!(app.range().contains(b"/app/") && !app.range_below_marker().contains(b"/app/"));
    assert!(app.range_below_marker().contains(b"/app/\0"));
    assert!(!app.range_below_marker().contains(b"/app0"));
}

#[test]
fn the_outermost_directories_have_no_marker_or_value() {
    let all = directory("");
    assert_eq!((all.marker(), all.value_key(), all.split()), (None, None, None));
    assert!(all.range_below_marker().contains(b"\0"));
    let root = DirectoryKey::default();
    assert_eq!((root.marker(), root.value_key()), (Some(Bytes::from("/")), None));
    assert_eq!(root.split(), Some((all, Bytes::new())));
    assert!(matches!(DirectoryKey::new("/app"), Err(NameError::NotADirectory { .. })));
}

#[test]
fn a_key_is_split_at_its_last_slash() {
    for (key, prefix, component) in
        [("/a/b", "/a/", "b"), ("/a/", "/a/", ""), ("a", "", "a"), ("", "", ""), ("//", "//", "")]
    {
        let split = DirectoryKey::of_key(&Bytes::from(key));
        assert_eq!(split, (directory(prefix), Bytes::from(component)));
    }
}

#[test]
fn keys_have_the_paths_that_the_rules_say() {
    let root = DirectoryKey::default();
    for (key, path) in [
        ("/app/color", "app/color"),
        ("/app/", "app/%"),
        ("/a//b", "a/%/b"),
        ("/", "%"),
        ("//", "%/%"),
        ("/../@rev", "%2E%2E/%40rev"),
        ("/@babel/core", "@babel/core"),
    ] {
        assert_eq!(root.path_of(key.as_bytes()).as_deref(), Some(Path::new(path)), "{key}");
        assert_eq!(root.key_of(Path::new(path)), Ok(Bytes::from(key)), "{path}");
    }
    assert_eq!(root.path_of(b"app"), None);
    assert_eq!(root.path_of(b""), None);
    assert_eq!(directory("").path_of(b"").as_deref(), Some(Path::new("%")));
}

#[test]
fn value_is_another_path_of_a_key_and_hidden_names_are_none() {
    let root = DirectoryKey::default();
    assert_eq!(root.key_of(Path::new("app/@value")), Ok(Bytes::from("/app")));
    assert_eq!(root.key_of(Path::new("a/%/@value")), Ok(Bytes::from("/a/")));
    for path in ["@value", "app/@value/x", "@rev/4", "app/@status", "@@x"] {
        assert!(matches!(root.key_of(Path::new(path)), Err(NameError::Hidden { .. })), "{path}");
    }
    for path in ["", "a//b", "a/", "/a", "a/../b", "./a"] {
        assert!(matches!(root.key_of(Path::new(path)), Err(NameError::Illegal { .. })), "{path}");
    }
    let shortened = root.path_of(format!("/{}", "x".repeat(300)).as_bytes()).unwrap();
    assert!(matches!(root.key_of(&shortened), Err(NameError::Shortened { .. })));
}

#[test]
fn listed_names_are_markers_keys_and_directories() {
    assert_eq!(Listed::new(b""), Listed::Marker);
    assert_eq!(Listed::new(b"color"), Listed::Key(b"color"));
    assert_eq!(Listed::new(b"app/"), Listed::Directory(b"app"));
    assert_eq!(Listed::new(b"/"), Listed::Directory(b""));
    assert_eq!(Listed::new(b"/").component(), b"");
}

#[test]
fn the_bound_counts_escaped_bytes() {
    assert_eq!(escaped_bytes(b"a\0\x01\x02"), 6);
    let longest = vec![b'x'; KEY_BYTES_MAX];
    assert_eq!(check_key(&longest, KEY_BYTES_MAX), Ok(()));
    let longer = [longest, vec![0]].concat();
    assert_eq!(
        check_key(&longer, KEY_BYTES_MAX),
        Err(NameError::KeyTooLong { bytes: KEY_BYTES_MAX + 2, max: KEY_BYTES_MAX })
    );
    let deep = "x/".repeat(KEY_BYTES_MAX / 2) + "x";
    let root = DirectoryKey::default();
    assert!(matches!(root.key_of(Path::new(&deep)), Err(NameError::KeyTooLong { .. })));
}

/// Keys in which slashes and the forms of names are frequent; no component is over 255 bytes.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        6 => Just(b"/".to_vec()),
        2 => Just(b"%".to_vec()),
        2 => Just(b"25".to_vec()),
        2 => Just(b".".to_vec()),
        2 => Just(b"@rev".to_vec()),
        2 => Just(b"\0".to_vec()),
        1 => Just(b"2E".to_vec()),
        1 => Just(b"@value".to_vec()),
        3 => any::<u8>().prop_map(|byte| vec![byte]),
    ];
    collection::vec(token, 0..12).prop_map(|tokens| tokens.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn every_key_below_the_root_has_one_path(key in key(), other in key()) {
        for root in [DirectoryKey::default(), DirectoryKey::new("").unwrap()] {
            match root.path_of(&key) {
                Some(path) => {
                    prop_assert_eq!(root.key_of(&path), Ok(Bytes::from(key.clone())));
                    if other != key {
                        prop_assert_ne!(root.path_of(&other), Some(path));
                    }
                }
                None => {
                    prop_assert!(!root.contains(&key));
                    prop_assert!(!keys_name(&key).is_empty());
                }
            }
        }
    }

    #[test]
    fn every_path_is_refused_or_the_one_path_of_its_key(path in key()) {
        use std::os::unix::ffi::OsStrExt;
        let path = Path::new(std::ffi::OsStr::from_bytes(&path));
        let root = DirectoryKey::default();
        if let Ok(key) = root.key_of(path) {
            if path.ends_with("@value") {
                let ordinary = root.path_of(&key).unwrap();
                prop_assert_ne!(ordinary.as_os_str(), path.as_os_str());
            } else {
                // By bytes: `Path` takes `a/.` and `a` for equal.
                let back = root.path_of(&key).unwrap();
                prop_assert_eq!(back.as_os_str(), path.as_os_str());
            }
        }
    }
}
