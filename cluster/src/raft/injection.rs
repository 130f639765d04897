//! For tests: has a proposal end in one of the ways in which openraft ends them, in place of what openraft
//! would have answered. A proposal is known by a word in its command, so that nothing is struck that the node
//! proposes by itself.

use std::sync::Arc;

use openraft::errors::{ClientWriteError, Fatal, ForwardToLeader, RaftError};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::core::Written;

/// How a proposal ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Refused before anything was appended.
    ForwardToLeader,
    /// Another leader has overwritten the entry here.
    LogEntryDiscarded,
    /// Replication has ended, or whoever was to answer is gone: openraft says the same of both.
    Stopped,
    Panicked,
    /// It does not, until [`Injected::break_silence`].
    Silence,
}

/// Whether openraft hears of the proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    /// It has been applied.
    After,
}

#[derive(Clone, Debug)]
struct Planned {
    word: String,
    when: When,
    ending: Ending,
    /// What came of it: `None` as long as nobody proposed it here; else whether it was applied.
    was_applied: Option<bool>,
}

/// What is to become of the proposals of one member.
#[derive(Clone, Default)]
pub(crate) struct Injected {
    planned: Arc<Mutex<Vec<Planned>>>,
    silence: Arc<Notify>,
}

/// What is to become of one proposal.
pub(super) struct Injection {
    of: Injected,
    plan: Planned,
}

impl Injected {
    pub(crate) fn plan(&self, word: &str, when: When, ending: Ending) {
        let word = word.to_owned();
        self.planned.lock().push(Planned { word, when, ending, was_applied: None });
    }

    /// What came of the plan: `None` if it was not proposed here; else whether it was applied before it ended.
    pub(crate) fn outcome(&self, word: &str) -> Option<bool> {
        self.planned.lock().iter().find(|plan| plan.word == word)?.was_applied
    }

    pub(crate) fn break_silence(&self) {
        self.silence.notify_waiters();
    }

    /// A plan strikes once: what is proposed again is openraft's.
    pub(super) fn of(&self, command: &[u8]) -> Option<Injection> {
        let holds = |word: &str| command.windows(word.len()).any(|part| part == word.as_bytes());
        let mut planned = self.planned.lock();
        let open = |plan: &&mut Planned| plan.was_applied.is_none() && holds(&plan.word);
        let plan = planned.iter_mut().find(open)?;
        plan.was_applied = Some(false);
        Some(Injection { of: self.clone(), plan: plan.clone() })
    }
}

impl Injection {
    pub(super) async fn instead_of(self, written: impl Future<Output = Written>) -> Written {
        let silence = self.of.silence.notified();
        if self.plan.when == When::After {
            // What really went wrong is told as it is.
            written.await?;
            let mut planned = self.of.planned.lock();
            for plan in planned.iter_mut().filter(|plan| plan.word == self.plan.word) {
                plan.was_applied = Some(true);
            }
        }
        let forward = ForwardToLeader::empty;
        let fatal = |fatal: Fatal<_>| Err(RaftError::Fatal(fatal));
        let refused = |error: ClientWriteError<_>| Err(RaftError::APIError(error));
        match self.plan.ending {
            Ending::ForwardToLeader => refused(ClientWriteError::ForwardToLeader(forward())),
            Ending::LogEntryDiscarded => refused(ClientWriteError::LogEntryDiscarded(forward())),
            Ending::Stopped => fatal(Fatal::Stopped),
            Ending::Panicked => fatal(Fatal::Panicked),
            Ending::Silence => {
                silence.await;
                fatal(Fatal::Stopped)
            }
        }
    }
}
