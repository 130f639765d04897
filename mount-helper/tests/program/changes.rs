//! `txn`, `watch` and `compact`, on a node and on etcd.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::backend::Backend;
use crate::command::revfs;

/// The example of docs/API.md, as it stands there.
fn documented() -> String {
    let page = include_str!("../../../docs/API.md");
    let begin = page.find("```txn\n").expect("the page has an example") + "```txn\n".len();
    let end = begin + page[begin..].find("```").expect("it is closed");
    page[begin..end].to_owned()
}

#[test]
fn the_documented_transaction_does_what_the_page_says() {
    for server in Backend::both() {
        let text = documented();
        server.call("put /app/color red").run().ok();
        let first = server.call("txn").input(text.as_bytes()).run().ok();
        assert_eq!(
            first,
            "then, revision 3\nput /app/color, was red\nput /app/motd\ndeleted 0 keys\n\
             /app/color\tdark blue\n/app/motd\thello\\x0aworld\n"
        );
        let second = server.call("txn -").input(text.as_bytes()).run();
        assert_eq!(second.code(), Some(3), "{second}");
        assert_eq!(second.out(), "else, revision 3\n/app/color\tdark blue\n");
        assert_eq!(second.err(), "");
    }
}

#[test]
fn a_transaction_answers_in_json_and_holds_others() {
    for server in Backend::both() {
        let text = "put /a 1\nput /b \"\\xff\"\ntxn\n if absent /none\n then put /c 3\n else get /a\nend\n\
                    get prefix / keys limit 2\nget /a count\ndelete /none\n";
        let document = server.call("txn --json").input(text.as_bytes()).run().json();
        assert_eq!(document["succeeded"], true);
        assert_eq!((&document["revision"], &document["changed"]), (&json!(2), &json!(true)));
        let answers = &document["answers"];
        assert_eq!(answers[0], json!({ "put": { "prev": null } }));
        assert_eq!(answers[2]["txn"]["succeeded"], true);
        assert_eq!(answers[3]["get"]["count"], 3);
        assert_eq!(answers[3]["get"]["more"], true);
        assert_eq!(answers[3]["get"]["keys"][1]["key"], "/b");
        assert_eq!(answers[4]["get"], json!({ "count": 1, "more": false, "keys": [] }));
        assert_eq!(answers[5], json!({ "delete": { "deleted": 0, "prev": [] } }));
        let bytes = server.call("get /b --json").run().json();
        assert_eq!(bytes["value_base64"], "/w==");
    }
}

#[test]
fn a_transaction_moves_and_restores_on_a_node() {
    let server = Backend::node();
    let run = |text: &str| server.call("txn").input(text.as_bytes()).run().ok();
    assert_eq!(
        run("put /d/a 1\nput /d/b 2\nput /x old"),
        "then, revision 2\nput /d/a\nput /d/b\nput /x\n"
    );
    assert_eq!(
        run("move /d/ /e/\nappend /x er\nput /y 1"),
        "then, revision 3\nmoved 2 keys\nappended, now 5 bytes\nput /y\n"
    );
    assert_eq!(run("exchange /x /y"), "then, revision 4\nmoved 2 keys\n");
    assert_eq!(server.call("get /y").run().ok(), "older\n");
    assert_eq!(run("restore prefix /d/ rev 2"), "then, revision 5\nrestored 2 keys, deleted 0\n");
}

#[test]
fn a_wrong_text_is_named_with_line_and_column() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wrong.txn");
    std::fs::write(&file, "if\n  value /a is red\nthen\n").unwrap();
    let call = |file: &std::path::Path| revfs(["txn", file.to_str().unwrap()]);
    call(&file).fails(2, &["wrong.txn: line 2, column 12: 'is' stands", "hint:"]);
    std::fs::write(&file, b"put /a 1\nput /b \xFF\n").unwrap();
    call(&file).fails(2, &["wrong.txn: line 2: it is no UTF-8", "\\xHH"]);
    call(&directory.path().join("none")).fails(1, &["cannot read", "none", "No such file"]);
}

#[test]
fn a_watch_prints_what_was_and_what_comes() {
    for server in Backend::both() {
        server.call("put /a/x one").run().ok();
        server.call("put /b other").run().ok();
        server.call("put /a/x two").run().ok();
        let mut watch = server.begin(&["watch", "/a/", "--prefix", "--rev", "2", "--prev"]);
        assert_eq!(watch.line(), "2\tput\t/a/x\tone\t");
        assert_eq!(watch.line(), "4\tput\t/a/x\ttwo\tone");
        server.call("txn").input(b"put /a/y \"a\\tb\"\ndelete /a/x").run().ok();
        let mut both = [watch.line(), watch.line()];
        both.sort();
        assert_eq!(both, ["5\tdelete\t/a/x\t\ttwo", "5\tput\t/a/y\ta\\x09b\t"]);
        watch.signal(Signal::SIGINT);
        assert_eq!(watch.end(), (Some(0), String::new(), String::new()));
        let lines = server.call("watch /a/x --rev 2 -n 3 --prev --json").run().json_lines();
        assert_eq!(lines.len(), 3);
        assert_eq!((&lines[1]["kind"], &lines[1]["value"]), (&json!("put"), &json!("two")));
        assert_eq!(lines[1]["prev"]["value"], "one");
        assert_eq!((&lines[2]["kind"], &lines[2]["revision"]), (&json!("delete"), &json!(5)));
    }
}

#[test]
fn a_watch_gathers_changes_for_one_run_and_ends_a_command_that_takes_too_long() {
    for server in Backend::both() {
        for value in ["one", "two", "three"] {
            server.call(&format!("put /k {value}")).run().ok();
        }
        let script = "echo $REVFS_WATCH_REVISION; wc -l";
        let line = "watch /k --rev 2 -n 3 --debounce 60000 -- sh -c";
        assert_eq!(server.call(line).argument(script).run().ok(), "4\n3\n");
        // Without a word about it, too.
        let script = "echo $REVFS_WATCH_REVISION \"$REVFS_WATCH_KEYS\"";
        let both = server.call("txn").input(b"put /l 1\nput /k four").run();
        assert_eq!(both.code(), Some(0), "{both}");
        let line = "watch / --prefix --rev 2 -n 4 -- sh -c";
        assert_eq!(server.call(line).argument(script).run().ok(), "5 /k\n/l\n");
        let late = server.call("watch /k --rev 2 -n 1 --timeout 1 -- sleep 1000").run();
        assert_eq!(late.code(), Some(0), "{late}");
        assert!(late.err().contains("'sleep' at revision 2: ended after 1s"), "{late}");
        server.call("watch /k --debounce soon -- true").run().fails(2, &["--debounce", "500ms"]);
        server.call("watch /k --debounce 5").run().fails(2, &["--debounce", "-- CMD"]);
    }
}

#[test]
fn a_watch_runs_a_command_at_each_revision() {
    for server in Backend::both() {
        server.call("put /k one").run().ok();
        server.call("put /k two").run().ok();
        let script = "echo $REVFS_WATCH_REVISION $REVFS_WATCH_KIND $REVFS_WATCH_KEY \
                      $REVFS_WATCH_VALUE; wc -l";
        let call =
            server.call("watch /k --rev 2 -n 2 --debounce 0 -- sh -c").argument(script).run();
        assert_eq!(call.ok(), "2 put /k one\n1\n3 put /k two\n1\n");
        // One that fails is told of, and the watch goes on.
        let failing = server.call("watch /k --rev 2 -n 2 --debounce 0 -- false").run();
        assert_eq!(failing.code(), Some(0), "{failing}");
        assert!(failing.err().contains("'false' at revision 3: exit status: 1"), "{failing}");
        server
            .call("watch /k --rev 2 -- /nowhere/program")
            .run()
            .fails(1, &["/nowhere/program", "sh -c"]);
    }
}

#[test]
fn compaction_forgets_what_was_before_and_is_told() {
    for server in Backend::both() {
        for value in ["one", "two", "three"] {
            server.call(&format!("put /k {value}")).run().ok();
        }
        assert_eq!(
            server.call("compact 3 --physical").run().ok(),
            "history begins at revision 3\n"
        );
        assert_eq!(server.call("get /k --rev 3").run().ok(), "two\n");
        server.call("get /k --rev 2").run().fails(1, &["revision 2 is compacted", "begins at 3"]);
        server.call("watch /k --rev 2").run().fails(1, &["compacted"]);
        server.call("compact 2").run().fails(1, &["compact to revision 2", "compacted"]);
        server.call("compact 99").run().fails(1, &["compact to revision 99", "future"]);
        server.call("compact").argument("").run().fails(2, &["a revision or a time"]);
        assert_eq!(server.call("compact 4 --json").run().json(), json!({"compacted_revision": 4}));
    }
}
