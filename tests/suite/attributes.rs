//! Attributes: modes, owners, times, extended attributes; what holds when a key is changed elsewhere.

use std::time::Duration;

use nix::errno::Errno;
use revfs_tests::{Mount, tools, wait};

use crate::posix::errno_of;

const SOON: Duration = Duration::from_secs(10);

/// `fs` may not use the store, so the prefixes stand in both.
#[test]
fn records_and_reservations_lie_where_the_store_asks_for_the_permission_of_their_key() {
    use revfs_fs::{attributes::record_key, path::reservation_key};
    for key in [&b"/app/a"[..], b"/app/", b"x"] {
        assert_eq!(record_key(key), [revfs_store::RECORD_PREFIX, key].concat());
        assert_eq!(reservation_key(key), [revfs_store::RESERVATION_PREFIX, key].concat());
    }
    assert_eq!(revfs_fs::path::in_store_key(), revfs_store::RESERVATION_PREFIX);
}

#[test]
fn attributes_last() {
    tools::need(&["setfattr", "getfattr"]);
    let mut mount = Mount::up();
    mount.ok("echo x > f; chown 123:456 f; chmod 4751 f; setfattr -n user.color -v red f
         touch -d '2001-02-03 04:05:06.123456789Z' f
         mkdir d; chown 7:8 d; chmod 1777 d; setfattr -n user.kind -v dir d; ln -s 'some where' l
         chown -h 9:10 l; touch -h -d @981173106 l");
    let expected = [
        "f 4751 123:456 2001-02-03 04:05:06.123456789 +0000",
        "d 1777 7:8",
        "l 9:10 981173106 'l' -> 'some where'",
        "red dir",
    ];
    let show = "stat -c '%n %a %u:%g %y' f; stat -c '%n %a %u:%g' d; stat -c '%n %u:%g %Y %N' l
        echo $(getfattr -n user.color --only-values f) $(getfattr -n user.kind --only-values d)";
    assert_eq!(mount.ok(show), expected.join("\n"), "at once");
    mount.ok("mv f g; mv g f; mv d e; mv e d; mv l m; mv m l");
    assert_eq!(mount.ok(show), expected.join("\n"), "after renames");
    mount.crash();
    assert_eq!(mount.ok(show), expected.join("\n"), "after a crash");
}

#[test]
fn a_plain_key_has_plain_attributes() {
    let mount = Mount::up();
    mount.ok("revfs put --key /app/color red");
    assert_eq!(
        mount.ok("stat -c '%n %a %u:%g %F' app app/color"),
        concat!("app 755 0:0 directory\n", "app/color 644 0:0 regular file")
    );
    let key_time = mount.ok("stat -c %Y app/color").parse::<i64>().expect("seconds");
    let now = mount.ok("date +%s").parse::<i64>().expect("seconds");
    assert!((now - key_time).abs() < 120, "mtime is the commit time: {key_time}, now {now}");
}

/// A time set by hand holds only for the content it was set on; or make and rsync would miss a change.
#[test]
fn a_put_moves_the_mtime_of_a_file_whose_time_was_set_by_hand() {
    let mount = Mount::up();
    mount.ok("echo x > f; chmod 600 f; touch -d 2020-01-01 f");
    assert_eq!(mount.ok("date -r f +%Y; stat -c %a f"), "2020\n600");
    mount.ok("revfs put f other");
    wait::until_true("a new mtime", SOON, || mount.ok("date -r f +%Y") != "2020");
    assert_eq!(mount.ok("stat -c %a f; cat f"), "600\nother", "the mode holds");
}

#[test]
fn the_attributes_of_a_dead_key_are_not_those_of_the_next_one() {
    let mount = Mount::up();
    mount.ok("echo x > f; chmod 600 f; chown 5:6 f; rm f; echo y > f");
    assert_eq!(mount.ok("stat -c '%a %u:%g' f"), "644 0:0");
    mount.ok("chmod 600 f; revfs del f; revfs put f z");
    wait::until_true("a plain mode", SOON, || mount.ok("stat -c %a f") == "644");
}

#[test]
fn user_attributes_are_kept_listed_and_removed() {
    tools::need(&["setfattr", "getfattr"]);
    let mount = Mount::up();
    mount.ok("echo x > f; setfattr -n user.a -v 1 f; setfattr -n user.b -v 0x00ff0a f");
    assert_eq!(mount.ok("getfattr -d -e hex f | grep user"), "user.a=0x31\nuser.b=0x00ff0a");
    mount.ok("setfattr -x user.a f");
    assert_eq!(mount.ok("getfattr f | grep user"), "user.b");
    mount.run("getfattr -n user.a f").fails_saying("No such attribute");
    mount.run("setfattr -x user.a f").fails_saying("No such attribute");
    let python = "import os
os.setxattr('f', 'user.c', b'1', os.XATTR_CREATE)
for flags, name in ((os.XATTR_CREATE, 'user.c'), (os.XATTR_REPLACE, 'user.d')):
    try:
        os.setxattr('f', name, b'2', flags)
        print('set', name)
    except OSError as error:
        print(error.errno)
print(os.getxattr('f', 'user.c'))";
    let (exists, absent) = (Errno::EEXIST as i32, Errno::ENODATA as i32);
    assert_eq!(mount.python(python), format!("{exists}\n{absent}\nb'1'"));
}

/// They are answered by name and never listed: copies must not carry them along.
#[test]
fn the_attributes_of_revfs_are_answered_by_name_and_never_listed() {
    tools::need(&["setfattr", "getfattr"]);
    let mount = Mount::up();
    mount.ok("echo x > f; echo y > f");
    let get = |name: &str| mount.ok(&format!("getfattr -n user.revfs.{name} --only-values f"));
    let revision = mount.revision();
    assert_eq!(get("key"), "/f");
    assert_eq!(get("mod_revision"), revision.to_string());
    assert_eq!(get("create_revision"), (revision - 1).to_string());
    assert_eq!(get("version"), "2");
    mount.run("getfattr -n user.revfs.lease f").fails_saying("No such attribute");
    assert!(get("time").starts_with("20"), "RFC 3339: {}", get("time"));
    assert!(get("author").contains('@'), "user@host: {}", get("author"));
    assert_eq!(mount.ok("getfattr -d -m - f"), "", "never listed");
    for name in ["key", "version", "other"] {
        mount
            .run(&format!("setfattr -n user.revfs.{name} -v 1 f"))
            .fails_saying("Operation not permitted");
    }
}

#[test]
fn hard_links_are_refused() {
    let mount = Mount::up();
    mount.ok("echo x > f");
    let link = std::fs::hard_link(mount.path("f"), mount.path("g"));
    assert_eq!(errno_of(link), Errno::EPERM);
    assert_eq!(mount.ok("ls"), "f", "nothing pretends to have succeeded");
}

#[test]
fn fifos_sockets_and_devices_are_kept_with_their_attributes() {
    let mut mount = Mount::up();
    let before = mount.revision();
    mount.ok("mkfifo -m 640 p; mknod c c 1 3; mknod b b 7 300");
    assert_eq!(mount.revision(), before + 3, "one revision each");
    mount.python("import socket; socket.socket(socket.AF_UNIX).bind('s')");
    let look = "stat -c '%n %F %a %t %T %s' b c p s";
    let expected = "b block special file 644 7 12c 0\nc character special file 644 1 3 0\n\
                    p fifo 640 0 0 0\ns socket 755 0 0 0";
    assert_eq!(mount.ok(look), expected);
    assert_eq!(
        mount.ok("find . -mindepth 1 -printf '%y%f ' | tr ' ' '\\n' | sort | xargs"),
        "bb cc pp ss"
    );
    assert_eq!(mount.ok("timeout 60 cat p & echo through > p; wait"), "through");
    mount.run("cat c").fails_saying("Permission denied");
    mount.ok("chmod 600 p; mv p q; cp -a q r; chown 12 r");
    assert_eq!(mount.ok("stat -c '%n %F %a %u' q r"), "q fifo 600 0\nr fifo 600 12");
    let then = mount.revision();
    mount.ok("rm q; echo x > q");
    assert_eq!(mount.ok(&format!("stat -c %F @rev/{then}/q q; cat q")), "fifo\nregular file\nx");
    mount.kill();
    mount.start();
    assert_eq!(mount.ok("stat -c '%F %t %T' c r"), "character special file 1 3\nfifo 0 0");
}

#[test]
fn a_new_file_takes_the_group_of_a_directory_with_the_setgid_bit() {
    let mount = Mount::up();
    mount.ok("mkdir d; chown :77 d; chmod 2775 d; echo x > d/f; mkdir d/e");
    assert_eq!(mount.ok("stat -c %g d/f; stat -c '%g %a' d/e"), "77\n77 2755");
}

#[test]
fn writing_clears_the_set_id_bits_of_others() {
    tools::need(&["setpriv"]);
    let mount = Mount::up();
    mount.ok("chmod 777 .; echo x > f; chmod 6777 f");
    let line = "setpriv --reuid=65534 --regid=65534 --clear-groups bash -c 'echo y >> f'";
    mount.ok(line);
    assert_eq!(mount.ok("stat -c %a f"), "777");
}

#[test]
fn permissions_hold() {
    tools::need(&["setpriv"]);
    let mount = Mount::up();
    mount.ok("chmod 755 .; echo secret > f; chmod 600 f; mkdir d; echo x > d/g; chmod 700 d");
    let as_other = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    mount.run(&format!("{as_other} cat f")).fails_saying("Permission denied");
    mount.run(&format!("{as_other} cat d/g")).fails_saying("Permission denied");
    mount.run(&format!("{as_other} touch new")).fails_saying("Permission denied");
    mount.run(&format!("{as_other} chmod 777 f")).fails_saying("not permitted");
    assert_eq!(mount.ok("cat f"), "secret");
}
