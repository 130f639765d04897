//! Starting and ending: what `revfs up` needs, refuses, cleans up, and leaves behind.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use revfs_tests::{Mount, Shell, program, tools, wait};

fn outside() -> Shell {
    Shell::new(Path::new("/"))
}

#[test]
fn up_makes_both_directories_and_says_in_three_lines_where_things_are() {
    let mut mount = Mount::up();
    // The mount answers a moment before the program says so.
    let said = wait::until("three lines", wait::LIMIT, || {
        Some(mount.log()).filter(|said| said.lines().count() >= 3)
    });
    let dir = mount.dir().to_str().expect("a plain path");
    let data = mount.data().to_str().expect("a plain path");
    assert!(said.contains(dir) && said.contains(data), "{said}");
    assert!(said.contains("umount") || said.contains("Ctrl-C"), "how to stop: {said}");
    assert_eq!(said.trim_end().lines().count(), 3, "{said}");
    mount.stop();
    assert!(mount.dir().is_dir() && mount.data().is_dir());
    assert_eq!(std::fs::read_dir(mount.dir()).expect("it lists").count(), 0);
}

#[test]
fn ctrl_c_and_sigterm_unmount() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut mount = Mount::up();
        mount.ok("echo x > f");
        mount.signal(signal);
        let status = mount.wait_for_end(wait::LIMIT);
        assert!(status.success(), "{signal}: {status}: {}", mount.log());
        assert!(!mount.is_mounted(), "{signal} left the mount behind");
        mount.start();
        assert_eq!(mount.ok("cat f"), "x");
    }
}

#[test]
fn umount_ends_the_program() {
    let mut mount = Mount::up();
    mount.ok("echo x > f");
    outside().run(&format!("revfs umount {}", mount.dir().display())).ok();
    assert!(!mount.is_mounted());
    assert!(mount.wait_for_end(wait::LIMIT).success(), "{}", mount.log());
    mount.start();
    assert_eq!(mount.ok("cat f"), "x");
}

#[test]
fn the_plain_umount_ends_the_program_too() {
    let mut mount = Mount::up();
    mount.ok("echo x > f");
    outside().run(&format!("umount {}", mount.dir().display())).ok();
    assert!(mount.wait_for_end(wait::LIMIT).success(), "{}", mount.log());
}

#[test]
fn umount_of_what_is_no_mount_is_refused() {
    let mount = Mount::down();
    std::fs::create_dir(mount.dir()).expect("a directory");
    let said = outside().run(&format!("revfs umount {}", mount.dir().display())).fails();
    assert!(said.contains(mount.dir().to_str().expect("a plain path")), "{said}");
}

#[test]
fn a_mount_point_that_is_not_empty_is_refused() {
    let mut mount = Mount::down();
    std::fs::create_dir(mount.dir()).expect("a directory");
    std::fs::write(mount.path("keep"), "me").expect("a file");
    let said = mount.refuses();
    assert!(said.contains("empty") && said.contains("mnt"), "{said}");
    assert_eq!(std::fs::read(mount.path("keep")).expect("it is untouched"), b"me");
}

#[test]
fn a_mount_point_that_is_no_directory_is_refused() {
    let mut mount = Mount::down();
    std::fs::write(mount.dir(), "a file").expect("a file");
    let said = mount.refuses();
    assert!(said.contains("not a directory") && said.contains("mnt"), "{said}");
}

#[test]
fn a_data_directory_that_is_no_directory_is_refused() {
    let mut mount = Mount::down();
    std::fs::write(mount.data(), "a file").expect("a file");
    let said = mount.refuses();
    assert!(said.contains("data"), "{said}");
}

#[test]
fn a_second_up_on_the_same_data_is_refused() {
    let mount = Mount::up();
    let second = mount.beside("second");
    let line =
        format!("revfs up {} --data-dir {} --foreground", second.display(), mount.data().display());
    let said = outside().limit(wait::LIMIT).run(&line).fails();
    assert!(said.contains(mount.data().to_str().expect("a plain path")), "{said}");
    let process = mount.process().to_string();
    assert!(said.contains(&process), "names the process {process}: {said}");
    assert_eq!(mount.ok("echo x > f; cat f"), "x", "the first goes on");
}

#[test]
fn a_second_up_on_the_same_mount_point_is_refused() {
    let mount = Mount::up();
    mount.ok("echo x > f");
    let line = format!(
        "revfs up {} --data-dir {} --foreground",
        mount.dir().display(),
        mount.beside("second-data").display()
    );
    outside().limit(wait::LIMIT).run(&line).fails();
    assert_eq!(mount.ok("cat f"), "x", "the first goes on");
}

#[test]
fn a_dead_mount_of_its_own_is_cleaned_up() {
    let mut mount = Mount::up();
    mount.ok("echo x > f");
    mount.kill();
    assert!(mount.is_mounted(), "a killed program leaves its mount");
    assert!(std::fs::read_dir(mount.dir()).is_err(), "and it is dead");
    mount.start();
    assert_eq!(mount.ok("cat f"), "x");
}

#[test]
fn the_daemon_goes_to_the_background_once_the_mount_answers() {
    let mount = Mount::down();
    let (dir, data) = (mount.dir().display(), mount.data().display());
    outside().run(&format!("revfs up {dir} --data-dir {data} --daemon")).ok();
    assert!(mount.is_mounted());
    mount.ok("echo x > f; cat f");
    let process = mount.status()["process_id"].as_u64().expect("@status names the process");
    outside().run(&format!("revfs umount {dir}")).ok();
    wait::until_true("end of the daemon", wait::LIMIT, || {
        !Path::new(&format!("/proc/{process}")).exists()
    });
    assert!(!mount.is_mounted());
}

/// Anyone who may open /dev/fuse mounts through fusermount3.
#[test]
fn an_unprivileged_user_mounts() {
    tools::need(&["setpriv", "fusermount3"]);
    tools::need_root("it becomes an unprivileged user");
    let fuse = Path::new("/dev/fuse");
    let before = std::fs::metadata(fuse).expect("/dev/fuse").permissions();
    let restore = Restore(before.clone());
    std::fs::set_permissions(fuse, PermissionsExt::from_mode(0o666)).expect("root may");
    let mount = Mount::down();
    let home = mount.beside("home");
    std::fs::create_dir(&home).expect("a home");
    // The program may lie where others cannot reach it. `cp` writes the copy: a descriptor of
    // ours would be inherited by what other tests fork meanwhile, and nobody may run a file that
    // is open for writing.
    let copied = Command::new("cp").arg(program::revfs()).arg(home.join("revfs")).status();
    assert!(copied.expect("cp is installed").success());
    let open = |path: &Path| std::fs::set_permissions(path, PermissionsExt::from_mode(0o777));
    open(&home).expect("our own directory");
    open(&mount.beside("")).expect("our own directory");
    let script = format!(
        "set -e; cd {home}; ./revfs up m --data-dir d --daemon
         trap './revfs umount m' EXIT
         echo x > m/f; cat m/f; stat -c %U:%a m/f; cat m/@rev/*/f | sort -u
         ./revfs get m/f; ./revfs status --json m | grep -q revision",
        home = home.display()
    );
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.args(["env", "-i", "PATH=/usr/bin:/bin", "HOME=/nonexistent"]);
    command.args(["timeout", "--kill-after=5", "60", "bash", "-c", &script]);
    let output = command.output().expect("setpriv is installed");
    drop(restore);
    revfs_tests::mount::detach(&home.join("m"));
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}{complained}", output.status);
    assert!(said.contains("x\nnobody:644\nx\nx\n"), "{said}{complained}");
}

struct Restore(std::fs::Permissions);

impl Drop for Restore {
    fn drop(&mut self) {
        std::fs::set_permissions("/dev/fuse", self.0.clone()).expect("as it was before");
    }
}

#[test]
fn a_start_does_not_change_the_revision() {
    let mut mount = Mount::up();
    mount.ok("echo x > f");
    let before = mount.revision();
    mount.stop();
    mount.start();
    assert_eq!(mount.revision(), before);
    mount.crash();
    assert_eq!(mount.revision(), before);
}

#[test]
fn a_stop_is_quick() {
    let mut mount = Mount::up();
    mount.ok("for i in $(seq 200); do echo $i > $i; done");
    let start = std::time::Instant::now();
    mount.stop();
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}
