//! Changes made elsewhere are seen although the kernel keeps names and attributes for an hour.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use super::live::Live;

#[test]
fn a_changed_file_is_seen_by_stat_and_cat() {
    let live = Live::new();
    live.put("/f", "one\n");
    assert_eq!(live.sh("cat f; stat -c %s f"), "one\n4\n");
    live.put("/f", "twenty\n");
    live.wait_for("[ \"$(cat f)\" = twenty ] && [ $(stat -c %s f) = 7 ]");
}

#[test]
fn nothing_is_asked_twice_while_nothing_changes() {
    let live = Live::new();
    live.put("/d/f", "one\n");
    live.put("/d/g", "two\n");
    let script = "cat d/f d/f; stat -c %s d/g; [ -e d/nothing ] || echo none";
    live.comes_to_cost(script, "one\none\n4\nnone\n", 0);
}

#[test]
fn names_come_and_go() {
    let live = Live::new();
    live.put("/d/kept", "");
    assert_eq!(live.sh("ls d; ls d/new 2>&1 | wc -l"), "kept\n1\n");
    live.put("/d/new", "");
    live.wait_for("[ -e d/new ] && [ \"$(ls d)\" = \"kept\nnew\" ]");
    live.delete("/d/kept");
    live.wait_for("[ ! -e d/kept ] && [ \"$(ls d)\" = new ]");
    assert!(live.sh_fails("ls x/y/z").contains("No such file"));
    live.put("/x/y/z", "deep\n");
    live.wait_for("[ \"$(cat x/y/z)\" = deep ]");
    live.delete("/x/y/z");
    live.wait_for("[ ! -e x ]");
    live.put("/x/y/z", "again\n");
    live.wait_for("[ \"$(cat x/y/z)\" = again ]");
}

#[test]
fn a_name_changes_its_kind() {
    let live = Live::new();
    live.put("/a", "value\n");
    assert_eq!(live.sh("cat a"), "value\n");
    live.put("/a/b", "below\n");
    live.wait_for("[ -d a ]");
    assert_eq!(live.sh("ls a; cat a/@value a/b"), "@value\nb\nvalue\nbelow\n");
    live.delete("/a/b");
    live.wait_for("[ -f a ]");
    assert_eq!(live.sh("cat a"), "value\n");
    live.put("/a/b", "below\n");
    live.wait_for("[ -d a ] && [ \"$(cat a/b)\" = below ]");
    live.delete("/a");
    live.wait_for("[ ! -e a/@value ] && [ \"$(cat a/b)\" = below ]");
}

#[test]
fn an_open_file_goes_on_when_its_name_is_gone() {
    let live = Live::new();
    live.put("/f", "old content\n");
    let script = "exec 3<f; stat -c %s f; read -r go; cat <&3; stat -L -c %h /dev/fd/3";
    let mut child = Command::new("timeout")
        .args(["20", "sh", "-c", script])
        .current_dir(live.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "12\n");
    live.delete("/f");
    live.wait_for("[ ! -e f ]");
    live.put("/f", "new\n");
    live.wait_for("[ \"$(cat f)\" = new ]");
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "old content\n0\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_lost_stream_is_taken_up_again() {
    let live = Live::new();
    live.put("/f", "one\n");
    assert_eq!(live.sh("cat f"), "one\n");
    live.memory.end_watches();
    live.put("/f", "twenty\n");
    live.wait_for("[ \"$(cat f)\" = twenty ] && [ $(stat -c %s f) = 7 ]");
    live.wait_for("grep -q '\"watching\": true' @status");
    live.put("/g", "");
    live.wait_for("[ -e g ]");
}
