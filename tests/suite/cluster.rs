//! Clusters of real processes on a network that is cut, with members that are killed and stopped.

use nix::sys::signal::Signal;
use revfs_tests::Cluster;
use revfs_tests::wait;
use serde_json::Value;

#[test]
fn a_killed_leader_is_replaced_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start(3);
    for round in 0..3 {
        let leader = cluster.wait_for_leader();
        let key = format!("round-{round}");
        cluster.ctl(&cluster.client(leader), &["put", &key, "v"]);
        cluster.kill(leader);
        let next = cluster.wait_for_leader();
        assert_ne!(next, leader);
        assert_eq!(cluster.ctl(&cluster.client(next), &["get", &key]), format!("{key}\nv\n"));
        cluster.wait_writable(next);
        cluster.start_member(leader);
    }
    cluster.agree();
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_follows_when_it_is_back() {
    let cluster = Cluster::start(3);
    let leader = cluster.wait_for_leader();
    let others: Vec<u8> = cluster.running().filter(|&member| member != leader).collect();
    cluster.network.isolate(leader);
    for &other in &others {
        cluster.wait_writable(other);
    }
    // What it had is still read from it, by who does not ask for more.
    let alone = cluster.client(leader);
    let read = cluster.run(&alone, &["get", "writable"]);
    assert!(!read.status.success(), "it has no quorum to confirm a read: {read:?}");
    cluster.ctl(&alone, &["get", "writable", "--consistency=s"]);
    assert!(!cluster.run(&alone, &["put", "lost", "v"]).status.success());
    cluster.network.heal();
    cluster.wait_writable(leader);
    cluster.agree();
}

#[test]
fn a_stopped_leader_that_goes_on_late_learns_that_it_was_replaced() {
    let cluster = Cluster::start(3);
    let leader = cluster.wait_for_leader();
    let other = cluster.running().find(|&member| member != leader).unwrap();
    cluster.signal(leader, Signal::SIGSTOP);
    cluster.wait_writable(other);
    cluster.ctl(&cluster.client(other), &["put", "while", "stopped"]);
    cluster.signal(leader, Signal::SIGCONT);
    // A linearizable read never shows what was before.
    wait::until_true("linearizable read", wait::LIMIT, || {
        let read = cluster.run(&cluster.client(leader), &["get", "while"]);
        let shown = String::from_utf8_lossy(&read.stdout).into_owned();
        assert!(!read.status.success() || shown == "while\nstopped\n", "{shown}");
        read.status.success()
    });
    cluster.agree();
}

/// What a member says of itself, if it answers.
fn status(cluster: &Cluster, of: u8) -> Option<Value> {
    let said = cluster.run(&cluster.client(of), &["endpoint", "status", "-w", "json"]);
    let mut status: Value = serde_json::from_slice(&said.stdout).ok()?;
    Some(status[0]["Status"].take()).filter(Value::is_object)
}

fn term(status: &Value) -> u64 {
    status["raftTerm"].as_u64().expect("a number")
}

/// A leader sends entries before it has written them. Killed, it may have lost some that the others hold: led it
/// on in its term, their places would have other entries there and here.
#[test]
fn a_killed_leader_never_leads_in_its_old_term_again() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.wait_for_leader();
    let others: Vec<u8> = cluster.running().filter(|&member| member != leader).collect();
    let before = status(&cluster, leader).expect("it answers");
    // Nobody else stands for election until it is back.
    others.iter().for_each(|&other| cluster.signal(other, Signal::SIGSTOP));
    cluster.kill(leader);
    cluster.start_member(leader);
    let after = wait::until("answer", wait::LIMIT, || status(&cluster, leader));
    assert_ne!(after["leader"], before["leader"], "nobody has elected it: {before} {after}");
    others.iter().for_each(|&other| cluster.signal(other, Signal::SIGCONT));
    cluster.wait_writable(leader);
    let after = status(&cluster, leader).expect("it answers");
    assert!(term(&after) > term(&before), "{before} {after}");
    cluster.agree();
}

#[test]
fn a_leader_that_hears_nothing_is_replaced_after_few_elections() {
    let cluster = Cluster::start(3);
    let leader = cluster.wait_for_leader();
    let other = (leader + 1) % 3;
    let status = |member: u8| status(&cluster, member).expect("it answers");
    let before = status(other);
    // What it sends still comes: its heartbeats must not keep it in office.
    cluster.network.deafen(leader);
    let after = wait::until("another leader", wait::LIMIT, || {
        let led = |after: &Value| {
            after["leader"] != before["leader"]
                && after["leader"].as_u64().is_some_and(|id| id != 0)
        };
        Some(status(other)).filter(led)
    });
    cluster.wait_writable(other);
    assert!(term(&after) <= term(&before) + 3, "{before} {after}");
    cluster.network.heal();
    cluster.wait_writable(leader);
    cluster.agree();
}

#[test]
fn one_of_two_members_takes_no_change_alone() {
    let mut cluster = Cluster::start(2);
    let leader = cluster.wait_for_leader();
    let other = 1 - leader;
    cluster.stop(leader);
    let alone = cluster.client(other);
    assert!(!cluster.run(&alone, &["put", "k", "v"]).status.success());
    cluster.start_member(leader);
    cluster.wait_writable(other);
    cluster.agree();
}

#[test]
fn nodes_join_a_cluster_of_one_by_asking_a_member() {
    let mut cluster = Cluster::with_room(1, 3, &[]);
    cluster.wait_for_leader();
    cluster.ctl(&cluster.client(0), &["put", "before", "v"]);
    for member in 1..3 {
        let join = format!("--join={}", cluster.network.address(member - 1));
        cluster.start_with(member, &[join]);
        cluster.wait_for_voters(0, usize::from(member) + 1);
        assert_eq!(cluster.ctl(&cluster.client(member), &["get", "before"]), "before\nv\n");
    }
    cluster.agree();
    // Any one of them may be lost now, the first too.
    cluster.kill(0);
    cluster.wait_writable(1);
    cluster.start_member(0);
    cluster.wait_writable(0);
    cluster.agree();
}

#[test]
fn an_added_node_comes_as_etcd_says_and_a_wrong_url_harms_nobody() {
    let mut cluster = Cluster::with_room(2, 3, &[]);
    let leader = cluster.wait_for_leader();
    let typo = cluster.add(leader, "typo", "http://10.213.0.99:2380");
    cluster.wait_writable(leader);
    let is_pending = |line: &String| line.contains("unstarted") && line.contains("10.213.0.99");
    assert!(cluster.listed(leader).iter().any(is_pending), "it is listed");
    // With the wrong one in it the quorum is still two of two: both take changes.
    cluster.wait_writable(1 - leader);
    cluster.remove(leader, &typo);
    cluster.add_machine(leader, 2);
    cluster.wait_for_voters(leader, 3);
    cluster.kill(leader);
    cluster.wait_writable(2);
}

/// As etcd: what is said of the beginning is for an empty data directory. Unit files keep saying it, when the
/// cluster has long had other members.
#[test]
fn a_member_with_data_comes_back_whatever_is_said_of_the_beginning() {
    let mut cluster = Cluster::start(3);
    cluster.stop(1);
    let other = "--initial-cluster=other=http://127.0.0.1:2380";
    for settings in [
        vec![other.to_owned(), "--initial-cluster-token=another".to_owned()],
        vec![other.replace("other", "m1"), "--initial-cluster-state=existing".to_owned()],
        vec!["--join=127.0.0.1:1".to_owned(), other.to_owned()],
    ] {
        let before = cluster.log(1).matches("not looked at: --").count();
        cluster.start_with(1, &settings);
        cluster.wait_writable(1);
        assert!(cluster.log(1).matches("not looked at: --").count() > before, "{}", cluster.log(1));
        cluster.stop(1);
    }
    // An empty one is told that it is not named.
    cluster.wipe(1);
    cluster.start_with(1, &[other.to_owned()]);
    assert_eq!(cluster.wait_ended(1).code(), Some(2));
    assert!(cluster.log(1).contains("has no member 'm1'"), "{}", cluster.log(1));
}
