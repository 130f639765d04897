//! etcd's JSON gateway: a POST for each call, with the request's message as JSON in the body.
//!
//! ```text
//! POST /v3/kv/range {"key":"Zm9v"} ─► RangeRequest ─► KV/Range in this process ─► {"kvs":[…]}
//! ```
//!
//! A stream of answers is a line for each, `{"result":{…}}`; a stream of requests is one JSON text after
//! the other ([`incoming`]). A client's certificate names no user here, as in etcd; its token does.

mod call;
mod incoming;
mod paths;

use axum::Router;

use self::call::Gateway;
use super::calls::Calls;
use crate::grpc::Limits;

/// A byte of a value is four thirds in base64, and names and braces come to it.
const TEXT_BYTES_PER_BYTE: usize = 2;

/// The paths below `/v3/`.
pub(super) fn routes(calls: &Calls, limits: &Limits) -> Router {
    let body_bytes_max = limits.message_bytes_max().saturating_mul(TEXT_BYTES_PER_BYTE);
    paths::all(&Gateway { calls: calls.clone(), body_bytes_max })
}
