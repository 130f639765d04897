//! The crate `etcd-client`, which many Rust programs use, on a node.

use etcd_client::{
    AlarmAction, AlarmType, Client, Compare, CompareOp, EventType, GetOptions, LockOptions,
    PutOptions, Txn, TxnOp, WatchOptions,
};

use revfs_client_tests::Node;

async fn connect(node: &Node) -> Client {
    Client::connect([node.address()], None).await.expect("it answers")
}

#[tokio::test]
async fn keys_transactions_and_their_past() {
    let node = Node::start().await;
    let mut client = connect(&node).await;
    client.put("app/a", "1", None).await.unwrap();
    let options = PutOptions::new().with_prev_key();
    let put = client.put("app/a", "2", Some(options)).await.unwrap();
    assert_eq!(put.prev_key().unwrap().value(), b"1");
    client.put("app/b", "3", None).await.unwrap();
    let all = client.get("app/", Some(GetOptions::new().with_prefix())).await.unwrap();
    let found: Vec<_> = all.kvs().iter().map(|kv| kv.value()).collect();
    assert_eq!((found, all.count()), (vec![&b"2"[..], b"3"], 2));
    let past = client.get("app/a", Some(GetOptions::new().with_revision(2))).await.unwrap();
    assert_eq!(past.kvs()[0].value(), b"1");

    let txn = Txn::new()
        .when([Compare::value("app/a", CompareOp::Equal, "2")])
        .and_then([TxnOp::put("app/a", "4", None), TxnOp::get("app/b", None)])
        .or_else([TxnOp::delete("app/b", None)]);
    let answer = client.txn(txn).await.unwrap();
    assert!(answer.succeeded());
    assert_eq!(answer.op_responses().len(), 2);
    let deleted = client.delete("app/b", None).await.unwrap();
    assert_eq!((deleted.deleted(), deleted.header().unwrap().revision()), (1, 6));
    client.compact(5, None).await.unwrap();
    let old = client.get("app/a", Some(GetOptions::new().with_revision(2))).await.unwrap_err();
    assert!(old.to_string().contains("required revision has been compacted"), "{old}");
    node.stop().await;
}

#[tokio::test]
async fn several_watches_on_a_stream() {
    let node = Node::start().await;
    let mut client = connect(&node).await;
    let mut writer = client.clone();
    client.put("a", "0", None).await.unwrap();
    let options = WatchOptions::new().with_watch_id(7).with_start_revision(2);
    let mut stream = client.watch("a", Some(options)).await.unwrap();
    let created = stream.message().await.unwrap().unwrap();
    assert_eq!((created.created(), created.watch_id()), (true, 7));
    let past = stream.message().await.unwrap().unwrap();
    assert_eq!(past.events()[0].kv().unwrap().value(), b"0");
    let options = WatchOptions::new().with_watch_id(8).with_prefix().with_prev_key();
    stream.watch("b/", Some(options)).await.unwrap();
    assert_eq!(stream.message().await.unwrap().unwrap().watch_id(), 8);
    writer.put("b/1", "1", None).await.unwrap();
    writer.delete("b/1", None).await.unwrap();
    let put = stream.message().await.unwrap().unwrap();
    assert_eq!((put.watch_id(), put.events()[0].event_type()), (8, EventType::Put));
    let deleted = stream.message().await.unwrap().unwrap();
    let event = &deleted.events()[0];
    assert_eq!(event.event_type(), EventType::Delete);
    assert_eq!(event.prev_kv().unwrap().value(), b"1");
    stream.request_progress().await.unwrap();
    let progress = stream.message().await.unwrap().unwrap();
    assert_eq!((progress.watch_id(), progress.header().unwrap().revision()), (-1, 4));
    stream.cancel(8).await.unwrap();
    let canceled = stream.message().await.unwrap().unwrap();
    assert!(canceled.canceled() && canceled.watch_id() == 8);
    drop((stream, client, writer));
    node.stop().await;
}

#[tokio::test]
async fn leases_locks_and_elections() {
    let node = Node::start().await;
    let mut client = connect(&node).await;
    let lease = client.lease_grant(100, None).await.unwrap().id();
    let options = PutOptions::new().with_lease(lease);
    client.put("on/lease", "x", Some(options)).await.unwrap();
    let (mut keeper, mut renewed) = client.lease_keep_alive(lease).await.unwrap();
    keeper.keep_alive().await.unwrap();
    assert_eq!(renewed.message().await.unwrap().unwrap().ttl(), 100);
    drop((keeper, renewed));
    assert_eq!(client.leases().await.unwrap().leases()[0].id(), lease);

    let options = LockOptions::new().with_lease(lease);
    let held = client.lock("name", Some(options)).await.unwrap();
    assert_eq!(held.key(), format!("name/{lease:x}").as_bytes());
    let mut other = client.clone();
    let waiting = tokio::spawn(async move { other.lock("name", None).await });
    client.unlock(held.key()).await.unwrap();
    assert!(waiting.await.unwrap().unwrap().key().starts_with(b"name/"));

    let won = client.campaign("post", "me", lease).await.unwrap();
    assert_eq!(won.leader().unwrap().name(), b"post");
    assert_eq!(client.leader("post").await.unwrap().kv().unwrap().value(), b"me");
    client.lease_revoke(lease).await.unwrap();
    let gone = client.leader("post").await.unwrap_err();
    assert!(gone.to_string().contains("election: no leader"), "{gone}");
    assert!(client.get("on/lease", None).await.unwrap().kvs().is_empty());
    drop(client);
    node.stop().await;
}

#[tokio::test]
async fn maintenance_and_members() {
    let node = Node::start().await;
    let mut client = connect(&node).await;
    let members = client.member_list().await.unwrap();
    let member = &members.members()[0];
    let status = client.status().await.unwrap();
    assert_eq!((status.leader(), status.version()), (member.id(), "3.6.0"));
    let alarms = client.alarm(AlarmAction::Get, AlarmType::None, None).await.unwrap();
    assert!(alarms.alarms().is_empty());
    client.defragment().await.unwrap();
    client.move_leader(member.id()).await.unwrap();
    assert_eq!(client.hash_kv(0).await.unwrap().hash(), 1_084_519_789, "an empty store's");
    let mut snapshot = client.snapshot().await.unwrap();
    let mut bytes = 0;
    while let Some(part) = snapshot.message().await.unwrap() {
        bytes += part.blob().len();
    }
    assert_eq!(bytes % 512, 32, "whole, for etcd's tools");
    drop(client);
    node.stop().await;
}
