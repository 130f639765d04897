//! What can go wrong, as the user meets it.
//!
//! A [`Failure`] has a kind (which decides the exit code and is the word of `--json`), one sentence
//! that names the flag, path or key with its value and bound, the chain of causes, and hints: the
//! next step. It is printed once, by `main`.
//!
//! | exit code | kind | meaning |
//! | --- | --- | --- |
//! | 0 | | done |
//! | 1 | `not-found` | the key, path or mount does not exist (also: `diff --exit-code` found a difference) |
//! | 1 | `failure` | the operation failed; nothing was changed unless the message says so |
//! | 2 | `usage` | the command line is wrong |
//! | 3 | `conflict` | a condition (`--if-absent`, `--if-rev`, an empty directory, a free lock) does not hold |
//! | 4 | `unreachable` | no node was found or it does not answer; nothing was changed |
//! | 5 | `outcome-unknown` | the change was sent, and whether it happened is not known |
//! | 6 | `removed` | this member was removed from its cluster for ever |
//! | 141 | | the reader of our output went away, as for any program in a pipe |

use std::fmt::Write as _;
use std::io;

use revfs_api::keyspace;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    NotFound,
    Failure,
    Usage,
    Conflict,
    Unreachable,
    OutcomeUnknown,
    /// This member was removed from its cluster.
    Removed,
    /// `diff --exit-code` found a difference: end without a word.
    Differs,
    /// Whoever read our standard output closed it: end without a word.
    BrokenPipe,
}

impl Kind {
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::NotFound | Self::Failure | Self::Differs => 1,
            Self::Usage => 2,
            Self::Conflict => 3,
            Self::Unreachable => 4,
            Self::OutcomeUnknown => 5,
            Self::Removed => 6,
            Self::BrokenPipe => 141,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::Failure => "failure",
            Self::Usage => "usage",
            Self::Conflict => "conflict",
            Self::Unreachable => "unreachable",
            Self::OutcomeUnknown => "outcome-unknown",
            Self::Removed => "removed",
            Self::Differs => "differs",
            Self::BrokenPipe => "broken-pipe",
        }
    }

    /// Whether the exit code says it all.
    pub(crate) fn is_silent(self) -> bool {
        matches!(self, Self::Differs | Self::BrokenPipe)
    }
}

#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    message: String,
    causes: Vec<String>,
    hints: Vec<String>,
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), hints: Vec::new() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// The operation failed because of `cause`; the whole chain below it is kept.
    pub(crate) fn caused(message: impl Into<String>, cause: &dyn std::error::Error) -> Self {
        let mut failure = Self::new(Kind::Failure, message);
        failure.push_causes(cause);
        failure
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    #[must_use]
    pub(crate) fn because(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    #[must_use]
    pub(crate) fn of_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    fn push_causes(&mut self, cause: &dyn std::error::Error) {
        let mut next = Some(cause);
        while let Some(error) = next {
            let text = error.to_string();
            // A transparent wrapper says the same as what it wraps.
            if self.causes.last() != Some(&text) {
                self.causes.push(text);
            }
            next = error.source();
        }
    }

    /// For people: the sentence, its causes and the hints.
    pub(crate) fn render(&self) -> String {
        let mut text = format!("revfs: {}\n", self.message);
        for cause in &self.causes {
            writeln!(text, "  because: {cause}").expect("a String takes all");
        }
        for hint in &self.hints {
            writeln!(text, "  hint: {hint}").expect("a String takes all");
        }
        text
    }

    /// For programs: one line.
    pub(crate) fn render_json(&self) -> String {
        let error = serde_json::json!({
            "kind": self.kind.word(),
            "exit_code": self.kind.exit_code(),
            "message": self.message,
            "causes": self.causes,
            "hints": self.hints,
        });
        format!("{}\n", serde_json::json!({ "error": error }))
    }
}

/// Output to a terminal or pipe failed.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Kind::BrokenPipe, "the reader of the output went away");
        }
        Self::caused("cannot write the output", &error)
    }
}

/// Adds to an answer of the key space what was asked for.
pub(crate) trait Asked<T> {
    /// `what` completes the sentence "cannot …".
    fn asked(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Asked<T> for keyspace::Result<T> {
    fn asked(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| of_key_space(&error, &what()))
    }
}

fn of_key_space(error: &keyspace::Error, what: &str) -> Failure {
    use keyspace::Error as E;
    let (kind, hint) = match error {
        E::Compacted { compacted, .. } => (
            Kind::NotFound,
            format!(
                "the oldest revision that can be read is {compacted}; up's --keep sets how much history stays"
            ),
        ),
        E::Future { current, .. } => (Kind::NotFound, format!("name a revision up to {current}")),
        E::KeyTooLong { .. } => (Kind::Failure, "use a shorter key or path".to_owned()),
        E::ValueTooLarge { max, .. } => {
            (Kind::Failure, format!("split it into values of at most {max} bytes"))
        }
        E::TooBig { max, .. } => (
            Kind::Failure,
            format!(
                "do it in several steps of at most {max} each, for example one directory at a time"
            ),
        ),
        E::NoSpace { .. } => (
            Kind::Failure,
            "free space on the disk of the data directory; reading still works".to_owned(),
        ),
        E::Busy { .. } => (Kind::Failure, "nothing was changed: try again in a moment".to_owned()),
        E::NoQuorum { .. } => {
            (Kind::Unreachable, "see `revfs status`; reading still works".to_owned())
        }
        E::Denied { .. } => {
            (Kind::Failure, "ask for the permission, or use another user".to_owned())
        }
        E::Invalid(_) => (Kind::Failure, String::new()),
        E::OutcomeUnknown { .. } => (
            Kind::OutcomeUnknown,
            "look before you repeat it: `revfs log` shows whether it happened".to_owned(),
        ),
        E::Timeout(_) | E::Unavailable { .. } => (
            Kind::Unreachable,
            "is the node running? `revfs status` asks it; --endpoint names another".to_owned(),
        ),
        E::Unsupported(_) => {
            (Kind::Failure, "`revfs status` names the backend; a revfs node can do this".to_owned())
        }
        E::Closed { .. } => {
            (Kind::Failure, "start it again: revfs umount DIR, then revfs up DIR".to_owned())
        }
    };
    let mut failure = Failure::caused(format!("cannot {what}"), error);
    failure.kind = kind;
    if hint.is_empty() { failure } else { failure.hint(hint) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use revfs_api::keyspace::Revision;

    #[test]
    fn a_failure_shows_the_sentence_its_causes_and_the_next_step() {
        let refused = keyspace::Error::Future { requested: Revision(9), current: Revision(4) };
        let failure = Err::<(), _>(refused).asked(|| "read /a".to_owned()).unwrap_err();
        assert_eq!(failure.kind.exit_code(), 1);
        assert_eq!(
            failure.render(),
            "revfs: cannot read /a\n  because: revision 9 is in the future: the current one is 4\n  \
             hint: name a revision up to 4\n"
        );
        let json: serde_json::Value = serde_json::from_str(&failure.render_json()).unwrap();
        assert_eq!(json["error"]["kind"], "not-found");
        assert_eq!(json["error"]["hints"][0], "name a revision up to 4");
    }

    #[test]
    fn a_closed_pipe_is_not_an_error_worth_a_word() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(failure.kind, Kind::BrokenPipe);
        assert_eq!(failure.kind.exit_code(), 141);
    }
}
