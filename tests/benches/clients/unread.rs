//! Answers that are only measured. To decode a thousand keys takes a client longer than a server takes
//! to send them: then both servers would be as fast as the client.

use bytes::Buf;
use revfs_api::wire::codec::{Codec, Exact};
use revfs_api::wire::etcdserverpb::RangeRequest;
use tonic::Status;
use tonic::client::Grpc;
use tonic::codec::{Codec as Encodes, DecodeBuf, Decoder};
use tonic::codegen::http::uri::PathAndQuery;

use crate::load::{Load, Outcome};

/// A range whose answer is counted in bytes.
#[derive(Default)]
struct Unread(Codec<RangeRequest, ()>);

struct Size;

impl Decoder for Size {
    type Item = usize;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<usize>, Status> {
        let bytes = buffer.remaining();
        buffer.advance(bytes);
        Ok(Some(bytes))
    }
}

impl Encodes for Unread {
    type Encode = RangeRequest;
    type Decode = usize;
    type Encoder = Exact<RangeRequest>;
    type Decoder = Size;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Size {
        Size
    }
}

/// The bytes of a range's answer.
pub(crate) async fn range(load: &Load, client: usize, request: RangeRequest) -> Outcome<usize> {
    let mut grpc = Grpc::new(load.channel(client)).max_decoding_message_size(usize::MAX);
    grpc.ready().await?;
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
    Ok(grpc.unary(tonic::Request::new(request), path, Unread::default()).await?.into_inner())
}
