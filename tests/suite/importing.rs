//! The data of a real etcd, taken over: every revision that it has, and nothing that it has not.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use revfs_cluster::import::{Bolt, EtcdImportError, ImportOptions, import, survey};
use revfs_tests::dice::Dice;
use revfs_tests::{Etcd, Shell, serve::Server};
use serde_json::Value;
use tempfile::TempDir;

/// To hash a password takes long on a busy machine.
const PATIENT: &str = "--dial-timeout=60s --command-timeout=60s";

/// What `inspect --check` says of a directory in which all agrees.
const WHOLE: &str = "checked every page, row and invariant: 0 violations";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A random history: puts, deletions of keys and ranges, nested transactions, leases, compaction.
fn make_history(etcd: &Etcd, dice: &mut Dice, steps: usize) {
    let shell = Shell::new(Path::new("/")).variable("ETCDCTL_API", "3");
    let lease = |ttl: u32| {
        let said = etcd.ctl(&["lease", "grant", &ttl.to_string()]);
        said.split_whitespace().nth(1).expect("a lease").to_owned()
    };
    let leases = [lease(3_600), lease(7_200), lease(9_000)];
    let mut lines = Vec::new();
    for step in 0..steps {
        let key = format!("/d{}/k{}", dice.below(3), dice.below(8));
        let other = format!("/d{}/k{}", dice.below(3), dice.below(8) + 10);
        let line = match dice.below(10) {
            0..=3 => format!("put {key} v{step}"),
            4 => format!("put {key} v{step} --lease={}", leases[pick(dice, 2)]),
            5 => format!("put {key} v{step} --lease={}", leases[2]),
            6 => format!("del {key}"),
            7 => format!("del --prefix /d{}/k1", dice.below(3)),
            _ => format!(
                "txn <<< $'mod(\"{key}\") > \"0\"\\n\\nput {key} t{step}\\nput {other} t{step}\\ndel --prefix /d{}/k9\\n\\nput {other} f{step}\\n\\n'",
                dice.below(3)
            ),
        };
        lines.push(format!("etcdctl --endpoints={} {line} >/dev/null", etcd.endpoint()));
    }
    drop(shell.run(&format!("set -e\n{}", lines.join("\n"))).ok());
    etcd.ctl(&["lease", "revoke", &leases[2]]);
}

fn pick(dice: &mut Dice, bound: usize) -> usize {
    let bound = u64::try_from(bound).expect("a small number");
    usize::try_from(dice.below(bound)).expect("below a small number")
}

fn revision(etcd: &Etcd) -> u64 {
    let said = json(&etcd.ctl(&["get", "none", "-w", "json"]));
    said["header"]["revision"].as_u64().expect("a revision")
}

fn save(etcd: &Etcd, directory: &Path, name: &str) -> PathBuf {
    let file = directory.join(name);
    etcd.ctl(&["snapshot", "save", &file.display().to_string()]);
    file
}

fn hash_of(endpoint: &str, revision: u64) -> Value {
    let line = format!(
        "ETCDCTL_API=3 etcdctl {PATIENT} --endpoints={endpoint} endpoint hashkv --rev={revision} -w json"
    );
    let said = json(&Shell::new(Path::new("/")).run(&line).ok());
    said[0]["HashKV"]["hash"].clone()
}

fn ctl(endpoint: &str, line: &str) -> String {
    let line = format!("ETCDCTL_API=3 etcdctl {PATIENT} --endpoints={endpoint} {line}");
    Shell::new(Path::new("/")).run(&line).ok()
}

#[test]
fn an_imported_etcd_has_every_revision_with_the_same_hash() {
    let etcd = Etcd::start();
    let directory = TempDir::new().expect("a directory");
    let mut dice = Dice::new("import");
    make_history(&etcd, &mut dice, 80);
    let half = revision(&etcd) / 2;
    etcd.ctl(&["compact", "--physical", &half.to_string()]);
    make_history(&etcd, &mut dice, 40);
    let last = revision(&etcd);
    let file = save(&etcd, directory.path(), "saved.db");
    let shell = Shell::new(directory.path());
    let said = shell.run("revfs import saved.db --data-dir data --json").ok();
    let (survey, imported) = said.split_once('\n').expect("two documents");
    let (survey, imported) = (json(survey), json(imported));
    assert_eq!((&survey["revision"], &survey["is_verified"]), (&last.into(), &true.into()));
    assert_eq!(
        (&imported["revision"], &imported["compacted_revision"]),
        (&last.into(), &half.into())
    );
    assert!(imported["compared"].as_u64() > Some(40), "{imported}");
    assert_eq!(imported["notes"], Value::Array(Vec::new()), "{imported}");
    assert_eq!(shell.run("revfs inspect data --check | tail -1").ok(), WHOLE);
    let again = shell.run(&format!("revfs import {} --data-dir data", file.display()));
    assert_eq!(again.code(), Some(3));

    let server = Server::of(&directory.path().join("data"), &[]);
    let (own, other) = (server.url(), etcd.endpoint());
    for at in half + 1..=last {
        assert_eq!(hash_of(own, at), hash_of(&other, at), "at revision {at} of {half}..={last}");
    }
    for at in [half, half + 7, last] {
        let line =
            format!("get --prefix / --rev={at} -w fields | grep -v -e ID -e Raft -e Revision");
        assert_eq!(ctl(own, &line), ctl(&other, &line));
    }
    assert_eq!(ctl(own, "lease list"), ctl(&other, "lease list"));
    // Both go on alike.
    for endpoint in [own, &other] {
        ctl(endpoint, "put /d1/k1 on");
        ctl(endpoint, "del --prefix /d2/");
        ctl(endpoint, &format!("compact --physical {}", last - 3));
    }
    assert_eq!(hash_of(own, last + 2), hash_of(&other, last + 2));
}

/// etcd 3.4 keeps nothing of a revision that only deleted, once it is compacted at it.
#[test]
fn a_deletion_at_the_compacted_revision_leaves_a_revision_without_changes() {
    let etcd = Etcd::start();
    let directory = TempDir::new().expect("a directory");
    for line in ["put /kept 1", "put /gone 1", "del /gone"] {
        etcd.ctl(&line.split(' ').collect::<Vec<_>>());
    }
    let deleted = revision(&etcd);
    etcd.ctl(&["compact", "--physical", &deleted.to_string()]);
    let shell = Shell::new(directory.path());
    for round in 0..2 {
        save(&etcd, directory.path(), "saved.db");
        drop(shell.run(&format!("revfs import saved.db --data-dir data{round}")).ok());
        let data = directory.path().join(format!("data{round}"));
        assert_eq!(shell.run(&format!("revfs inspect data{round} --check | tail -1")).ok(), WHOLE);
        let server = Server::of(&data, &[]);
        let (own, other) = (server.url(), etcd.endpoint());
        let last = revision(&etcd);
        for at in deleted + 1..=last {
            assert_eq!(hash_of(own, at), hash_of(&other, at), "at revision {at} of {deleted}");
        }
        let line = format!("get --prefix / --rev={deleted} -w fields | grep Key");
        assert_eq!(ctl(own, &line), ctl(&other, &line));
        etcd.ctl(&["put", "/new", "1"]);
    }
}

#[test]
fn users_roles_and_long_keys_come_along_or_are_named() {
    let etcd = Etcd::start();
    let directory = TempDir::new().expect("a directory");
    let long = "x".repeat(2_000);
    etcd.ctl(&["put", "before", "v"]);
    etcd.ctl(&["put", &long, "v"]);
    etcd.ctl(&["put", "after", "v"]);
    for line in [
        "user add root:secret",
        "role add root",
        "user grant-role root root",
        "role add reader",
        "role grant-permission reader read after",
        "user add ann:pw",
        "user grant-role ann reader",
        "auth enable",
    ] {
        etcd.ctl(&line.split(' ').collect::<Vec<_>>());
    }
    let line = format!(
        "ETCDCTL_API=3 etcdctl {PATIENT} --user root:secret --endpoints={} snapshot save saved.db",
        etcd.endpoint()
    );
    let shell = Shell::new(directory.path());
    drop(shell.run(&line).ok());
    let refused = shell.run("revfs import saved.db --data-dir data");
    let said = refused.fails_saying("1 keys are longer than 1900 bytes");
    assert!(
        said.contains("--skip-long-keys") && said.contains("too long: 2000 bytes: xxx"),
        "{said}"
    );
    assert!(!directory.path().join("data").exists());
    drop(shell.run("revfs import saved.db --data-dir data --skip-long-keys").ok());
    assert_eq!(shell.run("revfs inspect data --check | tail -1").ok(), WHOLE);
    let server = Server::of(&directory.path().join("data"), &[]);
    assert_eq!(ctl(server.url(), "--user ann:pw get after"), "after\nv");
    let line = format!(
        "ETCDCTL_API=3 etcdctl {PATIENT} --endpoints={} --user ann:pw get before",
        server.url()
    );
    Shell::new(Path::new("/")).run(&line).fails_saying("permission denied");
    assert_eq!(ctl(server.url(), "--user root:secret get before --rev=3"), "before\nv");
}

#[test]
fn a_running_etcd_is_asked_for_its_snapshot() {
    let etcd = Etcd::start();
    let directory = TempDir::new().expect("a directory");
    etcd.ctl(&["put", "a", "1"]);
    etcd.ctl(&["put", "a", "2"]);
    let line = format!("revfs import {} --data-dir data", etcd.endpoint());
    let said = Shell::new(directory.path()).run(&line).ok();
    assert!(said.contains("revision 3, compacted at 0, 2 rows"), "{said}");
    assert!(!directory.path().join("data.etcd").exists());
    let server = Server::of(&directory.path().join("data"), &[]);
    assert_eq!(ctl(server.url(), "get a --rev=2"), "a\n1");
}

/// Bits are flipped all over a real file: each time it is refused, or taken for what it says, and nothing
/// panics.
#[test]
fn damaged_files_are_refused_or_read_and_never_end_the_program() {
    let etcd = Etcd::start();
    let directory = TempDir::new().expect("a directory");
    let mut dice = Dice::new("damage");
    make_history(&etcd, &mut dice, 40);
    let whole = std::fs::read(save(&etcd, directory.path(), "saved.db")).expect("it was saved");
    let path = directory.path().join("damaged.db");
    let mut damaged = whole.clone();
    damaged[5_000] ^= 1;
    std::fs::write(&path, &damaged).expect("it can be written");
    let error = Bolt::open(&path).expect_err("the digest stands behind it");
    assert!(error.to_string().contains("SHA-256"), "{error}");
    // Without the digest the pages are on their own.
    let data = &whole[..whole.len() - 32];
    // Where something stands is worth more than the zeros between.
    let used: Vec<usize> = (0..data.len()).filter(|&at| data[at] != 0).collect();
    let (mut refused, mut read) = (0, 0);
    let mut on_progress = |_| Ok(());
    for round in 0..800 {
        let mut damaged = data.to_vec();
        for _ in 0..=dice.below(3) {
            let at = match round % 4 {
                0 => pick(&mut dice, data.len()),
                _ => used[pick(&mut dice, used.len())],
            };
            damaged[at] ^= 1 << dice.below(8);
        }
        if round % 50 == 0 {
            damaged.truncate(pick(&mut dice, data.len()));
        }
        std::fs::write(&path, &damaged).expect("it can be written");
        let looked = Bolt::open(&path).map_err(EtcdImportError::from);
        match looked.and_then(|bolt| survey(&bolt, &mut on_progress).map(|found| (bolt, found))) {
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
            Ok((bolt, found)) => {
                read += 1;
                if round % 100 == 0 {
                    let options = ImportOptions { skip_long_keys: true, verify: true, time: 1 };
                    let target = directory.path().join(format!("data-{round}"));
                    // Whatever it says, it says it in order.
                    drop(import(&bolt, &found, &target, options, &mut on_progress));
                }
            }
        }
    }
    assert!(refused > 0 && read > 0, "{refused} were refused, {read} were read");
    let bolt = {
        std::fs::write(&path, data).expect("it can be written");
        Bolt::open(&path).expect("it is whole")
    };
    let mut rows = 0;
    let found = bolt.rows::<EtcdImportError>(b"key", &mut |_, _| {
        rows += 1;
        Ok(ControlFlow::Continue(()))
    });
    assert!(found.expect("it is whole") && rows > 0 && !bolt.is_verified);
}
