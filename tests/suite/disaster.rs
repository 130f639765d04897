//! What is done when machines or data are gone: backups that become clusters, and who notices.

use std::path::Path;

use nix::sys::signal::Signal;
use revfs_tests::{Cluster, Mount, Server, Shell, wait};

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn revision(cluster: &Cluster, member: u8) -> u64 {
    let said = json(&cluster.ctl(&cluster.client(member), &["get", "x", "-w", "json"]));
    said["header"]["revision"].as_u64().expect("a revision")
}

/// Ends all members, and makes their data directories from one snapshot.
fn restore_all(cluster: &mut Cluster, file: &Path, options: &str) -> Vec<serde_json::Value> {
    let members: Vec<u8> = cluster.running().collect();
    let settings = cluster.founder_settings().join(" ");
    for &member in &members {
        cluster.kill(member);
    }
    let shell = Shell::new(Path::new("/"));
    let restored = members.iter().map(|&member| {
        let dir = cluster.data_dir(member);
        std::fs::remove_dir_all(&dir).expect("it was there");
        let (file, dir) = (file.display(), dir.display());
        let line = format!(
            "revfs snapshot restore {file} --data-dir {dir} --json --name m{member} {settings} {options}"
        );
        json(&shell.run(&line).ok())
    });
    let restored = restored.collect();
    for member in members {
        cluster.start_member(member);
    }
    cluster.wait_for_leader();
    restored
}

#[test]
fn three_members_restored_from_one_snapshot_are_a_new_cluster_and_watchers_and_mounts_notice() {
    let mut cluster = Cluster::start(3);
    let at = cluster.client(0);
    cluster.ctl(&at, &["put", "/dir/kept", "saved"]);
    let old = json(&cluster.ctl(&at, &["member", "list", "-w", "json"]));
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("saved");
    cluster.ctl(&at, &["snapshot", "save", &file.display().to_string()]);
    let saved = revision(&cluster, 0);
    cluster.ctl(&at, &["put", "/dir/kept", "lost"]);
    cluster.ctl(&at, &["put", "/dir/lost", "v"]);
    let lost = revision(&cluster, 0);
    let mount = Mount::of(&cluster.endpoints(), &[]);
    assert_eq!(mount.ok("cat dir/kept; echo; ls dir"), "lost\nkept\nlost");

    // They hold the same, whoever looks.
    cluster.settings.push("--experimental-initial-corrupt-check".to_owned());
    let restored = restore_all(&mut cluster, &file, "");
    for member in 0..3 {
        wait::until_true("a comparison with the others", wait::LIMIT, || {
            cluster.log(member).contains("this member was compared with the others")
        });
    }
    assert!(restored.iter().all(|one| one["cluster_id"] == restored[0]["cluster_id"]));
    let new = json(&cluster.ctl(&at, &["member", "list", "-w", "json"]));
    assert_ne!(old["header"]["cluster_id"], new["header"]["cluster_id"]);
    assert_eq!(new["members"].as_array().map(Vec::len), Some(3));
    for member in 0..3 {
        cluster.wait_writable(member);
        let client = cluster.client(member);
        assert_eq!(cluster.ctl(&client, &["get", "/dir/kept"]), "/dir/kept\nsaved\n");
        assert_eq!(cluster.ctl(&client, &["get", "/dir/lost"]), "");
    }
    assert!(revision(&cluster, 0) > saved + 1_000_000_000);
    // Who has seen what is lost is told so; who has not goes on without a gap.
    let watch = |from: u64, member: u8| {
        let from = format!("--rev={from}");
        let shell = Shell::new(Path::new("/"));
        let client = cluster.client(member);
        let line = format!(
            "ETCDCTL_API=3 timeout -s INT 10 etcdctl --endpoints={client} watch {from} --prefix /dir/ 2>&1 | head -2"
        );
        shell.run(&line).ok()
    };
    let said = watch(lost + 1, 1);
    assert!(said.contains("required revision has been compacted"), "{said}");
    cluster.ctl(&at, &["put", "/dir/new", "v"]);
    let said = watch(saved + 1, 2);
    assert!(said.starts_with("PUT\n/dir/new"), "{said}");
    wait::until_true("the mount shows what was restored", wait::LIMIT, || {
        mount.run("cat dir/kept; echo; ls dir; true").ok() == "saved\nkept\nnew"
    });
    cluster.agree();
    let leader = cluster.wait_for_leader();
    cluster.kill(leader);
    cluster.wait_writable((leader + 1) % 3);
    cluster.start_member(leader);
    cluster.wait_writable(leader);
    cluster.agree();
    for member in 0..3 {
        let log = cluster.log(member);
        assert!(!log.contains("CORRUPT") && !log.contains("found=Odd"), "{log}");
    }
}

#[test]
fn members_restored_with_other_options_refuse_each_other_and_a_compacted_past_is_gone() {
    let mut cluster = Cluster::start(3);
    let at = cluster.client(0);
    for value in 0..5 {
        cluster.ctl(&at, &["put", "k", &value.to_string()]);
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("saved");
    cluster.ctl(&at, &["snapshot", "save", &file.display().to_string()]);
    let saved = revision(&cluster, 0);
    let restored = restore_all(&mut cluster, &file, "--bump-revision 1000 --mark-compacted");
    assert!(restored.iter().all(|one| one["restored_revision"] == saved + 1_000));
    cluster.wait_writable(1);
    let past = format!("--rev={saved}");
    let read = cluster.run(&cluster.client(1), &["get", "k", &past]);
    assert!(String::from_utf8_lossy(&read.stderr).contains("has been compacted"), "{read:?}");
    assert_eq!(cluster.ctl(&cluster.client(2), &["get", "k"]), "k\n4\n");
    // The third is restored once more, but told otherwise: it belongs to another cluster.
    cluster.kill(2);
    let settings = cluster.founder_settings().join(" ");
    let dir = cluster.data_dir(2);
    std::fs::remove_dir_all(&dir).expect("it was there");
    let shell = Shell::new(Path::new("/"));
    let (file, dir) = (file.display(), dir.display());
    let line =
        format!("revfs snapshot restore {file} --data-dir {dir} --json --name m2 {settings}");
    let other = json(&shell.run(&line).ok());
    assert_ne!(other["cluster_id"], restored[0]["cluster_id"]);
    cluster.start_member(2);
    wait::until_true("a refusal in the log", wait::LIMIT, || {
        let at = cluster.client(2);
        assert!(!cluster.run(&at, &["put", "never", "v"]).status.success());
        cluster.log(2).contains("cluster")
    });
    cluster.wait_writable(0);
}

/// Every file of a directory with its bytes, but for the lock, which names who looked last.
fn files(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("it is there") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() && path.file_name().is_some_and(|name| name != "LOCK") {
            found.push((path.clone(), std::fs::read(&path).expect("it can be read")));
        }
    }
    found.sort();
    found
}

#[test]
fn recover_explains_a_damaged_log_and_changes_nothing_until_it_is_told_to() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let shell = Shell::new(directory.path());
    let mut server = Server::of(&data, &[]);
    let put = |server: &Server, value: &str| {
        let line = format!("ETCDCTL_API=3 etcdctl --endpoints={} put k {value}", server.url());
        drop(shell.run(&line).ok());
    };
    put(&server, "saved");
    drop(shell.run(&format!("revfs snapshot save saved --endpoint {}", server.url())).ok());
    for value in 0..30 {
        put(&server, &value.to_string());
    }
    let refused = shell.run("revfs recover data").fails_saying("in use by process");
    assert!(refused.contains("revfs status"), "{refused}");
    server.signal(Signal::SIGKILL);
    server.wait_for_end(wait::LIMIT);
    let before = files(&data);
    let said = json(&shell.run("revfs recover data --check --json").ok());
    assert_eq!(said["problems"], serde_json::json!([]), "{said}");
    assert_eq!(said["choices"], serde_json::json!(["start", "restore"]));
    assert_eq!(said["log"]["was_closed"], false);
    assert!(files(&data) == before, "looking changed something");

    let log = data.join("log/0000000001.log");
    let mut bytes = std::fs::read(&log).expect("a log");
    bytes[4_096 + 60] ^= 1;
    std::fs::write(&log, bytes).expect("it can be written");
    let before = files(&data);
    let said = shell.run("revfs recover data").fails_saying("log/0000000001.log at byte 4");
    assert!(said.contains("the log is damaged") && said.contains("--do restore"), "{said}");
    assert!(!said.contains("--do force-new-cluster"), "{said}");
    shell.run("revfs recover data --do force-new-cluster --yes").fails_saying("cannot do that");
    shell.run("revfs recover data --do restore --backup saved").fails_saying("--yes is missing");
    shell.run("revfs recover data --do restore --yes").fails_saying("--backup FILE");
    shell.run("revfs recover data --do restore --backup data/identity --yes").fails();
    assert!(files(&data) == before, "what was refused changed something");
    let said = shell.run("revfs recover data --do restore --backup saved --yes").ok();
    assert!(said.contains("data.damaged-1"), "{said}");
    assert!(directory.path().join("data.damaged-1/identity").exists());
    let server = Server::of(&data, &[]);
    let line = format!("ETCDCTL_API=3 etcdctl --endpoints={} get k", server.url());
    assert_eq!(shell.run(&line).ok(), "k\nsaved");
}

#[test]
fn recover_lets_the_last_of_three_members_go_on_alone() {
    let mut cluster = Cluster::start(3);
    cluster.ctl(&cluster.client(1), &["put", "k", "v"]);
    cluster.agree();
    for member in 0..3 {
        cluster.kill(member);
    }
    let data = cluster.data_dir(1).display().to_string();
    let shell = Shell::new(Path::new("/"));
    let said = shell.run(&format!("revfs recover {data}")).ok();
    assert!(said.contains("with 2 of 3 voters running") && said.contains("m1"), "{said}");
    assert!(said.contains("nothing is wrong with it"), "{said}");
    let before = json(&shell.run(&format!("revfs recover {data} --json")).ok());
    assert_eq!(before["choices"], serde_json::json!(["start", "force-new-cluster", "restore"]));
    drop(shell.run(&format!("revfs recover {data} --do force-new-cluster --yes")).ok());
    let after = json(&shell.run(&format!("revfs recover {data} --json")).ok());
    assert_ne!(before["cluster_id"], after["cluster_id"]);
    assert_eq!(before["member_id"], after["member_id"]);
    cluster.start_member(1);
    cluster.wait_writable(1);
    assert_eq!(cluster.ctl(&cluster.client(1), &["get", "k"]), "k\nv\n");
    let members = json(&cluster.ctl(&cluster.client(1), &["member", "list", "-w", "json"]));
    assert_eq!(members["members"].as_array().map(Vec::len), Some(1));
}
