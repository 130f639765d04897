//! When a FLUSH is a close: how many revisions each shell line makes, through real shells and
//! programs.

use std::time::{Duration, Instant};

use super::live::Live;

/// Runs `script` with `shell` in the mount; the revisions that it made.
fn revisions(live: &Live, shell: &str, script: &str) -> u64 {
    let before = live.memory.current().0;
    assert!(!script.contains('\''), "it is quoted for the outer shell");
    drop(live.sh(&format!("{shell} -ec '{script}'")));
    live.memory.current().0 - before
}

#[test]
fn each_shell_line_is_one_revision() {
    let live = Live::new();
    for shell in ["bash", "dash"] {
        for (script, content) in [
            ("echo x > f; cat f >&2", "x\n"),
            ("echo y >| f", "y\n"),
            ("echo z >> f", "y\nz\n"),
            (": > f", ""),
            ("{ echo a; true; date > /dev/null; echo b; } > f", "a\nb\n"),
            ("{ echo a; /bin/echo b; (echo c); } > f", "a\nb\nc\n"),
            ("(echo a; /bin/true; echo b) > f", "a\nb\n"),
            ("for i in 1 2 3; do echo $i; /bin/true; done > f", "1\n2\n3\n"),
            ("exec 3> f; echo a >&3; /bin/echo b >&3; exec 3>&-", "a\nb\n"),
            ("exec 3> f; exec 4>&3; exec 3>&-; echo a >&4; exec 4>&-", "a\n"),
            ("/bin/echo a > f; test -s f", "a\n"),
            (
                "cat /etc/hosts > f; cmp -s /etc/hosts f; head -c1 f > /dev/null; echo 1 > f.1; rm f.1",
                "",
            ),
            ("echo a | tee f > /dev/null", "a\n"),
            ("f() { echo in; }; f > f", "in\n"),
        ] {
            let expected = if script.contains("f.1") { 3 } else { 1 };
            assert_eq!(revisions(&live, shell, script), expected, "{shell}: {script}");
            if expected == 1 {
                assert_eq!(live.sh("cat f"), content, "{shell}: {script}");
            }
        }
        live.delete("/f");
        live.wait_for("[ ! -e f ]");
    }
    assert_eq!(live.sh("grep blind @status").trim(), "\"blind_flushes\": 0,");
}

#[test]
fn a_program_that_is_killed_publishes_what_it_wrote() {
    let live = Live::new();
    let script = "mkfifo \"$FIFO\"; cat > k < \"$FIFO\" & exec 5> \"$FIFO\"; echo half >&5; \
                  until [ -s k ]; do :; done; kill -9 $!; wait $! || true; rm \"$FIFO\"; cat k";
    let fifo = tempfile::tempdir().unwrap();
    let before = live.memory.current().0;
    let fifo = fifo.path().join("fifo");
    let printed = live.sh(&format!("FIFO={} && {script}", fifo.display()));
    assert_eq!(printed, "half\n");
    assert_eq!(live.memory.current().0 - before, 1);
}

#[test]
fn a_program_sets_what_it_likes_before_it_closes() {
    let live = Live::new();
    let written = "import os\n\
        f = open(\"f\", \"w\"); f.write(\"x\"); f.flush()\n\
        os.fchmod(f.fileno(), 0o600); os.utime(f.fileno(), (5, 5)); os.fchown(f.fileno(), 1, 2)\n\
        os.setxattr(f.fileno(), \"user.a\", b\"b\"); f.write(\"y\"); f.flush(); f.truncate(1)\n\
        os.utime(f.fileno(), (7, 7)); f.close()";
    assert_eq!(python(&live, written), 1);
    assert_eq!(live.sh("stat -c '%s %a %u %g %Y' f; cat f"), "1 600 1 2 7\nx");
    let synced = "import os\n\
        f = open(\"f\", \"w\"); f.write(\"1\"); f.flush(); os.fsync(f.fileno()); f.write(\"2\"); f.close()";
    assert_eq!(python(&live, synced), 2);
    let forked = "import os, subprocess\n\
        f = open(\"f\", \"w\"); f.write(\"a\\n\"); f.flush()\n\
        subprocess.run([\"echo\", \"b\"], stdout=f); f.write(\"c\\n\"); f.close()";
    assert_eq!(python(&live, forked), 1);
    assert_eq!(live.sh("cat f"), "a\nb\nc\n");
    let threads = "import threading\n\
        files = []\n\
        t = threading.Thread(target=lambda: files.append(open(\"f\", \"w\"))); t.start(); t.join()\n\
        files[0].write(\"t\"); files[0].flush(); g = open(\"f\"); g.read(); g.close(); files[0].close()";
    assert_eq!(python(&live, threads), 1);
    assert_eq!(live.sh("cat f"), "t");
}

fn python(live: &Live, program: &str) -> u64 {
    let before = live.memory.current().0;
    drop(live.sh(&format!("python3 -c '{program}'")));
    live.memory.current().0 - before
}

#[test]
fn a_store_to_a_mapping_after_the_close_is_committed_at_the_release() {
    let live = Live::new();
    drop(live.sh("echo hello > m"));
    let before = live.memory.current().0;
    let program = "import mmap\n\
        f = open(\"m\", \"r+b\"); m = mmap.mmap(f.fileno(), 0); f.close(); m[0:5] = b\"HELLO\"; m.close()";
    drop(live.sh(&format!("python3 -c '{program}'")));
    let deadline = Instant::now() + Duration::from_secs(20);
    while live.memory.current().0 == before {
        assert!(Instant::now() < deadline, "the mapping's bytes were never committed");
    }
    assert_eq!(live.sh("cat m"), "HELLO\n");
    assert_eq!(live.memory.current().0 - before, 1);
}

#[test]
fn each_tool_that_copies_makes_as_few_revisions_as_it_lets_us() {
    let live = Live::new();
    let source = tempfile::tempdir().unwrap();
    let from = source.path().display();
    let prepare = format!(
        "cd {from} && echo text > s && chmod 640 s && chown 3:4 s && touch -d @1000000000.5 s \
         && tar --format=posix -cf s.tar s"
    );
    drop(live.sh(&prepare));
    let stat = "stat -c '%a %u %g %.1Y %s'";
    let all = "640 3 4 1000000000.5 5\n";
    // What closes a file before it sets attributes by name makes a revision of each.
    let expected = [
        ("cp --preserve=all S/s c", 1),
        ("cp -a S/s a", 1),
        ("tar xpf S/s.tar && mv s t", 2),
        ("install -m 640 -o 3 -g 4 -p S/s i", 3),
        ("rsync -a S/s r", 5),
        ("dd if=S/s of=d status=none", 1),
        ("touch n", 1),
        ("truncate -s 10 n", 1),
        ("cp S/s c2 && mv c2 c", 2),
        ("ln -s x l", 1),
    ];
    let mut counted = Vec::new();
    for (script, _) in expected {
        let before = live.memory.current().0;
        drop(live.sh(&script.replace('S', &source.path().display().to_string())));
        counted.push((script, live.memory.current().0 - before));
    }
    assert_eq!(counted, expected.to_vec());
    for file in ["a", "t", "i", "r"] {
        assert_eq!(live.sh(&format!("{stat} {file}")), all, "{file}");
    }
    assert_eq!(live.sh(&format!("cmp a {from}/s && stat -c %s n")), "10\n");
}

#[test]
fn editors_leave_what_they_wrote() {
    let live = Live::new();
    drop(live.sh("printf 'a\\nb\\n' > f"));
    assert_eq!(live.sh("sed -i s/a/A/ f && cat f"), "A\nb\n");
    assert_eq!(live.sh("printf 's/b/B/\\nw\\nq\\n' | ed -s f && cat f"), "A\nB\n");
    assert_eq!(live.sh("perl -pi -e s/A/x/ f && cat f"), "x\nB\n");
    let patch = "--- f\n+++ f\n@@ -1,2 +1,2 @@\n-x\n+y\n B\n";
    assert_eq!(live.sh(&format!("printf '%s' '{patch}' | patch -s f && cat f")), "y\nB\n");
    assert_eq!(live.sh("vim -es -u NONE -c '1s/y/z/' -c wq f; cat f"), "z\nB\n");
    assert_eq!(live.sh("ls -A"), "f\n");
}

#[test]
fn git_works_in_a_mount() {
    let live = Live::new();
    let setup = "export HOME=$PWD GIT_CONFIG_NOSYSTEM=1; git init -q . && git config user.email a@b \
        && git config user.name a && mkdir d && echo 1 > d/f && ln -s d/f l && git add -A \
        && git commit -qm one && echo 2 > d/f && git mv d e && git commit -qam two";
    drop(live.sh(setup));
    let log =
        "export HOME=$PWD; git log --format=%s && git status --porcelain && git fsck --strict";
    assert_eq!(live.sh(log), "two\none\n");
    assert_eq!(live.sh("export HOME=$PWD; git worktree add -q w HEAD~1 && cat w/d/f"), "1\n");
    assert_eq!(live.sh("rm -rf w e d l .git .gitconfig; ls -A"), "");
}

#[test]
fn appended_lines_of_two_writers_are_all_there() {
    let live = Live::new();
    let loops = "for n in 1 2; do (for i in $(seq 50); do echo $n.$i >> log; done) & done; wait; \
        sort -u log | wc -l";
    assert_eq!(live.sh(loops).trim(), "100");
    let held = "exec 3>> log; echo a >&3; exec 4>> log; echo b >&4; exec 3>&- 4>&-; tail -n 2 log";
    assert_eq!(live.sh(held), "a\nb\n");
}

#[test]
fn appended_bytes_of_an_open_file_are_published_when_it_is_idle() {
    let live = Live::new();
    drop(live.sh("echo 0 > log"));
    let before = live.memory.current().0;
    let script = "exec 3>> log; echo 1 >&3; R=$(grep -o '\"revision\": [0-9]*' @status); \
         until [ \"$(grep -o '\"revision\": [0-9]*' @status)\" != \"$R\" ]; do :; done; echo 2 >&3";
    drop(live.sh(script));
    assert_eq!(live.memory.current().0 - before, 2);
    assert_eq!(live.sh("cat log"), "0\n1\n2\n");
}
