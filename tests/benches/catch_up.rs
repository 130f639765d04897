//! What the puts of others cost while a new member catches up: `cargo bench -p revfs-tests --bench catch_up`.
//!
//!     … -- --mib 1024 --pace 64      MiB in the store; MiB/s at which it is sent (`--copy-bytes-per-second`)
//!
//! Three members, on machines of their own (network namespaces, so it takes root), hold a store of one GiB. Eight clients put
//! 256 bytes, one after the other each, through all members: first on the quiet cluster, then from the moment
//! at which a fourth member begins until it votes, then on the quiet cluster again. Printed are the median, the 99th percentile and
//! its ratio to that of the quiet cluster, and how fast the new member came.

mod puts;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use revfs_api::wire::etcdserverpb::kv_client::KvClient;
use revfs_tests::{Cluster, wait};
use serde_json::Value;
use tokio::runtime::Runtime;

use self::puts::{CLIENTS, HEAD, channel, request, show, timed};

/// The values of the store that is to be sent.
const PIECE_BYTES: usize = 64 << 10;

/// The quiet runs.
const QUIET: Duration = Duration::from_secs(20);

/// Far above what a GiB takes.
const LIMIT: Duration = Duration::from_secs(600);

const FOUNDERS: u8 = 3;

async fn fill(url: &str, mib: usize) {
    let kv = KvClient::new(channel(url).await);
    let count = (mib << 20) / PIECE_BYTES;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let mut kv = kv.clone();
        clients.spawn(async move {
            for number in (client..count).step_by(CLIENTS) {
                let put = request(format!("/store/{number}"), PIECE_BYTES);
                kv.put(put).await.expect("a put is answered");
            }
        });
    }
    clients.join_all().await;
}

struct Bench {
    cluster: Cluster,
    runtime: Runtime,
}

impl Bench {
    fn urls(&self) -> Vec<String> {
        (0..FOUNDERS).map(|member| self.url(member)).collect()
    }

    fn url(&self, member: u8) -> String {
        format!("http://{}", self.cluster.client(member))
    }

    /// The puts while `event` lasts.
    fn beside(&mut self, event: impl FnOnce(&mut Cluster)) -> Vec<Duration> {
        let ended = Arc::new(AtomicBool::new(false));
        let goes_on = {
            let ended = Arc::clone(&ended);
            move |_| !ended.load(Ordering::Relaxed)
        };
        let puts = self.runtime.spawn(timed(self.urls(), "puts", goes_on));
        event(&mut self.cluster);
        ended.store(true, Ordering::Relaxed);
        self.runtime.block_on(puts).expect("the clients end")
    }
}

fn quiet(_: &mut Cluster) {
    wait::ask(QUIET, || None::<()>);
}

/// From its start until it votes.
fn join(cluster: &mut Cluster) -> Duration {
    let url = cluster.peer_url(FOUNDERS);
    let first = cluster.client(0);
    cluster.ctl(&first, &["member", "add", "m3", &format!("--peer-urls={url}")]);
    let begun = Instant::now();
    let join = format!("--join={}", cluster.network.address(0));
    cluster.start_with(FOUNDERS, &[join]);
    wait::until_true("the new member votes", LIMIT, || {
        let listed = cluster.revfs(&first, &["member", "list", "--json"]).output();
        let listed = listed.expect("the program runs");
        let mut members = serde_json::Deserializer::from_slice(&listed.stdout).into_iter::<Value>();
        let is_ready =
            |member: &Value| member["peer_urls"][0] == *url && member["state"] == "votes";
        members.any(|member| member.is_ok_and(|member| is_ready(&member)))
    });
    begun.elapsed()
}

fn bytes_below(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

fn setting(name: &str, default: usize) -> usize {
    let mut words = std::env::args().skip_while(|word| word != name);
    words.nth(1).map_or(default, |word| word.parse().expect("a number"))
}

fn main() {
    let (mib, pace) = (setting("--mib", 1_024), setting("--pace", 64));
    let pace_setting = format!("--copy-bytes-per-second={}", pace << 20);
    let settings = ["--quota-backend-bytes=-1", &pace_setting];
    let cluster = Cluster::with_room(FOUNDERS, FOUNDERS + 1, &settings);
    cluster.wait_for_leader();
    let runtime = Runtime::new().expect("a runtime");
    let mut bench = Bench { cluster, runtime };
    eprintln!("{mib} MiB …");
    bench.runtime.block_on(fill(&bench.url(0), mib));
    println!("{HEAD}");
    bench.beside(quiet);
    let alone = show("nothing", &bench.beside(quiet), None);
    let mut took = Duration::ZERO;
    let beside = bench.beside(|cluster| took = join(cluster));
    show("a member that catches up", &beside, Some(alone));
    show("nothing, with four members", &bench.beside(quiet), Some(alone));
    let bytes = bytes_below(&bench.cluster.data_dir(FOUNDERS));
    println!(
        "\n{} MiB in its data directory after {took:.1?}, sent at {pace} MiB/s at most",
        bytes >> 20
    );
}
