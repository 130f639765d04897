//! Changes raise the events that inotify programs wait for.

use revfs_tests::etcd::free_address;
use revfs_tests::{Mount, tools, wait};

/// The thread that raises events waits for its own process; that must not keep a killed one alive, nor
/// a watcher the mount.
#[test]
fn a_mount_whose_node_is_killed_while_it_is_watched_leaves_nothing_behind() {
    tools::need(&["inotifywait"]);
    let mut mount = Mount::up();
    wait::until_true("events", wait::LIMIT, || mount.status().to_string().contains("\"full\""));
    mount.ok("mkdir d");
    let watcher = mount.shell().start("exec inotifywait -m -r --format '%e %w%f' .");
    wait::until_true("watches", wait::LIMIT, || watcher.stderr().contains("established"));
    mount.ok("for n in $(seq 50); do revfs put d/$n x; done");
    wait::until_true("the first event", wait::LIMIT, || watcher.stdout().contains("CREATE ./d/1"));
    mount.kill();
    mount.start();
    wait::until_true("events", wait::LIMIT, || mount.status().to_string().contains("\"full\""));
    mount.stop();
}

#[test]
fn inotifywait_sees_local_changes() {
    tools::need(&["inotifywait"]);
    let mount = Mount::up();
    mount.ok("mkdir d");
    let watcher = mount.shell().start("exec inotifywait -m -r --format '%e %w%f' .");
    wait::until_true("watches", wait::LIMIT, || watcher.stderr().contains("established"));
    mount.ok("echo x > d/f; mv d/f d/g; rm d/g; mkdir d/e");
    let expected = [
        "CREATE ./d/f",
        "MODIFY ./d/f",
        "CLOSE_WRITE,CLOSE ./d/f",
        "MOVED_FROM ./d/f",
        "MOVED_TO ./d/g",
        "DELETE ./d/g",
        "CREATE,ISDIR ./d/e",
    ];
    wait::until_true("the last event", wait::LIMIT, || {
        watcher.stdout().contains(expected[expected.len() - 1])
    });
    let seen = watcher.stdout();
    let mut position = 0;
    for event in expected {
        let found = seen[position..].find(event);
        position += found.unwrap_or_else(|| panic!("no `{event}` (in this order) in:\n{seen}"));
    }
}

/// Watches as systemd's path units do (the masks of its `path.c`), and says when one would start its service.
const PATH_UNITS: &str = r#"
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
ATTRIB, DELETE_SELF, MOVE_SELF = 0x4, 0x400, 0x800
CLOSE_WRITE, CREATE, DELETE, MOVED_FROM, MOVED_TO, MODIFY = 0x8, 0x100, 0x200, 0x40, 0x80, 0x2
gone = DELETE_SELF | MOVE_SELF | ATTRIB
changed = gone | CLOSE_WRITE | CREATE | DELETE | MOVED_FROM | MOVED_TO
units = {
    "PathExists=there": ("there", gone),
    "PathChanged=changed": ("changed", changed),
    "PathModified=modified": ("modified", changed | MODIFY),
    "PathChanged=replaced": ("replaced", changed),
    "PathChanged=directory": ("directory", changed),
    "DirectoryNotEmpty=empty": ("empty", gone | CREATE | MOVED_TO),
}
names = {}
watches = libc.inotify_init1(0)
for unit, (path, mask) in units.items():
    names[libc.inotify_add_watch(watches, os.fsencode(path), mask)] = unit
assert len(names) == len(units) and -1 not in names, names
print("watches", flush=True)
while True:
    data, at = os.read(watches, 65536), 0
    while at < len(data):
        watch, mask, _, length = struct.unpack_from("iIII", data, at)
        at += 16 + length
        # The end of a watch is no reason to start anything.
        if mask & ~0x8000:
            print(names[watch], flush=True)
"#;

#[test]
fn a_change_made_elsewhere_starts_what_a_path_unit_of_systemd_waits_for() {
    tools::need(&["python3"]);
    let address = free_address();
    let there = Mount::up_with(|place| place.arguments = vec![format!("--listen={address}")]);
    let here = Mount::of(&format!("http://{address}"), &[]);
    wait::until_true("events", wait::LIMIT, || here.status()["mount"]["events"] == "full");
    there.ok(
        "for f in there changed modified replaced; do echo 1 > $f; done; mkdir directory empty",
    );
    wait::until_true("the files", wait::LIMIT, || here.run("test -e empty").code() == Some(0));
    let units = here.shell().interpreter("python3").start(PATH_UNITS);
    wait::until_true("watches", wait::LIMIT, || units.stdout().contains("watches"));
    for (change, unit) in [
        ("echo 2 > changed", "PathChanged=changed"),
        ("revfs put modified 2", "PathModified=modified"),
        ("echo 2 > new; mv new replaced", "PathChanged=replaced"),
        ("rm there", "PathExists=there"),
        ("echo 1 > directory/file", "PathChanged=directory"),
        ("mkdir empty/no-more", "DirectoryNotEmpty=empty"),
    ] {
        assert!(!units.stdout().contains(unit), "before `{change}`: {}", units.stdout());
        there.ok(change);
        wait::until_true(&format!("{unit} after `{change}`"), wait::LIMIT, || {
            units.stdout().contains(unit)
        });
    }
    units.signal(nix::sys::signal::Signal::SIGKILL);
    drop(units.finish(wait::LIMIT));
}
