//! Bytes whose commit was refused: kept in memory for an hour, so that their owner can fetch them
//! from `@history/NAME/refused-TIME`.
//!
//! Bounded in number, bytes and age; the oldest goes first. What is dropped here was never promised
//! to anybody: the error was.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use revfs_api::keyspace::Time;

use crate::attributes::Attributes;

/// How long a refused copy stays readable.
pub const KEPT_FOR: Duration = Duration::from_secs(3600);

/// Four files of the largest size; many more of the usual ones.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// A program that is refused in a loop must not fill memory with empty copies.
const COPIES_MAX: usize = 1024;

/// What a file would have become.
#[derive(Clone, Debug)]
pub struct RefusedCopy {
    pub key: Bytes,
    /// When it was refused; unique among the copies of one key.
    pub time: Time,
    pub bytes: Arc<Vec<u8>>,
    /// Owner and mode say who may read the copy.
    pub attributes: Attributes,
}

#[derive(Debug, Default)]
pub struct RefusedCopies {
    copies: Mutex<VecDeque<(Instant, RefusedCopy)>>,
}

impl RefusedCopies {
    /// Keeps a copy; returns the time by which it is found.
    pub(crate) fn keep(&self, mut copy: RefusedCopy, now: Instant) -> Time {
        let mut copies = self.copies.lock();
        while copies.iter().any(|(_, kept)| kept.key == copy.key && kept.time == copy.time) {
            copy.time.0 += 1;
        }
        let time = copy.time;
        copies.push_back((now, copy));
        let mut bytes: usize = copies.iter().map(|(_, kept)| kept.bytes.len()).sum();
        while bytes > BYTES_MAX || copies.len() > COPIES_MAX {
            let Some((_, oldest)) = copies.pop_front() else { break };
            bytes -= oldest.bytes.len();
        }
        drop_expired(&mut copies, now);
        time
    }

    /// The times of the refused copies of `key`, oldest first.
    #[must_use]
    pub fn list(&self, key: &[u8]) -> Vec<Time> {
        self.list_at(key, Instant::now())
    }

    #[must_use]
    pub fn get(&self, key: &[u8], time: Time) -> Option<RefusedCopy> {
        self.get_at(key, time, Instant::now())
    }

    fn list_at(&self, key: &[u8], now: Instant) -> Vec<Time> {
        let mut copies = self.copies.lock();
        drop_expired(&mut copies, now);
        copies.iter().filter(|(_, kept)| kept.key == key).map(|(_, kept)| kept.time).collect()
    }

    fn get_at(&self, key: &[u8], time: Time, now: Instant) -> Option<RefusedCopy> {
        let mut copies = self.copies.lock();
        drop_expired(&mut copies, now);
        copies
            .iter()
            .find(|(_, kept)| kept.key == key && kept.time == time)
            .map(|(_, kept)| kept.clone())
    }
}

fn drop_expired(copies: &mut VecDeque<(Instant, RefusedCopy)>, now: Instant) {
    while copies.front().is_some_and(|(since, _)| now.duration_since(*since) >= KEPT_FOR) {
        copies.pop_front();
    }
}

#[cfg(test)]
mod tests {
    //! Copies are found by key and time until they are an hour old or too many.

    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use bytes::Bytes;
    use revfs_api::keyspace::Time;

    use super::{BYTES_MAX, COPIES_MAX, KEPT_FOR, RefusedCopies, RefusedCopy};
    use crate::attributes::{Attributes, Kind};

    fn copy(key: &'static str, time: i64, bytes: usize) -> RefusedCopy {
        RefusedCopy {
            key: Bytes::from(key),
            time: Time(time),
            bytes: Arc::new(vec![b'x'; bytes]),
            attributes: Attributes::new(Kind::File, 0o644),
        }
    }

    #[test]
    fn two_copies_of_one_moment_have_two_names() {
        let copies = RefusedCopies::default();
        let now = Instant::now();
        assert_eq!(copies.keep(copy("/a", 5, 1), now), Time(5));
        assert_eq!(copies.keep(copy("/a", 5, 2), now), Time(6));
        assert_eq!(copies.keep(copy("/b", 5, 3), now), Time(5));
        assert_eq!(copies.list_at(b"/a", now), [Time(5), Time(6)]);
        assert_eq!(copies.get_at(b"/a", Time(6), now).unwrap().bytes.len(), 2);
        assert!(copies.get_at(b"/a", Time(7), now).is_none());
    }

    #[test]
    fn an_hour_later_a_copy_is_gone() {
        let copies = RefusedCopies::default();
        let now = Instant::now();
        copies.keep(copy("/a", 1, 1), now);
        copies.keep(copy("/a", 2, 1), now + Duration::from_secs(1));
        assert_eq!(copies.list_at(b"/a", now + KEPT_FOR), [Time(2)]);
        assert!(copies.get_at(b"/a", Time(2), now + KEPT_FOR * 2).is_none());
    }

    #[test]
    fn the_oldest_make_room() {
        let copies = RefusedCopies::default();
        let now = Instant::now();
        for time in 0..5 {
            copies.keep(copy("/a", time, BYTES_MAX / 4), now);
        }
        assert_eq!(copies.list_at(b"/a", now), [Time(1), Time(2), Time(3), Time(4)]);
        for _ in 0..COPIES_MAX {
            copies.keep(copy("/b", 0, 0), now);
        }
        assert!(copies.list_at(b"/a", now).is_empty());
        assert_eq!(copies.list_at(b"/b", now).len(), COPIES_MAX);
    }
}
