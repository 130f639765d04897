//! A point of history as the user names it: a revision, a time, or now.

use revfs_api::KeySpace;
use revfs_api::keyspace::Revision;

use crate::error::{Asked as _, Failure, Result};

/// Before it is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Now,
    Revision(Revision),
    /// As written, without the `@`.
    Time(String),
}

/// `--rev` and `--time` of the commands that read.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct At {
    /// As of revision N
    #[arg(long, value_name = "N", value_parser = parse_revision)]
    pub(crate) rev: Option<u64>,

    /// As of a time: 2026-11-22T10:00:00Z, 2026-11-22, -10m, -2h, -7d
    #[arg(long, value_name = "T", conflicts_with = "rev", allow_hyphen_values = true)]
    pub(crate) time: Option<String>,
}

impl At {
    pub(crate) fn moment(&self) -> Moment {
        match (self.rev, &self.time) {
            (Some(revision), _) => Moment::Revision(Revision(revision)),
            (None, Some(time)) => Moment::Time(time.strip_prefix('@').unwrap_or(time).to_owned()),
            (None, None) => Moment::Now,
        }
    }
}

pub(crate) fn parse_revision(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) => Err("revisions begin at 1".to_owned()),
        Ok(revision) => Ok(revision),
        Err(_) => Err("a revision is a whole number from 1".to_owned()),
    }
}

impl Moment {
    /// Empty = now, digits = a revision, anything else (with or without `@`) = a time.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::Now);
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let revision = parse_revision(text)
                .map_err(|reason| Failure::usage(format!("revision '{text}': {reason}")))?;
            return Ok(Self::Revision(Revision(revision)));
        }
        Ok(Self::Time(text.strip_prefix('@').unwrap_or(text).to_owned()))
    }

    /// `A..B`; one without `..` means from there to now.
    pub(crate) fn parse_span(text: &str) -> Result<(Self, Self)> {
        let (from, to) = text.split_once("..").unwrap_or((text, ""));
        if from.is_empty() && to.is_empty() {
            return Err(Failure::usage(format!("'{text}' names no revision")).hint(
                "A..B: revisions (41..45), times (@-2h..@-1h), or one of them left out = now",
            ));
        }
        Ok((Self::parse(from)?, Self::parse(to)?))
    }

    /// The revision to read at; [`Revision::NONE`] for now.
    pub(crate) async fn revision(&self, keys: &dyn KeySpace) -> Result<Revision> {
        match self {
            Self::Now => Ok(Revision::NONE),
            Self::Revision(revision) => Ok(*revision),
            Self::Time(text) => {
                let time = crate::names::time(text)?;
                keys.revision_at(time).await.asked(|| format!("find the revision at '{text}'"))
            }
        }
    }

    /// As [`Self::revision`], with the current revision's number for now.
    pub(crate) async fn fixed_revision(&self, keys: &dyn KeySpace) -> Result<Revision> {
        match self.revision(keys).await? {
            Revision::NONE => current(keys).await,
            revision => Ok(revision),
        }
    }
}

pub(crate) async fn current(keys: &dyn KeySpace) -> Result<Revision> {
    let answer = keys.read(Revision::NONE, Vec::new()).await;
    Ok(answer.asked(|| "ask for the current revision".to_owned())?.current)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revision(number: u64) -> Moment {
        Moment::Revision(Revision(number))
    }

    #[test]
    fn spans_take_revisions_times_and_now() {
        let time = |text: &str| Moment::Time(text.to_owned());
        let span = |text: &str| Moment::parse_span(text).unwrap();
        assert_eq!(span("41..45"), (revision(41), revision(45)));
        assert_eq!(span("41.."), (revision(41), Moment::Now));
        assert_eq!(span("41"), (revision(41), Moment::Now));
        assert_eq!(span("..41"), (Moment::Now, revision(41)));
        assert_eq!(span("@-2h..@2026-01-02"), (time("-2h"), time("2026-01-02")));
        assert_eq!(Moment::parse_span("..").unwrap_err().kind, crate::error::Kind::Usage);
    }

    #[test]
    fn revision_nought_and_numbers_beyond_64_bits_are_refused() {
        assert!(Moment::parse("0").is_err());
        assert!(Moment::parse("99999999999999999999").is_err());
    }
}
