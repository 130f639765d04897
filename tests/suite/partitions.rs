//! The figures of etcd's page on learners, one by one: what costs etcd its quorum costs nothing here, for a new
//! member counts only once it is there and keeps up. Where most voters are really gone nothing is written,
//! and the cluster comes back by itself with them.
//!
//! *Leader isolated* is `cluster::a_leader_that_is_cut_off_is_replaced_and_follows_when_it_is_back`.

use revfs_tests::Cluster;

/// A member at it never comes up.
const NOBODYS_URL: &str = "http://10.213.255.99:2380";

fn others(of: u8) -> Vec<u8> {
    (0..3).filter(|&member| member != of).collect()
}

/// Changes are acknowledged through each of these.
fn are_writable(cluster: &Cluster, members: &[u8]) {
    members.iter().for_each(|&member| cluster.wait_writable(member));
}

/// One try, which ends without an acknowledgement.
fn refuses(cluster: &Cluster, member: u8) {
    let put = cluster.run(&cluster.client(member), &["put", "lost", "v"]);
    assert!(!put.status.success(), "m{member} acknowledged a change without most voters: {put:?}");
}

#[test]
fn a_new_member_on_the_other_side_of_three_and_one_costs_nothing() {
    let mut cluster = Cluster::with_room(3, 4, &[]);
    let leader = cluster.wait_for_leader();
    cluster.network.isolate(3);
    cluster.add_machine(leader, 3);
    are_writable(&cluster, &[0, 1, 2]);
    cluster.network.heal();
    cluster.wait_for_voters(leader, 4);
    are_writable(&cluster, &[0, 1, 2, 3]);
    // It counts now: three of four are a majority, whoever is the fourth, it or the leader.
    cluster.network.isolate(3);
    are_writable(&cluster, &[0, 1, 2]);
    cluster.network.heal();
    cluster.wait_writable(3);
    let leader = cluster.wait_for_leader();
    cluster.network.isolate(leader);
    let rest: Vec<u8> = (0..4).filter(|&member| member != leader).collect();
    are_writable(&cluster, &rest);
    cluster.network.heal();
    cluster.wait_writable(leader);
    cluster.agree();
}

#[test]
fn two_and_two_stop_only_where_the_new_member_votes_already() {
    let mut cluster = Cluster::with_room(3, 4, &[]);
    let leader = cluster.wait_for_leader();
    let rest = others(leader);
    // The new one is beside the leader, and not counted: the other two are two of three.
    cluster.network.split(&[leader, 3], &rest);
    are_writable(&cluster, &rest);
    cluster.add_machine(rest[0], 3);
    are_writable(&cluster, &rest);
    cluster.network.heal();
    cluster.wait_for_voters(rest[0], 4);
    are_writable(&cluster, &[0, 1, 2, 3]);
    // Two of four are no majority, on neither side.
    cluster.network.split(&[leader, 3], &rest);
    refuses(&cluster, 3);
    refuses(&cluster, rest[0]);
    cluster.network.heal();
    are_writable(&cluster, &[0, 1, 2, 3]);
    assert_eq!(cluster.ctl(&cluster.client(3), &["get", "writable"]), "writable\nyes\n");
    cluster.agree();
}

#[test]
fn a_member_is_added_while_a_follower_is_cut_off() {
    let mut cluster = Cluster::with_room(3, 4, &[]);
    let leader = cluster.wait_for_leader();
    // Whoever is cut off before it has told its name is not known to have started until it is back.
    cluster.wait_for_voters(leader, 3);
    let [there, away] = others(leader)[..] else { unreachable!("two of three") };
    // From the new one, too: it sees only the two that are there.
    cluster.network.isolate(away);
    cluster.wait_writable(leader);
    cluster.add_machine(leader, 3);
    are_writable(&cluster, &[leader, there]);
    cluster.wait_for_voters(leader, 4);
    are_writable(&cluster, &[leader, there, 3]);
    cluster.network.heal();
    cluster.wait_writable(away);
    cluster.agree();
}

#[test]
fn one_becomes_two_whatever_becomes_of_the_second() {
    let mut cluster = Cluster::with_room(1, 2, &[]);
    cluster.wait_for_leader();
    // A wrong URL: the quorum of two would need who never comes.
    let typo = cluster.add(0, "typo", NOBODYS_URL);
    cluster.wait_writable(0);
    cluster.remove(0, &typo);
    // It comes up where nobody hears it.
    cluster.network.isolate(1);
    cluster.add_machine(0, 1);
    cluster.wait_writable(0);
    cluster.network.heal();
    cluster.wait_for_voters(0, 2);
    are_writable(&cluster, &[0, 1]);
    // Of two voters one is no majority, and with the other it is again.
    cluster.kill(1);
    refuses(&cluster, 0);
    cluster.start_member(1);
    are_writable(&cluster, &[0, 1]);
    cluster.agree();
}

#[test]
fn a_misconfigured_member_beside_a_failed_one_costs_nothing() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.wait_for_leader();
    let [there, failed] = others(leader)[..] else { unreachable!("two of three") };
    cluster.kill(failed);
    let wrong = cluster.add(leader, "wrong", NOBODYS_URL);
    are_writable(&cluster, &[leader, there]);
    // With one more gone most voters are; the wrong one has nothing to do with that.
    cluster.kill(there);
    refuses(&cluster, leader);
    cluster.start_member(there);
    are_writable(&cluster, &[leader, there]);
    cluster.remove(leader, &wrong);
    are_writable(&cluster, &[leader, there]);
    cluster.start_member(failed);
    cluster.wait_writable(failed);
    cluster.agree();
}
