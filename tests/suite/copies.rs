//! The store of a member is copied for another one that lags behind the log, and never else.
//!
//! `REVFS_HEALTHY_PUTS=1000000` makes it a soak.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use revfs_api::wire::etcdserverpb::PutRequest;
use revfs_api::wire::etcdserverpb::kv_client::KvClient;
use revfs_tests::{Cluster, wait};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

/// Far more than a log of these settings holds.
const PUTS: u64 = 3_000;
const SETTINGS: [&str; 2] = ["--snapshot-count=100", "--snapshot-catchup-entries=200"];

/// Entries that the log may hold: those of the settings, and as many as one purge gathers.
const KEPT: u64 = 200 + 2 * 100;

/// Each puts through one member after the other and waits for each answer. So no member lags by more than
/// three changes of each, which the log holds.
const CLIENTS: usize = 48;

/// Puts until `left` are done.
async fn client(number: usize, channels: Vec<Channel>, left: Arc<AtomicU64>) {
    let take = |left: u64| left.checked_sub(1);
    let mut count = number;
    while let Ok(left) = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take) {
        count += 1;
        let channel = channels[count % channels.len()].clone();
        let put = PutRequest {
            key: format!("key/{}", left % 1_000).into_bytes().into(),
            value: left.to_string().into_bytes().into(),
            ..PutRequest::default()
        };
        let begun = Instant::now();
        while let Err(status) = KvClient::new(channel.clone()).put(put.clone()).await {
            // Leaders may change on a busy machine.
            assert!(begun.elapsed() < wait::LIMIT, "a put was never acknowledged: {status}");
            tokio::task::yield_now().await;
        }
    }
}

fn put_through(cluster: &Cluster, members: &[u8], puts: u64) {
    let runtime = Runtime::new().expect("a runtime");
    let begun = Instant::now();
    runtime.block_on(async {
        let channel = |&member: &u8| {
            let url = format!("http://{}", cluster.client(member));
            let endpoint = Endpoint::from_shared(url).expect("an address");
            endpoint.connect_timeout(wait::LIMIT).timeout(wait::LIMIT).connect_lazy()
        };
        let channels: Vec<Channel> = members.iter().map(channel).collect();
        let left = Arc::new(AtomicU64::new(puts));
        let client = |number| tokio::spawn(client(number, channels.clone(), Arc::clone(&left)));
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        for client in clients {
            client.await.expect("no client panics");
        }
    });
    println!("{puts} puts in {:?}", begun.elapsed());
}

#[test]
fn members_that_keep_up_are_never_sent_a_copy_and_one_that_was_away_is() {
    let puts = std::env::var("REVFS_HEALTHY_PUTS")
        .map_or(PUTS, |text| text.parse().unwrap_or_else(|error| panic!("{text}: {error}")));
    let mut cluster = Cluster::with_room(3, 3, &SETTINGS);
    cluster.wait_for_leader();
    put_through(&cluster, &[0, 1, 2], puts);
    cluster.agree();
    for member in 0..3 {
        wait::until_true("log that was purged", wait::LIMIT, || {
            cluster.purged(member) + KEPT > puts
        });
        assert_eq!(cluster.copies_made(member), 0, "m{member} copied its store for nobody");
    }
    // The count is one: who was away while the log was purged is sent a copy.
    let away = (cluster.wait_for_leader() + 1) % 3;
    let others: Vec<u8> = (0..3).filter(|&member| member != away).collect();
    cluster.kill(away);
    let last = cluster.last_index(others[0]);
    put_through(&cluster, &others, 2 * KEPT);
    for &other in &others {
        cluster.wait_given_up(other, last);
    }
    cluster.start_member(away);
    cluster.wait_writable(away);
    cluster.agree();
    let copies: u64 = others.iter().map(|&other| cluster.copies_made(other)).sum();
    assert!(copies > 0, "it came back without a copy:\n{}", cluster.log(away));
}
