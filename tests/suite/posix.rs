//! What programs expect of a file system: names, data, errors.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FallocateFlags, RenameFlags, fallocate, renameat2};
use nix::sys::statvfs::statvfs;
use nix::unistd::{Whence, lseek, truncate};
use revfs_tests::{Mount, tools, wait};

/// The errno of an operation that must fail.
pub(crate) fn errno_of<T>(result: io::Result<T>) -> Errno {
    match result {
        Ok(_) => panic!("should have failed"),
        Err(error) => Errno::from_raw(error.raw_os_error().expect("an error of the system")),
    }
}

#[test]
fn files_are_created_read_written_and_truncated() {
    let mount = Mount::up();
    let path = mount.path("f");
    let mut file = File::create_new(&path).expect("a new file");
    file.write_all(b"0123456789").expect("bytes are staged");
    file.write_all_at(b"XY", 3).expect("bytes in the middle");
    file.seek(SeekFrom::Start(20)).expect("seek beyond the end");
    file.write_all(b"end").expect("bytes after a hole");
    drop(file);
    assert_eq!(fs::read(&path).expect("read"), b"012XY56789\0\0\0\0\0\0\0\0\0\0end");
    let file = OpenOptions::new().write(true).open(&path).expect("open for writing");
    file.set_len(4).expect("shorter");
    file.set_len(6).expect("longer");
    drop(file);
    assert_eq!(fs::read(&path).expect("read"), b"012X\0\0");
    assert_eq!(fs::metadata(&path).expect("stat").len(), 6);
    let mut file = OpenOptions::new().append(true).open(&path).expect("open for appending");
    file.write_all(b"!").expect("bytes at the end");
    drop(file);
    assert_eq!(fs::read(&path).expect("read"), b"012X\0\0!");
    fs::write(&path, b"").expect("truncated by open");
    assert_eq!(fs::metadata(&path).expect("stat").len(), 0);
}

#[test]
fn a_file_of_10_mib_comes_back() {
    let mount = Mount::up();
    let content: Vec<u8> = (0..10_u32 * 1024 * 1024 / 4)
        .flat_map(|word| word.wrapping_mul(2_654_435_761).to_be_bytes())
        .collect();
    fs::write(mount.path("big"), &content).expect("10 MiB are written");
    assert!(fs::read(mount.path("big")).expect("read") == content, "the bytes differ");
    let mut part = vec![0; 1000];
    let file = File::open(mount.path("big")).expect("open");
    file.read_exact_at(&mut part, 5_000_001).expect("read in the middle");
    assert!(part == content[5_000_001..5_001_001], "the middle differs");
}

#[test]
fn each_failure_has_its_errno() {
    let mount = Mount::up();
    let path = |name: &str| mount.path(name);
    fs::create_dir_all(path("d/e")).expect("directories");
    fs::write(path("d/f"), "x").expect("a file");
    fs::write(path("g"), "y").expect("a file");
    assert_eq!(errno_of(File::open(path("none"))), Errno::ENOENT);
    assert_eq!(errno_of(File::open(path("none/deeper"))), Errno::ENOENT);
    assert_eq!(errno_of(File::open(path("g/deeper"))), Errno::ENOTDIR);
    assert_eq!(errno_of(fs::write(path("d"), "x")), Errno::EISDIR);
    assert_eq!(errno_of(File::create_new(path("g"))), Errno::EEXIST);
    assert_eq!(errno_of(fs::create_dir(path("g"))), Errno::EEXIST);
    assert_eq!(errno_of(fs::create_dir(path("d"))), Errno::EEXIST);
    assert_eq!(errno_of(fs::create_dir(path("none/x"))), Errno::ENOENT);
    assert_eq!(errno_of(fs::create_dir(path("g/x"))), Errno::ENOTDIR);
    assert_eq!(errno_of(fs::remove_dir(path("d"))), Errno::ENOTEMPTY);
    assert_eq!(errno_of(fs::remove_dir(path("g"))), Errno::ENOTDIR);
    assert_eq!(errno_of(fs::remove_file(path("d"))), Errno::EISDIR);
    assert_eq!(errno_of(fs::remove_file(path("none"))), Errno::ENOENT);
    assert_eq!(errno_of(fs::rename(path("none"), path("x"))), Errno::ENOENT);
    assert_eq!(errno_of(fs::rename(path("g"), path("d"))), Errno::EISDIR);
    assert_eq!(errno_of(fs::rename(path("d"), path("g"))), Errno::ENOTDIR);
    assert_eq!(errno_of(fs::rename(path("d/e"), path("d/e/x"))), Errno::EINVAL);
    fs::create_dir(path("full")).expect("a directory");
    fs::write(path("full/x"), "x").expect("a file");
    assert_eq!(errno_of(fs::rename(path("d"), path("full"))), Errno::ENOTEMPTY);
    assert_eq!(errno_of(fs::read_link(path("g"))), Errno::EINVAL);
    assert_eq!(mount.ok("cat d/f g full/x"), "xyx", "nothing changed");
}

#[test]
fn rename_replaces_files_and_empty_directories() {
    let mount = Mount::up();
    mount.ok("echo a > a; echo b > b; mkdir d e; echo x > d/f");
    fs::rename(mount.path("a"), mount.path("b")).expect("over a file");
    fs::rename(mount.path("d"), mount.path("e")).expect("over an empty directory");
    assert_eq!(mount.ok("cat b e/f; ls"), "a\nx\nb\ne");
    fs::rename(mount.path("b"), mount.path("e/b")).expect("into a directory");
    fs::rename(mount.path("e/b"), mount.path("e/b")).expect("onto itself");
    assert_eq!(mount.ok("cat e/b; ls"), "a\ne");
}

#[test]
fn rename_may_keep_or_exchange_what_is_there() {
    let mount = Mount::up();
    mount.ok("echo a > a; echo b > b; mkdir d; echo x > d/f");
    let rename = |from: &str, to: &str, flags| {
        renameat2(AT_FDCWD, &mount.path(from), AT_FDCWD, &mount.path(to), flags)
    };
    assert_eq!(rename("a", "b", RenameFlags::RENAME_NOREPLACE), Err(Errno::EEXIST));
    rename("a", "c", RenameFlags::RENAME_NOREPLACE).expect("c is free");
    let before = mount.revision();
    rename("c", "b", RenameFlags::RENAME_EXCHANGE).expect("both exist");
    assert_eq!(mount.revision(), before + 1);
    assert_eq!(mount.ok("cat b c"), "a\nb");
    rename("d", "b", RenameFlags::RENAME_EXCHANGE).expect("a directory and a file");
    assert_eq!(mount.revision(), before + 2);
    let past = format!("cat b/f d; cat @rev/{before}/d/f");
    assert_eq!(mount.ok(&past), "x\na\nx");
    assert_eq!(rename("b", "b/f", RenameFlags::RENAME_EXCHANGE), Err(Errno::EINVAL));
    assert_eq!(rename("b", "none", RenameFlags::RENAME_EXCHANGE), Err(Errno::ENOENT));
}

#[test]
fn directories_are_exchanged_in_one_revision() {
    let mount = Mount::up();
    mount.ok("mkdir -p a/sub p/b; echo 1 > a/same; echo 2 > a/sub/mine; echo 3 > p/b/same");
    mount.ok("chmod 700 a; chmod 600 a/sub/mine; touch -d @1000000000 p/b");
    let before = mount.revision();
    let (one, other) = (mount.path("a"), mount.path("p/b"));
    let number = |path: &std::path::Path| fs::metadata(path).expect("stat").ino();
    let numbers = (number(&one), number(&other));
    renameat2(AT_FDCWD, &one, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE).expect("exchange");
    assert_eq!(mount.revision(), before + 1);
    assert_eq!((number(&other), number(&one)), numbers);
    assert_eq!(
        mount.ok("ls a p/b; cat a/same p/b/same p/b/sub/mine"),
        "a:\nsame\n\np/b:\nsame\nsub\n3\n1\n2"
    );
    assert_eq!(
        mount.ok("stat -c %a p/b p/b/sub/mine a; stat -c %Y a"),
        "700\n600\n755\n1000000000"
    );
    let past = format!("cd @rev/{before}; cat a/same a/sub/mine p/b/same; stat -c %Y p/b");
    assert_eq!(mount.ok(&past), "1\n2\n3\n1000000000");
    mount.ok("echo 4 > a/new; rm p/b/sub/mine");
    assert_eq!(mount.ok("ls a p/b/sub; cat a/new"), "a:\nnew\nsame\n\np/b/sub:\n4");
}

#[test]
fn a_renamed_directory_keeps_its_times() {
    let mount = Mount::up();
    mount.ok("mkdir -p d/s p; touch d/f d/s/g; touch -d @1000000000 d/s");
    let times = "stat -c '%y' D D/s";
    let own = mount.ok(&times.replace('D', "d"));
    let parent = mount.ok("stat -c %y p");
    mount.ok("mv d e; mv e p/e; mkdir q; mv -T p/e q");
    assert_eq!(mount.ok(&times.replace('D', "q")), own);
    assert_eq!(mount.ok("stat -c %Y q/s"), "1000000000");
    assert_ne!(mount.ok("stat -c %y p"), parent);
    mount.ok("touch q/s/new");
    assert_ne!(mount.ok("stat -c %Y q/s"), "1000000000");
}

#[test]
fn a_directory_of_1000_files_is_renamed_in_one_revision() {
    let mount = Mount::up();
    mount.ok("mkdir -p old/sub; cd old; for i in $(seq 1000); do echo $i > sub/$i; done; chmod 600 sub/7");
    let before = mount.revision();
    fs::rename(mount.path("old"), mount.path("new")).expect("rename");
    assert_eq!(mount.revision(), before + 1);
    assert_eq!(
        mount.ok("ls; ls new/sub | wc -l; cat new/sub/777; stat -c %a new/sub/7"),
        concat!("new\n", "1000\n", "777\n", "600")
    );
    let past = format!("ls @rev/{before}; cat @rev/{before}/old/sub/777");
    assert_eq!(mount.ok(&past), "old\n777");
}

#[test]
fn directories_are_made_listed_and_removed() {
    let mount = Mount::up();
    mount.ok("mkdir -p a/b/c; touch a/1 a/2 a/b/3");
    assert_eq!(mount.ok("find . | sort"), ".\n./a\n./a/1\n./a/2\n./a/b\n./a/b/3\n./a/b/c");
    let time = |name: &str| {
        let metadata = fs::metadata(mount.path(name)).expect("stat");
        (metadata.mtime(), metadata.mtime_nsec())
    };
    let before = time("a");
    mount.ok("echo x > a/1; mkdir a/b/d");
    assert_eq!(time("a"), before, "content and names further down do not change a directory");
    mount.ok("touch a/new");
    assert!(time("a") > before, "a new name changes its directory");
    mount.ok("rm -r a");
    assert_eq!(mount.ok("ls -A"), "");
}

#[test]
fn a_listing_survives_deletions_while_it_is_read() {
    let mount = Mount::up();
    mount.ok("mkdir d; cd d; for i in $(seq 2000); do : > $i; done");
    mount.ok("rm -r d");
    assert_eq!(mount.ok("ls"), "");
}

#[test]
fn links_hold_any_target() {
    let mount = Mount::up();
    let long = "t".repeat(4000);
    for (name, target) in [("a", "b"), ("dangling", "no/such"), ("up", "../.."), ("long", &long)] {
        std::os::unix::fs::symlink(target, mount.path(name)).expect("a link");
        let read = fs::read_link(mount.path(name)).expect("its target");
        assert_eq!(read.to_str(), Some(target));
        let metadata = fs::symlink_metadata(mount.path(name)).expect("lstat");
        assert_eq!(metadata.len(), target.len() as u64);
    }
    mount.ok("echo x > b; echo y >> a");
    assert_eq!(mount.ok("cat b; rm a; cat b"), "x\ny\nx\ny");
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    let mount = Mount::up();
    mount.ok("echo x > f; touch -d '2001-02-03 04:05:06.000000007Z' f");
    let metadata = fs::metadata(mount.path("f")).expect("stat");
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (981_173_106, 7));
    mount.ok("touch -d '1969-12-31 23:59:58.5Z' f");
    let metadata = fs::metadata(mount.path("f")).expect("stat");
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (-2, 500_000_000));
}

#[test]
fn a_file_that_was_unlinked_lives_on_for_those_who_hold_it() {
    let mount = Mount::up();
    fs::write(mount.path("f"), "content").expect("a file");
    let mut file = OpenOptions::new().read(true).write(true).open(mount.path("f")).expect("open");
    fs::remove_file(mount.path("f")).expect("unlink");
    fs::write(mount.path("f"), "another").expect("a new file of that name");
    let mut content = String::new();
    file.read_to_string(&mut content).expect("read on");
    assert_eq!(content, "content");
    file.write_all(b" more").expect("write on");
    assert_eq!(file.metadata().expect("fstat").len(), 12);
    drop(file);
    assert_eq!(fs::read_to_string(mount.path("f")).expect("read"), "another");
}

#[test]
fn numbers_are_stable_and_differ() {
    let mount = Mount::up();
    mount.ok("echo x > a; echo y > b; mkdir d");
    let number = |name: &str| fs::symlink_metadata(mount.path(name)).expect("stat").ino();
    let (a, b, d) = (number("a"), number("b"), number("d"));
    assert!(a != b && b != d && a != d);
    mount.ok("mv a d/a; echo more >> d/a");
    assert_eq!(number("d/a"), a, "a rename keeps the number");
    let metadata = fs::metadata(mount.path("d/a")).expect("stat");
    assert_eq!((metadata.nlink(), metadata.blocks()), (1, 1));
    assert_eq!(fs::metadata(mount.path("d")).expect("stat").nlink(), 1);
}

#[test]
fn statfs_tells_of_the_store() {
    let mount = Mount::up();
    let told = statvfs(mount.dir()).expect("statfs");
    assert!(told.blocks() > 0 && told.blocks_available() > 0, "{told:?}");
    assert_eq!(told.name_max(), 255);
    assert!(mount.ok("df -T . | tail -n 1").contains("fuse"));
}

#[test]
fn open_flags_are_obeyed() {
    let mount = Mount::up();
    fs::write(mount.path("f"), "x").expect("a file");
    std::os::unix::fs::symlink("f", mount.path("l")).expect("a link");
    let open = |name: &str, flags| {
        OpenOptions::new().read(true).custom_flags(flags).open(mount.path(name))
    };
    assert_eq!(errno_of(open("f", libc::O_DIRECTORY)), Errno::ENOTDIR);
    assert_eq!(errno_of(open("l", libc::O_NOFOLLOW)), Errno::ELOOP);
    let file = open("f", 0).expect("open");
    assert_eq!(errno_of(file.write_at(b"y", 0)), Errno::EBADF);
}

#[test]
fn holes_are_punched_and_ranges_become_zeros() {
    let mount = Mount::up();
    let path = mount.path("f");
    fs::write(&path, "0123456789").expect("a file");
    let before = mount.revision();
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("open");
    // A dot is a zero.
    let content = || String::from_utf8_lossy(&fs::read(&path).expect("read")).replace('\0', ".");
    assert_eq!(content(), "0123456789", "the kernel has its pages");
    let (keep, hole, zeros) = (
        FallocateFlags::FALLOC_FL_KEEP_SIZE,
        FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE,
        FallocateFlags::FALLOC_FL_ZERO_RANGE,
    );
    for (flags, offset, length, expected) in [
        (hole, 2, 3, "01...56789"),
        (hole, 8, 100, "01...567.."),
        (hole, 50, 10, "01...567.."),
        (keep, 5, 100, "01...567.."),
        (zeros, 6, 1, "01...5.7.."),
        (zeros, 9, 2, "01...5.7..."),
        (FallocateFlags::empty(), 9, 3, "01...5.7...."),
        (zeros | keep, 7, 100, "01...5......"),
    ] {
        fallocate(&file, flags, offset, length).expect("room, a hole, or zeros");
        assert_eq!(content(), expected, "{flags:?} at {offset}, {length} bytes");
    }
    for flags in [FallocateFlags::FALLOC_FL_COLLAPSE_RANGE, FallocateFlags::FALLOC_FL_INSERT_RANGE]
    {
        assert_eq!(fallocate(&file, flags, 0, 4096), Err(Errno::EOPNOTSUPP), "{flags:?}");
    }
    let too_much = 16 * 1024 * 1024 + 1;
    assert_eq!(fallocate(&file, zeros, 0, too_much), Err(Errno::EFBIG));
    fallocate(&file, hole, 0, too_much).expect("a hole makes no file longer");
    drop(file);
    assert_eq!(mount.revision(), before + 1, "one revision");
    assert_eq!(mount.ok("revfs get --raw f | od -An -c -w12 | tr -d ' '"), "\\0".repeat(12));
    let file = OpenOptions::new().write(true).open(&path).expect("open");
    fallocate(&file, hole, 100, 100).expect("beyond the end");
    fallocate(&file, keep, 0, 100).expect("room");
    drop(file);
    assert_eq!(mount.revision(), before + 1, "nothing has changed");
}

#[test]
fn a_file_that_a_user_clears_keeps_no_set_user_bit() {
    tools::need_root("it becomes another user");
    let mount = Mount::up();
    mount.ok("echo x > f; chmod 4777 f");
    let clear = "setpriv --reuid 65534 --regid 65534 --clear-groups \
                 fallocate --punch-hole --offset 0 --length 1 f; stat --cached=never -c %a f";
    assert_eq!(mount.ok(clear), "777");
}

#[test]
fn what_a_new_file_shows_after_its_close_is_what_was_committed() {
    let mount = Mount::up();
    let shown = mount.python(
        "import os\n\
         for i in range(20):\n\
        \x20   os.close(os.open(f'f{i:02}', os.O_CREAT | os.O_WRONLY))\n\
        \x20   s = os.stat(f'f{i:02}')\n\
        \x20   print(s.st_mtime_ns, s.st_ctime_ns)\n",
    );
    let asked = mount.ok("stat --cached=never -c '%.9Y %.9Z' f* | tr -d .");
    assert_eq!(shown, asked);
}

#[test]
fn a_program_that_runs_is_not_written() {
    let mount = Mount::up();
    mount.ok("cp \"$(command -v bash)\" program");
    let program = mount.path("program");
    let running = mount.shell().start("./program -c 'echo runs; sleep 600; true'");
    wait::until_true("running program", wait::LIMIT, || running.stdout().contains("runs"));
    let open = |options: &mut OpenOptions| errno_of(options.open(&program));
    assert_eq!(open(OpenOptions::new().write(true)), Errno::ETXTBSY);
    assert_eq!(open(OpenOptions::new().write(true).truncate(true)), Errno::ETXTBSY);
    assert_eq!(open(OpenOptions::new().append(true)), Errno::ETXTBSY);
    assert_eq!(truncate(&program, 1), Err(Errno::ETXTBSY));
    let emptied = OpenOptions::new().read(true).custom_flags(libc::O_TRUNC).open(&program);
    assert_eq!(errno_of(emptied), Errno::ETXTBSY);
    mount.ok("cmp program \"$(command -v bash)\"");
    drop(running);
    fs::write(&program, "x").expect("it does not run any more");
}

#[test]
fn data_is_sought_and_copied() {
    let mount = Mount::up();
    fs::write(mount.path("f"), "0123456789").expect("a file");
    let file = File::open(mount.path("f")).expect("open");
    assert_eq!(lseek(&file, 3, Whence::SeekData), Ok(3));
    assert_eq!(lseek(&file, 3, Whence::SeekHole), Ok(10), "a value is whole");
    assert_eq!(lseek(&file, 10, Whence::SeekData), Err(Errno::ENXIO));
    let copy = "import os; print(os.copy_file_range(os.open('f', 0), os.open('g', 66), 5, 2, 1))";
    assert_eq!(mount.python(copy), "5");
    assert_eq!(fs::read(mount.path("g")).expect("read"), b"\x0023456");
}

#[test]
fn access_times_are_not_kept() {
    tools::need(&["rsync", "tar"]);
    let mount = Mount::up();
    mount.ok("echo x > f; touch -d 2020-01-01T00:00:00Z f");
    let before = mount.revision();
    assert_eq!(mount.ok("cat f; stat -c '%X %Y' f"), "x\n1577836800 1577836800");
    mount.run("touch -a f").fails_saying("Operation not supported");
    assert_eq!(mount.revision(), before);
    mount.ok("cp -a f copied; rsync -a f synced; mkdir out; tar -c f | tar -x -C out");
    for file in ["f", "copied", "synced", "out/f"] {
        assert_eq!(mount.ok(&format!("stat -c '%X %Y' {file}")), "1577836800 1577836800", "{file}");
    }
}
