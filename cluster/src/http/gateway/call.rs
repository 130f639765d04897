//! One call: its JSON becomes a message, the message goes to the gRPC service in this process, and the
//! answer becomes JSON.

use axum::body::Body;
use axum::extract::Request;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::{MethodRouter, post};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use prost::Message;
use revfs_api::status::REQUEST_TOO_LARGE;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tonic::client::Grpc;
use tonic::metadata::{AsciiMetadataKey, MetadataMap};
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use super::super::answer;
use super::super::calls::Calls;
use super::incoming::Incoming;
use crate::grpc::Peer;

/// So much of a body that is too large is heard out.
const DISCARDED_BYTES_MAX: usize = 64 << 20;

/// Headers with this prefix are metadata of the call.
const METADATA_PREFIX: &str = "grpc-metadata-";

/// The services, and how large a body may be.
#[derive(Clone)]
pub(super) struct Gateway {
    pub(super) calls: Calls,
    pub(super) body_bytes_max: usize,
}

/// What the end of the body means for a stream of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Requests {
    EndWithTheBody,
    /// There are no more, but what was asked for goes on: etcd's watches do.
    StayOpen,
}

impl Gateway {
    fn client(&self) -> Grpc<Calls> {
        // What the services answer is theirs to bound.
        Grpc::new(self.calls.clone()).max_decoding_message_size(usize::MAX)
    }
}

pub(super) trait Asks: Message + DeserializeOwned + Default + Send + Sync + 'static {}
impl<T: Message + DeserializeOwned + Default + Send + Sync + 'static> Asks for T {}

pub(super) trait Answers: Message + Serialize + Default + Send + Sync + 'static {}
impl<T: Message + Serialize + Default + Send + Sync + 'static> Answers for T {}

fn path(service: &str, method: &str) -> PathAndQuery {
    PathAndQuery::try_from(format!("{service}/{method}")).expect("both are names")
}

/// A request and its answer.
pub(super) fn unary<Q: Asks, A: Answers>(
    gateway: &Gateway,
    service: &str,
    method: &str,
) -> MethodRouter {
    let (gateway, path) = (gateway.clone(), path(service, method));
    post(async move |request: Request| {
        let answered = async {
            let request = whole::<Q>(request, gateway.body_bytes_max).await?;
            let codec = ProstCodec::<Q, A>::default();
            gateway.client().unary(request, path, codec).await
        };
        match answered.await {
            Ok(answer) => answer::json(StatusCode::OK, &answer.into_inner()),
            Err(status) => answer::refusal(&status),
        }
    })
}

/// A request and a line for each of its answers.
pub(super) fn one_to_many<Q: Asks, A: Answers>(
    gateway: &Gateway,
    service: &str,
    method: &str,
) -> MethodRouter {
    let (gateway, path) = (gateway.clone(), path(service, method));
    post(async move |request: Request| {
        let answered = async {
            let request = whole::<Q>(request, gateway.body_bytes_max).await?;
            let codec = ProstCodec::<Q, A>::default();
            let answers = gateway.client().server_streaming(request, path, codec).await?;
            // The sender is gone: there is no further request that could be wrong.
            lines(answers.into_inner(), oneshot::channel().1).await
        };
        answered.await.unwrap_or_else(|status| answer::refusal(&status))
    })
}

/// JSON texts one after the other, and a line for each answer.
pub(super) fn many_to_many<Q: Asks, A: Answers>(
    gateway: &Gateway,
    service: &str,
    method: &str,
    requests: Requests,
) -> MethodRouter {
    let (gateway, path) = (gateway.clone(), path(service, method));
    post(async move |request: Request| {
        let answered = async {
            let (head, body) = head(request);
            let mut incoming = Incoming::<Q>::new(body, gateway.body_bytes_max, requests);
            // What is wrong at once is answered as such.
            incoming.first().await?;
            let (messages, failure) = incoming.messages();
            let request = head.map(|()| messages);
            let codec = ProstCodec::<Q, A>::default();
            let answers = gateway.client().streaming(request, path, codec).await?;
            lines(answers.into_inner(), failure).await
        };
        answered.await.unwrap_or_else(|status| answer::refusal(&status))
    })
}

/// The answer begins with the first message, so that an error before it is the whole answer.
async fn lines<A: Answers>(
    mut answers: Streaming<A>,
    mut failure: oneshot::Receiver<Status>,
) -> Result<Response, Status> {
    let first = next(&mut answers, &mut failure).await?;
    let rest = (first.map(Ok), answers, failure);
    let lines = futures_util::stream::unfold(Some(rest), |rest| async {
        let (known, mut answers, mut failure) = rest?;
        let message = match known {
            Some(known) => known,
            None => next(&mut answers, &mut failure).await.transpose()?,
        };
        match message {
            Ok(message) => Some((answer::result_line(&message), Some((None, answers, failure)))),
            Err(status) => Some((answer::error_line(&status), None)),
        }
    });
    Ok(response(lines))
}

/// The next answer, or what was wrong with a request that came later.
async fn next<A: Answers>(
    answers: &mut Streaming<A>,
    failure: &mut oneshot::Receiver<Status>,
) -> Result<Option<A>, Status> {
    tokio::select! {
        biased;
        Ok(status) = &mut *failure, if !failure.is_terminated() => Err(status),
        answer = answers.message() => answer,
    }
}

fn response(lines: impl Stream<Item = Vec<u8>> + Send + 'static) -> Response {
    let lines = lines.map(|line| Ok::<Bytes, std::convert::Infallible>(Bytes::from(line)));
    let mut response = Response::new(Body::from_stream(lines));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Who asks, without the body.
fn head(request: Request) -> (tonic::Request<()>, Body) {
    let (parts, body) = request.into_parts();
    let mut head = tonic::Request::new(());
    *head.metadata_mut() = metadata(&parts.headers);
    if let Some(peer) = parts.extensions.get::<Peer>() {
        head.extensions_mut().insert(peer.without_certificate());
    }
    (head, body)
}

fn metadata(headers: &HeaderMap) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    for (name, value) in headers {
        let name = match name.as_str() {
            "authorization" => "authorization",
            name => match name.strip_prefix(METADATA_PREFIX) {
                Some(name) => name,
                None => continue,
            },
        };
        let key = name.parse::<AsciiMetadataKey>();
        if let (Ok(key), Ok(value)) = (key, value.as_bytes().try_into()) {
            metadata.insert(key, value);
        }
    }
    metadata
}

/// The whole body. One that is too large is read on for a while, but not kept: who is cut off while he
/// speaks does not hear why.
async fn read(body: Body, bytes_max: usize) -> Result<BytesMut, Status> {
    let mut kept = BytesMut::new();
    let mut bytes = 0;
    let mut parts = body.into_data_stream();
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| Status::cancelled(error.to_string()))?;
        bytes += part.len();
        if bytes <= bytes_max {
            kept.extend_from_slice(&part);
        } else if bytes > DISCARDED_BYTES_MAX {
            break;
        }
    }
    if bytes > bytes_max { Err(Status::invalid_argument(REQUEST_TOO_LARGE)) } else { Ok(kept) }
}

/// The message of a body that is one.
async fn whole<Q: Asks>(request: Request, bytes_max: usize) -> Result<tonic::Request<Q>, Status> {
    let (head, body) = head(request);
    let body = read(body, bytes_max).await?;
    if body.trim_ascii().is_empty() {
        return Ok(head.map(|()| Q::default()));
    }
    let message = serde_json::from_slice(&body);
    let message: Q = message.map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(head.map(|()| message))
}
