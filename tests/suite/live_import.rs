//! The keys of a running etcd, copied into a running cluster while clients go on changing them.

use std::path::Path;

use nix::sys::signal::Signal;
use revfs_tests::dice::Dice;
use revfs_tests::{Etcd, Server, Shell, wait};
use serde_json::Value;

const PATIENT: &str = "--dial-timeout=60s --command-timeout=60s";

fn shell() -> Shell {
    Shell::new(Path::new("/")).variable("ETCDCTL_API", "3")
}

fn ctl(endpoint: &str, line: &str) -> String {
    shell().run(&format!("etcdctl {PATIENT} --endpoints={endpoint} {line}")).ok()
}

/// Several lines of etcdctl by one shell.
fn change(endpoint: &str, lines: &[String]) {
    let line =
        |line: &String| format!("etcdctl {PATIENT} --endpoints={endpoint} {line} >/dev/null");
    let lines: Vec<String> = lines.iter().map(line).collect();
    drop(shell().run(&format!("set -e\n{}", lines.join("\n"))).ok());
}

fn documents(said: &str) -> Vec<Value> {
    let whole = said.lines().filter(|line| line.ends_with('}'));
    whole.map(|line| serde_json::from_str(line).expect("a document a line")).collect()
}

/// Random changes of few keys, in one revision or in several.
fn random_changes(dice: &mut Dice, round: u64) -> Vec<String> {
    let change = |step: u64| {
        let key = dice.below(12);
        match dice.below(4) {
            0 => format!("del --prefix /k{key}"),
            1 => format!("txn <<< $'\\nput /k{key} t{round}.{step}\\nput /both {step}\\n\\n'"),
            _ => format!("put /k{key} v{round}.{step}"),
        }
    };
    (0..10).map(change).collect()
}

#[test]
fn a_running_etcd_is_imported_with_all_that_happens_meanwhile_and_on_again_after_each_kill() {
    let (etcd, server) = (Etcd::start(), Server::start(&[]));
    let (source, destination) = (etcd.endpoint(), server.url());
    let mut dice = Dice::new("live import");
    change(&source, &random_changes(&mut dice, 0));
    let line = format!("exec revfs import {source} --to {destination} --follow --json");
    for round in 1..4 {
        let import = shell().start(&line);
        if dice.below(2) == 0 {
            wait::until_true("an import that follows", wait::LIMIT, || {
                import.stdout().contains("shows")
            });
        }
        change(&source, &random_changes(&mut dice, round));
        import.signal(Signal::SIGKILL);
        drop(import.finish(wait::LIMIT));
        change(&source, &random_changes(&mut dice, round));
    }
    let import = shell().start(&line);
    change(&source, &random_changes(&mut dice, 4));
    wait::until_true("an import that follows", wait::LIMIT, || import.stdout().contains("shows"));
    change(&source, &["put /last 1".to_owned()]);
    // What has happened before the signal is there when it ends, and was compared.
    import.signal(Signal::SIGTERM);
    let said = documents(&import.finish(wait::LIMIT).ok());
    let wanted = ctl(&source, "get --prefix /");
    assert_eq!(ctl(destination, "get --prefix /"), wanted);
    let end = said.last().expect("it says how it ended");
    let keys = u64::try_from(wanted.lines().count() / 2).expect("few keys");
    assert_eq!((&end["compared"], &end["compared_keys"]), (&true.into(), &keys.into()), "{end}");
    let revision = ctl(&source, "get none -w json");
    let revision: Value = serde_json::from_str(&revision).expect("JSON");
    assert_eq!(end["done"], revision["header"]["revision"]);
    // The look before it was told.
    assert_eq!(said[0]["long_keys_count"], 0);
    assert!(said[0]["keys"].as_u64() > Some(0), "{}", said[0]);
}

#[test]
fn long_keys_are_named_before_an_import_begins_and_what_was_finished_is_nobodys_mirror() {
    let (etcd, server) = (Etcd::start(), Server::start(&[]));
    let (source, destination) = (etcd.endpoint(), server.url());
    let long = "x".repeat(2_000);
    let lease = ctl(&source, "lease grant 3600");
    let lease = lease.split_whitespace().nth(1).expect("a lease");
    change(
        &source,
        &["put /a 1".to_owned(), format!("put {long} 1"), format!("put /b 2 --lease={lease}")],
    );
    let import = format!("revfs import {source} --to {destination}");
    let refused = shell().run(&import);
    let said = refused.fails_saying("1 key longer than 1900 bytes");
    assert!(said.contains("too long: 2000 bytes: xxx"), "{said}");
    assert!(said.contains("--skip-long-keys") && said.contains("1 of them on leases"), "{said}");
    assert_eq!(shell().run(&import).code(), Some(3));
    let all = "get '' --prefix --keys-only";
    assert_eq!(ctl(destination, all), "", "nothing was begun");
    let said = shell().run(&format!("{import} --skip-long-keys")).ok();
    assert!(
        said.contains("2 keys changed") && said.contains("every key compared: 2 keys"),
        "{said}"
    );
    assert_eq!(ctl(destination, "get --prefix /"), "/a\n1\n/b\n2");
    // So are those that come while it is followed.
    let following = shell().start(&format!("exec {import} --skip-long-keys --follow --json"));
    wait::until_true("an import that follows", wait::LIMIT, || {
        following.stdout().contains("shows")
    });
    change(&source, &["put /c 3".to_owned(), format!("put {long} 2"), "del /a".to_owned()]);
    wait::until_true("what came behind the long key", wait::LIMIT, || {
        ctl(destination, "get --prefix / --keys-only").replace('\n', " ") == "/b  /c"
    });
    following.signal(Signal::SIGINT);
    drop(following.finish(wait::LIMIT).ok());
    // Who does not leave it out is told which one it is.
    change(&source, &[format!("put {long} 3")]);
    let mirror = format!("exec revfs mirror {source} {destination} --prefix ''");
    shell().run(&mirror).fails_saying("puts a key of 2000 bytes (encoded)");
    // Once it is finished it leaves nothing, and what it has brought is the destination's own.
    drop(shell().run(&format!("{import} --skip-long-keys --finish")).ok());
    assert_eq!(ctl(destination, all).replace('\n', " "), "/b  /c");
    let again = shell().run(&format!("{import} --skip-long-keys"));
    again.fails_saying("that no mirror put there");
}

#[test]
fn what_an_import_is_told_must_fit_together() {
    for (line, words) in [
        ("saved.db --to http://127.0.0.1:1", "is a file"),
        ("http://127.0.0.1:1", "--data-dir"),
        ("http://127.0.0.1:1 --to http://127.0.0.1:1 --data-dir d", "cannot be used with"),
        ("http://127.0.0.1:1 --data-dir d --follow", "cannot be used with"),
    ] {
        let refused = shell().run(&format!("revfs import {line}"));
        refused.fails_saying(words);
        assert_eq!(shell().run(&format!("revfs import {line}")).code(), Some(2), "{line}");
    }
}

#[test]
fn roles_come_along_and_leases_at_the_end_of_a_move_and_users_are_named() {
    let (etcd, server) = (Etcd::start(), Server::start(&[]));
    let (source, destination) = (etcd.endpoint(), server.url());
    let lease = ctl(&source, "lease grant 3600");
    let lease = lease.split_whitespace().nth(1).expect("a lease").to_owned();
    let lines = [
        "role add readers",
        "role grant-permission readers read --prefix /app/",
        "role add writers",
        "role grant-permission writers readwrite /app/a",
        "role grant-permission writers write /app/b /app/d",
        "user add alice:secret",
        "user grant-role alice readers",
        "put /app/b 2",
    ];
    change(&source, &lines.map(str::to_owned));
    change(&source, &[format!("put /app/a 1 --lease={lease}"), "lease grant 60".to_owned()]);
    let import =
        |more: &str| shell().run(&format!("revfs import {source} --to {destination} {more}"));
    let roles = |at: &str| ctl(at, "role get readers") + &ctl(at, "role get writers");
    let said = import("").ok();
    for words in [
        "not taken over: user alice: revfs user add alice; revfs user grant alice readers",
        "not taken over: leases, without --finish",
        "2 roles taken over",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert_eq!(roles(destination), roles(&source));
    assert_eq!(ctl(destination, "lease list"), "found 0 leases");
    // What a killed one has not done yet is done by the next; what is somebody's own is not touched.
    change(destination, &["role revoke-permission writers /app/a".to_owned()]);
    drop(import("").ok());
    assert_eq!(roles(destination), roles(&source));
    change(destination, &["role grant-permission readers read /other".to_owned()]);
    import("").fails_saying("role readers permits more at the destination");
    assert_eq!(import("").code(), Some(3));
    drop(import("--overwrite").ok());
    assert_eq!(roles(destination), roles(&source));
    // What somebody else has changed is found, and the next run changes it back.
    change(destination, &["put /app/b stray".to_owned()]);
    import("").fails_saying("run it again");
    drop(import("").ok());
    // Of a part of the keys roles would mean something else.
    let said = import("--prefix /app/ --dest-prefix /part/").ok();
    assert!(said.contains("not taken over: roles: only a part"), "{said}");
    drop(shell().run(&format!("revfs del --prefix /part/ --endpoint {destination}")).ok());
    let said = import("--finish --overwrite").ok();
    assert!(said.contains("2 leases with 1 key taken over"), "{said}");
    let state = ctl(destination, &format!("lease timetolive {lease} --keys"));
    assert!(state.contains("granted with TTL(3600s)") && state.contains("[/app/a]"), "{state}");
    assert_eq!(ctl(destination, "get --prefix /"), "/app/a\n1\n/app/b\n2");
    change(destination, &[format!("lease revoke {lease}")]);
    assert_eq!(ctl(destination, "get --prefix /"), "/app/b\n2");
}

#[test]
fn without_the_right_to_see_roles_the_keys_come_along_and_the_roles_with_who_may() {
    let (etcd, server) = (Etcd::start(), Server::start(&[]));
    let (source, destination) = (etcd.endpoint(), server.url());
    let lines =
        ["role add readers", "role grant-permission readers read --prefix /app/", "put /app/a 1"];
    change(&source, &lines.map(str::to_owned));
    let lines = [
        "role add mover",
        "role grant-permission mover readwrite --prefix ''",
        "user add mover:m",
        "user grant-role mover mover",
        "role add root",
        "user add root:r",
        "user grant-role root root",
        "auth enable",
    ];
    change(destination, &lines.map(str::to_owned));
    let import = |user: &str| {
        shell().run(&format!("revfs import {source} --to {destination} --dest-user {user}"))
    };
    let said = import("mover:m").ok();
    assert!(said.contains("no role taken over: only root may see those"), "{said}");
    let root = |line: &str| ctl(destination, &format!("--user root:r {line}"));
    assert_eq!(root("get /app/a"), "/app/a\n1");
    assert_eq!(root("role list"), "mover\nroot");
    let said = import("root:r").ok();
    assert!(said.contains("1 role taken over"), "{said}");
    assert_eq!(root("role get readers"), ctl(&source, "role get readers"));
}
