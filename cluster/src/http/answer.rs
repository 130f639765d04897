//! Answers in JSON, and errors in the form that etcd 3.6 gives them.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use tonic::{Code, Status};

/// An error's code, text and details. etcd sends no details, and neither do we: the exact error of revfs
/// is in a trailer, for clients of gRPC.
#[derive(Serialize)]
struct Refusal<'a> {
    code: i32,
    message: &'a str,
    details: [(); 0],
}

impl<'a> Refusal<'a> {
    fn new(status: &'a Status) -> Self {
        Self { code: status.code().into(), message: status.message(), details: [] }
    }
}

pub(super) fn json(code: StatusCode, body: &impl Serialize) -> Response {
    let text = serde_json::to_vec(body).expect("strings are its only keys");
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An error as the whole answer.
pub(super) fn refusal(status: &Status) -> Response {
    json(http_code(status.code()), &Refusal::new(status))
}

/// One message of a stream, on a line.
pub(super) fn result_line(message: &impl Serialize) -> Vec<u8> {
    line("result", message)
}

/// The end of a stream that did not end well.
pub(super) fn error_line(status: &Status) -> Vec<u8> {
    line("error", &Refusal::new(status))
}

fn line(name: &str, value: &impl Serialize) -> Vec<u8> {
    let mut text = format!("{{\"{name}\":").into_bytes();
    serde_json::to_writer(&mut text, value).expect("strings are its only keys");
    text.extend_from_slice(b"}\n");
    text
}

/// The codes that etcd's gateway has for those of gRPC.
pub(super) fn http_code(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        // A client that went away has no code of its own.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
