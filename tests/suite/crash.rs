//! `kill -9` at any moment loses nothing that was acknowledged.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use revfs_tests::dice::Dice;
use revfs_tests::{Mount, program, wait};

const ROUNDS: u64 = 20;

/// Writers that note each name and content once it is acknowledged. What they write names itself, so
/// that a torn or mixed content is seen. They write through programs that report an error of close:
/// shells ignore it.
const WRITER: &str = r"
note() { echo $1 $2 >> $SCRATCH/acknowledged.$$; }
n=0
while :; do
    n=$((n + 1)); content=$ROUND-$WRITER-$n
    case $((n % 5)) in
        0) echo $content > $SCRATCH/from.$WRITER
           dd if=$SCRATCH/from.$WRITER of=close.$WRITER status=none && note close.$WRITER $content ;;
        1) echo $content > $SCRATCH/from.$WRITER
           dd if=$SCRATCH/from.$WRITER of=fsync.$WRITER.$n conv=fsync status=none &&
           note fsync.$WRITER.$n $content ;;
        2) revfs put put.$WRITER $content && note put.$WRITER $content ;;
        3) echo $content > $SCRATCH/from.$WRITER
           cp $SCRATCH/from.$WRITER tmp.$WRITER && mv tmp.$WRITER renamed.$WRITER && note renamed.$WRITER $content ;;
        4) mkdir -p d.$WRITER.$((n / 50)) && cp $SCRATCH/from.$WRITER d.$WRITER.$((n / 50))/$n &&
           note d.$WRITER.$((n / 50))/$n $(cat $SCRATCH/from.$WRITER) ;;
    esac
done > /dev/null 2>> $SCRATCH/complaints";

#[test]
fn kill_at_random_moments_loses_nothing_that_was_acknowledged() {
    let mut dice = Dice::new("kill_at_random_moments");
    let mut mount = Mount::up();
    let mut expected = BTreeMap::new();
    for round in 0..ROUNDS {
        let start = |writer: &str| {
            let shell = mount.shell().variable("ROUND", round.to_string());
            shell.variable("WRITER", writer).start(WRITER)
        };
        let writers = [start("a"), start("b")];
        let least = 1 + usize::try_from(dice.below(40)).expect("a small number");
        wait::until_true("acknowledged writes", wait::LIMIT, || {
            acknowledged(&mount).len() >= least
        });
        // A moment that no loop of the writers is in step with.
        wait::ask(Duration::from_micros(dice.below(30_000)), || None::<()>);
        mount.kill();
        drop(writers);
        let noted = acknowledged(&mount);
        println!("round {round}: killed after {} acknowledged writes", noted.len());
        expected.extend(noted);
        forget_notes(&mount);
        mount.start();
        check(&mount, &expected, round);
    }
}

/// Names come and go in one directory from both sides: through the mount, where each holds the directory's
/// lock until it is answered, and by the commands, of which the kernel is told under the same lock.
const CROWD: &str = r"
for i in 1 2 3 4; do
    while mkdir crowded/$i && rmdir crowded/$i; do :; done &
done
while :; do
    revfs put crowded/other x && ls crowded/other && revfs del crowded/other
done > /dev/null 2>&1";

#[test]
fn a_killed_node_ends_while_programs_wait_for_it() {
    let mut mount = Mount::up();
    for _ in 0..8 {
        mount.ok("mkdir -p crowded");
        let begin = mount.revision();
        let crowd = mount.shell().start(CROWD);
        wait::until_true("a crowd of changes", wait::LIMIT, || mount.revision() > begin + 200);
        mount.kill();
        drop(crowd);
        mount.start();
    }
}

/// The process to guard can die before its guard has asked to be told of it.
#[test]
fn a_guard_without_a_process_to_guard_aborts_what_it_was_handed() {
    let directory = tempfile::tempdir().expect("a directory");
    let abort = directory.path().join("abort");
    let guard = |guarded: u32| {
        let file = fs::File::create(&abort).expect("a file");
        let mut command = Command::new(program::revfs());
        command.args(["guard-mount", &guarded.to_string()]).stdin(file).stdout(Stdio::piped());
        command.spawn().expect("the program starts")
    };
    let output = guard(1).wait_with_output().expect("it ends by itself");
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert_eq!(fs::read_to_string(&abort).expect("our file"), "1");

    let mut guard = guard(std::process::id());
    let mut said = String::new();
    guard.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
    assert_eq!(said, "ready");
    assert_eq!(fs::read_to_string(&abort).expect("our file"), "");
    guard.kill().expect("it waits");
    guard.wait().expect("it ends");
}

/// What the writers noted: name and number of the last content.
fn acknowledged(mount: &Mount) -> BTreeMap<String, String> {
    let mut noted = BTreeMap::new();
    for file in notes(mount) {
        let text = fs::read_to_string(&file).expect("notes are text");
        // A line without its end was being written when the writer died.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            let (name, content) = line.split_once(' ').expect("name and content");
            noted.insert(name.to_owned(), content.to_owned());
        }
    }
    noted
}

fn notes(mount: &Mount) -> Vec<std::path::PathBuf> {
    fs::read_dir(mount.beside(""))
        .expect("the scratch directory lists")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.to_string_lossy().contains("acknowledged."))
        .collect()
}

fn forget_notes(mount: &Mount) {
    for file in notes(mount) {
        fs::remove_file(file).expect("our own file");
    }
}

/// Each name holds what was acknowledged, or what the same writer wrote after it.
fn check(mount: &Mount, expected: &BTreeMap<String, String>, round: u64) {
    for (name, content) in expected {
        let found = fs::read_to_string(mount.path(name))
            .unwrap_or_else(|error| panic!("round {round}: {name} ({content}): {error}"));
        let (found, sought) = (parse(&found), parse(content));
        let same_writer = found.1 == sought.1;
        assert!(
            same_writer && (found.0, found.2) >= (sought.0, sought.2),
            "round {round}: {name} should hold {content}, holds {found:?}"
        );
    }
}

/// `ROUND-WRITER-NUMBER`
fn parse(content: &str) -> (u64, String, u64) {
    let parts: Vec<&str> = content.trim_end().split('-').collect();
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("torn content: {content:?}"));
    assert_eq!(parts.len(), 3, "torn content: {content:?}");
    (number(parts[0]), parts[1].to_owned(), number(parts[2]))
}

/// The crash comes back with the same history, not only the same content.
#[test]
fn history_survives_a_crash() {
    let mut mount = Mount::up();
    mount.ok("for i in $(seq 50); do echo $i > f; done; mkdir d; touch d/g; rm -r d");
    let versions = mount.versions("f");
    let log = mount.ok("revfs log --json f; revfs log --json .");
    for _ in 0..3 {
        mount.crash();
        assert_eq!(mount.versions("f"), versions);
        assert_eq!(mount.ok("revfs log --json f; revfs log --json ."), log);
    }
}
