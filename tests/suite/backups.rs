//! Snapshots: saved while the mount is written to, refused when damaged, mounted again elsewhere.

use nix::sys::signal::Signal;
use revfs_tests::{Mount, wait};
use std::time::Duration;

#[test]
fn a_saved_snapshot_is_restored_and_mounted_with_its_past() {
    let mut mount = Mount::up();
    mount.ok("mkdir app; echo one > app/f; chmod 0640 app/f");
    let first = mount.revision();
    mount.ok("echo two > app/f; ln -s f app/link");
    let writer = mount.shell().start("i=0; while :; do echo $i > busy; i=$((i+1)); done");
    let said = mount.ok("cd app; revfs snapshot save $SCRATCH/saved");
    assert!(said.contains("saved: revision ") && said.contains("sha256 "), "{said}");
    writer.signal(Signal::SIGKILL);
    drop(writer.finish(wait::LIMIT));
    mount.ok("echo three > app/f");
    mount.stop();

    let other = mount.beside("other-data");
    let said = mount
        .shell()
        .run("cd /; revfs snapshot restore $SCRATCH/saved --data-dir $SCRATCH/other-data");
    assert!(said.ok().contains("revfs up MOUNTPOINT --data-dir"));
    mount.change_place(|place| place.data = other);
    mount.start();
    assert_eq!(mount.ok("cat app/f; stat -c %a app/f; readlink app/link"), "two\n640\nf");
    assert_eq!(mount.ok(&format!("cat @rev/{first}/app/f")), "one");
    mount.ok("echo four > app/f");
    assert_eq!(mount.ok("cat app/f"), "four");
}

#[test]
fn a_damaged_snapshot_is_refused_with_file_and_place_and_restores_nothing() {
    let mount = Mount::up();
    mount.ok("echo one > f; revfs snapshot save $SCRATCH/saved");
    mount.ok(
        "cp $SCRATCH/saved $SCRATCH/bad; printf X | dd of=$SCRATCH/bad bs=1 seek=9001 conv=notrunc",
    );
    for line in [
        "revfs snapshot status $SCRATCH/bad",
        "revfs snapshot restore $SCRATCH/bad --data-dir $SCRATCH/new",
    ] {
        let said = mount.run(line).fails_saying("damaged between byte 0 and byte");
        assert!(said.contains("bad"), "{said}");
    }
    mount.ok("head -c -1 $SCRATCH/saved > $SCRATCH/cut");
    mount.run("revfs snapshot status $SCRATCH/cut").fails_saying("cut short");
    mount.ok("test ! -e $SCRATCH/new");
    mount.ok("mkdir $SCRATCH/full; touch $SCRATCH/full/x");
    let code = mount.run("revfs snapshot restore $SCRATCH/saved --data-dir $SCRATCH/full").code();
    assert_eq!(code, Some(3));
    mount.ok("revfs snapshot restore $SCRATCH/saved --data-dir $SCRATCH/full/new");
    let status = mount.ok("revfs snapshot status $SCRATCH/saved --json");
    let status: serde_json::Value = serde_json::from_str(&status).expect("a JSON document");
    assert!(status["revision"].as_u64().is_some_and(|revision| revision > 1), "{status}");
}

#[test]
fn killing_a_save_leaves_neither_a_file_nor_a_piece_of_one() {
    let mount = Mount::up();
    mount.ok("for i in $(seq 24); do head -c 1000000 /dev/urandom > big$i; done");
    mount.ok("mkdir $SCRATCH/saves; echo old > $SCRATCH/saves/old");
    for milliseconds in [5, 20, 60, 120, 250, 400] {
        let save = mount.shell().start("exec revfs snapshot save $SCRATCH/saves/old");
        let code = save.kill_after(Duration::from_millis(milliseconds)).code();
        let left = mount.ok("ls $SCRATCH/saves");
        // Killed before it had its name, or done.
        match code {
            Some(0) => assert_eq!(left, "old"),
            _ => assert!(left == "old" || left == "old\nold.part", "{left}"),
        }
        if left == "old\nold.part" {
            mount.ok("revfs snapshot status $SCRATCH/saves/old.part; rm $SCRATCH/saves/old.part");
        }
    }
    // The node takes a moment to see that nobody reads the last one any more, and makes one at a time.
    wait::until_true("backup after those that were killed", wait::LIMIT, || {
        mount.run("revfs snapshot save $SCRATCH/saves/old").code() == Some(0)
    });
    mount.ok("revfs snapshot status $SCRATCH/saves/old");
    assert!(!mount.data().join("backup.tmp").exists());
}

#[test]
fn killing_a_restore_leaves_no_data_directory_and_the_next_one_starts_over() {
    let mut mount = Mount::up();
    mount.ok("for i in $(seq 24); do head -c 1000000 /dev/urandom > big$i; done; cat big* | sha256sum > sum");
    mount.ok("revfs snapshot save $SCRATCH/saved");
    mount.stop();
    let restored = mount.beside("restored");
    let mut killed = 0;
    for milliseconds in [20, 60, 120, 180, 250, 350, 500, 800] {
        let line = "cd /; exec revfs snapshot restore $SCRATCH/saved --data-dir $SCRATCH/restored";
        let restore = mount.shell().start(line);
        if restore.kill_after(Duration::from_millis(milliseconds)).code() == Some(0) {
            break;
        }
        killed += 1;
        // It has its name only when it is whole, as the node that runs on it shows; what was begun has
        // another.
        if restored.exists() {
            break;
        }
    }
    assert!(killed > 0, "no restore was killed: it takes less than 20 ms");
    if !restored.exists() {
        let line = "cd /; revfs snapshot restore $SCRATCH/saved --data-dir $SCRATCH/restored";
        mount.shell().run(line).ok();
    }
    mount.change_place(|place| place.data = restored);
    mount.start();
    assert_eq!(mount.ok("cat big* | sha256sum"), mount.ok("cat sum"));
    mount.ok("test ! -e $SCRATCH/restored.restoring");
}

#[test]
fn inspect_counts_and_checks_a_stopped_node_and_refuses_a_running_one() {
    let mut mount = Mount::up();
    mount.ok("mkdir app; echo one > app/a; echo two > app/b; rm app/b; revfs snapshot save $SCRATCH/saved");
    let data = mount.data().display().to_string();
    let outside = mount.shell();
    let refused = outside.run(&format!("cd /; revfs inspect {data}"));
    assert_eq!(refused.code(), Some(3));
    let said =
        outside.run(&format!("cd /; revfs inspect {data}")).fails_saying("is in use by process");
    assert!(said.contains("revfs snapshot save"), "{said}");
    mount.stop();
    let said = outside.run(&format!("cd /; revfs inspect {data} --check")).ok();
    assert!(said.contains("/app/") && said.contains("0 violations"), "{said}");
    let said = outside.run("cd /; revfs inspect $SCRATCH/saved --check --json").ok();
    let said: serde_json::Value = serde_json::from_str(&said).expect("a JSON document");
    assert_eq!(said["violations"], serde_json::json!([]));
    assert_eq!(said["format_version"], 1);
    mount.start();
    assert_eq!(mount.ok("cat app/a"), "one");
}

#[test]
fn inspect_reports_damage_with_exit_code_1() {
    let mut mount = Mount::up();
    mount.ok("for i in $(seq 50); do echo $i > f$i; done");
    mount.stop();
    let store = mount.data().join("store-1/data.mdb");
    let mut bytes = std::fs::read(&store).expect("the store has a file");
    // In every page, since the first may be one that is free by now.
    let places = bytes.windows(5).enumerate().filter(|(_, window)| *window == b"/f17\0");
    let places: Vec<usize> = places.map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at + 20] ^= 1;
    }
    std::fs::write(&store, bytes).expect("it can be written");
    let line = format!("cd /; revfs inspect {} --check", mount.data().display());
    let said = mount.shell().run(&line).fails_saying("data.mdb is corrupt at byte");
    assert!(said.contains("/f17"), "{said}");
    assert_eq!(mount.shell().run(&line).code(), Some(1));
}
