//! What the kernel must forget, on its way to the thread that tells it.
//!
//! A notification waits for locks of the kernel that a request of the same mount may hold until it is
//! answered: sent by a FUSE worker it can deadlock. So nothing here waits for the notifier, except a
//! task that asks to ([`Notices::settled`]), and only the notifier thread talks to the kernel. A queue
//! that overflows is replaced by one notice: forget everything.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

/// Notices that wait at once; beyond it the kernel is told to forget everything, which costs less.
const NOTICES_MAX: usize = 65_536;

/// One thing that the kernel must forget.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// Pages and attributes of a file.
    Inode(u64),
    /// Attributes only.
    Attributes(u64),
    /// A name in a directory, also one that is known to be absent.
    Entry { parent: u64, name: Bytes },
    /// Waits until the answers to lookups in this directory that are under way have arrived in the
    /// kernel, so that what follows finds their inodes.
    Barrier { parent: u64 },
    /// All names, attributes and pages.
    Everything,
    /// Nothing: what came before has been acted on, and the events of this batch may be raised.
    Events(u64),
}

/// Who waits until a notice has been acted on.
#[derive(Debug)]
enum Waiter {
    Nobody,
    Task(oneshot::Sender<()>),
    /// A thread that must not awaken tasks, or be awakened by the means of theirs.
    Thread(mpsc::SyncSender<()>),
}

impl Waiter {
    fn is_somebody(&self) -> bool {
        !matches!(self, Self::Nobody)
    }

    fn tell(self) {
        match self {
            Self::Nobody => {}
            // An error means that nobody waits any more.
            Self::Task(done) => drop(done.send(())),
            Self::Thread(done) => drop(done.send(())),
        }
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(Notice, Waiter)>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
}

/// The bounded queue to the notifier thread.
#[derive(Clone, Debug, Default)]
pub struct Notices {
    shared: Arc<Shared>,
}

impl Notices {
    /// Queues a notice; never waits. A notifier that has ended (unmount) needs none.
    pub fn send(&self, notice: Notice) {
        self.push(notice, Waiter::Nobody);
    }

    /// Queues a notice and waits until the kernel has acted on it. Never to be called while a request
    /// waits that the kernel sent with a lock held on what the notice is about: of the requests that
    /// change a file, FLUSH, FSYNC and SETLK are safe.
    pub async fn settled(&self, notice: Notice) {
        let (done, settled) = oneshot::channel();
        self.push(notice, Waiter::Task(done));
        // An error means that the notifier has ended: the kernel knows nothing any more.
        settled.await.ok();
    }

    /// [`Self::settled`] for the thread that repeats changes.
    pub(crate) fn told(&self, notice: Notice) {
        let (done, told) = mpsc::sync_channel(1);
        self.push(notice, Waiter::Thread(done));
        told.recv().ok();
    }

    fn push(&self, notice: Notice, waiter: Waiter) {
        let mut queue = self.shared.queue.lock();
        if queue.closed {
            return;
        }
        if queue.waiting.len() >= NOTICES_MAX {
            // Those who wait learn that theirs is settled when the kernel has forgotten everything.
            let waiting = std::mem::take(&mut queue.waiting);
            queue.waiting.push_back((Notice::Everything, Waiter::Nobody));
            let with_waiter = waiting.into_iter().filter(|(_, waiter)| waiter.is_somebody());
            queue.waiting.extend(with_waiter);
        }
        queue.waiting.push_back((notice, waiter));
        self.shared.filled.notify_one();
    }

    /// Hands each notice to `tell`, in order, until [`Self::close`]: the whole life of the notifier
    /// thread.
    pub fn drain(&self, mut tell: impl FnMut(&Notice)) {
        loop {
            let (notice, waiter) = {
                let mut queue = self.shared.queue.lock();
                loop {
                    if queue.closed {
                        queue.waiting.clear();
                        return;
                    }
                    if let Some(first) = queue.waiting.pop_front() {
                        break first;
                    }
                    self.shared.filled.wait(&mut queue);
                }
            };
            tell(&notice);
            waiter.tell();
        }
    }

    /// Ends the notifier thread; what waits is dropped.
    pub fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.filled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::{NOTICES_MAX, Notice, Notices};

    #[test]
    fn an_overflowing_queue_becomes_one_notice() {
        let notices = Notices::default();
        for ino in 0..=NOTICES_MAX as u64 {
            notices.send(Notice::Inode(ino));
        }
        let mut told = Vec::new();
        let other = notices.clone();
        notices.drain(|notice| {
            told.push(notice.clone());
            if *notice == Notice::Inode(NOTICES_MAX as u64) {
                other.close();
            }
        });
        assert_eq!(told, [Notice::Everything, Notice::Inode(NOTICES_MAX as u64)]);
    }

    #[tokio::test]
    async fn one_that_waits_is_answered_when_it_was_told_or_the_notifier_ended() {
        let notices = Notices::default();
        let thread = std::thread::spawn({
            let notices = notices.clone();
            move || {
                let mut told = 0;
                notices.drain(|_| told += 1);
                told
            }
        });
        notices.settled(Notice::Inode(2)).await;
        notices.close();
        notices.settled(Notice::Inode(3)).await;
        assert_eq!(thread.join().expect("it does not panic"), 1);
    }
}
