//! Changes raise the events that inotify programs wait for.

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
