//! A real etcd beside a node: the same random requests to both over the v3 API, every answer, error,
//! range and HashKV compared. `REVFS_SEED` replays a run, `REVFS_STEPS` makes a longer one.
//!
//! etcd is the oracle, in the release that Debian packs (3.4). Where later releases answer otherwise
//! and a node follows them, and where etcd overlooks that a transaction writes a key twice (API.md), the
//! requests keep away.

pub(crate) mod etcd;
mod history;
mod requests;
mod same;

use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::kv_client::KvClient;
use revfs_api::wire::etcdserverpb::lease_client::LeaseClient;
use revfs_api::wire::etcdserverpb::maintenance_client::MaintenanceClient;
use tonic::Status;
use tonic::transport::Channel;

use crate::node::Node;
pub(crate) use etcd::{Etcd, directory};
use requests::{Random, Request};

/// What etcd says at first: an empty store, and four changes.
const VECTORS: [u32; 5] = [1_084_519_789, 3_305_255_506, 3_581_052_765, 846_839_875, 2_168_418_123];

struct Client {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
}

impl Client {
    async fn new(address: &str) -> Self {
        let channel = Channel::from_shared(format!("http://{address}")).expect("an address");
        let channel = channel.connect().await.expect("it answers");
        Self {
            kv: KvClient::new(channel.clone()),
            lease: LeaseClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel),
        }
    }

    async fn send(&mut self, request: Request) -> Result<Answer, Status> {
        Ok(match request {
            Request::Put(put) => Answer::Put(self.kv.put(put).await?.into_inner()),
            Request::Delete(delete) => {
                Answer::Delete(self.kv.delete_range(delete).await?.into_inner())
            }
            Request::Range(range) => Answer::Range(self.kv.range(range).await?.into_inner()),
            Request::Txn(txn) => Answer::Txn(self.kv.txn(txn).await?.into_inner()),
            Request::Compact(revision) => {
                let request = pb::CompactionRequest { revision, physical: true };
                Answer::Compact(self.kv.compact(request).await?.into_inner())
            }
            Request::Grant(id) => {
                let request = pb::LeaseGrantRequest { id, ttl: requests::LEASE_SECONDS };
                Answer::Grant(self.lease.lease_grant(request).await?.into_inner())
            }
            Request::Revoke(id) => {
                let request = pb::LeaseRevokeRequest { id };
                Answer::Revoke(self.lease.lease_revoke(request).await?.into_inner())
            }
            Request::LeaseKeys(id) => {
                let request = pb::LeaseTimeToLiveRequest { id, keys: true };
                Answer::LeaseKeys(self.lease.lease_time_to_live(request).await?.into_inner())
            }
            Request::Leases => {
                let request = pb::LeaseLeasesRequest {};
                Answer::Leases(self.lease.lease_leases(request).await?.into_inner())
            }
            Request::Hash(revision) => {
                let request = pb::HashKvRequest { revision };
                Answer::Hash(self.maintenance.hash_kv(request).await?.into_inner())
            }
        })
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Put(pb::PutResponse),
    Delete(pb::DeleteRangeResponse),
    Range(pb::RangeResponse),
    Txn(pb::TxnResponse),
    Compact(pb::CompactionResponse),
    Grant(pb::LeaseGrantResponse),
    Revoke(pb::LeaseRevokeResponse),
    LeaseKeys(pb::LeaseTimeToLiveResponse),
    Leases(pb::LeaseLeasesResponse),
    Hash(pb::HashKvResponse),
}

struct Pair {
    etcd: Client,
    node: Client,
}

impl Pair {
    /// Asks both; returns what both said.
    async fn ask(&mut self, request: Request) -> Result<Answer, Status> {
        let expected = self.etcd.send(request.clone()).await;
        let found = self.node.send(request.clone()).await;
        same::check(&request, &expected, &found);
        found
    }

    async fn hash(&mut self) -> u32 {
        match self.ask(Request::Hash(0)).await.expect("the present has a hash") {
            Answer::Hash(hash) => hash.hash,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_answers_as_etcd_does() {
    let mut random = Random::new(requests::seed());
    let etcd = Etcd::start().await;
    let node = Node::start().await;
    let mut both =
        Pair { etcd: Client::new(etcd.address()).await, node: Client::new(&node.address()).await };
    assert_eq!(both.hash().await, VECTORS[0]);
    for (request, hash) in requests::first().into_iter().zip(&VECTORS[1..]) {
        both.ask(request).await.expect("the first changes are accepted");
        assert_eq!(both.hash().await, *hash);
    }
    let (mut current, mut compacted, mut refused) = (6, -1, 0);
    let steps = requests::steps();
    for _ in 0..steps {
        let request = requests::change(&mut random, compacted, current);
        match both.ask(request.clone()).await {
            Ok(answer) => {
                current = same::revision(&answer);
                if let Request::Compact(revision) = request {
                    compacted = revision;
                }
            }
            Err(_) => refused += 1,
        }
        for _ in 0..3 {
            let request = requests::range(&mut random, compacted, current);
            drop(both.ask(Request::Range(request)).await);
        }
        for lease in requests::LEASES {
            both.ask(Request::LeaseKeys(lease)).await.expect("of any lease");
        }
        both.ask(Request::Leases).await.expect("a list");
        both.hash().await;
        let revision = requests::revision(&mut random, compacted, current);
        if revision != compacted {
            drop(both.ask(Request::Hash(revision)).await);
        }
    }
    println!("{steps} changes, {refused} refused, revision {current}, compacted {compacted}");
    assert!(refused < steps / 2, "a generator that is refused proves nothing");
    drop(etcd);
    node.stop().await;
}
