//! etcd's Lock and Election services on a real node: one after the other, and what is left of those who
//! do not wait any more.

use std::time::Duration;

use revfs_api::wire::etcdserverpb as etcd;
use revfs_api::wire::etcdserverpb::lease_client::LeaseClient;
use revfs_api::wire::v3electionpb::election_client::ElectionClient;
use revfs_api::wire::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
};
use revfs_api::wire::v3lockpb::lock_client::LockClient;
use revfs_api::wire::v3lockpb::{LockRequest, UnlockRequest};
use tonic::Code;
use tonic::transport::Channel;

use crate::node::Node;

/// Far above what any answer takes.
const LIMIT: Duration = Duration::from_secs(30);

async fn lease(node: &Node, id: i64) {
    let mut leases = LeaseClient::new(node.channel().await);
    let request = etcd::LeaseGrantRequest { id, ttl: 100 };
    leases.lease_grant(request).await.expect("it is granted");
}

fn lock(lease: i64) -> LockRequest {
    LockRequest { name: "name".into(), lease }
}

async fn keys(node: &Node, prefix: &str) -> Vec<String> {
    let end = format!("{}0", prefix.trim_end_matches('/'));
    let request = etcd::RangeRequest {
        key: prefix.to_owned().into(),
        range_end: end.into(),
        ..Default::default()
    };
    let found = node.kv().await.range(request).await.expect("a range").into_inner();
    found.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect()
}

async fn until(node: &Node, prefix: &str, expected: &[&str]) {
    let found = tokio::time::timeout(LIMIT, async {
        while keys(node, prefix).await != expected {
            tokio::task::yield_now().await;
        }
    });
    if found.await.is_err() {
        panic!("{:?} instead of {expected:?}", keys(node, prefix).await);
    }
}

#[tokio::test]
async fn a_lock_goes_from_one_to_the_next_in_the_order_of_their_coming() {
    let node = Node::start().await;
    let mut locks = LockClient::new(node.channel().await);
    for id in [1, 2, 0x1f] {
        lease(&node, id).await;
    }
    let first = locks.lock(lock(1)).await.unwrap().into_inner();
    assert_eq!(first.key, "name/1");
    assert_eq!(first.header.unwrap().revision, 2);
    let again = locks.lock(lock(1)).await.unwrap().into_inner();
    assert_eq!((again.key.clone(), again.header.unwrap().revision), ("name/1".into(), 2));

    let mut waiting = Vec::new();
    for (id, place) in [(2, "name/2"), (0x1f, "name/1f")] {
        let mut locks = locks.clone();
        waiting.push(tokio::spawn(async move { locks.lock(lock(id)).await }));
        tokio::time::timeout(LIMIT, async {
            while !keys(&node, "name/").await.contains(&place.to_owned()) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("it takes its place");
    }
    let last = waiting.pop().expect("two wait");
    let second = waiting.pop().expect("two wait");
    assert!(!second.is_finished() && !last.is_finished());
    locks.unlock(UnlockRequest { key: first.key }).await.unwrap();
    let second = second.await.unwrap().unwrap().into_inner();
    assert_eq!((second.key.clone(), second.header.unwrap().revision), ("name/2".into(), 5));
    assert!(!last.is_finished());
    // The end of a lease is the end of its lock.
    let mut leases = LeaseClient::new(node.channel().await);
    leases.lease_revoke(etcd::LeaseRevokeRequest { id: 2 }).await.unwrap();
    assert_eq!(last.await.unwrap().unwrap().into_inner().key, "name/1f");
    node.stop().await;
}

#[tokio::test]
async fn a_lock_without_a_lease_is_given_one_and_a_lease_that_is_not_there_is_refused() {
    let node = Node::start().await;
    let mut locks = LockClient::new(node.channel().await);
    let held = locks.lock(lock(0)).await.unwrap().into_inner();
    let mut leases = LeaseClient::new(node.channel().await);
    let granted = leases.lease_leases(etcd::LeaseLeasesRequest {}).await.unwrap().into_inner();
    let id = granted.leases[0].id;
    assert_eq!(held.key, format!("name/{id:x}"));
    let left = etcd::LeaseTimeToLiveRequest { id, keys: true };
    let left = leases.lease_time_to_live(left).await.unwrap().into_inner();
    assert_eq!((left.granted_ttl, left.keys), (60, vec![held.key]));

    let status = locks.lock(lock(99)).await.unwrap_err();
    assert_eq!(status.message(), "etcdserver: requested lease not found");
    node.stop().await;
}

#[tokio::test]
async fn who_does_not_wait_any_more_leaves_its_place() {
    let node = Node::start().await;
    for id in [1, 2, 3] {
        lease(&node, id).await;
    }
    let mut locks = LockClient::new(node.channel().await);
    locks.lock(lock(1)).await.unwrap();
    let mut waits = locks.clone();
    let waiting = tokio::spawn(async move { waits.lock(lock(2)).await });
    until(&node, "name/", &["name/1", "name/2"]).await;
    waiting.abort();
    until(&node, "name/", &["name/1"]).await;
    // One whose lease ends while it waits is told so.
    let mut waits = locks.clone();
    let waiting = tokio::spawn(async move { waits.lock(lock(3)).await });
    until(&node, "name/", &["name/1", "name/3"]).await;
    let mut leases = LeaseClient::new(node.channel().await);
    leases.lease_revoke(etcd::LeaseRevokeRequest { id: 3 }).await.unwrap();
    locks.unlock(UnlockRequest { key: "name/1".into() }).await.unwrap();
    let status = waiting.await.unwrap().unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unknown, "mutex: session is expired"));
    node.stop().await;
}

#[tokio::test]
async fn a_wait_ends_at_shutdown_with_a_code_that_clients_retry() {
    let node = Node::start().await;
    for id in [1, 2] {
        lease(&node, id).await;
    }
    let mut locks = LockClient::new(node.channel().await);
    locks.lock(lock(1)).await.unwrap();
    let waiting = tokio::spawn(async move { locks.lock(lock(2)).await });
    until(&node, "name/", &["name/1", "name/2"]).await;
    let stopping = node.signal();
    assert_eq!(waiting.await.unwrap().unwrap_err().code(), Code::Unavailable);
    stopping.finished().await;
}

struct Candidates {
    elections: ElectionClient<Channel>,
}

impl Candidates {
    async fn campaign(&mut self, lease: i64, value: &'static str) -> LeaderKey {
        let request = CampaignRequest { name: "post".into(), lease, value: value.into() };
        let won = self.elections.campaign(request).await.expect("it wins").into_inner();
        won.leader.expect("a leader's key")
    }

    async fn leader(&mut self) -> Result<String, String> {
        let leader = self.elections.leader(LeaderRequest { name: "post".into() }).await;
        let text = |value: Vec<u8>| String::from_utf8(value).expect("the tests say text");
        match leader {
            Ok(leader) => Ok(text(leader.into_inner().kv.expect("a key").value.to_vec())),
            Err(status) => Err(status.message().to_owned()),
        }
    }
}

#[tokio::test]
async fn the_first_candidate_leads_until_it_resigns_and_observers_are_told() {
    let node = Node::start().await;
    for id in [1, 2] {
        lease(&node, id).await;
    }
    let mut candidates = Candidates { elections: ElectionClient::new(node.channel().await) };
    assert_eq!(candidates.leader().await.unwrap_err(), "election: no leader");
    let observed = candidates.elections.observe(LeaderRequest { name: "post".into() }).await;
    let mut observed = observed.unwrap().into_inner();
    let mut told = async || {
        let told = tokio::time::timeout(LIMIT, observed.message()).await.expect("in time");
        let kv = told.unwrap().expect("not the end").kv.expect("a key");
        (
            String::from_utf8_lossy(&kv.key).into_owned(),
            String::from_utf8_lossy(&kv.value).into_owned(),
        )
    };
    let say = |key: &str, value: &str| (key.to_owned(), value.to_owned());

    let first = candidates.campaign(1, "one").await;
    assert_eq!((first.key.as_ref(), first.rev, first.lease), (&b"post/1"[..], 2, 1));
    assert_eq!(told().await, say("post/1", "one"));
    assert_eq!(candidates.campaign(1, "one").await, first, "it leads already");
    assert_eq!(candidates.campaign(1, "uno").await, first, "and says something else now");
    assert_eq!(told().await, say("post/1", "uno"));
    let proclaim = |leader: &LeaderKey, value: &'static str| ProclaimRequest {
        leader: Some(leader.clone()),
        value: value.into(),
    };
    candidates.elections.proclaim(proclaim(&first, "eins")).await.unwrap();
    assert_eq!(told().await, say("post/1", "eins"));
    assert_eq!(candidates.leader().await.unwrap(), "eins");

    let mut second = Candidates { elections: candidates.elections.clone() };
    let waiting = tokio::spawn(async move { second.campaign(2, "two").await });
    until(&node, "post/", &["post/1", "post/2"]).await;
    let resign = ResignRequest { leader: Some(first.clone()) };
    candidates.elections.resign(resign.clone()).await.unwrap();
    assert_eq!(waiting.await.unwrap().key, "post/2");
    assert_eq!(told().await, say("post/2", "two"));
    let status = candidates.elections.proclaim(proclaim(&first, "late")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unknown, "election: not leader"));
    candidates.elections.resign(resign).await.expect("there is nothing to give up");
    let nobody = ResignRequest { leader: None };
    let status = candidates.elections.resign(nobody).await.unwrap_err();
    assert_eq!(status.message(), "\"leader\" field must be provided");
    assert_eq!(candidates.leader().await.unwrap(), "two");
    let stopping = node.signal();
    let ended = observed.message().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable);
    drop(candidates);
    stopping.finished().await;
}
