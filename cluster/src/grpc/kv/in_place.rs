//! Ranges in the order of keys, encoded as the store reads them: what tonic makes of the service would
//! have each key and value owned first.
//!
//! [`Ranges`] is etcd's whole KV service with `Range` answered here.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http;
use bytes::BufMut as _;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use revfs_api::wire::codec::{self, Codec};
use revfs_api::wire::etcdserverpb::kv_server::KvServer;
use revfs_api::wire::etcdserverpb::{RangeRequest, RangeResponse, ResponseHeader};
use revfs_store::RangeEnd;
use revfs_store::schema::VersionRef;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec as Encodes, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tower::Service;

use super::super::member::{fail, signed};
use super::{KvService, range};
use crate::convert;

const RANGE_PATH: &str = "/etcdserverpb.KV/Range";

/// The first block: most ranges are of one key.
const BLOCK_BYTES_MIN: usize = 512;
const BLOCK_BYTES_MAX: usize = 64 * 1024;

/// See the module.
#[derive(Clone)]
pub(in crate::grpc) struct Ranges {
    service: Arc<KvService>,
    others: KvServer<KvService>,
    message_bytes_max: usize,
}

impl Ranges {
    pub(in crate::grpc) fn new(service: KvService, message_bytes_max: usize) -> Self {
        let service = Arc::new(service);
        let others =
            KvServer::from_arc(Arc::clone(&service)).max_decoding_message_size(message_bytes_max);
        Self { service, others, message_bytes_max }
    }
}

impl NamedService for Ranges {
    const NAME: &'static str = KvServer::<KvService>::NAME;
}

impl Service<http::Request<Body>> for Ranges {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != RANGE_PATH {
            return self.others.call(request);
        }
        let (range, limit) = (Range(Arc::clone(&self.service)), self.message_bytes_max);
        Box::pin(async move {
            let mut grpc = Grpc::new(RangeCodec).apply_max_message_size_config(Some(limit), None);
            Ok(grpc.unary(range, request).await)
        })
    }
}

struct Range(Arc<KvService>);

impl UnaryService<RangeRequest> for Range {
    type Response = Answer;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, Status>> + Send>>;

    fn call(&mut self, request: Request<RangeRequest>) -> Self::Future {
        let service = Arc::clone(&self.0);
        Box::pin(async move { answer(&service, request).await.map(Response::new) })
    }
}

async fn answer(service: &KvService, request: Request<RangeRequest>) -> Result<Answer, Status> {
    let keyspace = service.member.key_space(&request)?;
    let node = service.member.own_node().is_ok().then(|| service.member.node(&request));
    let node = node.transpose()?;
    let request = request.into_inner();
    let is_serializable = request.serializable;
    let read = range::range_read(request)?;
    let query = convert::range_read_to_store(read.clone());
    let Some(node) = node.filter(|_| query.is_plain()) else {
        return service.read_range(keyspace, is_serializable, read).await.map(Answer::Whole);
    };
    if !is_serializable {
        keyspace.confirm().await.map_err(fail)?;
    }
    let mut kvs = Blocks::default();
    let put = |key: &[u8], version: &VersionRef<'_>| {
        put_key_value(&mut kvs, key, version, query.keys_only);
    };
    let (end, current) = node.range_in_place(&query, put).map_err(fail)?;
    Ok(Answer::Encoded { header: service.member.header(current).await, kvs, end })
}

/// What a range is answered with.
enum Answer {
    Whole(RangeResponse),
    Encoded { header: ResponseHeader, kvs: Blocks, end: RangeEnd },
}

/// Encoded keys and values, one after the other. They are not moved when there are more of them.
#[derive(Default)]
struct Blocks {
    full: Vec<Vec<u8>>,
    last: Vec<u8>,
}

impl Blocks {
    /// Room for so many bytes in one piece.
    fn room(&mut self, bytes: usize) -> &mut Vec<u8> {
        if self.last.capacity() - self.last.len() < bytes {
            let doubled = (self.last.capacity() * 2).clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
            let next = Vec::with_capacity(doubled.max(bytes));
            self.full.push(std::mem::replace(&mut self.last, next));
        }
        &mut self.last
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.full.iter().chain([&self.last]).map(Vec::as_slice)
    }
}

/// Field numbers of etcd 3.5, `RangeResponse` and `mvccpb.KeyValue`.
const KVS: u32 = 2;
const KEY: u32 = 1;
const CREATE_REVISION: u32 = 2;
const MOD_REVISION: u32 = 3;
const VERSION: u32 = 4;
const VALUE: u32 = 5;
const LEASE: u32 = 6;

/// Bytes of a field's number and type, here and below.
const TAG_BYTES: usize = 1;

/// As one more of the answer's keys. What is empty or 0 is left out, as proto3 has it.
fn put_key_value(kvs: &mut Blocks, key: &[u8], version: &VersionRef<'_>, keys_only: bool) {
    let value = if keys_only { &[][..] } else { version.value };
    let numbers = [
        (CREATE_REVISION, version.create_revision.0),
        (MOD_REVISION, version.revision.0),
        (VERSION, version.version),
    ];
    let lease = version.lease.0.cast_unsigned();
    let length = bytes_length(key)
        + numbers.iter().map(|(_, number)| number_length(*number)).sum::<usize>()
        + bytes_length(value)
        + number_length(lease);
    let out = kvs.room(TAG_BYTES + delimited(length));
    encode_key(KVS, WireType::LengthDelimited, out);
    encode_varint(wide(length), out);
    put_bytes(KEY, key, out);
    for (field, number) in numbers {
        put_number(field, number, out);
    }
    put_bytes(VALUE, value, out);
    put_number(LEASE, lease, out);
}

fn wide(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Of so many bytes and the number before them that says how many they are.
fn delimited(length: usize) -> usize {
    encoded_len_varint(wide(length)) + length
}

fn bytes_length(bytes: &[u8]) -> usize {
    if bytes.is_empty() { 0 } else { TAG_BYTES + delimited(bytes.len()) }
}

fn number_length(number: u64) -> usize {
    if number == 0 { 0 } else { TAG_BYTES + encoded_len_varint(number) }
}

fn put_bytes(field: u32, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        encode_key(field, WireType::LengthDelimited, out);
        encode_varint(wide(bytes.len()), out);
        out.extend_from_slice(bytes);
    }
}

fn put_number(field: u32, number: u64, out: &mut Vec<u8>) {
    if number != 0 {
        encode_key(field, WireType::Varint, out);
        encode_varint(number, out);
    }
}

struct RangeCodec;

impl Encodes for RangeCodec {
    type Encode = Answer;
    type Decode = RangeRequest;
    type Encoder = Self;
    type Decoder = <Codec<RangeResponse, RangeRequest> as Encodes>::Decoder;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self::Decoder {
        Codec::<RangeResponse, RangeRequest>::default().decoder()
    }
}

impl Encoder for RangeCodec {
    type Item = Answer;
    type Error = Status;

    fn encode(&mut self, answer: Answer, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let (head, kvs, tail) = match answer {
            Answer::Whole(whole) => (whole, Blocks::default(), RangeResponse::default()),
            Answer::Encoded { header, kvs, end } => {
                let head = RangeResponse { header: Some(header), ..RangeResponse::default() };
                let count = signed(end.count);
                (head, kvs, RangeResponse { more: end.more, count, ..RangeResponse::default() })
            }
        };
        let kvs_bytes: usize = kvs.iter().map(<[u8]>::len).sum();
        buffer.reserve(head.encoded_len() + kvs_bytes + tail.encoded_len());
        head.encode_raw(buffer);
        kvs.iter().for_each(|block| buffer.put_slice(block));
        tail.encode_raw(buffer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        codec::buffer_settings()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use revfs_api::wire::mvccpb::KeyValue;
    use revfs_store::types::{LeaseId, Revision, Time};

    use super::*;

    fn version(value: &[u8], numbers: [u64; 3], lease: i64) -> VersionRef<'_> {
        let [create, main, version] = numbers;
        VersionRef {
            sub: 0,
            tombstone: false,
            revision: Revision(main),
            time: Time(7),
            create_revision: Revision(create),
            version,
            lease: LeaseId(lease),
            content_revision: Revision(main),
            content_time: Time(7),
            birth_revision: Revision(create),
            value,
        }
    }

    #[test]
    fn what_is_encoded_in_place_is_what_a_message_of_owned_keys_encodes_to() {
        let long = vec![b'v'; 3 * BLOCK_BYTES_MAX];
        type Version<'v> = (&'v [u8], &'v [u8], [u64; 3], i64);
        let keys: [Version<'_>; 5] = [
            (b"a", b"", [2, 2, 1], 0),
            (b"\0", b"value", [1 << 40, u64::from(u32::MAX), 127], -1),
            (&long[..300], &long[..127], [128, 16_384, 3], i64::MAX),
            (b"long", &long, [5, 6, 2], i64::MIN),
            (b"z", b"last", [7, 7, 1], 1),
        ];
        for keys_only in [false, true] {
            let (mut encoded, mut owned) = (Blocks::default(), RangeResponse::default());
            for (key, value, numbers, lease) in keys {
                put_key_value(&mut encoded, key, &version(value, numbers, lease), keys_only);
                owned.kvs.push(KeyValue {
                    key: Bytes::copy_from_slice(key),
                    create_revision: signed(numbers[0]),
                    mod_revision: signed(numbers[1]),
                    version: signed(numbers[2]),
                    value: if keys_only { Bytes::new() } else { Bytes::copy_from_slice(value) },
                    lease,
                });
            }
            let encoded: Vec<u8> = encoded.iter().flatten().copied().collect();
            assert_eq!(encoded, owned.encode_to_vec());
        }
    }
}
