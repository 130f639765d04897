//! Names in `@rev/` and `@history/NAME/`, and back.
//!
//! A number is written in one way only (decimal, no leading zero, not 0), so that a revision has one
//! name.

use jiff::Timestamp;
use revfs_api::keyspace::{Revision, Time};

const OLDER_THAN: &str = "older-than-";
const DELETED: &str = ".deleted";
const REFUSED: &str = "refused-";

/// An entry of `@rev/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevName {
    /// `N`: the directory as of a revision.
    At(Revision),
    /// `older-than-N`: says that the listing was cut before it had all.
    OlderThan(Revision),
}

/// An entry of `@history/NAME/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryName {
    /// `N`: the version that a revision stored.
    Version(Revision),
    /// `N.deleted`: the deletion at a revision.
    Deleted(Revision),
    /// `refused-TIME`: bytes that could not be committed, kept for their owner. The time is RFC 3339
    /// in UTC.
    Refused(Time),
}

impl RevName {
    /// `None` for what `@rev/` never has.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Self> {
        let name = std::str::from_utf8(name).ok()?;
        match name.strip_prefix(OLDER_THAN) {
            Some(number) => revision(number).map(Self::OlderThan),
            None => revision(name).map(Self::At),
        }
    }
}

impl std::fmt::Display for RevName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::At(revision) => write!(f, "{revision}"),
            Self::OlderThan(revision) => write!(f, "{OLDER_THAN}{revision}"),
        }
    }
}

impl HistoryName {
    /// `None` for what `@history/NAME/` never has.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Self> {
        let name = std::str::from_utf8(name).ok()?;
        if let Some(time) = name.strip_prefix(REFUSED) {
            let refused = Self::Refused(utc(time)?);
            return (refused.to_string() == name).then_some(refused);
        }
        match name.strip_suffix(DELETED) {
            Some(number) => revision(number).map(Self::Deleted),
            None => revision(name).map(Self::Version),
        }
    }
}

impl std::fmt::Display for HistoryName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Version(revision) => write!(f, "{revision}"),
            Self::Deleted(revision) => write!(f, "{revision}{DELETED}"),
            Self::Refused(Time(time)) => {
                let time = Timestamp::from_nanosecond(i128::from(*time))
                    .expect("the years 1677 to 2262 of an i64 are in range");
                write!(f, "{REFUSED}{time}")
            }
        }
    }
}

fn revision(number: &str) -> Option<Revision> {
    let is_canonical =
        number.bytes().all(|digit| digit.is_ascii_digit()) && !number.starts_with('0');
    // Without digits, and above u64::MAX, parsing fails.
    is_canonical.then(|| number.parse().ok()).flatten().map(Revision)
}

fn utc(time: &str) -> Option<Time> {
    let time: Timestamp = time.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok().map(Time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};
    use proptest::prop_assert_eq;
    use revfs_api::keyspace::{Revision, Time};

    use super::{HistoryName, RevName};

    #[test]
    fn reads_what_the_directories_list() {
        assert_eq!(RevName::parse(b"41"), Some(RevName::At(Revision(41))));
        assert_eq!(RevName::parse(b"older-than-9"), Some(RevName::OlderThan(Revision(9))));
        assert_eq!(HistoryName::parse(b"41"), Some(HistoryName::Version(Revision(41))));
        assert_eq!(HistoryName::parse(b"41.deleted"), Some(HistoryName::Deleted(Revision(41))));
        let refused = HistoryName::Refused(Time(1_785_672_000_000_000_500));
        assert_eq!(refused.to_string(), "refused-2026-08-02T12:00:00.0000005Z");
    }

    #[test]
    fn refuses_every_other_spelling() {
        for name in [
            "",
            "0",
            "041",
            "+41",
            "-1",
            "4 1",
            "41.",
            "99999999999999999999",
            "head",
            "older-than-",
        ] {
            assert_eq!(RevName::parse(name.as_bytes()), None, "{name}");
            assert_eq!(HistoryName::parse(name.as_bytes()), None, "{name}");
        }
        assert_eq!(RevName::parse(b"41.deleted"), None);
        assert_eq!(RevName::parse(b"\xff"), None);
        for name in [
            "older-than-9",
            ".deleted",
            "0.deleted",
            "refused-",
            "refused-2026-08-02T12:00:00+00:00",
            "refused-2026-08-02",
        ] {
            assert_eq!(HistoryName::parse(name.as_bytes()), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn names_come_back(number in 1..=u64::MAX, time in any::<i64>()) {
            for name in [RevName::At(Revision(number)), RevName::OlderThan(Revision(number))] {
                prop_assert_eq!(RevName::parse(name.to_string().as_bytes()), Some(name));
            }
            for name in [
                HistoryName::Version(Revision(number)),
                HistoryName::Deleted(Revision(number)),
                HistoryName::Refused(Time(time)),
            ] {
                prop_assert_eq!(HistoryName::parse(name.to_string().as_bytes()), Some(name));
            }
        }
    }
}
