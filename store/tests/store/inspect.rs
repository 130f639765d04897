//! What the inspection finds in a sound store, and in one where trees disagree.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use heed::types::Bytes as Raw;
use heed::{CommitOrAbort, Database, EnvOpenOptions, RwTxn};
use revfs_store::schema::{
    AUTH_ROW, KeyRow, ROW_STATE, Tree, UploadState, Want, attachment_row, decode_key_row,
    decode_state, encode_attachment, encode_auth, encode_change, encode_directory, encode_key_row,
    encode_name, encode_stamp, encode_state, encode_upload, encode_upload_part, encode_user,
    key_row, lease_row, name_row, revision_row, upload_part_row, upload_row,
};
use revfs_store::types::{DirectoryState, KeyRange, LeaseId, Op, Revision, Stamp, Time};
use revfs_store::{
    Body, Command, Inspector, Position, Progress, StopPoint, Store, StoreOptions, TokenSecret,
    User, Violation,
};
use tempfile::TempDir;

use crate::random::{self, Random};
use crate::scenario::command;

fn options() -> StoreOptions {
    StoreOptions {
        map_bytes: 1 << 30,
        compaction_batch: 7,
        compaction_pause: Duration::ZERO,
        ..StoreOptions::default()
    }
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn apply(store: &Store, index: u64, command: &Command) {
    let position = Position { index, term: 1, raft: Bytes::new() };
    // A refusal is an answer too.
    let outcome = store.apply(position, command).unwrap();
    assert!(outcome.revision >= Revision::FIRST);
}

fn violations(dir: &Path) -> Vec<Violation> {
    let inspector = Inspector::open(&dir.join("data.mdb"), &options(), true).unwrap();
    let mut found = Vec::new();
    let count = inspector.check(&mut go_on, &mut |violation| found.push(violation)).unwrap();
    assert_eq!(count, u64::try_from(found.len()).unwrap());
    found
}

#[test]
fn random_stores_agree_with_themselves_whatever_was_compacted() {
    let mut seeds = Random::new(random::seed());
    for _ in 0..4 {
        let seed = seeds.next();
        let mut random = Random::new(seed);
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::create(dir.path(), options()).unwrap();
        for index in 1..=900_u64 {
            let view = store.read_view().unwrap();
            let (compacted, current) = (view.compacted().0, view.current().0);
            let auth_revision = view.auth().revision();
            drop(view);
            let time = i64::try_from(index).unwrap();
            let command = random::command(&mut random, compacted, current, time);
            let command = random::asked(&mut random, auth_revision, command);
            apply(&store, index, &command);
            if index.is_multiple_of(150) {
                store.close().unwrap();
                drop(store);
                let found = violations(dir.path());
                assert!(found.is_empty(), "seed {seed}, entry {index}: {found:?}");
                store = Store::open(dir.path(), options()).unwrap();
            }
        }
    }
}

/// Three keys, one of them deleted, one under a lease, one in a directory of its own; revisions 2-6.
fn sample() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), options()).unwrap();
    let grant = Body::LeaseGrant { id: LeaseId(7), ttl_seconds: 60 };
    apply(&store, 1, &Command { body: grant, ..command(Vec::new(), Time(1)) });
    let leased = Op::Put {
        key: "/leased".into(),
        value: "1".into(),
        lease: LeaseId(7),
        prev_kv: false,
        ignore_value: false,
        ignore_lease: false,
    };
    let steps = [
        vec![Op::put("/app/a", "one"), Op::put("/app/b", "two")],
        vec![leased],
        vec![Op::put("/app/a", "three")],
        vec![Op::delete("/app/b")],
        vec![Op::put("/app/a", "four")],
    ];
    for (index, ops) in (2..).zip(steps) {
        apply(&store, index, &command(ops, Time(i64::try_from(index).unwrap() * 10)));
    }
    store.close().unwrap();
    dir
}

#[test]
fn the_facts_are_those_of_the_store() {
    let dir = sample();
    let inspector = Inspector::open(&dir.path().join("data.mdb"), &options(), true).unwrap();
    let facts = inspector.facts(1, &mut go_on).unwrap();
    assert_eq!((facts.revision, facts.compacted, facts.time), (Revision(6), None, Time(60)));
    assert_eq!((facts.format_version, facts.position.index), (1, 6));
    assert_eq!((facts.versions, facts.living.keys, facts.living.value_bytes), (6, 2, 5));
    let prefixes: Vec<_> =
        facts.prefixes.iter().map(|(prefix, facts)| (prefix.as_ref(), facts.keys)).collect();
    assert_eq!(prefixes, [(&b"/"[..], 1), (b"/app/", 1)]);
    let rows = |tree| facts.trees.iter().find(|facts| facts.tree == tree).unwrap().rows;
    assert_eq!((rows(Tree::Keys), rows(Tree::Revisions), rows(Tree::Times)), (6, 6, 5));
    assert!(facts.size.in_use_bytes > 0 && facts.size.in_use_bytes <= facts.size.file_bytes);
    drop(inspector);
    assert_eq!(violations(dir.path()), []);
}

type Rows<'e> = dyn Fn(Tree) -> Database<'e, Raw, Raw> + 'e;

/// Changes rows past the store.
fn damage(dir: &Path, change: impl FnOnce(&Rows<'_>, &mut RwTxn<'_>)) {
    let mut open = EnvOpenOptions::new();
    open.map_size(1 << 30).max_dbs(u32::try_from(Tree::ALL.len()).unwrap());
    #[expect(unsafe_code, reason = "nobody else has the file open")]
    // SAFETY: the store was closed, and the directory is this test's own.
    let env = unsafe { open.open(dir) }.unwrap();
    let wtxn = env.write_txn().unwrap();
    env.create_databases_and_commit(wtxn, |opener, wtxn| {
        let mut trees = Vec::new();
        for tree in Tree::ALL {
            trees.push(opener.create_database::<Raw, Raw>(wtxn, Some(tree.name()))?);
        }
        change(&|tree: Tree| trees[tree.index()], wtxn);
        // The state row names the transaction that wrote last.
        let meta = trees[Tree::Meta.index()];
        let mut state = decode_state(meta.get(wtxn, ROW_STATE)?.unwrap()).unwrap();
        state.txn = u64::try_from(wtxn.id()).unwrap();
        meta.put(wtxn, ROW_STATE, &encode_state(&state))?;
        Ok(CommitOrAbort::<_, ()>::Commit(()))
    })
    .map_err(|error: heed::Error| error)
    .unwrap();
}

fn change_version(
    rows: &Rows<'_>,
    wtxn: &mut RwTxn<'_>,
    row: &[u8],
    change: impl FnOnce(&mut KeyRow),
) {
    let tree = rows(Tree::Keys);
    let value = tree.get(wtxn, row).unwrap().unwrap().to_vec();
    let key = Bytes::from_static(b"/app/a");
    let mut version = decode_key_row(row, key, Revision(4), &value, Want::Value).unwrap();
    change(&mut version);
    tree.put(wtxn, row, &encode_key_row(row, &version)).unwrap();
}

/// One damage, and the words by which it has to be reported.
type Case = (&'static str, &'static str, fn(&Rows<'_>, &mut RwTxn<'_>));

const CASES: &[Case] = &[
    ("a version is missing", "keys has no such version", |rows, wtxn| {
        rows(Tree::Keys).delete(wtxn, &key_row(b"/app/a", Revision(4))).unwrap();
    }),
    ("a version has another number", "does not follow from the version before it", |rows, wtxn| {
        let row = key_row(b"/app/a", Revision(4));
        change_version(rows, wtxn, &row, |version| version.kv.version = 9);
    }),
    ("a version has another time", "its time is not the one of revision 4", |rows, wtxn| {
        let row = key_row(b"/app/a", Revision(4));
        change_version(rows, wtxn, &row, |version| version.kv.time = Time(41));
    }),
    ("a version is damaged", "checksum", |rows, wtxn| {
        let row = key_row(b"/app/a", Revision(4));
        let mut value = rows(Tree::Keys).get(wtxn, &row).unwrap().unwrap().to_vec();
        *value.last_mut().unwrap() ^= 1;
        rows(Tree::Keys).put(wtxn, &row, &value).unwrap();
    }),
    ("a version is of the future", "above the current revision 6", |rows, wtxn| {
        let row = key_row(b"/app/a", Revision(9));
        let kv = revfs_store::types::KeyValue {
            mod_revision: Revision(9),
            create_revision: Revision(2),
            version: 4,
            time: Time(60),
            ..Default::default()
        };
        let version = KeyRow { sub: 0, tombstone: false, kv };
        rows(Tree::Keys).put(wtxn, &row, &encode_key_row(&row, &version)).unwrap();
    }),
    ("a change is missing", "revisions has no change 4.0", |rows, wtxn| {
        rows(Tree::Revisions).delete(wtxn, &revision_row(Revision(4), 0)).unwrap();
    }),
    ("a change is of another key", "is of another key or kind", |rows, wtxn| {
        let row = revision_row(Revision(4), 0);
        rows(Tree::Revisions).put(wtxn, &row, &encode_change(&row, false, b"/x")).unwrap();
    }),
    ("the last changes are missing", "current revision 6 are missing", |rows, wtxn| {
        rows(Tree::Revisions).delete(wtxn, &revision_row(Revision(6), 0)).unwrap();
    }),
    ("a time is missing", "revision 3 has no time", |rows, wtxn| {
        rows(Tree::Times).delete(wtxn, &3_u64.to_be_bytes()).unwrap();
    }),
    ("time runs back", "time runs back", |rows, wtxn| {
        let row = 4_u64.to_be_bytes();
        let stamp = Stamp { revision: Revision(4), time: Time(1), ..Stamp::default() };
        rows(Tree::Times).put(wtxn, &row, &encode_stamp(&row, &stamp)).unwrap();
    }),
    ("a name is missing", "names says nothing at revision 2", |rows, wtxn| {
        rows(Tree::Names).delete(wtxn, &name_row(b"/app/", b"a", Revision(2))).unwrap();
    }),
    ("a name says the opposite", "which does not", |rows, wtxn| {
        let row = name_row(b"/app/", b"b", Revision(5));
        rows(Tree::Names).put(wtxn, &row, &encode_name(&row, true)).unwrap();
    }),
    ("a name stands for nothing", "\"/app/ghost\" lives, which does not", |rows, wtxn| {
        let row = name_row(b"/app/", b"ghost", Revision(5));
        rows(Tree::Names).put(wtxn, &row, &encode_name(&row, true)).unwrap();
    }),
    ("a directory counts wrongly", "it counts 5 names, 1 live", |rows, wtxn| {
        let row = key_row(b"/app/", Revision(5));
        let state = DirectoryState { names: 5, changed: Revision(5), time: Time(50) };
        rows(Tree::Directories).put(wtxn, &row, &encode_directory(&row, &state)).unwrap();
    }),
    ("a directory is missing", "directories says nothing at revision 5", |rows, wtxn| {
        rows(Tree::Directories).delete(wtxn, &key_row(b"/app/", Revision(5))).unwrap();
    }),
    ("a directory has no name", "the directory above it says the opposite", |rows, wtxn| {
        rows(Tree::Names).delete(wtxn, &name_row(b"/", b"app/", Revision(2))).unwrap();
    }),
    ("a lease is missing", "its lease 7 does not exist", |rows, wtxn| {
        rows(Tree::Leases).delete(wtxn, &lease_row(LeaseId(7))).unwrap();
    }),
    ("an attachment is missing", "attachments does not know it under lease 7", |rows, wtxn| {
        rows(Tree::Attachments).delete(wtxn, &attachment_row(LeaseId(7), b"/leased")).unwrap();
    }),
    ("an attachment is too many", "the key does not exist or has another lease", |rows, wtxn| {
        let row = attachment_row(LeaseId(7), b"/app/a");
        rows(Tree::Attachments).put(wtxn, &row, &encode_attachment(&row)).unwrap();
    }),
    ("a lease is damaged", "checksum", |rows, wtxn| {
        let row = lease_row(LeaseId(7));
        let mut value = rows(Tree::Leases).get(wtxn, &row).unwrap().unwrap().to_vec();
        *value.last_mut().unwrap() ^= 1;
        rows(Tree::Leases).put(wtxn, &row, &value).unwrap();
    }),
    ("an upload has no lease", "its lease does not exist", |rows, wtxn| {
        let row = upload_row(LeaseId(8));
        rows(Tree::Uploads).put(wtxn, &row, &encode_upload(&row, &UploadState::default())).unwrap();
    }),
    ("an upload counts wrongly", "its parts add up to UploadState { parts: 1, ", |rows, wtxn| {
        let row = upload_row(LeaseId(7));
        let state = UploadState { parts: 2, bytes: 4, ..UploadState::default() };
        rows(Tree::Uploads).put(wtxn, &row, &encode_upload(&row, &state)).unwrap();
        let row = upload_part_row(LeaseId(7), 0);
        rows(Tree::Uploads).put(wtxn, &row, &encode_upload_part(&row, &[0; 4])).unwrap();
    }),
    ("a role is missing", "its role app does not exist", |rows, wtxn| {
        let roles = vec!["app".to_owned(), "root".to_owned()];
        let user = User { name: "alice".to_owned(), password: None, roles };
        rows(Tree::Users).put(wtxn, b"alice", &encode_user(b"alice", &user)).unwrap();
    }),
    ("nobody is root", "no user root has the role root", |rows, wtxn| {
        rows(Tree::Counters)
            .put(wtxn, AUTH_ROW, &encode_auth(Some(&TokenSecret([5; 32])), 3))
            .unwrap();
        let user = User { name: "root".to_owned(), ..User::default() };
        rows(Tree::Users).put(wtxn, b"root", &encode_user(b"root", &user)).unwrap();
    }),
    ("a role is damaged", "tree roles", |rows, wtxn| {
        rows(Tree::Roles).put(wtxn, b"app", &[0; 12]).unwrap();
    }),
    ("a counter is unknown", "field counter", |rows, wtxn| {
        let value = encode_auth(Some(&TokenSecret([5; 32])), 3);
        let crc =
            crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&[12]), b"x"), &value[4..]);
        let value = [&crc.to_be_bytes(), &value[4..]].concat();
        rows(Tree::Counters).put(wtxn, b"x", &value).unwrap();
    }),
    ("a part is alone", "nothing counts the parts", |rows, wtxn| {
        let row = upload_part_row(LeaseId(7), 0);
        rows(Tree::Uploads).put(wtxn, &row, &encode_upload_part(&row, &[0; 4])).unwrap();
    }),
];

#[test]
fn each_disagreement_is_reported_with_tree_and_row() {
    for (what, words, change) in CASES {
        let dir = sample();
        damage(dir.path(), change);
        // Damaged rows stop the check of the pages, which comes first.
        let path = dir.path().join("data.mdb");
        let lazy = StoreOptions { check_whole_pages: 0, check_pages_max: 0, ..options() };
        let mut found = Vec::new();
        match Inspector::open(&path, &lazy, false) {
            Ok(inspector) => {
                let mut report = |violation: Violation| found.push(violation.to_string());
                assert!(inspector.check(&mut go_on, &mut report).unwrap() > 0, "{what}");
            }
            Err(error) => found.push(error.to_string()),
        }
        let text = found.join("\n");
        assert!(text.contains(words), "{what}: {text}");
        assert!(
            found.iter().all(|line| line.contains("tree ") && line.contains("row \"")),
            "{text}"
        );
    }
}

#[test]
fn a_compacted_store_and_a_backup_of_it_agree_with_themselves() {
    let dir = sample();
    let store = Store::open(dir.path(), options()).unwrap();
    let compact = Body::Compact { revision: Revision(5) };
    apply(&store, 7, &Command { body: compact, ..command(Vec::new(), Time(70)) });
    assert!(store.wait_compacted(Revision(5), Duration::from_secs(60)).unwrap());
    let backup = dir.path().join("backup");
    let mut file = std::fs::File::options();
    let mut file = file.read(true).write(true).create(true).truncate(true).open(&backup).unwrap();
    store.backup(&mut file, &revfs_store::BackupOptions::default(), &mut go_on).unwrap();
    store.close().unwrap();
    drop(store);
    assert_eq!(violations(dir.path()), []);
    let inspector = Inspector::open(&backup, &options(), true).unwrap();
    assert_eq!(inspector.check(&mut go_on, &mut |found| panic!("{found}")).unwrap(), 0);
    let facts = inspector.facts(2, &mut go_on).unwrap();
    assert_eq!((facts.compacted, facts.compacted_physically), (Some(Revision(5)), Revision(5)));
    let range = KeyRange::prefix(b"/app/");
    assert_eq!(facts.prefixes.iter().filter(|(prefix, _)| range.contains(prefix)).count(), 1);
}

#[test]
fn a_store_agrees_with_itself_between_the_steps_that_forget_a_directory_deleted_at_the_target() {
    let dir = tempfile::tempdir().unwrap();
    let one_visit = StoreOptions { compaction_batch: 1, ..options() };
    let store = Store::create(dir.path(), one_visit.clone()).unwrap();
    // More than one step visits.
    let names = || (0..40).map(|number| format!("/d/{number}"));
    apply(&store, 1, &command(names().map(|name| Op::put(name, "")).collect(), Time(1)));
    apply(&store, 2, &command(names().map(Op::delete).collect(), Time(2)));
    let compact = Body::Compact { revision: Revision(3) };
    apply(&store, 3, &Command { body: compact, ..command(Vec::new(), Time(3)) });
    store.close().unwrap();
    drop(store);
    while rows(dir.path(), Tree::Directories) > 0 {
        let store = Store::open(dir.path(), one_visit.clone()).unwrap();
        store.stop_at(StopPoint::AfterCommit);
        assert!(!store.wait_compacted(Revision(3), Duration::from_secs(60)).unwrap());
        store.abandon();
        assert_eq!(violations(dir.path()), []);
    }
    assert!(rows(dir.path(), Tree::Names) > 0, "one step forgot them all");
    let store = Store::open(dir.path(), one_visit).unwrap();
    assert!(store.wait_compacted(Revision(3), Duration::from_secs(60)).unwrap());
    store.close().unwrap();
    drop(store);
    assert_eq!((violations(dir.path()), rows(dir.path(), Tree::Names)), (Vec::new(), 0));
}

/// Rows of a tree in a store that is closed.
fn rows(dir: &Path, tree: Tree) -> u64 {
    let inspector = Inspector::open(&dir.join("data.mdb"), &options(), true).unwrap();
    let facts = inspector.facts(1, &mut go_on).unwrap();
    facts.trees.iter().find(|facts| facts.tree == tree).unwrap().rows
}

#[test]
fn a_wide_revision_is_compacted_in_steps_and_a_kill_after_each_loses_nothing() {
    const KEYS: u64 = 300;
    let options = || StoreOptions { compaction_batch: 1, ..options() };
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path(), options()).unwrap();
    for index in 1..=4_u64 {
        let put = |n| Op::put(format!("/app/{n}"), format!("{index}"));
        apply(&store, index, &command((0..KEYS).map(put).collect(), Time(index.cast_signed())));
    }
    let compact = Body::Compact { revision: Revision(5) };
    apply(&store, 5, &Command { body: compact, ..command(Vec::new(), Time(9)) });
    store.close().unwrap();
    drop(store);
    let mut left = vec![rows(dir.path(), Tree::Revisions)];
    while left.len() < 10 {
        let store = Store::open(dir.path(), options()).unwrap();
        store.stop_at(StopPoint::AfterCommit);
        assert!(!store.wait_compacted(Revision(5), Duration::from_secs(60)).unwrap());
        store.abandon();
        assert_eq!(violations(dir.path()), []);
        left.push(rows(dir.path(), Tree::Revisions));
    }
    assert!(left.is_sorted_by(|before, after| before > after), "each step forgets some: {left:?}");
    let store = Store::open(dir.path(), options()).unwrap();
    assert!(store.wait_compacted(Revision(5), Duration::from_secs(60)).unwrap());
    store.close().unwrap();
    drop(store);
    assert_eq!(violations(dir.path()), []);
    let left = [Tree::Keys, Tree::Revisions, Tree::Times].map(|tree| rows(dir.path(), tree));
    assert_eq!(left, [KEYS, KEYS, 1]);
}
