//! Watches of those who may not read, or may not any more.

use std::time::Duration;

use revfs_api::wire::authpb::permission::Type;
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::watch_client::WatchClient;
use revfs_api::wire::etcdserverpb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{Client, guarded};

/// Far above what any answer takes.
const LIMIT: Duration = Duration::from_secs(30);

const DENIED: &str = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";

struct Watches {
    requests: mpsc::Sender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
}

impl Watches {
    async fn open(client: &Client) -> Self {
        let (requests, sent) = mpsc::channel(16);
        let answers = WatchClient::new(client.channel.clone())
            .watch(client.ask(ReceiverStream::new(sent)))
            .await
            .expect("it answers at once");
        Self { requests, answers: answers.into_inner() }
    }

    async fn next(&mut self) -> pb::WatchResponse {
        let answer = tokio::time::timeout(LIMIT, self.answers.message()).await;
        answer.expect("an answer in time").expect("no error").expect("not the end")
    }

    async fn create(&mut self, key: &'static str, range_end: &'static str) -> pb::WatchResponse {
        let create = pb::WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            ..Default::default()
        };
        let request_union = Some(RequestUnion::CreateRequest(create));
        self.requests.send(pb::WatchRequest { request_union }).await.expect("the stream is open");
        self.next().await
    }

    async fn refused(&mut self, key: &'static str, range_end: &'static str, reason: &str) {
        let answer = self.create(key, range_end).await;
        assert!(answer.created && answer.canceled && answer.watch_id == -1, "{answer:?}");
        assert_eq!(answer.cancel_reason, reason);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_needs_read_of_all_that_it_sees() {
    let (node, root, user, nobody) = guarded().await;
    let mut watches = Watches::open(&user).await;
    assert!(!watches.create("a", "b").await.canceled);
    watches.refused("b", "", DENIED).await;
    watches.refused("a", "c", DENIED).await;
    // From a key on, and from the first one: the grant of one key does not open the rest.
    root.grant("r", Type::Read, "k", "").await.unwrap();
    watches.refused("k", "\0", DENIED).await;
    watches.refused("", "", DENIED).await;
    watches.refused("\0", "\0", DENIED).await;
    assert!(!watches.create("k", "").await.canceled);
    let empty = "rpc error: code = InvalidArgument desc = etcdserver: user name is empty";
    Watches::open(&nobody).await.refused("a", "", empty).await;
    let invalid = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
    Watches::open(&nobody.with("nonsense")).await.refused("a", "", invalid).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_with_its_permission_and_the_others_of_its_stream_go_on() {
    let (node, root, user, _nobody) = guarded().await;
    root.grant("r", Type::Read, "k", "l").await.unwrap();
    let mut watches = Watches::open(&user).await;
    let lost = watches.create("a", "b").await.watch_id;
    let kept = watches.create("k", "l").await.watch_id;
    root.put("a").await.unwrap();
    let seen = watches.next().await;
    assert_eq!((seen.watch_id, seen.events.len()), (lost, 1));
    root.add_role("another").await.unwrap();
    root.put("a").await.unwrap();
    assert_eq!(watches.next().await.watch_id, lost, "what does not concern it does not end it");

    root.revoke("r", "a", "b").await.unwrap();
    root.put("a").await.unwrap();
    let ended = watches.next().await;
    assert!(ended.canceled && ended.watch_id == lost && ended.events.is_empty(), "{ended:?}");
    assert_eq!(ended.cancel_reason, DENIED);
    root.put("k").await.unwrap();
    let seen = watches.next().await;
    assert_eq!((seen.watch_id, seen.events.len()), (kept, 1));

    // Its token ends with it, but the stream is told of the watch first.
    root.delete_user("u").await.unwrap();
    let ended = watches.next().await;
    assert!(ended.canceled && ended.watch_id == kept, "{ended:?}");
    assert_eq!(ended.cancel_reason, DENIED);
    let invalid = "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token";
    watches.refused("k", "l", invalid).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_nobody_ends_when_authentication_is_enabled() {
    let (node, root, _user, nobody) = guarded().await;
    root.disable().await.unwrap();
    let mut watches = Watches::open(&nobody).await;
    let id = watches.create("a", "b").await.watch_id;
    nobody.enable().await.unwrap();
    let ended = watches.next().await;
    assert!(ended.canceled && ended.watch_id == id, "{ended:?}");
    let empty = "rpc error: code = InvalidArgument desc = etcdserver: user name is empty";
    assert_eq!(ended.cancel_reason, empty);
    node.stop().await;
}
