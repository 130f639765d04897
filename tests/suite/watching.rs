//! Programs that wait for changes: `@watch`, `revfs watch`, and those that ask inotify.

use nix::sys::signal::Signal;
use revfs_tests::etcd::free_address;
use revfs_tests::shell::Running;
use revfs_tests::{Etcd, Mount, tools, wait};
use serde_json::Value;

use crate::two_mounts::TwoMounts;

/// Waits until a line that runs in the background has printed these words.
fn says(running: &Running, words: &str) {
    wait::until_true(&format!("{words:?}"), wait::LIMIT, || running.stdout().contains(words));
}

fn parsed(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

fn kinds_and_paths(lines: &[Value]) -> Vec<String> {
    let text = |line: &Value, name: &str| line[name].as_str().expect("it is text").to_owned();
    lines.iter().map(|line| format!("{} {}", text(line, "kind"), text(line, "path"))).collect()
}

#[test]
fn what_one_mount_changes_is_read_from_the_watch_of_another() {
    let two = TwoMounts::up();
    two.first().run("mkdir d").ok();
    wait::until_true("the directory", wait::LIMIT, || {
        two.second().run("test -d d").code() == Some(0)
    });
    let reader = two.second().start("exec 5< d/@watch; echo open; head -n 6 <&5");
    says(&reader, "open");
    two.first().run("echo 1 > d/f; echo 2 > d/f; chmod 600 d/f; mv d/f d/g; mkdir d/e").ok();
    let said = reader.finish(wait::LIMIT).ok();
    let lines = parsed(said.strip_prefix("open\n").expect("it was opened"));
    let mut told = kinds_and_paths(&lines);
    told[3..5].sort();
    let expected = ["create f", "write f", "attributes f", "create g", "delete f", "create e/"];
    assert_eq!(told, expected);
    for coming in ["@watch.99999999999999999999", "d/@watch.1000"] {
        assert_eq!(two.second().run(&format!("timeout 0.2 cat {coming}")).code(), Some(124));
    }
    // Each line says from where on to go on, who it was, and when.
    let revisions: Vec<_> = lines.iter().map(|line| line["revision"].as_u64()).collect();
    assert!(revisions.is_sorted() && revisions[3] == revisions[4], "{revisions:?}");
    let next = revisions[3].expect("a number");
    let again = two.second().run(&format!("head -n 3 d/@watch.{next}")).ok();
    assert_eq!(parsed(&again), lines[3..]);
    let author = lines[0]["author"]["claimed"].as_str().expect("who it was");
    assert!(author.starts_with("root@"), "{author}");
    assert!(lines[0]["time"].as_str().expect("when").ends_with('Z'), "{}", lines[0]);
    two.down();
}

#[test]
fn a_node_that_is_killed_or_stopped_ends_those_who_read() {
    let mut mount = Mount::up();
    let reader = mount.shell().start("exec 5< @watch; echo open; cat <&5; echo $?");
    says(&reader, "open");
    mount.kill();
    let said = reader.finish(wait::LIMIT).ok();
    assert_eq!(said, "open\n1", "an error, not an end");
    mount.start();
    let reader = mount.shell().start("exec 5< @watch; echo open; cat <&5; echo $?");
    says(&reader, "open");
    mount.stop();
    assert_eq!(reader.finish(wait::LIMIT).ok(), "open\n0");
}

#[test]
fn a_reader_outlives_a_restart_of_the_node_elsewhere() {
    let address = free_address();
    let mut node = Mount::up_with(|place| {
        place.arguments = vec!["--listen".to_owned(), address.clone()];
    });
    let mount = Mount::of(&format!("http://{address}"), &[]);
    let reader = mount.shell().start("exec 5< @watch; echo open; head -n 1 <&5; head -n 1 <&5");
    says(&reader, "open");
    node.ok("echo 1 > f");
    says(&reader, "create");
    node.kill();
    node.start();
    node.ok("echo 2 > f");
    let said = reader.finish(wait::LIMIT).ok();
    let lines = parsed(said.strip_prefix("open\n").expect("it was opened"));
    assert_eq!(kinds_and_paths(&lines), ["create f", "write f"]);
}

#[test]
fn changes_of_a_real_etcd_are_told_as_far_as_it_knows_them() {
    let etcd = Etcd::start();
    etcd.ctl(&["put", "/app/a", "one"]);
    let mount = Mount::of(&etcd.endpoint(), &[]);
    let reader = mount.shell().start("exec 5< app/@watch; echo open; head -n 3 <&5");
    says(&reader, "open");
    etcd.ctl(&["put", "/app/a", "two"]);
    etcd.ctl(&["put", "/other", "x"]);
    etcd.ctl(&["put", "/app/deep/b", "x"]);
    etcd.ctl(&["del", "/app/a"]);
    let said = reader.finish(wait::LIMIT).ok();
    let lines = parsed(said.strip_prefix("open\n").expect("it was opened"));
    assert_eq!(kinds_and_paths(&lines), ["write a", "create deep/b", "delete a"]);
    assert_eq!(lines[0].get("time").or(lines[0].get("author")), None, "etcd keeps neither");
    // Programs that ask where they are in a file have nothing to complain about.
    assert_eq!(mount.ok("{ head -n 1 app/@watch.2; head -c 9 app/@watch.2; sed 1q app/@watch.2; } 2>&1 > /dev/null"), "");
    let past = parsed(&mount.ok("head -n 1 app/@watch.2"));
    assert_eq!(kinds_and_paths(&past), ["create a"]);
    etcd.ctl(&["compact", "5"]);
    let gone = mount.run("cat app/@watch.2").fails();
    assert!(gone.contains("Stale"), "{gone}");
}

#[test]
fn a_command_runs_for_what_has_settled_and_is_told_of_every_change_once() {
    let mount = Mount::up();
    mount.ok("mkdir d");
    let from = mount.revision() + 1;
    // Each run takes as long as it likes; what changes meanwhile is the next one's.
    let line = format!(
        "revfs watch d --rev {from} --debounce 100ms -- bash -c 'wc -l; until [ -e d/go ]; do
            sleep 0.01; done; cat d/last 2> /dev/null'"
    );
    let watch = mount.shell().start(&format!("exec {line}"));
    mount.ok("echo first > d/f");
    says(&watch, "\n");
    mount.ok("for i in $(seq 20); do echo $i > d/$i; done; echo last > d/last; : > d/go");
    says(&watch, "last");
    let changes = || {
        let said = watch.stdout();
        said.lines().filter_map(|line| line.trim().parse::<u64>().ok()).sum::<u64>()
    };
    wait::until_true("every change", wait::LIMIT, || changes() == 23);
    watch.signal(Signal::SIGINT);
    watch.finish(wait::LIMIT).ok();
}

/// Without a word from its node for longer than a client waits for one.
#[test]
fn a_watch_waits_for_its_node_to_come_back() {
    let mut mount = Mount::up();
    mount.ok("mkdir d");
    let from = mount.revision() + 1;
    let line = format!("cd /; exec revfs watch {}/d --rev {from}", mount.dir().display());
    let watch = mount.shell().start(&line);
    mount.ok("echo 1 > d/f");
    says(&watch, "put\t/d/f\t1");
    mount.kill();
    let begun = std::time::Instant::now();
    wait::until_true("a long time", wait::LIMIT, || begun.elapsed().as_secs() > 12);
    mount.start();
    mount.ok("echo 2 > d/f");
    says(&watch, "put\t/d/f\t2");
    assert_eq!(watch.stderr(), "");
    watch.signal(Signal::SIGTERM);
    watch.finish(wait::LIMIT).ok();
}

#[test]
fn what_a_watch_runs_is_told_to_end_with_it_and_waited_for() {
    let mount = Mount::up();
    let script = "trap \"echo told; exit 3\" TERM; echo begun; while :; do sleep 0.01; done";
    let line = format!(
        "revfs watch . --rev 1 -- bash -c '{script}' & pid=$!; echo x > f
        until [ -e \"$SCRATCH/end\" ]; do sleep 0.01; done; kill -TERM $pid; wait $pid; echo $?"
    );
    let watch = mount.shell().start(&line);
    says(&watch, "begun");
    std::fs::write(mount.beside("end"), "").expect("a file beside the mount");
    let stderr = |watch: &Running| watch.stderr();
    wait::until_true("its end", wait::LIMIT, || stderr(&watch).contains("exit status: 3"));
    assert_eq!(watch.finish(wait::LIMIT).ok(), "begun\ntold\n0");
}

/// `entr` runs a command when a file that it was told of is written.
#[test]
fn entr_runs_at_a_change_made_elsewhere() {
    tools::need(&["entr"]);
    let mount = Mount::up();
    wait::until_true("events", wait::LIMIT, || mount.status().to_string().contains("\"full\""));
    mount.ok("mkdir d; echo old > d/f");
    let entr = mount.shell().start("ls d/f | exec entr -n -p cat d/f");
    let mut number = 0;
    wait::until_true("a run", wait::LIMIT, || {
        // It does not say when it has begun to watch.
        number += 1;
        mount.ok(&format!("revfs put d/f new-{number}"));
        entr.stdout().contains("new-")
    });
}

const WATCHDOG: &str = r#"
import threading
from watchdog.observers import Observer
from watchdog.events import FileSystemEventHandler
class Printer(FileSystemEventHandler):
    def on_any_event(self, event):
        kind = "directory" if event.is_directory else "file"
        print(event.event_type, kind, event.src_path, getattr(event, "dest_path", ""), flush=True)
observer = Observer()
observer.schedule(Printer(), "d", recursive=True)
observer.start()
print("watching", flush=True)
threading.Event().wait()
"#;

#[test]
fn watchdog_sees_what_another_mount_does() {
    tools::need(&["watchmedo"]);
    let two = TwoMounts::up();
    two.first().run("mkdir d").ok();
    let events = "grep -q '\"events\": \"full\"' @status && test -d d";
    wait::until_true("events", wait::LIMIT, || two.second().run(events).code() == Some(0));
    // Of Debian's Python, which may not be the first in the PATH.
    let shell = two.second().variable("SCRIPT", WATCHDOG);
    let watchdog = shell.start("exec /usr/bin/python3 -c \"$SCRIPT\"");
    says(&watchdog, "watching");
    two.first().run("echo 1 > d/f; mv d/f d/g; echo 2 >> d/g; rm d/g; mkdir d/end").ok();
    says(&watchdog, "created directory d/end");
    let said = watchdog.stdout();
    let mut position = 0;
    for event in [
        "created file d/f",
        "modified file d/f",
        "closed file d/f",
        "moved file d/f d/g",
        "modified file d/g",
        "closed file d/g",
        "deleted file d/g",
        "created directory d/end",
    ] {
        let found = said[position..].find(event);
        position += found.unwrap_or_else(|| panic!("no `{event}` (in this order) in:\n{said}"));
    }
    two.down();
}
