//! When staged content becomes a revision: each everyday line of the shell gives exactly one.
//!
//! FLUSH is not close: shells and the programs they start send it again and again while the file is
//! still being written. So each line is measured by the store's revision before and after.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use nix::errno::Errno;
use revfs_tests::{Api, Mount, Shell, tools, wait};

/// A line, what must be there before, and the shell that runs it.
struct Case {
    shell: &'static str,
    before: &'static str,
    line: &'static str,
}

const fn bash(before: &'static str, line: &'static str) -> Case {
    Case { shell: "bash", before, line }
}

const fn dash(before: &'static str, line: &'static str) -> Case {
    Case { shell: "dash", before, line }
}

const fn python(before: &'static str, line: &'static str) -> Case {
    Case { shell: "python3", before, line }
}

/// Lets a program write and then kills it, with what it wrote still staged.
const KILLED_CAT: &str = "
mkfifo $SCRATCH/pipe
(exec cat > k) < $SCRATCH/pipe & writer=$!
exec 3> $SCRATCH/pipe
echo hello >&3
for try in {1..2000}; do [ \"$(stat -c %s k 2>&1)\" = 6 ] && break; done
[ \"$(stat -c %s k)\" = 6 ]
kill -9 $writer
wait $writer || true
exec 3>&-
rm $SCRATCH/pipe";

/// A store through a mapping, after the descriptor is gone.
const MAPPED_STORE: &str = "
import mmap
file = open('m', 'r+b')
pages = mmap.mmap(file.fileno(), 0)
file.close()
pages[0:5] = b'hello'
pages.close()";

const WRITES: &[Case] = &[
    bash("", "echo x > f"),
    dash("", "echo x > f"),
    bash("echo old > f", "echo x > f"),
    dash("echo old > f", "echo x > f"),
    bash("", "{ echo a; true; date; echo b; } > g"),
    dash("", "{ echo a; true; date; echo b; } > g"),
    bash("", "for i in 1 2 3; do echo $i; ls /; done > g"),
    bash("", "exec 5> h; echo 1 >&5; (echo 2 >&5); date >&5; echo 3 >&5; exec 5>&-"),
    // Copies of a descriptor that writes, beside one that reads.
    bash("echo x > f", "exec 5< f; { echo a; true; date; echo b; } > f; exec 5<&-"),
    bash("", ": > empty"),
    bash("", "touch t"),
    bash("echo x > t", "touch -d 2020-01-01 t"),
    bash("echo one > a", "echo two >> a"),
    dash("echo one > a", "echo two >> a"),
    bash("echo x > $SCRATCH/s; touch -d 2020-01-01 $SCRATCH/s", "cp $SCRATCH/s c"),
    bash("echo x > $SCRATCH/s; chmod 640 $SCRATCH/s", "cp -a $SCRATCH/s c"),
    bash("echo x > $SCRATCH/s; setfattr -n user.a -v b $SCRATCH/s", "cp -a $SCRATCH/s c"),
    bash("echo old > c; echo x > $SCRATCH/s", "cp $SCRATCH/s c"),
    bash("echo x > $SCRATCH/s", "install -m 600 $SCRATCH/s i"),
    bash("", "echo x | tee u"),
    bash("", "dd if=/dev/zero of=v bs=1000 count=7 status=none"),
    bash("", "dd if=/dev/zero of=v bs=1000 count=7 status=none conv=fsync"),
    bash("", "head -c 3000000 /dev/zero > big"),
    bash("", "sort -o sorted /etc/passwd"),
    bash("", KILLED_CAT),
    bash("echo x > f", "truncate -s 1 f"),
    python("head -c 4096 /dev/zero > m", MAPPED_STORE),
    python("", "open('p', 'w').write('x' * 100000)"),
    python("echo abc > p", "open('p', 'r+').write('X')"),
];

const NAMES: &[Case] = &[
    bash("", "mkdir d"),
    bash("mkdir d", "rmdir d"),
    bash("", "ln -s target l"),
    bash("echo x > f", "rm f"),
    bash("echo x > f", "mv f g"),
    bash("echo x > f; echo y > g", "mv f g"),
    bash("mkdir -p d/e; echo x > d/e/f; echo y > d/g", "mv d moved"),
    bash("echo x > f", "chmod 600 f"),
    bash("echo x > f", "chown 12:34 f"),
    bash("echo x > f", "setfattr -n user.color -v red f"),
    bash("mkdir d", "chmod 700 d"),
];

/// Runs each case in a directory of its own and names all that did not make `expected` revisions.
fn count(cases: &[Case], expected: u64) {
    tools::need(&["setfattr", "python3"]);
    let mount = Mount::up();
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let name = number.to_string();
        mount.ok(&format!("mkdir {name}"));
        let shell = Shell::new(&mount.path(&name)).variable("SCRATCH", mount.beside(""));
        shell.run(case.before).ok();
        settle(&mount);
        let before = mount.revision();
        shell.clone().interpreter(case.shell).run(case.line).ok();
        // What only RELEASE commits comes after the line has ended.
        wait::ask(Duration::from_secs(10), || (mount.revision() > before).then_some(()));
        settle(&mount);
        let made = mount.revision() - before;
        if made != expected {
            wrong.push(format!("{} `{}`: {made} revisions", case.shell, case.line));
        }
    }
    assert!(wrong.is_empty(), "each should make {expected}:\n{}", wrong.join("\n"));
}

/// Commits whatever is still staged, so that it is counted.
fn settle(mount: &Mount) {
    mount.ok("find . -type f -exec sync {} +");
}

#[test]
fn every_way_to_write_a_file_is_one_revision() {
    count(WRITES, 1);
}

#[test]
fn every_change_of_names_or_attributes_is_one_revision() {
    count(NAMES, 1);
}

#[test]
fn a_program_that_calls_fsync_half_way_publishes_what_it_wrote() {
    let case = python(
        "",
        "import os
file = open('f', 'w')
file.write('half')
file.flush()
os.fsync(file.fileno())
file.write(' and half')
file.close()",
    );
    count(&[case], 2);
}

#[test]
fn a_close_commits_although_the_same_process_reads_the_file() {
    let mount = Mount::up();
    mount.ok("echo base > f");
    let reader = File::open(mount.path("f")).unwrap();
    for content in ["one", "another"] {
        let before = mount.revision();
        let mut writer = File::create(mount.path("f")).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
        nix::unistd::close(writer).expect("nobody else changed it");
        assert_eq!(mount.revision(), before + 1, "when close has returned it is stored");
    }
    let api = Api::new(&mount);
    let writer = File::options().write(true).open(mount.path("f")).unwrap();
    writer.write_all_at(b"MINE", 0).unwrap();
    api.put("/f", "theirs");
    assert_eq!(nix::unistd::close(writer), Err(Errno::ESTALE), "who closes hears of the refusal");
    drop(reader);
}

#[test]
fn each_writer_of_one_process_commits_at_its_own_close() {
    let mount = Mount::up();
    mount.ok("echo base > f");
    let open = || File::options().write(true).open(mount.path("f")).unwrap();
    let (one, other) = (open(), open());
    for (writer, at) in [(one, 0), (other, 2)] {
        let before = mount.revision();
        writer.write_all_at(b"XX", at).unwrap();
        nix::unistd::close(writer).expect("nobody else changed it");
        assert_eq!(mount.revision(), before + 1, "when close has returned it is stored");
    }
    assert_eq!(mount.ok("cat f"), "XXXX");
}

#[test]
fn sed_in_place_gives_its_file_one_version() {
    let mount = Mount::up();
    mount.ok("echo limit=8 > limits; chmod 640 limits");
    let before = mount.versions("limits").len();
    mount.ok("sed -i s/8/16/ limits");
    assert_eq!(mount.ok("cat limits"), "limit=16");
    assert_eq!(mount.versions("limits").len(), before + 1);
    assert_eq!(mount.ok("stat -c %a limits"), "640");
}

#[test]
fn reading_makes_no_revision() {
    let mount = Mount::up();
    mount.ok("mkdir d; echo x > d/f; ln -s f d/l");
    let before = mount.revision();
    mount.ok("ls -laR . > /dev/null; cat d/f d/l; stat d/f; find . -type f -exec sync {} +");
    mount.ok("exec 5<> d/f; cat <&5; exec 5>&-; exec 6>> d/f; exec 6>&-");
    mount.ok("cat @status > /dev/null; ls d/@rev d/@history/f; cat d/@rev/*/f");
    assert_eq!(mount.revision(), before);
}

#[test]
fn the_revision_of_status_is_the_same_in_the_mount_and_at_the_command() {
    let mount = Mount::up();
    mount.ok("echo x > f");
    let said = mount.ok("revfs status --json .");
    let said: serde_json::Value = serde_json::from_str(&said).expect("status prints JSON");
    assert_eq!(said["revision"].as_u64(), Some(mount.revision()), "{said}");
}
