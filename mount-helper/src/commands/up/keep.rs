//! How long history is kept, as the user says it.
//!
//! What was said last is remembered in the data directory (`revfs.keep`, the text of `--keep`), and
//! holds until something else is said: an `up` without the option forgets no more than the one before.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Failure, Result};

/// The file in the data directory.
const FILE: &str = "revfs.keep";

/// If nothing was ever said.
const DEFAULT: Keep = Keep::For(Duration::from_secs(30 * 86_400));

/// Seconds of each unit, the largest first.
const UNITS: [(char, u64); 5] =
    [('w', 7 * 86_400), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

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

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let wrong = || "an age is a number with s, m, h, d or w after it (30d), or all".to_owned();
        let unit = text.chars().last().ok_or_else(wrong)?;
        let unit = UNITS.iter().find(|(name, _)| *name == unit);
        let (_, unit_seconds) = unit.ok_or_else(wrong)?;
        let number = &text[..text.len() - 1];
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = number.parse().ok().filter(|_| is_number).ok_or_else(wrong)?;
        let seconds = number.checked_mul(*unit_seconds).filter(|seconds| *seconds <= SECONDS_MAX);
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

impl fmt::Display for Keep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::For(age) = self else { return formatter.write_str("all") };
        let seconds = age.as_secs();
        // Weeks are understood; days are what is shown.
        let mut units = UNITS.iter().skip(1);
        let (name, unit) =
            units.find(|(_, unit)| seconds.is_multiple_of(*unit)).unwrap_or(&('s', 1));
        write!(formatter, "{}{name}", seconds / unit)
    }
}

/// What holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) keep: Keep,
    /// What held until now, if it was something else.
    pub(super) before: Option<Keep>,
}

/// Settles what holds for a data directory and remembers it there. `asked` is `--keep`.
///
/// # Errors
/// If what is remembered cannot be read or written: then nothing may be forgotten.
pub(super) fn settle(asked: Option<Keep>, data_dir: &Path) -> Result<Kept> {
    let path = data_dir.join(FILE);
    let remembered = match fs::read_to_string(&path) {
        Ok(text) => {
            let keep = text.trim_end().parse::<Keep>().map_err(|reason| {
                Failure::usage(format!("'{}' holds {text:?}: {reason}", path.display()))
                    .hint("say how long history is kept: write 30d, or all, into that file")
            })?;
            Some(keep)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            return Err(Failure::caused(format!("cannot read '{}'", path.display()), &error));
        }
    };
    let keep = asked.or(remembered).unwrap_or(DEFAULT);
    if remembered != Some(keep) {
        remember(keep, &path).map_err(|error| {
            Failure::caused(format!("cannot write '{}'", path.display()), &error)
        })?;
    }
    Ok(Kept { keep, before: remembered.filter(|before| *before != keep) })
}

/// The file is replaced whole: a crash leaves the old text or the new one.
fn remember(keep: Keep, path: &Path) -> io::Result<()> {
    let new = path.with_extension("keep.new");
    let mut file = File::create(&new)?;
    writeln!(file, "{keep}")?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_last_holds_until_something_else_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let settle = |asked: Option<&str>| {
            let asked = asked.map(|text| text.parse().unwrap());
            let kept = settle(asked, directory.path()).unwrap();
            (kept.keep.to_string(), kept.before.map(|before| before.to_string()))
        };
        let said = |keep: &str, before: Option<&str>| (keep.to_owned(), before.map(str::to_owned));
        assert_eq!(settle(None), said("30d", None));
        assert_eq!(settle(Some("all")), said("all", Some("30d")));
        assert_eq!(settle(None), said("all", None));
        assert_eq!(settle(Some("2w")), said("14d", Some("all")));
        assert_eq!(settle(Some("14d")), said("14d", None));
        assert_eq!(settle(Some("90s")), said("90s", Some("14d")));
        assert_eq!(settle(None), said("90s", None));
    }

    #[test]
    fn a_damaged_memory_is_refused_rather_than_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        fs::write(&path, "").unwrap();
        let refused = settle(None, directory.path()).unwrap_err().render();
        assert!(refused.contains(FILE), "{refused}");
        assert_eq!(fs::read_to_string(path).unwrap(), "");
    }

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
