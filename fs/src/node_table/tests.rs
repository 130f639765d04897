//! The invariants of the table after each of random operations, and its end: when the kernel has
//! forgotten everything, only the root is left.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use proptest::prelude::{ProptestConfig, Strategy, any, prop_oneof, proptest};
use proptest::{collection, prop_assert, prop_assert_eq};

use super::{NodeTable, ROOT};
use crate::node::{Place, Tree};
use crate::path::DirectoryKey;

#[derive(Clone, Debug)]
enum Step {
    /// A lookup that is told to the kernel.
    Look {
        path: usize,
        is_directory: bool,
    },
    /// All lookups of a node are given back.
    Forget {
        nth: usize,
    },
    Detach {
        path: usize,
    },
    MoveFile {
        from: usize,
        to: usize,
    },
    MoveDirectory {
        from: usize,
        to: usize,
    },
    ExchangeDirectories {
        one: usize,
        other: usize,
    },
    ExchangeFiles {
        one: usize,
        other: usize,
    },
}

const FILES: [&str; 6] = ["/a", "/b", "/a/x", "/a/y", "/b/x", "/c/x/z"];
const DIRECTORIES: [&str; 5] = ["/a/", "/b/", "/c/", "/c/x/", "/d/"];

/// Directories of which none lies in another.
const APART: [&str; 4] = ["/a/", "/b/", "/c/", "/d/"];

fn file(path: usize) -> Place {
    Place::File { key: Bytes::from_static(FILES[path % FILES.len()].as_bytes()) }
}

fn directory(path: usize) -> Place {
    Place::Directory { tree: Tree::Live, directory: prefix(DIRECTORIES[path % DIRECTORIES.len()]) }
}

fn prefix(text: &'static str) -> DirectoryKey {
    DirectoryKey::new(text).unwrap()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pair = || (any::<usize>(), any::<usize>());
    let step = prop_oneof![
        4 => (any::<usize>(), any::<bool>())
            .prop_map(|(path, is_directory)| Step::Look { path, is_directory }),
        2 => any::<usize>().prop_map(|nth| Step::Forget { nth }),
        1 => any::<usize>().prop_map(|path| Step::Detach { path }),
        1 => pair().prop_map(|(from, to)| Step::MoveFile { from, to }),
        1 => pair().prop_map(|(from, to)| Step::MoveDirectory { from, to }),
        1 => pair().prop_map(|(one, other)| Step::ExchangeDirectories { one, other }),
        1 => pair().prop_map(|(one, other)| Step::ExchangeFiles { one, other }),
    ];
    collection::vec(step, 0..60)
}

fn key(path: usize) -> Bytes {
    Bytes::from_static(FILES[path % FILES.len()].as_bytes())
}

fn apply(table: &NodeTable, step: &Step, told: &mut HashMap<u64, u64>) {
    let apart = |one: usize, other: usize| {
        (prefix(APART[one % APART.len()]), prefix(APART[other % APART.len()]))
    };
    match *step {
        Step::Look { path, is_directory } => {
            let place = if is_directory { directory(path) } else { file(path) };
            // Few numbers, so that they collide.
            let node = table.intern(&place, (2..).skip(path % 3));
            table.count_lookup(&node);
            *told.entry(node.ino).or_default() += 1;
        }
        Step::Forget { nth } => {
            let mut known: Vec<u64> = told.keys().copied().collect();
            known.sort_unstable();
            if let Some(&ino) = known.get(nth % known.len().max(1)) {
                let count = told.remove(&ino).unwrap();
                table.forget(ino, count);
            }
        }
        Step::Detach { path } => {
            table.detach(&key(path));
        }
        Step::MoveFile { from, to } if key(from) != key(to) => {
            table.move_file(&key(from), &key(to));
        }
        Step::ExchangeFiles { one, other } if key(one) != key(other) => {
            table.exchange_files(&key(one), &key(other));
        }
        Step::MoveDirectory { from, to } => {
            let (from, to) = apart(from, to);
            // The file system moves onto nothing.
            if table.below(&to).is_empty() {
                table.move_directory(&from, &to);
            }
        }
        Step::ExchangeDirectories { one, other } => {
            let (one, other) = apart(one, other);
            if one != other {
                table.exchange_directories(&one, &other);
            }
        }
        Step::MoveFile { .. } | Step::ExchangeFiles { .. } => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_place_has_one_node_and_a_node_one_place(steps in steps()) {
        let table = NodeTable::new(Tree::Live, DirectoryKey::default());
        let mut told = HashMap::new();
        for step in &steps {
            apply(&table, step, &mut told);
            let nodes = table.all();
            let numbers: HashSet<u64> = nodes.iter().map(|node| node.ino).collect();
            prop_assert_eq!(numbers.len(), nodes.len());
            for node in &nodes {
                let found = table.find(&node.place()).map(|node| node.ino);
                let is_detached = matches!(node.place(), Place::Detached { .. });
                prop_assert_eq!(found, (!is_detached).then_some(node.ino), "{:?}", node.place());
            }
            // What the kernel knows is there, and nothing else.
            for ino in told.keys() {
                prop_assert!(table.is_known(*ino));
            }
            prop_assert_eq!(nodes.len(), told.len() + 1);
        }
        for (ino, count) in told {
            table.forget(ino, count);
        }
        prop_assert_eq!(table.count(), 1);
        prop_assert!(table.get(ROOT).is_some());
    }
}

#[test]
fn a_node_forgotten_before_its_answer_comes_back() {
    let table = NodeTable::new(Tree::Live, DirectoryKey::default());
    let first = table.intern(&file(0), 2..);
    table.count_lookup(&first);
    // Another lookup has found the node, and the kernel forgets it before that answer is counted.
    let again = table.intern(&file(0), 2..);
    table.forget(first.ino, 1);
    assert_eq!(table.count(), 1);
    table.count_lookup(&again);
    assert_eq!(table.find(&file(0)).unwrap().ino, again.ino);
    assert!(table.is_known(again.ino));
}

#[test]
fn what_is_open_stays_when_the_kernel_forgets_it() {
    let table = NodeTable::new(Tree::Live, DirectoryKey::default());
    let node = table.intern(&file(0), 2..);
    table.count_lookup(&node);
    node.file.lock().open = 1;
    table.forget(node.ino, 1);
    assert!(table.get(node.ino).is_some());
    assert!(!table.is_known(node.ino));
    node.file.lock().open = 0;
    table.release(node.ino);
    assert!(table.get(node.ino).is_none());
}
