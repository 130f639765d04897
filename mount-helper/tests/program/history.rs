//! `log`, `diff` and `restore` against a node.

use std::process::Command;

use serde_json::json;

use crate::node::Node;

/// Revision 2: two files; 3: one changed; 4: one deleted, one new.
fn with_history() -> Node {
    let node = Node::start();
    node.put(&[(b"/app/limits", b"cpu 1\nmemory 2\n"), (b"/app/old", b"gone soon\n")]);
    node.pass(std::time::Duration::from_secs(60));
    node.put(&[(b"/app/limits", b"cpu 8\nmemory 2\n")]);
    node.call("del /app/old").run().ok();
    node.call("put /app/new").input(b"new\n").run().ok();
    node
}

#[test]
fn the_log_of_a_file_is_its_versions_newest_first() {
    let node = with_history();
    assert_eq!(
        node.call("log /app/limits").run().ok(),
        "3  2026-01-01 00:01:00 +0000  -  changed  15\n2  2026-01-01 00:00:00 +0000  -  created  15\n"
    );
    let deleted = node.call("log /app/old --json").run().json_lines();
    assert_eq!(deleted.len(), 2);
    assert_eq!((&deleted[0]["change"], &deleted[0]["revision"]), (&json!("deleted"), &json!(4)));
    let claimed = deleted[0]["author"]["claimed"].as_str().unwrap();
    assert!(claimed.contains('@'), "{claimed}");
    node.call("log /none").run().fails(1, &["/none has no history"]);
}

#[test]
fn the_log_of_a_directory_names_what_changed_in_it() {
    let node = with_history();
    node.put(&[(b"/elsewhere", b"x")]);
    let log = node.call("log /app --json").run().json_lines();
    let seen: Vec<_> = log
        .iter()
        .map(|row| {
            (
                row["revision"].as_u64().unwrap(),
                row["key"].as_str().unwrap(),
                row["change"].as_str().unwrap(),
            )
        })
        .collect();
    let expected = [
        (5, "/app/new", "created"),
        (4, "/app/old", "deleted"),
        (3, "/app/limits", "changed"),
        (2, "/app/limits", "created"),
        (2, "/app/old", "created"),
    ];
    assert_eq!(seen, expected);
    let text = node.call("log /app").run().ok();
    assert!(text.lines().next().unwrap().ends_with("  new"), "{text}");
    let ended = node.call("log /app -n 1").run();
    assert_eq!((ended.code(), ended.out().lines().count()), (Some(0), 1), "{ended}");
    assert!(ended.err().contains("-n 0"), "{ended}");
}

#[test]
fn the_log_of_a_deleted_directory_is_still_there() {
    let node = with_history();
    node.call("del --prefix /app/").run().ok();
    let log = node.call("log /app --json").run().json_lines();
    assert_eq!(log.iter().filter(|row| row["revision"] == 6).count(), 2, "{log:?}");
}

#[test]
fn a_diff_is_one_that_patch_applies() {
    let node = with_history();
    let diff = node.call("diff 2..5 /app").run().ok();
    let expected = "\
--- /app/@rev/2/limits\t2026-01-01 00:00:00.000000000 +0000
+++ /app/@rev/5/limits\t2026-01-01 00:01:00.000000000 +0000
@@ -1,2 +1,2 @@
-cpu 1
+cpu 8
 memory 2
--- /dev/null
+++ /app/@rev/5/new\t2026-01-01 00:01:00.000000000 +0000
@@ -0,0 +1 @@
+new
--- /app/@rev/2/old\t2026-01-01 00:00:00.000000000 +0000
+++ /dev/null
@@ -1 +0,0 @@
-gone soon
";
    assert_eq!(diff, expected);
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("limits"), "cpu 1\nmemory 2\n").unwrap();
    std::fs::write(at("old"), "gone soon\n").unwrap();
    std::fs::write(at("patch"), diff).unwrap();
    let mut patch = Command::new("patch");
    patch.args(["-p4", "-i", "patch"]).current_dir(directory.path());
    let patched = patch.output().unwrap();
    assert!(patched.status.success(), "{patched:?}");
    assert_eq!(std::fs::read(at("limits")).unwrap(), b"cpu 8\nmemory 2\n");
    assert_eq!(std::fs::read(at("new")).unwrap(), b"new\n");
    assert!(!at("old").exists());
}

#[test]
fn a_diff_takes_times_one_side_and_single_files() {
    let node = with_history();
    let whole = node.call("diff 2.. /app/limits").run().ok();
    assert!(whole.contains("--- /app/@rev/2/limits") && whole.contains("+cpu 8"), "{whole}");
    let by_time = "diff @2026-01-01T00:00:30Z.. /app/limits";
    assert_eq!(node.call(by_time).run().ok(), whole);
    let back = node.call("diff ..2 /app/limits").run().ok();
    assert!(back.contains("-cpu 8") && back.contains("+cpu 1"), "{back}");
    assert_eq!(node.call("diff 3..4 /app/limits").run().ok(), "");
    let ended = node.call("diff --exit-code 2..3 /app/limits").run();
    assert_eq!((ended.code(), ended.err()), (Some(1), String::new()));
    assert_eq!(node.call("diff --exit-code 3..4 /app/limits").run().ok(), "");
    node.call("diff 2..3 /none").run().fails(1, &["exists neither at revision 2 nor at 3"]);
    let document = node.call("diff 2..3 /app/limits --json").run().json();
    assert_eq!(document["change"], "changed");
    assert!(document["diff"].as_str().unwrap().contains("+cpu 8"));
}

#[test]
fn files_that_are_not_text_are_only_named() {
    let node = Node::start();
    node.put(&[(b"/d/b", b"\0one"), (b"/d/empty", b"")]);
    node.put(&[(b"/d/b", b"\0two")]);
    let diff = node.call("diff 2..3 /d").run().ok();
    assert_eq!(diff, "Binary files /d/@rev/2/b and /d/@rev/3/b differ\n");
    assert_eq!(
        node.call("diff 1..2 /d").run().ok(),
        "Binary files /dev/null and /d/@rev/2/b differ\nEmpty file /d/empty was created\n"
    );
}

#[test]
fn restore_is_one_revision_that_can_be_taken_back() {
    let node = with_history();
    let planned = node.call("restore /app --to 2 --dry-run").run().ok();
    assert_eq!(
        planned,
        "restored  /app/limits\ndeleted   /app/new\nrestored  /app/old\n\
         3 keys would change; nothing was done\n"
    );
    let done = node.call("restore /app --to 2").run().ok();
    assert!(done.ends_with("3 keys as at revision 2: revision 6\n"), "{done}");
    assert_eq!(
        done.lines().take(3).collect::<Vec<_>>(),
        planned.lines().take(3).collect::<Vec<_>>()
    );
    assert_eq!(
        node.call("get --prefix /app/").run().ok(),
        "/app/limits\tcpu 1\\x0amemory 2\\x0a\n/app/old\tgone soon\\x0a\n"
    );
    assert_eq!(node.call("diff 2.. /app").run().ok(), "");
    let again = node.call("restore /app --to 6").run().ok();
    assert_eq!(again, "nothing to do: it is as it was at revision 6\n");
    let document = node.call("restore /app --to 5 --json").run().json();
    assert_eq!((&document["revision"], &document["to"]), (&json!(7), &json!(5)));
    assert_eq!(document["changes"].as_array().unwrap().len(), 3);
    assert_eq!(node.call("get /app/new").run().ok(), "new\n");
}

#[test]
fn restore_takes_side_records_along_and_nothing_else() {
    let node = Node::start();
    node.put(&[(b"/a", b"1"), (b"\0revfs/a/a", b"record 1"), (b"/ab", b"1")]);
    node.put(&[(b"/a", b"2"), (b"\0revfs/a/a", b"record 2"), (b"/ab", b"2")]);
    assert_eq!(
        node.call("restore /a --to 2").run().ok(),
        "restored  /a\n1 key as at revision 2: revision 4\n"
    );
    assert_eq!(node.call("get /a /ab").run().ok(), "/a\t1\n/ab\t2\n");
    let record = node.call("get @keys").run();
    assert_eq!(record.code(), Some(1), "{record}");
    let all = node.call("get --prefix --json").argument("").run().json_lines();
    assert_eq!(all[0]["value"], "record 1", "{all:?}");
}

#[test]
fn restoring_what_did_not_exist_deletes_only_on_demand() {
    let node = with_history();
    node.call("restore /app/new --to 2")
        .run()
        .fails(1, &["did not exist at revision 2", "--delete"]);
    node.call("restore /none --to 2").run().fails(1, &["neither at revision 2 nor now"]);
    node.call("restore /app/new --to 99").run().fails(1, &["99", "in the future"]);
    let done = node.call("restore /app/new --to 2 --delete").run().ok();
    assert!(done.starts_with("deleted  /app/new\n"), "{done}");
    node.call("restore /app --to").argument("").run().fails(2, &["--to"]);
}

#[test]
fn what_was_compacted_says_where_history_begins() {
    let node = with_history();
    node.compact(4);
    node.call("get /app/limits --rev 2").run().fails(1, &["compacted", "history begins at 4"]);
    node.call("restore /app --to 2").run().fails(1, &["compacted"]);
    let log = node.call("log /app --json").run().json_lines();
    assert!(log.iter().all(|row| row["revision"].as_u64().unwrap() >= 4), "{log:?}");
}
