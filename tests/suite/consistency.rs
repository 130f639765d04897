//! `consistency=linear`: what was acknowledged anywhere is seen by whoever asks next.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::PathBuf;

use revfs_tests::etcd::free_address;
use revfs_tests::{Cluster, Mount, Shell, wait};

const LINEAR: &str = "--mount-consistency=linear";

/// Each member writes a third of them.
const ROUNDS: u32 = 40;

fn shell(cluster: &Cluster, member: u8) -> Shell {
    Shell::new(&cluster.mount_point(member))
}

fn listed(directory: &PathBuf) -> Vec<String> {
    let names = fs::read_dir(directory).expect("it can be listed");
    let mut names: Vec<String> = names
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// No waiting here: each look comes right after the change was acknowledged.
#[test]
fn what_one_member_acknowledged_is_seen_at_once_through_the_linear_mount_of_another() {
    let cluster = Cluster::with_mounts_that(3, &[LINEAR]);
    let mounts: Vec<PathBuf> = (0..3).map(|member| cluster.mount_point(member)).collect();
    fs::create_dir(mounts[0].join("d")).expect("a directory");
    fs::write(mounts[0].join("d/file"), "first").expect("a file");
    let mut open = File::open(mounts[1].join("d/file")).expect("it is there");
    let mut content = String::new();
    open.read_to_string(&mut content).expect("it can be read");
    assert_eq!(content, "first");
    for round in 0..ROUNDS {
        let writer = &mounts[usize::try_from(round % 3).expect("a small number")];
        let others = || mounts.iter().filter(|mount| *mount != writer);
        let (content, name) = (format!("{}\n", "x".repeat(round as usize)), format!("n{round}"));
        for other in others() {
            assert!(!other.join("d").join(&name).exists(), "{name} was not made yet");
        }
        fs::write(writer.join("d/file"), &content).expect("a write");
        for other in others() {
            let file = other.join("d/file");
            assert_eq!(fs::metadata(&file).expect("it is there").len(), content.len() as u64);
            assert_eq!(fs::read_to_string(&file).expect("it can be read"), content);
        }
        fs::write(writer.join("d").join(&name), "").expect("a creation");
        for other in others() {
            assert!(other.join("d").join(&name).exists(), "{name} was made");
            assert_eq!(listed(&other.join("d")), ["file".to_owned(), name.clone()]);
        }
        fs::rename(writer.join("d").join(&name), writer.join("d/moved")).expect("a rename");
        for other in others() {
            assert!(!other.join("d").join(&name).exists(), "{name} was renamed");
            assert_eq!(listed(&other.join("d")), ["file", "moved"]);
        }
        fs::remove_file(writer.join("d/moved")).expect("a removal");
        for other in others() {
            assert!(fs::metadata(other.join("d/moved")).is_err(), "it was removed");
        }
    }
}

#[test]
fn a_linear_mount_without_a_quorum_says_eio_and_not_what_was() {
    let cluster = Cluster::with_mounts_that(3, &[LINEAR]);
    let alone = cluster.wait_for_leader();
    let other = (alone + 1) % 3;
    shell(&cluster, other).run("mkdir d && echo before > d/file").ok();
    assert_eq!(shell(&cluster, alone).run("cat d/file; ls d").ok(), "before\nfile");
    cluster.network.isolate(alone);
    let lines = ["cat d/file", "ls d", "stat d/file", "ls @rev", "ls nothing", "cat d/file"];
    for line in lines {
        shell(&cluster, alone).run(line).fails_saying("Input/output error");
    }
    // Why is told, and who has no business here can leave.
    let status = shell(&cluster, alone).run("cat @status").ok();
    assert!(status.contains("\"consistency\": \"linear\""), "{status}");
    cluster.wait_writable(other);
    shell(&cluster, other).run("echo after > d/file").ok();
    shell(&cluster, alone).run("cat d/file").fails_saying("Input/output error");
    cluster.network.heal();
    wait::until_true("a quorum", wait::LIMIT, || {
        // It may say that it cannot tell; what was, never.
        let said = shell(&cluster, alone).run("cat d/file || true").ok();
        assert!(matches!(said.as_str(), "" | "after"), "{said}");
        said == "after"
    });
}

/// Of a node that serves, and of one that is elsewhere; by flag and by `-o`.
#[test]
fn a_linear_mount_reads_at_once_what_a_client_of_the_api_put() {
    let address = free_address();
    let node = Mount::up_with(|place| {
        place.arguments = vec![format!("--listen={address}"), "--consistency=linear".to_owned()];
    });
    let elsewhere = Mount::of(&format!("http://{address}"), &["-o", "consistency=linear"]);
    assert_eq!(elsewhere.status()["mount"]["consistency"], "linear");
    let script = "for n in $(seq 60); do revfs put --key /file $n > /dev/null; for d in \"$ONE\" \"$OTHER\"; do \
        read -r seen < $d/file; [ $seen = $n ] || echo $d: $seen, not $n; \
        [ $(revfs get --key /file) = $n ] || echo lost; done; done";
    let shell = node.shell().variable("ONE", node.dir()).variable("OTHER", elsewhere.dir());
    assert_eq!(shell.run(script).ok(), "");

    let mut refused = Mount::down();
    refused.change_place(|place| place.arguments = vec!["--consistency=strict".to_owned()]);
    let said = refused.refuses();
    assert!(said.contains("watch") && said.contains("linear"), "{said}");
}

const MAPPED: &str = r#"
import mmap, os
with open("mapped", "wb") as file:
    file.write(b"a" * 10000)
with open("mapped", "r+b") as file:
    pages = mmap.mmap(file.fileno(), 0)
    pages[5000:5005] = b"hello"
    pages.flush()
    pages.close()
print(open("mapped", "rb").read()[4999:5006].decode())
"#;

/// The kernel keeps no pages; programs are started and files mapped and locked all the same.
#[test]
fn a_linear_mount_is_a_file_system_like_any_other() {
    let mount = Mount::up_with(|place| place.arguments = vec!["--consistency=linear".to_owned()]);
    mount.ok("printf '#!/bin/sh\\necho ran\\n' > run; chmod 755 run; cp /bin/true true");
    assert_eq!(
        mount.ok("./run; ./true; (exec 3>> log; echo a >&3; echo b >&3); cat log"),
        "ran\na\nb"
    );
    assert_eq!(mount.python(MAPPED), "ahelloa");
    let sqlite = "import sqlite3\nc = sqlite3.connect('db')\nc.execute('create table t(x)')\n\
        c.executemany('insert into t values(?)', [(n,) for n in range(1000)])\nc.commit()\n\
        print(c.execute('select count(*), sum(x) from t').fetchone())\n";
    assert_eq!(mount.python(sqlite), "(1000, 499500)");
    mount.ok("dd if=/dev/urandom of=big bs=1M count=5 status=none; cp big \"$SCRATCH/big\"; cmp big \"$SCRATCH/big\"");
    mount.ok("git init -q repository && cd repository && git config user.email a@b && git config user.name a \
        && cp ../big . && git add . && git commit -q -m one && git fsck");
}
