//! What a status means to the caller of a read, and of a change.
//!
//! In this order: the error that a service of revfs put into the trailer, etcd's words, the code.

use std::time::Duration;

use tonic::{Code, Status};

use super::endpoint::Endpoint;
use crate::keyspace::Error;
use crate::status::{LEARNER_REFUSES, LOGIN_WANTED, from_status, from_words};

/// What tonic says, here or at the node, when the time that a request brought with it has passed.
const TIMEOUT_EXPIRED: &str = "Timeout expired";

const NO_SERVICE: &str = "the endpoint does not offer this service";

/// What a failed read means.
pub(super) fn read_error(endpoint: &Endpoint, status: &Status, timeout: Duration) -> Error {
    if let Some(error) = from_status(status).or_else(|| from_words(status)) {
        return error;
    }
    let reason = reason(endpoint, status);
    match status.code() {
        Code::Unimplemented => Error::Unsupported(NO_SERVICE),
        Code::PermissionDenied | Code::Unauthenticated => Error::Denied { reason },
        Code::InvalidArgument | Code::OutOfRange => Error::Invalid(reason),
        _ if is_silence(status) => Error::Timeout(timeout),
        Code::Ok
        | Code::Cancelled
        | Code::DeadlineExceeded
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

/// What a failed change means. Where the node itself did not say it, only what is known to be refused
/// before anything ran is a definite failure.
pub(super) fn change_error(endpoint: &Endpoint, status: &Status) -> Error {
    if let Some(error) = from_status(status).or_else(|| from_words(status)) {
        return error;
    }
    let reason = reason(endpoint, status);
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

/// Whether the time that the request brought with it has passed, by whoever's clock.
pub(super) fn is_silence(status: &Status) -> bool {
    status.code() == Code::DeadlineExceeded
        || (status.code() == Code::Cancelled && status.message() == TIMEOUT_EXPIRED)
}

/// Endpoint, text and causes of a status.
fn reason(endpoint: &Endpoint, status: &Status) -> String {
    let mut reason = format!("{endpoint}: {}", status.message());
    if let Some(cause) = std::error::Error::source(status) {
        append_causes(&mut reason, cause);
    }
    reason
}

/// An error and what caused it, each text once.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = String::new();
    append_causes(&mut text, error);
    text
}

fn append_causes(text: &mut String, error: &dyn std::error::Error) {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let own = error.to_string();
        if !text.contains(&own) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&own);
        }
        cause = error.source();
    }
}

/// Whether the request failed at connecting: nothing left this machine.
pub(super) fn was_never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Whether a member refused the request, before it looked at it, because it only learns.
pub(super) fn is_of_learner(status: &Status) -> bool {
    status.message() == LEARNER_REFUSES
}

/// Whether the request was refused because its token does not hold any more, or there was none: it may
/// be sent again with a new one.
pub(super) fn wants_login(status: &Status) -> bool {
    LOGIN_WANTED.contains(&status.message())
}
