//! The wiring of the operations that write: one of each kind.

use super::live::Live;

#[test]
fn what_is_written_is_one_revision_each() {
    let live = Live::new();
    let before = live.memory.current().0;
    let now = || live.memory.current().0 - before;
    assert_eq!(live.sh("echo hello > f; cat f"), "hello\n");
    assert_eq!(now(), 1);
    assert_eq!(live.sh("echo more >> f; cat f; stat -c %s f"), "hello\nmore\n11\n");
    assert_eq!(now(), 2);
    assert_eq!(live.sh("mkdir d && ls -A d; stat -c %F d"), "directory\n");
    assert_eq!(now(), 3);
    assert_eq!(live.sh("mv f d/g && ls . d"), ".:\nd\n\nd:\ng\n");
    assert_eq!(now(), 4);
    assert_eq!(live.sh("ln -s d/g link && cat link"), "hello\nmore\n");
    assert_eq!(now(), 5);
    assert_eq!(live.sh("chmod 600 d/g && stat -c %a d/g"), "600\n");
    assert_eq!(now(), 6);
    assert_eq!(live.sh("rm link d/g && rmdir d && ls"), "");
    assert_eq!(now(), 9);
}

#[test]
fn an_unmount_commits_what_is_staged() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let live = Live::new();
    let mut shell = Command::new("timeout")
        .args(["60", "sh", "-c", "exec 3>f; echo staged >&3; echo there; read -r go"])
        .current_dir(live.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let before = live.memory.current();
    live.runtime.block_on(live.mounted().unmount()).unwrap();
    assert_eq!(live.memory.current(), before.next());
    drop(shell.stdin.take());
    assert!(shell.wait().is_ok());
}
