//! The commands on a running node, which they find through the mount.

use revfs_tests::{Mount, Shell, tools, wait};
use serde_json::Value;
use std::path::Path;

/// What a command prints with `--json`: one document a line.
fn json(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[test]
fn put_get_ls_and_del_take_files_and_keys() {
    let mount = Mount::up();
    mount.ok("mkdir app; revfs put app/color red; echo -n blue | revfs put app/sky");
    assert_eq!(mount.ok("cat app/color app/sky"), "redblue");
    assert_eq!(mount.ok("revfs get app/color; revfs get --key /app/sky"), "red\nblue");
    let listed = mount.ok("revfs ls app");
    assert!(listed.contains("color") && listed.contains("sky"), "{listed}");
    mount.ok("revfs del app/color");
    wait::until_true("a deletion in the mount", wait::LIMIT, || !mount.path("app/color").exists());
    mount.run("revfs get app/color").fails_saying("app/color");
    assert_eq!(mount.run("revfs get app/color").code(), Some(1));
}

#[test]
fn put_takes_conditions() {
    let mount = Mount::up();
    mount.ok("revfs put --if-absent f one");
    assert_eq!(mount.run("revfs put --if-absent f two").code(), Some(3));
    let revision = mount.revision();
    mount.ok(&format!("revfs put --if-rev {revision} f three"));
    assert_eq!(mount.run(&format!("revfs put --if-rev {revision} f four")).code(), Some(3));
    assert_eq!(mount.ok("revfs get f"), "three");
}

#[test]
fn a_value_comes_back_byte_for_byte() {
    let mount = Mount::up();
    mount.ok("head -c 300000 /dev/urandom > $SCRATCH/random; revfs put f < $SCRATCH/random
         cmp f $SCRATCH/random; revfs get --raw f | cmp - $SCRATCH/random");
}

#[test]
fn every_command_speaks_json() {
    let mount = Mount::up();
    mount.ok("mkdir d; echo one > d/f");
    let then = mount.revision();
    mount.ok("echo two > d/f; echo x > d/g");
    for line in [
        "revfs get --json d/f".to_owned(),
        "revfs ls --json d".to_owned(),
        "revfs log --json d/f".to_owned(),
        "revfs log --json d".to_owned(),
        format!("revfs diff --json {then}.. d"),
        "revfs status --json".to_owned(),
        "revfs put --json d/h y".to_owned(),
        "revfs del --json d/h".to_owned(),
        format!("revfs restore --json d --to {then}"),
    ] {
        let documents = json(&mount.ok(&line));
        assert!(!documents.is_empty(), "`{line}` printed nothing");
    }
    let said = mount.run("revfs get --json none").fails();
    assert_eq!(json(said.trim_end()).len(), 1, "errors are JSON too: {said}");
}

#[test]
fn log_lists_every_revision_of_a_file_with_its_author() {
    let mount = Mount::up();
    mount.ok("mkdir d; echo 1 > d/f; echo 2 > d/f; rm d/f");
    let text = mount.ok("revfs log d/f");
    let user = mount.ok("id -un");
    assert!(text.contains(&format!("{user}@")), "the author: {text}");
    assert_eq!(json(&mount.ok("revfs log --json d/f")).len(), 3, "{text}");
    assert!(json(&mount.ok("revfs log --json d")).len() >= 3);
}

#[test]
fn diff_is_a_patch() {
    let mount = Mount::up();
    mount.ok("mkdir d; seq 20 > d/f; echo gone > d/g; cp -a d $SCRATCH/then");
    let then = mount.revision();
    mount.ok("sed -i s/7/seven/ d/f; rm d/g; echo new > d/h");
    let now = mount.revision();
    let patch = mount.ok(&format!("revfs diff {then}..{now} d | tee $SCRATCH/patch"));
    for line in ["-7", "+seven", "-gone", "+new"] {
        assert!(patch.lines().any(|own| own == line), "no `{line}` in {patch}");
    }
    mount.ok("cd $SCRATCH/then; patch -p3 < $SCRATCH/patch");
    assert_eq!(mount.ok("diff -r $SCRATCH/then d && echo same"), "same");
    assert_eq!(mount.ok(&format!("revfs diff {now}..{now} d")), "");
}

#[test]
fn restore_is_one_revision_and_brings_everything_back() {
    let mount = Mount::up();
    mount.ok("mkdir -p d/sub; echo 1 > d/f; chmod 640 d/f; touch -d @1000000000 d/f; ln -s f d/l
         echo 2 > d/sub/g");
    let then = mount.revision();
    mount.ok("echo changed > d/f; chmod 600 d/f; rm -r d/sub d/l; echo new > d/new");
    let before = mount.revision();
    mount.ok(&format!("revfs restore d --to {then}"));
    assert_eq!(mount.revision(), before + 1);
    wait::until_true("the new file gone", wait::LIMIT, || !mount.path("d/new").exists());
    assert_eq!(
        mount.ok("cd d; cat f sub/g; readlink l; stat -c '%a %Y' f; ls"),
        "1\n2\nf\n640 1000000000\nf\nl\nsub"
    );
    assert_eq!(mount.ok(&format!("diff -r @rev/{then}/d d && echo same")), "same");
    mount.ok(&format!("revfs restore d --to {before}"));
    assert_eq!(mount.ok("cat d/new"), "new", "a restore can be taken back");
}

#[test]
fn restore_takes_a_single_file_and_a_time() {
    let mount = Mount::up();
    mount.ok("echo 1 > f; echo other > g");
    let time = mount.ok("getfattr -n user.revfs.time --only-values f");
    mount.ok("echo 2 > f; echo changed > g");
    mount.ok(&format!("revfs restore f --to {time}"));
    wait::until_true("the old content", wait::LIMIT, || mount.ok("cat f") == "1");
    assert_eq!(mount.ok("cat g"), "changed");
}

#[test]
fn status_tells_what_is_there() {
    let mount = Mount::up();
    mount.ok("echo x > f");
    let said = &json(&mount.ok("revfs status --json"))[0];
    for name in ["revision", "endpoint", "data_dir", "process_id", "compacted_revision"] {
        assert!(!said[name].is_null(), "{name} is missing in {said}");
    }
    assert_eq!(said["process_id"].as_u64(), u64::try_from(mount.process().as_raw()).ok());
    let text = mount.ok("revfs status");
    assert!(text.contains(&mount.revision().to_string()), "{text}");
}

#[test]
fn commands_find_the_node_by_its_endpoint() {
    let mount = Mount::up();
    mount.ok("echo x > f");
    let endpoint = mount.status()["endpoint"].as_str().expect("@status names it").to_owned();
    let shell = Shell::new(Path::new("/"));
    assert_eq!(shell.run(&format!("revfs get --endpoint {endpoint} /f")).ok(), "x");
    let nowhere = shell.run("revfs get --endpoint unix:///nonexistent/revfs.sock /f");
    assert_eq!(nowhere.code(), Some(4));
}

#[test]
fn the_help_is_one_screen() {
    let shell = Shell::new(Path::new("/"));
    let help = shell.run("revfs --help").ok();
    assert!(help.lines().count() <= 24, "{help}");
    for command in ["up", "umount", "get", "put", "del", "ls", "log", "diff", "restore", "status"] {
        assert!(help.contains(command), "{command} is missing: {help}");
        assert!(!shell.run(&format!("revfs {command} --help")).ok().is_empty());
    }
    for name in ["bash", "zsh", "fish"] {
        let script = shell.run(&format!("revfs completion {name}")).ok();
        assert!(script.contains("revfs"), "{name}: {script}");
    }
    shell.run("source <(revfs completion bash); complete -p revfs").ok();
}

#[test]
fn errors_name_the_argument_and_the_bound() {
    let mount = Mount::up();
    mount.run("revfs diff nonsense f").fails_saying("nonsense");
    mount.run("revfs get none").fails_saying("none");
    mount.run("revfs restore none --to 1").fails();
    mount.run("revfs log none").fails_saying("none");
    let future = mount.revision() + 1_000;
    mount.run(&format!("revfs get --rev {future} f")).fails_saying(&future.to_string());
    assert_eq!(mount.run("revfs frobnicate").code(), Some(2));
}

/// Debian's etcdctl, an etcd client that knows nothing of revfs. It names a unix socket in a way that
/// HTTP/2 does not allow, so it takes the TCP port.
#[test]
fn etcdctl_reads_and_writes_the_same_keys() {
    tools::need(&["etcdctl"]);
    let port = free_port();
    let mount = Mount::up_with(|place| {
        place.arguments = vec!["--listen".to_owned(), format!("127.0.0.1:{port}")];
    });
    mount.ok("mkdir app; echo -n red > app/color");
    let then = mount.revision();
    let etcdctl = |arguments: &str| {
        let line = format!("ETCDCTL_API=3 etcdctl --endpoints=127.0.0.1:{port} {arguments}");
        Shell::new(Path::new("/")).run(&line).ok()
    };
    assert_eq!(etcdctl("get /app/color"), "/app/color\nred");
    assert_eq!(etcdctl("put /app/color blue"), "OK");
    wait::until_true("the put in the mount", wait::LIMIT, || mount.ok("cat app/color") == "blue");
    assert_eq!(mount.revision(), then + 1);
    assert_eq!(etcdctl(&format!("get --rev={then} --print-value-only /app/color")), "red");
    etcdctl("put /app/size 7");
    assert_eq!(etcdctl("get --prefix --keys-only /app/c"), "/app/color");
    assert_eq!(etcdctl("del /app/size"), "1");
    assert_eq!(mount.ok(&format!("cat app/@rev/{then}/color")), "red");
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it is bound").port()
}
