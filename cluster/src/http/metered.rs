//! Counts the calls of gRPC, those of the gateway included: begun, ended with which code, and their
//! bytes. A call whose client goes away before its end was canceled.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::http::{HeaderMap, Request, Response};
use bytes::{Buf, Bytes};
use http_body::{Body as HttpBody, Frame};
use prometheus_client::metrics::counter::Counter;
use tonic::body::Body;
use tonic::{Code, Status};

use super::metrics::{Method, Metrics};

const STATUS: &str = "grpc-status";

/// A call of `method` begins.
pub(super) fn begin(
    metrics: &Metrics,
    method: Arc<Method>,
    request: Request<Body>,
) -> (Request<Body>, Call) {
    method.started.inc();
    let (bytes, messages) = (metrics.received_bytes.clone(), method.received.clone());
    let request = request
        .map(|body| Body::new(Counted { body, bytes, frames: Frames::new(messages), call: None }));
    let sent_bytes = metrics.sent_bytes.clone();
    (request, Call { method, sent_bytes, code: None, begun: Instant::now() })
}

/// It is answered; it ends with the answer's body.
pub(super) fn end(mut call: Call, response: Response<Body>) -> Response<Body> {
    // An answer without a message has its code in the head.
    call.learn(response.headers());
    let (bytes, sent) = (call.sent_bytes.clone(), Frames::new(call.method.sent.clone()));
    response.map(|body| Body::new(Counted { body, bytes, frames: sent, call: Some(call) }))
}

/// A call that has begun; dropped, it has ended.
pub(super) struct Call {
    method: Arc<Method>,
    sent_bytes: Counter,
    code: Option<Code>,
    begun: Instant,
}

impl Call {
    fn learn(&mut self, headers: &HeaderMap) {
        if let Some(status) = headers.get(STATUS) {
            self.code = Some(Code::from_bytes(status.as_bytes()));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.method.handled(self.code.unwrap_or(Code::Cancelled), self.begun.elapsed());
    }
}

/// A body whose bytes are counted, and whose end is that of a call.
struct Counted {
    body: Body,
    bytes: Counter,
    frames: Frames,
    call: Option<Call>,
}

/// Before each message: whether it is compressed, and its length.
const FRAME_HEADER_BYTES: usize = 5;

/// Counts messages by their beginnings, however the bytes are cut.
struct Frames {
    messages: Counter,
    header: [u8; FRAME_HEADER_BYTES],
    /// Of the header.
    known: usize,
    /// Of the message whose header was whole.
    left: usize,
}

impl Frames {
    fn new(messages: Counter) -> Self {
        Self { messages, header: [0; FRAME_HEADER_BYTES], known: 0, left: 0 }
    }

    fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let passed = self.left.min(bytes.len());
                self.left -= passed;
                bytes = &bytes[passed..];
                continue;
            }
            let missing = (FRAME_HEADER_BYTES - self.known).min(bytes.len());
            self.header[self.known..self.known + missing].copy_from_slice(&bytes[..missing]);
            self.known += missing;
            bytes = &bytes[missing..];
            if self.known == FRAME_HEADER_BYTES {
                let [_, length @ ..] = self.header;
                self.messages.inc();
                self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                self.known = 0;
            }
        }
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            if let Some(data) = frame.data_ref() {
                self.bytes.inc_by(u64::try_from(data.remaining()).unwrap_or(u64::MAX));
                let this = &mut *self;
                this.frames.pass(data);
            }
            if let (Some(trailers), Some(call)) = (frame.trailers_ref(), &mut self.call) {
                call.learn(trailers);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_their_bytes_are_cut() {
        let mut stream = Vec::new();
        for length in [0_u8, 1, 200, 0, 7] {
            stream.extend([0, 0, 0, 0, length]);
            stream.extend(vec![9; usize::from(length)]);
        }
        for piece in [1, 2, 3, 5, 7, 64, 1_000] {
            let mut frames = Frames::new(Counter::default());
            stream.chunks(piece).for_each(|bytes| frames.pass(bytes));
            assert_eq!(frames.messages.get(), 5, "in pieces of {piece}");
        }
    }
}
