//! A status of a real etcd, which brings no trailer: its words say what it means.

use tonic::Status;

use super::{
    AUTH_FAILED, COMPACTED, FUTURE_REVISION, INVALID, INVALID_AUTH_TOKEN, LEARNER_REFUSES,
    NO_LEADER, NO_SPACE, OLD_AUTH_REVISION, PERMISSION_DENIED, TOO_MANY_REQUESTS, USER_NAME_EMPTY,
};
use crate::keyspace::{Error, Revision};

/// The error that etcd's words stand for: a refusal, before or instead of what was asked for. `None`
/// if they leave open what happened, or are not etcd's.
///
/// etcd says that a revision is compacted or in the future, and not which ones are there: those numbers
/// are [`Revision::NONE`].
#[must_use]
pub fn from_words(status: &Status) -> Option<Error> {
    let text = status.message();
    let reason = text.to_owned();
    let (requested, unknown) = (Revision::NONE, Revision::NONE);
    Some(match text {
        COMPACTED => Error::Compacted { requested, compacted: unknown },
        FUTURE_REVISION => Error::Future { requested, current: unknown },
        NO_SPACE => Error::NoSpace { reason },
        TOO_MANY_REQUESTS => Error::Busy { reason },
        NO_LEADER => Error::NoQuorum { reason },
        PERMISSION_DENIED | AUTH_FAILED | INVALID_AUTH_TOKEN | OLD_AUTH_REVISION
        | USER_NAME_EMPTY => Error::Denied { reason },
        LEARNER_REFUSES => Error::Unavailable { reason },
        _ => {
            let (_, known, _) = INVALID.iter().find(|(_, known, _)| *known == text)?;
            Error::Invalid(known.strip_prefix("etcdserver: ").unwrap_or(known).to_owned())
        }
    })
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::status::{DUPLICATE_KEY, REQUEST_TIMED_OUT, SERVER_STOPPED};

    #[test]
    fn refusals_are_told_by_their_words_and_what_is_open_is_not() {
        let error = |text: &str| from_words(&Status::new(Code::Unknown, text));
        assert!(matches!(error(COMPACTED), Some(Error::Compacted { .. })));
        assert!(matches!(error(TOO_MANY_REQUESTS), Some(Error::Busy { .. })));
        assert!(matches!(error(NO_LEADER), Some(Error::NoQuorum { .. })));
        assert!(matches!(error(PERMISSION_DENIED), Some(Error::Denied { .. })));
        let duplicate = error(DUPLICATE_KEY).unwrap();
        assert_eq!(duplicate.to_string(), "duplicate key given in txn request");
        for open in [REQUEST_TIMED_OUT, SERVER_STOPPED, "transport error", ""] {
            assert!(error(open).is_none(), "{open}");
        }
    }
}
