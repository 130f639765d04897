//! What clients of one server may cost it.

use std::time::Duration;

/// etcd's allowance for what surrounds a request: above `request_bytes_max` and this nothing is decoded.
const OVERHEAD_BYTES: usize = 512 * 1024;

/// About four gigabytes of them.
const WATCHES_MAX: usize = 1_000_000;

/// Bounds of requests and connections.
#[derive(Clone, Debug)]
pub struct Limits {
    /// A request of etcd's API that changes something.
    pub request_bytes_max: usize,
    /// Operations or compares in one list of a transaction of etcd's API, those of nested ones included.
    pub txn_ops_max: usize,
    /// Requests and streams of one connection at a time.
    pub concurrent_streams_max: u32,
    /// Watches of etcd's clients, all together: each is held in memory.
    pub watches_max: usize,
    /// A client that is silent for so long is asked for a sign of life, so that watches of a machine that
    /// is gone do not stay; `None` = never.
    pub keep_alive_interval: Option<Duration>,
    /// A client that gives no sign of life within so long is cut off.
    pub keep_alive_timeout: Duration,
}

impl Limits {
    /// What is decoded at all of one message.
    pub(crate) fn message_bytes_max(&self) -> usize {
        self.request_bytes_max.saturating_add(OVERHEAD_BYTES)
    }
}

impl Default for Limits {
    /// Of a node beside a mount: transactions whose bound does not bite those who write directories.
    fn default() -> Self {
        Self {
            request_bytes_max: 1_572_864,
            txn_ops_max: 10_000,
            concurrent_streams_max: 10_000,
            watches_max: WATCHES_MAX,
            keep_alive_interval: Some(Duration::from_secs(60)),
            keep_alive_timeout: Duration::from_secs(20),
        }
    }
}
