//! How long history is kept, as the user says it.

use std::str::FromStr;
use std::time::Duration;

/// `--keep`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    All,
    For(Duration),
}

/// 10,000 years: far below where times overflow.
const SECONDS_MAX: u64 = 10_000 * 365 * 86_400;

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let wrong = || "an age is a number with s, m, h, d or w after it (30d), or all".to_owned();
        let unit = text.chars().last().ok_or_else(wrong)?;
        let unit_seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 24 * 3_600,
            'w' => 7 * 24 * 3_600,
            _ => return Err(wrong()),
        };
        let number = &text[..text.len() - 1];
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = number.parse().ok().filter(|_| is_number).ok_or_else(wrong)?;
        let seconds = number.checked_mul(unit_seconds).filter(|seconds| *seconds <= SECONDS_MAX);
        seconds
            .map(|seconds| Self::For(Duration::from_secs(seconds)))
            .ok_or_else(|| "that is longer than 10,000 years; all keeps everything".to_owned())
    }
}

impl Keep {
    /// `None` = for ever.
    pub(super) fn duration(self) -> Option<Duration> {
        match self {
            Self::All => None,
            Self::For(age) => Some(age),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_a_unit() {
        let keep = |text: &str| text.parse::<Keep>();
        assert_eq!(keep("30d"), Ok(Keep::For(Duration::from_secs(30 * 86_400))));
        assert_eq!(keep("2w"), Ok(Keep::For(Duration::from_secs(14 * 86_400))));
        assert_eq!(keep("90s"), Ok(Keep::For(Duration::from_secs(90))));
        assert_eq!(keep("all"), Ok(Keep::All));
        for wrong in ["", "30", "d", "-1d", "+1d", "1.5h", "30 d", "99999999999999999999d", "30µ"]
        {
            assert!(keep(wrong).is_err(), "{wrong}");
        }
        assert!(keep("99999999999999d").unwrap_err().contains("all"));
    }
}
