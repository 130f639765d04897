//! The puts that the benches of disturbances time, and how they show what those took.

use std::time::{Duration, Instant};

use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::kv_client::KvClient;
use revfs_tests::bounds::Wanted;
use tonic::transport::Channel;

/// Each puts one after the other.
pub(crate) const CLIENTS: usize = 8;

pub(crate) const VALUE_BYTES: usize = 256;

pub(crate) const HEAD: &str = "| beside the puts | puts | median | 99 % | ratio | wanted | met |\n| --- | --- | --- | --- | --- | --- | --- |";

pub(crate) async fn channel(url: &str) -> Channel {
    let channel = Channel::from_shared(url.to_owned()).expect("a URL");
    channel.connect().await.expect("it answers")
}

pub(crate) fn request(key: String, bytes: usize) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: vec![b'v'; bytes].into(), ..Default::default() }
}

/// How long each put of all clients took, the shortest first. A client puts the key of each number below its own
/// prefix as long as `goes_on` says so.
pub(crate) async fn timed(
    urls: Vec<String>,
    prefix: &str,
    goes_on: impl Fn(usize) -> bool + Clone + Send + 'static,
) -> Vec<Duration> {
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let (url, goes_on) = (urls[client % urls.len()].clone(), goes_on.clone());
        let prefix = format!("/{prefix}/{client}");
        clients.spawn(async move {
            let mut kv = KvClient::new(channel(&url).await);
            let mut took = Vec::new();
            while goes_on(took.len()) {
                let put = request(format!("{prefix}/{}", took.len() % 1_000), VALUE_BYTES);
                let begun = Instant::now();
                kv.put(put).await.expect("a put is answered");
                took.push(begun.elapsed());
            }
            took
        });
    }
    let mut all = clients.join_all().await.concat();
    all.sort();
    all
}

/// What the 99th percentile may be of that without a disturbance.
const RATIO_MAX: f64 = 2.0;

/// A line of the table, with the ratio of its 99th percentile to `alone`; the percentile.
pub(crate) fn show(name: &str, took: &[Duration], alone: Option<Duration>) -> Duration {
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    let ratio = alone.map_or(1.0, |alone| at(99).as_secs_f64() / alone.as_secs_f64());
    let wanted = alone.map_or(Wanted::Anything, |_| Wanted::AtMost(RATIO_MAX)).cells(ratio);
    let (count, median, ninety_ninth) = (took.len(), at(50), at(99));
    println!("| {name} | {count} | {median:.1?} | {ninety_ninth:.1?} | {ratio:.2} | {wanted} |");
    ninety_ninth
}
