//! What apply and the watchers leave for the hub, and what the hub tells all of them.
//!
//! Nobody waits here for anybody: apply adds a revision or, if there is no room (or nobody watches),
//! only the word that there was one; the hub finds the rest in the store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::event::Published;
use super::watcher::Cell;
use super::{WatchOptions, WatchRequest, WatchStats};
use crate::error::{ReadError, StoreError};
use crate::types::Revision;

/// Identity of a watcher, never used again.
pub(super) type WatcherId = u64;

/// What a watcher's handle tells the hub.
pub(super) enum Message {
    Join {
        id: WatcherId,
        request: WatchRequest,
        cell: Arc<Cell>,
    },
    /// The buffer has room again.
    Resume(WatcherId),
    Leave(WatcherId),
}

#[derive(Default)]
struct Mail {
    messages: Vec<Message>,
    /// Applied revisions without a gap, as long as `is_accepting`.
    queue: VecDeque<Published>,
    queue_bytes: usize,
    is_accepting: bool,
    /// The newest applied revision, in the queue or not.
    newest: Revision,
    is_closing: bool,
    /// Why there is no hub any more.
    ended: Option<StoreError>,
}

/// What the hub takes at once.
pub(super) struct Taken {
    pub(super) messages: Vec<Message>,
    pub(super) queue: VecDeque<Published>,
    /// What follows the queue up to this revision was not accepted; the queue goes on behind it.
    pub(super) gap_to: Option<Revision>,
}

/// How the hub stands when it asks for work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// It has work of its own: it does not wait.
    pub(super) is_busy: bool,
    /// Somebody is to be given what is applied from now on.
    pub(super) needs_queue: bool,
    /// It still reads what lies before the queue, which therefore stays where it is.
    pub(super) has_gap: bool,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) watchers: AtomicUsize,
    pub(super) synced: AtomicUsize,
    pub(super) buffered_bytes: AtomicUsize,
    pub(super) delivered: AtomicU64,
    pub(super) visited: AtomicU64,
    pub(super) index_steps: AtomicU64,
    pub(super) revisions_read: AtomicU64,
    pub(super) versions_read: AtomicU64,
}

/// See the module.
pub(crate) struct Post {
    mail: Mutex<Mail>,
    arrived: Condvar,
    /// What `is_accepting` was when it was last changed: spares apply the making of events.
    is_wanted: AtomicBool,
    /// Each synced watcher was given everything up to this revision.
    position: AtomicU64,
    next_id: AtomicU64,
    pub(super) counters: Counters,
    pub(super) options: WatchOptions,
}

impl Post {
    pub(crate) fn new(options: WatchOptions, current: Revision) -> Self {
        Self {
            mail: Mutex::new(Mail { newest: current, ..Mail::default() }),
            arrived: Condvar::new(),
            is_wanted: AtomicBool::new(false),
            position: AtomicU64::new(current.0),
            next_id: AtomicU64::new(0),
            counters: Counters::default(),
            options,
        }
    }

    /// Whether apply should say what a revision changes.
    pub(crate) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    /// Hands over a revision that is visible. Only the applying thread calls this, in order.
    pub(crate) fn publish(&self, revision: Revision, published: Option<Published>) {
        let mut mail = self.mail.lock();
        mail.newest = revision;
        if !mail.is_accepting {
            return;
        }
        match published {
            Some(published) if mail.queue_bytes <= self.options.queue_bytes_max => {
                mail.queue_bytes += published.bytes;
                mail.queue.push_back(published);
            }
            _ => self.accept(&mut mail, false),
        }
        drop(mail);
        self.arrived.notify_one();
    }

    fn accept(&self, mail: &mut Mail, is_accepting: bool) {
        mail.is_accepting = is_accepting;
        self.is_wanted.store(is_accepting, Ordering::Relaxed);
    }

    /// # Errors
    /// The hub has ended.
    pub(super) fn join(&self, request: WatchRequest, cell: Arc<Cell>) -> Result<u64, ReadError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut mail = self.mail.lock();
        if let Some(ended) = &mail.ended {
            return Err(ReadError::Store(ended.clone()));
        }
        mail.messages.push(Message::Join { id, request, cell });
        drop(mail);
        self.arrived.notify_one();
        Ok(id)
    }

    pub(super) fn send(&self, message: Message) {
        let mut mail = self.mail.lock();
        if mail.ended.is_some() {
            return;
        }
        mail.messages.push(message);
        drop(mail);
        self.arrived.notify_one();
    }

    /// Waits for work; `None` when the store closes.
    pub(super) fn take(&self, standing: Standing) -> Option<Taken> {
        let mut mail = self.mail.lock();
        let may_take = !standing.has_gap;
        let has_work = |mail: &Mail| {
            let lost_track = standing.needs_queue && !mail.is_accepting;
            let has_queue = !mail.queue.is_empty() || lost_track;
            !mail.messages.is_empty() || (may_take && has_queue)
        };
        while !mail.is_closing && !standing.is_busy && !has_work(&mail) {
            self.arrived.wait(&mut mail);
        }
        if mail.is_closing {
            return None;
        }
        let messages = std::mem::take(&mut mail.messages);
        let mut taken = Taken { messages, queue: VecDeque::new(), gap_to: None };
        if !may_take {
            return Some(taken);
        }
        let comes_back = |message: &Message| !matches!(message, Message::Leave(_));
        let needs_queue = standing.needs_queue || taken.messages.iter().any(comes_back);
        taken.queue = std::mem::take(&mut mail.queue);
        mail.queue_bytes = 0;
        if needs_queue && !mail.is_accepting {
            taken.gap_to = Some(mail.newest);
        }
        self.accept(&mut mail, needs_queue);
        Some(taken)
    }

    /// Waits a while, unless the store closes; returns whether it closes.
    pub(super) fn pause(&self, duration: Duration) -> bool {
        let mut mail = self.mail.lock();
        self.arrived.wait_while_for(&mut mail, |mail| !mail.is_closing, duration);
        mail.is_closing
    }

    /// Has the hub end.
    pub(crate) fn close(&self) {
        self.mail.lock().is_closing = true;
        self.arrived.notify_all();
    }

    /// Refuses all watchers from now on; returns those that the hub has not seen.
    pub(super) fn end(&self, reason: &StoreError) -> Vec<Message> {
        let mut mail = self.mail.lock();
        mail.ended = Some(reason.clone());
        self.accept(&mut mail, false);
        mail.queue.clear();
        std::mem::take(&mut mail.messages)
    }

    pub(super) fn position(&self) -> Revision {
        Revision(self.position.load(Ordering::Acquire))
    }

    /// Only the hub calls this, after all buffers have what they get of `position`.
    pub(super) fn set_position(&self, position: Revision) {
        self.position.store(position.0, Ordering::Release);
    }

    pub(super) fn stats(&self) -> WatchStats {
        let counters = &self.counters;
        WatchStats {
            watchers: counters.watchers.load(Ordering::Relaxed),
            synced: counters.synced.load(Ordering::Relaxed),
            buffered_bytes: counters.buffered_bytes.load(Ordering::Relaxed),
            delivered: counters.delivered.load(Ordering::Relaxed),
            visited: counters.visited.load(Ordering::Relaxed),
            index_steps: counters.index_steps.load(Ordering::Relaxed),
            revisions_read: counters.revisions_read.load(Ordering::Relaxed),
            versions_read: counters.versions_read.load(Ordering::Relaxed),
        }
    }
}
