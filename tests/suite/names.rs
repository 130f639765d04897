//! Names: every byte string that is a key has one path, and every file name is one key.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use nix::errno::Errno;
use revfs_tests::Mount;

use crate::posix::errno_of;

fn names_in(mount: &Mount, dir: &str) -> BTreeSet<OsString> {
    fs::read_dir(mount.path(dir))
        .expect("a directory lists")
        .map(|entry| entry.expect("an entry").file_name())
        .collect()
}

#[test]
fn odd_names_are_ordinary() {
    let mount = Mount::up();
    let longest = "x".repeat(255);
    let names: [&[u8]; 16] = [
        b"two\nlines",
        b" spaces ",
        b"tab\there",
        b"back\\slash",
        b"\xff\xfe\x80 not utf-8",
        "snow \u{2603}".as_bytes(),
        b"-rf",
        b"@types",
        b"@scope",
        b"%41",
        b"%25",
        b"%%",
        b"100%",
        b"*?[]{}$`'\"",
        b"\x01\x02\x7f",
        longest.as_bytes(),
    ];
    for name in names {
        let path = mount.dir().join(OsStr::from_bytes(name));
        fs::write(&path, name).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        assert_eq!(fs::read(&path).expect("it was written"), name);
    }
    let expected: BTreeSet<OsString> =
        names.iter().map(|name| OsString::from_vec(name.to_vec())).collect();
    assert_eq!(names_in(&mount, "."), expected);
    for name in names {
        fs::remove_file(mount.dir().join(OsStr::from_bytes(name))).expect("it is removed");
    }
    assert_eq!(names_in(&mount, ".").len(), 0);
}

/// `%` is an empty component: the key with a slash at its end, which is the directory's marker.
#[test]
fn a_lone_percent_sign_is_the_empty_component() {
    let mount = Mount::up();
    assert_eq!(errno_of(fs::write(mount.path("%"), "x")), Errno::EPERM);
    mount.ok("mkdir d; revfs put --key /d/ value; revfs put --key /e/ value");
    assert_eq!(mount.ok("ls d e; cat d/% e/%"), "d:\n%\n\ne:\n%\nvaluevalue");
}

#[test]
fn a_name_of_256_bytes_is_too_long() {
    let mount = Mount::up();
    let path = mount.path(&"x".repeat(256));
    assert_eq!(errno_of(fs::write(&path, "x")), Errno::ENAMETOOLONG);
    assert_eq!(errno_of(fs::create_dir(&path)), Errno::ENAMETOOLONG);
}

#[test]
fn a_path_whose_key_would_be_too_long_is_refused_before_anything_is_kept() {
    let mount = Mount::up();
    mount.ok(&format!("mkdir -p {}", vec!["x".repeat(200); 8].join("/")));
    let before = mount.revision();
    let deep = mount.path(&vec!["x".repeat(200); 8].join("/")).join("y".repeat(255));
    let deeper = deep.join("z".repeat(255));
    fs::create_dir(&deep).ok();
    assert_eq!(errno_of(fs::write(&deeper, "x")), Errno::ENAMETOOLONG);
    assert!(mount.revision() <= before + 1);
}

/// (key, the path that shows it)
const KEYS: &[(&[u8], &[u8])] = &[
    (b"/@rev", b"%40rev"),
    (b"/@history", b"%40history"),
    (b"/a/@status", b"a/%40status"),
    (b"/a/@types", b"a/@types"),
    (b"/a//b", b"a/%/b"),
    (b"/a/./b", b"a/%2E/b"),
    (b"/a/../b", b"a/%2E%2E/b"),
    (b"/%41", b"%41"),
    (b"/%", b"%25"),
    (b"/%40rev", b"%2540rev"),
    (b"/d/\xff\xfe", b"d/\xff\xfe"),
    (b"/line\nfeed", b"line\nfeed"),
];

#[test]
fn every_key_has_one_path() {
    let mount = Mount::up();
    for (number, (key, path)) in KEYS.iter().enumerate() {
        let value = format!("value {number}");
        let key = OsStr::from_bytes(key);
        put_key(&mount, key, &value);
        let path = mount.dir().join(OsStr::from_bytes(path));
        let read = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        assert_eq!(read, value, "{key:?} at {path:?}");
    }
    for (_, path) in KEYS {
        let path = mount.dir().join(OsStr::from_bytes(path));
        let (parent, name) = (path.parent().expect("below the mount"), path.file_name());
        let listed = fs::read_dir(parent)
            .expect("its directory lists")
            .any(|entry| Some(entry.expect("an entry").file_name().as_os_str()) == name);
        assert!(listed, "{path:?} is not listed");
    }
}

fn put_key(mount: &Mount, key: &OsStr, value: &str) {
    let shell = mount.shell().variable("KEY", key).variable("VALUE", value);
    shell.run("revfs put --key \"$KEY\" \"$VALUE\"").ok();
}

#[test]
fn a_key_with_a_value_and_keys_below_is_a_directory_with_its_value_in_it() {
    let mount = Mount::up();
    mount.ok("revfs put --key /a one; revfs put --key /a/b two");
    assert_eq!(mount.ok("ls a; cat a/@value a/b"), "@value\nb\nonetwo");
    mount.ok("echo -n three > a/@value");
    assert_eq!(mount.ok("revfs get --key /a"), "three");
    mount.ok("rm a/b a/@value; rmdir a; ls");
}

/// An API client makes a directory of what the kernel knows as a file, and the reverse.
#[test]
fn a_name_that_changes_its_kind_is_shown_as_what_it_is() {
    let mount = Mount::up();
    mount.ok("echo one > a; cat a; exec 5< a; revfs put --key /a/b two; cat <&5 > $SCRATCH/held");
    let deadline = std::time::Duration::from_secs(10);
    revfs_tests::wait::until_true("a directory", deadline, || mount.path("a").is_dir());
    assert_eq!(mount.ok("cat $SCRATCH/held a/@value a/b"), "one\none\ntwo");
    mount.ok("revfs del --key /a/b");
    revfs_tests::wait::until_true("a file", deadline, || mount.path("a").is_file());
    assert_eq!(mount.ok("cat a"), "one");
}

#[test]
fn names_that_are_hidden_cannot_be_made() {
    let mount = Mount::up();
    mount.ok("mkdir d");
    for name in ["@rev", "@time", "@history", "@watch", "@value", "@commit", "@@later"] {
        for dir in [".", "d"] {
            let path = mount.path(dir).join(name);
            assert!(fs::create_dir(&path).is_err(), "mkdir {path:?}");
            assert!(fs::write(&path, "x").is_err(), "create {path:?}");
        }
    }
    assert_eq!(mount.ok("ls -a d"), ".\n..");
    assert_eq!(mount.ok("find . -name '@*'"), "", "hidden names are never listed");
}

#[test]
fn every_key_is_in_keys() {
    let mount = Mount::up();
    mount.ok("echo x > f; mkdir d; revfs put --key outside y; revfs put --key $'a\\001/b' z");
    let listed = mount.ok("ls @keys");
    for name in ["%2Ff", "outside", "a%01%2Fb"] {
        assert!(listed.lines().any(|line| line == name), "{name} is missing in {listed}");
    }
    assert_eq!(mount.ok("cat @keys/outside @keys/a%01%2Fb @keys/%2Ff"), "yzx");
    assert_eq!(mount.ok("stat -c %a @keys"), "700");
}

#[test]
fn a_component_that_is_too_long_for_a_name_is_shown_shortened() {
    let mount = Mount::up();
    let component = "k".repeat(600);
    put_key(&mount, OsStr::new(&format!("/{component}")), "long");
    let listed = mount.ok("ls");
    assert!(listed.len() <= 255 && listed.starts_with("kkkk"), "{listed}");
    assert!(listed.contains("%~"), "{listed}");
    assert_eq!(mount.ok("cat *"), "long");
    mount.ok("echo -n changed > k*");
    let shell = mount.shell().variable("KEY", format!("/{component}"));
    assert_eq!(shell.run("revfs get --key \"$KEY\"").ok(), "changed");
}

/// A directory never vanishes under the shell that stands in it.
#[test]
fn a_directory_stays_when_its_last_file_is_removed() {
    let mount = Mount::up();
    mount.ok("revfs put --key /app/color red");
    mount.ok("cd app; rm color; ls; echo blue > color; cat color; rm color");
    assert_eq!(mount.ok("ls -d app; ls app"), "app");
}
