//! The T of `@time/T`: which moment a name means.
//!
//! - `now`;
//! - `-10m`, `-2h`, `-7d`, `-1w`, also with `s`: so long ago, a day being 24 hours;
//! - `2026-08-02`: its first moment in the mount's time zone;
//! - `2026-08-02T12:30`, `2026-08-02 12:30:15.5`: in the mount's time zone. A time that the clock showed
//!   twice is the earlier one, one that it skipped is as much later;
//! - the same with an offset or `Z`: RFC 3339.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use revfs_api::keyspace::Time;

/// Why a name means no moment of the past.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeNameError {
    #[error(
        "`{name}` is no time: use 2026-08-02, 2026-08-02T12:30, 2026-08-02T12:30:00Z, -10m, -2h, \
         -7d, -1w or now"
    )]
    Unknown { name: String },
    #[error("`{name}` is no time: {reason}")]
    Invalid { name: String, reason: String },
    #[error("`{name}` is in the future: it is {now} now")]
    Future { name: String, now: Timestamp },
}

/// Returns the moment that `name` means at `now` on a mount with `time_zone`.
///
/// # Errors
/// [`TimeNameError`]: not a time, or later than `now`.
pub fn parse_time_name(
    name: &[u8],
    now: Timestamp,
    time_zone: &TimeZone,
) -> Result<Time, TimeNameError> {
    let printed = || name.escape_ascii().to_string();
    let unknown = || TimeNameError::Unknown { name: printed() };
    let invalid =
        |error: jiff::Error| TimeNameError::Invalid { name: printed(), reason: error.to_string() };
    let text = std::str::from_utf8(name).map_err(|_| unknown())?;
    let moment = if text == "now" {
        now
    } else if let Some(ago) = text.strip_prefix('-') {
        let ago = duration(ago).ok_or_else(unknown)?;
        now.checked_sub(ago).map_err(invalid)?
    } else if !starts_like_a_date(text) {
        return Err(unknown());
    } else if text.len() == DATE_CHARACTERS {
        let date: Date = text.parse().map_err(invalid)?;
        date.to_zoned(time_zone.clone()).map_err(invalid)?.timestamp()
    } else if has_offset(text) {
        text.parse().map_err(invalid)?
    } else {
        let local: DateTime = text.parse().map_err(invalid)?;
        local.to_zoned(time_zone.clone()).map_err(invalid)?.timestamp()
    };
    if moment > now {
        return Err(TimeNameError::Future { name: printed(), now });
    }
    // Before 1677 there is no revision either.
    Ok(Time(i64::try_from(moment.as_nanosecond()).unwrap_or(i64::MIN)))
}

/// Of `2026-08-02`.
const DATE_CHARACTERS: usize = 10;

fn starts_like_a_date(text: &str) -> bool {
    let date = text.as_bytes();
    date.len() >= DATE_CHARACTERS
        && date[..DATE_CHARACTERS].iter().enumerate().all(|(index, byte)| match index {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

/// Whether a date and time ends in `Z`, `+02:00` or `-02:00`.
fn has_offset(text: &str) -> bool {
    text[DATE_CHARACTERS..].contains(['Z', 'z', '+', '-'])
}

fn duration(text: &str) -> Option<SignedDuration> {
    let unit = text.chars().last()?;
    let number = text.strip_suffix(unit)?;
    if number.is_empty() || !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let unit_seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 24 * 3_600,
        'w' => 7 * 24 * 3_600,
        _ => return None,
    };
    let seconds = number.parse::<i64>().ok()?.checked_mul(unit_seconds)?;
    Some(SignedDuration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jiff::tz::{Offset, TimeZone};
    use proptest::prelude::{any, proptest};
    use revfs_api::keyspace::Time;

    use super::{TimeNameError, parse_time_name};

    const NOW: &str = "2026-08-02T12:00:00Z";

    fn parse_in(name: &str, zone: &TimeZone) -> Result<String, TimeNameError> {
        let Time(time) = parse_time_name(name.as_bytes(), NOW.parse().unwrap(), zone)?;
        Ok(Timestamp::from_nanosecond(time.into()).unwrap().to_string())
    }

    fn parse(name: &str) -> Result<String, TimeNameError> {
        parse_in(name, &TimeZone::fixed(Offset::constant(2)))
    }

    #[test]
    fn understands_relative_and_absolute_times() {
        for (name, moment) in [
            ("now", NOW),
            ("-0s", NOW),
            ("-90s", "2026-08-02T11:58:30Z"),
            ("-10m", "2026-08-02T11:50:00Z"),
            ("-2h", "2026-08-02T10:00:00Z"),
            ("-7d", "2026-07-26T12:00:00Z"),
            ("-1w", "2026-07-26T12:00:00Z"),
            ("2026-08-02", "2026-08-01T22:00:00Z"),
            ("2026-08-02T13:30", "2026-08-02T11:30:00Z"),
            ("2026-08-02 13:30:15.5", "2026-08-02T11:30:15.5Z"),
            ("2026-08-02T11:30:00Z", "2026-08-02T11:30:00Z"),
            ("2026-08-02T11:30:00.000000001z", "2026-08-02T11:30:00.000000001Z"),
            ("2026-08-02T06:30:00-05:00", "2026-08-02T11:30:00Z"),
            ("1600-01-01", "1677-09-21T00:12:43.145224192Z"),
        ] {
            assert_eq!(parse(name).as_deref(), Ok(moment), "{name}");
        }
    }

    #[test]
    fn a_zone_that_changes_its_clock_has_one_moment_for_each_time() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for (name, moment) in [
            ("2026-01-15T12:00", "2026-01-15T11:00:00Z"),
            ("2026-07-15T12:00", "2026-07-15T10:00:00Z"),
            ("2026-03-29T02:30", "2026-03-29T01:30:00Z"),
            ("2025-10-26T02:30", "2025-10-26T00:30:00Z"),
        ] {
            assert_eq!(parse_in(name, &berlin).as_deref(), Ok(moment), "{name}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_other_names() {
        for name in [
            "",
            "-",
            "-m",
            "-10",
            "-10y",
            "-1.5h",
            "--1h",
            "-1h30m",
            "10m",
            "+1h",
            "yesterday",
            "12:00",
            "20260802",
            "2026-8-2",
            "-99999999999999999999s",
            "-9223372036854775807w",
            "\u{e4}",
        ] {
            let Err(TimeNameError::Unknown { name: told }) = parse(name) else {
                panic!("{name} is understood: {:?}", parse(name));
            };
            assert_eq!(told, name.as_bytes().escape_ascii().to_string());
        }
        for name in [
            "2026-13-01",
            "2026-02-30",
            "2026-08-02T25:00",
            "2026-08-02T12:00:00+99:00",
            "2026-08-02Tnoon",
            "2026-08-02 ",
            "-9223372036854775807s",
        ] {
            assert!(matches!(parse(name), Err(TimeNameError::Invalid { .. })), "{name}");
        }
        for name in ["2026-08-03", "2026-08-02T14:00:01", "2026-08-02T12:00:00.000000001Z"] {
            assert!(matches!(parse(name), Err(TimeNameError::Future { .. })), "{name}");
        }
        assert!(parse("-10y").unwrap_err().to_string().contains("use 2026-08-02"));
    }

    proptest! {
        #[test]
        fn no_name_is_a_panic(name in "[-+0-9TZz:. smhdwn\u{e4}\u{20ac}]{0,30}", bytes: Vec<u8>) {
            drop(parse(&name));
            drop(parse_time_name(&bytes, NOW.parse().unwrap(), &TimeZone::UTC));
        }

        #[test]
        fn every_moment_of_the_past_has_its_rfc_3339_name(time in any::<u32>()) {
            let moment = Timestamp::from_second(i64::from(time)).unwrap();
            if moment <= NOW.parse().unwrap() {
                assert_eq!(parse(&moment.to_string()), Ok(moment.to_string()));
            }
        }
    }
}
