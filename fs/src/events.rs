//! Events of changes made elsewhere, for programs that wait with inotify.
//!
//! The kernel raises events for what goes through it, and for nothing that it is told to forget. So a
//! thread of this mount, the *poker*, repeats each change on a detached clone of the mount, and the
//! operations that reach this process that way are answered as if they were done ([`answers`]). Nothing
//! is done: no poke reaches the key space, and all that the kernel learns by one it may not keep.
//! Whether its caches are true never depends on a poke; [`crate::coherence`] sees to that before.
//!
//! The way of a change: `coherence` is told of a revision; [`translate`] makes pokes of it, where the
//! kernel knows the directory or the file; they wait in a bounded [`queue`] until the notifier has told
//! the kernel to forget what was; the [`poker`] performs them, one after the other. A request is the
//! poker's if it comes from its thread, and it is answered as a poke only if it is what the present
//! [`Attempt`] must send; everything else that would change something is refused to that thread.

pub(crate) mod answers;
mod plain;
pub(crate) mod poke;
pub(crate) mod poker;
mod queue;
mod system;
mod translate;
mod watched;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use fuser::FileType;
use parking_lot::Mutex;

use self::poke::{Action, Poke};
use self::queue::Queue;
use crate::inode_number::Numbering;
use crate::path::DirectoryKey;

/// The handle of each file that the poker opens.
pub(crate) const POKER_HANDLE: u64 = u64::MAX;

/// What the poker is about to ask the kernel for.
#[derive(Debug)]
struct Attempt {
    poke: Poke,
    parent: u64,
    to_parent: Option<u64>,
    /// The names whose LOOKUP was answered in this attempt: what the kernel holds under them is what it
    /// was told then.
    at_seen: bool,
    to_seen: bool,
}

/// What a name that the poker looks up is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sought {
    /// Not what the poke is about: a directory on the way.
    Other,
    /// It is about to be made, or free.
    Absent,
    /// What was there before, known by this number or made up.
    Before(Option<u64>, FileType),
    /// What is there.
    Present(FileType),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Events {
    is_on: AtomicBool,
    /// The poker's thread; 0 if there is none, and no request is from it.
    thread: AtomicU32,
    attempt: Mutex<Option<Attempt>>,
    queue: Queue,
    made_up: AtomicU64,
    raised: AtomicU64,
    lost: AtomicU64,
}

impl Events {
    /// Whether changes made elsewhere raise events.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Acquire)
    }

    /// Changes repeated, and those that should have been and could not.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.raised.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed))
    }

    /// Whether a request of this thread is the poker's.
    pub(crate) fn is_poker(&self, thread: u32) -> bool {
        thread != 0 && thread == self.thread.load(Ordering::Acquire)
    }

    /// Queues pokes; they are performed after [`Self::release`] of the number returned.
    pub(crate) fn queue(&self, pokes: Vec<Poke>) -> u64 {
        let (number, lost) = self.queue.put(pokes);
        self.lost.fetch_add(u64::try_from(lost).unwrap_or(u64::MAX), Ordering::Relaxed);
        number
    }

    /// The kernel has forgotten what was before the pokes of this batch.
    pub(crate) fn release(&self, batch: u64) {
        self.queue.release(batch);
    }

    /// Ends the poker, and with it the clone of the mount.
    pub(crate) fn close(&self) {
        self.is_on.store(false, Ordering::Release);
        self.queue.close();
    }

    /// A number for a node that only a poke knows.
    fn make_up(&self) -> u64 {
        Numbering::made_up(self.made_up.fetch_add(1, Ordering::Relaxed))
    }

    fn begin(&self, poke: &Poke, parent: u64, to_parent: Option<u64>) {
        let (poke, at_seen, to_seen) = (poke.clone(), false, false);
        *self.attempt.lock() = Some(Attempt { poke, parent, to_parent, at_seen, to_seen });
    }

    fn end(&self) {
        *self.attempt.lock() = None;
    }

    /// What the poke under way is about.
    fn kind_under_way(&self) -> Option<FileType> {
        self.attempt.lock().as_ref().map(|attempt| attempt.poke.kind())
    }

    fn removes_under_way(&self, directory: &DirectoryKey) -> bool {
        let attempt = self.attempt.lock();
        let action = attempt.as_ref().map(|attempt| &attempt.poke.action);
        matches!(action, Some(Action::RemoveDirectory(own)) if own == directory)
    }

    /// The poker looks a name up.
    fn seek(&self, parent: u64, name: &[u8]) -> Sought {
        let mut attempt = self.attempt.lock();
        let Some(attempt) = attempt.as_mut() else { return Sought::Other };
        let poke = &attempt.poke;
        if attempt.to_parent == Some(parent)
            && let Action::Rename { to, kind, replaced } = &poke.action
            && to.name == name
        {
            attempt.to_seen = true;
            return match replaced {
                Some(_) => Sought::Before(*replaced, *kind),
                None => Sought::Absent,
            };
        }
        if attempt.parent != parent || poke.at.name != name {
            return Sought::Other;
        }
        attempt.at_seen = true;
        match &poke.action {
            _ if poke.creates() => Sought::Absent,
            Action::Remove(_) | Action::RemoveDirectory(_) | Action::Rename { .. } => {
                Sought::Before(poke.subject, poke.kind())
            }
            Action::Write { .. }
            | Action::Symlink
            | Action::MakeDirectory
            | Action::Attributes(_) => Sought::Present(poke.kind()),
        }
    }

    /// The poke under way, if it is about this name and `is_it` says that it is such a one.
    fn expected(
        &self,
        parent: u64,
        name: &[u8],
        is_it: impl FnOnce(&Attempt) -> bool,
    ) -> Option<Poke> {
        let attempt = self.attempt.lock();
        let attempt = attempt.as_ref()?;
        let is_here = attempt.parent == parent && attempt.poke.at.name == name;
        (is_here && is_it(attempt)).then(|| attempt.poke.clone())
    }
}

#[cfg(test)]
mod tests {
    //! Only what an attempt must send is taken for it.

    use fuser::FileType;

    use super::poke::{Action, Poke, Spot};
    use super::{Events, Sought};
    use crate::inode_number::Numbering;
    use crate::path::DirectoryKey;

    fn spot(name: &'static str) -> Spot {
        Spot { directory: DirectoryKey::default(), name: name.into() }
    }

    #[test]
    fn a_name_is_what_the_poke_says_until_it_ends() {
        let events = Events::default();
        assert_eq!(events.seek(1, b"a"), Sought::Other);
        let kind = FileType::RegularFile;
        let action = Action::Rename { to: spot("b"), kind, replaced: None };
        let poke = Poke { action, at: spot("a"), subject: Some(7) };
        events.begin(&poke, 1, Some(1));
        assert_eq!(events.expected(1, b"a", |attempt| attempt.at_seen), None);
        assert_eq!(events.seek(1, b"a"), Sought::Before(Some(7), kind));
        assert_eq!(events.seek(1, b"b"), Sought::Absent);
        assert_eq!(events.seek(2, b"a"), Sought::Other);
        assert_eq!(events.seek(1, b"c"), Sought::Other);
        let both = events.expected(1, b"a", |attempt| attempt.at_seen && attempt.to_seen);
        assert_eq!(both, Some(poke));
        assert_eq!(events.expected(1, b"b", |_| true), None);
        events.end();
        assert_eq!(events.seek(1, b"a"), Sought::Other);
    }

    #[test]
    fn what_is_made_up_is_in_no_transaction_and_nothing_of_one_is_made_up() {
        let events = Events::default();
        for _ in 0..3 {
            let ino = events.make_up();
            assert!(Numbering::is_made_up(ino));
            assert_eq!(Numbering::transaction_of(ino), None, "{ino:x}");
        }
        for number in [0, 1, Numbering::TRANSACTIONS - 1] {
            let own = Numbering::of_transaction(number);
            assert!(
                !Numbering::is_made_up(own.root()) && !Numbering::is_made_up(own.number(u64::MAX))
            );
        }
    }

    #[test]
    fn no_request_is_the_pokers_while_there_is_none() {
        assert!(!Events::default().is_poker(0));
        assert!(!Events::default().is_poker(1));
    }
}
