//! Programs on the mount and clients elsewhere change the same few names; in the end what the kernel
//! shows, from caches that it keeps for an hour, is what is stored.

#![expect(clippy::unwrap_used, reason = "what fails here ends its test")]

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use revfs_api::KeySpace;
use revfs_api::keyspace::{Answer, KeyRange, Op, Origin, RangeRead, Read, Revision, Txn};

use super::live::Live;

/// Works on the mount until its time is over; what fails because another was faster is as good. A
/// reader only fills the kernel's caches, by name: a listing would refresh them.
const WORKER: &str = r#"
import os, random, sys, time
random.seed(int(sys.argv[1]))
names = [d + "/" + n for d in ("a", "b", "a/c") for n in "wxyz"]
end = time.time() + float(sys.argv[2])
while time.time() < end:
    name, other = random.choice(names), random.choice(names)
    try:
        step = random.randrange(9) if sys.argv[3] == "writer" else random.randrange(6, 8)
        if step == 0:
            with open(name, "w") as f: f.write(sys.argv[1] * random.randrange(1, 50))
        elif step == 1: os.unlink(name)
        elif step == 2: os.rename(name, other)
        elif step == 3: os.mkdir(random.choice(["a", "b", "a/c"]))
        elif step == 4: os.rmdir(random.choice(["b", "a/c"]))
        elif step == 5: os.listdir(os.path.dirname(name))
        elif step == 6: os.stat(name)
        else: open(name).read()
    except OSError as error:
        if error.errno in (5, 110): raise
"#;

/// Prints each name that leads to a file, with its size and content. Lists no directory: that would
/// refresh what the kernel keeps.
const VIEW: &str = r#"
import os
for directory in ("a", "b", "a/c"):
    for name in "wxyz":
        path = directory + "/" + name
        try: print("/" + path, os.stat(path).st_size, open(path).read())
        except FileNotFoundError: pass
"#;

/// Between two changes made elsewhere.
const PACE: Duration = Duration::from_millis(1);

/// A small pseudo-random sequence (xorshift), so that a run can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn stored(live: &Live) -> BTreeMap<String, String> {
    let all = Read::Range(RangeRead::new(KeyRange::prefix(b"/")));
    let read = live.runtime.block_on(live.memory.read(Revision::NONE, vec![all])).unwrap();
    let Some(Answer::Range(range)) = read.answers.into_iter().next() else { unreachable!() };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    range
        .kvs
        .iter()
        .filter(|kv| !kv.key.ends_with(b"/"))
        .map(|kv| (text(&kv.key), text(&kv.value)))
        .collect()
}

fn shown(live: &Live) -> BTreeMap<String, String> {
    let output = live.run(&format!("python3 -c '{VIEW}'"));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| {
            let mut words = line.splitn(3, ' ');
            let (path, size) = (words.next().unwrap(), words.next().unwrap());
            let content = words.next().unwrap_or_default();
            assert_eq!(size, content.len().to_string(), "{line}");
            (path.to_owned(), content.to_owned())
        })
        .collect()
}

#[test]
fn the_kernel_ends_up_showing_what_is_stored() {
    let live = Live::new();
    live.put("/a/w", "first");
    live.put("/b/w", "first");
    // At the end only what is done elsewhere can make the caches true.
    let time = Duration::from_secs(4);
    let workers: Vec<_> = [("1", "3", "writer"), ("2", "3", "writer"), ("3", "4", "reader")]
        .map(|(seed, seconds, role)| {
            std::process::Command::new("timeout")
                .args(["30", "python3", "-c", WORKER, seed, seconds, role])
                .current_dir(live.path())
                .stderr(Stdio::inherit())
                .spawn()
                .unwrap()
        })
        .into_iter()
        .collect();
    let mut dice = Dice(0x5EED);
    let mut pace = live.runtime.block_on(async { tokio::time::interval(PACE) });
    let end = Instant::now() + time;
    let keys: Vec<String> = ["a", "b", "a/c"]
        .iter()
        .flat_map(|d| ["w", "x", "y", "z"].map(|n| format!("/{d}/{n}")))
        .collect();
    while Instant::now() < end {
        let key = &keys[usize::try_from(dice.roll(12)).unwrap()];
        let op = match dice.roll(4) {
            0 => Op::delete(key.clone()),
            _ => Op::put(key.clone(), "remote".repeat(usize::try_from(dice.roll(9)).unwrap())),
        };
        let txn = Txn { success: vec![op], ..Txn::default() };
        live.runtime.block_on(async {
            live.memory.txn(txn, Origin::default()).await.unwrap();
            pace.tick().await;
        });
    }
    for mut worker in workers {
        assert!(worker.wait().unwrap().success());
    }
    // The last notices may still be on their way.
    let deadline = Instant::now() + Duration::from_secs(10);
    while shown(&live) != stored(&live) {
        if Instant::now() > deadline {
            assert_eq!(shown(&live), stored(&live));
        }
    }
    assert!(live.memory.current().0 > 500, "it was a busy time: {}", live.memory.current());
}
