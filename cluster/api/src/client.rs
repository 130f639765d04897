//! [`Remote`]: a key space over the network, by the service revfs.v1 of one node.
//!
//! What a caller may rely on:
//! - **At most once.** A transaction or compaction is sent once. If the connection is refused before
//!   anything was sent the answer is [`Error::Unavailable`]; if anything fails afterwards and the node
//!   did not say what happened, it is [`Error::OutcomeUnknown`].
//! - **Reads are repeated** a bounded number of times, with growing pauses, within their deadline.
//! - **Every call ends** by its deadline, on a dead network too.
//! - **A watch** goes on at the next revision after a lost connection, without gap or repeat; it ends
//!   with an error when the node stays away for longer than a bound.

mod backup;
mod endpoint;
mod lease;
mod resuming;
mod txn;
mod watch;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tonic::transport::{Channel, Uri};
use tonic::{Code, Request, Response};

pub use self::endpoint::{Endpoint, EndpointError};
use crate::backup::Backup;
use crate::convert;
use crate::keyspace::{
    Answer, Capabilities, ChangesAnswer, ChangesRequest, Error, HistoryRequest, KeyRange, KeySpace,
    LeaseId, LeaseState, Origin, Read, ReadAnswer, Result, Revision, Stamp, Status, Time, Txn,
    TxnAnswer, Version, Watch,
};
use crate::socket_path::SocketPath;
use crate::status::from_status;
use crate::wire::revfs as wire;
use crate::wire::revfs::revfs_client::RevfsClient;
use crate::wire::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX};

type Client = RevfsClient<Channel>;

/// How a client behaves. The defaults suit a node on the same machine or network.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Longest time of one call, repetitions included.
    pub call_timeout: Duration,
    /// Longest time of a transaction that is too large for one request.
    pub large_txn_timeout: Duration,
    /// Longest time of a compaction that waits for the space to be free.
    pub physical_compaction_timeout: Duration,
    /// Longest time of one attempt to connect.
    pub connect_timeout: Duration,
    /// How often a read is sent at most.
    pub read_attempts: u32,
    /// Pause before the first repetition; each further one is twice as long, up to `pause_max`.
    pub pause: Duration,
    pub pause_max: Duration,
    /// How long a watch tries to come back after its connection was lost.
    pub watch_patience: Duration,
    /// A connection that says nothing for so long is asked for a sign of life.
    pub keep_alive_interval: Duration,
    /// A connection that does not answer that for so long is dead.
    pub keep_alive_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            call_timeout: Duration::from_secs(10),
            large_txn_timeout: Duration::from_mins(2),
            physical_compaction_timeout: Duration::from_mins(10),
            connect_timeout: Duration::from_secs(2),
            read_attempts: 4,
            pause: Duration::from_millis(25),
            pause_max: Duration::from_secs(1),
            watch_patience: Duration::from_secs(10),
            keep_alive_interval: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(5),
        }
    }
}

impl Settings {
    /// Pause before repetition `repetition`, counted from 0.
    fn pause_before(&self, repetition: u32) -> Duration {
        self.pause.saturating_mul(2_u32.saturating_pow(repetition)).min(self.pause_max)
    }
}

/// Connects with the default settings.
///
/// # Errors
/// [`Error::Unavailable`] if no node answers there, [`Error::Unsupported`] if it is not one of revfs.
pub async fn connect(endpoint: &Endpoint) -> Result<Arc<Remote>> {
    connect_with(endpoint, Settings::default()).await
}

/// Connects, and asks the node what it can do.
///
/// # Errors
/// As [`connect`].
pub async fn connect_with(endpoint: &Endpoint, settings: Settings) -> Result<Arc<Remote>> {
    let channel = channel(endpoint, &settings)?;
    let client = RevfsClient::new(channel.clone())
        .max_encoding_message_size(REQUEST_BYTES_MAX)
        .max_decoding_message_size(RESPONSE_BYTES_MAX);
    let caller = Caller { endpoint: endpoint.clone(), settings, channel, client };
    let (_, capabilities) = caller.status().await?;
    Ok(Arc::new(Remote { caller, capabilities }))
}

/// A channel connects when it is first used, and again when its connection was lost.
fn channel(endpoint: &Endpoint, settings: &Settings) -> Result<Channel> {
    let uri = match endpoint {
        Endpoint::Unix(_) => "http://localhost".to_owned(),
        Endpoint::Http { .. } => endpoint.to_string(),
    };
    let to = tonic::transport::Endpoint::from_shared(uri)
        .map_err(|error| Error::Invalid(format!("endpoint {endpoint}: {error}")))?
        .connect_timeout(settings.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(settings.keep_alive_interval)
        .keep_alive_timeout(settings.keep_alive_timeout)
        .keep_alive_while_idle(true);
    let Endpoint::Unix(path) = endpoint else {
        return Ok(to.connect_lazy());
    };
    let path = path.clone();
    Ok(to.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move {
            let short = SocketPath::new(&path)?;
            tokio::net::UnixStream::connect(short.as_path()).await.map(TokioIo::new)
        }
    })))
}

/// A node and how it is called: what a [`Remote`] and its watches share.
#[derive(Clone)]
struct Caller {
    endpoint: Endpoint,
    settings: Settings,
    channel: Channel,
    client: RevfsClient<Channel>,
}

impl Caller {
    async fn status(&self) -> Result<(Status, Capabilities)> {
        let response = self
            .repeat(|mut client, limit| async move {
                client.status(within(wire::StatusRequest {}, limit)).await
            })
            .await?;
        self.understood(convert::status_answer(response))
    }

    /// Sends a read until it is answered, at most `read_attempts` times, within one deadline.
    async fn repeat<T, F, Fut>(&self, mut send: F) -> Result<T>
    where
        F: FnMut(RevfsClient<Channel>, Duration) -> Fut,
        Fut: Future<Output = Result<Response<T>, tonic::Status>>,
    {
        let timeout = self.settings.call_timeout;
        let deadline = Instant::now() + timeout;
        let mut sent = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = tokio::time::timeout(left, send(self.client.clone(), left)).await;
            let Ok(answer) = answer else { return Err(Error::Timeout(timeout)) };
            let error = match answer {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => self.read_error(&status),
            };
            sent += 1;
            let pause = self.settings.pause_before(sent - 1);
            let is_transient = matches!(error, Error::Unavailable { .. });
            if !is_transient
                || sent >= self.settings.read_attempts
                || Instant::now() + pause >= deadline
            {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends a change once.
    async fn once<T, F, Fut>(&self, timeout: Duration, send: F) -> Result<T>
    where
        F: FnOnce(RevfsClient<Channel>, Duration) -> Fut,
        Fut: Future<Output = Result<Response<T>, tonic::Status>>,
    {
        match tokio::time::timeout(timeout, send(self.client.clone(), timeout)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.change_error(&status)),
            Err(_) => Err(Error::OutcomeUnknown {
                reason: format!("{}: no answer within {timeout:?}", self.endpoint),
            }),
        }
    }

    /// What a failed read means.
    fn read_error(&self, status: &tonic::Status) -> Error {
        if let Some(error) = from_status(status) {
            return error;
        }
        let reason = self.reason(status);
        match status.code() {
            Code::Unimplemented => Error::Unsupported(NO_SERVICE),
            Code::PermissionDenied | Code::Unauthenticated => Error::Denied { reason },
            Code::InvalidArgument | Code::OutOfRange => Error::Invalid(reason),
            Code::DeadlineExceeded => Error::Timeout(self.settings.call_timeout),
            Code::Cancelled if status.message() == TIMEOUT_EXPIRED => {
                Error::Timeout(self.settings.call_timeout)
            }
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::NotFound
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => Error::Unavailable { reason },
        }
    }

    /// What a failed change means. Where the node itself did not say it, only what is known to be
    /// refused before anything ran is a definite failure.
    fn change_error(&self, status: &tonic::Status) -> Error {
        if let Some(error) = from_status(status) {
            return error;
        }
        let reason = self.reason(status);
        if was_never_sent(status) {
            return Error::Unavailable { reason };
        }
        match status.code() {
            Code::Unimplemented => Error::Unsupported(NO_SERVICE),
            Code::PermissionDenied | Code::Unauthenticated => Error::Denied { reason },
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::InvalidArgument
            | Code::DeadlineExceeded
            | Code::NotFound
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => Error::OutcomeUnknown { reason },
        }
    }

    /// Endpoint, text and causes of a status.
    fn reason(&self, status: &tonic::Status) -> String {
        let mut reason = format!("{}: {}", self.endpoint, status.message());
        let mut cause = std::error::Error::source(status);
        while let Some(error) = cause {
            let text = error.to_string();
            if !reason.contains(&text) {
                reason.push_str(": ");
                reason.push_str(&text);
            }
            cause = error.source();
        }
        reason
    }

    /// An answer to a read that makes no sense is as good as none.
    fn understood<T>(&self, answer: Result<T, convert::Malformed>) -> Result<T> {
        answer.map_err(|error| Error::Unavailable { reason: format!("{}: {error}", self.endpoint) })
    }
}

/// What tonic says, here or at the node, when the time that a request brought with it has passed.
const TIMEOUT_EXPIRED: &str = "Timeout expired";

const NO_SERVICE: &str = "the endpoint does not offer the service revfs.v1";

/// Whether the request failed at connecting: nothing left this machine.
fn was_never_sent(status: &tonic::Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// A request that tells the server how long the answer is waited for.
fn within<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// A key space of one node of revfs, over the network.
pub struct Remote {
    caller: Caller,
    capabilities: Capabilities,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("endpoint", &self.caller.endpoint).finish_non_exhaustive()
    }
}

impl Remote {
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.caller.endpoint
    }
}

/// Whether each question got an answer of its kind.
fn answers_fit(reads: &[wire::Question], answers: &[Answer]) -> bool {
    use wire::question::Question;
    reads.len() == answers.len()
        && reads.iter().zip(answers).all(|(read, answer)| {
            matches!(
                (&read.question, answer),
                (Some(Question::Range(_)), Answer::Range(_))
                    | (Some(Question::List(_)), Answer::List(_))
                    | (Some(Question::Directory(_)), Answer::Directory(_))
            )
        })
}

#[async_trait]
impl KeySpace for Remote {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn read(&self, revision: Revision, reads: Vec<Read>) -> Result<ReadAnswer> {
        let request = convert::read_request(revision, reads);
        let response = self
            .caller
            .repeat(|mut client, limit| {
                let request = within(request.clone(), limit);
                async move { client.read(request).await }
            })
            .await?;
        let answer = ReadAnswer::try_from(response).and_then(|answer| {
            if answers_fit(&request.questions, &answer.answers) {
                return Ok(answer);
            }
            let reason = "the answers are not those of the questions".into();
            Err(convert::Malformed { message: "ReadResponse", reason })
        });
        self.caller.understood(answer)
    }

    async fn history(&self, request: HistoryRequest) -> Result<Vec<Version>> {
        let request = wire::HistoryRequest::from(request);
        let response = self
            .caller
            .repeat(|mut client, limit| {
                let request = within(request.clone(), limit);
                async move { client.history(request).await }
            })
            .await?;
        self.caller.understood(convert::history_answer(response))
    }

    async fn changes(&self, request: ChangesRequest) -> Result<ChangesAnswer> {
        let request = wire::ChangesRequest::from(request);
        let response = self
            .caller
            .repeat(|mut client, limit| {
                let request = within(request.clone(), limit);
                async move { client.changes(request).await }
            })
            .await?;
        self.caller.understood(response.try_into())
    }

    async fn revision_at(&self, time: Time) -> Result<Revision> {
        let response = self
            .caller
            .repeat(|mut client, limit| async move {
                client.revision_at(within(wire::RevisionAtRequest { time: time.0 }, limit)).await
            })
            .await?;
        Ok(Revision(response.revision))
    }

    async fn stamp(&self, revision: Revision) -> Result<Stamp> {
        let response = self
            .caller
            .repeat(|mut client, limit| async move {
                let request = wire::StampRequest { revision: revision.0 };
                client.stamp(within(request, limit)).await
            })
            .await?;
        self.caller.understood(convert::stamp_answer(response))
    }

    async fn txn(&self, txn: Txn, origin: Origin) -> Result<TxnAnswer> {
        self.run_txn(txn, origin).await
    }

    async fn watch(&self, ranges: Vec<KeyRange>, from: Revision) -> Result<Box<dyn Watch>> {
        let watched = watch::Watched { caller: self.caller.clone(), ranges };
        let settings = self.caller.settings.clone();
        Ok(Box::new(resuming::ResumingWatch::open(watched, settings, from).await?))
    }

    async fn compact(&self, revision: Revision, physical: bool) -> Result<()> {
        let settings = &self.caller.settings;
        let timeout =
            if physical { settings.physical_compaction_timeout } else { settings.call_timeout };
        let request = wire::CompactRequest { revision: revision.0, physical };
        self.caller
            .once(timeout, |mut client, limit| async move {
                client.compact(within(request, limit)).await
            })
            .await?;
        Ok(())
    }

    async fn status(&self) -> Result<Status> {
        Ok(self.caller.status().await?.0)
    }

    async fn lease_grant(&self, id: LeaseId, ttl_seconds: i64) -> Result<(LeaseId, i64)> {
        self.grant(id, ttl_seconds).await
    }

    async fn lease_keep_alive(&self, id: LeaseId) -> Result<Option<i64>> {
        self.keep_alive(id).await
    }

    async fn lease_revoke(&self, id: LeaseId) -> Result<()> {
        self.revoke(id).await
    }

    async fn lease_time_to_live(&self, id: LeaseId, with_keys: bool) -> Result<Option<LeaseState>> {
        self.time_to_live(id, with_keys).await
    }

    async fn leases(&self) -> Result<Vec<LeaseId>> {
        self.list_leases().await
    }

    async fn backup(&self) -> Result<Box<dyn Backup>> {
        Ok(Box::new(backup::RemoteBackup::open(&self.caller).await?))
    }
}
