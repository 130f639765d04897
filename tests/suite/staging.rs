//! The life of a staged copy: who sees it, what renames and deletions do to it, how it is refused.

use std::path::Path;
use std::time::Duration;

use revfs_tests::{Mount, Shell, tools, wait};

#[test]
fn what_one_process_wrote_another_reads_at_once_and_the_store_gets_it_at_close() {
    let mount = Mount::up();
    mount.ok("echo old > f");
    let before = mount.revision();
    let output = mount.ok("exec 5> f; echo new >&5
         cat f; stat -c %s f; revfs get f
         exec 5>&-; revfs get f");
    assert_eq!(output, "new\n4\nold\nnew");
    assert_eq!(mount.revision(), before + 1);
}

#[test]
fn a_file_that_was_unlinked_while_open_commits_nothing() {
    let mount = Mount::up();
    mount.ok("echo old > f");
    let output = mount.python(
        "import os
file = open('f', 'r+')
file.write('mine')
file.flush()
os.unlink('f')
file.seek(0)
print(file.read())
file.write(' more')
file.close()
print(os.path.exists('f'))",
    );
    assert_eq!(output, "mine\nFalse");
    let versions = mount.versions("f");
    assert_eq!(versions.len(), 2, "born and deleted, nothing else: {versions:?}");
    assert!(versions[1].ends_with(".deleted"), "{versions:?}");
}

#[test]
fn a_file_that_was_replaced_while_open_commits_nothing_and_close_returns_0() {
    let mount = Mount::up();
    mount.ok("echo old > f");
    let before = mount.revision();
    mount.python(
        "import os
file = open('f', 'w')
file.write('lost')
file.flush()
open('g', 'w').write('winner')
os.rename('g', 'f')
file.close()",
    );
    assert_eq!(mount.ok("cat f; sync f; cat f"), "winnerwinner");
    assert_eq!(mount.revision(), before + 2, "the birth of g and its rename");
}

#[test]
fn a_rename_of_a_staged_file_is_one_revision_with_its_content() {
    let mount = Mount::up();
    let before = mount.revision();
    mount.python(
        "import os
file = open('draft', 'w')
file.write('text')
file.flush()
os.fchmod(file.fileno(), 0o600)
os.rename('draft', 'final')
file.close()",
    );
    assert_eq!(mount.ok("cat final; stat -c ' %a' final; ls"), "text 600\nfinal");
    assert_eq!(mount.revision(), before + 1);
}

#[test]
fn a_staged_file_that_is_renamed_is_written_on_under_its_new_name() {
    let mount = Mount::up();
    mount.python(
        "import os
file = open('a', 'w')
file.write('one ')
file.flush()
os.rename('a', 'b')
file.write('two')
file.close()
assert not os.path.exists('a')",
    );
    assert_eq!(mount.ok("revfs get b"), "one two");
}

#[test]
fn a_reader_keeps_the_file_that_was_removed() {
    let mount = Mount::up();
    mount.ok("seq 100000 > f");
    assert_eq!(mount.ok("exec 5< f; rm f; tail -n 1 <&5"), "100000");
}

#[test]
fn changes_of_attributes_are_staged_with_the_content() {
    tools::need(&["setfattr", "getfattr"]);
    let mount = Mount::up();
    let before = mount.revision();
    mount.ok("exec 5> f; echo x >&5; chmod 600 f; chown 7:8 f; setfattr -n user.a -v b f
         touch -d @1000000000 f; exec 5>&-");
    assert_eq!(mount.ok("stat -c '%a %u:%g %Y' f"), "600 7:8 1000000000");
    assert_eq!(mount.ok("getfattr -n user.a --only-values f"), "b");
    assert_eq!(mount.revision(), before + 1);
}

/// A rewrite from empty wins over what an API client wrote meanwhile.
#[test]
fn a_rewrite_from_empty_wins() {
    let mount = Mount::up();
    mount.ok("echo old > f");
    mount.ok("exec 5> f; echo mine >&5; revfs put f theirs; exec 5>&-");
    assert_eq!(mount.ok("cat f; revfs get f"), "mine\nmine");
}

/// A change in the middle of a file that changed elsewhere would bring old bytes back.
#[test]
fn a_change_in_the_middle_of_a_file_that_changed_elsewhere_is_estale() {
    let mount = Mount::up();
    mount.ok("echo 'one two three' > f");
    let output = mount.python(
        "import errno, os, subprocess
file = os.open('f', os.O_RDWR)
os.pwrite(file, b'TWO', 4)
subprocess.run(['revfs', 'put', 'f', 'theirs'], check=True, stdout=subprocess.DEVNULL)
try:
    os.fsync(file)
    print('fsync returned 0')
except OSError as error:
    print(errno.errorcode[error.errno])
os.close(file)",
    );
    assert_eq!(output, "ESTALE");
    assert_eq!(mount.ok("revfs get f"), "theirs");
    wait::until_true("the other's content in the mount", Duration::from_secs(10), || {
        mount.ok("cat f") == "theirs"
    });
}

#[test]
fn bytes_to_append_follow_whatever_is_there_at_commit() {
    let mount = Mount::up();
    mount.ok("echo one > log");
    mount.ok("exec 5>> log; echo mine >&5; revfs put log $'one\\ntheirs\\n'; exec 5>&-");
    assert_eq!(mount.ok("revfs get log"), "one\ntheirs\nmine");
    assert_eq!(mount.ok("cat log"), "one\ntheirs\nmine");
}

#[test]
fn two_writers_append_whole_lines() {
    let mount = Mount::up();
    mount.ok("for w in a b c d; do
           ( for i in $(seq 50); do echo $w-$i >> log; done ) &
         done; wait");
    assert_eq!(mount.ok("sort -u log | wc -l"), "200");
    assert_eq!(mount.ok("wc -l < log"), "200");
}

/// While a file is created with O_EXCL and not yet committed, nobody else creates it.
#[test]
fn an_exclusive_creation_reserves_the_name() {
    let mount = Mount::up();
    mount.ok("set -C; exec 5> f; ! (echo x > f) 2> $SCRATCH/err; echo mine >&5; exec 5>&-");
    assert_eq!(mount.ok("cat f"), "mine");
    mount.run("set -C; echo again > f").fails_saying("exist");
}

/// An API client that took the name meanwhile keeps it.
#[test]
fn an_exclusive_creation_that_an_api_client_overtook_is_refused() {
    let mount = Mount::up();
    let output = mount.python(
        "import errno, os, subprocess
file = os.open('f', os.O_WRONLY | os.O_CREAT | os.O_EXCL)
os.write(file, b'mine')
subprocess.run(['revfs', 'put', 'f', 'theirs'], check=True, stdout=subprocess.DEVNULL)
try:
    os.fsync(file)
    print('fsync returned 0')
except OSError as error:
    print(errno.errorcode[error.errno])
os.close(file)",
    );
    assert_eq!(output, "ESTALE");
    assert_eq!(mount.ok("revfs get f"), "theirs");
}

/// A stop commits first what open files hold.
#[test]
fn sigterm_commits_what_is_staged() {
    let mut mount = Mount::up();
    let writer = mount.shell().start("exec 5> f; echo staged >&5; echo ready; sleep 300");
    wait::until_true("the writer", wait::LIMIT, || writer.stdout().contains("ready"));
    mount.stop();
    drop(writer);
    mount.start();
    assert_eq!(mount.ok("cat f"), "staged");
}

#[test]
fn umount_of_a_busy_mount_is_refused_and_a_lazy_one_commits_what_is_staged() {
    let mut mount = Mount::up();
    let writer = mount.shell().start("exec 5> f; echo staged >&5; echo ready; sleep 300");
    wait::until_true("the writer", wait::LIMIT, || writer.stdout().contains("ready"));
    let outside = Shell::new(Path::new("/"));
    let dir = mount.dir().display().to_string();
    outside.run(&format!("revfs umount {dir}")).fails_saying("sleep");
    assert_eq!(mount.ok("cat f"), "staged", "nothing has changed");
    outside.run(&format!("revfs umount --lazy {dir}")).ok();
    // Those who hold files are served on; the program ends with the last of them.
    drop(writer);
    mount.wait_for_end(wait::LIMIT);
    mount.start();
    assert_eq!(mount.ok("cat f"), "staged");
}
