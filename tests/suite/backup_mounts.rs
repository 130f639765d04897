//! A backup is mounted as it lies: read-only, with its past, and not changed by that.

use revfs_tests::Mount;

/// A node, a mount of a backup of it, and the revision at which the backup's file was written first.
fn saved() -> (Mount, Mount, u64) {
    let node = Mount::up();
    node.ok("mkdir app; echo one > app/f; chmod 0640 app/f");
    let first = node.revision();
    node.ok("echo two > app/f; ln -s f app/link; echo gone > app/gone; rm app/gone");
    node.ok("revfs snapshot save $SCRATCH/saved; sha256sum < $SCRATCH/saved > $SCRATCH/sum");
    node.ok("echo three > app/f; echo later > later");
    let file = node.beside("saved");
    let mount = Mount::of(&file.display().to_string(), &[]);
    (node, mount, first)
}

#[test]
fn a_backup_is_mounted_with_its_past_and_stays_as_it_is() {
    let (mut node, mount, first) = saved();
    assert_eq!(mount.ok("ls; cat app/f; stat -c %a app/f; readlink app/link"), "app\ntwo\n640\nf");
    assert_eq!(mount.ok(&format!("cat app/@rev/{first}/f; ls -A @rev/{first}/app")), "one\nf");
    assert_eq!(
        mount.ok("cat app/@history/f/* | xargs; ls app/@history | xargs"),
        "one two\nf gone link"
    );
    assert_eq!(mount.ok("ls app/@time/-0s/ | xargs; cat app/@time/-0s/f"), "f link\ntwo");
    assert_eq!(mount.ok("head -n 1 app/@watch.1 | grep -c revision"), "1");
    // What reads a node reads it too.
    assert_eq!(mount.ok("revfs get app/f; revfs ls app | xargs"), "two\nf link");
    assert_eq!(mount.ok(&format!("revfs diff {first}.. app | grep -c '^+two'")), "1");
    assert_eq!(mount.ok("revfs log app/f | grep -c ."), "3");
    let key = node
        .shell()
        .run("revfs get --endpoint $SCRATCH/saved --key /app/f; revfs get --key /app/f");
    assert_eq!(key.ok(), "two\nthree");
    for change in [
        "echo x > app/f",
        "rm app/f",
        "mkdir d",
        "mv app b",
        "touch app/f",
        ": > .f.swp",
        "mkdir @txn/t",
    ] {
        mount.run(change).fails_saying("Read-only file system");
    }
    mount.run("revfs put app/f x").fails_saying("a backup is not changed");
    mount.run("revfs restore app --to 2").fails();
    mount.run("revfs member list").fails();
    let status = mount.status();
    assert_eq!(
        (status["backend"].as_str(), status["mount"]["read_only"].as_bool()),
        (Some("backup"), Some(true))
    );
    // No node is needed for it.
    node.stop();
    assert_eq!(mount.ok("cat app/f"), "two");
    drop(mount);
    assert_eq!(
        node.shell()
            .run("cd /; sha256sum < $SCRATCH/saved | diff - $SCRATCH/sum; ls $SCRATCH | grep saved")
            .ok(),
        "saved"
    );
}

#[test]
fn a_part_of_a_backup_and_its_past_are_mounted_alone() {
    let (node, _, first) = saved();
    let file = node.beside("saved").display().to_string();
    let part = Mount::of(&file, &["--prefix", "/app/"]);
    assert_eq!(part.ok("cat f"), "two");
    let past = Mount::of(&file, &["--rev", &first.to_string()]);
    assert_eq!(past.ok("cat app/f; ls app"), "one\nf");
}

#[test]
fn what_is_no_whole_backup_is_not_mounted() {
    let (node, _, _) = saved();
    let refused = |name: &str, argument: &str| {
        let mut mount = Mount::down();
        mount.change_place(|place| {
            place.endpoints = Some(node.beside(name).display().to_string());
            place.arguments = vec![argument.to_owned()];
        });
        mount.refuses()
    };
    node.ok("cd $SCRATCH; cp saved bad; printf X | dd of=bad bs=1 seek=9001 conv=notrunc
head -c -1 saved > cut; echo hello > text; : > empty");
    let said = refused("bad", "--timeout=10");
    assert!(said.contains("damaged between byte 0 and byte") && said.contains("bad"), "{said}");
    for name in ["cut", "text", "empty"] {
        let said = refused(name, "--timeout=10");
        assert!(said.contains("no whole backup"), "{name}: {said}");
    }
    let said = refused("saved", "--read-write");
    assert!(said.contains("revfs snapshot restore"), "{said}");
}
