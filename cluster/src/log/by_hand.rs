//! A log without threads, for the simulation: what is queued is written when the simulation says so, and what is
//! still queued at a crash is lost. Whoever blocks until something is durable has it written.

use super::{Log, prepare};

impl Log {
    pub(super) fn is_by_hand(&self) -> bool {
        self.shared.options.is_by_hand
    }

    /// Writes what is queued as one group, and tells those who wait for it.
    pub(crate) fn write_queued(&self) {
        if self.shared.inner.lock().spares.is_empty() {
            prepare::prepare(&self.shared).expect("the disk has room");
        }
        let mut writer = self.writer.lock();
        let Some(batch) = self.shared.take_batch() else { return };
        let written = writer.write_batch(&batch);
        writer.finish(batch, written);
    }

    /// The same, for who blocks until it is done; nothing in a log that has its threads.
    pub(super) fn write_by_hand(&self) {
        if self.is_by_hand() {
            self.write_queued();
        }
    }

    /// Forgets what is queued, as a crash does.
    pub(crate) fn lose_queued(&self) {
        let lost = std::mem::take(&mut self.shared.inner.lock().queue);
        drop(lost);
    }
}
