//! What many or slow clients cost a node: a bound of memory each, and nothing of the others' answers.

use std::io::Write;
use std::net::TcpStream;

use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::kv_client::KvClient;
use revfs_api::wire::etcdserverpb::watch_client::WatchClient;
use revfs_api::wire::etcdserverpb::watch_request::RequestUnion;
use revfs_tests::{Server, serve, wait};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

const CONNECTIONS: u16 = 5_000;

/// As a client of HTTP/2 begins: its preface, and settings that leave all as it is.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

#[test]
fn five_thousand_idle_connections_are_held_and_others_are_served() {
    const BYTES_EACH_MAX: u64 = 64 * 1_024;
    serve::need_open_files(u64::from(CONNECTIONS) + 500);
    let server = Server::start(&[]);
    let api = server.api();
    api.put("/before", "1");
    let (bytes, files) = (server.memory_bytes(), server.open_files());
    let address = server.url().strip_prefix("http://").expect("it is not encrypted");
    // Half of them say nothing at all.
    let connect = |number: u16| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        if number.is_multiple_of(2) {
            stream.write_all(PREFACE).expect("it listens");
        }
        stream
    };
    let idle: Vec<TcpStream> = (0..CONNECTIONS).map(connect).collect();
    let all = files + usize::from(CONNECTIONS);
    wait::until_true("all connections", wait::LIMIT, || server.open_files() >= all);
    api.put("/meanwhile", "2");
    let another = server.api();
    assert_eq!(another.get("/meanwhile").as_deref(), Some(&b"2"[..]));
    let each = server.memory_bytes().saturating_sub(bytes) / u64::from(CONNECTIONS);
    assert!(each < BYTES_EACH_MAX, "{each} bytes for each connection");
    drop((idle, another));
    wait::until_true("their end", wait::LIMIT, || server.open_files() <= files + 8);
    api.put("/after", "3");
}

/// One stream of watches.
struct Watches {
    requests: mpsc::Sender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
}

async fn channel(server: &Server) -> Channel {
    let channel = Channel::from_shared(server.url().to_owned()).expect("a URL");
    channel.connect().await.expect("it answers")
}

fn create(key: String, range_end: &'static str) -> pb::WatchRequest {
    let create = pb::WatchCreateRequest {
        key: key.into(),
        range_end: range_end.into(),
        ..Default::default()
    };
    pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

impl Watches {
    async fn open(server: &Server) -> Self {
        let (requests, sent) = mpsc::channel(1_000);
        let mut client = WatchClient::new(channel(server).await);
        let watching = client.watch(ReceiverStream::new(sent)).await.expect("it answers");
        let answers = watching.into_inner();
        Self { requests, answers }
    }

    async fn next(&mut self) -> pb::WatchResponse {
        let answer = tokio::time::timeout(wait::LIMIT, self.answers.message()).await;
        answer.expect("an answer in time").expect("the stream goes on").expect("it has not ended")
    }
}

async fn put(kv: &mut KvClient<Channel>, key: &str, value: Vec<u8>) {
    let put = pb::PutRequest {
        key: key.as_bytes().to_vec().into(),
        value: value.into(),
        ..Default::default()
    };
    kv.put(put).await.unwrap_or_else(|status| panic!("put {key}: {status}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stands_still_costs_a_bound_and_is_given_all_in_the_end() {
    const VALUE_BYTES: usize = 256 * 1_024;
    const VALUES: usize = 400;
    // A hundred MiB are written: a buffer of a watch holds one, and a connection less.
    const BYTES_MAX: u64 = 40 << 20;
    let server = Server::start(&[]);
    let mut kv = KvClient::new(channel(&server).await);
    // What the log and the store keep in memory of the newest changes is there before it is measured.
    for number in 0..VALUES {
        put(&mut kv, &format!("/before/{number}"), vec![b'v'; VALUE_BYTES]).await;
    }
    let bytes = server.memory_bytes();
    let mut slow = Watches::open(&server).await;
    slow.requests.send(create("/w/".into(), "/w0")).await.expect("it listens");
    assert!(slow.next().await.created);
    for number in 0..VALUES {
        put(&mut kv, &format!("/w/{number}"), vec![b'w'; VALUE_BYTES]).await;
    }
    let more = server.memory_bytes().saturating_sub(bytes);
    assert!(more < BYTES_MAX, "{more} bytes for a reader that stands still");
    let mut seen = 0;
    while seen < VALUES {
        for event in slow.next().await.events {
            let kv = event.kv.expect("an event has a key");
            assert_eq!(kv.key, format!("/w/{seen}"));
            assert_eq!(kv.value.len(), VALUE_BYTES);
            seen += 1;
        }
    }
}

/// The bound of a stream.
const WATCHES: usize = 100_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_watches_of_a_client_are_served_and_one_more_is_refused() {
    const BYTES_EACH_MAX: u64 = 4 * 1_024;
    let server = Server::start(&[]);
    let mut kv = KvClient::new(channel(&server).await);
    put(&mut kv, "/before", b"1".to_vec()).await;
    let bytes = server.memory_bytes();
    let mut many = Watches::open(&server).await;
    let requests = many.requests.clone();
    let asking = tokio::spawn(async move {
        for number in 0..=WATCHES {
            requests.send(create(format!("/w/{number}"), "")).await.expect("it listens");
        }
    });
    for number in 0..WATCHES {
        let answer = many.next().await;
        assert!(answer.created && !answer.canceled, "{answer:?}");
        assert_eq!(usize::try_from(answer.watch_id), Ok(number));
    }
    let refused = many.next().await;
    assert!(refused.created && refused.canceled, "{refused:?}");
    assert_eq!(refused.cancel_reason, "a stream carries 100000 watches: open another one");
    asking.await.expect("all were asked for");
    let watchers = "etcd_debugging_mvcc_watcher_total";
    wait::until_true("all in the hub", wait::LIMIT, || server.metric(watchers) >= 100_000.0);
    let each = server.memory_bytes().saturating_sub(bytes) / 100_000;
    assert!(each < BYTES_EACH_MAX, "{each} bytes for each watch");

    put(&mut kv, "/w/77777", b"2".to_vec()).await;
    let told = many.next().await;
    assert_eq!((told.watch_id, told.events.len()), (77_777, 1));
    // Who asks on another stream is not concerned.
    let mut other = Watches::open(&server).await;
    other.requests.send(create("/other".into(), "")).await.expect("it listens");
    assert!(!other.next().await.canceled);
    put(&mut kv, "/other", b"3".to_vec()).await;
    assert_eq!(other.next().await.events.len(), 1);
    drop(many);
    wait::until_true("their end", wait::LIMIT, || server.metric(watchers) <= 1.0);
}
