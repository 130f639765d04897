//! What the store asks of the log: that it holds an entry durably, before LMDB does; and that it begins
//! behind a store which came from another member.

use std::sync::Arc;
use std::time::Duration;

use revfs_store::{LogBarrier, Position, Reached};

use super::queue::{Inner, Write};
use super::{Completion, Log, LogError, LogId};

impl Log {
    /// Begins behind `id`, which a store holds that was not made from this log: unless the log goes
    /// through `id`, all its entries are given up. `done` is called when that is durable.
    pub fn begin_behind(&self, id: LogId, done: Completion) {
        self.submit(Some(done), |inner| {
            if inner.index.holds(id) {
                return Ok(Vec::new());
            }
            let purged = inner.index.state().purged;
            inner.index.truncate_after(purged);
            inner.index.purge(id);
            Ok(vec![Write::TruncateAfter(purged), Write::Purge(id)])
        });
        #[cfg(test)]
        self.write_by_hand();
    }

    /// Waits until the entry `id` is durable, at most `timeout`; returns whether it is. One that was
    /// given up at the front is: a store holds it.
    ///
    /// # Errors
    /// A log that has failed: the entry may never be durable.
    pub fn wait_durable(&self, id: LogId, timeout: Duration) -> Result<bool, LogError> {
        #[cfg(test)]
        self.write_by_hand();
        let mut inner = self.shared.inner.lock();
        let is_open = |inner: &mut Inner| !inner.index.is_durable(id) && inner.failed.is_none();
        self.shared.flushed.wait_while_for(&mut inner, is_open, timeout);
        match &inner.failed {
            _ if inner.index.is_durable(id) => Ok(true),
            Some(reason) => Err(LogError::Failed { reason: Arc::clone(reason) }),
            None => Ok(false),
        }
    }
}

impl LogBarrier for Log {
    fn wait(&self, position: &Position, timeout: Duration) -> Reached {
        let id = LogId { term: position.term, index: position.index };
        match self.wait_durable(id, timeout) {
            Ok(true) => Reached::Durable,
            Ok(false) => Reached::NotYet,
            Err(error) => Reached::Never { reason: Arc::from(error.to_string()) },
        }
    }
}
