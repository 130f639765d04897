//! Watches: how many events reach their watchers, and how long one takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use revfs_api::wire::etcdserverpb::watch_client::WatchClient;
use revfs_api::wire::etcdserverpb::{
    PutRequest, WatchCreateRequest, WatchRequest, WatchResponse, watch_request,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::load::{Done, Load, Outcome, VALUE_BYTES};

/// Streams that the watchers share; more of them watch on the same ones.
const STREAMS_MAX: usize = 100;

/// Clients that put what is watched.
const WRITERS: usize = 16;

const WATCHED: &str = "/bench/watched/";

/// What was put must have arrived within so long.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(60);

/// A put whose way is measured comes at most so often: nothing else is under way.
const DELAY_INTERVAL: Duration = Duration::from_millis(2);

/// So many watches of [`WATCHED`] that have begun. The stream lasts as long as its sender.
async fn begin(
    load: &Load,
    client: usize,
    watches: usize,
) -> Outcome<(mpsc::Sender<WatchRequest>, Streaming<WatchResponse>)> {
    let (requests, receiver) = mpsc::channel(watches.max(1));
    let create = WatchCreateRequest {
        key: WATCHED.into(),
        range_end: "/bench/watched0".into(),
        ..WatchCreateRequest::default()
    };
    let create = watch_request::RequestUnion::CreateRequest(create);
    for _ in 0..watches {
        requests.send(WatchRequest { request_union: Some(create.clone()) }).await?;
    }
    let mut watch = WatchClient::new(load.channel(client));
    let mut stream = watch.watch(ReceiverStream::new(receiver)).await?.into_inner();
    for _ in 0..watches {
        let answer = stream.message().await?.ok_or("the watch ended at once")?;
        if !answer.created {
            return Err("no watch was made".into());
        }
    }
    Ok((requests, stream))
}

/// Events that have reached so many watchers, while 16 clients put.
pub(crate) async fn fan_out(load: &Load, count: usize, length: Duration) -> Outcome<Done> {
    let seen = Arc::new(AtomicU64::new(0));
    let mut watchers = Vec::new();
    let streams = count.min(STREAMS_MAX);
    for client in 0..streams {
        let share = count / streams + usize::from(client < count % streams);
        let (requests, mut stream) = begin(load, client, share).await?;
        let seen = Arc::clone(&seen);
        let reading: JoinHandle<Outcome<()>> = tokio::spawn(async move {
            while let Some(response) = stream.message().await? {
                let events = u64::try_from(response.events.len())?;
                seen.fetch_add(events, Ordering::Relaxed);
            }
            Ok(())
        });
        watchers.push((requests, reading));
    }
    let begun = Instant::now();
    let puts = load.repeat(WRITERS, length, |load, client, count| async move {
        let request = PutRequest {
            key: format!("{WATCHED}{client}").into(),
            value: Bytes::from(vec![b'x'; VALUE_BYTES - count % 2]),
            ..PutRequest::default()
        };
        load.kv(client).put(request).await?;
        Ok(())
    });
    let puts = puts.await?.operations;
    let all = puts * u64::try_from(count)?;
    let mut turns = tokio::time::interval(Duration::from_millis(1));
    while seen.load(Ordering::Relaxed) < all {
        if begun.elapsed() > length + ARRIVAL_LIMIT {
            return Err(format!("{} of {all} events arrived", seen.load(Ordering::Relaxed)).into());
        }
        turns.tick().await;
    }
    let took = begun.elapsed();
    for (_, reading) in watchers {
        reading.abort();
    }
    Ok(Done { operations: all, took, median: Duration::ZERO })
}

/// From before the put to the event, one at a time.
pub(crate) async fn delay(load: &Load, length: Duration) -> Outcome<Done> {
    let (requests, mut stream) = begin(load, 0, 1).await?;
    let (begun, mut delays) = (Instant::now(), Vec::new());
    let mut turns = tokio::time::interval(DELAY_INTERVAL);
    while begun.elapsed() < length {
        let start = Instant::now();
        let mut kv = load.kv(1);
        let put = tokio::spawn(async move {
            let request = PutRequest {
                key: format!("{WATCHED}one").into(),
                value: Bytes::from_static(b"x"),
                ..PutRequest::default()
            };
            kv.put(request).await
        });
        let event = tokio::time::timeout(ARRIVAL_LIMIT, stream.message()).await??;
        if event.is_none_or(|event| event.events.len() != 1) {
            return Err("another answer than one event".into());
        }
        delays.push(start.elapsed());
        put.await??;
        turns.tick().await;
    }
    drop(requests);
    delays.sort_unstable();
    let median = delays.get(delays.len() / 2).copied().unwrap_or_default();
    Ok(Done { operations: u64::try_from(delays.len())?, took: begun.elapsed(), median })
}
