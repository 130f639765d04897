//! The program `null-handler` of the bench `clients`: a server of gRPC that answers calls of etcd's KV at once, with
//! bytes that were made before. What a call costs on the way in and out, whatever the server does between.
//!
//!     null-handler HOST:PORT
//!
//! As in revfs a call goes straight to its service, on the same runtime, allocator and settings of HTTP/2; a request is decoded, and an
//! answer has the bytes of a real one. A range with an end is answered by the thousand keys from number 0 on, another by
//! one key, any transaction by ten puts.

use std::convert::Infallible;
use std::future::{Ready, poll_fn, ready};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes};
use mimalloc::MiMalloc;
use revfs_api::wire::codec::Codec;
use revfs_api::wire::etcdserverpb::{
    PutRequest, PutResponse, RangeRequest, RangeResponse, ResponseHeader, ResponseOp, TxnRequest,
    TxnResponse, response_op,
};
use revfs_api::wire::mvccpb::KeyValue;
use revfs_cluster::grpc::Limits;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codec::{BufferSettings, Codec as Encodes, EncodeBuf, Encoder};
use tonic::codegen::{Body as _, BoxFuture, Service, http};
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};

/// As the program's own.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Of a message on the wire: not compressed, and its size.
const PREFIX_BYTES: usize = 5;

const VALUE_BYTES: usize = 256;

/// Numbers of a size that those of a real cluster have.
const ID: u64 = 0x9a3f_71c2_5be8_04d6;
const REVISION: i64 = 1_000_000;

/// Messages as they go over the wire.
struct Answers {
    put: Bytes,
    get: Bytes,
    range: Bytes,
    txn: Bytes,
}

fn header() -> ResponseHeader {
    ResponseHeader { cluster_id: ID, member_id: ID, revision: REVISION, raft_term: 2 }
}

fn range(keys: usize) -> RangeResponse {
    let kvs = (0..keys).map(|number| KeyValue {
        key: format!("/bench/directory/key-{number:010}").into(),
        value: vec![b'0'; VALUE_BYTES].into(),
        create_revision: REVISION / 2,
        mod_revision: REVISION,
        version: 100,
        lease: 0,
    });
    let count = i64::try_from(keys).expect("few keys");
    RangeResponse { header: Some(header()), kvs: kvs.collect(), count, ..Default::default() }
}

fn txn(puts: usize) -> TxnResponse {
    let header_of_one = ResponseHeader { revision: REVISION, ..ResponseHeader::default() };
    let put = PutResponse { header: Some(header_of_one), prev_kv: None };
    let put = ResponseOp { response: Some(response_op::Response::ResponsePut(put)) };
    TxnResponse { header: Some(header()), succeeded: true, responses: vec![put; puts] }
}

/// The bytes of a message: what a service sends that answers with it.
async fn encoded<T>(message: T) -> Result<Bytes, Status>
where
    Codec<T, T>: Encodes<Encode = T, Decode = T>,
    T: Clone + Send + Sync + 'static,
{
    let nothing = String::from_utf8(vec![0; PREFIX_BYTES]).expect("zeros are text");
    let call = http::Request::new(nothing);
    let mut grpc = Grpc::new(Codec::<T, T>::default());
    let mut body = pin!(grpc.unary(Say(move |_: T| message.clone()), call).await.into_body());
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    Ok(Bytes::from(bytes).slice(PREFIX_BYTES..))
}

impl Answers {
    async fn new() -> Result<Self, Status> {
        Ok(Self {
            put: encoded(PutResponse { header: Some(header()), prev_kv: None }).await?,
            get: encoded(range(1)).await?,
            range: encoded(range(1_000)).await?,
            txn: encoded(txn(10)).await?,
        })
    }
}

/// Requests of a kind come in as messages, and bytes go out.
struct Whole<T>(PhantomData<T>);

impl<T> Default for Whole<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

struct AsIs;

impl Encoder for AsIs {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, answer: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(answer.len());
        buffer.put(answer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        Codec::<PutResponse, PutRequest>::default().encoder().buffer_settings()
    }
}

impl<T: Send + 'static> Encodes for Whole<T>
where
    Codec<T, T>: Encodes<Encode = T, Decode = T>,
{
    type Encode = Bytes;
    type Decode = T;
    type Encoder = AsIs;
    type Decoder = <Codec<T, T> as Encodes>::Decoder;

    fn encoder(&mut self) -> AsIs {
        AsIs
    }

    fn decoder(&mut self) -> Self::Decoder {
        Codec::<T, T>::default().decoder()
    }
}

/// Answers a request.
struct Say<F>(F);

impl<T, R, F: Fn(T) -> R> UnaryService<T> for Say<F> {
    type Response = R;
    type Future = Ready<Result<Response<R>, Status>>;

    fn call(&mut self, request: Request<T>) -> Self::Future {
        ready(Ok(Response::new((self.0)(request.into_inner()))))
    }
}

async fn answer<T, F>(
    call: http::Request<tonic::body::Body>,
    say: F,
) -> Result<http::Response<tonic::body::Body>, Infallible>
where
    Codec<T, T>: Encodes<Encode = T, Decode = T>,
    T: Send + Sync + 'static,
    F: Fn(T) -> Bytes + Send,
{
    Ok(Grpc::new(Whole::<T>::default()).unary(Say(say), call).await)
}

#[derive(Clone)]
struct Null(Arc<Answers>);

impl Service<http::Request<tonic::body::Body>> for Null {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: http::Request<tonic::body::Body>) -> Self::Future {
        let answers = Arc::clone(&self.0);
        match call.uri().path() {
            "/etcdserverpb.KV/Put" => {
                Box::pin(answer(call, move |_: PutRequest| answers.put.clone()))
            }
            "/etcdserverpb.KV/Range" => Box::pin(answer(call, move |asked: RangeRequest| {
                let one = asked.range_end.is_empty();
                if one { answers.get.clone() } else { answers.range.clone() }
            })),
            "/etcdserverpb.KV/Txn" => {
                Box::pin(answer(call, move |_: TxnRequest| answers.txn.clone()))
            }
            other => {
                let status = Status::unimplemented(format!("{other} has no answer here"));
                Box::pin(ready(Ok(status.into_http())))
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).ok_or("null-handler HOST:PORT")?;
    let address: SocketAddr = address.parse().map_err(|error| format!("{address}: {error}"))?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    let connections = TcpListenerStream::new(listener).map(|accepted| {
        let connection = accepted?;
        connection.set_nodelay(true)?;
        std::io::Result::Ok(connection)
    });
    let answers = Answers::new().await?;
    let limits = Limits::default();
    tonic::transport::Server::builder()
        .accept_http1(true)
        .max_concurrent_streams(limits.concurrent_streams_max)
        .http2_keepalive_interval(limits.keep_alive_interval)
        .http2_keepalive_timeout(Some(limits.keep_alive_timeout))
        .serve_with_incoming(Null(Arc::new(answers)), connections)
        .await?;
    Ok(())
}
