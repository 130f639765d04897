//! How long changes wait when the leader is lost.

use std::time::{Duration, Instant};

use revfs_api::wire::etcdserverpb::kv_client::KvClient;
use tonic::transport::Endpoint;

use crate::load::{Done, Outcome, key, put};
use crate::server::Server;
use crate::settings::Settings;
use crate::table::{Goal, Line, Sample};

pub(crate) const NAME: &str = "killed leader, until the next acknowledged put";

/// Leaders lost for each round of the other lines: 20 in a run of five rounds.
const PER_ROUND: usize = 4;

/// One attempt to put something.
const ATTEMPT: Duration = Duration::from_millis(100);

/// Far above what an election takes.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn measure(settings: &Settings, servers: &mut [Server; 2]) -> Outcome<Line> {
    eprintln!("{NAME} …");
    let mut rounds = Vec::new();
    for _ in 0..settings.rounds * PER_ROUND {
        let mut pair = [Sample::default(); 2];
        for (sample, server) in pair.iter_mut().zip(servers.iter_mut()) {
            let median = lose(server).await?;
            *sample = Sample::new(&Done { operations: 1, took: median, median }, Duration::ZERO);
        }
        rounds.push(pair);
    }
    let line = Line { name: NAME, goal: Goal::Latency { at_most: 0.8 }, rounds, floor: Vec::new() };
    eprintln!("{line}");
    Ok(line)
}

async fn lose(server: &mut Server) -> Outcome<Duration> {
    let leader = server.leader().await?;
    let mut others = Vec::new();
    for url in server.urls.iter().enumerate().filter(|(at, _)| *at != leader).map(|(_, url)| url) {
        let channel = Endpoint::from_shared(url.clone())?.connect().await?;
        others.push(KvClient::new(channel));
    }
    server.kill(leader);
    let begun = Instant::now();
    let mut count = 0;
    let took = loop {
        let mut kv = others[count % others.len()].clone();
        let answer = tokio::time::timeout(ATTEMPT, kv.put(put(key(count), count))).await;
        if matches!(answer, Ok(Ok(_))) {
            break begun.elapsed();
        }
        if begun.elapsed() > LIMIT {
            return Err(format!("no put was acknowledged: {answer:?}").into());
        }
        count += 1;
    };
    server.restart(leader).await?;
    Ok(took)
}
