//! What is no message: on every method of every service, garbage, fields of another kind, cut frames and
//! frames that are no frames. The call alone is refused, and the connection goes on.
//!
//! What is sent is made from the descriptors, so that a new method or field is tried without a word here.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use prost::Message;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};
use revfs_api::wire::DESCRIPTORS;
use revfs_api::wire::etcdserverpb::kv_client::KvClient;
use revfs_api::wire::etcdserverpb::{PutRequest, RangeRequest};
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::Service as _;
use tower::ServiceExt as _;

use crate::node::Node;

/// A method, and the message that it takes.
struct Method {
    path: String,
    request: DescriptorProto,
    /// Of requests.
    is_stream: bool,
}

/// Served to members alone, on sockets of their own.
const OF_MEMBERS: &str = "revfs.peer.v1";

/// All methods of our services for clients, and those of others' that every node has.
fn methods() -> Vec<Method> {
    let sets = [DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];
    let files: Vec<_> = sets
        .iter()
        .flat_map(|set| FileDescriptorSet::decode(*set).expect("it was built").file)
        .collect();
    let message = |name: &str| {
        let found = files.iter().find_map(|file| {
            let package = format!(".{}.", file.package());
            let own = name.strip_prefix(&package)?;
            file.message_type.iter().find(|message| message.name() == own).cloned()
        });
        found.unwrap_or_else(|| panic!("{name} is described"))
    };
    let mut methods = Vec::new();
    for file in files.iter().filter(|file| file.package() != OF_MEMBERS) {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                let request = message(method.input_type());
                let is_stream = method.client_streaming();
                methods.push(Method { path, request, is_stream });
            }
        }
    }
    methods
}

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;
const GROUP_END: u8 = 4;
const FIXED32: u8 = 5;

fn key(field: i32, wire_type: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let field = u64::try_from(field).expect("fields have positive numbers");
    prost::encoding::encode_varint(field << 3 | u64::from(wire_type), &mut bytes);
    bytes
}

/// Each field of a message as something that it is not.
fn of_another_kind(message: &DescriptorProto) -> Vec<Vec<u8>> {
    let other = |field: &prost_types::FieldDescriptorProto| match field.r#type() {
        Type::String | Type::Bytes | Type::Message => [key(field.number(), VARINT), vec![1]],
        // A number that may come several times may come packed, but not as another number.
        Type::Fixed32 | Type::Sfixed32 | Type::Float => [key(field.number(), FIXED64), vec![1; 8]],
        _ => [key(field.number(), FIXED32), vec![1; 4]],
    };
    message.field.iter().map(|field| other(field).concat()).collect()
}

/// What is the content of no message at all.
fn garbage() -> Vec<Vec<u8>> {
    vec![
        // A field number without an end.
        vec![0xff; 16],
        // Field 0.
        vec![0x02, 0x00],
        // The end of what has not begun.
        key(1, GROUP_END),
        // A field of a kind that there is not.
        vec![0x0f],
        // A length beyond the message.
        [key(1, LENGTH), vec![0x7f, 1]].concat(),
        // A length beyond every number.
        [key(1, LENGTH), vec![0xff; 10]].concat(),
    ]
}

/// A frame of gRPC: whether it is compressed, its length, its content.
fn frame(flag: u8, length: usize, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).expect("a small message").to_be_bytes();
    [&[flag], &length[..], content].concat()
}

/// A body that is these bytes.
struct Whole(Option<Bytes>);

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// Sends bytes to a method; how the call ends.
async fn send(channel: &mut Channel, path: &str, bytes: Vec<u8>) -> Status {
    let request = axum::http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Whole(Some(bytes.into()))))
        .expect("a request");
    let response = channel.ready().await.expect("it is connected").call(request).await;
    let (head, mut body) = response.expect("it answers").into_parts();
    if let Some(status) = Status::from_header_map(&head.headers) {
        return status;
    }
    loop {
        let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let frame = frame.expect("a call ends with a status").expect("the connection goes on");
        if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
            return status;
        }
    }
}

/// Fails unless each of `calls` ends with `code`, and the connection serves others after them.
async fn refused(calls: Vec<(String, Vec<u8>)>, code: Code) {
    let node = Node::start().await;
    let mut channel = node.channel().await;
    let count = calls.len();
    for (path, bytes) in calls {
        let shown = format!("{path} {bytes:02x?}");
        let status = send(&mut channel, &path, bytes).await;
        assert_eq!(status.code(), code, "{shown}: {status:?}");
    }
    assert!(count >= methods().len(), "every method was tried");
    let mut kv = KvClient::new(channel);
    kv.put(PutRequest { key: "k".into(), value: "v".into(), ..Default::default() })
        .await
        .expect("it goes on");
    let all = RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    let all = kv.range(all).await.expect("it goes on").into_inner();
    assert_eq!(
        (all.count, all.header.expect("every answer has one").revision),
        (1, 2),
        "nothing else was done"
    );
    drop(kv);
    node.stop().await;
}

#[tokio::test]
async fn garbage_is_refused_on_every_method() {
    let calls = methods().into_iter().flat_map(|method| {
        let framed = |content: Vec<u8>| frame(0, content.len(), &content);
        garbage().into_iter().map(move |content| (method.path.clone(), framed(content)))
    });
    refused(calls.collect(), Code::Internal).await;
}

#[tokio::test]
async fn a_field_of_another_kind_is_refused_on_every_method() {
    let mut calls = Vec::new();
    for Method { path, request, .. } in methods() {
        // A message without fields knows no other kinds: they are of a later release.
        for content in of_another_kind(&request) {
            calls.push((path.clone(), frame(0, content.len(), &content)));
        }
    }
    refused(calls, Code::Internal).await;
}

#[tokio::test]
async fn what_ends_within_a_frame_is_refused_on_every_method() {
    let calls = methods().into_iter().flat_map(|method| {
        let mut cut = vec![frame(0, 100, &[0x0a]), vec![0, 0, 0]];
        if !method.is_stream {
            // To a stream that is its end: no message has begun.
            cut.push(frame(0, 1, &[]));
        }
        cut.into_iter().map(move |bytes| (method.path.clone(), bytes))
    });
    refused(calls.collect(), Code::Internal).await;
}

#[tokio::test]
async fn a_frame_that_says_it_is_compressed_is_refused_on_every_method() {
    let calls = methods().into_iter().map(|method| (method.path, frame(1, 2, &[0x0a, 0x00])));
    refused(calls.collect(), Code::Internal).await;
}

#[tokio::test]
async fn a_frame_over_the_bound_is_refused_before_it_is_read_on_every_method() {
    // None of it comes: the length is enough.
    let calls = methods().into_iter().map(|method| (method.path, frame(0, 1 << 30, &[])));
    refused(calls.collect(), Code::OutOfRange).await;
}
