//! The bounded way of the pokes to the thread that performs them.
//!
//! The pokes of a revision wait until the kernel has forgotten what was before it
//! ([`Queue::release`]): whoever reads a file because of an event reads what is new. What comes while
//! the queue is full is not queued; the kernel's caches are true without it.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

use super::poke::Poke;

/// As many as inotify itself keeps for a watcher that does not read (`max_queued_events`).
pub(crate) const POKES_MAX: usize = 16_384;

#[derive(Debug, Default)]
struct Waiting {
    pokes: VecDeque<(u64, Poke)>,
    batches: u64,
    released: u64,
    closed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

impl Queue {
    /// Queues the pokes of one revision; returns the batch's number and how many had no room.
    pub(crate) fn put(&self, pokes: Vec<Poke>) -> (u64, usize) {
        let mut waiting = self.waiting.lock();
        waiting.batches += 1;
        let number = waiting.batches;
        let room = if waiting.closed { 0 } else { POKES_MAX - waiting.pokes.len() };
        let lost = pokes.len().saturating_sub(room);
        waiting.pokes.extend(pokes.into_iter().take(room).map(|poke| (number, poke)));
        (number, lost)
    }

    /// The kernel was told of everything up to this batch.
    pub(crate) fn release(&self, number: u64) {
        let mut waiting = self.waiting.lock();
        waiting.released = waiting.released.max(number);
        self.filled.notify_one();
    }

    /// The next poke, when there is one; `None` at the end.
    pub(crate) fn take(&self) -> Option<Poke> {
        let mut waiting = self.waiting.lock();
        loop {
            if waiting.closed {
                return None;
            }
            let released = waiting.released;
            if let Some((_, poke)) = waiting.pokes.pop_front_if(|(number, _)| *number <= released) {
                return Some(poke);
            }
            self.filled.wait(&mut waiting);
        }
    }

    /// Ends it; what waits is dropped.
    pub(crate) fn close(&self) {
        let mut waiting = self.waiting.lock();
        waiting.closed = true;
        waiting.pokes.clear();
        self.filled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::{POKES_MAX, Queue};
    use crate::events::poke::{Action, Poke, Spot};
    use crate::path::DirectoryKey;

    fn poke(name: &'static str) -> Poke {
        let at = Spot { directory: DirectoryKey::default(), name: name.into() };
        Poke { action: Action::MakeDirectory, at, subject: None }
    }

    #[test]
    fn pokes_wait_for_their_notices_and_keep_their_order() {
        let queue = Queue::default();
        let (first, _) = queue.put(vec![poke("a"), poke("b")]);
        let (second, _) = queue.put(vec![poke("c")]);
        queue.release(second);
        queue.release(first);
        let taken: Vec<_> = (0..3).map(|_| queue.take()).collect();
        assert_eq!(taken, [Some(poke("a")), Some(poke("b")), Some(poke("c"))]);
        queue.put(vec![poke("d")]);
        queue.close();
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn what_has_no_room_is_counted() {
        let queue = Queue::default();
        let many = vec![poke("a"); POKES_MAX + 2];
        assert_eq!(queue.put(many).1, 2);
        assert_eq!(queue.put(vec![poke("b")]).1, 1);
    }
}
