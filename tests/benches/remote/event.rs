//! From the start of a write on one machine to the event of it on another: through two mounts and inotify, and
//! through two clients of etcd and a watch.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::kv_client::KvClient;
use revfs_api::wire::etcdserverpb::watch_client::WatchClient;
use revfs_api::wire::etcdserverpb::watch_request::RequestUnion;
use revfs_tests::bounds::{Bounded, Wanted, median};
use revfs_tests::wait;
use std::os::fd::AsFd;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Endpoint;

use crate::Sides;

const SAMPLES: usize = 500;
const CONTENT: [u8; 100] = [b'x'; 100];
/// Of the clients alone: the mounts have another one.
const KEY: &str = "/put";

/// An event comes at once, or never.
const ARRIVAL_MILLISECONDS: u16 = 60_000;

/// A thread that writes when it is told to, and says when it began.
struct Writer {
    go: Sender<()>,
    began: Receiver<Instant>,
    done: Receiver<()>,
}

impl Writer {
    fn new(mut write: impl FnMut() + Send + 'static) -> Self {
        let ((go, told), (starts, began), (ends, done)) = (channel(), channel(), channel());
        std::thread::spawn(move || {
            while told.recv().is_ok() {
                starts.send(Instant::now()).expect("somebody measures");
                write();
                ends.send(()).expect("somebody measures");
            }
        });
        Self { go, began, done }
    }

    /// From the start of a write until `arrived` comes back.
    fn measure(&self, arrived: impl FnOnce()) -> Duration {
        self.go.send(()).expect("it waits");
        arrived();
        let end = Instant::now();
        self.done.recv().expect("it writes");
        end - self.began.recv().expect("it wrote")
    }
}

/// So long nothing comes once all events of a write are there.
const QUIET_MILLISECONDS: u16 = 500;

/// Whether events are there within the time.
fn is_ready(inotify: &Inotify, milliseconds: u16) -> bool {
    let mut ready = [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)];
    poll(&mut ready, PollTimeout::from(milliseconds)).expect("poll") == 1
}

/// Whether the last event of a write is there.
fn is_closed(inotify: &Inotify) -> bool {
    let closed = AddWatchFlags::IN_CLOSE_WRITE;
    let events = inotify.read_events().unwrap_or_default();
    events.iter().any(|event| event.mask.contains(closed))
}

/// Waits for an event of the file; whether it was, or came with, the last one of a write.
fn arrives(inotify: &Inotify) -> bool {
    assert!(is_ready(inotify, ARRIVAL_MILLISECONDS), "no event came");
    is_closed(inotify)
}

fn through_mounts(from: PathBuf, to: &Path) -> (Writer, Inotify) {
    fs::write(&from, CONTENT).expect("a small file");
    wait::until_true("the file", wait::LIMIT, || {
        fs::read(to).is_ok_and(|content| content == CONTENT)
    });
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK).expect("inotify");
    inotify.add_watch(to, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CLOSE_WRITE).expect("watch");
    // The first write may still raise events, now that somebody watches.
    while is_ready(&inotify, QUIET_MILLISECONDS) {
        inotify.read_events().expect("events");
    }
    (Writer::new(move || fs::write(&from, CONTENT).expect("a small file")), inotify)
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

pub(crate) async fn channel_to(url: &str) -> tonic::transport::Channel {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("a URL").tcp_nodelay(true);
    endpoint.connect().await.expect("it answers")
}

/// A client that puts, and a watch of another one. The stream lasts as long as its sender.
fn through_clients(
    url: &str,
) -> (Writer, Runtime, tokio::sync::mpsc::Sender<pb::WatchRequest>, Streaming<pb::WatchResponse>) {
    let runtime = runtime();
    let (requests, sent) = tokio::sync::mpsc::channel(1);
    let stream = runtime.block_on(async {
        let create = pb::WatchCreateRequest { key: KEY.into(), ..Default::default() };
        let request_union = Some(RequestUnion::CreateRequest(create));
        requests.send(pb::WatchRequest { request_union }).await.expect("it listens");
        let mut client = WatchClient::new(channel_to(url).await);
        let mut stream =
            client.watch(ReceiverStream::new(sent)).await.expect("a watch").into_inner();
        let first = stream.message().await.expect("it goes on").expect("an answer");
        assert!(first.created, "{first:?}");
        stream
    });
    let writing = self::runtime();
    let mut kv = KvClient::new(writing.block_on(channel_to(url)));
    let writer = Writer::new(move || {
        let value = CONTENT.to_vec().into();
        let put = pb::PutRequest { key: KEY.into(), value, ..Default::default() };
        writing.block_on(kv.put(put)).expect("a put is answered");
    });
    (writer, runtime, requests, stream)
}

pub(crate) fn measure(sides: &Sides) -> [Bounded; 2] {
    let [one, other] = &sides.mounts;
    let (ours, inotify) = through_mounts(one.path("watched"), &other.path("watched"));
    let urls = [sides.etcd.endpoint(), sides.server.url().to_owned()];
    let mut clients = urls.map(|url| through_clients(&url));
    let (mut revfs, mut others) = (Vec::new(), [Vec::new(), Vec::new()]);
    for _ in 0..SAMPLES {
        let mut closed = false;
        revfs.push(ours.measure(|| closed = arrives(&inotify)));
        wait::until_true("the last event of a write", wait::LIMIT, || {
            closed || is_closed(&inotify)
        });
        for ((writer, runtime, _, stream), samples) in clients.iter_mut().zip(&mut others) {
            let arrives = || drop(runtime.block_on(stream.message()).expect("an event"));
            samples.push(writer.measure(arrives));
        }
    }
    let [etcd, own] = others.map(median);
    let revfs = median(revfs);
    [
        Bounded::times(
            "write on A to inotify on B : put to watch, etcd",
            revfs,
            etcd,
            Wanted::AtMost(1.5),
        ),
        Bounded::times("… : put to watch, revfs", revfs, own, Wanted::Anything),
    ]
}
