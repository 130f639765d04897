//! How long a cluster that does not answer is asked again: neither for ever, nor in a hurry.
//!
//! Failures in a row are one *trouble*: it begins with the first of them, and is over when the destination
//! has acknowledged something, or both have been silent and well for a while.

use std::time::{Duration, Instant};

use super::MirrorError;
use crate::keyspace::Error;

/// Pauses before the next try: each is twice the one before.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A session that has followed for longer has ended a trouble, whether or not anything happened in it.
pub(super) const CALM: Duration = Duration::from_secs(10);

/// Bounds of one trouble, whichever is met first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    pub retries: u32,
    /// From the first failure on. A try that has begun is waited for.
    pub within: Duration,
}

impl Default for Patience {
    /// About the same: a hundred pauses are eight minutes, and tries take time as well.
    fn default() -> Self {
        Self { retries: 100, within: Duration::from_mins(10) }
    }
}

/// See the module.
pub(super) struct Trouble {
    patience: Patience,
    retries: u32,
    since: Option<Instant>,
    pause: Duration,
}

impl Trouble {
    pub(super) fn new(patience: Patience) -> Self {
        Self { patience, retries: 0, since: None, pause: PAUSE_MIN }
    }

    pub(super) fn is_over(&mut self) {
        *self = Self::new(self.patience);
    }

    /// How long to wait before the next try, after `error`.
    pub(super) fn pause(&mut self, error: Error) -> Result<Duration, MirrorError> {
        let waited = self.since.get_or_insert_with(Instant::now).elapsed();
        let left = self.patience.within.saturating_sub(waited);
        if self.retries >= self.patience.retries || left.is_zero() {
            return Err(MirrorError::GaveUp { retries: self.retries, waited, source: error });
        }
        self.retries += 1;
        let pause = self.pause.min(left);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(pause)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{PAUSE_MAX, PAUSE_MIN, Patience, Trouble};
    use crate::keyspace::Error;
    use crate::mirror::MirrorError;

    fn away() -> Error {
        Error::Unavailable { reason: "away".to_owned() }
    }

    #[test]
    fn retries_are_counted_until_the_trouble_is_over() {
        let patience = Patience { retries: 3, within: Duration::from_hours(1) };
        let mut trouble = Trouble::new(patience);
        for _ in 0..2 {
            let pauses = [0; 3].map(|_| trouble.pause(away()).unwrap());
            assert_eq!(pauses, [1, 2, 4].map(|times| PAUSE_MIN * times));
            trouble.is_over();
        }
        let many = Patience { retries: 30, ..patience };
        let mut trouble = Trouble::new(many);
        let last = (0..30).map(|_| trouble.pause(away()).unwrap()).last();
        assert_eq!(last, Some(PAUSE_MAX));
        let error = trouble.pause(away()).unwrap_err();
        assert!(matches!(error, MirrorError::GaveUp { retries: 30, .. }), "{error}");
    }

    #[test]
    fn the_deadline_ends_it_too_and_no_pause_goes_beyond_it() {
        let within = Duration::from_millis(50);
        let mut trouble = Trouble::new(Patience { retries: u32::MAX, within });
        assert!(trouble.pause(away()).unwrap() <= within);
        let mut trouble = Trouble::new(Patience { retries: 5, within: Duration::ZERO });
        let error = trouble.pause(away()).unwrap_err();
        assert!(error.to_string().contains("after 0 retries"), "{error}");
    }
}
