//! What a request says, where fuser does not say it as it is.

use std::time::{Duration, UNIX_EPOCH};

use fuser::{Errno, FileHandle, LockOwner, Request, TimeOrNow};

use crate::filesystem::{Answer, Caller};
use crate::locks::Kind;
use crate::ops::LockRequest;

pub(super) fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid() }
}

/// # Errors
/// EINVAL for a kind that there is not.
pub(super) fn lock_request(
    handle: FileHandle,
    owner: LockOwner,
    (start, end): (u64, u64),
    kind: i32,
    pid: u32,
    waits: bool,
) -> Answer<LockRequest> {
    let kind = match kind {
        libc::F_RDLCK => Some(Kind::Shared),
        libc::F_WRLCK => Some(Kind::Exclusive),
        libc::F_UNLCK => None,
        _ => return Err(Errno::EINVAL),
    };
    Ok(LockRequest { handle: handle.0, owner: owner.0, start, end, kind, pid, waits })
}

/// The time that was asked for. fuser 0.18 takes the nanoseconds of a time before the epoch for
/// negative, as the seconds are: what is 1.5 s before comes as 2.5 s before.
pub(super) fn asked_time(time: TimeOrNow) -> TimeOrNow {
    match time {
        TimeOrNow::SpecificTime(time) => {
            TimeOrNow::SpecificTime(match UNIX_EPOCH.duration_since(time) {
                Ok(before) => {
                    let nanoseconds = Duration::from_nanos(before.subsec_nanos().into());
                    UNIX_EPOCH - Duration::from_secs(before.as_secs()) + nanoseconds
                }
                Err(_) => time,
            })
        }
        TimeOrNow::Now => TimeOrNow::Now,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use fuser::TimeOrNow;

    use super::asked_time;

    #[test]
    fn times_before_the_epoch_are_what_was_asked_for() {
        // What fuser makes of the kernel's (seconds, nanoseconds).
        let decoded = |seconds: i64, nanoseconds: u32| {
            let distance = Duration::new(seconds.unsigned_abs(), nanoseconds);
            if seconds >= 0 { UNIX_EPOCH + distance } else { UNIX_EPOCH - distance }
        };
        for (seconds, nanoseconds, expected) in [
            (-2, 500_000_000, UNIX_EPOCH - Duration::from_millis(1_500)),
            (-1, 999_999_999, UNIX_EPOCH - Duration::from_nanos(1)),
            (-3, 0, UNIX_EPOCH - Duration::from_secs(3)),
            (0, 0, UNIX_EPOCH),
            (7, 5, UNIX_EPOCH + Duration::new(7, 5)),
        ] {
            let asked = asked_time(TimeOrNow::SpecificTime(decoded(seconds, nanoseconds)));
            assert!(
                matches!(asked, TimeOrNow::SpecificTime(time) if time == expected),
                "({seconds}, {nanoseconds}): {asked:?}"
            );
        }
    }
}
