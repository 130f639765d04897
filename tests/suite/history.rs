//! Time travel: `@rev`, `@time` and `@history` show exactly what was, and nothing that was not.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use nix::errno::Errno;
use revfs_tests::{Api, Mount, wait};

use crate::posix::errno_of;

/// Runs lines and returns the revision after each.
fn revisions(mount: &Mount, lines: &[&str]) -> Vec<u64> {
    lines
        .iter()
        .map(|line| {
            mount.ok(line);
            mount.revision()
        })
        .collect()
}

#[test]
fn every_revision_shows_the_tree_as_it_was() {
    let mount = Mount::up();
    let at = revisions(
        &mount,
        &[
            "mkdir -p app/conf",
            "echo limit=8 > app/conf/limits",
            "echo limit=16 > app/conf/limits; ln -s limits app/conf/l",
            "rm app/conf/limits",
            "rm -r app",
        ],
    );
    assert_eq!(mount.ok(&format!("ls app/@rev/{} 2>&1 || true", at[0])).lines().count(), 1);
    assert_eq!(
        mount.ok(&format!("ls -R @rev/{}", at[0])),
        format!("@rev/{0}:\napp\n\n@rev/{0}/app:\nconf\n\n@rev/{0}/app/conf:", at[0])
    );
    assert_eq!(mount.ok(&format!("cat @rev/{}/app/conf/limits", at[1])), "limit=8");
    assert_eq!(mount.ok(&format!("cat @rev/{}/app/conf/l", at[2])), "limit=16");
    assert_eq!(mount.ok(&format!("ls @rev/{}/app/conf", at[3])), "l");
    assert_eq!(mount.ok(&format!("ls @rev/{}", at[4])), "");
}

#[test]
fn a_file_is_copied_back_from_the_past() {
    let mount = Mount::up();
    mount.ok("mkdir app; echo limit=8 > app/limits");
    let then = mount.revision();
    mount.ok("echo limit=16 > app/limits");
    mount.ok(&format!("cp app/@rev/{then}/limits app/limits"));
    assert_eq!(mount.ok("cat app/limits"), "limit=8");
    mount.ok(&format!("echo 9 > app/limits; cp -a app/@rev/{then}/limits app/; cat app/limits"));
    assert_eq!(mount.ok(&format!("diff -r app/@rev/{then} app && echo same")), "same");
}

#[test]
fn the_revisions_of_a_directory_are_listed_newest_first() {
    let mount = Mount::up();
    let at = revisions(
        &mount,
        &[
            "mkdir a b",
            "echo 1 > a/f",
            "echo x > b/other",
            "echo 2 > a/f",
            "mkdir a/sub; echo 3 > a/sub/deep",
        ],
    );
    let listed = mount.ok("ls -t a/@rev");
    let listed: Vec<u64> = listed.lines().map(|line| line.parse().expect("a number")).collect();
    assert!(listed.is_sorted_by(|newer, older| newer > older), "{listed:?}");
    assert!(listed.contains(&at[1]) && listed.contains(&at[3]), "{listed:?} of {at:?}");
    assert!(listed.contains(&at[4]), "changes further down count: {listed:?} of {at:?}");
    assert!(!listed.contains(&at[2]), "b does not touch a: {listed:?} of {at:?}");
    assert_eq!(mount.ok("cat a/@rev/*/f | sort -u"), "1\n2", "globs work");
}

#[test]
fn what_was_not_there_is_enoent() {
    let mount = Mount::up();
    mount.ok("echo x > early");
    let early = mount.revision();
    mount.ok("mkdir late; echo y > late/f");
    let open = |path: String| errno_of(fs::read(mount.path(&path)));
    assert_eq!(open(format!("@rev/{early}/late/f")), Errno::ENOENT);
    assert_eq!(open(format!("late/@rev/{early}/f")), Errno::ENOENT, "absent then");
    let future = mount.revision() + 1_000;
    assert_eq!(open(format!("@rev/{future}/early")), Errno::ENOENT, "the future");
    assert_eq!(open("@rev/nonsense/early".to_owned()), Errno::ENOENT);
    assert_eq!(open("@rev/0/early".to_owned()), Errno::ENOENT);
    assert_eq!(open("@time/2100-01-01/early".to_owned()), Errno::ENOENT, "the future");
    let soon = format!("@rev/{}/early", mount.revision() + 1);
    assert_eq!(open(soon.clone()), Errno::ENOENT);
    mount.ok("echo more >> early");
    let read = fs::read_to_string(mount.path(&soon)).expect("the kernel kept no negative answer");
    assert_eq!(read, "x\nmore\n");
}

#[test]
fn a_deleted_directory_is_reached_through_its_parent() {
    let mount = Mount::up();
    mount.ok("mkdir -p a/gone; echo x > a/gone/f");
    let then = mount.revision();
    mount.ok("rm -r a/gone");
    assert_eq!(mount.ok(&format!("cat a/@rev/{then}/gone/f")), "x");
    assert_eq!(errno_of(fs::read_dir(mount.path(&format!("a/gone/@rev/{then}")))), Errno::ENOENT);
}

#[test]
fn the_past_cannot_be_written() {
    let mount = Mount::up();
    mount.ok("mkdir d; echo x > d/f");
    let past = mount.path(&format!("@rev/{}/d", mount.revision()));
    assert_eq!(errno_of(fs::write(past.join("f"), "y")), Errno::EROFS);
    assert_eq!(errno_of(fs::write(past.join("new"), "y")), Errno::EROFS);
    assert_eq!(errno_of(fs::remove_file(past.join("f"))), Errno::EROFS);
    assert_eq!(errno_of(fs::create_dir(past.join("e"))), Errno::EROFS);
    assert_eq!(errno_of(fs::set_permissions(past.join("f"), mode(0o777))), Errno::EROFS);
    let moved = fs::rename(past.join("f"), mount.path("f"));
    assert_eq!(errno_of(moved), Errno::EXDEV);
    assert_eq!(mount.ok("cat d/f"), "x");
}

fn mode(bits: u32) -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(bits)
}

/// What is 0600 today must not be read at 0644 in the past.
#[test]
fn the_past_shows_no_more_than_today_allows() {
    let mount = Mount::up();
    mount.ok("echo secret > f; chmod 644 f; echo gone > g; chmod 644 g; chown 11:12 g");
    let then = mount.revision();
    mount.ok("chmod 600 f; chown 21:22 f; rm g");
    let shown = mount.ok(&format!("cd @rev/{then}; stat -c '%n %a %u:%g' f g"));
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], "f 600 21:22", "now's owner, the AND of both modes");
    assert!(lines[1].starts_with("g 6") && lines[1].ends_with(" 11:12"), "{shown}");
    let other = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    mount.run(&format!("{other} cat @rev/{then}/f")).fails_saying("Permission denied");
    mount.run(&format!("{other} cat @rev/{then}/g")).fails_saying("Permission denied");
}

#[test]
fn history_has_a_file_for_each_version_and_names_deletions() {
    let mount = Mount::up();
    let at = revisions(&mount, &["echo 1 > f", "echo 2 > f", "rm f", "echo 3 > f"]);
    let expected =
        [at[0].to_string(), at[1].to_string(), format!("{}.deleted", at[2]), at[3].to_string()];
    assert_eq!(mount.versions("f"), expected);
    let cat = format!("cd @history/f; cat {} {} {}", at[0], at[1], at[3]);
    assert_eq!(mount.ok(&cat), "1\n2\n3");
    let time = |path: String| fs::metadata(mount.path(&path)).expect("stat").mtime();
    assert!(time(format!("@history/f/{}", at[0])) <= time(format!("@history/f/{}", at[3])));
    assert_eq!(time(format!("@history/f/{}", at[3])), time("f".to_owned()), "the commit time");
    assert_eq!(errno_of(fs::read(mount.path("@history/f/1"))), Errno::ENOENT);
    mount.ok("rm f");
    assert_eq!(mount.versions("f").len(), 5, "the history of what is gone is still there");
}

#[test]
fn history_follows_files_in_directories() {
    let mount = Mount::up();
    mount.ok("mkdir -p a/b; echo 1 > a/b/f; echo 2 > a/b/f");
    assert_eq!(mount.versions("a/b/f").len(), 2);
    assert_eq!(mount.ok("cat a/b/@history/f/*"), "1\n2");
}

#[test]
fn times_lead_to_the_revision_that_was_current() {
    let mount = Mount::up();
    mount.ok("echo 1 > f");
    let then = mount.revision();
    let time = mount.ok("getfattr -n user.revfs.time --only-values f");
    mount.ok("echo 2 > f");
    assert_eq!(mount.ok(&format!("readlink @time/{time}")), format!("../@rev/{then}"));
    assert_eq!(mount.ok(&format!("cat @time/{time}/f")), "1");
    assert_eq!(mount.ok("cat @time/-0s/f"), "2");
    mount.ok("mkdir d; echo x > d/g; cat d/@time/-0s/g; find d/@time/-0s/ -type f | grep -q g");
}

#[test]
fn a_time_before_the_first_revision_is_estale() {
    let mount = Mount::up();
    mount.ok("echo 1 > f");
    for time in ["1999-01-01", "1999-01-01T00:00:00Z", "-30d"] {
        let read = fs::read(mount.path(&format!("@time/{time}/f")));
        assert_eq!(errno_of(read), Errno::ESTALE, "{time}");
    }
    for nonsense in ["yesterday-ish", "-1x", "12"] {
        let read = fs::read(mount.path(&format!("@time/{nonsense}/f")));
        assert_eq!(errno_of(read), Errno::ENOENT, "{nonsense}");
    }
}

/// Equal content in two revisions is one inode, and never that of the living file.
#[test]
fn numbers_of_the_past_are_its_own() {
    let mount = Mount::up();
    mount.ok("mkdir d; echo x > d/f");
    let first = mount.revision();
    mount.ok("echo y > d/g");
    let second = mount.revision();
    let number = |path: String| fs::metadata(mount.path(&path)).expect("stat").ino();
    let past = number(format!("@rev/{first}/d/f"));
    assert_eq!(past, number(format!("@rev/{second}/d/f")));
    assert_ne!(past, number("d/f".to_owned()));
    assert_ne!(number(format!("@rev/{first}/d")), number(format!("@rev/{second}/d")));
}

#[test]
fn the_past_shows_modes_times_and_targets_as_they_were() {
    let mount = Mount::up();
    mount.ok("echo x > f; chmod 640 f; touch -d @1000000000 f; ln -s one l; mkdir d; chmod 750 d");
    let then = mount.revision();
    mount.ok("echo longer > f; ln -sfn two l");
    let line = format!("cd @rev/{then}; stat -c '%n %a %s %Y' f; readlink l; stat -c %a d");
    assert_eq!(mount.ok(&line), "f 640 2 1000000000\none\n750");
}

#[test]
fn the_past_survives_renames_and_crashes() {
    let mut mount = Mount::up();
    mount.ok("mkdir a; echo 1 > a/f");
    let then = mount.revision();
    mount.ok("mv a b; echo 2 > b/f; mv b/f b/g");
    let line = format!("cat @rev/{then}/a/f; ls @rev/{then}; cat b/g");
    assert_eq!(mount.ok(&line), "1\na\n2");
    mount.crash();
    assert_eq!(mount.ok(&line), "1\na\n2");
}

/// Never wrong data: what was compacted is refused, what was kept is as it was.
#[test]
fn a_compacted_revision_is_estale() {
    let mut mount = Mount::up();
    let at = revisions(&mount, &["mkdir d; echo 1 > d/f", "echo 2 > d/f", "echo 3 > d/f; rm d/f"]);
    let read = |mount: &Mount, revision: u64, name: &str| {
        fs::read_to_string(mount.path(&format!("@rev/{revision}/d/{name}")))
    };
    assert_eq!(read(&mount, at[0], "f").expect("not compacted yet"), "1\n");
    Api::new(&mount).compact(at[1], true).expect("it compacts");
    wait::until_true("the kernel's cache without the compacted revision", wait::LIMIT, || {
        read(&mount, at[0], "f").is_err()
    });
    for state in ["at once", "after a crash"] {
        assert_eq!(errno_of(read(&mount, at[0], "f")), Errno::ESTALE, "{state}");
        assert_eq!(errno_of(read(&mount, at[0], "none")), Errno::ESTALE, "{state}");
        let listing = fs::read_dir(mount.path(&format!("@rev/{}", at[0])));
        assert_eq!(errno_of(listing), Errno::ESTALE, "{state}");
        assert_eq!(read(&mount, at[1], "f").expect("kept"), "2\n", "{state}");
        let listed = mount.ok("ls d/@rev");
        let oldest = listed.lines().filter_map(|line| line.parse::<u64>().ok()).min();
        assert!(oldest >= Some(at[1]), "{state}: {listed}");
        assert_eq!(mount.versions("d/f")[0], at[1].to_string(), "{state}");
        mount.run(&format!("revfs get --rev {} d/f", at[0])).fails_saying("compact");
        mount.crash();
    }
    assert_eq!(mount.status()["compacted_revision"].as_u64(), Some(at[1]));
}

/// A timer may forget what is forgotten already: that is as it was asked for.
#[test]
fn forgetting_what_is_forgotten_already_is_no_error() {
    let mount = Mount::up();
    let at = revisions(&mount, &["echo 1 > f", "echo 2 > f", "echo 3 > f"]);
    let (newer, older) = (at[1], at[0]);
    let begins = format!("history begins at revision {newer}");
    assert_eq!(mount.ok(&format!("revfs compact {newer}")), begins);
    assert_eq!(mount.ok(&format!("revfs compact {newer}")), format!("{begins} already"));
    assert_eq!(mount.ok("revfs compact @-7d"), format!("{begins} already"));
    let said = mount.ok(&format!("revfs --json compact {newer}"));
    assert_eq!(said, format!("{{\"compacted_revision\":{newer}}}"));
    // What was asked for by number, and cannot be, is told.
    mount.run(&format!("revfs compact {older}")).fails_saying("is compacted");
    assert_eq!(mount.status()["compacted_revision"].as_u64(), Some(newer));
}
