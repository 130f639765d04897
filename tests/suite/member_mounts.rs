//! `revfs serve --mount`: each machine has its own view of the cluster, read from its own store.

use std::path::Path;

use revfs_tests::{Cluster, Shell, wait};

fn shell(cluster: &Cluster, member: u8) -> Shell {
    Shell::new(&cluster.mount_point(member))
}

fn read(mount: &Path, file: &str) -> Option<String> {
    std::fs::read_to_string(mount.join(file)).ok()
}

/// Waits until a member's mount shows this content.
fn shows(cluster: &Cluster, member: u8, file: &str, content: &str) {
    let mount = cluster.mount_point(member);
    wait::until_true(&format!("{file} on m{member}"), wait::LIMIT, || {
        read(&mount, file).as_deref() == Some(content)
    });
}

#[test]
fn what_is_written_on_one_machine_is_read_and_its_past_seen_on_all() {
    let mut cluster = Cluster::with_mounts(3);
    shell(&cluster, 0).run("mkdir app && echo red > app/color && echo 8 > app/limit").ok();
    (0..3).for_each(|member| shows(&cluster, member, "app/limit", "8\n"));
    let status = read(&cluster.mount_point(1), "@status").expect("it answers");
    let status: serde_json::Value = serde_json::from_str(&status).expect("it is JSON");
    let then = status["revision"].as_u64().expect("a number");
    shell(&cluster, 1).run("echo blue > app/color").ok();
    shell(&cluster, 1).run("mkdir etc && mv app etc/app").ok();
    for member in 0..3 {
        shows(&cluster, member, "etc/app/color", "blue\n");
        shows(&cluster, member, &format!("@rev/{then}/app/color"), "red\n");
        assert_eq!(shell(&cluster, member).run("ls").ok(), "etc");
    }
    // Two machines append, and lose no line of each other.
    let append = "for n in $(seq 20); do echo $MEMBER-$n >> lines; done";
    let lines: Vec<_> = (0..3u8)
        .map(|member| shell(&cluster, member).variable("MEMBER", member.to_string()).start(append))
        .collect();
    for line in lines {
        line.finish(wait::LIMIT).ok();
    }
    let count = |member| read(&cluster.mount_point(member), "lines").map(|all| all.lines().count());
    (0..3).for_each(|member| {
        wait::until_true("all lines", wait::LIMIT, || count(member) == Some(60));
    });
    // A mount whose member was killed is dead until the member comes back.
    cluster.kill(1);
    cluster.start_member(1);
    cluster.wait_mounted(1);
    shows(&cluster, 1, "etc/app/color", "blue\n");
    (0..3).for_each(|member| cluster.stop(member));
}

#[test]
fn a_mount_whose_member_is_cut_off_reads_on_and_refuses_changes_until_it_is_back() {
    let cluster = Cluster::with_mounts(3);
    let alone = cluster.wait_for_leader();
    let other = (alone + 1) % 3;
    shell(&cluster, other).run("echo before > file").ok();
    shows(&cluster, alone, "file", "before\n");
    cluster.network.isolate(alone);
    shows(&cluster, alone, "file", "before\n");
    // What it had already sent as the leader has an unknown end (EIO); then it knows that it leads no more.
    let mut tries = 0;
    wait::until_true("refusal as a read-only file system", wait::LIMIT, || {
        tries += 1;
        let tried = shell(&cluster, alone).run(&format!("mkdir try-{tries}"));
        tried.fails().contains("Read-only file system")
    });
    let lost = shell(&cluster, alone).run("echo lost | dd of=lost conv=fsync");
    lost.fails_saying("Read-only file system");
    shows(&cluster, alone, "file", "before\n");
    cluster.wait_writable(other);
    shell(&cluster, other).run("echo after > file && mkdir new").ok();
    shows(&cluster, alone, "file", "before\n");
    cluster.network.heal();
    shows(&cluster, alone, "file", "after\n");
    wait::until_true("a change through the mount that was cut off", wait::LIMIT, || {
        shell(&cluster, alone).run("echo again | dd of=new/again conv=fsync").code() == Some(0)
    });
    shows(&cluster, other, "new/again", "again\n");
    assert_eq!(read(&cluster.mount_point(other), "lost"), None, "it was refused");
}

#[test]
fn a_read_only_members_mount_reads_its_own_store_and_brings_changes_to_the_voters() {
    let mut cluster = Cluster::with_mounts_and_room(3, 4);
    let at = cluster.wait_for_leader();
    shell(&cluster, at).run("mkdir app && echo red > app/color").ok();
    cluster.add_machine_as(at, 3, "read-only");
    cluster.wait_mounted(3);
    shows(&cluster, 3, "app/color", "red\n");
    // What is written through it is forwarded: files, names, attributes, locks.
    shell(&cluster, 3)
        .run("echo blue > app/color && mkdir new && mv app/color new/color && chmod 600 new/color")
        .ok();
    shell(&cluster, 3).run("flock new/color -c 'echo locked >> new/color'").ok();
    for member in 0..4 {
        shows(&cluster, member, "new/color", "blue\nlocked\n");
        assert_eq!(shell(&cluster, member).run("stat -c %a new/color; ls app").ok(), "600");
    }
    let lines = cluster.listed(at);
    let learners = lines.iter().filter(|line| line.ends_with(", true")).count();
    assert_eq!((lines.len(), learners), (4, 1), "it never votes: {lines:?}");
    // Alone it shows what it has, and takes nothing.
    cluster.network.isolate(3);
    shows(&cluster, 3, "new/color", "blue\nlocked\n");
    shell(&cluster, at).run("echo later > new/later").ok();
    // What was under way has an unknown end (EIO); then it knows that nobody can be reached.
    let mut tries = 0;
    wait::until_true("refusal as a read-only file system", wait::LIMIT, || {
        tries += 1;
        let tried = shell(&cluster, 3).run(&format!("mkdir try-{tries}"));
        tried.fails().contains("Read-only file system")
    });
    assert_eq!(read(&cluster.mount_point(3), "new/later"), None);
    cluster.network.heal();
    shows(&cluster, 3, "new/later", "later\n");
    wait::until_true("a change through the mount that was cut off", wait::LIMIT, || {
        shell(&cluster, 3).run("echo again | dd of=new/again conv=fsync").code() == Some(0)
    });
    shows(&cluster, at, "new/again", "again\n");
    (0..4).for_each(|member| cluster.stop(member));
}
