//! Editors' swap and lock files stay in the mount that they are made in.

use revfs_tests::etcd::free_address;
use revfs_tests::{Mount, tools};

/// A node with its mount, and another mount of it.
fn two(arguments: &[&str]) -> (Mount, Mount) {
    let address = free_address();
    let node = Mount::up_with(|place| place.arguments = vec![format!("--listen={address}")]);
    let mount = Mount::of(&format!("http://{address}"), arguments);
    (node, mount)
}

#[test]
fn swap_and_lock_files_are_ordinary_files_in_one_mount_and_nowhere_else() {
    tools::need(&["flock"]);
    let (node, mount) = two(&[]);
    let before = node.revision();
    mount.ok("set -C; echo swap > .f.swp; : > 4913; ln -s me@here.7 '.#f'
chown 1:1 4913; chmod 600 .f.swp; sync .f.swp; touch -d 2020-01-01 .f.swp; setfattr -n user.a -v b .f.swp");
    assert_eq!(
        mount.ok("ls -A | sort | xargs; cat .f.swp; readlink '.#f'; stat -c %u:%g 4913
stat -c '%a %s %y' .f.swp | cut -c-10; getfattr --only-values -n user.a .f.swp"),
        ".#f .f.swp 4913\nswap\nme@here.7\n1:1\n600 5 2020\nb"
    );
    mount.run("flock .f.swp flock -n .f.swp true").fails();
    mount.run("set -C; echo more > .f.swp").fails();
    mount.ok("echo more >> .f.swp; test $(wc -l < .f.swp) = 2; echo again > 4913");
    assert_eq!(mount.status()["mount"]["local_files"], 3);
    assert_eq!(mount.status()["mount"]["staged_files"], 0);
    // Nobody else knows of them.
    assert_eq!(node.ok("ls -A; revfs ls"), "");
    assert_eq!(node.revision(), before);
    mount.ok("mv .f.swp f; rm 4913");
    assert_eq!(node.revision(), before + 1);
    assert_eq!(node.ok("ls -A; cat f; stat -c %a f"), "f\nswap\nmore\n600");
    // A setting of the mount says which.
    let (node, mount) = two(&["-o", "local=*.tmp:b?"]);
    mount.ok("echo x > .f.swp; echo x > a.tmp; echo x > b1");
    assert_eq!(node.ok("ls -A"), ".f.swp");
    let with = |text: &str| {
        let mut mount = Mount::down();
        mount.change_place(|place| place.arguments = vec![format!("--local={text}")]);
        mount
    };
    let mut mount = with("");
    mount.start();
    mount.ok("echo x > .f.swp");
    assert_eq!(mount.ok("revfs get .f.swp"), "x");
    let refused = with("a[b").refuses();
    assert!(refused.contains("has a [ without a ]"), "{refused}");
}

/// What vim does, as a script of its own.
const EDIT: &str = "vim -N -u NONE -i NONE -es";

#[test]
fn an_edit_with_vim_is_one_revision_and_a_second_editor_here_is_warned() {
    tools::need(&["vim"]);
    let (node, mount) = two(&[]);
    mount.ok("echo limit=8 > f");
    let before = node.revision();
    mount.ok(&format!(
        "{EDIT} -c 'set updatecount=1' -c 's/8/16/' -c preserve \
         -c 'call writefile(readdir(\".\"), \"'$SCRATCH/here'\")' \
         -c 'call system(\"cd {node} && ls -A > '$SCRATCH/there'\")' -c wq f",
        node = node.dir().display()
    ));
    assert_eq!(
        mount.ok("sort $SCRATCH/here | xargs; cat $SCRATCH/there f; ls -A"),
        ".f.swp f\nf\nlimit=16\nf"
    );
    assert_eq!(node.revision(), before + 1);
    // One that is killed leaves its swap file: the next is warned, and has back what was typed.
    let killed = mount
        .run(&format!("{EDIT} -c 's/16/32/' -c preserve -c 'call system(\"kill -9 $PPID\")' f"));
    assert_ne!(killed.code(), Some(0));
    mount.ok(&format!(
        "{EDIT} --cmd 'au SwapExists * call writefile([v:swapname], \"'$SCRATCH/warned'\")' \
         --cmd 'au SwapExists * let v:swapchoice=\"r\"' -c wq f; rm .f.swp"
    ));
    assert_eq!(mount.ok("grep -c f.swp $SCRATCH/warned; cat f; ls -A"), "1\nlimit=32\nf");
    assert_eq!(node.revision(), before + 2);
    assert_eq!(node.ok("revfs log . | grep sw; cat f"), "limit=32");
}
