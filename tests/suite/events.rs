//! Changes made through the mount raise the events that inotify programs wait for.

use revfs_tests::{Mount, tools, wait};

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
