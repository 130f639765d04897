//! What holds when, what the past shows, the stored form, and the policy on xattrs.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use proptest::{collection, option, prop_assert, prop_assert_eq};
use revfs_api::keyspace::{Author, DirectoryAnswer, KeyValue, LeaseId, Revision, Time};

use super::{
    Attributes, Defaults, Effective, Kind, RECORD_BYTES_MAX, Record, RecordError, VirtualXattr,
    XATTR_VALUE_BYTES_MAX, XATTRS_BYTES_MAX, XattrError, XattrName, XattrSet, classify_xattr,
    effective_directory, effective_file, in_force_of_directory, in_force_of_file, is_marker,
    record_key,
};

/// A key born at `birth`, with content of `content`, last touched at `changed`. The time of a revision
/// is its number.
fn kv(birth: u64, content: u64, changed: u64) -> KeyValue {
    let time = |revision: u64| Time(i64::try_from(revision).unwrap());
    KeyValue {
        mod_revision: Revision(changed),
        time: time(changed),
        content_revision: Revision(content),
        content_time: time(content),
        birth_revision: Revision(birth),
        ..KeyValue::default()
    }
}

fn record(attributes: &Attributes, content: u64, changed: u64) -> Record {
    Record::read(&KeyValue { value: attributes.encode(), ..kv(0, content, changed) }).unwrap()
}

fn private_file(mtime: Option<i64>) -> Attributes {
    Attributes { uid: Some(7), mtime: mtime.map(Time), ..Attributes::new(Kind::File, 0o600) }
}

const DEFAULTS: Defaults = Defaults { file_mode: 0o644, directory_mode: 0o755, uid: 10, gid: 20 };

#[test]
fn a_plain_key_shows_the_defaults_and_the_time_of_its_content() {
    let moved = kv(3, 5, 9);
    let plain = effective_file(&moved, None, &DEFAULTS);
    let expected = Effective {
        kind: Kind::File,
        mode: 0o644,
        uid: 10,
        gid: 20,
        mtime: Time(5),
        ctime: Time(9),
        xattrs: BTreeMap::new(),
    };
    assert_eq!(plain, expected);
}

#[test]
fn a_record_holds_from_the_birth_of_its_file_on() {
    let of_this_life = record(&private_file(None), 3, 3);
    let shown = effective_file(&kv(3, 8, 8), Some(&of_this_life), &DEFAULTS);
    assert_eq!((shown.mode, shown.uid, shown.gid, shown.ctime), (0o600, 7, 20, Time(8)));

    let later = record(&private_file(None), 9, 9);
    assert_eq!(effective_file(&kv(3, 8, 8), Some(&later), &DEFAULTS).ctime, Time(9));

    let left_behind = record(&private_file(None), 2, 2);
    let shown = effective_file(&kv(3, 3, 3), Some(&left_behind), &DEFAULTS);
    assert_eq!((shown.mode, shown.uid, shown.ctime), (0o644, 10, Time(3)));
}

#[test]
fn a_time_set_by_hand_holds_until_the_content_changes() {
    let touched = record(&private_file(Some(-5)), 6, 6);
    assert_eq!(effective_file(&kv(3, 6, 6), Some(&touched), &DEFAULTS).mtime, Time(-5));
    let put_since = kv(3, 7, 7);
    assert_eq!(effective_file(&put_since, Some(&touched), &DEFAULTS).mtime, Time(7));
    // A chmod after that must not bring the time back.
    assert_eq!(in_force_of_file(&put_since, Some(&touched), &DEFAULTS), private_file(None));
}

#[test]
fn a_move_keeps_what_holds() {
    let file = KeyValue { mod_revision: Revision(30), time: Time(30), ..kv(3, 6, 30) };
    let moved = record(&private_file(Some(1)), 6, 30);
    let shown = effective_file(&file, Some(&moved), &DEFAULTS);
    assert_eq!((shown.mode, shown.mtime, shown.ctime), (0o600, Time(1), Time(30)));
}

#[test]
fn a_directory_takes_its_time_from_its_names_and_its_record_from_its_marker() {
    let directory = DirectoryAnswer { names: 2, changed: Revision(8), time: Time(8) };
    let own = Attributes { mtime: Some(Time(1)), ..Attributes::new(Kind::Directory, 0o700) };
    let (old, new) = (record(&own, 7, 7), record(&own, 9, 9));
    let marker = kv(5, 5, 5);
    let shown = |marker, record| {
        let shown = effective_directory(&directory, marker, record, &DEFAULTS);
        (shown.kind, shown.mode, shown.mtime, shown.ctime)
    };
    assert_eq!(shown(Some(&marker), None), (Kind::Directory, 0o755, Time(8), Time(8)));
    assert_eq!(shown(Some(&marker), Some(&old)), (Kind::Directory, 0o700, Time(8), Time(8)));
    assert_eq!(shown(Some(&marker), Some(&new)), (Kind::Directory, 0o700, Time(1), Time(9)));
    assert_eq!(shown(None, Some(&new)), (Kind::Directory, 0o755, Time(8), Time(8)));
    let in_force = in_force_of_directory(&directory, Some(&marker), Some(&old), &DEFAULTS);
    assert_eq!(in_force, Attributes::new(Kind::Directory, 0o700));
}

#[test]
fn the_kind_in_the_record_says_whether_it_is_the_directorys_or_its_nameless_files() {
    let directory = DirectoryAnswer { names: 1, changed: Revision(4), time: Time(4) };
    let empty = kv(4, 4, 4);
    let full = KeyValue { value_bytes: 3, ..kv(4, 4, 4) };
    let of_file = record(&Attributes::new(Kind::File, 0o600), 4, 4);
    let of_directory = record(&Attributes::new(Kind::Directory, 0o700), 4, 4);

    assert!(is_marker(&empty, None) && is_marker(&empty, Some(&of_directory)));
    assert!(!is_marker(&empty, Some(&of_file)) && !is_marker(&full, None));
    assert!(!is_marker(&full, Some(&of_directory)));

    let file_mode = |record| effective_file(&full, Some(record), &DEFAULTS).mode;
    let directory_mode =
        |record| effective_directory(&directory, Some(&full), Some(record), &DEFAULTS).mode;
    assert_eq!((file_mode(&of_file), directory_mode(&of_file)), (0o600, 0o755));
    assert_eq!((file_mode(&of_directory), directory_mode(&of_directory)), (0o644, 0o700));
}

#[test]
fn a_symlink_has_all_permissions() {
    let link = record(&Attributes::new(Kind::Symlink, 0), 1, 1);
    let shown = effective_file(&kv(1, 1, 1), Some(&link), &DEFAULTS);
    assert_eq!((shown.kind, shown.mode), (Kind::Symlink, 0o777));
}

#[test]
fn the_past_shows_no_more_than_the_present_allows() {
    let then = effective_file(&kv(1, 1, 1), None, &DEFAULTS);
    let now = effective_file(&kv(1, 1, 1), Some(&record(&private_file(None), 5, 5)), &DEFAULTS);
    let past = then.clone().as_past(Some(&now));
    assert_eq!((past.mode, past.uid, past.mtime), (0o600, 7, Time(1)));
    let once_private = now.clone().as_past(Some(&then));
    assert_eq!((once_private.mode, once_private.uid), (0o600, 10));
    let gone = then.as_past(None);
    assert_eq!((gone.mode, gone.uid), (0o600, 10));
    let link = record(&Attributes::new(Kind::Symlink, 0), 1, 1);
    let link = effective_file(&kv(1, 1, 1), Some(&link), &DEFAULTS);
    assert_eq!(link.clone().as_past(Some(&now)).mode, 0o777);
    assert_eq!(link.as_past(None).mode, 0o777);
}

#[test]
fn only_what_differs_from_a_plain_key_needs_a_record() {
    let plain = Attributes::plain_file(&DEFAULTS);
    assert!(plain.is_default(&DEFAULTS));
    assert!(Attributes::plain_directory(&DEFAULTS).is_default(&DEFAULTS));
    assert!(Attributes { uid: Some(10), gid: Some(20), ..plain.clone() }.is_default(&DEFAULTS));
    let mut tagged = plain.clone();
    tagged.set_xattr(b"user.tag", b"", XattrSet::CreateOrReplace).unwrap();
    for other in [
        Attributes { mode: 0o600, ..plain.clone() },
        Attributes { uid: Some(0), ..plain.clone() },
        Attributes { gid: Some(0), ..plain.clone() },
        Attributes { mtime: Some(Time(0)), ..plain.clone() },
        Attributes { kind: Kind::Symlink, ..plain },
        tagged,
    ] {
        assert!(!other.is_default(&DEFAULTS), "{other:?}");
    }
}

#[test]
fn the_stored_form_is_as_documented() {
    let attributes = Attributes {
        uid: Some(0x0102_0304),
        mtime: Some(Time(-2)),
        xattrs: [(Bytes::from("user.a"), Bytes::from("xy"))].into(),
        ..Attributes::new(Kind::BlockDevice { rdev: 0x0801 }, 0o4751)
    };
    let expected = [
        &[1, 7, 0x09, 0xe9, 5][..],
        &[1, 2, 3, 4],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe],
        &[0, 0, 8, 1],
        &[0, 1, 6],
        b"user.a",
        &[0, 0, 0, 2],
        b"xy",
    ]
    .concat();
    assert_eq!(attributes.encode(), expected);
    assert_eq!(Attributes::decode(&expected.into()), Ok(attributes));
    assert_eq!(record_key(b"/app/"), &b"\0revfs/a/app/"[..]);
}

#[test]
fn what_is_no_record_is_refused() {
    let decode = |bytes: &[u8]| Attributes::decode(&Bytes::copy_from_slice(bytes));
    assert_eq!(decode(&[2, 1]), Err(RecordError::Version { version: 2 }));
    assert_eq!(decode(b""), Err(RecordError::Short { bytes: 0, wanted: 1, left: 0 }));
    let plain = [1, 1, 1, 0xa4, 0, 0, 0];
    assert_eq!(decode(&plain), Ok(Attributes::new(Kind::File, 0o644)));
    for (index, value) in [(1, 0), (1, 8), (2, 0x10), (4, 8)] {
        let mut bad = plain;
        bad[index] = value;
        assert!(matches!(decode(&bad), Err(RecordError::Field { .. })), "{bad:?}");
    }
    assert!(matches!(decode(&[&plain[..], &[0]].concat()), Err(RecordError::Field { .. })));
    let twice = [&plain[..5], &[0, 2, 1, b'b', 0, 0, 0, 0, 1, b'b', 0, 0, 0, 0]].concat();
    assert!(matches!(decode(&twice), Err(RecordError::Field { .. })));
    let endless = [&plain[..5], &[0, 1, 1, b'b', 0xff, 0xff, 0xff, 0xff]].concat();
    assert!(matches!(decode(&endless), Err(RecordError::Field { .. })));
}

#[test]
fn xattrs_are_stored_answered_or_refused_by_their_names() {
    for (name, class, read, write) in [
        ("user.tag", XattrName::Stored, None, None),
        ("user.revfsx", XattrName::Stored, None, None),
        ("user.revfs.key", XattrName::Virtual(VirtualXattr::Key), None, Some(XattrError::ReadOnly)),
        (
            "user.revfs.other",
            XattrName::ReservedName,
            Some(XattrError::NotThere),
            Some(XattrError::ReadOnly),
        ),
        (
            "security.capability",
            XattrName::NeverThere,
            Some(XattrError::NotThere),
            Some(XattrError::Unsupported),
        ),
        (
            "system.posix_acl_access",
            XattrName::Unsupported,
            Some(XattrError::Unsupported),
            Some(XattrError::Unsupported),
        ),
        (
            "trusted.overlay.opaque",
            XattrName::Unsupported,
            Some(XattrError::Unsupported),
            Some(XattrError::Unsupported),
        ),
        (
            "user.",
            XattrName::Unsupported,
            Some(XattrError::Unsupported),
            Some(XattrError::Unsupported),
        ),
    ] {
        assert_eq!(classify_xattr(name.as_bytes()), class, "{name}");
        assert_eq!(class.check_readable().err(), read, "{name}");
        assert_eq!(class.check_writable().err(), write, "{name}");
    }
    let errnos = [XattrError::NotThere, XattrError::ReadOnly, XattrError::Unsupported];
    assert_eq!(errnos.map(XattrError::errno), [libc::ENODATA, libc::EPERM, libc::EOPNOTSUPP]);
}

#[test]
fn xattrs_keep_their_bounds() {
    let mut file = Attributes::new(Kind::File, 0o644);
    let mut set = |name: &str, value_bytes, how| {
        file.set_xattr(name.as_bytes(), &vec![b'v'; value_bytes], how)
    };
    assert_eq!(set("user.a", 1, XattrSet::Replace), Err(XattrError::NotThere));
    assert_eq!(set("user.a", 1, XattrSet::Create), Ok(()));
    assert_eq!(set("user.a", 1, XattrSet::Create), Err(XattrError::Exists));
    assert_eq!(set("user.a", XATTRS_BYTES_MAX - 7, XattrSet::Replace), Ok(()));
    let full = XattrError::NoSpace { bytes: XATTRS_BYTES_MAX + 7 };
    assert_eq!(set("user.b", 0, XattrSet::Create), Err(full));
    let bytes = XATTR_VALUE_BYTES_MAX + 1;
    assert_eq!(
        set("user.a", bytes, XattrSet::CreateOrReplace),
        Err(XattrError::ValueTooLarge { bytes })
    );
    let long = format!("user.{}", "n".repeat(251));
    assert_eq!(set(&long, 0, XattrSet::Create), Err(XattrError::NameTooLong { bytes: 256 }));
    assert_eq!(file.xattr(b"user.a").map(Bytes::len), Ok(XATTRS_BYTES_MAX - 7));
    assert_eq!(Attributes::decode(&file.encode()).as_ref(), Ok(&file));
    assert_eq!(file.remove_xattr(b"user.a"), Ok(()));
    assert_eq!(file.remove_xattr(b"user.a"), Err(XattrError::NotThere));
    assert_eq!(file.remove_xattr(b"user.revfs.key"), Err(XattrError::ReadOnly));
}

#[test]
fn the_bound_on_records_holds_for_the_most_xattrs() {
    let name = |index: usize| Bytes::from(format!("user.{index:05}"));
    let xattrs = (0..XATTRS_BYTES_MAX / 11).map(|index| (name(index), Bytes::new())).collect();
    let file = Attributes { xattrs, ..Attributes::new(Kind::File, 0o644) };
    assert!(file.encode().len() <= RECORD_BYTES_MAX);
    assert_eq!(Attributes::decode(&file.encode()), Ok(file));
}

#[test]
fn virtual_xattrs_tell_of_the_key() {
    let kv = KeyValue {
        create_revision: Revision(4),
        mod_revision: Revision(41),
        version: 3,
        lease: LeaseId(0x7f),
        time: Time(1_785_672_000_000_000_500),
        ..KeyValue::default()
    };
    let author = |principal: &str, claimed: &str| Author {
        principal: principal.into(),
        claimed: claimed.into(),
    };
    let value = |xattr: VirtualXattr, author: Option<Author>| {
        xattr.value(b"/\xff", Some(&kv), author.as_ref())
    };
    for (xattr, expected) in [
        (VirtualXattr::Key, &b"/\xff"[..]),
        (VirtualXattr::CreateRevision, b"4"),
        (VirtualXattr::ModRevision, b"41"),
        (VirtualXattr::Version, b"3"),
        (VirtualXattr::Time, b"2026-08-02T12:00:00.0000005Z"),
        (VirtualXattr::Lease, b"7f"),
    ] {
        assert_eq!(value(xattr, None).as_deref(), Ok(expected), "{xattr:?}");
    }
    for (principal, claimed, expected) in [
        ("ann", "", Ok("ann")),
        ("ann", "a@pc", Ok("ann (claimed a@pc)")),
        ("", "a@pc", Ok("a@pc (claimed)")),
        ("", "", Err(XattrError::NotThere)),
    ] {
        let told = value(VirtualXattr::Author, Some(author(principal, claimed)));
        assert_eq!(told, expected.map(|text| text.as_bytes().to_vec()));
    }
    let without_lease = KeyValue::default();
    assert_eq!(
        VirtualXattr::Lease.value(b"k", Some(&without_lease), None),
        Err(XattrError::NotThere)
    );
    assert_eq!(VirtualXattr::Version.value(b"k", None, None), Err(XattrError::NotThere));
    assert_eq!(VirtualXattr::Key.value(b"k", None, None).as_deref(), Ok(&b"k"[..]));
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let kind = prop_oneof![
        Just(Kind::File),
        Just(Kind::Directory),
        Just(Kind::Symlink),
        Just(Kind::Fifo),
        Just(Kind::Socket),
        any::<u32>().prop_map(|rdev| Kind::CharDevice { rdev }),
        any::<u32>().prop_map(|rdev| Kind::BlockDevice { rdev }),
    ];
    let bytes = |range| collection::vec(any::<u8>(), range).prop_map(Bytes::from);
    let xattrs = collection::btree_map(bytes(1..40), bytes(0..40), 0..5);
    let owner = || option::of(any::<u32>());
    (kind, 0..=0o7777_u16, owner(), owner(), option::of(any::<i64>()), xattrs).prop_map(
        |(kind, mode, uid, gid, mtime, xattrs)| Attributes {
            kind,
            mode,
            uid,
            gid,
            mtime: mtime.map(Time),
            xattrs,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn records_come_back(attributes in attributes()) {
        let record = attributes.encode();
        prop_assert!(record.len() <= RECORD_BYTES_MAX);
        prop_assert_eq!(Attributes::decode(&record), Ok(attributes));
    }

    #[test]
    fn damaged_records_are_refused_or_are_other_records(
        attributes in attributes(),
        changes in collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<proptest::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut record = attributes.encode().to_vec();
        for (index, byte) in changes {
            let index = index.index(record.len());
            record[index] = byte;
        }
        if is_cut {
            record.truncate(cut.index(record.len()));
        }
        let record = Bytes::from(record);
        if let Ok(decoded) = Attributes::decode(&record) {
            prop_assert_eq!(decoded.encode(), record);
        }
    }
}
