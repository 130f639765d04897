//! [`Error`] <-> [`tonic::Status`]: the one table of errors on the wire.
//!
//! Code and text are for every client: etcd's own where the meaning is etcd's, because its clients
//! match by text. The exact variant with its values goes with it in the trailer `revfs-error-bin`
//! (`revfs.v1.ErrorDetail`), which other clients do not look at.

mod words;

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::keyspace::{Error, Revision};
use crate::wire::revfs::ErrorDetail;
use crate::wire::revfs::error_detail::{
    Compacted, Error as Detail, Future as FutureRevision, TooBig, ValueTooLarge,
};

pub use self::words::from_words;

/// Trailer with the encoded [`ErrorDetail`].
pub const ERROR_TRAILER: &str = "revfs-error-bin";

/// Reasons longer than this are cut. HTTP/2 peers bound the size of all trailers (16 KiB here), and a
/// reason is sent twice: as text, where each byte may become three, and in base64.
const REASON_BYTES_MAX: usize = 1_024;

pub const KEY_NOT_PROVIDED: &str = "etcdserver: key is not provided";
pub const KEY_NOT_FOUND: &str = "etcdserver: key not found";
pub const VALUE_PROVIDED: &str = "etcdserver: value is provided";
pub const LEASE_PROVIDED: &str = "etcdserver: lease is provided";
pub const TOO_MANY_OPERATIONS: &str = "etcdserver: too many operations in txn request";
pub const DUPLICATE_KEY: &str = "etcdserver: duplicate key given in txn request";
pub const INVALID_SORT_OPTION: &str = "etcdserver: invalid sort option";
pub const REQUEST_TOO_LARGE: &str = "etcdserver: request is too large";
pub const LEASE_NOT_FOUND: &str = "etcdserver: requested lease not found";
pub const LEASE_EXISTS: &str = "etcdserver: lease already exists";
pub const LEASE_TTL_TOO_LARGE: &str = "etcdserver: too large lease TTL";
pub const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
pub const FUTURE_REVISION: &str = "etcdserver: mvcc: required revision is a future revision";
pub const CORRUPT: &str = "etcdserver: corrupt cluster";
pub const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
pub const TOO_MANY_REQUESTS: &str = "etcdserver: too many requests";
pub const PERMISSION_DENIED: &str = "etcdserver: permission denied";
pub const USER_NAME_EMPTY: &str = "etcdserver: user name is empty";
pub const ROLE_NAME_EMPTY: &str = "etcdserver: role name is empty";
pub const INVALID_AUTH_MANAGEMENT: &str = "etcdserver: invalid auth management";
pub const OLD_AUTH_REVISION: &str = "etcdserver: revision of auth store is old";
pub const ROOT_USER_MISSING: &str = "etcdserver: root user does not exist";
pub const ROOT_ROLE_MISSING: &str = "etcdserver: root user does not have root role";
pub const USER_EXISTS: &str = "etcdserver: user name already exists";
pub const USER_NOT_FOUND: &str = "etcdserver: user name not found";
pub const ROLE_EXISTS: &str = "etcdserver: role name already exists";
pub const ROLE_NOT_FOUND: &str = "etcdserver: role name not found";
pub const ROLE_NOT_GRANTED: &str = "etcdserver: role is not granted to the user";
pub const PERMISSION_NOT_GRANTED: &str = "etcdserver: permission is not granted to the role";
pub const AUTH_FAILED: &str = "etcdserver: authentication failed, invalid user ID or password";
pub const PERMISSION_NOT_GIVEN: &str = "etcdserver: permission not given";
pub const AUTH_NOT_ENABLED: &str = "etcdserver: authentication is not enabled";
pub const INVALID_AUTH_TOKEN: &str = "etcdserver: invalid auth token";
/// Who is told one of these may mend it with another token.
pub const LOGIN_WANTED: [&str; 3] = [INVALID_AUTH_TOKEN, OLD_AUTH_REVISION, USER_NAME_EMPTY];
pub const LEARNER_REFUSES: &str = "etcdserver: rpc not supported for learner";
pub const NO_LEADER: &str = "etcdserver: no leader";
pub const SERVER_STOPPED: &str = "etcdserver: server stopped";
pub const REQUEST_TIMED_OUT: &str = "etcdserver: request timed out";

pub const MEMBER_NOT_FOUND: &str = "etcdserver: member not found";
pub const MEMBER_URLS_INVALID: &str = "etcdserver: given member URLs are invalid";
pub const MEMBER_EXISTS: &str = "etcdserver: member ID already exist";
pub const PEER_URL_EXISTS: &str = "etcdserver: Peer URLs already exists";
pub const TOO_FEW_STARTED: &str =
    "etcdserver: re-configuration failed due to not enough started members";
pub const NOT_A_LEARNER: &str = "etcdserver: can only promote a learner member";
pub const NOT_IN_SYNC: &str =
    "etcdserver: can only promote a learner member which is in sync with leader";
pub const TOO_MANY_LEARNERS: &str = "etcdserver: too many learner members in cluster";
pub const NOT_LEADER: &str = "etcdserver: not leader";
pub const BAD_TRANSFEREE: &str = "etcdserver: bad leader transferee";
pub const DOWNGRADE_VERSION_FORMAT: &str = "etcdserver: wrong downgrade target version format";
pub const DOWNGRADE_VERSION: &str = "etcdserver: invalid downgrade target version";
pub const NO_DOWNGRADE: &str = "etcdserver: no inflight downgrade job";

/// Code and text of an error.
fn code_and_text(error: &Error) -> (Code, String) {
    match error {
        Error::Compacted { .. } => (Code::OutOfRange, COMPACTED.into()),
        Error::Future { .. } => (Code::OutOfRange, FUTURE_REVISION.into()),
        Error::KeyTooLong { .. } => (Code::InvalidArgument, error.to_string()),
        Error::ValueTooLarge { .. } => (Code::InvalidArgument, REQUEST_TOO_LARGE.into()),
        Error::TooBig { unit, .. } => (
            Code::InvalidArgument,
            match *unit {
                "bytes" => REQUEST_TOO_LARGE.into(),
                "operations" => TOO_MANY_OPERATIONS.into(),
                _ => error.to_string(),
            },
        ),
        Error::NoSpace { .. } => (Code::ResourceExhausted, NO_SPACE.into()),
        Error::Busy { .. } => (Code::ResourceExhausted, TOO_MANY_REQUESTS.into()),
        Error::NoQuorum { .. } => (Code::Unavailable, NO_LEADER.into()),
        Error::Denied { .. } => (Code::PermissionDenied, PERMISSION_DENIED.into()),
        Error::Invalid(text) => invalid(text),
        Error::OutcomeUnknown { .. } | Error::Timeout(_) => {
            (Code::Unavailable, REQUEST_TIMED_OUT.into())
        }
        Error::Unsupported(_) => (Code::Unimplemented, error.to_string()),
        Error::Unavailable { .. } | Error::Closed { .. } => {
            (Code::Unavailable, SERVER_STOPPED.into())
        }
    }
}

/// Invalid requests that etcd has words for: code, etcd's text, and the store's own words where they
/// differ from etcd's without its prefix.
const INVALID: [(Code, &str, &str); 36] = [
    (Code::DataLoss, CORRUPT, ""),
    (Code::InvalidArgument, KEY_NOT_PROVIDED, "key is empty"),
    (Code::InvalidArgument, KEY_NOT_FOUND, ""),
    (Code::InvalidArgument, VALUE_PROVIDED, ""),
    (Code::InvalidArgument, LEASE_PROVIDED, ""),
    (Code::InvalidArgument, TOO_MANY_OPERATIONS, ""),
    (Code::InvalidArgument, DUPLICATE_KEY, "duplicate key given in transaction"),
    (Code::InvalidArgument, INVALID_SORT_OPTION, ""),
    (Code::InvalidArgument, REQUEST_TOO_LARGE, ""),
    (Code::NotFound, LEASE_NOT_FOUND, ""),
    (Code::FailedPrecondition, LEASE_EXISTS, ""),
    (Code::OutOfRange, LEASE_TTL_TOO_LARGE, ""),
    (Code::InvalidArgument, USER_NAME_EMPTY, ""),
    (Code::InvalidArgument, ROLE_NAME_EMPTY, ""),
    (Code::InvalidArgument, INVALID_AUTH_MANAGEMENT, ""),
    (Code::InvalidArgument, OLD_AUTH_REVISION, ""),
    (Code::FailedPrecondition, ROOT_USER_MISSING, ""),
    (Code::FailedPrecondition, ROOT_ROLE_MISSING, ""),
    (Code::FailedPrecondition, USER_EXISTS, ""),
    (Code::FailedPrecondition, USER_NOT_FOUND, ""),
    (Code::FailedPrecondition, ROLE_EXISTS, ""),
    (Code::FailedPrecondition, ROLE_NOT_FOUND, ""),
    (Code::FailedPrecondition, ROLE_NOT_GRANTED, ""),
    (Code::FailedPrecondition, PERMISSION_NOT_GRANTED, ""),
    (Code::InvalidArgument, AUTH_FAILED, ""),
    (Code::InvalidArgument, PERMISSION_NOT_GIVEN, ""),
    (Code::FailedPrecondition, AUTH_NOT_ENABLED, ""),
    (Code::Unauthenticated, INVALID_AUTH_TOKEN, ""),
    (Code::NotFound, MEMBER_NOT_FOUND, "the member has been permanently removed from the cluster"),
    (Code::FailedPrecondition, MEMBER_EXISTS, ""),
    (Code::FailedPrecondition, PEER_URL_EXISTS, ""),
    (Code::InvalidArgument, MEMBER_URLS_INVALID, ""),
    (Code::FailedPrecondition, TOO_FEW_STARTED, ""),
    (Code::FailedPrecondition, NOT_A_LEARNER, ""),
    (Code::FailedPrecondition, NOT_IN_SYNC, ""),
    (Code::FailedPrecondition, TOO_MANY_LEARNERS, ""),
];

fn invalid(text: &str) -> (Code, String) {
    let bare = text.strip_prefix("etcdserver: ").unwrap_or(text);
    let found = INVALID.into_iter().find(|&(_, full, own)| {
        full.strip_prefix("etcdserver: ") == Some(bare) || (!own.is_empty() && own == bare)
    });
    match found {
        Some((code, full, _)) => (code, full.into()),
        None => (Code::InvalidArgument, cut(text)),
    }
}

fn cut(reason: &str) -> String {
    reason[..reason.floor_char_boundary(REASON_BYTES_MAX)].to_owned()
}

fn detail(error: &Error) -> Detail {
    let number = |size: usize| u64::try_from(size).unwrap_or(u64::MAX);
    match error {
        Error::Compacted { requested, compacted } => {
            Detail::Compacted(Compacted { requested: requested.0, compacted: compacted.0 })
        }
        Error::Future { requested, current } => {
            Detail::Future(FutureRevision { requested: requested.0, current: current.0 })
        }
        Error::KeyTooLong { bytes } => Detail::KeyTooLong(number(*bytes)),
        Error::ValueTooLarge { bytes, max } => {
            Detail::ValueTooLarge(ValueTooLarge { bytes: number(*bytes), max: number(*max) })
        }
        Error::TooBig { unit, count, max } => {
            Detail::TooBig(TooBig { unit: cut(unit), count: number(*count), max: number(*max) })
        }
        Error::NoSpace { reason } => Detail::NoSpace(cut(reason)),
        Error::Busy { reason } => Detail::Busy(cut(reason)),
        Error::NoQuorum { reason } => Detail::NoQuorum(cut(reason)),
        Error::Denied { reason } => Detail::Denied(cut(reason)),
        Error::Invalid(text) => Detail::Invalid(cut(text)),
        Error::OutcomeUnknown { reason } => Detail::OutcomeUnknown(cut(reason)),
        Error::Timeout(waited) => {
            Detail::Timeout(u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX))
        }
        Error::Unsupported(what) => Detail::Unsupported(cut(what)),
        Error::Unavailable { reason } => Detail::Unavailable(cut(reason)),
        Error::Closed { reason } => Detail::Closed(cut(reason)),
    }
}

fn error(detail: Detail) -> Error {
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    match detail {
        Detail::Compacted(Compacted { requested, compacted }) => {
            Error::Compacted { requested: Revision(requested), compacted: Revision(compacted) }
        }
        Detail::Future(FutureRevision { requested, current }) => {
            Error::Future { requested: Revision(requested), current: Revision(current) }
        }
        Detail::KeyTooLong(bytes) => Error::KeyTooLong { bytes: size(bytes) },
        Detail::ValueTooLarge(ValueTooLarge { bytes, max }) => {
            Error::ValueTooLarge { bytes: size(bytes), max: size(max) }
        }
        Detail::TooBig(TooBig { unit, count, max }) => {
            Error::TooBig { unit: word(&unit), count: size(count), max: size(max) }
        }
        Detail::NoSpace(reason) => Error::NoSpace { reason },
        Detail::Busy(reason) => Error::Busy { reason },
        Detail::NoQuorum(reason) => Error::NoQuorum { reason },
        Detail::Denied(reason) => Error::Denied { reason },
        Detail::Invalid(text) => Error::Invalid(text),
        Detail::OutcomeUnknown(reason) => Error::OutcomeUnknown { reason },
        Detail::Timeout(nanoseconds) => Error::Timeout(Duration::from_nanos(nanoseconds)),
        Detail::Unsupported(what) => Error::Unsupported(word(&what)),
        Detail::Unavailable(reason) => Error::Unavailable { reason },
        Detail::Closed(reason) => Error::Closed { reason: reason.into() },
    }
}

/// Words that errors hold as `&'static str`, kept for good. A server chooses them, so their number and
/// length are bounded; what is over the bound is not named.
fn word(word: &str) -> &'static str {
    const WORDS_MAX: usize = 64;
    const WORD_BYTES_MAX: usize = 256;
    static WORDS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

    let mut words = WORDS.lock();
    if let Some(&known) = words.get(word) {
        return known;
    }
    if words.len() >= WORDS_MAX || word.len() > WORD_BYTES_MAX {
        return "(what the server names)";
    }
    let kept: &'static str = Box::leak(word.into());
    words.insert(kept);
    kept
}

/// The status that a service answers for an error.
#[must_use]
pub fn to_status(error: &Error) -> Status {
    let (code, text) = code_and_text(error);
    let mut status = Status::new(code, text);
    let encoded = ErrorDetail { error: Some(detail(error)) }.encode_to_vec();
    status.metadata_mut().insert_bin(ERROR_TRAILER, MetadataValue::from_bytes(&encoded));
    status
}

/// The error that a service of revfs put into a status. `None` if the status came from elsewhere: a
/// connection, a proxy, another server.
#[must_use]
pub fn from_status(status: &Status) -> Option<Error> {
    let encoded = status.metadata().get_bin(ERROR_TRAILER)?.to_bytes().ok()?;
    ErrorDetail::decode(encoded).ok()?.error.map(error)
}
