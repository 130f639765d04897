//! What the program says before it asks any node: help, completion, usage errors.

use std::process::{Command, Stdio};

use crate::command::{command, revfs};

#[test]
fn the_help_fits_one_screen() {
    for arguments in [["--help"].as_slice(), &["-h"]] {
        let help = revfs(arguments).ok();
        assert!(help.lines().count() <= 24, "{} lines:\n{help}", help.lines().count());
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
        assert!(help.contains("Examples:"), "{help}");
    }
}

#[test]
fn without_a_command_the_help_is_shown_as_an_error() {
    revfs([""; 0]).fails(2, &["Usage: revfs COMMAND", "Examples:"]);
}

#[test]
fn every_command_explains_itself_with_examples() {
    let commands = [
        "umount",
        "import",
        "mirror",
        "recover",
        "get",
        "put",
        "del",
        "ls",
        "log",
        "diff",
        "restore",
        "stat",
        "status",
        "completion",
        "txn",
        "watch",
        "lease",
        "lock",
        "elect",
        "compact",
        "user",
        "role",
        "auth",
        "alarm",
        "member",
    ];
    for name in commands {
        let help = revfs([name, "--help"]).ok();
        assert!(help.contains("Examples:") && help.contains("--json"), "{help}");
        assert!(help.contains(&format!("Usage: revfs {name}")), "{help}");
    }
}

#[test]
fn the_version_is_told() {
    assert_eq!(revfs(["--version"]).ok(), format!("revfs {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_arguments_exit_2_and_name_what_is_wrong() {
    let cases: [(&[&str], &[&str]); 10] = [
        (&["resotre", "/a"], &["resotre", "restore"]),
        (&["get"], &["<KEY>"]),
        (&["get", "/a", "--rev", "x"], &["--rev", "'x'", "whole number"]),
        (&["get", "/a", "--rev", "0"], &["--rev", "'0'", "begin at 1"]),
        (&["get", "/a", "--rev", "1", "--time", "-1h"], &["--rev", "--time"]),
        (&["put", "/a", "v", "--file", "f"], &["--file", "VALUE"]),
        (&["put", "/a", "v", "--if-absent", "--if-rev", "3"], &["--if-absent", "--if-rev"]),
        (&["restore", "/a"], &["--to"]),
        (&["completion", "tcsh"], &["tcsh", "bash", "zsh", "fish"]),
        (&["diff", "..", "/a"], &["'..'", "A..B"]),
    ];
    for (arguments, words) in cases {
        revfs(arguments).fails(2, words);
    }
}

#[test]
fn an_endpoint_that_names_no_node_is_a_usage_error() {
    revfs(["get", "/a", "--endpoint", "localhost"]).fails(2, &["--endpoint 'localhost'", "hint:"]);
    revfs(["get", "/a", "--log", "revfs=loud"]).fails(2, &["--log 'revfs=loud'", "hint:"]);
}

#[test]
fn a_node_that_is_not_there_exits_4() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("revfs.sock");
    let socket = socket.to_str().unwrap();
    revfs(["get", "/a", "--endpoint", socket]).fails(4, &[socket, "because:", "hint:"]);
    let by_variable = command(["ls"]).variable("REVFS_ENDPOINT", socket).run();
    by_variable.fails(4, &[socket]);
}

#[test]
fn with_json_errors_are_json_too() {
    let ended = revfs(["get", "/a", "--json", "--endpoint", "nowhere"]);
    assert_eq!((ended.code(), ended.out()), (Some(2), String::new()));
    let error: serde_json::Value = serde_json::from_str(&ended.err()).unwrap();
    assert_eq!(error["error"]["kind"], "usage");
    assert_eq!(error["error"]["exit_code"], 2);
    let words = ["mount", "--json", "-o", "rev=41,nonsense", "http://127.0.0.1:1", "/nowhere"];
    let error: serde_json::Value = serde_json::from_str(&revfs(words).err()).unwrap();
    assert!(error.to_string().contains("nonsense"), "{error}");
    let ended = revfs(["get", "--json"]);
    let error: serde_json::Value = serde_json::from_str(&ended.err()).unwrap();
    assert!(error["error"]["message"].as_str().unwrap().contains("<KEY>"), "{error}");
}

#[test]
fn nothing_is_unmounted_where_nothing_is_mounted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    revfs(["umount", path]).fails(1, &[path, "nothing is mounted"]);
    revfs(["umount", "/proc"]).fails(1, &["'/proc'", "not of revfs", "umount /proc"]);
    revfs(["status", path]).fails(1, &[path, "does not lie in a mount"]);
}

#[test]
fn completion_is_a_script_that_its_shell_takes() {
    let bash = revfs(["completion", "bash"]).ok();
    assert!(bash.contains("restore") && bash.contains("--if-absent"), "{bash}");
    let mut shell = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut shell.stdin.take().unwrap(), bash.as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success());
    assert!(revfs(["completion", "zsh"]).ok().starts_with("#compdef revfs"));
    assert!(revfs(["completion", "fish"]).ok().contains("complete -c revfs"));
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_revfs"));
    let child = command.args(["completion", "bash"]).stdout(writer).stderr(Stdio::piped()).spawn();
    let output = child.unwrap().wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(141));
}
