//! etcd's Watch service: any number of watches on one stream, each on the store's hub.
//!
//! - [`stream`]: one client's stream, its requests, its answers and their order;
//! - [`watches`]: the watches of a stream, and which of them has something to say;
//! - [`message`]: requests and events in etcd's form.
//!
//! The stream is pulled: an answer is made when the connection has room for it. What a slow reader has
//! not taken waits in the hub's bounded buffers, and beyond them in the store.

mod message;
mod stream;
mod watches;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use revfs_api::wire::etcdserverpb as pb;
use revfs_api::wire::etcdserverpb::watch_server::Watch;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::connection::Phase;
use super::credentials::Credentials;
use super::member::Member;

/// `--watch-progress-notify-interval`.
pub(super) const PROGRESS_INTERVAL: Duration = Duration::from_secs(600);

/// What etcd raises a shorter interval to.
const PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);

pub(super) struct WatchService {
    pub(super) member: Arc<Member>,
    pub(super) phases: watch::Receiver<Phase>,
    /// Between two marks of progress for watches that asked for them.
    pub(super) progress_interval: Duration,
    /// As etcd: `--max-request-bytes`.
    pub(super) part_bytes_max: usize,
    /// Of all streams.
    pub(super) watches_max: usize,
}

#[tonic::async_trait]
impl Watch for WatchService {
    type WatchStream =
        Pin<Box<dyn futures_util::Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let interval = self.progress_interval.max(PROGRESS_INTERVAL_MIN);
        let credentials = Credentials::of(&request);
        let (member, phases) = (Arc::clone(&self.member), self.phases.clone());
        let open = member.own_node()?.node.proposer.meters.watch_stream();
        let bounds = (self.part_bytes_max, self.watches_max);
        let requests = (request.into_inner(), credentials);
        let stream = stream::Stream::new(member, requests, phases, interval, bounds)?;
        let answers = futures_util::stream::unfold((stream, open), |(mut stream, open)| async {
            let answer = stream.next().await?;
            Some((answer, (stream, open)))
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
