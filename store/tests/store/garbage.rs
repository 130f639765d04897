//! Every decoder, given garbage: an error or a value that encodes to the same bytes, never a panic.

use bytes::Bytes;
use revfs_store::schema::{
    AUTH_ROW, KeyRow, Skip, StateRow, Tree, UploadState, Want, attachment_row, decode_attachment,
    decode_auth, decode_change, decode_directory, decode_format, decode_key_row, decode_lease,
    decode_name, decode_revision_row, decode_role, decode_stamp, decode_state, decode_upload,
    decode_upload_ops, decode_upload_part, decode_user, encode_attachment, encode_auth,
    encode_change, encode_directory, encode_format, encode_key_row, encode_lease, encode_name,
    encode_role, encode_stamp, encode_state, encode_upload, encode_upload_part, encode_user,
    key_of_prefix, key_row, lease_row, name_of_prefix, revision_row, split_descending,
    split_upload_row, upload_part_row, upload_row,
};
use revfs_store::types::{
    Author, DirectoryState, KeyRange, KeyValue, Lease, LeaseId, Op, Revision, Stamp, TXN_DEPTH_MAX,
    Time, Txn,
};
use revfs_store::{
    Access, Body, Command, EncodeError, PasswordHash, Permission, Role, TokenSecret, User,
};

use crate::random::{self, Random};

/// Flips bits, cuts, extends or overwrites.
fn mutate(r: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=r.below(3) {
        let at = r.index(bytes.len().max(1));
        match r.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.push(u8::try_from(r.below(256)).unwrap()),
            2 if at < bytes.len() => bytes[at] = 0xFF,
            3 if at < bytes.len() => bytes[at] = 0,
            _ if at < bytes.len() => bytes[at] ^= 1 << r.below(8),
            _ => {}
        }
    }
}

#[test]
fn mutated_commands_decode_to_what_encodes_to_them_or_to_an_error() {
    let mut r = Random::new(random::seed());
    let (mut refused, mut read) = (0, 0);
    for round in 0..40_000 {
        let command = random::command(&mut r, 3, 40, round);
        let whole = random::asked(&mut r, 3, command).encode().unwrap();
        let mut bytes = whole.to_vec();
        mutate(&mut r, &mut bytes);
        let bytes = Bytes::from(bytes);
        match Command::decode(&bytes) {
            Ok(command) => {
                assert_eq!(command.encode().unwrap(), bytes);
                read += 1;
            }
            Err(_) => refused += 1,
        }
    }
    println!("{refused} refused, {read} read");
    assert!(refused > 1_000 && read > 1_000);
}

#[test]
fn a_request_holds_no_request() {
    let request = |body| Body::Request { user: "u".to_owned(), auth_revision: 1, body };
    let command = |body| Command { body, ..random::command(&mut Random::new(1), 0, 1, 1) };
    let once = command(request(Box::new(Body::Compact { revision: Revision(3) })));
    let bytes = once.encode().unwrap().to_vec();
    assert_eq!(Command::decode(&bytes.clone().into()), Ok(once.clone()));
    let twice = command(request(Box::new(once.body)));
    assert_eq!(twice.encode(), Err(EncodeError::RequestInRequest));
    // What is wrapped stands behind the wrapping of 14 bytes: wrap it again.
    let at = bytes.len() - 9;
    let twice = [&bytes[..at], &bytes[at - 14..]].concat();
    assert!(Command::decode(&twice.into()).is_err());
}

#[test]
fn a_command_nests_so_deep_and_no_deeper() {
    let nested = |depth: usize| {
        let mut txn = Txn::default();
        for _ in 1..depth {
            txn = Txn { success: vec![Op::Txn(txn)], ..Txn::default() };
        }
        let author = Author::default();
        Command { time: Time(0), author, note: Bytes::new(), body: Body::Txn(txn) }
    };
    let deepest = nested(TXN_DEPTH_MAX);
    assert_eq!(Command::decode(&deepest.encode().unwrap()), Ok(deepest));
    let error = nested(TXN_DEPTH_MAX + 1).encode().unwrap_err();
    assert_eq!(error, EncodeError::TooDeep { max: TXN_DEPTH_MAX });
    // 0x04 opens a nested transaction: a decoder that recursed on it would overflow its stack.
    let mut bytes = nested(1).encode().unwrap().to_vec();
    bytes.truncate(bytes.len() - 12);
    for _ in 0..100_000 {
        bytes.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1, 4]);
    }
    assert!(Command::decode(&Bytes::from(bytes)).is_err());
}

fn sample_key_row(r: &mut Random, key: &Bytes) -> KeyRow {
    let value = if r.one_in(3) { Bytes::new() } else { Bytes::from(vec![7; r.index(60)]) };
    let tombstone = r.one_in(4);
    let mut kv = KeyValue {
        key: key.clone(),
        mod_revision: Revision(r.below(100)),
        time: Time(i64::try_from(r.below(1000)).unwrap()),
        ..KeyValue::default()
    };
    if !tombstone {
        kv.value_bytes = u64::try_from(value.len()).unwrap();
        kv.value = value;
        kv.create_revision = Revision(r.below(100));
        kv.version = r.below(9);
        kv.lease = LeaseId(i64::try_from(r.below(3)).unwrap() - 1);
        let carried = r.one_in(2);
        kv.content_revision = if carried { Revision(1) } else { kv.mod_revision };
        kv.content_time = if carried { Time(3) } else { kv.time };
        kv.birth_revision = if carried { Revision(2) } else { kv.create_revision };
    }
    KeyRow { sub: u32::try_from(r.below(9)).unwrap(), tombstone, kv }
}

#[test]
fn rows_of_keys_come_back_and_damaged_ones_do_not() {
    let mut r = Random::new(random::seed());
    for _ in 0..20_000 {
        let key = random::key(&mut r);
        let version = sample_key_row(&mut r, &key);
        let revision = version.kv.mod_revision;
        let row = key_row(&key, revision);
        let (prefix, found) = split_descending(Tree::Keys, &row).unwrap();
        assert_eq!((key_of_prefix(Tree::Keys, prefix).unwrap(), found), (key.clone(), revision));
        let value = encode_key_row(&row, &version);
        let decoded = decode_key_row(&row, key.clone(), revision, &value, Want::Value).unwrap();
        assert_eq!(decoded, version);
        let mut damaged = value.clone();
        mutate(&mut r, &mut damaged);
        if damaged != value {
            let decoded = decode_key_row(&row, key.clone(), revision, &damaged, Want::Value);
            assert!(decoded.is_err(), "{damaged:?} of {value:?}");
        }
        // A row under another key is another row.
        let other = key_row(&key, revision.next());
        assert!(decode_key_row(&other, key, revision, &value, Want::Header).is_err());
    }
}

/// Damages a row's value, or its key, in many ways.
fn refuses(value: &[u8], decode: &dyn Fn(&[u8]) -> bool, r: &mut Random) {
    assert!(decode(value));
    for _ in 0..3_000 {
        let mut damaged = value.to_vec();
        mutate(r, &mut damaged);
        assert_eq!(decode(&damaged), damaged == value, "{damaged:?}");
    }
}

#[test]
fn damaged_rows_of_the_other_trees_are_refused() {
    let mut r = Random::new(random::seed());
    let state = StateRow {
        txn: 9,
        current: Revision(8),
        compacted: Some(Revision(4)),
        time: Time(-3),
        applied: Some((77, 3, Bytes::from_static(b"raft"))),
        pass: Default::default(),
        skips: vec![Skip { after: Revision(3), until: Revision(8) }],
    };
    assert_eq!(decode_state(&encode_state(&state)).unwrap(), state);
    let main = 5u64.to_be_bytes();
    let author = Author { principal: "alice".to_owned(), claimed: "bob@host".to_owned() };
    let note = Bytes::from_static(b"\x00note");
    let stamp = Stamp { revision: Revision(5), time: Time(6), author, note };
    assert_eq!(decode_stamp(&main, &encode_stamp(&main, &stamp)).unwrap(), stamp);
    refuses(&encode_state(&state), &|v| decode_state(v).is_ok(), &mut r);
    refuses(&encode_stamp(&main, &stamp), &|v| decode_stamp(&main, v).is_ok(), &mut r);
    refuses(&encode_change(&main, true, b"/k"), &|v| decode_change(&main, v).is_ok(), &mut r);
    refuses(&encode_name(b"row", true), &|v| decode_name(b"row", v).is_ok(), &mut r);
    let row = lease_row(LeaseId(-5));
    let lease = Lease { id: LeaseId(-5), ttl_seconds: 60, remaining_seconds: 7 };
    let value = encode_lease(&row, &lease);
    assert_eq!(decode_lease(&row, &value).unwrap(), lease);
    refuses(&value, &|v| decode_lease(&row, v).is_ok(), &mut r);
    let row = attachment_row(LeaseId(-5), b"/k");
    let value = encode_attachment(&row);
    assert_eq!(decode_attachment(&row, &value).unwrap(), &b"/k"[..]);
    refuses(&value, &|v| decode_attachment(&row, v).is_ok(), &mut r);
    // The key of an attachment is in its row: a row that was changed is another one.
    refuses(&row, &|row| decode_attachment(row, &value).is_ok(), &mut r);
    let row = upload_row(LeaseId(-5));
    let upload = UploadState { parts: 2, operations: 3, value_bytes: 4, bytes: 5 };
    let value = encode_upload(&row, &upload);
    assert_eq!(decode_upload(&row, &value), Ok(upload));
    refuses(&value, &|v| decode_upload(&row, v).is_ok(), &mut r);
    let row = upload_part_row(LeaseId(-5), 7);
    assert_eq!(split_upload_row(&row), Ok((LeaseId(-5), Some(7))));
    // Two operations: put "k" "v", delete of the key "d".
    let ops = b"\0\0\0\x02\x01\0\0\0\0\0\0\0\0\0\0\0\0\x01k\0\0\0\x01v\x02\0\x01\0\0\0\x01d";
    let value = encode_upload_part(&row, ops);
    assert_eq!(decode_upload_ops(&row, &value), Ok(vec![Op::put("k", "v"), Op::delete("d")]));
    refuses(&value, &|v| decode_upload_ops(&row, v).is_ok(), &mut r);
    refuses(&row, &|row| decode_upload_ops(row, &value).is_ok(), &mut r);
    // Whole by its checksum, and no operations all the same.
    let value = encode_upload_part(&row, &ops[..ops.len() - 1]);
    assert!(decode_upload_part(&row, &value).is_ok() && decode_upload_ops(&row, &value).is_err());
    let format = encode_format(7);
    refuses(&format, &|v| decode_format(v) == Some(7), &mut r);
    let row = revision_row(Revision(5), 6);
    refuses(&row, &|v| decode_revision_row(v) == Ok((Revision(5), 6)), &mut r);
    let state = DirectoryState { names: 3, changed: Revision(2), time: Time(4) };
    let directory = encode_directory(b"row", &state);
    refuses(&directory, &|v| decode_directory(b"row", v).is_ok(), &mut r);
}

#[test]
fn damaged_rows_of_users_and_roles_are_refused() {
    let mut r = Random::new(random::seed());
    let roles = vec!["app".to_owned(), "root".to_owned()];
    let password = Some(PasswordHash(Bytes::from_static(b"hash")));
    let user = User { name: "alice".to_owned(), password, roles };
    let value = encode_user(b"alice", &user);
    assert_eq!(decode_user(b"alice", &value), Ok(user.clone()));
    refuses(&value, &|v| decode_user(b"alice", v).is_ok(), &mut r);
    let backwards = User { roles: user.roles.iter().rev().cloned().collect(), ..user };
    assert!(decode_user(b"alice", &encode_user(b"alice", &backwards)).is_err());
    let permission = |key: &'static str, range_end: &'static str| Permission {
        key: key.into(),
        range_end: range_end.into(),
        access: Access::ReadWrite,
    };
    let permissions = vec![permission("a", ""), permission("a", "\0"), permission("b", "")];
    let role = Role { name: "app".to_owned(), permissions };
    let value = encode_role(b"app", &role);
    assert_eq!(decode_role(b"app", &value), Ok(role.clone()));
    refuses(&value, &|v| decode_role(b"app", v).is_ok(), &mut r);
    let backwards = Role { permissions: role.permissions.iter().rev().cloned().collect(), ..role };
    assert!(decode_role(b"app", &encode_role(b"app", &backwards)).is_err());
    let value = encode_auth(Some(&TokenSecret([5; 32])), 7);
    assert_eq!(decode_auth(AUTH_ROW, &value), Ok((Some(TokenSecret([5; 32])), 7)));
    refuses(&value, &|v| decode_auth(AUTH_ROW, v).is_ok(), &mut r);
}

#[test]
fn plain_garbage_panics_nowhere() {
    let mut r = Random::new(random::seed());
    for _ in 0..20_000 {
        let mut garbage = || -> Vec<u8> {
            let length = r.index(40);
            (0..length).map(|_| u8::try_from(r.below(256)).unwrap()).collect()
        };
        let (row, value) = (garbage(), garbage());
        assert!(Command::decode(&Bytes::from(value.clone())).is_err());
        assert!(decode_key_row(&row, Bytes::new(), Revision(1), &value, Want::Value).is_err());
        assert!(decode_change(&row, &value).is_err());
        assert!(decode_stamp(&row, &value).is_err());
        assert!(decode_lease(&row, &value).is_err());
        assert!(decode_attachment(&row, &value).is_err());
        assert!(decode_user(&row, &value).is_err());
        assert!(decode_role(&row, &value).is_err());
        assert!(decode_auth(&row, &value).is_err());
        assert!(decode_upload(&row, &value).is_err());
        assert!(decode_upload_ops(&row, &value).is_err());
        drop(split_upload_row(&row));
        assert!(decode_state(&value).is_err());
        assert_eq!(decode_format(&value), None);
        // These have no checksum of their own: any answer, but an answer.
        drop(decode_revision_row(&row));
        drop(split_descending(Tree::Names, &row));
        drop(key_of_prefix(Tree::Keys, &row));
        drop(name_of_prefix(&row, value.len()));
    }
    let range = KeyRange::prefix(&[0xFF, 0xFF]);
    assert!(range.contains(&[0xFF, 0xFF, 0x00]) && !range.contains(&[0xFF]));
}
