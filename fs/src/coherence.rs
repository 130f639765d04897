//! Keeps the kernel's caches true: changes made elsewhere become invalidations, sent by one thread of
//! its own (a notification from inside a handler deadlocks with the kernel's locks).

use std::sync::mpsc::SyncSender;

use bytes::Bytes;

/// One thing that the kernel must forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Pages and attributes of a file.
    Inode(u64),
    /// Attributes only.
    Attributes(u64),
    /// A name in a directory.
    Entry { parent: u64, name: Bytes },
}

/// The bounded queue to the notifier thread.
#[derive(Clone, Debug)]
pub struct Notices {
    queue: SyncSender<Notice>,
}

impl Notices {
    #[must_use]
    pub fn new(queue: SyncSender<Notice>) -> Self {
        Self { queue }
    }

    /// Queues a notice. A notifier that has ended (unmount) needs none.
    pub fn send(&self, notice: Notice) {
        self.queue.send(notice).ok();
    }
}
