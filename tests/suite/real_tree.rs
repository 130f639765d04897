//! Real input: this machine's /etc and documentation, copied, edited, half deleted, crashed, and found
//! again as it was.

use std::path::Path;

use revfs_tests::tree::{as_past, assert_allows_no_more, assert_equal, copy_real_tree, list};
use revfs_tests::{Mount, Shell, tools};

/// Copies the tree in, changes it, and proves the copy in the past, before and after a crash.
fn travel(copy: &str) {
    tools::need(&["cp", "rsync", "diff", "sed", "ed", "patch", "git"]);
    tools::need_root("it keeps owners");
    let mut mount = Mount::up();
    let original = mount.beside("original");
    let made = copy_real_tree(&original);
    println!("{} entries; {} left out by their type or size", made.entries, made.left_out);
    mount.ok(copy);
    let then = mount.revision();
    prove(&mount, &original, &mount.path("tree"), "the copy");
    mount.ok("sync -f tree; du -s tree > /dev/null");
    edit(&mount);
    let edited = mount.beside("edited");
    mount.ok("cp -a tree $SCRATCH/edited");
    let now = mount.revision();
    let past = mount.path(&format!("@rev/{then}/tree"));
    prove_past(&mount, &original, &past, "the past");
    mount.crash();
    assert_eq!(mount.revision(), now, "nothing was lost");
    let past = mount.path(&format!("@rev/{then}/tree"));
    prove_past(&mount, &original, &past, "the past after SIGKILL");
    prove(&mount, &edited, &mount.path("tree"), "the present after SIGKILL");
    mount.ok("cd tree/repo && git fsck --strict && git status --porcelain && git log --oneline");
    mount.stop();
    mount.start();
    let past = mount.path(&format!("@rev/{then}/tree"));
    prove_past(&mount, &original, &past, "the past after a stop");
}

/// Same content, types, modes, owners, times and link targets.
fn prove(mount: &Mount, expected: &Path, found: &Path, what: &str) {
    prove_content(mount, expected, found, what);
    assert_equal(what, &list(expected), &list(found));
}

/// The same, as far as today's modes allow the past to be shown.
fn prove_past(mount: &Mount, expected: &Path, found: &Path, what: &str) {
    prove_content(mount, expected, found, what);
    let (expected, found) = (list(expected), list(found));
    assert_allows_no_more(what, &expected, &found);
    assert_equal(what, &as_past(expected), &as_past(found));
}

fn prove_content(mount: &Mount, expected: &Path, found: &Path, what: &str) {
    let line =
        format!("diff -r --no-dereference {} {} | head -50", expected.display(), found.display());
    let differences = Shell::new(Path::new("/")).run(&line).ok();
    assert_eq!(differences, "", "{what}: {}", mount.log());
}

fn edit(mount: &Mount) {
    mount.ok("sed -i 's/root/ROOT/' tree/etc/passwd; grep -q ^ROOT tree/etc/passwd");
    mount.ok("cd tree/etc; sort -r group > group.new && mv group.new group");
    mount.ok("cd tree/etc; printf '1i\\nfirst line\\n.\\nw\\nq\\n' | ed -s hosts; head -n 1 hosts");
    mount.ok("cd tree/etc; cp shells $SCRATCH/shells; echo /bin/new >> $SCRATCH/shells
         diff -u shells $SCRATCH/shells > $SCRATCH/patch || true
         patch -p0 shells < $SCRATCH/patch; cmp shells $SCRATCH/shells");
    mount.ok("cd tree; mkdir repo; cp -r etc/default repo/; cd repo; git init -q
         git add -A; git commit -qm first; echo more > new; git add -A; git commit -qm second
         git checkout -q HEAD~1; git checkout -q -; git gc -q; git fsck --strict
         test $(git rev-list --count HEAD) = 2; test -z \"$(git status --porcelain)\"");
    mount.ok("cd tree; mv etc/default etc/moved; rm -r etc/moved/; mv usr/share/doc papers");
    let before: u64 = count(mount);
    mount.ok("cd tree/papers; ls | awk 'NR % 2' | xargs -d '\\n' rm -r");
    mount.ok("cd tree/etc; ls | awk 'NR % 2' | xargs -d '\\n' rm -r");
    let after = count(mount);
    assert!(after < before * 4 / 5, "{before} entries became {after}");
}

fn count(mount: &Mount) -> u64 {
    mount.ok("find tree | wc -l").parse().expect("a number")
}

#[test]
fn a_real_tree_copied_with_cp_is_found_again_in_the_past() {
    travel("cp -a $SCRATCH/original tree");
}

#[test]
fn a_real_tree_copied_with_rsync_is_found_again_in_the_past() {
    travel("rsync -a $SCRATCH/original/ tree/; test -z \"$(rsync -ain $SCRATCH/original/ tree/)\"");
}
