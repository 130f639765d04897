//! Counts the calls of gRPC, those of the gateway included: begun, ended with which code, and their
//! bytes. A call whose client goes away before its end was canceled.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use bytes::{Buf, Bytes};
use http_body::Frame;
use prometheus_client::metrics::counter::Counter;
use tonic::Code;

use super::metrics::{Method, Metrics};

const STATUS: &str = "grpc-status";

pub(super) async fn count(metrics: Arc<Metrics>, request: Request, next: Next) -> Response {
    let Some(method) = metrics.method(request.uri().path()).cloned() else {
        return next.run(request).await;
    };
    method.started.inc();
    let received = metrics.received_bytes.clone();
    let request = request.map(|body| Body::new(Counted { body, bytes: received, call: None }));
    let mut call = Call { method, code: None };
    let response = next.run(request).await;
    // An answer without a message has its code in the head.
    call.learn(response.headers());
    let sent = metrics.sent_bytes.clone();
    response.map(|body| Body::new(Counted { body, bytes: sent, call: Some(call) }))
}

/// A call that has begun; dropped, it has ended.
struct Call {
    method: Method,
    code: Option<Code>,
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
        self.method.handled(self.code.unwrap_or(Code::Cancelled));
    }
}

/// A body whose bytes are counted, and whose end is that of a call.
struct Counted {
    body: Body,
    bytes: Counter,
    call: Option<Call>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            if let Some(data) = frame.data_ref() {
                self.bytes.inc_by(u64::try_from(data.remaining()).unwrap_or(u64::MAX));
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
