//! Locks of programs on different mounts: what one holds the other waits for, and reads what was written
//! under it.

use nix::sys::signal::Signal;
use revfs_tests::shell::Running;
use revfs_tests::{Cluster, Mount, Server, Shell, tools, wait};

use crate::two_mounts::TwoMounts;

/// Waits until a line that runs in the background has printed these words.
fn says(running: &Running, words: &str) {
    wait::until_true(&format!("{words:?}"), wait::LIMIT, || running.stdout().contains(words));
}

fn python(shell: Shell) -> Shell {
    shell.interpreter("python3")
}

#[test]
fn flock_excludes_on_two_mounts_can_be_interrupted_and_shows_what_the_last_holder_wrote() {
    tools::need(&["flock", "timeout"]);
    let two = TwoMounts::up();
    let holder = two.first().start(
        "exec 9>lock; flock 9; echo held; until [ -e go ]; do sleep 0.01; done; echo new > data",
    );
    says(&holder, "held");
    two.second().run("echo old > data; cat data; stat lock").ok();
    assert_eq!(two.second().run("flock -n lock true").code(), Some(1));
    assert_eq!(two.second().run("flock -n -s lock true").code(), Some(1));
    // Its alarm, and a signal that cannot be caught, reach a program that waits.
    assert_eq!(two.second().run("flock -w 0.2 lock true").code(), Some(1));
    let killed = two.second().run("timeout -s KILL 0.5 flock lock true; echo $?");
    assert_eq!(killed.ok(), "137");
    let waits = two.second().start("flock lock cat data");
    two.first().run("ls > /dev/null; touch go").ok();
    assert_eq!(waits.finish(wait::LIMIT).ok(), "new");
    holder.finish(wait::LIMIT).ok();
    // Those who read share.
    let reader = two.first().start("exec 9<lock; flock -s 9; echo held; sleep 600");
    says(&reader, "held");
    wait::until_true("a shared lock", wait::LIMIT, || {
        two.second().run("flock -n -s lock true").code() == Some(0)
    });
    assert_eq!(two.second().run("flock -n lock true").code(), Some(1));
    // Who is killed lets go.
    reader.signal(Signal::SIGKILL);
    two.second().run("flock lock true").ok();
    two.down();
}

#[test]
fn what_is_counted_under_a_lock_on_two_mounts_is_counted_right() {
    tools::need(&["flock"]);
    let two = TwoMounts::up();
    two.first().run("echo 0 > n; : > lock").ok();
    let count = "for i in $(seq 6); do flock lock sh -c 'echo $(( $(cat n) + 1 )) > n'; done";
    let counting = [two.first(), two.second(), two.second()].map(|shell| shell.start(count));
    for running in counting {
        running.finish(wait::LIMIT * 4).ok();
    }
    assert_eq!(two.first().run("flock lock cat n").ok(), "18");
    assert_eq!(two.second().run("flock lock cat n").ok(), "18");
    two.down();
}

const HOLDS_FIVE_BYTES: &str = r#"
import fcntl, os, select
f = open("f", "r+b")
fcntl.lockf(f, fcntl.LOCK_EX, 5, 0)
print("held", flush=True)
while not os.path.exists("go"):
    select.select([], [], [], 0.01)
f.write(b"NEW")
f.flush()
fcntl.lockf(f, fcntl.LOCK_UN, 5, 0)
while not os.path.exists("end"):
    select.select([], [], [], 0.01)
"#;

const MEETS_THEM: &str = r#"
import fcntl, os, struct
f = open("f", "r+b")
fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 5)
for kind in fcntl.LOCK_SH, fcntl.LOCK_EX:
    try:
        fcntl.lockf(f, kind | fcntl.LOCK_NB, 1, 4)
        raise SystemExit("locked what another holds")
    except BlockingIOError:
        pass
asked = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
kind, _, start, length, _ = struct.unpack("hhqqi4x", fcntl.fcntl(f, fcntl.F_GETLK, asked))
print(kind == fcntl.F_WRLCK, start, length)
fcntl.lockf(f, fcntl.LOCK_SH | fcntl.LOCK_NB, 5, 5)
print("met", flush=True)
fcntl.lockf(f, fcntl.LOCK_SH, 5, 0)
print(f.read().decode())
"#;

#[test]
fn fcntl_locks_are_of_bytes_and_an_unlock_commits_what_was_written_under_them() {
    tools::need(&["python3"]);
    let two = TwoMounts::up();
    two.first().run("printf 0123456789 > f").ok();
    let holder = python(two.first()).start(HOLDS_FIVE_BYTES);
    says(&holder, "held");
    let other = python(two.second()).start(MEETS_THEM);
    says(&other, "met");
    two.first().run("touch go").ok();
    // The holder has not closed the file.
    assert_eq!(other.finish(wait::LIMIT).ok(), "True 0 5\nmet\nNEW3456789");
    two.first().run("touch end").ok();
    holder.finish(wait::LIMIT).ok();
    two.down();
}

const INSERTS: &str = r#"
import os, sqlite3
own = os.environ["OWN"]
db = sqlite3.connect("db", timeout=100)
for number in range(4):
    with db:
        db.execute("begin immediate")
        db.execute("insert into t values (?, (select count(*) from t))", (f"{own} {number}",))
db.close()
"#;

const COUNTS: &str = r#"
import sqlite3
db = sqlite3.connect("db", timeout=100)
print(db.execute("select count(*), count(distinct name), count(distinct place) from t").fetchall())
print(db.execute("pragma integrity_check").fetchall())
"#;

#[test]
fn sqlite_in_rollback_mode_is_used_from_two_mounts_at_once() {
    tools::need(&["python3"]);
    let two = TwoMounts::up();
    let make =
        "import sqlite3; db = sqlite3.connect('db'); db.execute('create table t (name, place)')";
    python(two.first()).run(make).ok();
    let inserting = [(two.first(), "one"), (two.second(), "other")]
        .map(|(shell, own)| python(shell.variable("OWN", own)).start(INSERTS));
    for running in inserting {
        running.finish(wait::LIMIT * 4).ok();
    }
    for shell in [two.first(), two.second()] {
        assert_eq!(python(shell).run(COUNTS).ok(), "[(8, 8, 8)]\n[('ok',)]");
    }
    two.down();
}

#[test]
fn locks_made_of_names_exclude_on_two_mounts() {
    let two = TwoMounts::up();
    // What tells whether two are inside at once is no matter of the mounts.
    let local = tempfile::tempdir().expect("a directory");
    for (take, give) in [
        ("mkdir lock", "rmdir lock"),
        ("(set -C; : > lock)", "rm lock"),
        ("ln -s $OWN lock", "rm lock"),
    ] {
        let line = format!(
            "for i in $(seq 6); do
                until {take} 2> /dev/null; do sleep 0.01; done
                mkdir $LOCAL/inside || exit 1
                rmdir $LOCAL/inside && {give} || exit 1
            done"
        );
        let running = [(two.first(), "one"), (two.second(), "other")]
            .map(|(shell, own)| shell.variable("OWN", own).variable("LOCAL", local.path()))
            .map(|shell| shell.start(&line));
        for running in running {
            running.finish(wait::LIMIT * 4).ok();
        }
    }
    two.down();
}

/// A node, and two mounts of it in processes of their own.
fn machines() -> (Server, Mount, Mount) {
    let server = Server::start(&[]);
    let mounts = [(), ()].map(|()| Mount::of(server.url(), &["--lock-lease", "8"]));
    let [one, other] = mounts;
    (server, one, other)
}

#[test]
fn the_locks_of_a_mount_that_was_killed_pass_on() {
    tools::need(&["flock"]);
    let (_server, mut one, other) = machines();
    let holder = one.shell().start("exec 9>lock; flock 9; echo held; sleep 600");
    says(&holder, "held");
    wait::until_true("the file", wait::LIMIT, || other.run("test -e lock").code() == Some(0));
    assert_eq!(other.run("flock -n lock true").code(), Some(1));
    let waits = other.shell().start("flock lock echo mine");
    let mut listed = String::new();
    wait::until_true("one that holds and one that waits", wait::LIMIT, || {
        listed = other.ok("revfs lock --list lock");
        listed.lines().count() == 2
    });
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[0].starts_with("/lock\texclusive\theld\tall\t"), "{listed}");
    assert!(lines[1].starts_with("/lock\texclusive\twaits\tall\t"), "{listed}");
    one.kill();
    assert_eq!(waits.finish(wait::LIMIT).ok(), "mine");
}

const WRITES_UNDER_A_LOCK: &str = r#"
import fcntl, os, select
def until(name):
    while not os.path.exists(os.path.join(os.environ["SCRATCH"], name)):
        select.select([], [], [], 0.01)
lock = open("lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
data = os.open("data", os.O_RDWR)
os.write(data, b"mine")
print("held", flush=True)
until("awake")
try:
    os.close(data)
    print("closed", flush=True)
except OSError as error:
    print(error.strerror, flush=True)
until("end")
"#;

#[test]
fn a_mount_that_slept_longer_than_its_lease_writes_nothing_and_says_why() {
    tools::need(&["python3", "flock"]);
    let (_server, one, other) = machines();
    one.ok("echo old > data");
    let holder = one.shell().interpreter("python3").start(WRITES_UNDER_A_LOCK);
    says(&holder, "held");
    wait::until_true("both files", wait::LIMIT, || {
        other.run("test -e lock && test -e data").code() == Some(0)
    });
    let waits = other.shell().start("flock lock sh -c 'echo theirs > data'");
    one.signal(Signal::SIGSTOP);
    waits.finish(wait::LIMIT).ok();
    one.signal(Signal::SIGCONT);
    std::fs::write(one.beside("awake"), "").expect("a file beside the mount");
    says(&holder, "Input/output error");
    let status = one.status();
    let fenced = status["mount"]["fenced"].as_str().unwrap_or_default();
    assert!(fenced.contains("lease") && fenced.contains("/lock by process"), "{status}");
    assert!(one.log().contains("the lease of this mount's locks has ended"), "{}", one.log());
    one.run("echo more > else").fails_saying("Input/output error");
    wait::until_true("what the others wrote", wait::LIMIT, || one.ok("cat data") == "theirs");
    std::fs::write(one.beside("end"), "").expect("a file beside the mount");
    holder.finish(wait::LIMIT).ok();
    // All is let go.
    wait::until_true("a change", wait::LIMIT, || one.run("echo more > else").code() == Some(0));
    assert_eq!(one.ok("flock lock cat data"), "theirs");
    assert!(one.status()["mount"]["fenced"].is_null());
}

/// Takes a lock, and shows that it is alone with it: a second one in here could not make the directory.
const IN_TURN: &str = r#"
import fcntl, os
name, kind = os.environ["NAME"], os.environ["KIND"]
file = open(kind, "r+")
lock = fcntl.flock if kind == "flock" else fcntl.lockf
lock(file, fcntl.LOCK_EX)
os.mkdir("inside-" + kind)
print("held", flush=True)
if name == "first":
    import select
    while not os.path.exists("go"):
        select.select([], [], [], 0.01)
with open("log-" + kind, "a") as log:
    log.write(name + "\n")
os.rmdir("inside-" + kind)
"#;

#[test]
fn locks_are_kept_and_pass_on_in_order_when_the_leader_is_killed() {
    tools::need(&["python3", "flock"]);
    let mut cluster = Cluster::with_mounts(3);
    let leader = cluster.wait_for_leader();
    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let shell = |cluster: &Cluster, member| Shell::new(&cluster.mount_point(member));
    shell(&cluster, one).run("touch flock fcntl").ok();
    let mut running = Vec::new();
    for kind in ["flock", "fcntl"] {
        wait::until_true("the file", wait::LIMIT, || {
            shell(&cluster, other).run(&format!("test -e {kind}")).code() == Some(0)
        });
        for (place, (name, member)) in
            [("first", one), ("second", other), ("third", one), ("fourth", other)]
                .into_iter()
                .enumerate()
        {
            let shell_of = python(shell(&cluster, member));
            running.push(shell_of.variable("NAME", name).variable("KIND", kind).start(IN_TURN));
            wait::until_true(&format!("{name} in line for {kind}"), wait::LIMIT, || {
                let listed = shell(&cluster, one).run(&format!("revfs lock --list {kind}")).ok();
                listed.lines().count() == place + 1
            });
        }
    }
    says(&running[0], "held");
    says(&running[4], "held");
    cluster.kill(leader);
    // The others agree on a new leader, and the locks are where they were.
    wait::until_true("a change", wait::LIMIT, || {
        shell(&cluster, other).run("mkdir -p after").code() == Some(0)
    });
    assert_eq!(shell(&cluster, other).run("flock -n flock true").code(), Some(1));
    for waiting in [1, 2, 3, 5, 6, 7] {
        assert_eq!(running[waiting].stdout(), "", "it holds what another holds");
    }
    shell(&cluster, other).run("touch go").ok();
    for line in running {
        assert_eq!(line.finish(wait::LIMIT).ok(), "held");
    }
    for kind in ["flock", "fcntl"] {
        let order = shell(&cluster, one).run(&format!("flock {kind} cat log-{kind}")).ok();
        assert_eq!(order, "first\nsecond\nthird\nfourth", "{kind}");
    }
}

#[test]
fn a_file_with_a_time_to_live_goes_away_everywhere_unless_it_is_renewed() {
    tools::need(&["setfattr", "getfattr"]);
    let two = TwoMounts::up();
    two.first().run("mkdir d; echo x > d/short; echo x > d/kept; echo x > d/long").ok();
    let set = |file: &str, seconds: u32| {
        two.first().run(&format!("setfattr -n user.revfs.ttl -v {seconds} d/{file}")).ok();
    };
    set("short", 3);
    set("kept", 3_600);
    set("long", 60);
    set("long", 3_600);
    two.first().run("setfattr -x user.revfs.ttl d/kept").ok();
    let left = two.second().run("getfattr --only-values -n user.revfs.ttl d/long").ok();
    assert!((1..=3_600).contains(&left.parse().expect("seconds")), "{left}");
    two.second().run("getfattr -n user.revfs.ttl d/kept").fails_saying("No such attribute");
    for shell in [two.first(), two.second()] {
        wait::until_true("the file is gone", wait::LIMIT, || {
            shell.run("ls d").ok() == "kept\nlong"
        });
    }
    two.first().run("rm d/*").ok();
    assert_eq!(two.second().run("ls -d d").ok(), "d");
    two.down();
}
