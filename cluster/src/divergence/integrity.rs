//! Whether this member may show what it holds: not while the alarm CORRUPT is raised for it. Whether the
//! others may change anything is for apply to say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use revfs_store::{Alarm, AlarmKind, Store, StoreError};

/// See the module.
#[derive(Debug)]
pub(crate) struct Integrity {
    own: Alarm,
    is_corrupt: AtomicBool,
}

impl Integrity {
    pub(crate) fn new(member: u64) -> Self {
        let own = Alarm { member, kind: AlarmKind::Corrupt };
        Self { own, is_corrupt: AtomicBool::new(false) }
    }

    /// Looks at the alarms of a store; whether that changed anything. Called by apply, after an entry that
    /// may have raised or lifted one.
    pub(crate) fn look(&self, store: &Store) -> Result<bool, StoreError> {
        let is_corrupt = store.read_view()?.alarms()?.contains(&self.own);
        let changed = self.is_corrupt.swap(is_corrupt, Ordering::SeqCst) != is_corrupt;
        if changed && is_corrupt {
            let member = format!("{:x}", self.own.member);
            tracing::error!(
                member,
                "the alarm CORRUPT is raised for this member: it holds other data than a majority and \
                 serves nothing until it is replaced"
            );
        } else if changed {
            tracing::info!("the alarm CORRUPT of this member is lifted");
        }
        Ok(changed)
    }

    pub(crate) fn is_corrupt(&self) -> bool {
        self.is_corrupt.load(Ordering::SeqCst)
    }

    /// Refuses what shows or changes anything, as a store does that was closed by damage.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        if !self.is_corrupt() {
            return Ok(());
        }
        let reason = format!(
            "member {0:x} holds other data than a majority of the cluster (alarm CORRUPT): ask another \
             member, and replace this one ('revfs member replace {0:x}')",
            self.own.member
        );
        Err(StoreError::Closed { reason: Arc::from(reason) })
    }
}
