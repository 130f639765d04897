//! A million keys in each server: what they cost on the disk and in memory, how soon a server that was started on them answers,
//! and a short range among them.
//!
//! Each server is filled twice from nothing, first with the keys at random, then in their order; the rest is
//! measured on the latter. Between two starts a thousand keys are put, so that there is something to recover.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use revfs_api::wire::etcdserverpb::RangeRequest;
use revfs_api::wire::etcdserverpb::kv_client::KvClient;
use revfs_tests::bounds::{Bounded, Wanted, median};
use tonic::transport::Endpoint;

use crate::compare::{self, Side};
use crate::load::{Done, Load, Outcome, VALUE_BYTES};
use crate::server::Server;
use crate::settings::Settings;
use crate::table::{Goal, Line};
use crate::unread;
use crate::workloads::Workload;

const KEYS: usize = 1_000_000;

/// Has no factor in common with any power of ten: multiples of it are each number once.
const SCATTER: usize = 7_654_321;

/// Each asks a server to count all keys, for which etcd lists them in its memory.
const CLIENTS: usize = 8;
const LIMIT: usize = 500;

const CHANGED: usize = 1_000;

/// A node looks at the length of its log once a second.
const PURGE_PERIOD: Duration = Duration::from_secs(2);
const SETTLING_PERIODS_MAX: usize = 30;

/// Between two attempts to reach a server that was just started.
const ATTEMPTS: Duration = Duration::from_millis(1);
/// One that has taken a call answers within so long, or it is asked again.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
const START_LIMIT: Duration = Duration::from_secs(120);

const LIMITED: Workload = Workload::new(
    "range of all keys with limit 500, and their count, 8 clients",
    Goal::Rate { at_least: 1.5 },
    |load, length| Box::pin(limited(load, length)),
);

/// 32 bytes.
fn key(number: usize) -> Bytes {
    format!("/bench/million/key-{number:013}").into()
}

/// The measured lines, and what else has a bound.
pub(crate) struct Million {
    pub(crate) lines: Vec<Line>,
    pub(crate) bounded: Vec<Bounded>,
}

pub(crate) async fn measure(settings: &Settings, disk: &Path) -> Outcome<Million> {
    let count = settings.keys_max.min(KEYS);
    eprintln!("{count} keys at random …");
    let scattered = disk.join("scattered");
    let bytes = {
        let servers = start(&scattered).await?;
        fill(&servers, count, move |number| key(number * SCATTER % count)).await?;
        settled(&scattered).await?
    };
    std::fs::remove_dir_all(&scattered)?;
    let [etcd, revfs] = bytes;
    let what = format!("bytes on the disk, {count} keys of 32 + {VALUE_BYTES} B");
    let at_random = Bounded::bytes(&format!("{what}, at random"), revfs, etcd, Wanted::AtMost(1.1));

    eprintln!("{count} keys in order …");
    let ordered = disk.join("ordered");
    let mut servers = start(&ordered).await?;
    fill(&servers, count, key).await?;
    let loaded = servers.each_ref().map(Server::anonymous_bytes);
    let [etcd, revfs] = settled(&ordered).await?;
    let in_order = Bounded::bytes(&format!("{what}, in order"), revfs, etcd, Wanted::AtMost(0.9));
    let sides = [Side::of(&servers[0]).await?, Side::of(&servers[1]).await?];
    let lines = vec![compare::measure(settings, &sides, None, &LIMITED).await?];

    let stopped = restarts(settings, &mut servers, |server| server.stop(0)).await?;
    let restarted = servers.each_ref().map(Server::anonymous_bytes);
    let killed = restarts(settings, &mut servers, |server| {
        server.kill(0);
        Ok(())
    });
    let killed = killed.await?;
    let memory = |what: &str, [etcd, revfs]: [u64; 2]| {
        Bounded::bytes(&format!("anonymous memory {what}"), revfs, etcd, Wanted::AtMost(0.15))
    };
    let start = |what: &str, [etcd, revfs]: [Duration; 2]| {
        let what = format!("from exec to the first linearizable get, {what}");
        Bounded::times(&what, revfs, etcd, Wanted::AtMost(0.02))
    };
    let bounded = vec![
        start("stopped before", stopped),
        start("killed before", killed),
        memory("when they are loaded", loaded),
        memory("after a restart", restarted),
        in_order,
        at_random,
    ];
    Ok(Million { lines, bounded })
}

async fn start(directory: &Path) -> Outcome<[Server; 2]> {
    let etcd = Server::etcd(&directory.join("etcd"), 1).await?;
    Ok([etcd, Server::revfs(&directory.join("revfs"), 1).await?])
}

async fn fill(
    servers: &[Server; 2],
    count: usize,
    name: impl Fn(usize) -> Bytes + Copy + Send + 'static,
) -> Outcome<()> {
    for server in servers {
        let begun = Instant::now();
        Load::connect(server).await?.fill_as(0..count, name).await?;
        eprintln!("… {:.1?}", begun.elapsed());
    }
    Ok(())
}

/// The room that a node keeps free for the day on which the disk is full. It holds nothing.
const BALLAST: &str = "ballast";

/// What each server takes of the disk when it has purged its log of what the load left to purge.
async fn settled(directory: &Path) -> Outcome<[u64; 2]> {
    let look = || -> Outcome<[u64; 2]> {
        Ok([allocated(&directory.join("etcd"))?, allocated(&directory.join("revfs"))?])
    };
    let mut turns = tokio::time::interval(PURGE_PERIOD);
    turns.tick().await;
    let mut before = look()?;
    for _ in 0..SETTLING_PERIODS_MAX {
        turns.tick().await;
        let now = look()?;
        if now == before {
            return Ok(now);
        }
        before = now;
    }
    Err("the servers go on writing, though nobody asks them anything".into())
}

/// What the files of data, log and snapshots below a directory take of the disk.
fn allocated(directory: &Path) -> Outcome<u64> {
    const BLOCK_BYTES: u64 = 512;
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() == BALLAST {
            continue;
        }
        bytes += match entry.metadata()? {
            metadata if metadata.is_dir() => allocated(&entry.path())?,
            metadata => metadata.blocks() * BLOCK_BYTES,
        };
    }
    Ok(bytes)
}

/// Ends each server and starts it again, in turn; how long it takes until it has answered, and what it answers
/// is what was acknowledged before.
async fn restarts(
    settings: &Settings,
    servers: &mut [Server; 2],
    end: impl Fn(&mut Server) -> Outcome<()>,
) -> Outcome<[Duration; 2]> {
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..settings.rounds {
        for (took, server) in took.iter_mut().zip(servers.iter_mut()) {
            Load::connect(server).await?.fill_as(0..CHANGED, key).await?;
            end(server)?;
            let begun = Instant::now();
            server.start_again(0)?;
            first_get(&server.urls[0]).await?;
            took.push(begun.elapsed());
        }
    }
    eprintln!("restarts: {took:.2?}");
    Ok(took.map(median))
}

async fn first_get(url: &str) -> Outcome<()> {
    let begun = Instant::now();
    let mut turns = tokio::time::interval(ATTEMPTS);
    while begun.elapsed() < START_LIMIT {
        let get = async {
            let channel = Endpoint::from_shared(url.to_owned())?.connect().await?;
            let request = RangeRequest { key: key(CHANGED - 1), ..RangeRequest::default() };
            Outcome::Ok(KvClient::new(channel).range(request).await?.into_inner())
        };
        if let Ok(Ok(found)) = tokio::time::timeout(ANSWER_LIMIT, get).await {
            return if found.kvs.len() == 1 { Ok(()) } else { Err("a key is lost".into()) };
        }
        turns.tick().await;
    }
    Err(format!("{url} does not come back").into())
}

async fn limited(load: &Load, length: Duration) -> Outcome<Done> {
    load.repeat(CLIENTS, length, |load, client, _| async move {
        let request = RangeRequest {
            key: "/bench/million/".into(),
            range_end: "/bench/million0".into(),
            limit: i64::try_from(LIMIT)?,
            ..RangeRequest::default()
        };
        let bytes = unread::range(&load, client, request).await?;
        let least = LIMIT * (VALUE_BYTES + key(0).len());
        if bytes > least { Ok(()) } else { Err("keys are missing".into()) }
    })
    .await
}
