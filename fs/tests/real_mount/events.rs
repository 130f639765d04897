//! Programs that wait with inotify are told of changes made elsewhere as if they had been made here.
//!
//! The judge is another file system: the same lines of shell, run in a directory on the disk, and
//! through another mount of the same key space. What inotifywait prints must be the same.

#![expect(clippy::unwrap_used, reason = "what fails here ends its test")]

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use revfs_api::keyspace::{KeyRange, Op, Revision};
use revfs_fs::filesystem::MountOptions;

use super::live::Live;

/// For what takes milliseconds on an idle machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// What programs wait for. (Who opens, reads and closes without writing is never repeated.)
const KINDS: &str =
    "create,modify,close_write,delete,delete_self,moved_from,moved_to,move_self,attrib";

/// What was there before anybody watched.
const BEFORE: &str = "mkdir d s old; echo one > d/kept; echo w > watched; echo x > d/bin";

/// Each is done while the one before it has been seen.
const CHANGES: [&str; 17] = [
    "echo new > d/f",
    "echo longer than before > d/f",
    "echo more >> d/f",
    ": > d/f",
    ": > d/empty",
    "chmod 600 d/f",
    "touch -c -d 2020-01-01 d/f",
    "mv d/f d/g",
    "mv d/g d/kept",
    "mv d/kept s/kept",
    "mkdir d/made",
    "echo in it > d/made/f",
    "mv d/made s/moved",
    "ln -s kept s/link",
    "rm s/moved/f s/link",
    "rmdir s/moved",
    "rm watched",
];

/// An inotifywait whose lines are read as they come.
struct Watcher {
    child: Child,
    lines: Receiver<String>,
    directory: PathBuf,
    marks: usize,
}

impl Watcher {
    /// Watches a directory with all below it, and the file `watched` in it by itself.
    fn of(directory: &Path) -> Self {
        let mut child = Command::new("inotifywait")
            .args(["-m", "-r", "-e", KINDS, "--format", "%e %w%f", ".", "watched"])
            .current_dir(directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let established =
            stderr.lines().map_while(Result::ok).any(|line| line.contains("Watches established"));
        assert!(established, "inotifywait on {}", directory.display());
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, directory: directory.to_owned(), marks: 0 }
    }

    /// The lines up to those of a mark that `make` makes after all that is to be seen: a directory of
    /// the name that it is given.
    fn lines_until_mark(&mut self, make: impl FnOnce(&str)) -> Vec<String> {
        self.marks += 1;
        let mark = format!("mark-{}", self.marks);
        make(&mark);
        let end = format!("CREATE,ISDIR ./{mark}");
        let mut lines: Vec<String> = Vec::new();
        loop {
            let line = self.lines.recv_timeout(DEADLINE).unwrap_or_else(|_| {
                panic!("no `{end}` in {} after {lines:?}", self.directory.display())
            });
            if line == end {
                return lines;
            }
            // Equal events that wait together are one; whether they do is a matter of time.
            if lines.last() != Some(&line) {
                lines.push(line);
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn on_disk(directory: &Path, script: &str) {
    let status = Command::new("sh").args(["-c", script]).current_dir(directory).status().unwrap();
    assert!(status.success(), "`{script}`");
}

/// What the same changes look like on the disk, one list of lines for each.
fn expected() -> Vec<Vec<String>> {
    let directory = tempfile::tempdir().unwrap();
    on_disk(directory.path(), BEFORE);
    let mut watcher = Watcher::of(directory.path());
    CHANGES
        .iter()
        .map(|change| {
            on_disk(directory.path(), change);
            watcher.lines_until_mark(|mark| on_disk(directory.path(), &format!("mkdir {mark}")))
        })
        .collect()
}

fn with_events() -> Live {
    let live = Live::new();
    live.raises_events();
    live
}

/// Another machine's mount of the same key space.
fn another(live: &Live) -> Live {
    Live::of(Arc::clone(&live.memory), MountOptions::default())
}

/// Runs each change and gathers what is seen of it.
fn seen(watcher: &mut Watcher, run: impl Fn(&str)) -> Vec<Vec<String>> {
    let each = CHANGES.iter();
    each.map(|change| {
        run(change);
        watcher.lines_until_mark(|mark| run(&format!("mkdir {mark}")))
    })
    .collect()
}

fn assert_same(seen: &[Vec<String>], expected: &[Vec<String>]) {
    for ((change, seen), expected) in CHANGES.iter().zip(seen).zip(expected) {
        assert_eq!(seen, expected, "`{change}` (right: on the disk)");
    }
}

/// Seventeen kinds of change raise the same events in the same order as on a disk, whether they are
/// made through another mount or through this one; and none is raised twice.
#[test]
fn changes_made_elsewhere_raise_the_events_of_local_ones() {
    let here = with_events();
    let there = another(&here);
    drop(there.sh(BEFORE));
    here.wait_for("[ -e watched ] && [ -e d/bin ]");
    let expected = expected();
    let mut watcher = Watcher::of(here.path());
    let remote = seen(&mut watcher, |change| drop(there.sh(change)));
    assert_same(&remote, &expected);
    drop(watcher);

    let own = with_events();
    drop(own.sh(BEFORE));
    let mut watcher = Watcher::of(own.path());
    let local = seen(&mut watcher, |change| drop(own.sh(change)));
    assert_same(&local, &expected);
}

/// An event changes nothing: no revision, no attribute, no byte.
#[test]
fn events_change_nothing() {
    let here = with_events();
    let there = another(&here);
    drop(there.sh(BEFORE));
    here.wait_for("[ -e watched ] && [ -e d/bin ]");
    let mut watcher = Watcher::of(here.path());
    drop(
        there.sh("cp -p /etc/passwd d/copy; chmod 640 d/copy; touch -d 2001-01-01 d/kept; mv s s2"),
    );
    drop(watcher.lines_until_mark(|mark| drop(there.sh(&format!("mkdir {mark}")))));
    let revision = here.memory.current();
    let state = "find . ! -path './mark*' -printf '%p %y %m %s %U %T@\\n' | sort; cat d/copy";
    here.wait_for("[ -e d/copy ] && [ -d s2 ]");
    assert_eq!(here.sh(state), there.sh(state));
    assert_eq!(here.memory.current(), revision);
}

/// A client of the API says nothing of what it does: a new key is a file that was made and written,
/// another value a file that was written; directories come and go with their keys.
#[test]
fn changes_by_the_api_raise_events_too() {
    let here = with_events();
    here.put("/d/kept", "1");
    here.put("/watched", "w");
    here.wait_for("[ -e d/kept ] && [ -e watched ]");
    let mut watcher = Watcher::of(here.path());
    let mut after = |change: &dyn Fn() -> Revision| {
        change();
        watcher.lines_until_mark(|mark| {
            here.put(&format!("/{mark}/"), "");
        })
    };
    let made = ["CREATE ./d/f", "MODIFY ./d/f", "CLOSE_WRITE,CLOSE ./d/f"];
    assert_eq!(after(&|| here.put("/d/f", "one")), made);
    assert_eq!(after(&|| here.put("/d/f", "two")), made[1..]);
    assert_eq!(after(&|| here.delete("/d/f")), ["DELETE ./d/f"]);
    assert_eq!(after(&|| here.put("/n/deep/f", "")), ["CREATE,ISDIR ./n"]);
    assert_eq!(after(&|| here.put("/n/g", "")), ["CREATE ./n/g", "CLOSE_WRITE,CLOSE ./n/g"]);
    let all = KeyRange::prefix(b"/n/");
    let gone = after(&|| here.apply(vec![Op::Delete { range: all.clone(), prev_kv: false }]));
    assert!(gone.contains(&"DELETE ./n/g".to_owned()), "{gone:?}");
    assert!(gone.contains(&"DELETE,ISDIR ./n".to_owned()), "{gone:?}");
    assert_eq!(
        after(&|| here.delete("/watched")),
        ["ATTRIB watched", "DELETE_SELF watched", "DELETE ./watched"]
    );
}

/// Whoever reads a file because of an event reads what is new.
#[test]
fn a_reader_awakened_by_an_event_reads_the_new_content() {
    const READER: &str = "inotifywait -q -m -e close_write --format %f . | while read -r name; do
        [ \"$name\" = f ] && now=$(cat f) && echo $now; done";
    let live = with_events();
    live.put("/f", "0\n");
    assert_eq!(live.sh("cat f"), "0\n");
    let mut child = Command::new("sh")
        .args(["-c", READER])
        .current_dir(live.path())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    live.wait_for_watch(live.path());
    for number in 1..200 {
        live.put("/f", &format!("{number}\n"));
        let read = lines.next().unwrap().unwrap();
        assert_eq!(read, number.to_string());
    }
    nix::sys::signal::killpg(
        nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    child.wait().unwrap();
}

/// A mount that nobody may write to tells of changes too.
#[test]
fn a_read_only_mount_raises_events() {
    let live = Live::with(MountOptions { read_only: true, ..MountOptions::default() });
    live.raises_events();
    live.put("/d/f", "");
    live.put("/watched", "");
    live.wait_for("[ -e d/f ] && [ -e watched ]");
    assert!(live.sh_fails("touch d/new").contains("Read-only file system"));
    assert!(live.sh_fails("chmod 600 d/f").contains("Read-only file system"));
    let mut watcher = Watcher::of(live.path());
    let lines = watcher.lines_until_mark(|mark| {
        live.put("/d/f", "new");
        live.put(&format!("/{mark}/"), "");
    });
    assert_eq!(lines, ["MODIFY ./d/f", "CLOSE_WRITE,CLOSE ./d/f"]);
}

/// What comes in a hurry is seen, each thing once and in its order.
#[test]
fn many_changes_at_once_are_seen_in_order() {
    let live = with_events();
    live.put("/d/first", "");
    live.put("/watched", "");
    live.wait_for("[ -e d/first ] && [ -e watched ]");
    let mut watcher = Watcher::of(live.path());
    let lines = watcher.lines_until_mark(|mark| {
        for number in 0..1_000 {
            live.put_bytes(format!("/d/{number}").as_bytes(), &Bytes::new());
        }
        live.put(&format!("/{mark}/"), "");
    });
    let expected: Vec<String> = (0..1_000)
        .flat_map(|number| {
            [format!("CREATE ./d/{number}"), format!("CLOSE_WRITE,CLOSE ./d/{number}")]
        })
        .collect();
    assert_eq!(lines, expected);
}

/// Where the kernel knows the file, and this mount that it is no program, a write is repeated at one question: the
/// kernel asks for the attributes, which it has just forgotten, before it lets anybody open the file.
#[test]
fn a_repeated_write_asks_the_key_space_once() {
    let live = with_events();
    live.put("/watched", "0");
    live.wait_for("[ -e watched ]");
    let watcher = Watcher::of(live.path());
    let before = live.questions();
    for number in 1..=10 {
        live.put("/watched", &number.to_string());
        // Of the file itself, and of the directory that it is in.
        let closed = |line: &String| line.starts_with("CLOSE_WRITE");
        let lines = std::iter::from_fn(|| watcher.lines.recv_timeout(DEADLINE).ok());
        assert_eq!(lines.filter(closed).take(2).count(), 2);
    }
    let questions = live.questions() - before;
    assert!(questions <= 10, "{questions}");
}

/// A program is not opened to repeat a write, or it could not be started meanwhile: the write raises no close.
/// What a file was before it was made a program, or after, does not count.
#[test]
fn a_file_is_a_program_from_when_it_is_made_one_elsewhere() {
    let here = with_events();
    let there = another(&here);
    drop(there.sh("echo 1 > watched"));
    here.wait_for("[ -e watched ]");
    let mut watcher = Watcher::of(here.path());
    let mut is_closed = |change: &str| {
        let change = format!("{change}; echo 2 >> watched");
        drop(there.sh(&change));
        let lines = watcher.lines_until_mark(|mark| drop(there.sh(&format!("mkdir {mark}"))));
        assert!(lines.contains(&"MODIFY ./watched".to_owned()), "{lines:?}");
        lines.contains(&"CLOSE_WRITE,CLOSE ./watched".to_owned())
    };
    for _ in 0..5 {
        assert!(is_closed("chmod 644 watched"));
        assert!(!is_closed("chmod 755 watched"));
    }
    // Through this mount, too.
    drop(here.sh("chmod 644 watched"));
    assert!(is_closed("true"));
    drop(here.sh("chmod 755 watched"));
    assert!(!is_closed("true"));
}
