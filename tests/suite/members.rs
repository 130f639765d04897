//! Members come, go and are replaced, by lines that an operator types, with real processes.

use std::fs::File;
use std::io::Write as _;
use std::process::Output;

use revfs_tests::Cluster;
use revfs_tests::wait;
use serde_json::Value;

/// The exit code of a member that was removed.
const REMOVED: Option<i32> = Some(6);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What `revfs member …` did, as somebody types it to a member.
fn run(cluster: &Cluster, at: u8, line: &str) -> Output {
    let words: Vec<&str> = ["member"].into_iter().chain(line.split(' ')).collect();
    let mut command = cluster.revfs(&cluster.client(at), &words);
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Repeats a line until it succeeds: on a busy machine leaders change by themselves, and members are slow
/// to answer. Repeated, a change that has happened is refused.
fn must(cluster: &Cluster, at: u8, line: &str) {
    let mut said = String::new();
    let done = wait::ask(wait::LIMIT, || {
        let output = run(cluster, at, line);
        let is_repeated = !said.is_empty();
        said = text(&output.stderr);
        let has_happened = ["already", "permanently removed"].iter().any(|w| said.contains(w));
        (output.status.success() || (is_repeated && has_happened)).then_some(())
    });
    assert!(done.is_some(), "{line}: {said}");
}

/// Waits until a line is refused with these words.
fn refused(cluster: &Cluster, at: u8, line: &str, words: &[&str]) {
    wait::until_true(line, wait::LIMIT, || {
        let output = run(cluster, at, line);
        assert!(!output.status.success(), "{line}: {}", text(&output.stdout));
        words.iter().all(|words| text(&output.stderr).contains(words))
    });
}

fn put(cluster: &Cluster, at: u8, key: &str, value: &str) {
    wait::until_true("acknowledged change", wait::LIMIT, || {
        cluster.run(&cluster.client(at), &["put", key, value]).status.success()
    });
}

/// Waits until a member answers a read of `key`, which holds `value`.
fn shows(cluster: &Cluster, at: u8, key: &str, value: &str, more: &[&str]) {
    let words = [&["get", key], more].concat();
    wait::until_true("read", wait::LIMIT, || {
        let output = cluster.run(&cluster.client(at), &words);
        let is_answered = output.status.success();
        assert!(!is_answered || text(&output.stdout) == format!("{key}\n{value}\n"), "{output:?}");
        is_answered
    });
}

/// Waits until etcdctl is refused with these words.
fn etcdctl_refused(cluster: &Cluster, line: &[&str], words: &str) {
    wait::until_true(words, wait::LIMIT, || {
        let output = cluster.run(&cluster.client(0), line);
        assert!(!output.status.success(), "{line:?}");
        text(&output.stderr).contains(words)
    });
}

fn wait_for_count(cluster: &Cluster, at: u8, count: usize) {
    wait::until_true("members", wait::LIMIT, || list(cluster, at).len() == count);
}

/// The members as `revfs member list` of one of them tells; empty while it cannot.
fn list(cluster: &Cluster, at: u8) -> Vec<Value> {
    let output = run(cluster, at, "list --json");
    if !output.status.success() {
        return Vec::new();
    }
    let listed = text(&output.stdout);
    listed.lines().map(|line| serde_json::from_str(line).expect("a document a line")).collect()
}

/// Waits until one member is listed so that `is_so`; its number.
fn wait_for(cluster: &Cluster, at: u8, what: &str, is_so: impl Fn(&Value) -> bool) -> String {
    wait::until(what, wait::LIMIT, || {
        let found = list(cluster, at).into_iter().find(&is_so)?;
        Some(found["id"].as_str()?.to_owned())
    })
}

fn id_of(cluster: &Cluster, at: u8, member: u8) -> String {
    let name = format!("m{member}");
    wait_for(cluster, at, "a member by its name", |listed| listed["name"] == *name)
}

fn wait_for_state(cluster: &Cluster, at: u8, id: &str, states: &[&str]) {
    let is_so = |listed: &Value| {
        listed["id"] == *id && states.iter().any(|state| listed["state"] == **state)
    };
    wait_for(cluster, at, &format!("member {id} that {}", states.join(" or ")), is_so);
}

fn wait_gone(cluster: &Cluster, at: u8, id: &str) {
    wait::until_true("member that is gone", wait::LIMIT, || {
        let listed = list(cluster, at);
        !listed.is_empty() && listed.iter().all(|one| one["id"] != *id)
    });
}

const VOTES: [&str; 2] = ["votes", "leads"];

/// What a node is started with that was added: it asks the members that run.
fn added(cluster: &Cluster, member: u8) -> Vec<String> {
    let mut settings = cluster.founder_settings();
    settings[0].push_str(&format!(",m{member}={}", cluster.peer_url(member)));
    settings.push("--initial-cluster-state=existing".to_owned());
    settings
}

/// Member `member` ends by itself because it was removed, and does so whenever it is started again.
fn ends_for_good(cluster: &mut Cluster, member: u8, settings: &[String]) {
    assert_eq!(cluster.wait_ended(member).code(), REMOVED, "{}", cluster.log(member));
    cluster.start_with(member, settings);
    assert_eq!(cluster.wait_ended(member).code(), REMOVED, "{}", cluster.log(member));
    let log = cluster.log(member);
    let words = ["has been permanently removed from the cluster", "move the directory away"];
    assert!(words.iter().all(|words| log.contains(words)), "{log}");
}

/// Overwrites the middle of the log of a member that does not run.
fn damage(cluster: &Cluster, member: u8) {
    let log = cluster.data_dir(member).join("log");
    let entries = std::fs::read_dir(log).expect("a log");
    let segments = entries.map(|entry| entry.expect("a file").path());
    let segments = segments.filter(|path| path.extension().is_some_and(|end| end == "log"));
    let segment = segments.min().expect("a segment");
    let mut file = File::options().write(true).open(segment).expect("it is ours");
    file.write_all(&[0xA5; 256]).expect("it is ours");
}

#[test]
fn an_operator_adds_corrects_and_removes_a_member() {
    let mut cluster = Cluster::with_room(3, 4, &[]);
    let at = cluster.wait_for_leader();
    // A wrong address is told, harms nobody, and is corrected.
    must(&cluster, at, "add http://127.0.0.1:9");
    let waits = |listed: &Value| {
        let words = listed["waits_for"].as_str().unwrap_or_default();
        listed["state"] == "unstarted" && words.contains("an answer from http://127.0.0.1:9: ")
    };
    let id = wait_for(&cluster, at, "why it is pending", waits);
    cluster.wait_writable(at);
    let taken = format!("add {}", cluster.peer_url(at));
    refused(&cluster, at, &taken, &["Peer URLs already exists"]);
    must(&cluster, at, &format!("update {id} {}", cluster.peer_url(3)));
    let settings = added(&cluster, 3);
    cluster.start_with(3, &settings);
    wait_for_state(&cluster, at, &id, &VOTES);
    wait_for_count(&cluster, at, 4);
    // Who watches through it goes on elsewhere when it is removed; it ends by itself.
    let endpoints = format!("{},{}", cluster.client(3), cluster.client(at));
    let seen = cluster.data_dir(3).with_extension("seen");
    let mut watch = cluster.revfs(&endpoints, &["watch", "seen", "--rev", "1"]);
    let mut watch = watch.stdout(File::create(&seen).unwrap()).spawn().unwrap();
    let shown = || std::fs::read_to_string(&seen).unwrap();
    put(&cluster, 3, "seen", "before");
    wait::until_true("change that is watched", wait::LIMIT, || shown().contains("before"));
    must(&cluster, at, &format!("remove {id}"));
    ends_for_good(&mut cluster, 3, &settings);
    put(&cluster, at, "seen", "after");
    wait::until_true("change that is watched", wait::LIMIT, || shown().contains("after"));
    watch.kill().unwrap();
    watch.wait().unwrap();
    wait_for_count(&cluster, at, 3);
    cluster.agree();
}

#[test]
fn a_dead_member_and_a_damaged_one_are_replaced() {
    let mut cluster = Cluster::with_room(3, 4, &[]);
    let at = cluster.wait_for_leader();
    let (dead, damaged) = ((at + 1) % 3, (at + 2) % 3);
    let (dead_id, damaged_id) = (id_of(&cluster, at, dead), id_of(&cluster, at, damaged));
    put(&cluster, at, "before", "v");
    cluster.agree();
    // One machine is gone for good: another takes its place.
    cluster.kill(dead);
    let not_there = |listed: &Value| {
        let words = listed["waits_for"].as_str().unwrap_or_default();
        listed["id"] == *dead_id && listed["there"] == false && !words.is_empty()
    };
    wait_for(&cluster, at, "that it is missed", not_there);
    must(&cluster, at, &format!("replace {dead_id} {}", cluster.peer_url(3)));
    let twice = format!("replace {dead_id} http://127.0.0.1:9");
    refused(&cluster, at, &twice, &["replaces it already"]);
    let settings = added(&cluster, 3);
    cluster.start_with(3, &settings);
    wait_gone(&cluster, at, &dead_id);
    // It comes back all the same, and learns that it is not wanted.
    cluster.start_member(dead);
    let settings = cluster.founder_settings();
    ends_for_good(&mut cluster, dead, &settings);
    // The log of another one is damaged: it names the place. With an empty disk it waits to be replaced
    // at its own address, started as ever.
    cluster.kill(damaged);
    damage(&cluster, damaged);
    cluster.start_member(damaged);
    assert_eq!(cluster.wait_ended(damaged).code(), Some(1), "{}", cluster.log(damaged));
    let log = cluster.log(damaged);
    assert!(log.contains("/log/") && log.contains("offset"), "{log}");
    cluster.wipe(damaged);
    cluster.start_member(damaged);
    let line = format!("replace {damaged_id} {}", cluster.peer_url(damaged));
    wait::until_true("advice of the node without data", wait::LIMIT, || {
        cluster.log(damaged).contains(&format!("revfs member {line}"))
    });
    must(&cluster, at, &line);
    wait_gone(&cluster, at, &damaged_id);
    wait_for_count(&cluster, at, 3);
    shows(&cluster, damaged, "before", "v", &[]);
    cluster.agree();
}

#[test]
fn nobody_goes_who_is_needed_unless_it_is_forced() {
    let mut cluster = Cluster::start(3);
    let at = cluster.wait_for_leader();
    let (gone, out) = ((at + 1) % 3, (at + 2) % 3);
    let (gone_id, out_id) = (id_of(&cluster, at, gone), id_of(&cluster, at, out));
    put(&cluster, at, "before", "v");
    cluster.kill(gone);
    let not_there = |listed: &Value| listed["id"] == *gone_id && listed["there"] == false;
    wait_for(&cluster, at, "that one is not there", not_there);
    let words = ["not enough started members", "--force"];
    refused(&cluster, out, &format!("remove {out_id}"), &words);
    cluster.wait_writable(out);
    let warned = "1 of the 2 voters that stay are there";
    wait::until_true("warning of what the force costs", wait::LIMIT, || {
        let forced = run(&cluster, at, &format!("remove {out_id} --force"));
        text(&forced.stderr).contains(warned)
    });
    // Two are to stay, and one of them is away: nothing is acknowledged until it is back.
    assert!(!cluster.run(&cluster.client(at), &["put", "before", "lost"]).status.success());
    cluster.start_member(gone);
    cluster.wait_writable(at);
    let settings = cluster.founder_settings();
    ends_for_good(&mut cluster, out, &settings);
    wait_for_count(&cluster, at, 2);
    cluster.wait_writable(gone);
    cluster.agree();
}

#[test]
fn two_learners_are_added_and_promoted_by_etcdctl() {
    let mut cluster = Cluster::with_room(1, 3, &["--max-learners=2"]);
    cluster.wait_for_leader();
    let ids = [1, 2].map(|member| {
        let (name, url) = (format!("m{member}"), cluster.peer_url(member));
        let words = ["member", "add", &name, "--learner", &format!("--peer-urls={url}")];
        cluster.ctl(&cluster.client(0), &words);
        wait_for(&cluster, 0, "a learner by its URL", |listed| listed["peer_urls"][0] == *url)
    });
    let third = ["member", "add", "m3", "--learner", "--peer-urls=http://127.0.0.1:9"];
    etcdctl_refused(&cluster, &third, "too many learner members in cluster");
    etcdctl_refused(&cluster, &["member", "promote", &ids[0]], "in sync with leader");
    for (member, id) in [1, 2].into_iter().zip(&ids) {
        let join = format!("--join={}", cluster.network.address(0));
        cluster.start_with(member, &[join]);
        let words = format!("'revfs member promote {id}'");
        wait_for(&cluster, 0, "a learner that keeps up", |listed| listed["waits_for"] == *words);
    }
    for id in &ids {
        wait::until_true("promotion", wait::LIMIT, || {
            let output = cluster.run(&cluster.client(0), &["member", "promote", id]);
            output.status.success()
                || text(&output.stderr).contains("only promote a learner member")
        });
        wait_for_state(&cluster, 0, id, &VOTES);
    }
    cluster.kill(0);
    cluster.wait_writable(1);
}

#[test]
fn a_standby_votes_for_a_voter_that_is_gone_and_a_reader_never_does() {
    let mut cluster = Cluster::with_room(3, 5, &["--standby-after=2s"]);
    let at = cluster.wait_for_leader();
    let gone = (at + 1) % 3;
    let gone_id = id_of(&cluster, at, gone);
    for (member, role) in [(3, "standby"), (4, "read-only")] {
        must(&cluster, at, &format!("add {} --role {role}", cluster.peer_url(member)));
        let settings = added(&cluster, member);
        cluster.start_with(member, &settings);
    }
    let (standby, reader) = (id_of(&cluster, at, 3), id_of(&cluster, at, 4));
    let stands_by =
        |listed: &Value| listed["id"] == *standby && listed["waits_for"] == "a voter to fail";
    wait_for(&cluster, at, "a standby", stands_by);
    put(&cluster, at, "k", "v");
    shows(&cluster, 4, "k", "v", &[]);
    shows(&cluster, 4, "k", "v", &["--consistency=s"]);
    cluster.kill(gone);
    wait_for_state(&cluster, at, &standby, &VOTES);
    wait_for_state(&cluster, at, &gone_id, &["learns"]);
    wait_for_state(&cluster, at, &reader, &["learns"]);
    cluster.wait_writable(4);
    cluster.start_member(gone);
    wait_for_state(&cluster, at, &gone_id, &VOTES);
    wait_for_state(&cluster, at, &standby, &["learns"]);
    shows(&cluster, 4, "k", "v", &[]);
    cluster.agree();
}
