//! `@txn/NAME` and `revfs txn DIR -- CMD`: several files changed at once, by programs that know nothing of it.

use std::time::Duration;

use nix::sys::signal::Signal;
use revfs_tests::dice::Dice;
use revfs_tests::etcd::free_address;
use revfs_tests::{Etcd, Mount, Shell, tools, wait};
use serde_json::Value;

use crate::two_mounts::TwoMounts;

/// What programs do to a tree. They find it in the current directory.
const EDITS: &str = "set -e
    sed -i s/root/ROOT/ etc/passwd
    cp -a etc copy; cp copy/passwd copy/more; touch -d 2020-02-02T02:02:02Z copy/more; chmod 600 copy/more
    mv etc/group etc/gone; ln -s ../etc/passwd copy/link; rm -r copy/nested
    mkdir -p a/b/c; echo 1 > a/b/c/one; mv a z; mv z/b z/d; rmdir etc/empty
    sort -r copy/passwd > copy/sorted && mv copy/sorted copy/passwd
    echo line >> etc/log; (flock 9; echo locked >&9) 9> lock; mkdir out; tar -C etc -c nested | tar -C out -x; rsync -a etc/ synced";

const TREE: &str =
    "mkdir -p etc/nested/deep etc/empty; cp /etc/passwd /etc/group etc; echo x > etc/log
    for i in $(seq 20); do echo $i > etc/nested/deep/$i; done; chmod 640 etc/nested/deep/7
    touch -d 2019-09-09T09:09:09Z etc/nested/deep/8";

fn status(shell: &Shell, name: &str) -> Value {
    let text = shell.run(&format!("cat @txn/{name}/@status")).ok();
    serde_json::from_str(&text).expect("it is JSON")
}

#[test]
fn programs_work_in_a_transaction_and_nobody_sees_it_until_it_is_one_revision() {
    tools::need(&["sed", "cp", "diff", "rsync", "tar", "git", "flock", "python3"]);
    tools::need_root("it keeps owners");
    let mount = Mount::up();
    mount.ok(TREE);
    mount.ok("cp -a . $SCRATCH/same; cp -a . $SCRATCH/before");
    mount.ok(&format!("cd $SCRATCH/same; {EDITS}"));
    let revision = mount.revision();
    mount.ok("mkdir @txn/t; stat -c '%a %U' @txn/t | grep -x '700 root'; ls @txn | grep -x t");
    mount.ok(&format!("cd @txn/t; {EDITS}"));
    mount.ok("diff -r --no-dereference $SCRATCH/same @txn/t");
    mount.ok("diff -r --no-dereference $SCRATCH/before .; ! ls copy 2> /dev/null");
    assert_eq!(mount.revision(), revision);
    let renamed = "python3 -c 'import os; os.rename(\"@txn/t/lock\", \"lock2\")'";
    mount.run(renamed).fails_saying("Invalid cross-device link");
    mount.ok(
        "cd @txn/t; git init -q repo; cd repo; cp -r ../etc .; git add -A; git commit -qm one; git gc -q
         git fsck --strict; test -z \"$(git status --porcelain)\"",
    );
    mount.ok("touch @txn/t/@commit; touch @txn/t/@commit");
    assert_eq!(mount.revision(), revision + 1, "{}", status(&mount.shell(), "t"));
    // In the very next moment, whatever the kernel had cached.
    mount
        .ok("cd repo; git fsck --strict; git log --oneline | wc -l | grep -x 1; cd ..; rm -r repo");
    mount.ok("diff -r --no-dereference $SCRATCH/same .");
    mount.ok("rmdir @txn/t; ls @txn | wc -l | grep -x 0");
    let times = "find . -type f ! -newermt 2021-01-01 -printf '%P %m %T@ %s\\n' | sort";
    assert_eq!(mount.ok(times), mount.ok(&format!("cd $SCRATCH/same; {times}")));
    let modes = "find . -mindepth 1 -printf '%P %y %m %U %G %l\\n' | sort";
    assert_eq!(mount.ok(modes), mount.ok(&format!("cd $SCRATCH/same; {modes}")));
    mount.ok(&format!("diff -r --no-dereference $SCRATCH/before @rev/{revision}"));
}

#[test]
fn of_two_transactions_the_first_to_commit_wins_and_the_other_is_told_the_names() {
    let mount = Mount::up();
    mount.ok("mkdir app; echo 8 > app/limits; echo x > app/other");
    mount.ok("mkdir @txn/one @txn/two; cat app/limits app/other");
    mount.ok("sed -i s/8/16/ @txn/one/app/limits");
    mount.ok("cat @txn/two/app/limits; echo 1 > @txn/two/new");
    let revision = mount.revision();
    mount.ok("touch @txn/one/@commit; cat app/limits | grep -x 16");
    for _ in 0..2 {
        mount.run("touch @txn/two/@commit").fails_saying("Stale file handle");
        mount.run(": > @txn/two/@commit").fails_saying("Stale file handle");
    }
    let told = status(&mount.shell(), "two");
    assert_eq!(
        (&told["state"], &told["conflicts"]),
        (&"conflict".into(), &vec!["app/limits"].into())
    );
    mount.ok("! cat new 2> /dev/null; rmdir @txn/two; mkdir @txn/two; cat @txn/two/app/limits | grep -x 16");
    assert_eq!(mount.revision(), revision + 1);
    // What one has open when it is dropped is nobody's.
    mount.ok("exec 5< @txn/two/app/limits; rmdir @txn/two; ! cat <&5 2> /dev/null; cat app/limits | grep -x 16");
}

#[test]
fn a_command_in_a_transaction_is_committed_if_it_succeeds() {
    let mount = Mount::up();
    mount.ok("mkdir app; echo 8 > app/limits; cat app/limits");
    let revision = mount.revision();
    mount.ok(
        "revfs txn app -- sh -c 'echo 16 > limits; mv limits max; echo 1 > \"$REVFS_TXN/top\"'",
    );
    assert_eq!(mount.revision(), revision + 1);
    mount.ok("cat app/max top | xargs | grep -x '16 1'");
    // What fails has not happened.
    assert_eq!(mount.run("revfs txn . -- sh -c 'rm -r app; exit 7'").code(), Some(7));
    let told = "revfs txn . -- sh -c 'cat top; echo 2 > other; echo 3 > ../../top'";
    let refused = mount.run(told).fails_saying("nothing was committed: top changed");
    assert!(refused.contains("--retry"), "{refused}");
    assert_eq!(mount.run(told).code(), Some(3));
    assert_eq!(mount.revision(), revision + 3, "only what was written beside it");
    let once = "[ -e $SCRATCH/once ] || { : > $SCRATCH/once; echo 4 > ../../top; }; cat top > $SCRATCH/read; echo 5 > other";
    let json = mount.ok(&format!("revfs txn --json --retry 1 . -- sh -c '{once}'"));
    assert_eq!(json, format!("{{\"attempts\":2,\"revision\":{}}}", revision + 5));
    mount.run("revfs txn $SCRATCH -- true").fails_saying("no directory of a mount");
    mount.run("revfs txn . -- /no/such/program").fails_saying("cannot run");
    mount.ok("cat other | grep -x 5; test -z \"$(ls @txn)\"");
}

#[test]
fn a_killed_revfs_txn_leaves_no_transaction() {
    let mount = Mount::up();
    mount.ok("mkdir app; echo 8 > app/limits");
    let before = mount.revision();
    mount.ok("mkfifo $SCRATCH/never");
    let line = "exec revfs txn app -- sh -c 'echo 16 > limits; exec cat < $SCRATCH/never'";
    let running = mount.shell().start(line);
    wait::until_true("a command in its transaction", wait::LIMIT, || {
        mount.ok("cat @txn/*/app/limits 2> /dev/null || :") == "16"
    });
    running.signal(Signal::SIGKILL);
    wait::until_true("the transaction is gone", wait::LIMIT, || mount.ok("ls @txn").is_empty());
    // What it ran is still there, and ends.
    mount.ok(": <> $SCRATCH/never");
    drop(running.finish(wait::LIMIT));
    assert_eq!((mount.ok("cat app/limits"), mount.revision()), ("8".to_owned(), before));
    // From a shell: the lock of its `@commit` keeps it, and the end of the shell ends it.
    mount.ok("mkdir @txn/mine; exec 9< @txn/mine/@commit; flock 9; echo 32 > @txn/mine/app/limits; ls @txn");
    wait::until_true("the transaction is gone", wait::LIMIT, || mount.ok("ls @txn").is_empty());
    mount.ok("mkdir @txn/kept; cat @txn/kept/@commit; rmdir @txn/kept");
}

#[test]
fn what_is_counted_in_transactions_on_two_mounts_is_counted_right() {
    let two = TwoMounts::up();
    two.first().run("echo 0 > n").ok();
    let count = "for i in $(seq 8); do
            revfs txn . --retry 1000 -- sh -c 'echo $(( $(cat n) + 1 )) > n' || exit 1; done";
    let counting = [two.first(), two.second(), two.second()].map(|shell| shell.start(count));
    for running in counting {
        running.finish(wait::LIMIT * 4).ok();
    }
    wait::until_true("all that was counted", wait::LIMIT, || {
        [two.first(), two.second()].iter().all(|shell| shell.run("cat n").ok() == "24")
    });
    two.down();
}

/// Makes files in a transaction.
fn many(count: usize) -> String {
    format!(
        "mkdir @txn/t/many && python3 -c '
import os
for i in range({count}):
    with open(f\"@txn/t/many/{{i}}\", \"w\") as file:
        file.write(str(i))
'"
    )
}

#[test]
fn five_thousand_files_are_one_commit() {
    tools::need(&["python3"]);
    let address = free_address();
    let node = Mount::up_with(|place| {
        place.arguments = vec!["--listen".to_owned(), address.clone()];
    });
    node.ok("mkdir @txn/t");
    node.ok(&many(5_000));
    let revision = node.revision();
    node.ok("touch @txn/t/@commit");
    assert_eq!(node.revision(), revision + 1);
    node.ok("ls many | wc -l | grep -x 5000; cat many/4999 | grep -x 4999; rmdir @txn/t");
    // As a client of the same node.
    let mount = Mount::of(&format!("http://{address}"), &[]);
    mount.ok("mkdir @txn/t; mv @txn/t/many @txn/t/moved");
    mount.ok(&many(200));
    let revision = mount.revision();
    mount.ok("touch @txn/t/@commit; ls many | wc -l | grep -x 200; cat moved/4999 | grep -x 4999");
    assert_eq!(mount.revision(), revision + 1);
}

#[test]
fn a_real_etcd_takes_a_transaction_within_its_limits() {
    tools::need(&["python3"]);
    let etcd = Etcd::start();
    let mount = Mount::of(&etcd.endpoint(), &["--read-write", "--markers", "--attributes"]);
    mount.ok("mkdir app; echo 1 > app/a; echo 2 > app/b");
    let revision = mount.revision();
    mount.ok("revfs txn app -- sh -c 'sed -i s/1/I/ a; mv b c; chmod 600 c'");
    assert_eq!(mount.revision(), revision + 1);
    mount.ok("cat app/a app/c | xargs | grep -x 'I 2'; stat -c %a app/c | grep -x 600");
    mount.ok("mkdir @txn/t");
    mount.ok(&many(150));
    mount.run("touch @txn/t/@commit").fails_saying("Argument list too long");
    let told = status(&mount.shell(), "t");
    let error = told["error"].as_str().expect("a reason");
    assert!(error.contains("over the bound of 128"), "{told}");
    assert_eq!(told["state"], "open");
    mount.ok("rm -r @txn/t/many; rmdir @txn/t; ! ls many 2> /dev/null");
}

#[test]
fn a_commit_that_is_killed_has_happened_or_not() {
    tools::need(&["python3"]);
    let mut dice = Dice::new("a_commit_that_is_killed_has_happened_or_not");
    let mut mount = Mount::up();
    let mut happened = 0;
    for round in 0..6 {
        mount.ok("rm -rf many; mkdir @txn/t");
        mount.ok(&many(150));
        let committing = mount.shell().start("touch @txn/t/@commit; echo $?");
        // A moment that the commit is not in step with.
        wait::ask(Duration::from_micros(dice.below(60_000)), || None::<()>);
        mount.kill();
        let acknowledged = committing.finish(wait::LIMIT).ok() == "0";
        mount.start();
        let count = mount.ok("ls many 2> /dev/null | wc -l");
        assert!(count == "150" || (count == "0" && !acknowledged), "round {round}: {count}");
        happened += usize::from(count == "150");
        assert_eq!(mount.ok("ls @txn"), "", "it was in the memory of the node");
    }
    println!("{happened} of 6 happened");
}
