//! `up`, `umount`, and the commands that find their node through a mount.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::command::{Ended, command, revfs};

/// Directories for one mount; whatever is left of it goes at the end.
struct Place {
    top: PathBuf,
    _scratch: TempDir,
}

impl Place {
    fn new() -> Self {
        let scratch = TempDir::with_prefix("revfs-program-").expect("a temporary directory");
        Self { top: scratch.path().canonicalize().expect("it exists"), _scratch: scratch }
    }

    fn point(&self) -> PathBuf {
        self.top.join("mnt")
    }

    fn data(&self) -> PathBuf {
        self.top.join("data")
    }

    /// Starts in the background.
    fn up(&self, more: &[&str]) -> Ended {
        let up = command(["up", "--daemon"]).argument(self.point());
        let up = up.argument("--data-dir").argument(self.data());
        more.iter().fold(up, |up, argument| up.argument(argument)).run()
    }

    /// A call with the mount as its current directory; arguments are separated by spaces.
    fn call(&self, line: &str) -> Ended {
        command(line.split(' ')).directory(self.point()).run()
    }

    fn umount(&self) -> Ended {
        command(["umount"]).argument(self.point()).run()
    }

    fn holder(&self) -> Option<Pid> {
        let text = std::fs::read(self.data().join("revfs.lock")).ok()?;
        let holder: Value = serde_json::from_slice(&text).ok()?;
        holder["process_id"].as_i64().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw)
    }

    /// Waits until no process holds the data directory.
    fn wait_for_end(&self) {
        let lock = self.data().join("revfs.lock");
        let waited =
            Command::new("flock").args(["--timeout", "60"]).arg(&lock).arg("true").status();
        assert!(
            waited.expect("flock is installed").success(),
            "{} is still held",
            self.data().display()
        );
    }

    fn kill(&self) {
        kill(self.holder().expect("it runs"), Signal::SIGKILL).expect("it is ours");
        self.wait_for_end();
    }

    fn is_mounted(&self) -> bool {
        let table = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
        let point = self.point();
        table.lines().any(|line| line.split(' ').nth(4).is_some_and(|own| Path::new(own) == point))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Nothing to detach is what a test that ended well leaves.
        while umount2(&self.point(), MntFlags::MNT_DETACH).is_ok() {}
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.data().join("revfs.log"));
            eprintln!("log of {}:\n{}", self.top.display(), log.unwrap_or_default());
        }
        let lock = self.data().join("revfs.lock");
        let ended = Command::new("flock").args(["--timeout", "20"]).arg(&lock).arg("true").status();
        if lock.exists() && !ended.is_ok_and(|status| status.success()) {
            self.holder().map(|process| kill(process, Signal::SIGKILL));
        }
    }
}

#[test]
fn it_says_in_three_lines_where_things_are() {
    let place = Place::new();
    let said = place.up(&[]).ok();
    let (point, data) = (place.point(), place.data());
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(lines[0].contains(&format!("{}/@rev/", point.display())), "{said}");
    assert!(lines[1].contains(&format!("data in {}", data.display())), "{said}");
    assert!(lines[1].contains(&format!("unix://{}/revfs.sock", data.display())), "{said}");
    assert!(lines[2].ends_with(&format!("revfs umount {}", point.display())), "{said}");
    assert_eq!(place.umount().ok(), "");
    assert!(!place.is_mounted());
    let document = place.up(&["--json", "--listen", "127.0.0.1:0"]).json();
    assert_eq!(document["directory"].as_str(), point.to_str());
    assert_eq!(document["process_id"].as_i64(), place.holder().map(|id| id.as_raw().into()));
    let tcp = format!("http://{}", document["tcp"][0].as_str().unwrap());
    assert_eq!(revfs(["put", "/k", "v", "--endpoint", &tcp]).ok(), "revision 2\n");
    place.umount().ok();
}

#[test]
fn a_path_inside_a_mount_is_its_key_and_anything_else_is_a_key() {
    let place = Place::new();
    place.up(&[]).ok();
    let point = place.point();
    std::fs::create_dir(point.join("app")).unwrap();
    std::fs::write(point.join("app/color"), "red\n").unwrap();
    symlink(&point, place.top.join("link")).unwrap();
    let get = |argument: &Path| command(["get"]).argument(argument).run();
    assert_eq!(get(&point.join("app/color")).ok(), "red\n");
    assert_eq!(get(&place.top.join("link/app/color")).ok(), "red\n");
    assert_eq!(get(&point.join("app/../app/./color")).ok(), "red\n");
    assert_eq!(place.call("get app/color").ok(), "red\n");
    assert_eq!(place.call("get /app/color").ok(), "red\n");
    assert_eq!(place.call("get --key /app/color").ok(), "red\n");
    place.call("get --key app/color").fails(1, &["/app/color"]);
    assert_eq!(place.call("ls").ok(), "app/\n");
    let then = place.call("status --json").json()["revision"].as_u64().unwrap();
    std::fs::write(point.join("app/color"), "blue\n").unwrap();
    assert_eq!(place.call(&format!("get app/@rev/{then}/color")).ok(), "red\n");
    assert_eq!(place.call("get app/color").ok(), "blue\n");
    place.call(&format!("put app/@rev/{then}/color green")).fails(2, &["read-only"]);
    place.call("get @status").fails(2, &["'@status' stands for no key"]);
    let status = command(["status"]).argument(&point).run().ok();
    assert!(status.contains(place.data().to_str().unwrap()), "{status}");
    place.umount().ok();
}

#[test]
fn history_is_seen_and_brought_back_from_a_path() {
    let place = Place::new();
    place.up(&[]).ok();
    let file = place.point().join("limits");
    std::fs::write(&file, "cpu 1\n").unwrap();
    let then = place.call("status --json").json()["revision"].as_u64().unwrap();
    std::fs::write(&file, "cpu 8\n").unwrap();
    let now = then + 1;
    let log = place.call("log limits").ok();
    assert_eq!(log.lines().count(), 2, "{log}");
    assert!(log.lines().all(|line| line.contains('@')), "the author: {log}");
    let diff = place.call(&format!("diff {then}..{now} limits")).ok();
    assert!(diff.starts_with(&format!("--- @rev/{then}/limits\t")), "{diff}");
    assert!(diff.ends_with("@@ -1 +1 @@\n-cpu 1\n+cpu 8\n"), "{diff}");
    let restored = place.call(&format!("restore limits --to {then}")).ok();
    assert!(restored.contains(&format!("revision {}", now + 1)), "{restored}");
    assert_eq!(place.call("get limits").ok(), "cpu 1\n");
    assert_eq!(place.call(&format!("diff {then}.. limits")).ok(), "");
    place.umount().ok();
}

#[test]
fn what_is_refused_is_said_to_the_caller_of_the_daemon_too() {
    let place = Place::new();
    std::fs::create_dir(place.point()).unwrap();
    std::fs::write(place.point().join("kept"), "x").unwrap();
    place.up(&[]).fails(3, &["is not empty", "'kept'", "hint:"]);
    assert!(!place.data().exists(), "nothing is made where nothing is started");
    std::fs::remove_file(place.point().join("kept")).unwrap();
    let inside = place.point().join("data");
    let up = command(["up", "--daemon"]).argument(place.point()).argument("--data-dir");
    up.argument(&inside).run().fails(2, &["--data-dir", "inside the mount point"]);
    place.up(&["--keep", "soon"]).fails(2, &["--keep", "'soon'", "30d"]);
    place.up(&["--listen", "nowhere"]).fails(2, &["--listen", "'nowhere'"]);
    place.up(&["--listen", "192.0.2.1:1"]).fails(1, &["192.0.2.1:1", "--listen"]);
    assert!(!place.is_mounted());
    place.wait_for_end();
}

#[test]
fn a_second_up_is_refused_and_names_the_first() {
    let place = Place::new();
    place.up(&[]).ok();
    let holder = place.holder().unwrap().to_string();
    let other = place.top.join("other");
    let second = command(["up"]).argument(&other).argument("--data-dir").argument(place.data());
    let point = place.point().display().to_string();
    second.run().fails(3, &["in use by process", &holder, &format!("revfs umount {point}")]);
    let second = command(["up"]).argument(place.point()).argument("--data-dir").argument(&other);
    second.run().fails(3, &["is mounted already, by process", &holder, "revfs status"]);
    place.call("put k v").ok();
    place.umount().ok();
}

#[test]
fn a_busy_mount_is_not_unmounted_but_says_who_uses_it() {
    let place = Place::new();
    place.up(&[]).ok();
    let mut user =
        Command::new("cat").current_dir(place.point()).stdin(Stdio::piped()).spawn().unwrap();
    let process = format!("process {} (", user.id());
    place.umount().fails(3, &["is busy", &process, "working directory", "--lazy"]);
    assert!(place.is_mounted());
    let lazy = command(["umount", "--lazy", "--json"]).argument(place.point()).run().json();
    assert_eq!(lazy["ended"], false);
    assert!(!place.is_mounted());
    user.kill().unwrap();
    user.wait().unwrap();
    place.wait_for_end();
}

#[test]
fn a_second_signal_takes_the_mount_from_its_users() {
    let place = Place::new();
    place.up(&[]).ok();
    let mut user =
        Command::new("cat").current_dir(place.point()).stdin(Stdio::piped()).spawn().unwrap();
    let daemon = place.holder().unwrap();
    kill(daemon, Signal::SIGINT).unwrap();
    kill(daemon, Signal::SIGTERM).unwrap();
    place.wait_for_end();
    assert!(!place.is_mounted());
    user.kill().unwrap();
    user.wait().unwrap();
    let log = std::fs::read_to_string(place.data().join("revfs.log")).unwrap();
    assert!(log.contains("SIGINT") || log.contains("SIGTERM"), "{log}");
}

#[test]
fn after_a_kill_everything_acknowledged_is_there_again() {
    let place = Place::new();
    place.up(&[]).ok();
    std::fs::write(place.point().join("f"), "kept").unwrap();
    place.call("put --key /k v").ok();
    place.kill();
    assert!(place.is_mounted(), "a killed process leaves its mount");
    command(["get"]).argument(place.point().join("f")).run().fails(4, &["is gone", "revfs up"]);
    place.up(&[]).ok();
    assert_eq!(std::fs::read(place.point().join("f")).unwrap(), b"kept");
    assert_eq!(place.call("get k").ok(), "v\n");
    place.kill();
    place.umount().ok();
    assert!(!place.is_mounted(), "umount cleans a dead mount up");
    place.umount().fails(1, &["nothing is mounted"]);
}

#[test]
fn a_mount_that_does_not_answer_is_not_said_to_be_stored() {
    let place = Place::new();
    place.up(&[]).ok();
    let holder = place.holder().expect("it runs");
    kill(holder, Signal::SIGSTOP).expect("it is ours");
    let refused = place.umount();
    let detached = command(["umount", "--lazy"]).argument(place.point()).run();
    kill(holder, Signal::SIGCONT).expect("it is ours");
    refused.fails(3, &["does not answer", "--lazy"]);
    assert_eq!(detached.ok(), "the process behind it runs on until its last user is gone\n");
    assert!(!place.is_mounted());
    place.wait_for_end();
}
