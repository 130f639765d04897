//! How a mount may look: a part, the past, others' owners and modes; mount(8) and fstab.

use revfs_tests::etcd::free_address;
use revfs_tests::{Mount, tools};

/// A node that listens, and where.
fn node() -> (Mount, String) {
    let address = free_address();
    let node = Mount::up_with(|place| {
        place.arguments = vec!["--listen".to_owned(), address.clone()];
    });
    (node, format!("http://{address}"))
}

#[test]
fn paths_in_a_mount_of_a_part_name_their_keys() {
    let (node, endpoint) = node();
    node.ok("mkdir app; echo red > app/color; echo kept > color; echo other > other");
    let before = node.revision();
    let mount = Mount::of(&endpoint, &["--prefix", "/app/"]);
    assert_eq!(mount.ok("ls"), "color");
    assert_eq!(mount.ok("revfs get color"), "red");
    mount.ok("echo blue > color");
    assert_eq!(mount.ok("revfs log color | grep -c ."), node.ok("revfs log app/color | grep -c ."));
    assert_eq!(mount.ok("revfs ls ."), "color");
    node.ok("echo changed > color");
    mount.ok(&format!("revfs restore . --to {before}"));
    assert_eq!(node.ok("cat app/color color"), "red\nchanged");
    assert_eq!(mount.status()["mount"]["root"], "/app/");
}

#[test]
fn a_mount_of_the_past_shows_one_revision_and_takes_no_change() {
    let (node, endpoint) = node();
    node.ok("mkdir -p app/sub; echo red > app/color; echo deep > app/sub/x; chmod 700 app/sub");
    let then = node.revision().to_string();
    node.ok("echo blue > app/color; rm -r app/sub; echo new > app/new");
    let mount = Mount::of(&endpoint, &["--rev", &then]);
    assert_eq!(mount.ok("cat app/color app/sub/x; ls app | xargs"), "red\ndeep\ncolor sub");
    assert_eq!(mount.ok("revfs get app/color"), "red");
    for change in ["echo x > app/color", "rm app/color", "mkdir d", "chmod 600 app/color"] {
        mount.run(change).fails_saying("Read-only file system");
    }
    mount.run("ls @rev").fails_saying("No such file");
    assert_eq!(mount.status()["mount"]["revision"].to_string(), then);
    node.ok("echo green > app/color; rm app/new");
    assert_eq!(mount.ok("cat app/color; ls app | xargs"), "red\ncolor sub");

    let mut refused = Mount::down();
    refused.change_place(|place| {
        place.endpoints = Some(endpoint.clone());
        place.arguments = vec!["--rev".to_owned(), "1000000".to_owned()];
    });
    let said = refused.refuses();
    assert!(said.contains("cannot mount revision 1000000"), "{said}");
}

/// What others made without a mount is shown as the options say; what is made here is the same everywhere.
#[test]
fn plain_keys_have_the_owner_and_the_mode_that_the_mount_gives_them() {
    let (node, endpoint) = node();
    node.ok("revfs put plain x; revfs put d/plain x");
    let options = ["--uid=12", "--gid=13", "--umask=027", "--noexec"];
    let mount = Mount::of(&endpoint, &options);
    assert_eq!(mount.ok("stat -c '%u %g %a' plain d"), "12 13 640\n12 13 750");
    mount.ok("umask 022; echo x > wide; umask 027; echo x > narrow; chmod 644 plain");
    let modes = "stat -c %a wide narrow plain";
    assert_eq!((mount.ok(modes), node.ok(modes)), ("644\n640\n644".into(), "644\n640\n644".into()));
    mount.ok("printf '#!/bin/sh\\n' > run; chmod 755 run");
    mount.run("./run").fails_saying("Permission denied");
    node.ok("./run");
}

/// With the program's link in `/sbin`, which this mount namespace alone sees.
const MOUNT_8: &str = r#"
mkdir -p "$SCRATCH"/{sbin,point}; cd "$SCRATCH"
mount --bind /usr/sbin sbin; mount -t tmpfs sbin /usr/sbin; cp -rs "$SCRATCH/sbin/." /usr/sbin
ln -s "$(command -v revfs)" /usr/sbin/mount.revfs
mount -t revfs "$ENDPOINT" "$SCRATCH/point" -o _netdev,noauto,ro,prefix=/app/
cat point/color; ! touch point/x 2> /dev/null
findmnt -n -o FSTYPE,SOURCE "$SCRATCH/point" | xargs
umount point
export LIBMOUNT_FSTAB="$SCRATCH/fstab"
revfs mount "$ENDPOINT" "$SCRATCH/point" --prefix=/app/ -o noexec --update-fstab > /dev/null
grep -c "_netdev,nofail,prefix=/app/,noexec" fstab
mount -a; cat point/color; mount -a; grep -c "$SCRATCH/point " /proc/self/mountinfo
umount point; ls point | wc -l
mount -t revfs "$ENDPOINT" "$SCRATCH/point" -o prefx=/app/ 2>&1 | grep -c "did you mean prefix?"
mount.revfs "$ENDPOINT" "$SCRATCH/point" -o prefix=x || echo "code $?"
mount.revfs http://127.0.0.1:1 "$SCRATCH/point" || echo "code $?"
mount.revfs "$ENDPOINT" "$SCRATCH/point" -f; ls point | wc -l"#;

#[test]
fn mount_8_and_fstab_mount_it() {
    tools::need(&["mount", "findmnt", "unshare"]);
    let (node, endpoint) = node();
    node.ok("mkdir app; echo red > app/color");
    let shell = node.shell().variable("ENDPOINT", endpoint.clone());
    let script = shell.variable("SCRIPT", MOUNT_8).run("unshare -m bash -euc \"$SCRIPT\"");
    let expected = format!("red\nfuse.revfs {endpoint}\n1\nred\n1\n0\n1\ncode 1\ncode 32\n0");
    assert_eq!(script.ok(), expected);
}
