//! Random histories: what each question answers at each revision, compared with the plain list of all
//! keys at that revision, which was written down when it was current.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures_util::FutureExt;
use proptest::prelude::{Just, ProptestConfig, Strategy, prop_oneof, proptest};
use proptest::test_runner::TestCaseError;
use proptest::{collection, prop_assert, prop_assert_eq};
use revfs_api::keyspace::{
    Answer, ChangeKind, ChangesRequest, DirectoryAnswer, HistoryRequest, KeyRange, KeySpace,
    KeyValue, ListRead, Op, RangeRead, Read, Revision, Txn,
};

use super::{all_keys, changes_from, do_all, now};
use crate::memory::Memory;

/// All keys at one revision.
type Keys = BTreeMap<Bytes, KeyValue>;

fn prefix() -> impl Strategy<Value = Bytes> {
    let directory = prop_oneof![Just("a/"), Just("b/"), Just("/")];
    collection::vec(directory, 0..3).prop_map(|parts| Bytes::from(format!("/{}", parts.concat())))
}

fn key() -> impl Strategy<Value = Bytes> {
    (prefix(), prop_oneof![Just(""), Just("a"), Just("b"), Just("c")])
        .prop_map(|(prefix, name)| Bytes::from([prefix.as_ref(), name.as_bytes()].concat()))
}

fn op() -> impl Strategy<Value = Op> {
    let leaf = prop_oneof![
        6 => (key(), prop_oneof![Just("x"), Just("yy")]).prop_map(|(key, value)| Op::put(key, value)),
        2 => key().prop_map(|key| Op::Append { key, value: Bytes::from("z") }),
        3 => key().prop_map(Op::delete),
        1 => prefix().prop_map(|prefix| Op::Delete { range: KeyRange::prefix(&prefix), prev_kv: true }),
        2 => (prefix(), prefix()).prop_map(|(from, to)| Op::Move { from, to }),
        2 => (key(), key()).prop_map(|(from, to)| Op::MoveKey { from, to }),
        1 => (prefix(), prefix()).prop_map(|(a, b)| Op::Exchange { a, b }),
        1 => (key(), key()).prop_map(|(a, b)| Op::Exchange { a, b }),
        1 => (prefix(), 1..12_u64).prop_map(|(prefix, revision)| Op::Restore {
            range: KeyRange::prefix(&prefix),
            revision: Revision(revision),
        }),
    ];
    prop_oneof![
        9 => leaf.clone(),
        1 => collection::vec(leaf, 0..3).prop_map(|success| Op::Txn(Txn { success, ..Txn::default() })),
    ]
}

fn all_at(memory: &Memory, revision: Revision) -> Keys {
    let read = Read::Range(RangeRead::new(all_keys()));
    let mut answer = now(memory.read(revision, vec![read])).unwrap();
    let Some(Answer::Range(range)) = answer.answers.pop() else { panic!("a range") };
    range.kvs.into_iter().map(|kv| (kv.key.clone(), kv)).collect()
}

/// The names directly in a directory.
fn names(keys: &Keys, directory: &[u8]) -> BTreeSet<Bytes> {
    let name = |key: &Bytes| {
        let rest = key.strip_prefix(directory)?;
        let end = rest.iter().position(|&byte| byte == b'/').map_or(rest.len(), |slash| slash + 1);
        Some(Bytes::copy_from_slice(&rest[..end]))
    };
    keys.keys().filter_map(name).collect()
}

/// `past[n]` are the keys at revision n + 1.
fn check_directories(memory: &Memory, past: &[Keys]) -> Result<(), TestCaseError> {
    let mut directories = BTreeSet::from([Bytes::new()]);
    for key in past.iter().flat_map(Keys::keys) {
        let slashes = (0..key.len()).filter(|&index| key[index] == b'/');
        directories.extend(slashes.map(|slash| key.slice(..=slash)));
    }
    // Of each directory its names and when they changed, at the revision before.
    let mut before = BTreeMap::new();
    for (index, keys) in past.iter().enumerate() {
        let revision = Revision(index as u64 + 1);
        let mut states = BTreeMap::new();
        for directory in &directories {
            let expected = names(keys, directory);
            let list = ListRead {
                directory: directory.clone(),
                after: Bytes::new(),
                limit: 0,
                with_values: true,
            };
            let reads = vec![Read::List(list), Read::Directory(directory.clone())];
            let answers = now(memory.read(revision, reads)).unwrap().answers;
            let [Answer::List(list), Answer::Directory(own)] = &answers[..] else {
                panic!("{answers:?}")
            };
            let listed: BTreeSet<Bytes> =
                list.entries.iter().map(|entry| entry.name.clone()).collect();
            prop_assert_eq!(&listed, &expected);
            let whole = |name: &Bytes| Bytes::from([directory.as_ref(), name.as_ref()].concat());
            for entry in &list.entries {
                prop_assert_eq!(entry.kv.as_ref(), keys.get(&whole(&entry.name)));
                prop_assert_eq!(entry.directory.is_some(), entry.name.ends_with(b"/"));
                prop_assert!(entry.directory.is_none_or(|directory| directory.names > 0));
            }
            prop_assert_eq!(own.names, expected.len() as u64);
            if expected.is_empty() {
                prop_assert_eq!(own, &DirectoryAnswer::default());
                continue;
            }
            // It changed now, or is the one before, or one that was moved here.
            let is_known = |(names, changed): &(BTreeSet<Bytes>, Revision)| {
                *names == expected && *changed == own.changed
            };
            if before.get(directory).is_some_and(|(names, _)| *names == expected) {
                prop_assert!(before.values().any(is_known), "{:?} at {}", own, revision);
            } else {
                prop_assert!(own.changed == revision || before.values().any(is_known));
            }
            states.insert(directory.clone(), (expected, own.changed));
        }
        before = states;
    }
    Ok(())
}

fn check_changes(memory: &Memory, past: &[Keys]) -> Result<(), TestCaseError> {
    let answer = now(memory.changes(changes_from(0))).unwrap();
    prop_assert_eq!(answer.revisions.len(), past.len() - 1, "each revision changed something");
    let mut keys = Keys::new();
    let mut watch = now(memory.watch(vec![all_keys()], Revision(1))).unwrap();
    for (index, revision) in answer.revisions.iter().enumerate() {
        prop_assert_eq!(revision.stamp.revision.0, index as u64 + 2);
        prop_assert_eq!(revision, &now(watch.next()).unwrap());
        for event in &revision.events {
            prop_assert_eq!(event.kv.mod_revision, revision.stamp.revision);
            let key = event.kv.key.clone();
            match event.kind {
                ChangeKind::Put => {
                    let old = keys.insert(key, event.kv.clone());
                    let life = (event.kv.create_revision, event.kv.version);
                    let begun = (event.kv.mod_revision, 1);
                    let goes_on = old.map(|old| (old.create_revision, old.version + 1));
                    // A file that was moved here ends the one that was there.
                    let has_come = event.kv.content_revision < event.kv.mod_revision;
                    prop_assert!(life == goes_on.unwrap_or(begun) || (has_come && life == begun));
                    prop_assert!(event.kv.birth_revision <= event.kv.content_revision);
                    prop_assert!(event.kv.content_revision <= event.kv.mod_revision);
                }
                ChangeKind::Delete => prop_assert!(keys.remove(&key).is_some(), "it lived"),
            }
        }
        prop_assert_eq!(&keys, &past[index + 1]);
    }
    prop_assert!(watch.next().now_or_never().is_none());

    let mut reversed =
        now(memory.changes(ChangesRequest { newest_first: true, ..changes_from(0) })).unwrap();
    reversed.revisions.reverse();
    prop_assert_eq!(&reversed.revisions, &answer.revisions);

    let events = answer.revisions.iter().flat_map(|revision| &revision.events);
    let mut by_key: BTreeMap<Bytes, Vec<_>> = BTreeMap::new();
    for event in events {
        by_key.entry(event.kv.key.clone()).or_default().insert(0, event.clone());
    }
    for (key, expected) in by_key {
        let request = HistoryRequest { key, at_most: Revision::NONE, limit: 0, keys_only: false };
        let versions = now(memory.history(request)).unwrap();
        let told: Vec<_> = versions.into_iter().map(|version| version.event).collect();
        prop_assert_eq!(told, expected);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_answer_agrees_with_the_keys_as_they_were(
        transactions in collection::vec(collection::vec(op(), 1..4), 1..25),
    ) {
        let memory = Memory::new();
        let mut past = vec![Keys::new()];
        for ops in transactions {
            let before = memory.current();
            let answer = do_all(&memory, ops);
            let has_changed = answer.as_ref().is_ok_and(|answer| answer.changed);
            if let Ok(answer) = answer {
                prop_assert_eq!(answer.revision, memory.current());
            }
            prop_assert_eq!(memory.current(), if has_changed { before.next() } else { before });
            let keys = all_at(&memory, Revision::NONE);
            if has_changed {
                past.push(keys);
            } else {
                prop_assert_eq!(Some(&keys), past.last());
            }
        }
        for (index, keys) in past.iter().enumerate() {
            prop_assert_eq!(&all_at(&memory, Revision(index as u64 + 1)), keys);
        }
        check_directories(&memory, &past)?;
        check_changes(&memory, &past)?;
    }

    #[test]
    fn a_restore_gives_the_values_of_then(
        transactions in collection::vec(collection::vec(op(), 1..3), 1..20),
        then in 1..20_u64,
        prefix in prefix(),
    ) {
        let memory = Memory::new();
        for ops in transactions {
            drop(do_all(&memory, ops));
        }
        let then = Revision(then.min(memory.current().0));
        let range = KeyRange::prefix(&prefix);
        let (old, before) = (all_at(&memory, then), all_at(&memory, Revision::NONE));
        do_all(&memory, vec![Op::Restore { range: range.clone(), revision: then }]).unwrap();
        let after = all_at(&memory, Revision::NONE);
        let content = |keys: &Keys, inside: bool| {
            let kvs = keys.values().filter(|kv| range.contains(&kv.key) == inside);
            kvs.map(|kv| (kv.key.clone(), kv.value.clone(), kv.content_revision, kv.birth_revision))
                .collect::<Vec<_>>()
        };
        prop_assert_eq!(content(&after, true), content(&old, true));
        prop_assert_eq!(content(&after, false), content(&before, false));
    }
}
