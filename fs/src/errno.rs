//! What the key space answers, as errno: the one table of this boundary. `docs/SEMANTICS.md` says the
//! same in words.

use fuser::Errno;
use revfs_api::keyspace::Error;

use crate::path::NameError;

/// The errno that a program sees for an error of the key space.
#[must_use]
pub fn errno(error: &Error) -> Errno {
    match error {
        Error::Compacted { .. } => Errno::ESTALE,
        Error::Future { .. } => Errno::ENOENT,
        Error::KeyTooLong { .. } => Errno::ENAMETOOLONG,
        Error::ValueTooLarge { .. } => Errno::EFBIG,
        Error::TooBig { .. } => Errno::E2BIG,
        Error::NoSpace { .. } => Errno::ENOSPC,
        Error::Busy { .. } => Errno::EAGAIN,
        Error::NoQuorum { .. } => Errno::EROFS,
        Error::Denied { .. } => Errno::EACCES,
        Error::Invalid(_) => Errno::EINVAL,
        Error::Timeout(_) => Errno::ETIMEDOUT,
        Error::Unsupported(_) => Errno::EOPNOTSUPP,
        // Whether the change happened is not known, so it must not look as if it had not.
        Error::OutcomeUnknown { .. } | Error::Unavailable { .. } | Error::Closed { .. } => {
            Errno::EIO
        }
    }
}

/// The errno of a name that no key can have.
#[must_use]
pub fn name_errno(error: &NameError) -> Errno {
    match error {
        NameError::TooLong { .. } | NameError::KeyTooLong { .. } => Errno::ENAMETOOLONG,
        NameError::Illegal { .. } | NameError::NotADirectory { .. } => Errno::EINVAL,
        // Nothing of that name can exist.
        NameError::NotAKeysName { .. } | NameError::Hidden { .. } | NameError::Shortened { .. } => {
            Errno::ENOENT
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fuser::Errno;
    use revfs_api::keyspace::{Error, Revision};

    use super::errno;

    #[test]
    fn each_cause_has_the_documented_errno() {
        let reason = || String::from("because");
        let (requested, compacted) = (Revision(3), Revision(5));
        for (error, expected) in [
            (Error::Compacted { requested, compacted }, libc::ESTALE),
            (Error::Future { requested: compacted, current: requested }, libc::ENOENT),
            (Error::KeyTooLong { bytes: 2_000 }, libc::ENAMETOOLONG),
            (Error::ValueTooLarge { bytes: 20, max: 10 }, libc::EFBIG),
            (Error::TooBig { unit: "rows", count: 2, max: 1 }, libc::E2BIG),
            (Error::NoSpace { reason: reason() }, libc::ENOSPC),
            (Error::Busy { reason: reason() }, libc::EAGAIN),
            (Error::NoQuorum { reason: reason() }, libc::EROFS),
            (Error::Denied { reason: reason() }, libc::EACCES),
            (Error::Invalid(reason()), libc::EINVAL),
            (Error::OutcomeUnknown { reason: reason() }, libc::EIO),
            (Error::Timeout(Duration::from_secs(1)), libc::ETIMEDOUT),
            (Error::Unsupported("time"), libc::EOPNOTSUPP),
            (Error::Unavailable { reason: reason() }, libc::EIO),
            (Error::Closed { reason: "disk".into() }, libc::EIO),
        ] {
            assert_eq!(errno(&error).code(), expected, "{error}");
        }
        assert_eq!(Errno::ESTALE.code(), libc::ESTALE);
    }
}
