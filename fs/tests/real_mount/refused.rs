//! What programs are told of what is refused, and when.

use revfs_api::keyspace::{Error, VALUE_BYTES_MAX};
use revfs_fs::filesystem::MountOptions;
use revfs_fs::memory::FailureMoment;

use super::live::Live;

#[test]
fn each_refusal_has_its_errno() {
    let live = Live::new();
    drop(live.sh("mkdir d full full/x && echo 1 > f && ln -s f l"));
    for (script, complaint) in [
        ("mkdir d", "File exists"),
        ("mkdir f/x", "Not a directory"),
        ("rmdir full", "Directory not empty"),
        ("rmdir f", "Not a directory"),
        ("rm d", "Is a directory"),
        ("unlink d", "Is a directory"),
        ("echo > d", "Is a directory"),
        ("echo > none/x", "nonexistent"),
        ("mv -T d full", "Directory not empty"),
        ("mv -T f d", "cannot overwrite directory"),
        ("mv d d/x", "subdirectory of itself"),
        ("ln f g", "Operation not permitted"),
        ("mkdir @rev", "File exists"),
        ("touch @value", "Operation not permitted"),
        ("mkdir @@new", "Operation not permitted"),
        ("mv f @@new", "Operation not permitted"),
        ("touch -a f", "Operation not supported"),
        ("set -C; echo > f", "cannot create"),
        ("python3 -c 'import os; os.setxattr(\"f\", \"user.revfs.x\", b\"1\")'", "not permitted"),
        ("python3 -c 'import os; os.setxattr(\"f\", \"trusted.x\", b\"1\")'", "not supported"),
        ("echo > @rev/1/f", "Read-only file system"),
        ("python3 -c 'import os; os.rename(\"f\", \"@rev/1/f\")'", "Invalid cross-device link"),
    ] {
        let told = live.sh_fails(script);
        assert!(told.contains(complaint), "`{script}`: {told}");
    }
    assert_eq!(live.sh("ls; cat f"), "d\nf\nfull\nl\n1\n");
}

#[test]
fn a_file_over_the_limit_is_refused_before_anything_is_kept() {
    let live = Live::new();
    let before = live.memory.current();
    let over = VALUE_BYTES_MAX + 1;
    let told = live.sh_fails(&format!("truncate -s {over} big"));
    assert!(told.contains("File too large"), "{told}");
    let told = live.sh_fails(&format!("head -c {over} /dev/zero > big"));
    assert!(told.contains("File too large"), "{told}");
    assert_eq!(
        live.sh(&format!("head -c {VALUE_BYTES_MAX} /dev/zero > big; stat -c %s big")),
        format!("{VALUE_BYTES_MAX}\n")
    );
    assert!(live.memory.current() > before);
    let told = live.sh_fails("bash -c 'echo x >> big'");
    assert!(told.contains("File too large"), "{told}");
}

#[test]
fn what_changed_elsewhere_is_not_overwritten_by_a_change_of_the_old() {
    let live = Live::new();
    live.put("/f", "old content\n");
    // dd changes one byte; another machine changes the file before dd closes it.
    let started = "exec 3<> f; head -c 3 <&3 > /dev/null; printf X >&3; echo > started; \
        until [ -e go ]; do :; done; exec 3>&-";
    let held = std::thread::scope(|scope| {
        let held = scope.spawn(|| live.run(&format!("bash -c '{started}'")));
        live.wait_for("[ -e started ]");
        live.put("/f", "new content\n");
        drop(live.sh("touch go"));
        held.join().unwrap()
    });
    assert!(held.status.success(), "a shell does not look at close");
    live.wait_for("grep -q new f");
    let refused = live.sh("cat @history/f/refused-*");
    assert_eq!(refused, "oldXcontent\n");
}

#[test]
fn a_program_that_checks_is_told_at_close() {
    let live = Live::new();
    live.memory
        .fail_next_txn(FailureMoment::Before, Error::Denied { reason: "not yours".to_owned() });
    let told = live.sh_fails("cp /etc/hostname f");
    assert!(told.contains("Permission denied"), "{told}");
    assert!(live.sh_fails("cat f").contains("No such file"));
    // The shell hears of a full disk at its next open.
    live.memory.fail_next_txn(FailureMoment::Before, Error::NoSpace { reason: "full".to_owned() });
    let told = live.sh_fails("echo 1 > f; echo 2 > f");
    assert!(told.contains("No space left"), "{told}");
    live.wait_for("echo 3 > f");
    assert_eq!(live.sh("cat f"), "3\n");
}

#[test]
fn pages_of_a_refused_change_are_not_shown_any_more() {
    let live = Live::new();
    live.put("/f", "aaaa\n");
    let program = "import os, time\n\
        f = os.open(\"f\", os.O_RDWR); os.read(f, 10); os.pwrite(f, b\"X\", 0)\n\
        open(\"started\", \"w\").close()\n\
        while not os.path.exists(\"go\"): pass\n\
        try:\n  os.fsync(f); print(\"done\")\n\
        except OSError as e: print(os.strerror(e.errno))\n\
        print(os.pread(f, 10, 0).decode(), end=\"\")\n\
        os.close(f)";
    let output = std::thread::scope(|scope| {
        let held = scope.spawn(|| live.run(&format!("python3 -c '{program}'")));
        live.wait_for("[ -e started ]");
        live.put("/f", "bbbb\n");
        drop(live.sh("touch go"));
        held.join().unwrap()
    });
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(printed, "Stale file handle\nbbbb\n");
}

#[test]
fn a_read_only_mount_says_so() {
    let live = Live::with(MountOptions { read_only: true, ..MountOptions::default() });
    live.put("/d/f", "1");
    live.wait_for("[ -e d/f ]");
    for script in ["echo > d/f", "touch d/g", "mkdir e", "rm d/f", "mv d e", "chmod 600 d/f"] {
        let told = live.sh_fails(script);
        assert!(told.contains("Read-only file system"), "`{script}`: {told}");
    }
}
