//! What a user may read and write, in every form in which it can be asked for.

use revfs_api::wire::authpb::permission::Type;
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::request_op::Request;
use revfs_api::wire::revfs as wire;
use tonic::{Code, Status};

use super::{Client, DENIED, NOBODY, guarded, refused};

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn put(key: &'static str) -> pb::RequestOp {
    op(Request::RequestPut(pb::PutRequest { key: key.into(), ..Default::default() }))
}

fn range(key: &'static str) -> pb::RequestOp {
    op(Request::RequestRange(pb::RangeRequest { key: key.into(), ..Default::default() }))
}

fn delete(key: &'static str, range_end: &'static str) -> pb::RequestOp {
    let (key, range_end) = (key.into(), range_end.into());
    op(Request::RequestDeleteRange(pb::DeleteRangeRequest { key, range_end, prev_kv: false }))
}

fn success(ops: Vec<pb::RequestOp>) -> pb::TxnRequest {
    pb::TxnRequest { success: ops, ..Default::default() }
}

impl Client {
    async fn delete(
        &self,
        key: &'static str,
        range_end: &'static str,
        prev_kv: bool,
    ) -> Result<i64, Status> {
        let request =
            pb::DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv };
        Ok(self.kv().delete_range(self.ask(request)).await?.into_inner().deleted)
    }

    async fn put_with(&self, request: pb::PutRequest) -> Result<(), Status> {
        self.kv().put(self.ask(request)).await.map(drop)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interval_is_allowed_if_what_is_granted_covers_it() {
    let (node, root, user, _nobody) = guarded().await;
    for key in ["a", "ab", "b", "c", "d"] {
        root.put(key).await.unwrap();
    }
    user.put("ab").await.unwrap();
    assert_eq!(user.get("a", "b").await.unwrap(), 2);
    assert_eq!(user.get("aa", "ac").await.unwrap(), 1);
    for (key, range_end) in [("b", ""), ("a", "c"), ("A", "b"), ("a", "\0"), ("\0", "\0")] {
        refused(user.get(key, range_end).await, DENIED);
        refused(user.delete(key, range_end, false).await, DENIED);
    }
    refused(user.put("b").await, DENIED);
    // What is granted touches: together it covers.
    root.grant("r", Type::Read, "b", "c").await.unwrap();
    assert_eq!(user.get("a", "c").await.unwrap(), 3);
    refused(user.delete("a", "c", false).await, DENIED);
    // One key is no interval, and an open end needs one.
    root.grant("r", Type::Read, "c", "").await.unwrap();
    assert_eq!(user.get("a", "c\0").await.unwrap(), 4);
    refused(user.get("a", "d").await, DENIED);
    refused(user.get("c", "\0").await, DENIED);
    root.grant("r", Type::Read, "c", "\0").await.unwrap();
    assert_eq!(user.get("a", "\0").await.unwrap(), 5);
    // Keys that do not exist are refused as those that do.
    refused(user.delete("x", "", false).await, DENIED);
    // A request that is wrong in itself is wrong for all.
    let empty = (Code::InvalidArgument, "etcdserver: key is not provided");
    refused(user.get("", "").await, empty);
    assert_eq!(user.delete("a", "b", true).await.unwrap(), 2);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_before_needs_read() {
    let (node, root, user, _nobody) = guarded().await;
    root.revoke("r", "a", "b").await.unwrap();
    root.grant("r", Type::Write, "a", "b").await.unwrap();
    let put = |prev_kv| pb::PutRequest { key: "a".into(), prev_kv, ..Default::default() };
    user.put_with(put(false)).await.unwrap();
    refused(user.put_with(put(true)).await, DENIED);
    refused(user.delete("a", "", true).await, DENIED);
    refused(user.get("a", "").await, DENIED);
    assert_eq!(user.delete("a", "", false).await.unwrap(), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_needs_what_all_of_its_branches_need_at_every_depth() {
    let (node, root, user, nobody) = guarded().await;
    let txn = |success, failure| pb::TxnRequest { success, failure, ..Default::default() };
    user.txn(txn(vec![put("a"), range("aa")], vec![delete("a", "b")])).await.unwrap();
    refused(nobody.txn(txn(vec![range("a")], vec![])).await, NOBODY);
    for other in [put("b"), range("b"), delete("a", "c"), delete("b", "")] {
        refused(user.txn(txn(vec![other.clone()], vec![])).await, DENIED);
        // The branch that does not run, too: the refusal tells nothing.
        refused(user.txn(txn(vec![], vec![other.clone()])).await, DENIED);
        let nested = op(Request::RequestTxn(txn(vec![], vec![other.clone()])));
        refused(user.txn(txn(vec![nested.clone()], vec![])).await, DENIED);
        let deeper = op(Request::RequestTxn(txn(vec![nested], vec![])));
        refused(user.txn(txn(vec![], vec![deeper])).await, DENIED);
    }
    let compare = |key: &'static str, range_end: &'static str| pb::TxnRequest {
        compare: vec![pb::Compare {
            key: key.into(),
            range_end: range_end.into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    user.txn(compare("a", "b")).await.unwrap();
    refused(user.txn(compare("b", "")).await, DENIED);
    refused(user.txn(compare("a", "c")).await, DENIED);
    let nested = op(Request::RequestTxn(compare("b", "")));
    refused(user.txn(success(vec![nested])).await, DENIED);
    root.revoke("r", "a", "b").await.unwrap();
    root.grant("r", Type::Write, "a", "b").await.unwrap();
    user.txn(success(vec![put("a")])).await.unwrap();
    refused(user.txn(compare("a", "")).await, DENIED);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_of_those_who_may_write_its_keys() {
    let (node, root, user, nobody) = guarded().await;
    let grant = |id| pb::LeaseGrantRequest { id, ttl: 600 };
    let of = |id| pb::LeaseTimeToLiveRequest { id, keys: true };
    let put =
        |key: &'static str, lease| pb::PutRequest { key: key.into(), lease, ..Default::default() };
    refused(nobody.lease().lease_grant(grant(1)).await, NOBODY);
    refused(nobody.lease().lease_leases(pb::LeaseLeasesRequest {}).await, NOBODY);
    user.lease().lease_grant(user.ask(grant(1))).await.unwrap();
    root.lease().lease_grant(root.ask(grant(2))).await.unwrap();
    user.put_with(put("a", 1)).await.unwrap();
    root.put_with(put("b", 2)).await.unwrap();
    user.lease().lease_time_to_live(user.ask(of(1))).await.unwrap();
    // Another's keys would end with it.
    refused(user.put_with(put("a", 2)).await, DENIED);
    refused(user.lease().lease_time_to_live(user.ask(of(2))).await, DENIED);
    let leases = user.lease().lease_leases(user.ask(pb::LeaseLeasesRequest {})).await;
    refused(leases, DENIED);
    let revoke = |id| pb::LeaseRevokeRequest { id };
    refused(user.lease().lease_revoke(user.ask(revoke(2))).await, DENIED);
    refused(nobody.lease().lease_revoke(revoke(1)).await, NOBODY);
    let renew = async |who: &Client, id| {
        let requests = tokio_stream::iter([pb::LeaseKeepAliveRequest { id }]);
        let answers = who.lease().lease_keep_alive(who.ask(requests)).await;
        answers.unwrap().into_inner().message().await
    };
    assert!(renew(&user, 1).await.unwrap().unwrap().ttl > 0);
    refused(renew(&user, 2).await, DENIED);
    refused(renew(&nobody, 1).await, NOBODY);
    root.put_with(put("b", 1)).await.unwrap();
    refused(renew(&user, 1).await, DENIED);
    refused(user.lease().lease_revoke(user.ask(revoke(1))).await, DENIED);
    root.lease().lease_revoke(root.ask(revoke(1))).await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_of_the_whole_store_is_for_root() {
    let (node, root, user, nobody) = guarded().await;
    root.put("a").await.unwrap();
    for (who, refusal) in [(&user, DENIED), (&nobody, NOBODY)] {
        let compact = pb::CompactionRequest { revision: 2, physical: false };
        refused(who.kv().compact(who.ask(compact)).await, refusal);
        let hash = pb::HashKvRequest { revision: 0 };
        refused(who.maintenance().hash_kv(who.ask(hash)).await, refusal);
        refused(who.revfs().backup(who.ask(wire::BackupRequest {})).await, refusal);
        let compact = wire::CompactRequest { revision: 2, physical: false };
        refused(who.revfs().compact(who.ask(compact)).await, refusal);
    }
    let status = pb::StatusRequest {};
    user.maintenance().status(user.ask(status)).await.unwrap();
    refused(nobody.maintenance().status(status).await, NOBODY);
    refused(nobody.revfs().status(wire::StatusRequest {}).await, NOBODY);
    let hash = pb::HashKvRequest { revision: 0 };
    root.maintenance().hash_kv(root.ask(hash)).await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revfs_shows_no_more_than_etcds_services() {
    let (node, root, user, nobody) = guarded().await;
    for key in ["a", "b"] {
        root.put(key).await.unwrap();
    }
    let history =
        |key: &'static str| wire::HistoryRequest { key: key.into(), ..Default::default() };
    user.revfs().history(user.ask(history("a"))).await.unwrap();
    refused(user.revfs().history(user.ask(history("b"))).await, DENIED);
    refused(nobody.revfs().history(history("a")).await, NOBODY);
    let now = wire::ReadRequest::default;
    user.revfs().read(user.ask(now())).await.unwrap();
    refused(nobody.revfs().read(now()).await, NOBODY);
    refused(nobody.revfs().stamp(wire::StampRequest { revision: 2 }).await, NOBODY);
    refused(nobody.revfs().revision_at(wire::RevisionAtRequest { time: i64::MAX }).await, NOBODY);
    let everything =
        wire::KeyRange { range: Some(wire::key_range::Range::From(bytes::Bytes::new())) };
    let changes =
        wire::ChangesRequest { ranges: vec![everything.clone()], from: 2, ..Default::default() };
    refused(user.revfs().changes(user.ask(changes.clone())).await, DENIED);
    root.revfs().changes(root.ask(changes)).await.unwrap();
    let watch = wire::WatchRequest { ranges: vec![everything], from: 2 };
    refused(user.revfs().watch(user.ask(watch.clone())).await.map(drop), DENIED);
    root.revfs().watch(root.ask(watch)).await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_transaction_is_asked_for_by_its_user_too() {
    let (node, root, user, _nobody) = guarded().await;
    let value = bytes::Bytes::from(vec![b'x'; 9 << 20]);
    let large = |keys: [&'static str; 2]| {
        let ops = keys.map(|key| revfs_api::keyspace::Op::put(key, value.clone()));
        let half = |op| {
            let txn = revfs_api::keyspace::Txn { success: vec![op], ..Default::default() };
            let part = revfs_api::convert::txn_request(txn, revfs_api::keyspace::Origin::default());
            wire::LargeTxnRequest { messages: 2, part: Some(part) }
        };
        tokio_stream::iter(ops.map(half))
    };
    let denied = user.revfs().large_txn(user.ask(large(["a", "b"]))).await;
    refused(denied, DENIED);
    assert_eq!(root.get("\0", "\0").await.unwrap(), 0);
    user.revfs().large_txn(user.ask(large(["a", "ab"]))).await.unwrap();
    assert_eq!(user.get("a", "b").await.unwrap(), 2);
    node.stop().await;
}
