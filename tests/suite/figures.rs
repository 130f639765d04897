//! `revfs stat DIR`: what is asked of a mount.

use revfs_tests::etcd::free_address;
use revfs_tests::serve::metric_at;
use revfs_tests::{Mount, Server, tools};
use serde_json::Value;

fn figures(mount: &Mount) -> Value {
    serde_json::from_str(&mount.ok("revfs stat . --json")).expect("JSON")
}

fn count(figures: &Value, operation: &str) -> u64 {
    figures["operations"][operation]["count"].as_u64().unwrap_or(0)
}

#[test]
fn what_is_asked_of_a_mount_is_counted_by_kind() {
    let mount = Mount::up();
    let before = figures(&mount);
    mount.ok("for n in 1 2 3 4 5; do echo $n > f$n; cat f$n > /dev/null; done; ls -l; mv f1 g; rm f2; chmod 600 f3");
    mount.run("cat nothing").fails();
    let after = figures(&mount);
    let more = |operation: &str| count(&after, operation) - count(&before, operation);
    // At least: the kernel asks for more than programs do.
    assert!(more("create") >= 5 && more("write") >= 5 && more("close") >= 5, "{after}");
    assert!(more("read") >= 1 && more("open") >= 5 && more("list") >= 1, "{after}");
    assert_eq!((more("rename"), more("remove"), more("attributes") >= 1), (1, 1, true), "{after}");
    assert!(more("commit") >= 8, "5 files, a rename, a removal, a mode: {after}");
    let commit = &after["operations"]["commit"];
    let at = |name: &str| commit[name].as_u64().expect("none takes half a minute");
    assert!(at("p50") > 0 && at("p50") <= at("p90") && at("p90") <= at("p99"), "{commit}");
    // What waits to be committed, and a lock that others wait for, is no slow read.
    let staged = mount.ok("exec 5> staged; echo text >&5; revfs stat . --json");
    let staged: Value = serde_json::from_str(&staged).expect("JSON");
    assert_eq!((&staged["staged_files"], &staged["staged_bytes"]), (&1.into(), &5.into()));
    // A transaction's are the mount's; what it commits is one.
    let before = figures(&mount);
    mount.ok("revfs txn . -- sh -c 'echo 1 > t1; echo 2 > t2'");
    let after = figures(&mount);
    assert!(count(&after, "create") >= count(&before, "create") + 2);
    assert_eq!(count(&after, "commit"), count(&before, "commit") + 1);
    // Other files and directories are what they were.
    let file: Value = serde_json::from_str(&mount.ok("revfs stat g --json")).expect("JSON");
    assert_eq!(file["key"], "/g");
    let table = mount.ok("revfs stat .");
    assert!(table.contains("PER SECOND") && table.contains("staged"), "{table}");
    assert!(!table.contains('\u{1b}'), "a pipe is no terminal: {table}");
}

const TERMINAL: &str = r#"
import os, pty, select, signal, sys, time
pid, terminal = pty.fork()
if pid == 0:
    os.execvp("revfs", ["revfs", "stat", "."])
seen, limit = b"", time.monotonic() + 60
while seen.count(b"OPERATION") < 3 and time.monotonic() < limit:
    if select.select([terminal], [], [], 1)[0]:
        seen += os.read(terminal, 65536)
    open("busy", "w").close()
os.kill(pid, signal.SIGINT)
print(seen.count(b"\x1b[H\x1b[J"), os.WTERMSIG(os.waitpid(pid, 0)[1]))
"#;

#[test]
fn on_a_terminal_the_figures_are_those_of_the_last_second() {
    let mount = Mount::up();
    let said = mount.python(TERMINAL);
    let (shown, signal) = said.split_once(' ').expect("two numbers");
    assert!(shown.parse::<u32>().expect("a number") >= 3, "{said}");
    assert_eq!(signal, "2");
}

#[test]
fn a_node_shows_what_its_mount_is_asked_in_its_metrics() {
    let address = free_address();
    let mount = Mount::up_with(|place| place.arguments = vec![format!("--listen={address}")]);
    mount.ok("echo x > f; cat f");
    let metric = |kind: &str, operation: &str| {
        metric_at(&address, &format!("revfs_mount_{kind}_total{{operation=\"{operation}\"}}"))
    };
    assert_eq!(metric("operations", "create").to_string(), "1");
    assert_eq!(metric("operation_errors", "create").to_string(), "0");
    assert!(metric("operation_seconds", "commit") > 0.0);
}

/// `Read` of revfs.v1, which every lookup, listing and `stat` is that reaches the store.
const READS: &str = r#"grpc_server_started_total{grpc_type="unary",grpc_service="revfs.v1.Revfs",grpc_method="Read"}"#;

#[test]
fn a_first_listing_with_attributes_is_a_few_requests_and_one_question_to_the_store() {
    let server = Server::start(&[]);
    let names = 2_000;
    let other = Mount::of(server.url(), &[]);
    other.ok(&format!("mkdir d && cd d && for n in $(seq {names}); do : > $n; done"));
    let mount = Mount::of(server.url(), &[]);
    let (before, reads) = (mount.asked(), server.metric(READS));
    let listed = mount.ok("ls -l d");
    let (asked, reads) = (mount.asked().since(&before), server.metric(READS) - reads);
    assert_eq!(listed.lines().count(), names + 1);
    let besides = asked.requests() - asked.of("xattr");
    assert!(besides <= 100, "{besides} requests besides GETXATTR: {asked:?}");
    // The directory, its listing, and `@status` itself; no name of it.
    assert!(reads <= 12.0, "{reads} questions: {asked:?}");
}

#[test]
fn rsync_commits_a_file_four_times_at_most() {
    tools::need(&["rsync"]);
    let mount = Mount::up();
    mount.ok("mkdir $SCRATCH/from && for n in $(seq 100); do echo $n > $SCRATCH/from/$n; done");
    let before = mount.asked();
    mount.ok("rsync -a $SCRATCH/from .");
    let asked = mount.asked().since(&before);
    // The directory is one of them.
    assert!(asked.of("commit") <= 4 * 101, "{asked:?}");
}
