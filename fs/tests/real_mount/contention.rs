//! Several programs on the same few names, on one mount and on two: nothing hangs, nothing differs
//! afterwards, nothing stays staged.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use revfs_fs::filesystem::MountOptions;

use super::live::Live;

/// Does the same operations for the same seed; prints the errors that no race explains.
const PROGRAM: &str = r#"
import errno, os, random, sys
os.chdir(sys.argv[1])
r = random.Random(int(sys.argv[2]))
allowed = {getattr(errno, e) for e in sys.argv[3].split(",")}
names = ["a", "b", "c", "d/a", "d/b", "d/c", "e/a", "e/b", "d", "e"]
for step in range(400):
    one, other = r.choice(names), r.choice(names)
    what = r.randrange(12)
    try:
        if what < 4:
            with open(one, "w") as f: f.write(one * r.randrange(1, 50))
        elif what == 4:
            with open(one, "a") as f: f.write("x")
        elif what == 5: os.rename(one, other)
        elif what == 6: os.unlink(one)
        elif what == 7: os.mkdir(r.choice(["d", "e"]))
        elif what == 8: os.rmdir(r.choice(["d", "e"]))
        elif what == 9:
            f = os.open(one, os.O_RDWR)
            try:
                os.read(f, 10)
                os.pwrite(f, b"Y", r.randrange(20))
            finally: os.close(f)
        elif what == 10: os.chmod(one, r.choice([0o600, 0o644, 0o755]))
        else: os.listdir(".")
    except OSError as e:
        if e.errno not in allowed: print(what, one, other, e)
"#;

const EXPECTED: &str = "ENOENT,EEXIST,ENOTDIR,EISDIR,ENOTEMPTY,EINVAL";

fn start(live: &Live, seed: u32, allowed: &str) -> Child {
    Command::new("timeout")
        .args(["120", "python3", "-c", PROGRAM])
        .arg(live.path())
        .args([&seed.to_string(), allowed])
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is there")
}

fn finish(programs: Vec<Child>) {
    for program in programs {
        let output = program.wait_with_output().expect("it was started");
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    }
}

/// Names, kinds, modes, sizes, owners, times and contents of everything.
fn shown(live: &Live) -> String {
    live.sh("find . -mindepth 1 -printf '%p %y %m %s %U %G %T@ %l\\n' | sort; \
             find . -type f | sort | xargs -r md5sum; ls -R")
}

#[test]
fn programs_on_one_mount_see_one_posix_file_system() {
    let live = Live::new();
    // A name may be taken away between the kernel's LOOKUP and what follows, which tells ESTALE; the
    // kernel looks it up again, once.
    let allowed = format!("{EXPECTED},ESTALE");
    finish((0..4).map(|seed| start(&live, seed, &allowed)).collect());
    assert_eq!(live.sh("grep staged_files @status").trim(), "\"staged_files\": 0,");
    let fresh = Live::of(Arc::clone(&live.memory), MountOptions::default());
    assert_eq!(shown(&live), shown(&fresh));
}

#[test]
fn two_mounts_agree_when_they_have_calmed_down() {
    let one = Live::new();
    let other = Live::of(Arc::clone(&one.memory), MountOptions::default());
    let allowed = format!("{EXPECTED},ESTALE");
    let mounts = [&one, &other];
    finish((0..4).map(|seed| start(mounts[seed as usize % 2], seed, &allowed)).collect());
    let fresh = Live::of(Arc::clone(&one.memory), MountOptions::default());
    let expected = shown(&fresh);
    for live in mounts {
        assert_eq!(live.sh("grep staged_files @status").trim(), "\"staged_files\": 0,");
        let deadline = Instant::now() + Duration::from_secs(10);
        while shown(live) != expected {
            assert!(Instant::now() < deadline, "{}\nis not\n{expected}", shown(live));
        }
    }
}

#[test]
fn a_directory_made_anew_is_alive_though_the_old_one_is_still_held() {
    let live = Live::new();
    let held =
        "mkdir d && cd d && rmdir ../d && mkdir ../d && echo x > ../d/f && ls ../d && ls -A .";
    assert_eq!(live.sh(held), "f\n");
    let replaced = "mkdir e && exec 3< e && mv -T d e && mkdir d && touch d/g && ls d e";
    assert_eq!(live.sh(replaced), "d:\ng\n\ne:\nf\n");
}
