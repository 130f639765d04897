//! `revfs mount`: a cluster that runs elsewhere as a directory, a real etcd and a node of revfs.

use revfs_tests::etcd::free_address;
use revfs_tests::{Etcd, Mount, Shell, wait};
use std::path::Path;

/// Waits until a line of bash in the mount prints `expected`.
fn shows(mount: &Mount, line: &str, expected: &str) {
    wait::until_true(&format!("`{line}` prints {expected:?}"), wait::LIMIT, || {
        mount.ok(&format!("{{ {line}; }} 2>&1 || true")) == expected
    });
}

/// A tree with what `cp -a` carries.
fn make_tree(mount: &Mount) {
    mount.ok(
        r#"cd "$SCRATCH"; mkdir -p tree/a/b tree/empty; echo 1 > tree/a/one; echo 2 > tree/a/b/two
        : > tree/none; head -c 300000 /dev/zero | tr '\0' x > tree/large; chmod 600 tree/a/one
        chmod 750 tree/a/b; ln -s one tree/a/link; touch -d 2020-02-02T02:02:02Z tree/a/b/two"#,
    );
}

/// The same names, types, modes, sizes and times of files.
fn is_the_same(mount: &Mount) {
    mount.ok(r#"diff -r --no-dereference "$SCRATCH/tree" tree"#);
    let list = "find . ! -type d -printf '%P %y %m %s %T@ %l\\n' | sort";
    let there = mount.ok(&format!("cd tree; {list}"));
    assert_eq!(there, mount.ok(&format!("cd \"$SCRATCH/tree\"; {list}")));
}

#[test]
fn a_real_etcd_is_shown_as_it_is_and_as_it_was_and_not_changed() {
    let etcd = Etcd::start();
    for (key, value) in [("/registry/pods/a", "one"), ("/registry/pods/b", "two"), ("plain", "x")] {
        etcd.ctl(&["put", key, value]);
    }
    let mount = Mount::of(&etcd.endpoint(), &[]);
    assert_eq!(mount.ok("find . -type f | sort | xargs head -c 9"), {
        "==> ./registry/pods/a <==\none\n==> ./registry/pods/b <==\ntwo"
    });
    assert_eq!(mount.ok("cat @keys/plain"), "x");
    // What is cached by now is told of.
    etcd.ctl(&["put", "/registry/pods/a", "changed"]);
    shows(&mount, "cat registry/pods/a", "changed");
    etcd.ctl(&["put", "/registry/pods/c", "new"]);
    shows(&mount, "ls registry/pods | xargs", "a b c");
    etcd.ctl(&["del", "/registry/pods/b"]);
    shows(&mount, "ls registry/pods | xargs", "a c");

    assert_eq!(mount.ok("ls registry/pods/@rev | xargs"), "2 3 5 6 7");
    assert_eq!(mount.ok("cat @rev/4/registry/pods/a @rev/4/registry/pods/b"), "onetwo");
    assert_eq!(mount.versions("registry/pods/a"), ["2", "5"]);
    assert_eq!(mount.versions("registry/pods/b"), ["3", "7.deleted"]);
    assert_eq!(mount.ok("stat -c %Y registry/pods/a"), "5", "times tell the order");
    let refused = mount.run("ls @time/-1h/").fails();
    assert!(refused.contains("not supported"), "{refused}");
    for change in ["echo x > f", "rm registry/pods/a", "mkdir d", "mv registry r"] {
        let refused = mount.run(change).fails();
        assert!(refused.contains("Read-only file system"), "{change}: {refused}");
    }
    let status = mount.status();
    assert_eq!(status["backend"], "etcd");
    assert!(status["mount"]["limits"][0].as_str().expect("a line").contains("@time"), "{status}");
    assert_eq!(etcd.keys(), ["/registry/pods/a", "/registry/pods/c", "plain"]);
    etcd.ctl(&["compact", "5"]);
    let gone = mount.run("cat @rev/3/registry/pods/a").fails();
    assert!(gone.contains("Stale"), "{gone}");
}

#[test]
fn a_real_etcd_takes_a_tree_with_its_attributes_where_that_is_asked_for() {
    let etcd = Etcd::start();
    let mount = Mount::of(&etcd.endpoint(), &["--read-write", "--markers", "--attributes"]);
    make_tree(&mount);
    mount.ok(r#"cp -a "$SCRATCH/tree" ."#);
    is_the_same(&mount);
    assert_eq!(etcd.ctl(&["get", "/tree/a/one", "--print-value-only"]), "1\n\n");
    let before = mount.revision();
    mount.ok(
        "mv tree/a tree/moved; mv tree/moved/one tree/moved/b/two; sed -i s/1/I/ tree/moved/b/two",
    );
    assert_eq!(mount.ok("cat tree/moved/b/two"), "I");
    assert_eq!(mount.ok(&format!("cat @rev/{before}/tree/a/one")), "1");
    mount.ok(
        "echo more >> tree/moved/b/two; (set -C; : > tree/lock); ! (set -C; : > tree/lock) 2>&1",
    );
    assert_eq!(etcd.ctl(&["get", "/tree/moved/b/two", "--print-value-only"]), "I\nmore\n\n");
    // More names than a transaction moves: mv copies.
    mount.ok("mkdir many; for i in $(seq 150); do echo $i > many/$i; done; mv many few");
    assert_eq!(mount.ok("ls few | wc -l; cat few/150; ls -d many 2>&1 | wc -l"), "150\n150\n1");
    mount.ok("rm -r tree few; [ -z \"$(ls)\" ]");
}

#[test]
fn a_real_etcd_gets_no_key_that_nobody_named() {
    let etcd = Etcd::start();
    etcd.ctl(&["put", "/registry/pods/a", "one"]);
    let mount = Mount::of(&etcd.endpoint(), &["--read-write", "--prefix", "/registry/"]);
    mount.ok("echo x > pods/new; cp pods/new pods/copy; mv pods/copy pods/b; rm pods/new");
    mount.ok("sed -i s/x/y/ pods/b; (set -C; echo z > pods/c)");
    assert_eq!(etcd.keys(), ["/registry/pods/a", "/registry/pods/b", "/registry/pods/c"]);
    for change in ["mkdir d", "ln -s a pods/l", "chmod 600 pods/a", "touch -d 2020-01-01 pods/a"] {
        let refused = mount.run(change).fails();
        assert!(refused.contains("not permitted"), "{change}: {refused}");
    }
    mount.ok("rm pods/*");
    assert!(etcd.keys().is_empty());
}

#[test]
fn a_node_elsewhere_is_mounted_as_if_it_were_here() {
    let address = free_address();
    let node = Mount::up_with(|place| {
        place.arguments = vec!["--listen".to_owned(), address.clone()];
    });
    let endpoints = format!("http://{address}");
    let mut mount = Mount::of(&endpoints, &[]);
    make_tree(&mount);
    mount.ok(r#"cp -a "$SCRATCH/tree" ."#);
    is_the_same(&mount);
    shows(&node, "cat tree/a/b/two", "2");
    node.ok("echo changed > tree/a/b/two");
    shows(&mount, "cat tree/a/b/two", "changed");
    mount.ok("mv tree moved; ln -s x moved/link");
    shows(&node, "readlink moved/link", "x");
    assert_eq!(mount.ok("cat @time/-0s/moved/a/one"), "1");
    assert_eq!(mount.versions("moved/a/b/two").len(), node.versions("moved/a/b/two").len());
    // Both reserve in the store.
    node.ok("(set -C; : > lock)");
    mount.run("(set -C; : > lock)").fails();
    let status = mount.status();
    assert_eq!(
        (&status["endpoint"], &status["backend"]),
        (&endpoints.into(), &node.status()["backend"])
    );
    assert_eq!(status["process_id"], mount.process().as_raw());
    mount.ok("revfs log lock > /dev/null; revfs get lock");
    Shell::new(Path::new("/")).run(&format!("revfs umount {}", mount.dir().display())).ok();
    assert!(mount.wait_for_end(wait::LIMIT).success(), "{}", mount.log());
    node.ok("cat moved/a/one");
}

#[test]
fn a_mount_outlives_a_restart_of_the_node() {
    let address = free_address();
    let mut node = Mount::up_with(|place| {
        place.arguments = vec!["--listen".to_owned(), address.clone()];
    });
    let mount = Mount::of(&format!("http://{address}"), &[]);
    mount.ok("echo 1 > f; cat f");
    node.kill();
    let refused = mount.run("timeout 60 cat nothing").fails();
    assert!(!refused.contains("No such file"), "nobody can know: {refused}");
    node.start();
    node.ok("echo 2 > f");
    shows(&mount, "cat f", "2");
    wait::until_true("changes are watched again", wait::LIMIT, || {
        mount.status()["mount"]["watching"] == true
    });
    node.ok("echo 3 > f");
    shows(&mount, "cat f", "3");
}

#[test]
fn nobody_there_is_said_before_anything_is_mounted() {
    let mut mount = Mount::down();
    mount.change_place(|place| place.endpoints = Some(free_address()));
    let said = mount.refuses();
    assert!(said.contains("reach the cluster at http://127.0.0.1:"), "{said}");
    mount.change_place(|place| place.endpoints = Some("ftp://x".to_owned()));
    let said = mount.refuses();
    assert!(said.contains("ftp://x") && said.contains("http://host:2379"), "{said}");
}
