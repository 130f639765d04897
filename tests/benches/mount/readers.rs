//! Small files read by several processes at once through the mount, beside gets of as large values from an etcd by the
//! clients that it likes best; and files that the kernel does not know yet.
//!
//! A reader is this program again ([`FLAG`]), with descriptors of its own. It says that it is ready, waits until its
//! input ends, and says how often it has read a file a second.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::kv_client::KvClient;
use revfs_api::wire::etcdserverpb::request_op::Request;
use revfs_tests::bounds::{Bounded, Wanted, median};
use revfs_tests::{Etcd, Mount};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

use crate::figures::{EMPTY_CREATE, EMPTY_ROUND_TRIPS, Figures};

/// How the benchmark calls itself to be a reader.
pub(crate) const FLAG: &str = "--reader";

const PROCESSES: usize = 4;
const ROUNDS: usize = 3;
const SAMPLE: Duration = Duration::from_secs(2);
const FILE_BYTES: usize = 256;

/// As many keys in etcd. Few enough for each process to have them open.
const FILES: usize = 500;
/// Next to each other in no order that anybody could guess.
const SCATTER: usize = 7_919;

/// Clients of etcd, and the connections that they share.
const CLIENTS: usize = 64;
const CONNECTIONS: usize = 4;

/// LOOKUP, OPEN, READ, and one more.
const ROUND_TRIPS_MAX: f64 = 4.0;

const OPENING: &str = "opening";
const OPEN: &str = "open";

/// Reads files of a directory again and again; `kind` says whether it opens each.
pub(crate) fn run(kind: &str, dir: &Path) {
    let paths: Vec<PathBuf> = (0..FILES).map(|number| dir.join(number.to_string())).collect();
    let open = |path: &PathBuf| File::open(path).expect("it is there");
    let files: Vec<File> = paths.iter().map(open).collect();
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new()).expect("the input ends");
    let own = usize::try_from(std::process::id()).expect("a small number");
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < SAMPLE {
        let file = (own + count * SCATTER) % FILES;
        if kind == OPENING {
            read(&open(&paths[file]));
        } else {
            read(&files[file]);
        }
        count += 1;
    }
    println!("{}", count as f64 / begun.elapsed().as_secs_f64());
}

fn read(file: &File) {
    let mut buffer = [0; FILE_BYTES];
    file.read_exact_at(&mut buffer, 0).expect("it is whole");
    black_box(buffer);
}

/// Reads a second of all processes together.
fn reads(kind: &str, dir: &Path) -> f64 {
    let program = std::env::current_exe().expect("our own program");
    let line = |from: &mut BufReader<ChildStdout>| {
        let mut line = String::new();
        from.read_line(&mut line).expect("it is text");
        line.trim().to_owned()
    };
    let mut readers: Vec<(Child, BufReader<ChildStdout>)> = (0..PROCESSES)
        .map(|_| {
            let mut command = Command::new(&program);
            command.args([FLAG, kind]).arg(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().expect("a reader starts");
            let said = BufReader::new(child.stdout.take().expect("it is piped"));
            (child, said)
        })
        .collect();
    for (_, said) in &mut readers {
        assert_eq!(line(said), "ready");
    }
    for (reader, _) in &mut readers {
        drop(reader.stdin.take());
    }
    let rates = readers.iter_mut().map(|(reader, said)| {
        let rate = line(said);
        assert!(reader.wait().expect("it is our child").success(), "a reader failed");
        rate.parse::<f64>().unwrap_or_else(|error| panic!("{rate}: {error}"))
    });
    rates.sum()
}

fn write(dir: &Path) {
    fs::create_dir(dir).expect("a directory to read from");
    for number in 0..FILES {
        fs::write(dir.join(number.to_string()), [b'x'; FILE_BYTES]).expect("a small file");
    }
}

fn key(number: usize) -> bytes::Bytes {
    format!("/read/{number}").into()
}

/// Connections to an etcd that holds as many keys as there are files.
async fn connect(etcd: &Etcd) -> Vec<Channel> {
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS {
        let endpoint = Endpoint::from_shared(etcd.endpoint()).expect("a URL").tcp_nodelay(true);
        channels.push(endpoint.connect().await.expect("it answers"));
    }
    let numbers: Vec<usize> = (0..FILES).collect();
    for some in numbers.chunks(100) {
        let put = |&number: &usize| {
            let value = vec![b'x'; FILE_BYTES].into();
            let put = pb::PutRequest { key: key(number), value, ..Default::default() };
            pb::RequestOp { request: Some(Request::RequestPut(put)) }
        };
        let txn = pb::TxnRequest { success: some.iter().map(put).collect(), ..Default::default() };
        KvClient::new(channels[0].clone()).txn(txn).await.expect("it is changed");
    }
    channels
}

/// Linearizable gets a second of all clients together.
async fn gets(channels: &[Channel]) -> f64 {
    let count = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let mut kv = KvClient::new(channels[client % CONNECTIONS].clone());
        let count = Arc::clone(&count);
        clients.spawn(async move {
            let mut own = client;
            while begun.elapsed() < SAMPLE {
                own += SCATTER;
                let get = pb::RangeRequest { key: key(own % FILES), ..Default::default() };
                let found = kv.range(get).await.expect("an answer").into_inner();
                assert_eq!(found.kvs.len(), 1);
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    clients.join_all().await;
    count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64()
}

fn middle(mut rates: Vec<f64>) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// All processes on the mount of a node, in turn with the clients of an etcd.
pub(crate) fn measure(dir: &Path) -> [Bounded; 2] {
    let dir = dir.join("read");
    write(&dir);
    let etcd = Etcd::start();
    let runtime = Runtime::new().expect("a runtime");
    let channels = runtime.block_on(connect(&etcd));
    let (mut opened, mut read, mut got) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        opened.push(reads(OPENING, &dir));
        read.push(reads(OPEN, &dir));
        got.push(runtime.block_on(gets(&channels)));
    }
    let got = middle(got);
    let beside = "get linearizable, 64 clients, etcd";
    let line = |what: &str, rates, at_least| {
        let what = format!("{what}, {PROCESSES} processes : {beside}");
        Bounded::rates(&what, middle(rates), got, Wanted::AtLeast(at_least))
    };
    [
        line("open + read 256 B + close", opened, 6.0),
        line("pread of 256 B of open files", read, 50.0),
    ]
}

/// The mount is begun anew, so that the kernel knows no name, and each file is read once.
pub(crate) fn first_reads(mount: &mut Mount, dir: &Path, figures: &Figures) -> Bounded {
    let dir = dir.join("fresh");
    write(&dir);
    let mut samples = Vec::new();
    for _ in 0..ROUNDS {
        mount.stop();
        mount.start();
        fs::metadata(&dir).expect("the way there is known");
        samples.extend((0..FILES).map(|number| {
            let path = dir.join(number.to_string());
            let begun = Instant::now();
            read(&File::open(path).expect("it is there"));
            begun.elapsed()
        }));
    }
    let round_trip =
        figures.median(EMPTY_CREATE, "fuse").expect("it was measured") / EMPTY_ROUND_TRIPS;
    let what = "first open + read 256 B + close of a file : a round trip to the empty handler";
    Bounded::times(what, median(samples), round_trip, Wanted::AtMost(ROUND_TRIPS_MAX))
}
