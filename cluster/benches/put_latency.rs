//! What a put costs beside one flush of the disk, in one run: `cargo bench -p revfs-cluster`.
//!
//! Layers, each with one client that waits for its answer before it goes on: a bare flush of a
//! pre-zeroed file, the log alone (one thread hop there and one back), the whole node from a task and
//! from a thread outside the runtime, as a mount calls it. Then the node with more clients.

use std::fs::File;
use std::future::Future;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use revfs_api::KeySpace;
use revfs_api::keyspace::{Op, Origin, Txn};
use revfs_cluster::log::{Entry, Log, LogId, LogOptions};
use revfs_cluster::{Node, NodeConfig};
use tokio::runtime::{Handle, Runtime};

const VALUE_BYTES: usize = 256;
const SAMPLES: usize = 2_000;
const WARM_UP: usize = 200;

/// Latencies of one layer.
struct Latencies(Vec<Duration>);

impl Latencies {
    fn measure(mut once: impl FnMut(usize)) -> Self {
        let mut samples = Vec::with_capacity(SAMPLES);
        for at in 0..WARM_UP + SAMPLES {
            let begun = Instant::now();
            once(at);
            if at >= WARM_UP {
                samples.push(begun.elapsed());
            }
        }
        samples.sort_unstable();
        Self(samples)
    }

    fn at(&self, percent: usize) -> Duration {
        self.0[self.0.len() * percent / 100]
    }

    fn print(&self, name: &str) {
        println!(
            "{name:<44} p50 {:>8.1?}  p90 {:>8.1?}  p99 {:>8.1?}",
            self.at(50),
            self.at(90),
            self.at(99)
        );
    }
}

fn main() {
    // The target directory lies on a disk; the directory of temporary files may not.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    bare_flush(directory.path());
    log_alone(directory.path());
    let runtime = Runtime::new().expect("a runtime");
    let config = NodeConfig::new(directory.path().join("node"));
    let node = runtime.block_on(Node::start(config)).expect("a node");
    let space = node.key_space();
    from_a_thread(runtime.handle(), &space);
    runtime.block_on(runtime.spawn(from_a_task(Arc::clone(&space)))).expect("the task ends");
    for clients in [1, 16, 128] {
        runtime.block_on(many(Arc::clone(&space), clients));
    }
    drop(space);
    runtime.block_on(node.shutdown(Duration::from_secs(10))).expect("an orderly end");
}

fn bare_flush(directory: &Path) {
    let file = File::create(directory.join("flush")).expect("a file");
    file.write_all_at(&vec![0; 4 << 20], 0).expect("room");
    file.sync_all().expect("a flush");
    let bytes = [7; VALUE_BYTES + 128];
    let mut offset = 0;
    let latencies = Latencies::measure(|_| {
        file.write_all_at(&bytes, offset).expect("a write");
        file.sync_data().expect("a flush");
        offset += 384;
    });
    latencies.print("write + fdatasync, pre-zeroed file");
}

fn log_alone(directory: &Path) {
    let directory = directory.join("log");
    std::fs::create_dir(&directory).expect("a directory");
    let options = LogOptions::default();
    Log::create(&directory, &options).expect("a log");
    let log = Log::open(&directory, options, None).expect("a log");
    let payload = Bytes::from(vec![7; VALUE_BYTES]);
    let latencies = Latencies::measure(|at| {
        let index = u64::try_from(at).expect("a small number");
        let entry = Entry { id: LogId { term: 1, index }, kind: 1, payload: payload.clone() };
        let (done, answer) = mpsc::channel();
        log.append(vec![entry], Box::new(move |result| done.send(result).expect("a waiter")));
        answer.recv().expect("an answer").expect("a flush");
    });
    latencies.print("log: append to completion");
    log.close().expect("an orderly end");
}

fn put(space: &Arc<dyn KeySpace>, key: String) -> impl Future<Output = ()> + use<> {
    let space = Arc::clone(space);
    async move {
        let op = Op::put(key, vec![7; VALUE_BYTES]);
        let txn = Txn { success: vec![op], ..Txn::default() };
        space.txn(txn, Origin::default()).await.expect("a put");
    }
}

fn from_a_thread(runtime: &Handle, space: &Arc<dyn KeySpace>) {
    let latencies =
        Latencies::measure(|at| runtime.block_on(put(space, format!("/thread/{}", at % 500))));
    latencies.print("node: put from a thread outside the runtime");
}

async fn from_a_task(space: Arc<dyn KeySpace>) {
    let mut samples = Vec::with_capacity(SAMPLES);
    for at in 0..WARM_UP + SAMPLES {
        let begun = Instant::now();
        put(&space, format!("/task/{}", at % 500)).await;
        if at >= WARM_UP {
            samples.push(begun.elapsed());
        }
    }
    samples.sort_unstable();
    Latencies(samples).print("node: put from a task");
}

async fn many(space: Arc<dyn KeySpace>, clients: usize) {
    let each = 4_000 / clients;
    let begun = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let space = Arc::clone(&space);
            tokio::spawn(async move {
                for at in 0..each {
                    put(&space, format!("/many/{client}/{at}")).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("the client ends");
    }
    let puts = u32::try_from(each * clients).expect("a small number");
    let rate = f64::from(puts) / begun.elapsed().as_secs_f64();
    println!("node: {clients:>3} clients {rate:>37.0} puts/s");
}
