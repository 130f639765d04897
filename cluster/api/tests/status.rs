//! The table of errors on the wire: our client gets back what the node said, and other clients get
//! etcd's codes and texts.

use std::time::Duration;

use revfs_api::keyspace::{Error, Revision};
use revfs_api::status::{ERROR_TRAILER, from_status, to_status};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

const WORDS: &str = "words: ünïcode";

/// Variants with the code and text that other clients see.
#[rustfmt::skip]
fn table() -> Vec<(Error, Code, &'static str)> {
    let reason = || WORDS.to_owned();
    vec![
        (Error::Compacted { requested: Revision(3), compacted: Revision(u64::MAX) },
            Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
        (Error::Future { requested: Revision(9), current: Revision(4) },
            Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
        (Error::KeyTooLong { bytes: 1_901 },
            Code::InvalidArgument, "key of 1901 bytes (encoded) is longer than 1900"),
        (Error::ValueTooLarge { bytes: 17, max: 16 },
            Code::InvalidArgument, "etcdserver: request is too large"),
        (Error::TooBig { unit: "bytes", count: 17, max: 16 },
            Code::InvalidArgument, "etcdserver: request is too large"),
        (Error::TooBig { unit: "operations", count: 17, max: 16 },
            Code::InvalidArgument, "etcdserver: too many operations in txn request"),
        (Error::TooBig { unit: "rows", count: 17, max: 16 },
            Code::InvalidArgument, "transaction of 17 rows is over the bound of 16"),
        (Error::NoSpace { reason: reason() },
            Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
        (Error::Busy { reason: reason() },
            Code::ResourceExhausted, "etcdserver: too many requests"),
        (Error::NoQuorum { reason: reason() },
            Code::Unavailable, "etcdserver: no leader"),
        (Error::Denied { reason: reason() },
            Code::PermissionDenied, "etcdserver: permission denied"),
        (Error::Invalid("key not found".into()),
            Code::InvalidArgument, "etcdserver: key not found"),
        (Error::Invalid("etcdserver: requested lease not found".into()),
            Code::NotFound, "etcdserver: requested lease not found"),
        (Error::Invalid("duplicate key given in transaction".into()),
            Code::InvalidArgument, "etcdserver: duplicate key given in txn request"),
        (Error::Invalid("lease already exists".into()),
            Code::FailedPrecondition, "etcdserver: lease already exists"),
        (Error::Invalid("user name is empty".into()),
            Code::InvalidArgument, "etcdserver: user name is empty"),
        (Error::Invalid("role name is empty".into()),
            Code::InvalidArgument, "etcdserver: role name is empty"),
        (Error::Invalid("invalid auth management".into()),
            Code::InvalidArgument, "etcdserver: invalid auth management"),
        (Error::Invalid("revision of auth store is old".into()),
            Code::InvalidArgument, "etcdserver: revision of auth store is old"),
        (Error::Invalid("root user does not exist".into()),
            Code::FailedPrecondition, "etcdserver: root user does not exist"),
        (Error::Invalid("root user does not have root role".into()),
            Code::FailedPrecondition, "etcdserver: root user does not have root role"),
        (Error::Invalid("user name already exists".into()),
            Code::FailedPrecondition, "etcdserver: user name already exists"),
        (Error::Invalid("user name not found".into()),
            Code::FailedPrecondition, "etcdserver: user name not found"),
        (Error::Invalid("role name already exists".into()),
            Code::FailedPrecondition, "etcdserver: role name already exists"),
        (Error::Invalid("role name not found".into()),
            Code::FailedPrecondition, "etcdserver: role name not found"),
        (Error::Invalid("role is not granted to the user".into()),
            Code::FailedPrecondition, "etcdserver: role is not granted to the user"),
        (Error::Invalid("permission is not granted to the role".into()),
            Code::FailedPrecondition, "etcdserver: permission is not granted to the role"),
        (Error::Invalid(reason()),
            Code::InvalidArgument, WORDS),
        (Error::OutcomeUnknown { reason: reason() },
            Code::Unavailable, "etcdserver: request timed out"),
        (Error::Timeout(Duration::from_nanos(1_500)),
            Code::Unavailable, "etcdserver: request timed out"),
        (Error::Unsupported("time travel"),
            Code::Unimplemented, "not supported by this backend: time travel"),
        (Error::Unavailable { reason: reason() },
            Code::Unavailable, "etcdserver: server stopped"),
        (Error::Closed { reason: reason().into() },
            Code::Unavailable, "etcdserver: server stopped"),
    ]
}

#[test]
fn every_error_comes_back_with_its_values_and_shows_etcds_words_to_others() {
    for (error, code, text) in table() {
        let status = to_status(&error);
        assert_eq!((status.code(), status.message()), (code, text), "{error:?}");
        let back = from_status(&status).expect("the trailer holds the error");
        assert_eq!(format!("{back:?}"), format!("{error:?}"));
    }
}

#[test]
fn a_status_from_elsewhere_holds_no_error() {
    assert!(from_status(&Status::unavailable("etcdserver: no leader")).is_none());
    let mut status = Status::internal("mutated");
    for trailer in [&b""[..], b"\xFF\xFF", b"\x0A\x05abc"] {
        let trailer = MetadataValue::from_bytes(trailer);
        status.metadata_mut().insert_bin(ERROR_TRAILER, trailer);
        assert!(from_status(&status).is_none());
    }
}

#[test]
fn a_long_reason_is_cut_to_what_a_trailer_holds() {
    let status = to_status(&Error::Invalid("ü".repeat(10_000)));
    let Some(Error::Invalid(text)) = from_status(&status) else { panic!("not Invalid") };
    assert_eq!(text, "ü".repeat(512));
    assert!(status.message().len() <= 1_024, "{}", status.message().len());
}
