//! `get`, `put`, `del`, `ls` and `status` against a node.

use serde_json::json;

use crate::node::Node;

#[test]
fn a_value_is_stored_and_read_back() {
    let node = Node::start();
    assert_eq!(node.call("put /app/color red").run().ok(), "revision 2\n");
    assert_eq!(node.call("get /app/color").run().ok(), "red\n");
    assert_eq!(node.call("get --raw /app/color").run().ok(), "red");
    assert_eq!(node.call("put /app/color").input(b"from\nstdin\n").run().ok(), "revision 3\n");
    assert_eq!(node.call("get /app/color").run().ok(), "from\nstdin\n");
}

#[test]
fn a_value_may_be_any_bytes_and_a_file() {
    let node = Node::start();
    let bytes: Vec<u8> = (0..=255).collect();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bytes");
    std::fs::write(&file, &bytes).unwrap();
    node.call("put /b --file").argument(&file).run().ok();
    assert_eq!(node.call("get -p /b").run().ok_bytes(), bytes);
    let document = node.call("get /b --json").run().json();
    assert_eq!(document["value_bytes"], 256);
    assert!(document["value_base64"].as_str().unwrap().starts_with("AAECAwQF"), "{document}");
    let missing = directory.path().join("missing");
    let ended = node.call("put /b --file").argument(&missing).run();
    ended.fails(1, &["--file", "missing", "No such file"]);
}

#[test]
fn a_value_over_the_bound_is_refused_before_it_is_sent() {
    let node = Node::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("large");
    std::fs::File::create(&file).unwrap().set_len((16 << 20) + 1).unwrap();
    let ended = node.call("put /large --file").argument(&file).run();
    ended.fails(1, &["large", "16777216 bytes"]);
    node.call("get /large").run().fails(1, &["/large does not exist"]);
}

#[test]
fn stat_says_what_is_known_of_a_file_and_of_a_directory() {
    let node = Node::start();
    node.call("put /app/color red").run().ok();
    node.call("put /app/color blue").run().ok();
    let lines = node.call("stat /app/color").run().ok();
    let line = |name: &str| {
        let line = lines.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} in {lines}")).trim().to_owned()
    };
    assert_eq!([line("key"), line("bytes"), line("lease")], ["/app/color", "4", "-"]);
    assert_eq!([line("create_revision"), line("mod_revision"), line("version")], ["2", "3", "2"]);
    assert!(line("author").contains('@'), "{lines}");
    let then = node.call("stat /app/color --rev 2 --json").run().json();
    assert_eq!((&then["value_bytes"], &then["version"]), (&json!(3), &json!(1)));
    let id = node.call("lease grant 600").run().ok();
    let id = id.split('\t').next().unwrap();
    let script = format!("put /app/leased x lease {id}");
    node.call("txn").input(script.as_bytes()).run().ok();
    let leased = node.call("stat /app/leased --json").run().json();
    assert_eq!(leased["granted"], 600);
    assert!((1..=600).contains(&leased["ttl"].as_i64().unwrap()), "{leased}");
    assert_eq!(node.call("stat /app --json").run().json()["names"], 2);
    node.call("stat /none").run().fails(1, &["/none does not exist"]);
}

#[test]
fn an_absent_key_exits_1_and_hints_at_what_was_meant() {
    let node = Node::start();
    node.put(&[(b"/app/color", b"red")]);
    node.call("get /none").run().fails(1, &["/none does not exist at revision 2"]);
    node.call("get /app").run().fails(1, &["it is a directory: revfs ls /app"]);
    node.call("get app/color").run().fails(1, &["begin with a slash: /app/color"]);
    node.call("get --prefix /none").run().fails(1, &["no key begins with /none"]);
    let ended = node.call("get /app/color /none").run();
    assert_eq!((ended.code(), ended.out()), (Some(1), "/app/color\tred\n".to_owned()));
    let ended = node.call("get /none --json").run();
    let error: serde_json::Value = serde_json::from_str(&ended.err()).unwrap();
    assert_eq!(error["error"]["kind"], "not-found");
}

#[test]
fn several_keys_are_printed_one_a_line() {
    let node = Node::start();
    node.put(&[(b"/a/1", b"one\ntwo"), (b"/a/2", b"three"), (b"/ab", b"no")]);
    let lines = "/a/1\tone\\x0atwo\n/a/2\tthree\n";
    assert_eq!(node.call("get --prefix /a/").run().ok(), lines);
    assert_eq!(node.call("get /a/1 /a/2").run().ok(), lines);
    assert_eq!(node.call("get --raw --prefix /a/").run().ok(), "one\ntwothree");
    assert_eq!(node.call("get --prefix /a --json").run().json_lines().len(), 3);
}

#[test]
fn many_keys_are_read_in_pages_without_loss() {
    let node = Node::start();
    let keys: Vec<String> = (0..2_500).map(|number| format!("/many/{number:05}")).collect();
    let pairs: Vec<(&[u8], &[u8])> =
        keys.iter().map(|key| (key.as_bytes(), b"v".as_slice())).collect();
    node.put(&pairs);
    let listed = node.call("ls /many").run().ok();
    assert_eq!(listed.lines().count(), 2_500);
    let expected: String = keys.iter().map(|key| format!("{key}\n")).collect();
    assert_eq!(node.call("ls -R /many").run().ok(), expected);
    assert_eq!(node.call("get --prefix /many/").run().ok().lines().count(), 2_500);
    assert_eq!(node.call("del --prefix /many/").run().ok(), "deleted 2500 keys, revision 3\n");
}

#[test]
fn the_past_is_read_by_revision_and_by_time() {
    let node = Node::start();
    node.put(&[(b"/k", b"old")]);
    node.pass(std::time::Duration::from_secs(3_600));
    node.put(&[(b"/k", b"new")]);
    assert_eq!(node.call("get /k --rev 2").run().ok(), "old\n");
    assert_eq!(node.call("get /k --time 2026-01-01T00:30:00Z").run().ok(), "old\n");
    assert_eq!(node.call("get /k --time @2026-01-01T01:00:00Z").run().ok(), "new\n");
    node.call("get /k --rev 9").run().fails(1, &["revision 9 is in the future", "up to 3"]);
    node.call("get /k --time yesterday").run().fails(2, &["yesterday", "-10m"]);
}

#[test]
fn conditions_that_do_not_hold_exit_3_and_change_nothing() {
    let node = Node::start();
    assert_eq!(node.call("put /k a --if-absent").run().ok(), "revision 2\n");
    node.call("put /k b --if-absent").run().fails(3, &["/k exists already", "changed at 2"]);
    assert_eq!(node.call("put /k b --if-rev 2").run().ok(), "revision 3\n");
    node.call("put /k c --if-rev 2").run().fails(3, &["last changed at revision 3, not at 2"]);
    node.call("put /none c --if-rev 2").run().fails(3, &["/none does not exist"]);
    assert_eq!(node.call("get /k").run().ok(), "b\n");
    let document = node.call("put /k c --if-rev 3 --json").run().json();
    assert_eq!(document, json!({"key": "/k", "value_bytes": 1, "revision": 4}));
}

#[test]
fn del_counts_and_takes_the_side_records_along() {
    let node = Node::start();
    node.put(&[(b"/a", b"1"), (b"/d/x", b"2"), (b"/d/y", b"3"), (b"\0revfs/a/d/x", b"record")]);
    assert_eq!(node.call("del /a").run().ok(), "deleted 1 key, revision 3\n");
    node.call("del /a").run().fails(1, &["/a does not exist"]);
    node.call("del /d").run().fails(1, &["--prefix"]);
    let document = node.call("del --prefix /d/ --json").run().json();
    assert_eq!(document, json!({"deleted": 2, "revision": 4}));
    assert_eq!(node.call("ls -R --key").argument("").run().ok(), "");
    node.call("del --prefix").argument("").run().fails(2, &["every key"]);
    node.call("del").argument("").run().fails(2, &["the key is empty"]);
}

#[test]
fn ls_shows_one_level_and_more_on_demand() {
    let node = Node::start();
    node.put(&[(b"/a/f", b"12345"), (b"/a/sub/g", b"x"), (b"/a/sub/", b""), (b"/b", b"")]);
    assert_eq!(node.call("ls").run().ok(), "a/\nb\n");
    assert_eq!(node.call("ls /a").run().ok(), "f\nsub/\n");
    assert_eq!(node.call("ls /a/").run().ok(), "f\nsub/\n");
    assert_eq!(node.call("ls /a/f").run().ok(), "/a/f\n");
    assert_eq!(node.call("ls -R /a").run().ok(), "/a/f\n/a/sub/\n/a/sub/g\n");
    node.call("ls /none").run().fails(1, &["/none does not exist"]);
    let long = node.call("ls -l /a").run().ok();
    assert_eq!(
        long,
        "2  2026-01-01 00:00:00 +0000  5  -  f\n2  2026-01-01 00:00:00 +0000  -  -  sub/\n"
    );
    let documents = node.call("ls /a --json").run().json_lines();
    assert_eq!(documents[0]["name"], "f");
    assert_eq!(documents[0]["key"], "/a/f");
    assert_eq!(documents[0]["value_bytes"], 5);
    assert_eq!(documents[1]["directory"], true);
    node.call("del --prefix /a/").run().ok();
    assert_eq!(node.call("ls /a --rev 2").run().ok(), "f\nsub/\n");
}

#[test]
fn an_empty_store_lists_nothing() {
    let node = Node::start();
    assert_eq!(node.call("ls").run().ok(), "");
    assert_eq!(node.call("ls / --json").run().ok(), "");
    assert_eq!(node.call("log /").run().ok(), "");
}

#[test]
fn status_is_a_table_or_json() {
    let node = Node::start();
    node.put(&[(b"/k", b"v")]);
    let table = node.call("status").run().ok();
    assert!(table.lines().any(|line| line.split_whitespace().eq(["revision", "2"])), "{table}");
    assert_eq!(node.call("status --json").run().json()["revision"], 2);
}

#[test]
fn errors_of_the_node_come_with_their_cause_and_the_next_step() {
    use revfs_api::keyspace::Error;
    use revfs_fs::memory::FailureMoment;
    let node = Node::start();
    let full = Error::NoSpace { reason: "the disk is full".into() };
    node.keys.fail_next_txn(FailureMoment::Before, full);
    node.call("put /k v").run().fails(1, &["cannot put /k", "because: no space", "hint:"]);
    let unknown = Error::OutcomeUnknown { reason: "the leader is gone".into() };
    node.keys.fail_next_txn(FailureMoment::After, unknown);
    node.call("put /k v").run().fails(5, &["outcome is unknown", "revfs log"]);
    node.keys.fail_next_read(Error::NoQuorum { reason: "1 of 3".into() });
    node.call("get /k").run().fails(4, &["no quorum: 1 of 3", "revfs status"]);
}
