//! Changes on any member: seen on all, kept whoever stops, applied once.

use std::collections::BTreeSet;

use revfs_api::keyspace::{Error, Op};

use crate::rig::{Cluster, change, get, local_get, put};

#[tokio::test(flavor = "multi_thread")]
async fn any_member_takes_a_change_and_all_show_it() {
    let cluster = Cluster::start(3).await;
    cluster.leader().await;
    for member in 0..3 {
        let key = format!("k{member}");
        put(&cluster.space(member), &key, "v").await.unwrap();
        // Who made the change has it at once; the others if they ask.
        assert_eq!(local_get(&cluster.space(member), &key).await.unwrap(), "v");
        for other in 0..3 {
            assert_eq!(get(&cluster.space(other), &key).await.unwrap().unwrap(), "v");
        }
    }
    cluster.agree().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_away_has_everything_when_it_is_back() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    put(&cluster.space(leader), "before", "1").await.unwrap();
    cluster.stop_member(leader).await;
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    for number in 0..200 {
        put(&cluster.space(next), &format!("k{number:03}"), "v").await.unwrap();
    }
    cluster.start_member(leader).await;
    assert_eq!(get(&cluster.space(leader), "before").await.unwrap().unwrap(), "1");
    assert_eq!(get(&cluster.space(leader), "k199").await.unwrap().unwrap(), "v");
    cluster.agree().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_applied_once_while_leaders_come_and_go() {
    const WRITERS: usize = 8;
    const EACH: usize = 40;
    let mut cluster = Cluster::start(3).await;
    cluster.leader().await;
    let writer = |writer: usize| {
        let spaces = cluster.spaces();
        tokio::spawn(async move {
            let mut ends = Vec::new();
            for number in 0..EACH {
                let token = format!("{writer}.{number};");
                let op = Op::Append { key: "log".into(), value: token.clone().into() };
                let member = (writer + number) % 3;
                let space = spaces.lock().unwrap()[member].clone();
                if let Some(space) = space {
                    ends.push((token, change(&space, op).await));
                }
            }
            ends
        })
    };
    let writers: Vec<_> = (0..WRITERS).map(writer).collect();
    let leader = cluster.leader().await;
    cluster.stop_member(leader).await;
    cluster.start_member(leader).await;
    let next = cluster.leader().await;
    cluster.stop_member(next).await;
    let mut ends = Vec::new();
    for writer in writers {
        ends.extend(writer.await.unwrap());
    }
    cluster.start_member(next).await;
    let log = get(&cluster.space(next), "log").await.unwrap().unwrap();
    let log = String::from_utf8(log.to_vec()).unwrap();
    let written: Vec<&str> = log.split_inclusive(';').collect();
    let once: BTreeSet<&str> = written.iter().copied().collect();
    assert_eq!(once.len(), written.len(), "something was applied twice: {log}");
    let mut acknowledged = 0;
    for (token, end) in &ends {
        match end {
            Ok(_) => {
                acknowledged += 1;
                assert!(once.contains(token.as_str()), "{token} was acknowledged and is lost");
            }
            Err(Error::OutcomeUnknown { .. }) => {}
            Err(error) => {
                assert!(
                    !once.contains(token.as_str()),
                    "{token} is there, but was refused: {error}"
                );
            }
        }
    }
    assert!(acknowledged > WRITERS * EACH / 4, "{acknowledged} were acknowledged: {ends:?}");
    cluster.agree().await;
    cluster.stop().await;
}
