//! `@watch` as programs read it: a line for each change below its directory, for as long as they want.

#![expect(clippy::unwrap_used, reason = "what fails here ends its test")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use revfs_api::KeySpace;
use revfs_fs::filesystem::MountOptions;

use super::live::Live;

fn kinds_and_paths(lines: &str) -> Vec<String> {
    let line = |line: &str| {
        let value: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        format!("{} {}", value["kind"].as_str().unwrap(), value["path"].as_str().unwrap())
    };
    lines.lines().map(line).collect()
}

#[test]
fn programs_read_it_line_by_line_from_any_revision_on() {
    let live = Live::new();
    let first = live.put("/d/f", "1");
    live.put("/d/f", "2");
    live.put("/other", "");
    live.put("/d/sub/g", "");
    live.delete("/d/f");
    live.wait_for("[ -e d/sub/g ] && ! [ -e d/f ]");
    drop(live.sh("chmod 600 d/sub/g && mkdir d/made"));
    let expected =
        ["create f", "write f", "create sub/g", "delete f", "attributes sub/g", "create made/"];
    let name = format!("d/@watch.{first}");
    // `head` says that it could not go back by 0 bytes, and succeeds.
    for reader in ["2> /dev/null head -n 6", "sed 6q", "grep -m 6 path"] {
        let lines = live.sh(&format!("{{ {reader} {name}; }} 2>&1"));
        assert_eq!(kinds_and_paths(&lines), expected, "{reader}");
    }
    // bash reads byte by byte what it cannot seek in: the second program goes on where it ended.
    let shared = format!("bash -c 'exec 3< {name}; read -r _ <&3; head -n 1 <&3; head -n 2 <&3'");
    assert_eq!(kinds_and_paths(&live.sh(&shared)), expected[1..4]);
    let python = format!(
        "python3 -c 'import json, itertools
for line in itertools.islice(open(\"{name}\"), 3): print(json.loads(line)[\"path\"])'"
    );
    assert_eq!(live.sh(&python), "f\nf\nsub/g\n");
    assert_eq!(live.sh("ls -a d"), ".\n..\nmade\nsub\n");
    assert_eq!(live.sh("stat -c '%F %s %a' d/@watch"), "regular empty file 0 444\n");
    for refused in ["echo x > d/@watch", "echo x >> d/@watch.7", "rm d/@watch", "mkdir d/@watch"] {
        drop(live.sh_fails(refused));
    }
}

/// A loop of shell that is awakened by a line reads what the line is about.
#[test]
fn who_reads_a_file_because_of_a_line_reads_what_is_new() {
    const LOOP: &str = "exec 5< d/@watch; echo begun
        while read -r line; do echo \"$(cat d/f)\"; done <&5";
    const CHANGES: usize = 100;
    let live = Live::new();
    live.put("/d/f", "0");
    assert_eq!(live.sh("cat d/f"), "0");
    let mut shell = Command::new("bash")
        .args(["-c", LOOP])
        .current_dir(live.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "begun");
    for number in 1..=CHANGES {
        live.put("/d/f", &number.to_string());
        assert_eq!(lines.next().unwrap(), number.to_string());
    }
    shell.kill().unwrap();
    shell.wait().unwrap();
}

#[test]
fn a_blocked_reader_is_ended_by_its_signals_and_others_do_not_wait_for_it() {
    const SCRIPT: &str = r#"
import os, errno, select, threading
fds = [os.open("d/@watch", os.O_RDONLY) for _ in range(256)]
try: os.open("d/@watch", os.O_RDONLY)
except OSError as error: print(errno.errorcode[error.errno])
lines = []
readers = [threading.Thread(target=lambda fd=fd: lines.append(os.read(fd, 4096))) for fd in fds[:64]]
for reader in readers: reader.start()
for _ in range(200): os.listdir("."); os.stat("@status")
open("d/f", "w").write("x")
for reader in readers: reader.join()
print(len(lines), len(set(lines)))
for fd in fds: os.close(fd)

fd = os.open("d/@watch", os.O_RDONLY | os.O_NONBLOCK)
try: os.read(fd, 10)
except OSError as error: print(errno.errorcode[error.errno])
print(os.lseek(fd, 7, os.SEEK_SET), os.lseek(fd, 0, os.SEEK_CUR))
poller = select.poll()
poller.register(fd, select.POLLIN)
print(poller.poll(0))
def change():
    with open("d/f", "w") as f: f.write("y")
threading.Thread(target=change).start()
print(poller.poll() == [(fd, select.POLLIN)], os.read(fd, 4096).count(b"\n"), poller.poll(0))
with open("d/f") as f:
    poller.register(f, select.POLLIN)
    print(poller.poll(0) == [(f.fileno(), select.POLLIN)])
"#;
    let live = Live::new();
    live.put("/d/kept", "");
    live.wait_for("[ -e d/kept ]");
    // `timeout` ends with 124 when it had to send its signal, and with 137 after SIGKILL.
    for (signal, code) in [("INT", 124), ("TERM", 124), ("KILL", 137)] {
        let output = live.run(&format!("timeout -s {signal} 0.2 cat d/@watch"));
        assert_eq!(output.status.code(), Some(code), "{signal}");
    }
    let said = live.sh(&format!("python3 -c '{SCRIPT}'"));
    assert_eq!(said, "ENFILE\n64 1\nEAGAIN\n7 7\n[]\nTrue 1 []\nTrue\n");
}

#[test]
fn what_was_compacted_is_estale() {
    let live = Live::new();
    let first = live.put("/d/f", "1");
    let last = live.put("/d/f", "2");
    live.runtime.block_on(live.memory.compact(last, false)).unwrap();
    assert!(live.sh_fails(&format!("cat d/@watch.{first}")).contains("Stale file handle"));
    assert!(live.sh_fails("echo x > d/@watch").contains("Read-only"));
}

#[test]
fn a_subdirectory_is_told_of_to_those_who_may_list_it() {
    let live = Live::new();
    drop(live.sh("chmod 755 . && mkdir d d/open && mkdir -m 700 d/closed && mkdir -m 750 d/group"));
    drop(live.sh("chgrp 4 d/group"));
    let from = live.memory.current().next();
    drop(live.sh("echo x > d/closed/secret; echo x > d/group/f; echo x > d/open/f"));
    let lines = |groups: &str, count: u32| {
        let head = format!("head -n {count} d/@watch.{from}");
        live.sh(&format!("setpriv --reuid 65534 --regid 65534 {groups} {head}"))
    };
    assert_eq!(kinds_and_paths(&lines("--clear-groups", 1)), ["create open/f"]);
    assert_eq!(kinds_and_paths(&lines("--groups 4", 2)), ["create group/f", "create open/f"]);
}

/// A mount that goes is the end of the file; nobody has to be thrown out.
#[test]
fn an_unmount_ends_those_who_read() {
    let live = Live::new();
    let other = Live::of(Arc::clone(&live.memory), MountOptions::default());
    let from = live.memory.current().next();
    let mut reader = Command::new("cat")
        .arg(other.path().join(format!("@watch.{from}")))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(reader.stdout.take().unwrap()).lines().map(Result::unwrap);
    live.put("/f", "");
    assert_eq!(kinds_and_paths(&lines.next().unwrap()), ["create f"]);
    drop(other);
    assert_eq!(lines.next(), None);
    assert!(reader.wait().unwrap().success());
}
