//! Who asks for a leader (`hasleader`) is told that there is none, whichever member is left: one that followed, or
//! one that led and hears of nobody any more.

use futures_util::FutureExt as _;
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::kv_client::KvClient;
use revfs_api::wire::etcdserverpb::watch_client::WatchClient;
use revfs_api::wire::etcdserverpb::watch_request::RequestUnion;
use revfs_cluster::grpc::{Listen, serve_node};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use crate::rig::{Cluster, PATIENCE, put, wait_for};

const NO_LEADER: &str = "etcdserver: no leader";

fn asking<T>(message: T, has_leader: bool) -> Request<T> {
    let mut request = Request::new(message);
    if has_leader {
        request.metadata_mut().insert("hasleader", "true".parse().unwrap());
    }
    request
}

/// A read that needs no quorum.
async fn read(channel: &Channel, has_leader: bool) -> Result<(), Status> {
    let range = pb::RangeRequest { key: "k".into(), serializable: true, ..Default::default() };
    KvClient::new(channel.clone()).range(asking(range, has_leader)).await.map(drop)
}

/// A stream with one watch; it lives as long as its sender.
async fn watch(
    channel: &Channel,
    has_leader: bool,
) -> (Streaming<pb::WatchResponse>, mpsc::Sender<pb::WatchRequest>) {
    let (requests, sent) = mpsc::channel(1);
    let create = pb::WatchCreateRequest { key: "k".into(), ..Default::default() };
    let request_union = Some(RequestUnion::CreateRequest(create));
    requests.send(pb::WatchRequest { request_union }).await.unwrap();
    let mut client = WatchClient::new(channel.clone());
    let answers = client.watch(asking(ReceiverStream::new(sent), has_leader)).await.unwrap();
    let mut answers = answers.into_inner();
    assert!(answers.message().await.unwrap().unwrap().created);
    (answers, requests)
}

async fn left_alone(was_leader: bool) {
    let mut cluster = Cluster::start(3).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    put(&cluster.space(leader), "k", "v").await.unwrap();
    let left = if was_leader { leader } else { follower };
    let listen = Listen { tcp: vec!["127.0.0.1:0".parse().unwrap()], ..Listen::default() };
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async { stopped.await.unwrap_or_default() };
    let server = serve_node(listen, cluster.local(left), stopped).await.unwrap();
    let channel = Channel::from_shared(format!("http://{}", server.tcp()[0])).unwrap();
    let channel = channel.connect().await.unwrap();
    let has_leader = async || read(&channel, true).await.ok();
    wait_for("a leader that is noticed", has_leader).await;
    let (mut led, _led_requests) = watch(&channel, true).await;
    let (mut other, _other_requests) = watch(&channel, false).await;

    let others: Vec<usize> = (0..3).filter(|&member| member != left).collect();
    // In no order: who leads cannot hand over.
    for &member in &others {
        cluster.drop_member(member);
    }
    let end = tokio::time::timeout(PATIENCE, led.message()).await.expect("it ends").unwrap_err();
    assert_eq!((end.code(), end.message()), (Code::Unavailable, NO_LEADER), "{end:?}");
    let refused = read(&channel, true).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, NO_LEADER));
    read(&channel, false).await.unwrap();
    assert!(other.message().now_or_never().is_none(), "who did not ask goes on");

    cluster.start_member(others[0]).await;
    wait_for("a leader again", has_leader).await;
    drop((led, other, channel));
    drop(stop);
    server.finished().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_followed_says_so_when_it_is_left_alone() {
    left_alone(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_led_says_so_when_it_is_left_alone() {
    left_alone(true).await;
}
