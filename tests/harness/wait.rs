//! Waiting for a state, never for a time.
//!
//! A test asks again and again whether the state that it needs has come, until a deadline. The pause
//! between two questions is the only sleep in the tests.

use std::time::{Duration, Instant};

/// Long enough for anything that happens at all on a loaded machine with two cores.
pub const LIMIT: Duration = Duration::from_secs(60);

const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(25);

/// Asks until there is an answer; `None` once `limit` has passed.
pub fn ask<T>(limit: Duration, mut question: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    let mut pause = PAUSE_MIN;
    loop {
        if let Some(answer) = question() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        poll_pause(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Asks until there is an answer.
///
/// # Panics
/// Once `limit` has passed, naming what was waited for.
pub fn until<T>(what: &str, limit: Duration, question: impl FnMut() -> Option<T>) -> T {
    ask(limit, question).unwrap_or_else(|| panic!("no {what} within {limit:?}"))
}

/// Waits until a condition holds.
///
/// # Panics
/// Once `limit` has passed, naming what was waited for.
pub fn until_true(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    until(what, limit, || condition().then_some(()));
}

fn poll_pause(pause: Duration) {
    std::thread::sleep(pause);
}

#[cfg(test)]
mod tests {
    use super::{ask, until_true};
    use std::time::Duration;

    #[test]
    fn an_answer_ends_the_wait() {
        let mut asked = 0;
        let answer = ask(Duration::from_secs(60), || {
            asked += 1;
            (asked == 3).then_some("third")
        });
        assert_eq!(answer, Some("third"));
    }

    #[test]
    fn the_deadline_ends_the_wait() {
        assert_eq!(ask(Duration::from_millis(5), || None::<()>), None);
    }

    #[test]
    #[should_panic(expected = "no dawn within 5ms")]
    fn a_missed_deadline_names_what_was_waited_for() {
        until_true("dawn", Duration::from_millis(5), || false);
    }
}
