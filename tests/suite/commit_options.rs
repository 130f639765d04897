//! `commit=write` and `cas`: when a change becomes a revision, and over what.

use revfs_tests::Mount;
use revfs_tests::etcd::free_address;

fn mount_that(option: &str) -> Mount {
    Mount::up_with(|place| place.arguments = vec![option.to_owned()])
}

const STEPS: &str = "import os, subprocess
def stored():
    print(subprocess.run(['revfs', 'get', '--key', '/f'], capture_output=True, text=True).stdout.strip())
file = open('f', 'wb', buffering=0)
file.write(b'one')
stored()
file.write(b' two')
stored()
os.ftruncate(file.fileno(), 3)
stored()
os.pwrite(file.fileno(), b'ON', 0)
stored()
file.close()";

#[test]
fn each_write_and_change_of_length_is_a_revision_where_that_is_asked_for() {
    let mount = mount_that("--commit=write");
    assert_eq!(mount.status()["mount"]["commit"], "write");
    assert_eq!(mount.python(STEPS), "one\none two\none\nONe");
    assert_eq!(mount.versions("f").len(), 4);
    let before = mount.revision();
    mount.ok("echo x > one; echo y >> one; : > empty");
    assert_eq!(mount.revision(), before + 3, "a shell's line is one revision");
    // What others wrote meanwhile is not lost.
    let lines = mount.ok("exec 5>> log; echo a >&5; revfs put --key /log 'b
' > /dev/null; echo c >&5; exec 5>&-; revfs get --key /log");
    assert_eq!(lines, "b\nc");
    // Pages of a mapping wait to be synced.
    let mapped = mount.python(
        "import mmap, os
open('m', 'wb').write(b'a' * 5000)
file = open('m', 'r+b')
pages = mmap.mmap(file.fileno(), 0)
pages[0:1] = b'b'
pages.flush()
pages.close()
file.close()
print(open('m').read()[:2], len(os.listdir('@history/m')))",
    );
    assert_eq!(mapped, "ba 2");
    mount.ok("mkdir d; cp -a one d/; chmod 600 d/one; mv d/one d/two; dd if=/dev/zero of=d/big bs=1M count=3 status=none");
    assert_eq!(mount.ok("stat -c '%s %a' d/two d/big"), "4 600\n3145728 644");
    assert_eq!(mount.status()["mount"]["staged_files"], 0);
}

#[test]
fn a_rewrite_of_a_file_that_changed_since_it_was_opened_is_refused_where_that_is_asked_for() {
    let address = free_address();
    let node = Mount::up_with(|place| place.arguments = vec![format!("--listen={address}")]);
    let mount = Mount::of(&format!("http://{address}"), &["-o", "cas"]);
    assert_eq!(mount.status()["mount"]["cas"], true);
    node.ok("echo one > f");
    mount.ok("echo two > f; echo three > f; echo new > made");
    assert_eq!(node.ok("cat f made"), "three\nnew");
    // Opened, changed elsewhere, closed: of a file that was there, that is gone, and that is new.
    let line = |file: &str, change: &str| {
        mount.shell().variable("NODE", node.dir()).run(&format!(
            "exec 5> {file}; echo mine >&5; ( cd $NODE && {change} ); sync /dev/fd/5"
        ))
    };
    line("f", "echo theirs > f").fails_saying("Stale file handle");
    assert_eq!(mount.ok("cat f"), "theirs");
    line("f", "rm f").fails_saying("Stale file handle");
    line("fresh", "echo theirs > fresh").fails_saying("Stale file handle");
    assert_eq!(node.ok("cat fresh; ls | xargs"), "theirs\nfresh made");
    line("made", "chmod 600 made").ok();
    assert_eq!(node.ok("cat made"), "mine");
    // Its own commits are no change by others, and appended bytes follow whatever is there.
    mount.ok("exec 5> g; echo one >&5; sync g; echo two >&5; exec 5>&-");
    line("g", "echo three >> g").fails_saying("Stale file handle");
    mount
        .shell()
        .variable("NODE", node.dir())
        .run("exec 5>> g; echo last >&5; ( cd $NODE && echo four >> g ); exec 5>&-")
        .ok();
    assert_eq!(node.ok("cat g"), "one\ntwo\nthree\nfour\nlast");
}
