//! etcd's own command line on etcd and on a node: the same commands, the same answers. What differs is
//! named in docs/API.md, and here: the two lists are kept equal.

mod peer;
mod streams;

use std::collections::BTreeSet;

use crate::node::Node;
use crate::oracle::Etcd;
use peer::{Done, Peer, without_value};

/// Differences that the commands show, and what of their output is masked because of them; if nothing
/// is, the outputs must differ.
const SEEN_HERE: [(&str, &[&str]); 5] = [
    ("member-add", &[]),
    ("member-peers", &["$MEMBER, started, default, "]),
    ("snapshot-format", &[]),
    ("store-size", &["\"DBSize\" : ", "\"dbSize\":", "\"dbSizeInUse\":"]),
    ("version", &["\"Version\" : ", "\"version\":"]),
];

/// Differences that other tests show, and where; or whose absence is the point.
const SEEN_ELSEWHERE: [(&str, &str); 27] = [
    ("txn-ops", "kv.rs"),
    ("key-length", "kv.rs"),
    ("put-and-delete", "kv.rs"),
    ("ignored-value-and-lease", "oracle/requests.rs"),
    ("sort-option", "kv.rs"),
    ("watch-bounds", "watch.rs"),
    ("watch-progress", "watch.rs"),
    ("lease-author", "node/leases.rs"),
    ("decode-limit", "serve.rs"),
    ("defragment", "maintenance.rs"),
    ("hash", "maintenance.rs"),
    ("alarm-nospace", "node/alarm.rs"),
    ("errors-of-status", "maintenance.rs"),
    ("member-remove-code", "maintenance.rs"),
    ("downgrade", "maintenance.rs"),
    ("lock-given-up", "turns.rs"),
    ("simple-token", "auth/login.rs"),
    ("watch-permission", "auth/watches.rs"),
    ("hashed-password", "auth/login.rs"),
    ("auth-ttl-user", "src/auth/tests.rs"),
    ("jwt-es512", "src/auth/config/tests.rs"),
    ("bcrypt-length", "auth/login.rs"),
    ("login-time", "src/auth/password.rs"),
    ("concurrent-streams", "mount-helper: serve/settings.rs"),
    ("cors", "mount-helper: tests/program/serve.rs"),
    ("keepalive-min-time", "mount-helper: serve/settings.rs"),
    ("log-format", "mount-helper: serve/settings.rs"),
];

const SCRIPT: &str = include_str!("conformance/script.txt");
const DOCUMENT: &str = include_str!("../../../docs/API.md");

/// One line of the script.
struct Step<'s> {
    /// The name under which the second word of the output is remembered.
    remembers: Option<&'s str>,
    differences: Vec<&'s str>,
    words: &'s str,
    input: String,
}

impl<'s> Step<'s> {
    fn parse(line: &'s str) -> Self {
        let (line, input) = line.split_once(" << ").unwrap_or((line, ""));
        let input = input.replace("\\n", "\n");
        let (mut words, mut remembers, mut differences) = (line, None, Vec::new());
        if let Some(differs) = line.strip_prefix('~') {
            let (names, rest) = differs.split_once(' ').expect("a command behind the differences");
            differences = names.split(',').collect();
            words = rest;
        } else if let Some((name, rest)) = line.split_once(": ")
            && name.bytes().all(|byte| byte.is_ascii_uppercase())
        {
            (remembers, words) = (Some(name), rest);
        }
        Self { remembers, differences, words, input }
    }
}

fn steps() -> impl Iterator<Item = Step<'static>> {
    let lines = SCRIPT.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(Step::parse)
}

fn masks(name: &str) -> &'static [&'static str] {
    let found = SEEN_HERE.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("{name} is no known difference")).1
}

fn masked(done: &Done, differences: &[&str]) -> Done {
    let mask = |text: &str| {
        let all = differences.iter().flat_map(|name| masks(name));
        all.fold(text.to_owned(), |text, begin| without_value(&text, begin))
    };
    Done { code: done.code, output: mask(&done.output), error: mask(&done.error) }
}

/// Says what is not the same, if anything.
fn judge(step: &Step, etcd: &Done, node: &Done) -> Option<String> {
    let Step { words, differences, .. } = step;
    let is_open = differences.iter().any(|name| masks(name).is_empty());
    let (expected, found) = (masked(etcd, differences), masked(node, differences));
    match (expected == found, is_open) {
        (true, false) | (false, true) => None,
        (true, true) => Some(format!("{words}\n  does not differ: {differences:?} is not needed")),
        (false, false) => Some(format!("{words}\n  etcd {expected:?}\n  node {found:?}")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_of_etcdctl_says_the_same_on_both() {
    let (server, node) = (Etcd::start().await, Node::start().await);
    let mut etcd = Peer::new(server.address().to_owned()).await;
    let mut own = Peer::new(node.address()).await;
    let mut failures = Vec::new();
    let mut count = 0;
    for step in steps() {
        count += 1;
        let (expected, found) =
            tokio::join!(etcd.run(step.words, &step.input), own.run(step.words, &step.input));
        if let Some(name) = step.remembers {
            for (peer, done) in [(&mut etcd, &expected), (&mut own, &found)] {
                let word = done.output.split(' ').nth(1);
                let word = word.unwrap_or_else(|| panic!("no second word: {done:?}")).to_owned();
                // JSON says it in decimal.
                let number = i64::from_str_radix(&word, 16).expect("a hexadecimal number");
                peer.remember(&format!("{name}_ID"), &number.to_string());
                peer.remember(name, &word);
            }
        }
        failures.extend(judge(&step, &etcd.plain(&expected), &own.plain(&found)));
    }
    println!("{count} commands, {} differ", failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    drop(server);
    node.stop().await;
}

#[test]
fn the_differences_are_those_of_the_document() {
    let table = DOCUMENT.split("| --- | --- | --- | --- |\n").nth(1).expect("the table");
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let documented: BTreeSet<&str> =
        rows.map(|row| row.split('|').nth(1).expect("a name").trim()).collect();
    let here = SEEN_HERE.iter().map(|(name, _)| *name);
    let tested: BTreeSet<&str> = here.chain(SEEN_ELSEWHERE.iter().map(|(name, _)| *name)).collect();
    assert_eq!(tested, documented);
    let used: BTreeSet<&str> = steps().flat_map(|step| step.differences).collect();
    assert_eq!(used, SEEN_HERE.iter().map(|(name, _)| *name).collect());
}
