//! ls, cat, stat, find.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use revfs_api::keyspace::Op;
use revfs_fs::attributes::{Attributes, Kind, XattrSet, record_key};
use revfs_fs::mount::{check_mount_point, clear_dead_mount};

use super::live::Live;

#[test]
fn keys_are_files_in_directories() {
    let live = Live::new();
    live.put("/app/color", "blue\n");
    live.put("/app/deep/er/key", "x");
    live.put("/readme", "hello\n");
    assert_eq!(live.sh("ls"), "app\nreadme\n");
    assert_eq!(live.sh("cat app/color readme"), "blue\nhello\n");
    assert_eq!(live.sh("stat -c '%F %s %a %u %h' app/color"), "regular file 5 644 0 1\n");
    assert_eq!(live.sh("stat -c '%F %a' app"), "directory 755\n");
    assert_eq!(
        live.sh("find . | sort"),
        ".\n./app\n./app/color\n./app/deep\n./app/deep/er\n./app/deep/er/key\n./readme\n"
    );
    assert!(live.sh_fails("cat nothing").contains("No such file"));
}

#[test]
fn odd_names_are_files_too() {
    let live = Live::new();
    let long = "n".repeat(255);
    let longer = "m".repeat(400);
    for (component, name) in [
        (&b"two\nlines"[..], &b"two\nlines"[..]),
        (b"\xff\xfe invalid", b"\xff\xfe invalid"),
        (b"@scope", b"@scope"),
        (b"@rev", b"%40rev"),
        (b"%41", b"%41"),
        (b"%", b"%25"),
        (b".", b"%2E"),
        (b"nul\0byte", b"nul%00byte"),
        (long.as_bytes(), long.as_bytes()),
    ] {
        live.put_bytes(&[b"/odd/", component].concat(), component);
        let list = "ls -1 --literal --show-control-chars odd | od -An -v -tx1 | tr -d ' \\n'";
        let hex: String = name.iter().chain(b"\n").map(|byte| format!("{byte:02x}")).collect();
        live.wait_for(&format!("{list} | grep -q {hex}"));
        let octal: String = name.iter().map(|byte| format!("\\{byte:03o}")).collect();
        let read = format!("cat \"odd/$(printf '{octal}')\" | od -An -v -tx1 | tr -d ' \\n'");
        let content: String = component.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(live.sh(&read), content);
    }
    live.put(&format!("/long/{longer}"), "found\n");
    live.put(&format!("/long/{longer}/below"), "deep\n");
    live.wait_for("[ -e long/*/below ]");
    assert_eq!(live.sh("cat long/*/@value long/*/below"), "found\ndeep\n");
    assert!(live.sh_fails(&format!("cat {}", "x".repeat(256))).contains("too long"));
}

#[test]
fn ten_thousand_names_cost_few_questions() {
    let live = Live::new();
    let many = (0..10_000).map(|number| Op::put(format!("/many/{number:05}"), "x"));
    live.apply(many.collect());
    live.wait_for("[ -e many ]");
    let script = "ls -l many | tail -n +2 | awk '{print $5}' | sort | uniq -c";
    live.comes_to_cost(script, "  10000 1\n", 3);
}

#[test]
fn symlinks_owners_and_xattrs_come_from_records() {
    let live = Live::new();
    let link = Attributes::new(Kind::Symlink, 0o777);
    let mut file = Attributes { uid: Some(1234), ..Attributes::new(Kind::File, 0o640) };
    file.set_xattr(b"user.color", b"blue", XattrSet::Create).unwrap();
    let revision = live.apply(vec![
        Op::put("/f", "target\n"),
        Op::put(record_key(b"/f"), file.encode()),
        Op::put("/l", "f"),
        Op::put(record_key(b"/l"), link.encode()),
    ]);
    assert_eq!(live.sh("readlink l; cat l; stat -c '%a %u' f"), "f\ntarget\n640 1234\n");
    assert_eq!(live.sh("ls -l | tail -n +2 | cut -c1-10"), "-rw-r-----\nlrwxrwxrwx\n");
    let python = |what: &str| live.sh(&format!("python3 -c \"import os; print({what})\""));
    assert_eq!(python("os.listxattr('f')"), "['user.color']\n");
    assert_eq!(python("os.getxattr('f', 'user.color')"), "b'blue'\n");
    let number = python("os.getxattr('f', 'user.revfs.mod_revision').decode()");
    assert_eq!(number, format!("{revision}\n"));
    assert_eq!(python("os.getxattr('f', 'user.revfs.key')"), "b'/f'\n");
    let missing = "python3 -c \"import os; os.getxattr('f', 'user.revfs.nothing')\"";
    assert!(live.sh_fails(missing).contains("No data available"));
}

#[test]
fn a_busy_mount_is_taken_away() {
    let live = Live::new();
    live.put("/d/f", "");
    let mut shell = Command::new("timeout")
        .args(["60", "sh", "-c", "cd d && echo there && read -r go"])
        .current_dir(live.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "there\n");
    live.runtime.block_on(live.mounted().unmount()).unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(live.path().to_str().unwrap()));
    drop(shell.stdin.take());
    assert!(shell.wait().is_ok());
    // With its last user gone, the session ends.
    live.runtime.block_on(live.mounted().wait()).unwrap();
}

#[test]
fn an_unmount_by_hand_ends_the_session() {
    let live = Live::new();
    let status = Command::new("umount").arg(live.path()).status().unwrap();
    assert!(status.success());
    live.runtime.block_on(live.mounted().wait()).unwrap();
}

#[test]
fn an_aborted_connection_is_an_error_and_the_dead_mount_goes() {
    let mut live = Live::new();
    let mounted = live.take_mounted();
    let connection = mounted.connection().unwrap();
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    std::fs::write(format!("/sys/fs/fuse/connections/{connection}/abort"), "1")
        .expect("fusectl is mounted: mount -t fusectl fusectl /sys/fs/fuse/connections");
    let error = live.runtime.block_on(mounted.wait()).unwrap_err().to_string();
    assert!(error.contains("abort"), "{error}");
    assert!(mounts().contains(live.path().to_str().unwrap()));
    live.runtime.block_on(mounted.unmount()).unwrap_err();
    assert!(!mounts().contains(live.path().to_str().unwrap()));
}

#[test]
fn only_an_empty_directory_is_mounted_on() {
    let directory = tempfile::tempdir().unwrap();
    check_mount_point(directory.path()).unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let refused = |path: &Path| check_mount_point(path).unwrap_err().to_string();
    assert!(refused(&file).ends_with("it is not a directory"));
    assert!(refused(directory.path()).ends_with("it is not empty"));
    assert!(refused(&directory.path().join("nothing")).contains("No such file"));
    assert!(!clear_dead_mount(directory.path()).unwrap());
    let live = Live::new();
    assert!(refused(live.path()).ends_with("a revfs is mounted there"));
}
