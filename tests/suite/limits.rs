//! Limits: a value too large, a disk that is full.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use revfs_tests::{Mount, tools, wait};

use crate::posix::errno_of;

const VALUE_BYTES_MAX: u64 = revfs_api::keyspace::VALUE_BYTES_MAX as u64;

#[test]
fn a_value_over_16_mib_is_efbig_before_anything_is_kept() {
    let mount = Mount::up();
    mount.ok("echo old > f");
    let before = mount.revision();
    let file = OpenOptions::new().read(true).write(true).open(mount.path("f")).expect("open");
    assert_eq!(errno_of(file.write_all_at(b"x", VALUE_BYTES_MAX)), Errno::EFBIG);
    assert_eq!(errno_of(file.set_len(VALUE_BYTES_MAX + 1)), Errno::EFBIG);
    drop(file);
    assert_eq!(mount.ok("cat f"), "old");
    assert_eq!(mount.revision(), before);
    let line = "head -c 17000000 /dev/zero | revfs put g";
    mount.run(line).fails_saying("16777216");
    mount.run("dd if=/dev/zero of=h bs=1M count=17 status=none").fails_saying("File too large");
    let size = fs::metadata(mount.path("h")).map_or(0, |metadata| metadata.len());
    assert!(size <= VALUE_BYTES_MAX, "{size}");
}

#[test]
fn a_value_of_exactly_16_mib_is_kept() {
    let mut mount = Mount::up();
    mount.ok("head -c 16777216 /dev/urandom > $SCRATCH/full; cp $SCRATCH/full f");
    mount.ok("cmp f $SCRATCH/full");
    mount.crash();
    mount.ok("cmp f $SCRATCH/full");
}

/// A small disk of its own.
struct Disk {
    dir: PathBuf,
}

impl Disk {
    fn new(dir: PathBuf, mebibytes: u32) -> Self {
        fs::create_dir(&dir).expect("a directory");
        let size = format!("size={mebibytes}m");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "revfs-test"])
            .arg(&dir)
            .status();
        assert!(status.expect("mount is installed").success(), "a small tmpfs");
        Self { dir }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        umount2(&self.dir, MntFlags::MNT_DETACH).ok();
    }
}

/// Writing says so early, reading goes on, and writing goes on once there is room again.
#[test]
fn a_full_disk_is_enospc_and_the_store_is_usable_when_space_returns() {
    tools::need(&["mount"]);
    tools::need_root("it mounts a small disk");
    let mut mount = Mount::down();
    let disk = Disk::new(mount.beside("disk"), 512);
    mount.change_place(|place| place.data = disk.dir.join("data"));
    mount.start();
    mount.ok("echo precious > kept; sync kept");
    let ballast = disk.dir.join("ballast");
    fill(&ballast);
    let write = "dd if=/dev/urandom of=more bs=1M count=8 status=none conv=fsync";
    wait::until_true("end of writing", wait::LIMIT, || mount.run(write).code() != Some(0));
    mount.run(write).fails_saying("No space left");
    assert_eq!(mount.ok("cat kept"), "precious", "reading goes on");
    mount.run("echo x > new").fails_saying("No space left");
    assert!(!mount.status()["read_only"].as_str().unwrap_or_default().is_empty());
    fs::remove_file(&ballast).expect("our own file");
    // The alarm may come only now, between open and close; a shell does not say that close failed.
    let write = "echo again | dd of=new conv=fsync status=none";
    wait::until_true("writing goes on", wait::LIMIT, || mount.run(write).code() == Some(0));
    assert_eq!(mount.ok("cat kept new"), "precious\nagain");
    mount.crash();
    assert_eq!(mount.ok("cat kept new"), "precious\nagain");
    mount.stop();
}

/// Writes zeros until nothing more fits.
fn fill(path: &std::path::Path) {
    let file = OpenOptions::new().append(true).create(true).open(path).expect("a file");
    let block = vec![0; 64 * 1024];
    let mut writer = &file;
    while std::io::Write::write(&mut writer, &block).is_ok_and(|written| written > 0) {}
}

#[test]
fn at_the_quota_files_can_be_deleted_and_their_directories_stay() {
    let mount = Mount::up_with(|place| {
        place.arguments.extend(["--quota-backend-bytes", "3000000"].map(String::from));
    });
    mount.ok("mkdir a b; head -c 100000 /dev/urandom > a/only; echo 1 > b/only");
    wait::until_true("the alarm", wait::LIMIT, || {
        mount.run("head -c 100000 /dev/urandom > filler").code() != Some(0)
    });
    assert!(mount.status()["read_only"].to_string().contains("NOSPACE"), "{}", mount.status());
    mount.run("echo 2 > new").fails_saying("No space left on device");
    mount.ok("rm a/only && rm -r b");
    assert_eq!(mount.ok("ls -A . a").lines().collect::<Vec<_>>(), [".:", "a", "filler", "", "a:"]);
}
