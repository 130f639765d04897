//! A prefix that is kept up to date in another cluster, between revfs and a real etcd, both ways.

use std::path::Path;

use nix::sys::signal::Signal;
use revfs_tests::dice::Dice;
use revfs_tests::{Etcd, Server, Shell, wait};

fn shell() -> Shell {
    Shell::new(Path::new("/")).variable("ETCDCTL_API", "3")
}

fn ctl(endpoint: &str, line: &str) -> String {
    shell()
        .run(&format!(
            "etcdctl --dial-timeout=60s --command-timeout=60s --endpoints={endpoint} {line}"
        ))
        .ok()
}

/// Keys and values, the source's prefix replaced by the destination's.
fn keys(endpoint: &str, prefix: &str) -> Vec<String> {
    let said = ctl(endpoint, &format!("get --prefix {prefix}"));
    said.lines().map(|line| line.replacen(prefix, "@", 1)).collect()
}

fn wait_equal(source: (&str, &str), destination: (&str, &str)) {
    wait::until_true("equal prefixes", wait::LIMIT, || {
        keys(source.0, source.1) == keys(destination.0, destination.1)
    });
}

/// Changes of the source while a mirror runs that is killed again and again.
fn follows_through_kills(source: &str, destination: &str, dice: &mut Dice) {
    ctl(source, "put /app/first 1");
    ctl(source, "put /other/key 1");
    let line = format!(
        "exec revfs mirror {source} {destination} --prefix /app/ --dest-prefix /copy/ --json"
    );
    for round in 0..4 {
        let mirror = shell().start(&line);
        for step in 0..14 {
            let key = dice.below(12);
            let line = match dice.below(4) {
                0 => format!("del --prefix /app/k{key}"),
                1 => format!(
                    "txn <<< $'\\nput /app/k{key} t{round}.{step}\\nput /app/both {step}\\n\\n'"
                ),
                _ => format!("put /app/k{key} v{round}.{step}"),
            };
            ctl(source, &line);
            if step == 10 && round % 2 == 0 {
                mirror.signal(Signal::SIGKILL);
            }
        }
        if round % 2 == 1 {
            wait_equal((source, "/app/"), (destination, "/copy/"));
            mirror.signal(Signal::SIGTERM);
        }
        drop(mirror.finish(wait::LIMIT));
    }
    // What it missed is forgotten: it compares, and changes only what differs.
    ctl(source, "put /app/k1 late");
    ctl(source, "put /app/k2 late");
    let said: serde_json::Value =
        serde_json::from_str(&ctl(source, "get none -w json")).expect("JSON");
    ctl(source, &format!("compact {}", said["header"]["revision"]));
    ctl(destination, "put /copy/stray v");
    let said = shell().run(&line.replace("--json", "--once")).ok();
    assert!(said.contains("3 keys changed") && said.contains("every key compared"), "{said}");
    assert_eq!(keys(source, "/app/"), keys(destination, "/copy/"));
    assert_eq!(ctl(destination, "get --prefix /other/"), "");
    let said = shell().run(&line.replace("--json", "--once")).ok();
    assert!(!said.contains("changed"), "there was nothing to do: {said}");
}

#[test]
fn a_prefix_of_etcd_is_mirrored_into_revfs_and_on_again_after_each_kill() {
    let (etcd, server) = (Etcd::start(), Server::start(&[]));
    let mut dice = Dice::new("etcd to revfs");
    follows_through_kills(&etcd.endpoint(), server.url(), &mut dice);
}

#[test]
fn a_prefix_of_revfs_is_mirrored_into_etcd_and_on_again_after_each_kill() {
    let (etcd, server) = (Etcd::start(), Server::start(&[]));
    let mut dice = Dice::new("revfs to etcd");
    follows_through_kills(server.url(), &etcd.endpoint(), &mut dice);
}

#[test]
fn a_mirror_is_refused_where_it_would_go_round_or_replace_something() {
    let (etcd, server) = (Etcd::start(), Server::start(&[]));
    let (one, other) = (etcd.endpoint(), server.url().to_owned());
    ctl(&one, "put /app/a 1");
    let mirror = |from: &str, to: &str, rest: &str| {
        shell().run(&format!("revfs mirror {from} {to} --once --prefix {rest}"))
    };
    drop(mirror(&one, &other, "/app/").ok());
    let said = mirror(&other, &one, "/app/").fails_saying("changes would go round for ever");
    assert!(said.contains("end the mirror"), "{said}");
    mirror(&other, &one, "'' --dest-prefix /all/").fails_saying("would go round");
    mirror(&one, &one, "/app/ --dest-prefix /b/").fails_saying("the same cluster");
    // Another prefix goes the other way.
    ctl(&other, "put /back/a 1");
    drop(mirror(&other, &one, "/back/").ok());
    assert_eq!(ctl(&one, "get /back/a"), "/back/a\n1");
    // What nobody mirrored is not deleted.
    ctl(&other, "put /mine/x 1");
    mirror(&one, &other, "/app/ --dest-prefix /mine/").fails_saying("that no mirror put there");
    assert_eq!(ctl(&other, "get /mine/x"), "/mine/x\n1");
    mirror(&one, &other, "/other/ --dest-prefix /app/")
        .fails_saying("the mirror of another source");
    drop(mirror(&one, &other, "/app/ --dest-prefix /mine/ --overwrite").ok());
    assert_eq!(ctl(&other, "get --prefix /mine/"), "/mine/a\n1");
}

#[test]
fn a_destination_that_stays_away_ends_a_mirror_after_so_many_retries_or_so_long() {
    let (etcd, mut server) = (Etcd::start(), Server::start(&[]));
    let (source, destination) = (etcd.endpoint(), server.url().to_owned());
    ctl(&source, "put /app/k 1");
    let begin = |copy: &str, bound: &str| {
        shell().start(&format!(
            "revfs mirror {source} {destination} --prefix /app/ --dest-prefix {copy} {bound} 2>&1; echo code $?"
        ))
    };
    let (counted, timed) = (begin("/a/", "--retries 2"), begin("/b/", "--retry-for 1"));
    for copy in ["/a/", "/b/"] {
        wait_equal((&source, "/app/"), (&destination, copy));
    }
    server.signal(Signal::SIGKILL);
    server.wait_for_end(wait::LIMIT);
    ctl(&source, "put /app/k 2");
    for (mirror, words) in [(counted, "gave up after 2 retries in"), (timed, "gave up after ")] {
        let said = mirror.finish(wait::LIMIT).ok();
        for words in
            [words, "waiting: ", "it goes on where it was; --retries and --retry-for", "code 4"]
        {
            assert!(said.contains(words), "{words}: {said}");
        }
    }
}
