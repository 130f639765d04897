//! The same trouble with the same peer is told once in a while: it comes again many times a second.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Between two lines of the log about the same trouble.
const INTERVAL: Duration = Duration::from_secs(10);

/// Troubles that are remembered: strangers must not fill the memory, nor the log.
const REMEMBERED_MAX: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Complaints(Mutex<HashMap<String, Instant>>);

impl Complaints {
    /// Whether it was not told just now: then it is to be told.
    pub(super) fn is_news(&self, trouble: &str) -> bool {
        let now = Instant::now();
        let mut told = self.0.lock();
        told.retain(|_, last| now.duration_since(*last) < INTERVAL);
        if told.contains_key(trouble) || told.len() >= REMEMBERED_MAX {
            return false;
        }
        told.insert(trouble.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{Complaints, REMEMBERED_MAX};

    #[test]
    fn each_trouble_is_told_once_and_there_are_not_too_many() {
        let complaints = Complaints::default();
        assert!(complaints.is_news("one") && complaints.is_news("another"));
        assert!(!complaints.is_news("one"));
        let told = (0..1_000).filter(|number| complaints.is_news(&number.to_string())).count();
        assert_eq!(told, REMEMBERED_MAX - 2);
    }
}
