//! What clients that cost much do to the puts of the others: `cargo bench -p revfs-tests --bench disturbed`.
//!
//! The same puts, by eight clients one after the other each, on an idle node, beside a reader that stands
//! still while hundreds of MiB pass it, beside 5,000 idle connections, and beside a client with 100,000
//! watches. Printed are the median, the 99th percentile, and its ratio to that of the idle node.

mod puts;

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::kv_client::KvClient;
use revfs_api::wire::etcdserverpb::watch_client::WatchClient;
use revfs_api::wire::etcdserverpb::watch_request::RequestUnion;
use revfs_tests::{Server, serve};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use self::puts::{HEAD, channel, request, show, timed};

const PUTS_OF_EACH: usize = 500;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

async fn puts_of(server: &Server, prefix: &str) -> Vec<Duration> {
    timed(vec![server.url().to_owned()], prefix, |count| count < PUTS_OF_EACH).await
}

struct Watching {
    requests: mpsc::Sender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
}

impl Watching {
    async fn open(server: &Server) -> Self {
        let (requests, sent) = mpsc::channel(1_000);
        let mut client = WatchClient::new(channel(server.url()).await);
        let answers = client.watch(ReceiverStream::new(sent)).await.expect("it answers");
        Self { requests, answers: answers.into_inner() }
    }

    /// Watches keys, and waits until each watch is there.
    async fn watch(&mut self, keys: impl Iterator<Item = (String, &'static str)>) {
        let mut asked = 0;
        for (key, range_end) in keys {
            let create = pb::WatchCreateRequest {
                key: key.into(),
                range_end: range_end.into(),
                ..Default::default()
            };
            let request_union = Some(RequestUnion::CreateRequest(create));
            let sent = self.requests.send(pb::WatchRequest { request_union });
            sent.await.expect("it listens");
            asked += 1;
            if asked == 500 {
                self.created(asked).await;
                asked = 0;
            }
        }
        self.created(asked).await;
    }

    async fn created(&mut self, count: usize) {
        for _ in 0..count {
            let answer = self.answers.message().await.expect("it goes on").expect("an answer");
            assert!(answer.created && !answer.canceled, "{answer:?}");
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    serve::need_open_files(6_000);
    let server = Server::start(&["--quota-backend-bytes", "-1"]);
    println!("{HEAD}");
    puts_of(&server, "warm").await;
    let alone = show("nothing", &puts_of(&server, "alone").await, None);

    let mut slow = Watching::open(&server).await;
    slow.watch([("/w/".to_owned(), "/w0")].into_iter()).await;
    let mut kv = KvClient::new(channel(server.url()).await);
    for number in 0..400 {
        kv.put(request(format!("/w/{number}"), 256 * 1_024)).await.expect("a put is answered");
    }
    show("a reader that stands still", &puts_of(&server, "slow").await, Some(alone));
    drop(slow);

    let address = server.url().strip_prefix("http://").expect("it is not encrypted");
    let connect = |_| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(PREFACE).expect("it listens");
        stream
    };
    let idle: Vec<TcpStream> = (0..5_000).map(connect).collect();
    show("5,000 idle connections", &puts_of(&server, "idle").await, Some(alone));
    drop(idle);

    let mut many = Watching::open(&server).await;
    many.watch((0..100_000).map(|number| (format!("/m/{number}"), ""))).await;
    show("100,000 watches", &puts_of(&server, "many").await, Some(alone));
    drop(many);
    show("nothing, again", &puts_of(&server, "again").await, Some(alone));
}
