//! Clients that repeat one operation for a while.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use revfs_api::wire::etcdserverpb::kv_client::KvClient;
use revfs_api::wire::etcdserverpb::{PutRequest, RequestOp, TxnRequest, request_op};
use tonic::transport::{Channel, Endpoint};

use crate::server::Server;

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

pub(crate) const VALUE_BYTES: usize = 256;

/// Keys that are there before anything is measured.
pub(crate) const KEYS: usize = 10_000;

/// Connections that the clients share, if not more are needed for as many to each member.
const CONNECTIONS: usize = 4;

/// A range of a thousand keys has 300 KB; nothing here has more than this.
const ANSWER_BYTES_MAX: usize = 64 << 20;

const FILL_OPS: usize = 100;
const FILL_CLIENTS: usize = 8;

/// The connections to one server, or in turn to the members of one cluster.
#[derive(Clone)]
pub(crate) struct Load {
    channels: Arc<[Channel]>,
}

/// What came of a sample.
pub(crate) struct Done {
    pub(crate) operations: u64,
    pub(crate) took: Duration,
    /// The median of single operations.
    pub(crate) median: Duration,
}

pub(crate) fn key(number: usize) -> Bytes {
    format!("/bench/directory/key-{number:010}").into()
}

pub(crate) fn value(number: usize, bytes: usize) -> Bytes {
    let seed = number.to_string();
    seed.as_bytes().iter().copied().cycle().take(bytes).collect::<Vec<u8>>().into()
}

pub(crate) fn put(key: Bytes, number: usize) -> PutRequest {
    PutRequest { key, value: value(number, VALUE_BYTES), ..PutRequest::default() }
}

pub(crate) fn put_op(request: PutRequest) -> RequestOp {
    RequestOp { request: Some(request_op::Request::RequestPut(request)) }
}

impl Load {
    pub(crate) async fn connect(server: &Server) -> Outcome<Self> {
        let mut channels = Vec::new();
        for url in server.urls.iter().cycle().take(CONNECTIONS.next_multiple_of(server.urls.len()))
        {
            channels.push(Endpoint::from_shared(url.clone())?.tcp_nodelay(true).connect().await?);
        }
        Ok(Self { channels: channels.into() })
    }

    pub(crate) fn channel(&self, client: usize) -> Channel {
        self.channels[client % self.channels.len()].clone()
    }

    pub(crate) fn kv(&self, client: usize) -> KvClient<Channel> {
        KvClient::new(self.channel(client)).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Puts the keys with these numbers, a multiple of [`FILL_OPS`] of them.
    pub(crate) async fn fill(&self, keys: Range<usize>) -> Outcome<()> {
        self.fill_as(keys, key).await
    }

    /// As [`Self::fill`], with other names.
    pub(crate) async fn fill_as(
        &self,
        keys: Range<usize>,
        name: impl Fn(usize) -> Bytes + Copy + Send + 'static,
    ) -> Outcome<()> {
        // Whoever is free takes the next ones: with shares of their own the clients would drift apart.
        let next = Arc::new(AtomicUsize::new(keys.start));
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..FILL_CLIENTS {
            let (mut kv, next, end) = (self.kv(client), Arc::clone(&next), keys.end);
            clients.spawn(async move {
                loop {
                    let from = next.fetch_add(FILL_OPS, Ordering::Relaxed);
                    if from >= end {
                        return Outcome::Ok(());
                    }
                    let puts =
                        (from..from + FILL_OPS).map(|number| put_op(put(name(number), number)));
                    kv.txn(TxnRequest { success: puts.collect(), ..TxnRequest::default() }).await?;
                }
            });
        }
        while let Some(ended) = clients.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// Has `clients` repeat `operation` for `length`; it gets the client's number and a count that is
    /// different for each call of all clients.
    pub(crate) async fn repeat<F, Fut>(
        &self,
        clients: usize,
        length: Duration,
        operation: F,
    ) -> Outcome<Done>
    where
        F: Fn(Self, usize, usize) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Outcome<()>> + Send,
    {
        let begun = Instant::now();
        let mut running = tokio::task::JoinSet::new();
        for client in 0..clients {
            let (load, operation) = (self.clone(), operation.clone());
            running.spawn(async move {
                let mut took = Vec::new();
                while begun.elapsed() < length {
                    let start = Instant::now();
                    operation(load.clone(), client, took.len() * clients + client).await?;
                    took.push(start.elapsed());
                }
                Outcome::Ok(took)
            });
        }
        let mut all = Vec::new();
        while let Some(ended) = running.join_next().await {
            all.extend(ended??);
        }
        let took = begun.elapsed();
        all.sort_unstable();
        let median = all.get(all.len() / 2).copied().unwrap_or_default();
        Ok(Done { operations: u64::try_from(all.len())?, took, median })
    }
}
