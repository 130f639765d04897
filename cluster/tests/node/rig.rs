//! Nodes with small files, and the few calls that the tests make.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use revfs_api::KeySpace;
use revfs_api::keyspace::{
    Answer, KeyRange, Op, Origin, RangeRead, Read, Result, Revision, Txn, TxnAnswer,
};
use revfs_cluster::log::LogOptions;
use revfs_cluster::{Node, NodeConfig, StartError};
use revfs_store::StoreOptions;

/// Segments of 256 KiB and a small map, so that a test costs little.
pub(crate) fn config(directory: &Path) -> NodeConfig {
    let mut config = NodeConfig::new(directory.join("data"));
    config.ballast_bytes = 1 << 20;
    config.disk_free_min_bytes = 1 << 20;
    config.log = LogOptions { segment_bytes: 256 << 10, ..LogOptions::default() };
    config.store = StoreOptions { map_bytes: 1 << 30, ..StoreOptions::default() };
    config
}

pub(crate) async fn start(directory: &Path) -> Node {
    Node::start(config(directory)).await.unwrap()
}

/// Starts where a node was dropped, which holds its directory until its log has ended.
pub(crate) async fn start_behind_dropped(directory: &Path) -> Node {
    let mut node = None;
    wait_for("the end of the log", async || {
        match Node::start(config(directory)).await {
            Ok(started) => node = Some(started),
            Err(StartError::InUse { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        node.is_some()
    })
    .await;
    node.expect("it was waited for")
}

/// The end of the log, once a new node has noted itself as a member: its row, and what it tells of itself,
/// come behind the first two entries.
pub(crate) async fn settled_index(space: &Arc<dyn KeySpace>) -> u64 {
    let index = async || space.status().await.unwrap().raft_index;
    wait_for("a row of the member", async || index().await >= 3).await;
    index().await
}

pub(crate) async fn shut_down(node: Node) {
    node.shutdown(Duration::from_secs(10)).await.unwrap();
}

pub(crate) async fn put(
    space: &Arc<dyn KeySpace>,
    key: &str,
    value: impl Into<Bytes>,
) -> Result<TxnAnswer> {
    let txn = Txn { success: vec![Op::put(key.to_owned(), value)], ..Txn::default() };
    space.txn(txn, Origin { claimed: "test@host".to_owned(), note: Bytes::new() }).await
}

pub(crate) async fn get(space: &Arc<dyn KeySpace>, key: &str) -> Option<Bytes> {
    let answer = space.read(Revision::NONE, vec![Read::key(key.to_owned())]).await.unwrap();
    let [Answer::Range(range)] = &answer.answers[..] else { panic!("{answer:?}") };
    range.kvs.first().map(|kv| kv.value.clone())
}

/// All keys below a prefix, with their values.
pub(crate) async fn all(space: &Arc<dyn KeySpace>, prefix: &str) -> Vec<(String, Bytes)> {
    let read = RangeRead::new(KeyRange::prefix(prefix.as_bytes()));
    let answer = space.read(Revision::NONE, vec![Read::Range(read)]).await.unwrap();
    let [Answer::Range(range)] = &answer.answers[..] else { panic!("{answer:?}") };
    let pair = |kv: &revfs_api::keyspace::KeyValue| {
        (String::from_utf8(kv.key.to_vec()).unwrap(), kv.value.clone())
    };
    range.kvs.iter().map(pair).collect()
}

/// Polls until `holds`, for ten seconds.
pub(crate) async fn wait_for(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what} did not come true");
        tokio::task::yield_now().await;
    }
}
